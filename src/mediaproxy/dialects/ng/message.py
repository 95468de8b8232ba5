"""A message of the NG protocol: a cookie, a space, and a dictionary in bencode or JSON.

Bytes come in, a Message goes out; the answer goes back in the same coding, after the same cookie. Texts of JSON stand
for their UTF-8 bytes. What is no message is an NgError whose text is rtpengine's own.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from mediaproxy.dialects.ng import bencode
from mediaproxy.dialects.ng.bencode import DEEPEST, Entry, NgError, Written

_BRACE, _DICTIONARY = b"{d"
_json = msgspec.json.Decoder()


class Coding(msgspec.Struct, frozen=True):
    """How the answer is written."""

    cookie: bytes | None
    "None: this kind of connection has none."
    json: bool = False

    def encode(self, answer: Mapping[str, object]) -> bytes:
        """The message. Text is Latin-1, one character per byte."""
        payload = msgspec.json.encode(_for_json(answer)) if self.json else bencode.encode(answer)
        return payload if self.cookie is None else b"%b %b" % (self.cookie, payload)


def split(message: bytes) -> tuple[bytes, int] | None:
    """The cookie, and where the dictionary begins; None: there is no cookie."""
    at = message.find(b" ")
    return None if at < 1 else (message[:at], at + 1)


def entries(message: bytes, at: int) -> list[Entry]:
    """Of the dictionary that begins at ``at``: with keys of bytes (bencode) or str (JSON). NgError."""
    if at >= len(message):
        raise NgError("Invalid data (no payload)")
    if message[at] == _DICTIONARY:
        return bencode.entries(message, at)
    if message[at] != _BRACE:
        raise NgError("Invalid NG data format")
    try:
        value = _json.decode(memoryview(message)[at:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NgError("Failed to parse JSON document") from error
    plain = _plain(value, 0)
    if not isinstance(plain, dict):
        raise NgError("Could not decode JSON dictionary")
    return [(key, value, repr((key, value))) for key, value in plain.items()]


def _plain(value: Any, depth: int) -> Any:
    """JSON as the protocol has it: numbers are whole, true and false are 1 and 0, null is an empty text."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int)):
        return int(value)
    if isinstance(value, float):
        return int(value) if abs(value) < 2**53 else 0
    if value is None:
        return ""
    if depth >= DEEPEST:
        raise NgError("Could not decode JSON dictionary")
    if isinstance(value, list):
        return [_plain(one, depth + 1) for one in value]
    return {key: _plain(one, depth + 1) for key, one in value.items()}


def _for_json(value: object) -> object:
    if isinstance(value, Written):
        value = bencode.decode(value.encode("latin-1", "replace"))
    if isinstance(value, str):
        value = value.encode("latin-1", "replace")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {_for_json(key): _for_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_for_json(one) for one in value]
    return value
