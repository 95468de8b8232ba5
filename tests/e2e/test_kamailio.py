"""Edits of messages inside a real Kamailio: what must change changes, everything else stays byte for byte."""

import re
from collections.abc import Callable, Iterator
from itertools import zip_longest

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mediaproxy.endpoint import Endpoint
from mediaproxy.module import RouteType, Run, drive
from mediaproxy.nat import Arrival
from mediaproxy.policy import Policy
from mediaproxy.sip.message import parse
from tests import kamailiosite
from tests.e2e.conftest import need
from tests.kamailiosite import RELAY, RELAYED, SDP, Site, invite, reply_to, words


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    """What these tests need beside the laboratory."""
    need("kamailio", "unshare")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with kamailiosite.site(tmp_path_factory.mktemp("kamailio")) as one:
        yield one


def expected(site: Site, sent: bytes) -> bytes:
    """What Bob must get of a message after fix_contact and use_media_proxy: what he gets of it untouched, with other
    Contacts and another body, as the pure functions make them."""
    other = re.sub(rb"(X-Request: )[^\r]*", rb"\g<1>none", sent)
    untouched = bytes(site.send(other.replace(b"branch=z9hG4bK", b"branch=z9hG4bKother")))
    source = Endpoint(site.alice.address, site.alice.port)
    run = Run(parse(sent), Arrival(source, "udp", source), Policy(), RouteType.REQUEST)
    run.fix_contact()
    drive(run.use_media_proxy(), reply_to)
    head, blank, _ = untouched.partition(b"\r\n\r\n")
    for old, new in zip(run.arrived.raw_fields("contact"), run.message.raw_fields("contact"), strict=True):
        assert old in head
        head = head.replace(old, new, 1)
    if run.message.octets != run.arrived.octets:
        length = b"\\1\\g<2>%d" % len(run.message.octets)
        head = re.sub(rb"(?im)^(content-length|l)([ \t]*:[ \t]*)\d+", length, head)
    return head + blank + run.message.octets


def known(data: bytes) -> bytes:
    """Without what differs from one run to the other."""
    return re.sub(rb"(?<=X-Request:) [^\r]*|;branch=z9hG4bK[^;,\r]*", b"", data)


def same(site: Site, sent: bytes) -> None:
    """Fail unless a message comes out as it must."""
    got, wanted = known(bytes(site.send(sent))), known(expected(site, sent))
    if not parse(sent).count("content-length"):
        # With a body that is no text it gets one.
        got = re.sub(rb"\r\nContent-Length: %d(?=\r\n\r\n)" % len(parse(wanted).octets), b"", got)
    assert got.split(b"\n") == wanted.split(b"\n")


BOTH = words(request="fix_contact media")
LATIN = "".join(map(chr, range(0xA1, 0x100))).encode("latin-1")
MULTIPART = (
    b"preamble \xe9\r\n--b1\r\nContent-Type: text/plain\r\n\r\nh\xe9llo\r\n--b1\r\nContent-Type: application/sdp\r\n"
    b"Content-Length: %d\r\n\r\n%b\r\n--b1\r\nContent-Type: application/octet-stream\r\n\r\n\x00\x01\xff\r\n--b1--\r\n"
) % (len(SDP), SDP)
STREAMS = SDP.partition(b"m=")[0] + b"".join(b"m=audio %d RTP/AVP 0\r\n" % (5000 + 2 * at) for at in range(100))
LARGE = SDP + b"a=x-filler:" + b"y" * 60_000 + b"\r\n"


def _typed(message: bytes, content_type: bytes) -> bytes:
    return message.replace(b"Content-Type: application/sdp", b"Content-Type: " + content_type, 1)


