"""The torture tests of RFC 4475, all of them: what we make of each, and why.

Three answers are possible. ``parse`` refuses what has no shape of a SIP message. ``check`` refuses, with a status, what
RFC 4475 tells a server to refuse. All else passes; what is then to be answered by somebody who knows more than the
message (a proxy for Max-Forwards 0, a registrar for a strange scheme) is noted as such. Whatever parses is lossless.
"""

import pytest

from mediaproxy.sip.check import check
from mediaproxy.sip.framing import Framer
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Request, parse, response_to
from tests.sip_corpus import GETTERS, TORTURE

ACCEPTED = {
    # 3.1.1 valid messages
    "wsinv": "a short tortuous INVITE: folds, compact names, spaces before colons, escapes in quotes",
    "intmeth": "wide range of valid characters",
    "esc01": "escapes in URIs",
    "escnull": "escaped NULs in URIs",
    "esc02": "a percent sign that escapes nothing, in method, branch, name and header name",
    "lwsdisp": "no space between display name and <",
    "longreq": "long values",
    "dblreq": "a second request behind the first in one datagram: octets behind the declared body",
    "semiuri": "a semicolon in the user part",
    "transports": "known and unknown transports in Via",
    "mpart01": "multipart body with binary octets",
    "unreason": "unusual reason phrase, UTF-8",
    "noreason": "empty reason phrase",
    # 3.1.2 invalid, but in a way that is none of our business
    "baddate": "3.1.2.12: a time zone other than GMT; who does not use the Date may ignore it",
    # 3.2 transaction layer
    "badbranch": "3.2.1: a branch of the magic cookie alone; the transaction layer must not take it for unique",
    # 3.3 application layer
    "unksm2": "3.3.4: strange schemes in To, From and Contact: the registrar answers",
    "bext01": "3.3.5: Require and Proxy-Require: the proxy answers 420",
    "invut": "3.3.6: a body of unknown type: the callee answers",
    "regaut01": "3.3.7: an unknown authorization scheme: the registrar answers",
    "bcast": "3.3.10: a response with a broadcast address in a Via that is not ours to follow",
    "zeromf": "3.3.11: Max-Forwards 0: the proxy answers 483",
    "cparam01": "3.3.12: a parameter of the Contact",
    "cparam02": "3.3.13: a parameter of the Contact's URI",
    "regescrt": "3.3.14: escaped headers in a Contact's URI, in brackets",
    "sdp01": "3.3.15: an Accept without SDP: the callee answers",
    "inv2543": "3.4.1: RFC 2543: no branch, no From tag, no Content-Length",
}

REFUSED_BY_CHECK = {
    "badinv01": (400, "via", "3.1.2.1: a Via of separators without values"),
    "clerr": (400, "content-length", "3.1.2.2: Content-Length larger than the datagram"),
    "ncl": (400, "content-length", "3.1.2.3: negative Content-Length"),
    "scalar02": (400, "cseq", "3.1.2.4: numbers beyond their range in a request"),
    "scalarlg": (400, "cseq", "3.1.2.5: numbers beyond their range in a response: dropped"),
    "quotbal": (400, "to", "3.1.2.6: a quote without its end in To"),
    "ltgtruri": (400, "Request-URI", "3.1.2.7: <> around the Request-URI"),
    "lwsruri": (400, "Request-URI", "3.1.2.8: white space in the Request-URI"),
    "lwsstart": (400, "start line", "3.1.2.9: two spaces in the request line, which a proxy must not pass on"),
    "trws": (400, "start line", "3.1.2.10: spaces behind the request line, which a proxy must not pass on"),
    "escruri": (400, "Request-URI", "3.1.2.11: headers in the Request-URI"),
    "regbadct": (400, "contact", "3.1.2.13: a Contact with headers but without brackets"),
    "badaspec": (400, "to", "3.1.2.14: spaces within the addr-spec"),
    "baddn": (400, "a comma|from", "3.1.2.15: a comma in an unquoted display name"),
    "badvers": (505, "version", "3.1.2.16: SIP/7.0"),
    "mismatch01": (400, "cseq", "3.1.2.17: CSeq of another method"),
    "mismatch02": (400, "cseq", "3.1.2.18: CSeq of another method, and the method unknown"),
    "insuf": (400, "call-id", "3.3.1: no Call-ID, From and To"),
    "unkscm": (416, "scheme", "3.3.2: a Request-URI of an unknown scheme"),
    "novelsc": (416, "scheme", "3.3.3: a Request-URI of a known scheme that is not for SIP"),
    "multi01": (400, "more than one", "3.3.8: several values where one belongs"),
    "mcl01": (400, "content-length", "3.3.9: two different Content-Lengths"),
}

REFUSED_BY_PARSE = {
    "bigcode": "3.1.2.19: a status code of ten digits",
    "test": "in no section: a start line without version, a header line without colon",
}

