"""An SDP body's lines while they are edited: their numbers stay, whatever is changed, dropped or added.

Lines come in as ``section.split`` gives them, and go out joined; every byte that no edit names stays, line ends too.
"""

from collections.abc import Sequence

from mediaproxy.sdp.section import Section


class Edit:
    """A copy of the lines that can be changed, dropped and added to. Mutable."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self.original = lines
        self._lines = list(lines)
        self._line_end = next((_line_end(line) for line in lines), b"") or b"\r\n"

    def __bytes__(self) -> bytes:
        """The body as it is now. One without final line end keeps so."""
        body = b"".join(self._lines)
        if not self.original or _line_end(self.original[-1]) or not _line_end(body):
            return body
        return body.removesuffix(b"\n").removesuffix(b"\r")

    def text(self, number: int) -> str:
        """A line as it is now."""
        return self._lines[number].decode("latin-1")

    def change(self, number: int, start: int, end: int, text: str) -> None:
        """Replace the characters from ``start`` to ``end`` of a line."""
        line = self._lines[number]
        self._lines[number] = line[:start] + text.encode("latin-1") + line[end:]

    def drop(self, number: int) -> None:
        """Remove a line."""
        self._lines[number] = b""

    def add(self, number: int, text: str) -> None:
        """A new line after line ``number``, after those added there before."""
        ended = bool(_line_end(self.original[number]))
        before = self._line_end if self._lines[number] and not ended else b""
        self._lines[number] += before + text.encode("latin-1") + (self._line_end if ended else b"")

    def last_line(self, section: Section) -> int:
        """The last line of a section that has text."""
        last = section.end - 1
        while last > section.first and not self.original[last].strip():
            last -= 1
        return last


def _line_end(line: bytes) -> bytes:
    return line[len(line.rstrip(b"\r\n")) :]
