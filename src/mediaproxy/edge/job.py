"""A request that is sent on, and what was decided about it."""

from collections.abc import MutableSet
from dataclasses import dataclass

from mediaproxy.edge.dialogs import Attempt
from mediaproxy.edge.fork import Target
from mediaproxy.edge.hop import Inbound
from mediaproxy.edge.settings import Listener
from mediaproxy.module import Run
from mediaproxy.sip.message import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One of them, as it leaves request_route."""

    arrived: Request
    "As it came."
    request: Request
    "As it is to be sent: its source noted, without our Routes and the credentials for us, with what the script did."
    inbound: Inbound
    groups: list[tuple[Target, ...]]
    "Whom it goes to, and in which order."
    local: Listener | None = None
    "The socket that the other side of the dialog is reached from, if it is known."
    loop: str = ""
    "Loop hash of the request as it came."
    attempt: Attempt | None = None
    "What the dialogs of an INVITE that begins a call will need."
    recorded: bool = False
    "It gets our Record-Route."
    privileged: bool = False
    "It may leave for foreign hosts."
    run: Run
    "What the script did to it, for its other routes."
    flags: MutableSet[int]
    "Of the script, shared by all routes of the request."

    @property
    def in_dialog(self) -> bool:
        """Whether it belongs to a dialog that exists."""
        return bool(self.request.to.tag)
