"""[shell] How the answers to our SIP pings come from the process that receives them to the one that sends the pings.

A pipe, made before Kamailio forks and inherited by all its processes: a token goes in, tokens come out. Nothing has to
be set up for it, nothing is shared but the kernel's buffer, and a write never waits. A full pipe loses tokens; it takes
4 000 of them, between two readings a tenth of a second apart.
"""

import contextlib
import os
import secrets

from mediaproxy.kamailio.sipping import TOKEN_LENGTH


class Answers:
    """The pipe, and the mark by which all processes know our Call-IDs."""

    def __init__(self) -> None:
        self._made_by = os.getpid()
        self.mark = f"natping.{secrets.token_hex(8)}."
        self._out, self._in = os.pipe()
        os.set_blocking(self._out, False)
        os.set_blocking(self._in, False)
        self._half = b""

    @property
    def shared(self) -> bool:
        """Whether it was made before this process was forked, so that the others have it, too."""
        return os.getpid() != self._made_by

    def note(self, token: str) -> None:
        """The phone that was asked with this token has answered."""
        with contextlib.suppress(OSError):
            os.write(self._in, token.encode("ascii"))

    def take(self) -> list[str]:
        """The tokens that have come since the last time. For one process only."""
        data = self._half
        with contextlib.suppress(OSError):
            while piece := os.read(self._out, 65536):
                data += piece
        whole = len(data) - len(data) % TOKEN_LENGTH
        self._half = data[whole:]
        text = data[:whole].decode("latin-1")
        return [text[at : at + TOKEN_LENGTH] for at in range(0, whole, TOKEN_LENGTH)]

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self._out)
        os.close(self._in)


ANSWERS = Answers()
"One for all: app_python.reload makes a new script, but imports no package again."
