"""The ACK of a 2xx on its way (RFC 3261 §13.2.2.4, §16.11): forwarded without state, its media asked about.

It is neither answered nor repeated by us, so whatever goes wrong only ends it: the caller sends another one.
"""

from typing import Protocol

from mediaproxy.control import MediaReply, MediaRequest
from mediaproxy.edge.context import Job
from mediaproxy.edge.effects import Ask, Effect, Resolve, Send
from mediaproxy.edge.fork import aimed
from mediaproxy.edge.hop import Hop
from mediaproxy.edge.media import Media
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Request


class Desk(Protocol):
    """What the proxy does for it."""

    media: Media

    def prepare_stateless(self, job: Job, request: Request, hop: Hop) -> tuple[Request, Hop] | int:
        """As ``branch.Parent.prepare``, with a branch that a retransmission has, too."""


class Acknowledgement:
    """One ACK."""

    def __init__(self, desk: Desk, job: Job) -> None:
        self._desk = desk
        self._job = job

    def start(self, now: float) -> list[Effect]:
        """Set out. An ACK with SDP answers an offer of the callee: it waits for the relay's ports."""
        job = self._job
        plan = self._desk.media.plan(job.arrived, job.inbound)

        def then(reply: MediaReply, at: float) -> list[Effect]:
            return self._send(plan.complete(reply, job.request))

        if isinstance(plan.request, MediaRequest):
            return [Ask(plan.request, then)]
        effects: list[Effect] = [Ask(plan.request)] if plan.request is not None else []
        return effects + self._send(job.request)

    def _send(self, request: Request) -> list[Effect]:
        target = self._job.groups[0][0]
        if target.unreachable:
            return []
        try:
            message, aim = aimed(request, target, self._job.local)
        except SipError:
            return []
        if isinstance(aim, Hop):
            return self._send_to(message, (aim,))
        return [Resolve(aim, lambda hops, at: self._send_to(message, hops))]

    def _send_to(self, message: Request, hops: tuple[Hop, ...]) -> list[Effect]:
        for hop in hops:
            prepared = self._desk.prepare_stateless(self._job, message, hop)
            if not isinstance(prepared, int):
                return [Send(prepared[1], bytes(prepared[0]))]
        return []
