"""What all wire dialects have in common: bytes of a SIP server come in, questions for the media arm and bytes go out.

A dialect is a codec. It remembers nothing of a call: what it must find again later travels in the request
(``MediaRequest.notify``, ``dialog_id``, ``Wishes.label``) and comes back in reports. Sockets, connections, repeated
requests, access lists and counters are the door's (``dialects/door.py``), for all dialects alike.
"""

from collections.abc import Generator
from typing import Protocol, TypeAlias, runtime_checkable

import msgspec

from mediaproxy.control import Inquiry, MediaReply, Question

Steps: TypeAlias = Generator[Question | Inquiry, MediaReply | None, bytes]
"""What answering takes: yields what to ask the media arm, is sent the answers (None: none came in time), returns the
bytes to send back; empty: nothing is sent."""


class ErrorAnswer(bytes):
    """An answer that says, in the words of its protocol, that the request was not done. What ``Steps`` returns may be
    one: the door counts it, and sends it like any other."""


class DialectError(ValueError):
    """Bytes that are no request of this dialect, and have no error answer in it: a datagram is dropped, a connection is
    closed. The text says what was expected, for a log line."""


class Peer(msgspec.Struct, frozen=True):
    """Who asks."""

    transport: str
    "``udp``, ``tcp``, ``tls``, ``unix``, ``cunix``, ``http`` or ``ws``."
    address: str = ""
    "IP address and port as text; empty over a UNIX socket."
    now: float = 0.0
    "Seconds since the epoch (mediaproxy.clock) when the request came."


class Framer(Protocol):
    """Cuts what comes over one connection into requests. Mutable."""

    @property
    def ended(self) -> bool:
        """Whether no further request is taken: the door closes the connection when what it has got is answered, as
        protocols want it that have one request per connection (1.x; rtpproxy over a UNIX socket)."""

    @property
    def waiting(self) -> int:
        """Bytes of a request that is not complete yet. The door gives up a connection on which one stays so."""

    def feed(self, data: bytes) -> list[bytes]:
        """The requests that are complete now, each as ``Dialect.answer`` takes it. DialectError if no request can
        follow any more: the connection is closed."""


@runtime_checkable
class Finisher(Protocol):
    """A Framer whose last request may end with its connection."""

    def finish(self) -> list[bytes]:
        """The client says no more: what that makes complete."""


class Dialect(Protocol):
    """One control protocol."""

    name: str
    "As in the configuration: ``mediaproxy1``, ``mediaproxy2``, ``rtpproxy``, ``ng``."

    def framer(self, transport: str) -> Framer:
        """For a new connection. ``transport`` as in Peer, for protocols whose framing depends on it."""

    def cookie(self, request: bytes) -> bytes | None:
        """What a repeated datagram has in common with its first one; None: repetitions are not recognised."""

    def answer(self, request: bytes, peer: Peer) -> Steps:
        """Answer one request. Whatever its bytes are it raises DialectError at most."""
