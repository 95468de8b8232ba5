"""Command: one request of the NG protocol as a value, whichever way its words were written.

A decoded dictionary comes in, fields go out. Keys and words are taken with spaces, hyphens or underscores and in any
case, a list also as text with commas, a number also as text, and all of it from ``rtpp-flags``, the raw text of newer
modules. Words that nobody knows are collected for the log. Nothing is ever raised.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import msgspec

from mediaproxy.dialects.ng.reading import Reader, received, text_of
from mediaproxy.dialects.ng.wanted import Codecs, Edits


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A request. Texts are Latin-1, one character per byte, and empty where the request says nothing."""

    name: str = ""
    "As sent: ``offer``, ``block media``…; empty: the dictionary has no ``command``."
    call_id: str = ""
    from_tag: str = ""
    to_tag: str = ""
    via_branch: str = ""
    label: str = ""
    to_label: str = ""
    set_label: str = ""
    address: str = ""
    all: str = ""
    notify: str = ""
    "``xmlrpc-callback``."
    message_type: str = ""
    "``SIP message type``: ``request``, ``response``."
    code: int | None = None
    "``SIP code`` of a response."
    sdp: bytes | None = None
    received_from: str = ""
    "An IP address in canonical text."
    media_address: str = ""
    "As written."
    family: int = 0
    "``address family``: 4, 6, or 0."
    direction: tuple[str, ...] = ()
    "Names of the interfaces towards the sender and towards the receiver; at most two."
    tos: int | None = None
    "0 to 255."
    learning: str = ""
    "``off``, ``immediate``, ``delayed``, ``heuristic``."
    transport: str = ""
    ice: frozenset[str] = frozenset()
    ice_lite: str = ""
    drop_traffic: str = ""
    "``start`` or ``stop``."
    dtls: frozenset[str] = frozenset()
    sdes: frozenset[str] = frozenset()
    osrtp: frozenset[str] = frozenset()
    t38: frozenset[str] = frozenset()
    rtcp_mux: frozenset[str] = frozenset()
    bundle: frozenset[str] = frozenset()
    replace: frozenset[str] = frozenset()
    flags: frozenset[str] = frozenset()
    codecs: Codecs = Codecs()
    attributes: dict[str, Edits] = {}
    "``sdp-attr`` by ``global``, ``audio``, ``video``, ``none``…"
    media_remove: frozenset[str] = frozenset()
    supports: frozenset[str] = frozenset()
    from_tags: tuple[str, ...] = ()
    delete_delay: int | None = None
    "Seconds."
    limit: int | None = None
    ptime: int | None = None
    delay_buffer: int | None = None
    needs: tuple[tuple[str, str], ...] = ()
    """Words that need what no relay of ours does, each with what that is: ``recording``, ``transcoding``, ``SRTP
    termination``."""
    unknown: tuple[str, ...] = ()
    "Words that nobody knows, as sent; for the log."
    phrase: int = 0
    """The same number in all requests that differ in nothing but name, SDP, Call-ID, tags, branch and where signalling
    came from, as a SIP server writes them call after call. 0: none yet."""

    @classmethod
    def of(cls, dictionary: Mapping[Any, Any]) -> "Command":
        """Read a decoded dictionary. Keys and texts are bytes (bencode) or str (JSON, which stands for its UTF-8
        bytes); anything else where a text is expected is as if it were not there."""
        fields: dict[str, Any] = {}
        always: list[tuple[Any, Any]] = []
        for key, value in dictionary.items():
            field = _EACH_TIME.get(key)
            if field is None:
                always.append((key, value))
            elif field == "received_from":
                address = received(value)
                if address is not None:
                    fields[field] = address
            elif not isinstance(value, (bytes, str)):
                always.append((key, value))
            else:
                fields[field] = text_of(value)
        if "sdp" in fields:
            fields["sdp"] = fields["sdp"].encode("latin-1")
        return msgspec.structs.replace(_recurring(always), **fields)

    def has(self, *flags: str) -> bool:
        """Whether one of these words is among ``flags``; written with hyphens, in lower case."""
        return not self.flags.isdisjoint(flags)


def _recurring(items: list[tuple[Any, Any]]) -> Command:
    """What does not differ from call to call: a SIP server always writes the same few."""
    key = repr(items)
    known = _seen.get(key)
    if known is None:
        reader = Reader()
        for name, value in items:
            reader.key(text_of(name), value, 0)
        known = Command(**reader.fields(), phrase=next(_phrases))
        if len(key) <= _LONGEST_KEPT:
            if len(_seen) >= _MOST_KEPT:
                _seen.clear()
            _seen[key] = known
    return known


_seen: dict[str, Command] = {}
_phrases = itertools.count(1)
_MOST_KEPT, _LONGEST_KEPT = 512, 2000


_EACH_TIME: dict[Any, str] = {
    key: field
    for name, field in (
        ("command", "name"),
        ("sdp", "sdp"),
        ("call-id", "call_id"),
        ("from-tag", "from_tag"),
        ("to-tag", "to_tag"),
        ("via-branch", "via_branch"),
        ("received-from", "received_from"),
    )
    for key in (name, name.encode())
}
"Keys whose values differ from call to call, as they are usually written -> field of Command."
