"""Cutting NG messages out of a connection, which has nothing between them: a message ends where its dictionary does.

Bytes come in, whole messages go out. What no message can be made of goes out as it is, as the last one, so that it gets
the error that it deserves.
"""

LONGEST_COOKIE = 255
"Bytes without a space at the beginning of a message, beyond which there is none."
_BETWEEN = b" \r\n"
_DIGITS = b"0123456789"
_LONGEST_NUMBER = 20


class NgFramer:
    """Mutable."""

    def __init__(self, *, plain: bool = False) -> None:
        """``plain``: a message may have no cookie."""
        self._plain = plain
        self._buffer = bytearray()
        self._at = 0
        "Where scanning goes on; behind the end of the buffer within a long string."
        self._depth = -1
        "Of lists and dictionaries that are open; -1: the dictionary has not begun."
        self._quoted = False
        "Whether this is within a text of JSON."
        self._json = False
        self.ended = False

    @property
    def waiting(self) -> int:
        """Bytes of the message that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete now."""
        self._buffer += data
        messages: list[bytes] = []
        while not self.ended and self._find_end():
            messages.append(bytes(self._buffer[: self._at]))
            del self._buffer[: self._at]
            self._at, self._depth = 0, -1
        return messages

    def _find_end(self) -> bool:
        """Whether a message is complete; ``_at`` is its end."""
        try:
            if self._depth < 0 and not self._begin():
                return False
            return self._scan_json() if self._json else self._scan_bencode()
        except ValueError:
            return self._hopeless()

    def _begin(self) -> bool:
        """Find where the dictionary begins; whether it has. ValueError if there is no cookie."""
        buffer = self._buffer
        if not self._at:
            del buffer[: len(buffer) - len(buffer.lstrip(_BETWEEN))]
        plain = self._plain and begins_with_dictionary(buffer)
        at = 0 if plain else buffer.find(b" ", 0, LONGEST_COOKIE + 1) + 1
        if not (at or plain) and len(buffer) > LONGEST_COOKIE:
            del buffer[LONGEST_COOKIE + 1 :]  # nothing behind it is a request, however it was cut
            raise ValueError("no cookie")
        if len(buffer) <= at or not (at or plain):
            return False
        self._at, self._json, self._quoted, self._depth = at, buffer[at] == 0x7B, False, 0
        return True

    def _hopeless(self) -> bool:
        """All that is there is one message, and no other one will follow."""
        self.ended = True
        self._at = len(self._buffer)
        return True

    def _scan_bencode(self) -> bool:
        """ValueError if this is none."""
        buffer = self._buffer
        while self._at < len(buffer):
            kind = buffer[self._at]
            if kind in b"dl":
                self._depth += 1
                self._at += 1
            elif kind == 0x65 and self._depth:  # e
                self._depth -= 1
                self._at += 1
                if not self._depth:
                    return True
            elif not self._depth:
                raise ValueError("no dictionary")
            elif not self._pass(kind):
                return False
        return False

    def _pass(self, kind: int) -> bool:
        """Go on behind a string or a number; whether its beginning is whole. ValueError if it is none."""
        buffer, number = self._buffer, kind == 0x69  # i
        if not number and kind not in _DIGITS:
            raise ValueError("no value")
        end = buffer.find(b"e" if number else b":", self._at, self._at + _LONGEST_NUMBER + 2)
        if end < 0:
            if len(buffer) > self._at + _LONGEST_NUMBER:
                raise ValueError("no number")
            return False
        self._at = end + 1 if number else end + 1 + int(buffer[self._at : end])
        return True

    def _scan_json(self) -> bool:
        buffer, at = self._buffer, self._at
        while at < len(buffer):
            byte = buffer[at]
            if self._quoted:
                if byte == 0x5C:  # a backslash: whatever follows is meant as it is
                    at += 1
                self._quoted = byte != 0x22
            elif byte == 0x22:
                self._quoted = True
            elif byte in b"{[":
                self._depth += 1
            elif byte in b"}]":
                self._depth -= 1
                if self._depth <= 0:
                    self._at = at + 1
                    return True
            at += 1
        self._at = at
        return False


def begins_with_dictionary(buffer: bytes | bytearray) -> bool:
    """Whether a message begins with its dictionary, and no cookie: ``d7:…``, ``de`` or ``{``."""
    return (
        buffer[:1] == b"{" or (buffer[:1] == b"d" and buffer[1:2].isdigit() and b":" in buffer[2:8]) or buffer == b"de"
    )