MESSAGES: dict[str, Callable[[Site], bytes]] = {
    "plain": lambda site: invite(site.alice, site.to, headers=BOTH),
    "two contacts in one line": lambda site: invite(
        site.alice,
        site.to,
        headers=BOTH,
        contact=b'Contact: "one, \\"" <sip:a@10.0.0.1>;q=1 , <sip:b@10.0.0.2:6000;x>\r\n',
    ),
    "contacts in several lines": lambda site: invite(
        site.alice,
        site.to,
        headers=BOTH + b"m:<sip:second@10.0.0.2>\r\nX-Between: 1\r\nCONTACT : <sip:third@10.0.0.3>\r\n",
    ),
    "folded contact": lambda site: invite(
        site.alice, site.to, headers=BOTH, contact=b"Contact:\r\n <sip:a@10.0.0.1>\r\n\t;expires=3\r\n"
    ),
    "only one of the contacts changes": lambda site: invite(
        site.alice, site.to, headers=BOTH + f"Contact: <sip:x@{site.alice.place}>\r\n".encode()
    ),
    "contact in Latin-1": lambda site: invite(
        site.alice, site.to, headers=BOTH, contact=b'Contact: "Andr\xe9 \xfc" <sip:a@10.0.0.1>\r\n'
    ),
    "Latin-1 everywhere": lambda site: (
        invite(
            site.alice,
            site.to,
            SDP.replace(b"s=-", b"s=" + LATIN),
            headers=BOTH + b"Subject: %b\r\nUser-Agent: %b\r\n" % (LATIN, LATIN),
            contact=b'Contact: "%b" <sip:a@10.0.0.1>;x="%b"\r\n' % (LATIN, LATIN),
        )
        .replace(b"From: ", b'From: "%b" ' % LATIN)
        .replace(b"To: ", b'To: "%b" ' % LATIN)
        .replace(b"Call-ID: ", b"Call-ID: \xe9")
    ),
    "UTF-8": lambda site: invite(
        site.alice,
        site.to,
        SDP.replace(b"s=-", "s=\u00fcber \U0001f600".encode()),
        headers=BOTH,
        contact='Contact: "\u00fcber \U0001f600" <sip:a@10.0.0.1>\r\n'.encode(),
    ),
    "a NUL in the body": lambda site: invite(site.alice, site.to, SDP + b"a=x:\0\r\n", headers=BOTH),
    "multipart": lambda site: _typed(
        invite(site.alice, site.to, MULTIPART, headers=BOTH), b'multipart/mixed; boundary="b1"'
    ),
    "100 streams": lambda site: invite(site.alice, site.to, STREAMS, headers=BOTH),
    "60 KiB": lambda site: invite(site.alice, site.to, LARGE, headers=BOTH),
    "60 KiB of Latin-1": lambda site: invite(site.alice, site.to, LARGE.replace(b"yy", b"\xe9\xe8"), headers=BOTH),
    "no Content-Length": lambda site: re.sub(
        rb"Content-Length[^\n]*\n", b"", invite(site.alice, site.to, headers=BOTH)
    ),
    "Content-Length too large": lambda site: invite(site.alice, site.to, headers=BOTH).replace(
        b"Content-Length: 1", b"Content-Length: 9"
    ),
    "Content-Length too small": lambda site: invite(site.alice, site.to, headers=BOTH).replace(
        b"Content-Length: %d" % len(SDP), b"Content-Length: 100"
    ),
    "Content-Length too small, in Latin-1": lambda site: invite(
        site.alice, site.to, SDP.replace(b"s=-", b"s=\xe4"), headers=BOTH
    ).replace(b"Content-Length: %d" % len(SDP), b"Content-Length: 100"),
    "compact forms": lambda site: (
        invite(site.alice, site.to, headers=BOTH)
        .replace(b"Content-Length", b"l")
        .replace(b"Content-Type", b"c")
        .replace(b"Contact", b"m")
        .replace(b"Via", b"v")
        .replace(b"Call-ID", b"i")
    ),
    "two Vias in one line": lambda site: invite(site.alice, site.to, headers=BOTH).replace(
        b";rport\r\n", b";rport, SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKother\r\n"
    ),
    "spaces before colons": lambda site: (
        invite(site.alice, site.to, headers=BOTH + b"X-Header : value\r\n")
        .replace(b"Content-Type:", b"Content-Type :")
        .replace(b"Contact:", b"Contact  :")
    ),
    "Content-Type with a parameter and a fold": lambda site: invite(site.alice, site.to, headers=BOTH).replace(
        b"Content-Type: application/sdp", b'Content-Type:  Application/SDP ;charset="\xe9"\r\n ;x=1  '
    ),
    "no Content-Type": lambda site: re.sub(rb"Content-Type[^\n]*\n", b"", invite(site.alice, site.to, headers=BOTH)),
    "no Contact": lambda site: invite(site.alice, site.to, headers=BOTH, contact=b""),
    "star": lambda site: invite(site.alice, site.to, headers=BOTH, contact=b"Contact: *\r\n"),
    "no body": lambda site: invite(site.alice, site.to, b"", headers=BOTH),
    "hold": lambda site: invite(site.alice, site.to, SDP.replace(b"192.168.1.10", b"0.0.0.0"), headers=BOTH),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_only_what_must_change_changes(site: Site, name: str) -> None:
    same(site, MESSAGES[name](site))


def test_record_route_and_others_edits_survive(site: Site) -> None:
    around = "record_route append=X-Before fix_contact append=X-Between media append=X-After remove=X-Gone"
    sent = invite(site.alice, site.to, headers=words(request=around) + b"X-Gone: 1\r\nX-Umlaut: \xe4\r\n")
    message = site.send(sent)
    assert message.headers("record-route") == (f"<sip:127.0.0.1:{kamailiosite.PORT};lr=on;ftag={message.from_.tag}>",)
    assert [message.header(f"X-{name}") for name in ("Before", "Between", "After")] == ["appended"] * 3
    assert message.header("x-gone") is None
    assert message.raw_fields("x-umlaut") == (b"X-Umlaut: \xe4\r",)
    assert message.header("contact") == f"<sip:a@{site.alice.place}>"
    assert message.body == RELAYED


NO_TEXT = SDP.replace(b"s=-", b"s=\0\xe4") + b"a=x:\0\xe4\r\n"
OVER = SDP.replace(b"a=rtpmap", b"a=x:\xe4\r\na=rtcp:5005\r\na=rtpmap")


@pytest.mark.parametrize("length", [b"", b"Content-Length: 20\r\n", b"Content-Length: 999\r\n"])
def test_neither_its_length_nor_record_route_matters_if_what_changes_is_text(site: Site, length: bytes) -> None:
    sent = invite(site.alice, site.to, NO_TEXT, headers=words(request="record_route fix_contact media append=X-A"))
    message = site.send(re.sub(rb"Content-Length[^\n]*\n", length, sent))
    assert site.results(message)[:3] == [("record_route", 1), ("fix_contact", 1), ("media", 1)]
    assert message.octets == RELAYED.replace(b"s=-", b"s=\0\xe4") + b"a=x:\0\xe4\r\n"
    assert message.header("contact") == f"<sip:a@{site.alice.place}>"
    assert message.header("x-a") == "appended"


def test_else_the_body_gets_the_content_length_that_it_lacks(site: Site) -> None:
    message = site.send(re.sub(rb"Content-Length[^\n]*\n", b"", invite(site.alice, site.to, OVER, headers=BOTH)))
    assert message.octets == OVER.replace(b"IP4 192.168.1.10\r\nt=", f"IP4 {RELAY}\r\nt=".encode()).replace(
        b"5004", b"60000"
    ).replace(b"5005", b"60001")
    assert message.content_length == len(message.octets)


def test_but_that_is_impossible_after_record_route(site: Site) -> None:
    sent = invite(site.alice, site.to, OVER, headers=words(request="record_route fix_contact media"))
    message = site.send(re.sub(rb"Content-Length[^\n]*\n", b"", sent))
    assert site.results(message) == [("record_route", 1), ("fix_contact", 1), ("media", -1)]
    assert message.octets == OVER
    assert message.header("contact") == f"<sip:a@{site.alice.place}>"


# -- anything


def _texts() -> st.SearchStrategy[bytes]:
    """Text of a header: any bytes that do not end the line."""
    return st.binary(max_size=30).map(lambda data: re.sub(rb"[\r\n\0\t ]+", b"-", data))


_DISPLAY = st.one_of(st.just(b""), _texts().map(lambda text: b'"%b" ' % re.sub(rb'["\\\\]', b"'", text)))
_HOSTS = st.sampled_from(
    [b"192.168.1.10", b"10.0.0.1:5062", b"203.0.113.7:5060", b"phone.test", b"[fd00::5]:5060", b"127.0.0.1"]
)
_PARAMS = st.sampled_from([b"", b";q=0.5", b';expires=60;+x="a,b"', b" ; a = b"])
_CONTACT = st.builds(
    lambda display, host, params: display + b"<sip:a@%b;line=1>" % host + params, _DISPLAY, _HOSTS, _PARAMS
)
_CONTACTS = st.builds(
    lambda name, colon, values, comma: name + colon + comma.join(values) + b"\r\n",
    st.sampled_from([b"Contact", b"m", b"CONTACT"]),
    st.sampled_from([b": ", b":", b" : ", b":\r\n "]),
    st.lists(_CONTACT, min_size=1, max_size=3),
    st.sampled_from([b", ", b",", b" ,\r\n\t"]),
)
_OTHERS = st.builds(lambda number, text: b"X-%d: %b\r\n" % (number, text), st.integers(0, 9), _texts())
_STREAMS = st.lists(
    st.builds(
        lambda kind, port, connection, more: b"m=%b %d RTP/AVP 0\r\n%b%b" % (kind, port, connection, more),
        st.sampled_from([b"audio", b"video"]),
        st.sampled_from([0, 5004, 65534]),
        st.sampled_from([b"", b"c=IN IP4 10.0.0.2\r\n", b"c=IN IP4 0.0.0.0\r\n"]),
        st.sampled_from([b"", b"a=rtcp:5005\r\n", b"a=sendonly\r\na=x\r\n", b"a=\xe9\r\n"]),
    ),
    max_size=4,
)
_LENGTHS = st.sampled_from(["right", "right", "right", "none", "small", "large"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    contacts=st.lists(_CONTACTS, max_size=3),
    others=st.lists(_OTHERS, max_size=4),
    subject=_texts(),
    streams=_STREAMS,
    length=_LENGTHS,
)
def test_whatever_comes(
    site: Site, contacts: list[bytes], others: list[bytes], subject: bytes, streams: list[bytes], length: str
) -> None:
    body = SDP.partition(b"m=")[0].replace(b"s=-", b"s=" + subject) + b"".join(streams)
    first, *further = contacts or [b""]
    mixed = b"".join(one for pair in zip_longest(others, further, fillvalue=b"") for one in pair)
    sent = invite(site.alice, site.to, body, headers=BOTH + mixed, contact=first)
    declared = {"right": len(body), "small": len(body) - 9, "large": len(body) + 9}
    if length == "none":
        sent = re.sub(rb"Content-Length[^\n]*\n", b"", sent)
    else:
        sent = sent.replace(b"Content-Length: %d" % len(body), b"Content-Length: %d" % declared[length])
    same(site, sent)
