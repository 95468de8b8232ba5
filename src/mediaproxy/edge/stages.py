"""Messages in the other routes of the script: replies, requests that have failed, and branches of requests.

What a route leaves behind is read by the response context. None of them decides where a message goes, but an alias in
a branch.
"""

from collections.abc import MutableSet

from mediaproxy.edge.fork import of_alias
from mediaproxy.edge.hop import Hop, Inbound
from mediaproxy.edge.job import Job
from mediaproxy.edge.script.stage import Desk, Stage
from mediaproxy.module import FAILED, Result, RouteType
from mediaproxy.sdp import IcePolicy
from mediaproxy.sip.message import Request, Response
from mediaproxy.traversal import Facts


class ReplyStage(Stage):
    """A reply in onreply_route."""

    route = RouteType.ONREPLY

    def __init__(
        self,
        desk: Desk,
        response: Response,
        inbound: Inbound,
        facts: Facts,
        flags: MutableSet[int],
        ice: IcePolicy | None = None,
    ) -> None:
        """``response``: as it arrived, our Via on it. ``ice``: what request_route has said; None: that is not known."""
        super().__init__(desk, desk.media.run(response, inbound, self.route, facts), inbound, flags)
        if ice is not None:
            self.run.policy = self.run.policy.with_ice(ice)
        self._arrived = response

    @property
    def response(self) -> Response | None:
        """What goes upstream, our Via still on it. After an error it is what came. None: nothing."""
        if self.dropped and self._arrived.status < 200:
            return None
        message = self._arrived if self.broken else self.run.message
        assert isinstance(message, Response)
        return message


class FailureStage(Stage):
    """A request in failure_route."""

    route = RouteType.FAILURE

    def __init__(self, desk: Desk, job: Job, status: int) -> None:
        """``status``: with which it fails."""
        super().__init__(desk, job.run.again(self.route), job.inbound, job.flags)
        self.run.status = status


class BranchStage(Stage):
    """A copy of a request in branch_route."""

    route = RouteType.BRANCH

    def __init__(self, desk: Desk, job: Job, message: Request, facts: Facts, *, trusted: bool) -> None:
        """``message``: the copy. ``trusted``: its Request-URI may say where it goes."""
        super().__init__(desk, job.run.again(self.route, facts), job.inbound, job.flags)
        self._local = job.local
        self._copy = self.run.message = message
        self._before = self.run.destination
        self._trusted = trusted

    @property
    def request(self) -> Request:
        """The copy that is sent. After an error it is what it was before."""
        message = self._copy if self.broken else self.run.message
        assert isinstance(message, Request)
        return message

    def handle_ruri_alias(self) -> Result:
        """A stranger's alias leads nowhere."""
        return super().handle_ruri_alias() if self._trusted else FAILED

    def hops(self, hops: tuple[Hop, ...]) -> tuple[Hop, ...]:
        """Where it is sent: where an alias leads that the script has taken off, else where it would have been sent."""
        destination = self.run.destination
        if self.broken or destination is None or destination is self._before or self.request.routes:
            return hops
        hop = of_alias(destination, self._local).hop
        return () if hop is None else (hop,)
