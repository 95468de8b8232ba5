"""The lines of an SDP before its first m=, of which NG may replace o= and s=, and what they must agree with later.

Texts without ``o=`` and ``s=`` come in and go out; a text that cannot be read stays as it is.
"""

import hashlib
import re
from collections.abc import Sequence

import msgspec

from mediaproxy.dialects.ng.memo import Told

# RFC 8866 §5.2: o=<username> <sess-id> <sess-version> <nettype> <addrtype> <unicast-address>
_ORIGIN = re.compile(r"(\S+)([ \t]+)(\S+)([ \t]+)(\d{1,20})([ \t]+)(\S+[ \t]+)(\S+)([ \t]+)(\S+)(.*)", re.ASCII)
_FIELDS = 6
COUNTING = frozenset(("sdp-version", "force-increment-sdp-ver"))
AGREEING = frozenset(("origin-full", "username", "session-name")) | COUNTING
"Words of ``replace`` whose effect depends on what was told before."


def origin(text: str, address: str, words: frozenset[str], told: Told) -> str:
    """An o= line with the relay's address, and what else is to be replaced in it. ``address``: empty, none."""
    parts = text.split(" ")
    if words.isdisjoint(AGREEING) and len(parts) == _FIELDS and "" not in parts:
        if address and "origin" in words:
            parts[4:] = ("IP6" if ":" in address else "IP4"), address
        return " ".join(parts)
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return text
    first = _ORIGIN.fullmatch(told.origin)
    if "origin-full" in words and first is not None:
        parts = list(first.groups())
        parts[4] = match[5]  # the version is a thing of its own
        return "".join(parts)
    parts = list(match.groups())
    if "username" in words and first is not None:
        parts[0] = first[1]
    if address and not words.isdisjoint(("origin", "origin-full")):
        parts[7], parts[9] = ("IP6" if ":" in address else "IP4"), address
    return "".join(parts)


def session_name(text: str, words: frozenset[str], told: Told) -> str:
    """An s= line: with ``session-name`` the first one that was told."""
    return told.session if "session-name" in words and told.session else text


def numbered(body: bytes, words: frozenset[str], told: Told) -> tuple[bytes, Told]:
    """The SDP with its version as the words want it, and what was told therewith. It counts on by one when the SDP
    differs from the last one in anything but its version (RFC 3264 §8), or always."""
    lines = body.splitlines(keepends=True)
    at = next((number for number, line in enumerate(lines) if line[:2] == b"o="), None)
    written = lines[at][2:].rstrip(b"\r\n").decode("latin-1") if at is not None else ""
    match = _ORIGIN.fullmatch(written)
    session = _value(lines, b"s=")
    if at is None or match is None:
        return body, msgspec.structs.replace(told, session=told.session or session)
    first = msgspec.structs.replace(told, origin=told.origin or written, session=told.session or session)
    if words.isdisjoint(COUNTING):
        return body, first
    digest = hashlib.blake2b(digest_size=8)
    digest.update(b"".join(lines[:at] + lines[at + 1 :]))
    digest.update("".join((*match.groups()[:4], *match.groups()[5:])).encode("latin-1"))
    version = int(match[5])
    changed = told.digest != digest.hexdigest() or "force-increment-sdp-ver" in words
    version = version if told.version < 0 else told.version + changed
    line = f"o={written[: match.start(5)]}{version}{written[match.end(5) :]}".encode("latin-1")
    lines[at] = line + lines[at][len(lines[at].rstrip(b"\r\n")) :]
    return b"".join(lines), msgspec.structs.replace(first, version=version, digest=digest.hexdigest())


def _value(lines: Sequence[bytes], start: bytes) -> str:
    return next((line[2:].rstrip(b"\r\n").decode("latin-1") for line in lines if line[:2] == start), "")
