"""Requests as a SIP server writes them call after call, of which only what is each call's own need be looked at.

Bytes come in, a Command goes out: the same as if all of the request had been decoded.
"""

from collections.abc import Sequence

import msgspec

from mediaproxy.dialects.ng.bencode import Entry, encode, string_at
from mediaproxy.dialects.ng.flags import EACH_TIME, Command
from mediaproxy.dialects.ng.message import entries
from mediaproxy.endpoint import address_text

MOST = 32
"Phrases that are remembered."
LONGEST = 2000
"Bytes of one, without what is each call's own."
_MOST_NUMBERS = 512


class Phrases:
    """Those that one dialect knows. Mutable."""

    def __init__(self) -> None:
        self._known: list[_Phrase] = []
        self._numbers: set[int] = set()
        "Of Commands (``phrase``) that came once, or more often."

    def __len__(self) -> int:
        return len(self._known)

    def read(self, message: bytes, at: int) -> Command:
        """The request whose dictionary begins at ``at``. NgError."""
        for phrase in self._known:
            command = phrase.read(message, at)
            if command is not None:
                return command
        found = entries(message, at)
        command = Command.read(found)
        if command.phrase in self._numbers:
            learned = _learned(found, command)
            # What does not know itself again would be learned again and again, and displace the others.
            if learned is not None and learned.read(message, at) == command:
                self._learn(learned)
        elif command.phrase:
            if len(self._numbers) >= _MOST_NUMBERS:
                self._numbers.clear()
            self._numbers.add(command.phrase)
        return command

    def _learn(self, phrase: "_Phrase") -> None:
        if len(self._known) >= MOST:
            self._known.clear()
        self._known.append(phrase)


class _Phrase(msgspec.Struct, frozen=True):
    """One way to write a request."""

    steps: tuple[tuple[bytes, str], ...]
    "What stands before each string that differs, and the field of Command that it is."
    end: bytes
    "What stands behind the last one. It tells most phrases apart, because modules write the command last."
    command: Command
    "All the rest."

    def read(self, message: bytes, at: int) -> Command | None:
        """The request; None: it is written in another way."""
        if not message.endswith(self.end):
            return None
        fields: dict[str, object] = {}
        for before, field in self.steps:
            if not message.startswith(before, at):
                return None
            try:
                start, at = string_at(message, at + len(before))
            except (IndexError, ValueError):
                return None
            value = message[start:at]
            fields[field] = value if field == "sdp" else value.decode("latin-1")
        if at + len(self.end) != len(message):
            return None
        if "received_from" in fields:
            address = address_text(str(fields["received_from"]))
            if address is None:
                return None
            fields["received_from"] = address
        return msgspec.structs.replace(self.command, **fields)


def _learned(found: Sequence[Entry], command: Command) -> _Phrase | None:
    """How this request was written; None: it is not worth remembering, or not simple."""
    steps: list[tuple[bytes, str]] = []
    before = b"d"
    for key, value, written in found:
        if not isinstance(written, bytes):
            return None  # JSON
        field = EACH_TIME[key][0] if key in EACH_TIME else ""
        if field in ("", "name"):
            before += written
            continue
        listed = isinstance(value, list)
        own = value[-1] if listed and field == "received_from" and len(value) == 2 else value
        if not isinstance(own, bytes):
            return None
        ahead, behind = (b"l" + encode(value[0]), b"e") if listed else (key, b"")
        string = b"%d:%b%b" % (len(own), own, behind)
        if not written.endswith(ahead + string):
            return None
        steps.append((before + written[: -len(string)], field))
        before = behind
    once = len({key for key, _, _ in found}) == len(found)
    if not once or sum(len(fixed) for fixed, _ in steps) + len(before) > LONGEST:
        return None
    nothing = Command()
    rest = msgspec.structs.replace(command, **{field: getattr(nothing, field) for _, field in steps})
    return _Phrase(tuple(steps), before + b"e", rest)
