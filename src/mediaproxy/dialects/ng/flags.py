"""Command: one request of the NG protocol as a value, whichever way its words were written.

A decoded dictionary comes in, fields go out. Keys and words are taken with spaces, hyphens or underscores and in any
case, a list also as text with commas, a number also as text, and all of it from ``rtpp-flags``, the raw text of newer
modules. Words that nobody knows are collected for the log. Nothing is ever raised.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from mediaproxy.dialects.ng.bencode import Entry
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
    came from, as a SIP server writes them call after call. 0: it has none."""

    @classmethod
    def of(cls, dictionary: Mapping[Any, Any]) -> "Command":
        """Read a decoded dictionary."""
        return cls.read([(key, value, repr((key, value))) for key, value in dictionary.items()])

    @classmethod
    def read(cls, entries: Iterable[Entry]) -> "Command":
        """Read the entries of a dictionary; of equal keys the last counts. Keys and texts are bytes (bencode) or str
        (JSON, which stands for its UTF-8 bytes); anything else where a text is expected is as if it were not there."""
        fields: dict[str, Any] = {}
        always: list[Entry] = []
        entries = list({entry[0]: entry for entry in entries}.values())
        for entry in entries:
            each = EACH_TIME.get(entry[0])
            found = None if each is None else each[1](entry[1])
            if each is not None and found is not None:
                fields[each[0]] = found
            else:
                always.append(entry)
        known = _recurring(always)
        if known.received_from and "received_from" in fields:
            # Said in two ways, it may be in ``rtpp-flags``: what stands last counts.
            known = _worked_out(entries, phrase=0)
            del fields["received_from"]
        return msgspec.structs.replace(known, **fields)

    def has(self, *flags: str) -> bool:
        """Whether one of these words is among ``flags``; written with hyphens, in lower case."""
        return not self.flags.isdisjoint(flags)


def _recurring(entries: Sequence[Entry]) -> Command:
    """What does not differ from call to call: a SIP server always writes the same few."""
    key = tuple([written for _, _, written in entries])
    known = _seen.get(key)
    if known is None:
        known = _worked_out(entries, phrase=next(_phrases))
        if sum(map(len, key)) <= _LONGEST_KEPT:
            if len(_seen) >= _MOST_KEPT:
                _seen.clear()
            _seen[key] = known
    return known


def _worked_out(entries: Sequence[Entry], *, phrase: int) -> Command:
    reader = Reader()
    for name, value, _ in entries:
        reader.key(text_of(name), value, 0)
    return Command(**reader.fields(), phrase=phrase)


_seen: dict[tuple[str | bytes, ...], Command] = {}
_phrases = itertools.count(1)
_MOST_KEPT, _LONGEST_KEPT = 512, 2000


def _text(value: Any) -> str | None:
    return text_of(value) if isinstance(value, (bytes, str)) else None


def _bytes(value: Any) -> bytes | None:
    return value if isinstance(value, bytes) else text_of(value).encode("latin-1") if isinstance(value, str) else None


EACH_TIME: dict[Any, tuple[str, Callable[[Any], Any]]] = {
    key: (field, read)
    for name, field, read in (
        ("command", "name", _text),
        ("sdp", "sdp", _bytes),
        ("call-id", "call_id", _text),
        ("from-tag", "from_tag", _text),
        ("to-tag", "to_tag", _text),
        ("via-branch", "via_branch", _text),
        ("received-from", "received_from", received),
    )
    for key in (name, name.encode())
}
"""Keys whose values differ from call to call, as they are usually written -> field of Command, and how that is read;
None: it is no such value."""