# The getters that raise. Where none does, the message can be read but must not be passed on.
RAISES = {
    "badinv01": {"vias"},
    "scalar02": {"cseq"},
    "scalarlg": {"cseq"},
    "quotbal": {"to"},
    "ltgtruri": {"uri"},
    "lwsruri": {"uri"},
    "badaspec": {"to"},
    "insuf": {"call_id", "from_", "to"},
}
NAMES = ("call_id", "cseq", "from_", "to", "via", "vias", "contacts", "routes", "record_routes", "uri")


def test_the_table_is_complete() -> None:
    assert len(TORTURE) == 50
    assert sorted([*ACCEPTED, *REFUSED_BY_CHECK, *REFUSED_BY_PARSE]) == sorted(TORTURE)


@pytest.mark.parametrize("name", [*ACCEPTED, *REFUSED_BY_CHECK])
def test_lossless(name: str) -> None:
    assert bytes(parse(TORTURE[name])) == TORTURE[name]


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    message = parse(TORTURE[name])
    check(message)
    for getter in GETTERS:
        getter(message)


@pytest.mark.parametrize("name", REFUSED_BY_CHECK)
def test_refused_by_check(name: str) -> None:
    status, what, _ = REFUSED_BY_CHECK[name]
    message = parse(TORTURE[name])
    with pytest.raises(SipError, match=what) as caught:
        check(message)
    assert caught.value.status == status
    if isinstance(message, Request):
        answer = response_to(message, status, to_tag="x")
        assert bytes(parse(bytes(answer))) == bytes(answer)


@pytest.mark.parametrize("name", REFUSED_BY_PARSE)
def test_refused_by_parse(name: str) -> None:
    with pytest.raises(SipError):
        parse(TORTURE[name])


@pytest.mark.parametrize("name", [*ACCEPTED, *REFUSED_BY_CHECK])
def test_which_getters_raise(name: str) -> None:
    message = parse(TORTURE[name])
    raising = set()
    for getter in NAMES:
        if getter == "uri" and not message.is_request:
            continue
        try:
            getattr(message, getter)
        except SipError:
            raising.add(getter)
    assert raising == RAISES.get(name, set())


def test_wsinv_in_detail() -> None:
    m = parse(TORTURE["wsinv"])
    assert isinstance(m, Request)
    assert (m.to.tag, m.from_.tag, m.from_.display) == ("1918181833n", "98asjd8", 'J Rosenberg \\"')
    assert (m.max_forwards, m.cseq.number, m.cseq.method, m.content_length) == (68, 9, "INVITE", len(m.octets))
    assert [(via.transport, via.host, via.branch) for via in m.vias] == [
        ("UDP", "192.0.2.2", "390skdjuw"),
        ("TCP", "spindle.example.com", "z9hG4bK9ikj8"),
        ("UDP", "192.168.255.111", "z9hG4bK30239"),
    ]
    (contact,) = m.contacts
    assert (contact.display, dict(contact.params)) == (
        'Quoted string ""',
        {"newparam": "newvalue", "secondparam": "", "q": "0.33"},
    )
    assert m.header("Subject") == ""
    assert m.header("NewFangledHeader") == "newfangled value continued newfangled value"
    assert "unknown-no-value" in m.routes[0].uri.params
    assert "unknownparam" in m.uri.params


def test_other_details() -> None:
    assert parse(TORTURE["esc01"]).to.uri.aor == "sip:user@example.com"
    assert parse(TORTURE["esc02"]).headers("Contact") == (
        "<sip:alias1@host1.example.com>",
        "<sip:alias3@host3.example.com>",
    )
    assert len(parse(TORTURE["longreq"]).vias) == 34
    assert parse(TORTURE["longreq"]).vias[-1].received == "192.0.2.5"
    assert parse(TORTURE["intmeth"]).cseq.method == "!interesting-Method0123456789_*+`.%indeed'~"
    assert parse(TORTURE["semiuri"]).header("Accept") == (
        "application/sdp, application/pkcs7-mime, multipart/mixed, multipart/signed, message/sip, message/sipfrag"
    )
    assert dict(parse(TORTURE["cparam01"]).contacts[0].params) == {"unknownparam": ""}
    assert dict(parse(TORTURE["cparam02"]).contacts[0].uri.params) == {"unknownparam": ""}
    assert parse(TORTURE["regescrt"]).contacts[0].uri.headers == "Route=%3Csip:sip.example.com%3E"


def test_the_octets_behind_a_request_do_not_travel_on() -> None:
    m = parse(TORTURE["dblreq"])
    assert m.body == b""
    assert b"INVITE" in m.octets and b"INVITE" not in bytes(m.delimited())
    assert bytes(m.delimited()) == TORTURE["dblreq"][: TORTURE["dblreq"].index(b"\r\n\r\n") + 4]


@pytest.mark.parametrize(("name", "broken"), [("ncl", True), ("mcl01", True), ("inv2543", True), ("clerr", False)])
def test_lengths_on_a_stream(name: str, broken: bool) -> None:
    """RFC 4475: over TCP the first three end the connection; for the last one the receiver waits."""
    framer = Framer()
    if broken:
        with pytest.raises(SipError):
            framer.feed(TORTURE[name])
    else:
        assert framer.feed(TORTURE[name]) == []
