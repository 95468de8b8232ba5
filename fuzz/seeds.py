"""Writes what fuzzing begins with, from the captures and messages of the tests: ``python -m fuzz.seeds``.

One input per captured call, so that an offer stands before its answer; for what a connection brings also in small
pieces. What a run finds is added by libFuzzer itself (-merge=1), and is not from here.
"""

import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import groupby
from pathlib import Path

from fuzz.dialects import BETWEEN

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests"
CAPTURES = TESTS / "captures"
_DATAGRAM = re.compile(rb"^### port\d+ from \S+ (\d+) bytes\n", re.MULTILINE)
_REQUEST = re.compile(rb"^### request [^\n]*\n(.*?)(?=^### )", re.MULTILINE | re.DOTALL)
_CALL = re.compile(rb"c\d+-[a-z0-9-]+")
_LONGEST = 4000
_V1 = (
    b"request 8f3a@a 192.168.1.10:5004:audio,192.168.1.10:5006:video 198.51.100.7 example.com local example.net remote "
    b"Phone%20X info=from:alice@example.com,to:bob@example.net,fromtag:a1,totag:,asymmetric\n",
    b"lookup 8f3a@a 10.0.0.9:40000:audio,10.0.0.9:0:video 203.0.113.77 example.com local example.net unknown Phone "
    b"info=from:alice@example.com,to:bob@example.net,fromtag:a1,totag:b1\n",
    b"delete 8f3a@a info=\n",
    b"status\n",
    b"version\n",
    b"controls\n",
)


def main() -> None:
    """See above."""
    _write("sip", _files(TESTS / "rfc4475", "*.dat"))
    _write("sip", _files(TESTS / "messages", "*.sip"))
    _write("sdp", _bodies())
    _write("rtpproxy", _calls("rtpproxy.cap", transports=3))
    _write("ng", _calls("rtpengine-ng.cap", transports=3))
    for name in ("mediaproxy2-use.cap", "mediaproxy2-engage-ice.cap"):
        _write("v2", _blocks(name))
    _write("v1", (bytes((at, cut)) + line for at, cut in ((0, 0), (1, 9)) for line in _V1))


def _write(target: str, inputs: Iterable[bytes]) -> None:
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        if len(data) <= _LONGEST:
            (folder / sha256(data).hexdigest()[:16]).write_bytes(data)


def _files(folder: Path, pattern: str) -> Iterator[bytes]:
    return (path.read_bytes() for path in sorted(folder.glob(pattern)))


def _bodies() -> Iterator[bytes]:
    for data in _files(TESTS / "messages", "*.sip"):
        head, blank, body = data.partition(b"\r\n\r\n")
        kind = re.search(rb"(?im)^(?:content-type|c) *: *([^\r\n]+)", head)
        if blank and body and kind is not None and kind[1].startswith(b"multipart"):
            yield b"\0" + kind[1] + b"\n" + body
        elif body.startswith(b"v="):
            yield body


def _calls(name: str, transports: int) -> Iterator[bytes]:
    """The datagrams of each call, as datagrams and as what a connection brings."""
    capture = (CAPTURES / name).read_bytes()
    found = [capture[head.end() : head.end() + int(head[1])] for head in _DATAGRAM.finditer(capture)]
    named = [(_CALL.search(data), data) for data in found]
    for _, group in groupby(named, key=lambda one: one[0][0] if one[0] is not None else b""):
        datagrams = list(dict.fromkeys(data for _, data in group))[:8]
        yield b"\0\0" + BETWEEN.join(datagrams)
        if name.startswith("rtpproxy"):
            datagrams = [data.partition(b" ")[2] + b"\n" for data in datagrams]
        yield bytes((1 + len(datagrams) % (transports - 1), 11)) + b"".join(datagrams)


def _blocks(name: str) -> Iterator[bytes]:
    capture = (CAPTURES / name).read_bytes()
    found = [block[1] for block in _REQUEST.finditer(capture)]
    named = [(_CALL.search(data), data) for data in found]
    for _, group in groupby(named, key=lambda one: one[0][0] if one[0] is not None else b""):
        yield b"\0\7" + b"".join(data for _, data in group)


if __name__ == "__main__":
    main()
