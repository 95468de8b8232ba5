"""What the pure proxy wants done. The shell carries it out and gives what came of it to the continuation, if any.

A continuation is a pure function of the proxy: it takes the result and the time, and returns further effects.
"""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from mediaproxy.control import MediaReply, Question
from mediaproxy.edge.hop import Hop
from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.header import Uri


class Send(msgspec.Struct, frozen=True):
    """Send bytes. ``failed`` is called if the transport gives up at once or later; never if it does not know."""

    hop: Hop
    data: bytes
    failed: "Callable[[float], list[Effect]] | None" = None


class Ask(msgspec.Struct, frozen=True):
    """Ask the media arm. Without ``then`` the answer changes nothing and is only logged if it is an error."""

    question: Question
    then: "Callable[[MediaReply, float], list[Effect]] | None" = None


class Resolve(msgspec.Struct, frozen=True):
    """Find out where a URI leads to (RFC 3263), best first; empty: nowhere."""

    uri: Uri
    then: "Callable[[tuple[Hop, ...], float], list[Effect]]"


class Refused(msgspec.Struct, frozen=True):
    """Something a person may want to know about a peer; the shell bounds how much of it is logged."""

    source: Endpoint
    text: str


class Remark(msgspec.Struct, frozen=True):
    """Something about a call that a person may want to know; once per call and party at most."""

    call_id: str
    text: str


class Said(msgspec.Struct, frozen=True):
    """What the routing script says by ``log``."""

    call_id: str
    text: str


class Trouble(msgspec.Struct, frozen=True):
    """The routing script has made a mistake; the shell bounds how often one place of it is logged."""

    place: str
    "Where: file and line."
    text: str
    "What, with the place."


Effect: TypeAlias = Send | Ask | Resolve | Refused | Remark | Said | Trouble
