"""Cutting what comes over a connection into lines, or into blocks of lines that an empty one ends.

Bytes come in, whole requests go out. How long a request may be is the door's business: it looks at ``waiting``.
"""


class LineFramer:
    """Mutable: lines that end with LF or CRLF, without their ends; empty ones are passed over."""

    def __init__(self, *, single: bool = False, last: frozenset[bytes] = frozenset()) -> None:
        """``single``: one line, and no more is taken. ``last``: lines after which no more is taken."""
        self._buffer = bytearray()
        self._scanned = 0
        self._single = single
        self._last = last
        self.ended = False

    @property
    def waiting(self) -> int:
        """Bytes of the line that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now."""
        self._buffer += data
        lines: list[bytes] = []
        while not self.ended:
            end = self._buffer.find(b"\n", self._scanned)
            if end < 0:
                self._scanned = len(self._buffer)
                break
            line = bytes(self._buffer[:end]).removesuffix(b"\r")
            del self._buffer[: end + 1]
            self._scanned = 0
            if line:
                lines.append(line)
                self.ended = self._single or line in self._last
        if self.ended:
            self._buffer.clear()
        return lines

    def finish(self) -> list[bytes]:
        """The one line of a connection needs no end, if the connection ends."""
        return self.feed(b"\n") if self._single and self._buffer else []


class BlockFramer:
    """Mutable: blocks of lines; an empty line ends a block, further ones are passed over. A block is given with its
    line ends, without the empty line."""

    ended = False

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._line = 0
        "Where the last line begins that is not complete."
        self._scanned = 0

    @property
    def waiting(self) -> int:
        """Bytes of the block that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The blocks that are complete now."""
        self._buffer += data
        blocks: list[bytes] = []
        while True:
            end = self._buffer.find(b"\n", self._scanned)
            if end < 0:
                self._scanned = len(self._buffer)
                return blocks
            empty = end == self._line or (end == self._line + 1 and self._buffer[self._line] == 0x0D)
            if not empty:
                self._line = self._scanned = end + 1
                continue
            if self._line:
                blocks.append(bytes(self._buffer[: self._line]))
            del self._buffer[: end + 1]
            self._line = self._scanned = 0
