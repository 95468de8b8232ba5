"""From message to message: nothing is lost, and nothing is altered but what must be."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.control import MediaPort, MediaReply, MediaRequest, decode, encode
from mediaproxy.endpoint import Endpoint
from mediaproxy.policy import Policy
from mediaproxy.sdp import IcePolicy, Sdp, SdpError
from mediaproxy.sip.message import parse
from mediaproxy.traversal import sdp_part
from tests.sip_corpus import anything, parsed, quickly
from tests.test_sdp import bodies
from tests.wholepath import Answer, check_untouched, sent

SDP = "v=0\r\no=- 1 1 IN IP4 10.0.0.5\r\ns=-\r\nc=IN IP4 10.0.0.5\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
HEAD = (
    "INVITE sip:bob@example.com SIP/2.0",
    "Via: SIP/2.0/UDP 10.0.0.5:5060;branch=z9hG4bK1",
    "From: <sip:alice@example.com>;tag=1",
    "To: <sip:bob@example.com>",
    "Call-ID: whole",
    "CSeq: 1 INVITE",
    "Contact: <sip:alice@10.0.0.5:5060>",
    "Content-Type: application/sdp",
)
FIXED = ("<sip:alice@10.0.0.5:5060>", "<sip:alice@198.51.100.7:34567>")
RELAYED = (("c=IN IP4 10.0.0.5", "c=IN IP4 203.0.113.5"), ("m=audio 4000 ", "m=audio 20000 "))


def relay(question: MediaRequest) -> MediaReply:
    """20000, 20004… at 203.0.113.5 for every stream that wants a port. The question passes through the codec."""
    assert decode(encode(question)) == question
    return MediaReply(
        ports=tuple(
            None if stream.endpoint is None else MediaPort(rtp=port, rtcp=stream.rtcp and port.with_port(port.port + 1))
            for number, stream in enumerate(question.streams)
            for port in (Endpoint("203.0.113.5", 20000 + 4 * number),)
        )
    )


def raw(*head: str, body: str = SDP, length: int | None = -1) -> bytes:
    """A message with these lines; ``length``: what Content-Length says, None: there is none, -1: the truth."""
    lines = list(head)
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length < 0 else length}")
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")


def check(data: bytes, *changes: tuple[str, str]) -> bytes:
    """What is sent is the same but for these changes, each of which occurs once."""
    message, fixed, done = sent(parse(data), relay)
    assert (fixed, done) == (1, 1)
    expected = data.decode("latin-1")
    for before, after in changes:
        assert expected.count(before) == 1, before
        expected = expected.replace(before, after)
    assert bytes(message).decode("latin-1") == expected
    again, _, _ = sent(message, relay)
    assert again == message, "a second server finds nothing to do"
    return bytes(message)


def lengths(before: int, after: int) -> tuple[str, str]:
    return f"Content-Length: {before}\r\n", f"Content-Length: {after}\r\n"


N, M = len(SDP), len(SDP) + 4


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        pytest.param(raw(*HEAD), [lengths(N, M)], id="plain"),
        pytest.param(raw(*HEAD, length=None), [], id="no Content-Length"),
        pytest.param(raw(*HEAD, length=9999), [lengths(9999, M)], id="too large a Content-Length"),
        pytest.param(raw(*HEAD, length=N - 7), [lengths(N - 7, M)], id="too small a Content-Length"),
        pytest.param(raw(*HEAD, length=0), [lengths(0, M)], id="Content-Length 0 before an SDP"),
        pytest.param(
            raw(*HEAD, "X-Header : value", "x-header\t:  other  ", "X-Empty:"), [lengths(N, M)], id="space before colon"
        ),
        pytest.param(
            raw(HEAD[0], "Via: SIP/2.0/UDP 203.0.113.9;branch=z9hG4bKp , SIP/2.0/TCP 10.0.0.5;branch=1", *HEAD[2:]),
            [lengths(N, M)],
            id="two Vias in one line",
        ),
        pytest.param(
            raw(*HEAD, "Subject: a\r\n\tb,\r\n  c", "X-Latin\xe9: \xff\x80\x9b \xe4", 'Reason: SIP;text="\xe9\xfc"'),
            [lengths(N, M)],
            id="folds and Latin-1",
        ),
        pytest.param(
            raw(HEAD[0], "v: SIP/2.0/UDP 10.0.0.5", "f:<sip:a@x>;tag=1", "t:<sip:b@x>", "i:c", "CSEQ:1 INVITE")
            .replace(b"\r\nContent-Length", b"\r\nm:<sip:alice@10.0.0.5:5060>\r\nc:application/sdp\r\nContent-Length"),
            [lengths(N, M)],
            id="compact names",
        ),
        pytest.param(
            raw(*HEAD, length=None).replace(b"\r\n", b"\n"), [], id="LF only"
        ),
        pytest.param(b"\r\n\r\n" + raw(*HEAD), [lengths(N, M)], id="empty lines before"),
        pytest.param(
            raw(*HEAD, body=SDP.replace("t=0 0\r", "i=\xff\xe9\r\nX\r\nt=0 0\r")),
            [lengths(N + 9, M + 9)],
            id="odd lines in the SDP",
        ),
    ],
)  # fmt: skip
def test_one_phenomenon_each(data: bytes, changes: list[tuple[str, str]]) -> None:
    check(data, FIXED, *RELAYED, *changes)


def test_octets_behind_the_body_are_none_of_it() -> None:
    """RFC 3261 §18.3. They are gone with the first edit of the body."""
    message, _, _ = sent(parse(raw(*HEAD) + b"\0\0\r\n"), relay)
    assert bytes(message) == check(raw(*HEAD), FIXED, *RELAYED, lengths(N, M))


def test_latin_1_in_every_header() -> None:
    every = bytes(range(0xA0, 0x100)).decode("latin-1")
    head = [
        f"INVITE sip:b\xf6b{every}@example.com SIP/2.0",
        f"Via: SIP/2.0/UDP 10.0.0.5:5060;branch=z9hG4bK{every}",
        f'From: "{every}" <sip:\xe4@example.com>;tag={every}',
        f"To: {every} <sip:\xfc@example.com>",
        f"Call-ID: {every}",
        "CSeq: 1 INVITE",
        f'Contact: "{every}" <sip:{every}@10.0.0.5:5060;x={every}>;y={every}',
        f"User-Agent: {every}",
        f"{every}: {every}",
        "Content-Type: application/sdp;charset=\xe9",
    ]
    check(raw(*head), ("@10.0.0.5:5060;x", "@198.51.100.7:34567;x"), *RELAYED, lengths(N, M))


@pytest.mark.parametrize("padding", [0, 65536], ids=["short", "64 KiB"])
def test_a_hundred_streams(padding: int) -> None:
    media = [f"m=audio {4000 + 2 * n} RTP/AVP 0 8\r\na=rtcp:{5000 + n}\r\n" for n in range(100)]
    body = SDP.partition("m=")[0] + "".join(media)
    body += "a=x-" + "p" * (padding - len(body) - 6) + "\r\n" if padding else ""
    assert not padding or len(body) == 65536
    changes = [(f"m=audio {4000 + 2 * n} ", f"m=audio {20000 + 4 * n} ") for n in range(100)]
    changes += [(f"a=rtcp:{5000 + n}\r\n", f"a=rtcp:{20001 + 4 * n}\r\n") for n in range(100)]
    grown = sum(len(after) - len(before) for before, after in (RELAYED[0], *changes))
    with quickly():
        check(raw(*HEAD, body=body), FIXED, RELAYED[0], *changes, lengths(len(body), len(body) + grown))


def test_64_kib_of_other_bodies_stay() -> None:
    """No SDP: an error, and not a byte is changed."""
    data = raw(*HEAD[:-1], "Content-Type: application/octet-stream", body="\x00\xff\r\n" * 16384)
    message, fixed, done = sent(parse(data), relay)
    assert (fixed, done) == (1, -1)
    assert bytes(message) == data.replace(FIXED[0].encode(), FIXED[1].encode())


def test_many_contacts_are_all_fixed() -> None:
    contacts = ", ".join(f'"n{n}, \\"x" <sip:u{n}@10.0.0.{n}:5060;x=y>;q=0.{n}' for n in range(1, 10))
    head = [*HEAD[:6], f"Contact:{contacts}", "m: sip:z@10.0.0.5;expires=5", HEAD[7]]
    changes = [(f"@10.0.0.{n}:5060;x", "@198.51.100.7:34567;x") for n in range(1, 10)]
    check(raw(*head), *changes, ("sip:z@10.0.0.5;", "sip:z@198.51.100.7:34567;"), *RELAYED, lengths(N, M))


# Properties

_text = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=12)
_token = st.text(st.characters(codec="ascii", categories=["Ll", "Lu", "Nd"]), min_size=1, max_size=8)
_colon = st.sampled_from([": ", ":", " : ", "\t:", ":\r\n ", ": \t"])
_host = st.sampled_from(["10.0.0.5", "198.51.100.7:34567", "[2001:db8::1]:5070", "phone.lan:5062", "192.168.1.1:05060"])
_uri = st.builds(
    lambda scheme, user, host, params: f"{scheme}:{user}{host}{params}",
    st.sampled_from(["sip", "sips", "SIP"]),
    st.sampled_from(["", "alice@", "a;x=1:pw@", "\xe9@"]),
    _host,
    st.sampled_from(["", ";transport=tcp", ";x=\xe4;lr", ";maddr=10.0.0.9?h=v"]),
)
_contact = st.builds(
    lambda name, uri, params: f"{name}<{uri}>{params}",
    st.sampled_from(["", '"A, \\"<x>" ', "Bob ", "\xfc "]),
    _uri,
    st.sampled_from(["", ";expires=60", ';q=1;+sip.instance="<urn:x>"']),
)
_contacts = st.lists(_contact, min_size=1, max_size=3).map(", ".join)
_via = st.builds(lambda host: f"SIP/2.0/UDP {host};branch=z9hG4bKx", _host)


_ICE = ("a=ice-ufrag:x", "a=ice-pwd:y")
_c = st.sampled_from(["c=IN IP4 10.0.0.5", "c=IN IP6 2001:db8::9", "c=IN IP4 0.0.0.0", "c=IN IP4 phone.lan"])
_line = st.one_of(
    st.sampled_from(
        [
            "a=sendonly",
            "a=rtcp:5001",
            "a=rtcp:5001 IN IP4 10.0.0.6",
            "a=rtcp-mux",
            "a=candidate:1 1 UDP 99 10.0.0.5 4000 typ host",
            "a=candidate:1 2 UDP 98 10.0.0.5 4001 typ host",
            *_ICE,
            "b=AS:64",
            "i=m=1",
        ]
    ),
    _text.map(lambda text: f"a={text}"),
)


@st.composite
def _media(draw: st.DrawFn) -> list[str]:
    port = draw(st.sampled_from(["0", "4000", "4000", "4002/2", "9"]))
    transport = draw(st.sampled_from(["RTP/AVP", "RTP/AVP", "UDP/TLS/RTP/SAVPF", "udptl", "TCP/MSRP", "rtp/savp"]))
    own = [draw(_c)] if draw(st.booleans()) else []
    return [f"m=audio {port} {transport} 0 96", *own, *draw(st.lists(_line, max_size=4))]


@st.composite
def _sdps(draw: st.DrawFn) -> bytes:
    """What a phone might write, with line ends of one kind, and perhaps without the last."""
    session = draw(st.lists(_c, max_size=1)) + ["t=0 0"] + draw(st.sampled_from([[], [], list(_ICE), ["a=inactive"]]))
    lines = ["v=0", "o=- 1 1 IN IP4 10.0.0.5", "s=\xff", *session]
    for media in draw(st.lists(_media(), min_size=1, max_size=4)):
        lines += media
    end = draw(st.sampled_from(["\r\n", "\r\n", "\n"]))
    return (end.join(lines) + draw(st.sampled_from([end, end, ""]))).encode("latin-1")


_BOUNDARY = b"--b\r\nContent-Type: application/"
_multiparts = st.builds(
    lambda sdp, length: (
        (_BOUNDARY + b"isup\r\n\r\n\x01\xff\r\n" + _BOUNDARY + b"sdp\r\n")
        + (b"Content-Length: %d\r\n\r\n" % len(sdp) if length else b"\r\n")
        + (sdp + b"\r\n--b--\r\n")
    ),
    _sdps(),
    st.booleans(),
)
_kinds = st.one_of(
    st.tuples(st.just("application/sdp"), _sdps()),
    st.tuples(st.just("application/sdp"), bodies),
    st.tuples(st.just("multipart/mixed;boundary=b"), _multiparts),
)


@st.composite
def _heads(draw: st.DrawFn, kind: str) -> list[str]:
    """A start line and header fields in any order, with odd spellings."""
    method = draw(st.sampled_from([*["INVITE"] * 4, "ACK", "UPDATE", "PRACK", "BYE", "OPTIONS"]))
    start = draw(st.sampled_from([f"{method} sip:b@example.com SIP/2.0", "SIP/2.0 200 \xd6K", "SIP/2.0 183 Progress"]))
    contacts = draw(st.sampled_from([0, 1, 1, 2]))
    fields = [
        (draw(st.sampled_from(["Via", "v", "VIA"])), draw(st.lists(_via, min_size=1, max_size=3).map(" , ".join))),
        (draw(st.sampled_from(["From", "f"])), "<sip:a@example.com>;tag=1"),
        (draw(st.sampled_from(["To", "t"])), f"{draw(_token)} <sip:b@example.com>"),
        (draw(st.sampled_from(["Call-ID", "i"])), draw(_token)),
        ("CSeq", f"1 {method}"),
        (draw(st.sampled_from(["Content-Type", "c", "CONTENT-TYPE"])), kind),
        *((draw(st.sampled_from(["Contact", "m"])), draw(_contacts)) for _ in range(contacts)),
        *((f"X-{draw(_token)}\xe9", draw(_text)) for _ in range(draw(st.integers(0, 3)))),
    ]
    return [start, *(f"{name}{draw(_colon)}{value}" for name, value in draw(st.permutations(fields)))]


@st.composite
def _messages(draw: st.DrawFn) -> bytes:
    kind: str
    body: bytes
    kind, body = draw(_kinds)
    head = draw(_heads(kind))
    wrong = draw(st.sampled_from([None, len(body), len(body), len(body) + 10]))
    if wrong is not None:
        head.append(f"{draw(st.sampled_from(['Content-Length', 'l']))}{draw(_colon)}{wrong}")
    end = draw(st.sampled_from(["\r\n", "\r\n", "\n"]))
    text = ("\r\n".join(head) + "\r\n\r\n").replace("\r\n", end)
    return text.encode("latin-1") + body


@st.composite
def _answers(draw: st.DrawFn) -> Answer:
    """A relay that answers everything the same way: an error, nothing, too many ports, or some for each stream."""
    error = draw(st.sampled_from([None, None, None, MediaReply(error="no", status=480), MediaReply(ports=(None,) * 9)]))
    silent = draw(st.booleans()) and error is None and draw(st.booleans())
    address = draw(st.sampled_from(["203.0.113.5", "2001:db8::5"]))
    first = draw(st.integers(512, 30000)) * 2
    far = draw(st.sampled_from([1, 1, 1001]))
    gaps = draw(st.sets(st.integers(0, 9), max_size=2))

    def answer(question: MediaRequest) -> MediaReply | None:
        if silent or error is not None:
            return error
        ports: list[MediaPort | None] = []
        for number, stream in enumerate(question.streams):
            rtp = Endpoint(address, min(first + 2 * number, 64000))
            rtcp = rtp.with_port(rtp.port + far) if stream.rtcp is not None else None
            left = stream.endpoint is None or number in gaps
            ports.append(None if left else MediaPort(rtp=rtp, rtcp=rtcp))
        return MediaReply(ports=tuple(ports))

    return answer


_policies = st.sampled_from([Policy(ice=ice) for ice in IcePolicy])


def _m_lines(data: bytes) -> list[bytes]:
    return re.findall(rb"(?:\A|(?<=[\r\n]))m=[^\r\n]*", data)


@given(_messages(), _answers(), _policies)
def test_nothing_is_lost_nor_altered(data: bytes, answer: Answer, policy: Policy) -> None:
    message = parse(data)
    questions: list[MediaRequest] = []

    def noted(question: MediaRequest) -> MediaReply | None:
        questions.append(question)
        assert decode(encode(question)) == question
        return answer(question)

    after, _, done = sent(message, noted, policy)
    check_untouched(data, bytes(after), policy.ice)
    assert parse(bytes(after)) == after
    again, _, repeated = sent(parse(bytes(after)), answer, policy)
    assert (again, repeated) == (after, done)
    if done < 0 or not questions:
        assert after.octets == message.octets, "an error changes no body"
        return
    reply = answer(questions[0])
    assert reply is not None
    part, was = sdp_part(after), sdp_part(message)
    assert part is not None and was is not None
    _check_media(Sdp.parse(was.sdp), Sdp.parse(part.sdp), reply.ports)


def _check_media(before: Sdp, after: Sdp, ports: Sequence[MediaPort | None]) -> None:
    for old, new, port in zip(before.sections, after.sections, ports, strict=True):
        assert (new.kind, new.transport, new.formats) == (old.kind, old.transport, old.formats)
        assert new.port == (old.port if port is None else port.rtp.port)
    for line, now, port in zip(_m_lines(bytes(before)), _m_lines(bytes(after)), ports, strict=True):
        assert port is not None or line == now


@given(anything, _answers(), _policies)
def test_whatever_comes_raises_nothing(data: bytes, answer: Answer, policy: Policy) -> None:
    message = parsed(data)
    if message is None:
        return
    after, fixed, done = sent(message, answer, policy)
    assert fixed in (1, -1) and done in (1, -1, -2)
    check_untouched(data, bytes(after), policy.ice, contacts=False)
    assert parse(bytes(after)) == after
    again, _, _ = sent(parse(bytes(after)), answer, policy)
    assert again == after
    part = sdp_part(after)
    if part is not None:
        try:
            Sdp.parse(part.sdp)
        except SdpError:
            assert done < 0 or part == sdp_part(message)
