"""An SDP body's lines while they are edited: their numbers stay, whatever is changed, dropped or added.

Lines come in as ``section.split`` gives them, and go out joined; every byte that no edit names stays, line ends too.
"""

from collections.abc import Sequence

from mediaproxy.sdp.section import Section


class Edit:
    """A copy of the lines that can be changed, dropped and added to. Mutable."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self.original = lines
        self.lines = list(lines)
        "The lines as they are now; an element may hold several lines, or none: join and split again."
        self._line_end = next((_line_end(line) for line in lines), b"") or b"\r\n"

    def text(self, number: int) -> str:
        """A line as it is now."""
        return self.lines[number].decode("latin-1")

    def change(self, number: int, start: int, end: int, text: str) -> None:
        """Replace the characters from ``start`` to ``end`` of a line."""
        line = self.lines[number]
        self.lines[number] = line[:start] + text.encode("latin-1") + line[end:]

    def drop(self, number: int) -> None:
        """Remove a line."""
        self.lines[number] = b""

    def add(self, number: int, text: str) -> None:
        """A new line after line ``number``, after those added there before. A body without final line end keeps so."""
        ended = bool(_line_end(self.original[number]))
        before = self._line_end if self.lines[number] and not ended else b""
        self.lines[number] += before + text.encode("latin-1") + (self._line_end if ended else b"")

    def last_line(self, section: Section) -> int:
        """The last line of a section that has text."""
        last = section.end - 1
        while last > section.first and not self.original[last].strip():
            last -= 1
        return last


def _line_end(line: bytes) -> bytes:
    return line[len(line.rstrip(b"\r\n")) :]
