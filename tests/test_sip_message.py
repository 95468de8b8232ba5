"""Messages: lossless, read as the RFC says, and edited where they are edited and nowhere else."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mediaproxy.sip.check import check
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.header import CSeq
from mediaproxy.sip.message import Request, Response, parse, response_to
from tests.sip_corpus import CORPUS, GETTERS, anything, mutated, parsed, quickly

Message = Request | Response


def lines(*text: str, body: str = "") -> bytes:
    return ("\r\n".join(text) + "\r\n\r\n" + body).encode("latin-1")


INVITE = lines(
    "INVITE sip:bob@example.com SIP/2.0",
    "Via: SIP/2.0/UDP 192.168.1.20;branch=z9hG4bKa;rport",
    "v: SIP/2.0/TCP one.example.com;branch=z9hG4bKb, SIP/2.0/TLS [2001:db8::2]:5062;branch=z9hG4bKc",
    "Max-Forwards: 0068",
    'f: "A. G. Bell" <sip:agb@bell-telephone.com>;tag=a48s',
    "t: <sip:bob@example.com>",
    "i: a84b4c76e66710",
    "CSeq: 4711 INVITE",
    "Route: <sip:one.example.com;lr>,<sip:two.example.com;lr>",
    "Record-Route: <sip:zero.example.com;lr>",
    "Subject: one, two",
    "Supported: timer, 100rel",
    "Expires: 99999999999",
    "c: Application/SDP ;charset=utf-8",
    "l: 4",
    body="v=0\r",
)


# -- reading --


def test_reads_what_a_server_looks_at() -> None:
    m = parse(INVITE)
    assert isinstance(m, Request) and m.is_request
    assert (m.method, str(m.uri), m.uri_text, m.version) == ("INVITE",) + 2 * ("sip:bob@example.com",) + ("SIP/2.0",)
    assert m.call_id == "a84b4c76e66710"
    assert m.cseq == CSeq(4711, "INVITE")
    assert (m.from_.display, m.from_.tag, m.to.tag) == ("A. G. Bell", "a48s", "")
    assert [via.sent_by for via in m.vias] == ["192.168.1.20", "one.example.com", "[2001:db8::2]:5062"]
    assert m.via == m.vias[0]
    assert [str(route.uri) for route in m.routes] == ["sip:one.example.com;lr", "sip:two.example.com;lr"]
    assert len(m.record_routes) == 1
    assert (m.content_type, m.content_length, m.body) == ("application/sdp", 4, b"v=0\r")
    assert (m.max_forwards, m.expires) == (68, 2**32 - 1)
    assert m.user_agent == ""
    assert m.contacts == ()


def test_names_match_in_any_case_and_compact() -> None:
    m = parse(INVITE)
    for name in ("Via", "via", "VIA", "v", "V", "vIa"):
        assert len(m.headers(name)) == 2
        assert len(m.values(name)) == 3
    assert m.header("FROM") == m.header("f") == '"A. G. Bell" <sip:agb@bell-telephone.com>;tag=a48s'
    assert m.header("X-None") is None and m.headers("X-None") == () and m.values("X-None") == ()
    assert m.names[:4] == ("via", "via", "max-forwards", "from")


def test_a_field_that_is_no_list_keeps_its_commas() -> None:
    m = parse(INVITE)
    assert m.values("Subject") == ("one, two",)
    assert m.values("Supported") == ("timer", "100rel")


def test_user_agent_or_server() -> None:
    assert parse(lines("SIP/2.0 200 OK", "Server: x 1.0")).user_agent == "x 1.0"
    assert parse(lines("SIP/2.0 200 OK", "Server: x", "User-Agent: y")).user_agent == "y"


@pytest.mark.parametrize(
    ("start", "status", "reason"),
    [
        ("SIP/2.0 200 OK", 200, "OK"),
        ("SIP/2.0 100 ", 100, ""),
        ("SIP/2.0 404", 404, ""),
        ("sip/2.0 699 a  b ", 699, "a  b "),
        ("SIP/2.0 183 Фыва".encode().decode("latin-1"), 183, "Фыва".encode().decode("latin-1")),
    ],
    ids=["usual", "empty-reason", "no-reason", "lower-case", "utf-8"],
)
def test_status_lines(start: str, status: int, reason: str) -> None:
    data = lines(start, "Call-ID: 1")
    m = parse(data)
    assert isinstance(m, Response) and not m.is_request
    assert (m.status, m.reason) == (status, reason)
    assert bytes(m) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"\0\0\0\0",
        b"INVITE sip:a@b SIP/2.0",
        b"INVITE sip:a@b SIP/2.0\r\nCall-ID: x",
        b"INVITE sip:a@b\r\n\r\n",
        b"INVITE SIP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"INVITE sip:a@b SIP/2\r\n\r\n",
        b"INV(ITE sip:a@b SIP/2.0\r\n\r\n",
        b" INVITE sip:a@b SIP/2.0\r\n\r\n",
        b"SIP/2.0 99 Low\r\n\r\n",
        b"SIP/2.0 700 High\r\n\r\n",
        b"SIP/2.0 4294967301 Wraps\r\n\r\n",
        "SIP/2.0 20² Superscript\r\n\r\n".encode("latin-1"),
        b"SIP/2.0 -20 Negative\r\n\r\n",
        b"SIP/2.0 20\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\n folded: too early\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\nno colon\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\n: no name\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\ntwo words: x\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\nCall-ID: a\rVia: hidden\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\nCall-ID: a\r\r\n\r\n",
    ],
)
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(SipError):
        parse(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\nOPTIONS sip:a SIP/2.0\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\n",
        b"OPTIONS sip:a SIP/2.0\nl: 0\n\nx",
        b"OPTIONS sip:a SIP/2.0\nl: 0\r\n\nx",
        b"OPTIONS sip:a SIP/2.0\r\nl: 0\n\r\nx\r\r\n\ry",
        b"OPTIONS sip:a SIP/2.0\r\nX: \r\n \r\n\t\r\n\r\n",
        b"OPTIONS  sip:a  b\t SIP/2.0 \r\nX:\r\nX :\r\nx-\xff: \x00\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nl: 0\r\n",
    ],
)
def test_odd_but_lossless(data: bytes) -> None:
    assert bytes(parse(data)) == data


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("Call-ID:", "call-id"),
        ("CSeq: 1", "cseq"),
        ("CSeq: 2147483648 INVITE", "cseq"),
        ("CSeq: ² INVITE", "cseq"),
        ("CSeq: " + "9" * 10000 + " INVITE", "cseq"),
        ('From: "open <sip:a@b>', "from"),
        ("To: <sip:a@b", "to"),
        ("To: <sip:a@b> x", "to"),
        ("Via: SIP/2.0/UDP", "via"),
        ("Via: ,", "via"),
        ("Contact: <sip:a@b:99999>", "contact"),
        ("Route: <>", "route"),
        ("Record-Route: x", "record-route"),
    ],
)
def test_a_broken_header_is_named_when_it_is_read(header: str, name: str) -> None:
    m = parse(lines("INVITE sip:a@b SIP/2.0", header))
    with pytest.raises(SipError, match=f"^{name}: ") as caught:
        getattr(
            m,
            {"from": "from_"}.get(
                name, {"contact": "contacts"}.get(name, name.replace("-", "_") + "s" * ("route" in name))
            ),
        )
    assert caught.value.status == 400


@pytest.mark.parametrize("evil", [",", "*,", "<sip:a@b>,", '"', "<", "\r\n" + " " * 100, " ", "a@", ";", '";', "\\"])
@pytest.mark.parametrize("name", ["Contact", "Via", "To", "Subject", "Content-Length"])
def test_evil_values_of_64_kilobytes_take_no_time(name: str, evil: str) -> None:
    data = lines("INVITE sip:a@b SIP/2.0", f"{name}: {evil * (60000 // len(evil))}x")
    with quickly():
        m = parse(data)
        for getter in GETTERS:
            with contextlib.suppress(SipError):
                getter(m)
    assert bytes(m) == data


@pytest.mark.parametrize("name", ["call_id", "cseq", "from_", "to", "via"])
def test_mandatory_headers(name: str) -> None:
    with pytest.raises(SipError, match="missing"):
        getattr(parse(lines("INVITE sip:a@b SIP/2.0")), name)


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1 1", "²", "٣".encode().decode("latin-1"), "9" * 5000, "0x10", "1e3", "1_0"]
)
def test_optional_numbers_are_none_when_they_are_none(text: str) -> None:
    m = parse(lines("INVITE sip:a@b SIP/2.0", f"Content-Length: {text}", f"Max-Forwards: {text}", f"Expires: {text}"))
    assert (m.content_length, m.max_forwards) == (None, None)
    assert m.expires == (2**32 - 1 if text == "9" * 5000 else None)


@pytest.mark.parametrize(
    ("headers", "length", "body"),
    [
        (["Content-Length: 3"], 3, b"abc"),
        (["l: 3"], 3, b"abc"),
        (["L:0"], 0, b""),
        (["Content-Length: 3", "l: 3"], 3, b"abc"),
        (["Content-Length: 3", "l: 4"], None, b"abcdef"),
        (["Content-Length: 3", "l: x"], None, b"abcdef"),
        (["Content-Length: 00000000000000000000000000003"], 3, b"abc"),
        (["Content-Length:\r\n 3"], 3, b"abc"),
        (["Content-Length: 60"], 60, b"abcdef"),
        ([], None, b"abcdef"),
    ],
    ids=["exact", "compact", "zero", "twice-equal", "twice-different", "twice-broken", "zeros", "fold", "long", "none"],
)
def test_the_body_is_as_long_as_declared(headers: list[str], length: int | None, body: bytes) -> None:
    data = lines("MESSAGE sip:a@b SIP/2.0", *headers, body="abcdef")
    m = parse(data)
    assert (m.content_length, m.body, m.octets) == (length, body, b"abcdef")
    assert bytes(m) == data
    delimited = m.delimited()
    assert (delimited.body, delimited.octets) == (body, body)
    assert delimited.headers("Content-Length") in ((str(len(body)),), m.headers("Content-Length")[:1])
    assert delimited.content_length == len(body)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"\r\nOPTIONS sip:a SIP/2.0\r\nl: 1\r\n\r\nabc", b"OPTIONS sip:a SIP/2.0\r\nl: 1\r\n\r\na"),
        (b"\r\nOPTIONS sip:a SIP/2.0\r\n\r\nabc", b"OPTIONS sip:a SIP/2.0\r\n\r\nabc"),
    ],
    ids=["length", "no-length"],
)
def test_a_message_without_what_else_its_datagram_had(before: bytes, after: bytes) -> None:
    message = parse(before).alone()
    assert bytes(message) == after
    assert message.alone() is message


def test_empty_lines_before_a_message_do_not_enter_a_stream() -> None:
    m = parse(b"\r\n\r\nOPTIONS sip:a SIP/2.0\r\nl: 0\r\n\r\n")
    assert bytes(m.delimited()) == b"OPTIONS sip:a SIP/2.0\r\nl: 0\r\n\r\n", "they would be a ping"


# -- making new ones --


def test_build() -> None:
    request = Request.build("OPTIONS", "sip:a@b", [("Via", "SIP/2.0/UDP h;branch=z9hG4bK1"), ("Call-ID", "1")], b"xy")
    assert bytes(request) == lines(
        "OPTIONS sip:a@b SIP/2.0", "Via: SIP/2.0/UDP h;branch=z9hG4bK1", "Call-ID: 1", "Content-Length: 2", body="xy"
    )
    response = Response.build(486, None, [("l", "0")])
    assert bytes(response) == lines("SIP/2.0 486 Busy Here", "l: 0")
    assert Response.build(599, None, []).reason == ""
    assert Response.build(200, "Fine", []).reason == "Fine"


def test_a_response_copies_what_it_must() -> None:
    request = parse(
        lines(
            "INVITE sip:a@b SIP/2.0",
            "v: SIP/2.0/UDP one;branch=z9hG4bK1;rport ,\r\n SIP/2.0/UDP two",
            "Via  : SIP/2.0/UDP three",
            "Timestamp: 54",
            "Record-Route: <sip:p1;lr>",
            "f : A <sip:a>;tag=1",
            "To: <sip:b>",
            "i: c",
            "CSeq: 7  INVITE",
            "Record-Route: <sip:p2;lr>",
            "Contact: <sip:x>",
        )
    )
    assert isinstance(request, Request)
    vias = ("v: SIP/2.0/UDP one;branch=z9hG4bK1;rport ,\r\n SIP/2.0/UDP two", "Via  : SIP/2.0/UDP three")
    routes = ("Record-Route: <sip:p1;lr>", "Record-Route: <sip:p2;lr>")
    rest = ("i: c", "CSeq: 7  INVITE")
    assert bytes(response_to(request, 100, to_tag="t")) == lines(
        "SIP/2.0 100 Trying", *vias, "f : A <sip:a>;tag=1", "To: <sip:b>", *rest, "Timestamp: 54", "Content-Length: 0"
    )
    assert bytes(response_to(request, 200, to_tag="t", headers=[("Contact", "<sip:y>")], body=b"z")) == lines(
        "SIP/2.0 200 OK",
        *vias,
        *routes,
        "f : A <sip:a>;tag=1",
        "To: <sip:b>;tag=t",
        *rest,
        "Contact: <sip:y>",
        "Content-Length: 1",
        body="z",
    )
    assert bytes(response_to(request, 404, "Nobody", to_tag="t")) == lines(
        "SIP/2.0 404 Nobody", *vias, "f : A <sip:a>;tag=1", "To: <sip:b>;tag=t", *rest, "Content-Length: 0"
    )


def test_a_response_to_a_request_with_lf_has_crlf() -> None:
    request = parse(b"OPTIONS sip:a SIP/2.0\nTo: <sip:b>\n ;tag=x\nVia: SIP/2.0/UDP h\n\n")
    assert isinstance(request, Request)
    assert bytes(response_to(request, 200, to_tag="t")) == lines(
        "SIP/2.0 200 OK", "Via: SIP/2.0/UDP h", "To: <sip:b>\r\n ;tag=x", "Content-Length: 0"
    )


# -- properties --


@given(anything)
@example(b"OPTIONS sip:a SIP/2.0\r\nX:\r\n \r\n\r\n")
def test_whatever_parses_is_lossless_and_raises_only_our_error(data: bytes) -> None:
    m = parsed(data)
    if m is None:
        return
    assert bytes(m) == data
    for getter in GETTERS:
        try:
            getter(m)
        except SipError as error:
            assert 400 <= error.status < 600
    if isinstance(m, Request):
        answer = response_to(m, 400, to_tag="x")
        assert bytes(parse(bytes(answer))) == bytes(answer)


@given(anything)
def test_after_check_every_getter_works(data: bytes) -> None:
    m = parsed(data)
    if m is None:
        return
    try:
        check(m)
    except SipError:
        return
    for getter in GETTERS:
        getter(m)
    assert m.delimited().octets == m.body


@given(st.one_of(st.sampled_from(CORPUS), mutated()), st.binary(max_size=20))
def test_a_new_body_leaves_the_head(data: bytes, body: bytes) -> None:
    m = parsed(data)
    if m is None:
        return
    edited = m.with_body(body)
    again = parse(bytes(edited))
    assert (again.body, again.octets, again.content_length) == (body, body, len(body))
    assert [n for n in edited.names if n != "content-length"] == [n for n in m.names if n != "content-length"]
    for name in m.names:
        if name != "content-length":
            assert again.headers(name) == m.headers(name)
