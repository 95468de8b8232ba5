"""The ACK of a 2xx on its way (RFC 3261 §13.2.2.4, §16.11), as request_route leaves it: forwarded without state.

It is neither answered nor repeated by us, so whatever goes wrong only ends it: the caller sends another one.
"""

from typing import Protocol

from mediaproxy.edge.effects import Effect, Resolve, Send
from mediaproxy.edge.fork import aimed
from mediaproxy.edge.hop import Hop
from mediaproxy.edge.job import Job
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Request


class Desk(Protocol):
    """What the proxy does for it."""

    def prepare_stateless(self, job: Job, request: Request, hop: Hop) -> tuple[Request, Hop] | int:
        """As ``branch.Parent.prepare``, with a branch that a retransmission has, too."""


def acknowledge(desk: Desk, job: Job) -> list[Effect]:
    """Send it to its first target."""
    target = job.groups[0][0]
    if target.unreachable:
        return []
    try:
        message, aim = aimed(job.request, target, job.local)
    except SipError:
        return []
    if isinstance(aim, Hop):
        return _send(desk, job, message, (aim,))
    return [Resolve(aim, lambda hops, at: _send(desk, job, message, hops))]


def _send(desk: Desk, job: Job, message: Request, hops: tuple[Hop, ...]) -> list[Effect]:
    for hop in hops:
        prepared = desk.prepare_stateless(job, message, hop)
        if not isinstance(prepared, int):
            return [Send(prepared[1], bytes(prepared[0]))]
    return []
