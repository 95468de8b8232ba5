"""SIP messages for tests: those of RFC 4475, those of tests/messages, and what hypothesis makes of them."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import strategies as st

from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Request, Response, parse

HERE = Path(__file__).parent
TORTURE = {path.stem: path.read_bytes() for path in sorted((HERE / "rfc4475").glob("*.dat"))}
MESSAGES = {path.stem: path.read_bytes() for path in sorted((HERE / "messages").glob("*.sip"))}
CORPUS = tuple(sorted({*TORTURE.values(), *MESSAGES.values()}, key=lambda data: (len(data), data)))

_BITS = tuple(
    [bytes([byte]) for byte in b'\r\n\t :;,=<>"\\@?[]%/*\x00\x7f\x85\xa0\xff0\xb2']
    + [
        b"\r\n",
        b"\r\n ",
        b"\r\n\r\n",
        b"\n\n",
        b'\\"',
        b"SIP/2.0",
        b"Via: ",
        b"m:",
        b"l: 5\r\n",
        b"<sip:",
        b"sips:a@b",
        b"[::1]",
    ]
    + [b"Contact: *\r\n", b";tag=", b";rport", b"99999999999999999999", b"-1", b"%00", b"a" * 300]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A message of the corpus after one to four small accidents."""
    data = draw(st.sampled_from(CORPUS))
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.sampled_from((0, 0, 1, 2, 5, 30))))
        middle = draw(st.one_of(st.sampled_from(_BITS), st.binary(max_size=3)))
        data = data[:begin] + middle + data[end:]
    return data


anything = st.one_of(st.sampled_from(CORPUS), mutated(), st.binary(max_size=200))
"Bytes from right over nearly right to noise."


def parsed(data: bytes) -> Request | Response | None:
    """The message, or None if it is refused; any other error fails the test."""
    try:
        return parse(data)
    except SipError:
        return None


@contextlib.contextmanager
def quickly(seconds: float = 0.5) -> Iterator[None]:
    """Fails if the block takes more processor time: what a peer writes must not cost more than its length."""
    begin = time.process_time()
    yield
    assert time.process_time() - begin < seconds


def field_lines(data: bytes) -> list[bytes]:
    """The header fields as they stand in the bytes, found by another way than the parser finds them."""
    data = data.lstrip(b"\r\n")
    ends = [at for blank in (b"\n\r\n", b"\n\n") if (at := data.find(blank)) >= 0]
    head = data[: min(ends)] if ends else data[:-1]
    fields: list[bytes] = []
    for line in head.split(b"\n")[1:]:
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] += b"\n" + line
        else:
            fields.append(line)
    return fields


GETTERS: tuple[Callable[[Request | Response], object], ...] = (
    lambda m: m.call_id,
    lambda m: m.cseq,
    lambda m: (m.from_, m.from_.tag, m.from_.display, m.from_.uri.aor, m.from_.uri.endpoint),
    lambda m: (m.to, m.to.tag, m.to.display, m.to.params, m.to.uri.params),
    lambda m: (m.via, m.via.branch, m.via.rport, m.via.received, m.via.sent_by, m.via.response_endpoint()),
    lambda m: m.vias,
    lambda m: [(c.uri.aor, c.uri.endpoint, c.params, c.star, c.display) for c in m.contacts],
    lambda m: (m.routes, m.record_routes),
    lambda m: (m.content_type, m.content_length, m.max_forwards, m.expires, m.user_agent),
    lambda m: (m.body, m.octets, m.names, m.start_line, repr(m), hash(m)),
    lambda m: (m.uri, m.uri.headers, m.uri.rest) if isinstance(m, Request) else (m.status, m.reason),
    lambda m: [m.values(name) for name in m.names],
    lambda m: [m.headers(name) for name in m.names],
)
"Everything that reads something a peer wrote."

_VALUE_PARTS = [
    "sip:",
    "sips:",
    "tel:",
    "a",
    "b",
    "@",
    "[::1]",
    "192.0.2.1",
    ":5060",
    ";lr",
    ";x=1",
    "?h=v",
    "%41",
    "<",
    ">",
    '"',
    "\\",
    " ",
    "\r\n ",
    "SIP/2.0/UDP ",
    ",",
    "*",
    "\xff",
    "\x00",
    ";tag=",
]
values = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=40),
    st.lists(st.sampled_from(_VALUE_PARTS), max_size=12).map("".join),
)
"Header values from right over nearly right to noise."
