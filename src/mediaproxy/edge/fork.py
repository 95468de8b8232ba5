"""Whom a request is forked to and in which order, and which of several answers is the best one.

Registered contacts or a URI become targets, grouped by preference; a target becomes a message and a hop; the final
responses of the branches become one. Nothing here sends or remembers.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec

from mediaproxy.edge.binding import Binding
from mediaproxy.edge.hop import Hop
from mediaproxy.edge.routing import BEHIND_NAT, MARK, forwarded, literal_hop
from mediaproxy.edge.settings import Listener, Transport
from mediaproxy.sip.grammar import SipError, number
from mediaproxy.sip.header import NameAddr, Uri
from mediaproxy.sip.message import Request, Response

BREADTH_HEADER = "Max-Breadth"
BREADTH = 60
"""Branches that a request may have at a time if it does not say; more than that is not believed. Without this bound a
few contacts that point back to us would make millions of requests of one (RFC 5393 §3)."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One member of the target set (RFC 3261 §16.5)."""

    uri: str = ""
    "The Request-URI to send; empty: leave it as it is."
    hop: Hop | None = None
    "Where to send to. None: that must still be found out from ``next_hop``."
    next_hop: Uri | None = None
    "The URI to resolve (RFC 3263). None with ``hop``, or if the first Route or the Request-URI says it."
    routes: tuple[str, ...] = ()
    "Values to put in front of the Route of the request: the Path of a registration, or a configured next hop."
    unreachable: bool = False
    "The connection it lives with is gone: 480 at once (calls.md 18)."


def of_binding(binding: Binding) -> Target:
    """The target that a registration stands for."""
    transport = Transport(binding.transport)
    if not binding.reachable:
        return Target(uri=binding.contact, unreachable=True)
    if binding.path:
        return Target(uri=binding.contact, routes=binding.path, next_hop=_route_uri(binding.path[0]))
    if transport.reliable:
        hop = Hop(transport, binding.received, binding.local, binding.connection, connect=False)
        return Target(uri=binding.contact, hop=hop)
    if binding.nat:
        return Target(uri=binding.contact, hop=Hop(transport, binding.place, binding.local))
    return Target(uri=binding.contact, next_hop=Uri.parse(binding.contact))


def of_alias(destination: Uri, local: Listener | None) -> Target:
    """Where an alias leads (``nat.handle_ruri_alias``), which is the address of a phone's NAT. ``local``: the socket
    that the phone is reached from, if it is known."""
    literal = literal_hop(destination)
    if literal is None or destination.params.get("transport", "udp") not in list(Transport):
        return Target(unreachable=True)
    transport, remote = literal
    facing = local is not None and local.transport is transport and local.bind.version == remote.version
    return Target(hop=Hop(transport, remote, local.bind if facing and local is not None else None, connect=False))


def _route_uri(value: str) -> Uri | None:
    try:
        return NameAddr.parse(value).uri
    except SipError:
        return None


def groups(bindings: Iterable[Binding], limit: int) -> list[tuple[Target, ...]]:
    """The targets of a user's contacts: those of one q are tried together, a lower q after a higher one has failed
    (RFC 3261 §16.6). At most ``limit`` in all, the likeliest first."""
    chosen = sorted(bindings, key=lambda b: -b.q)[:limit]
    return [tuple(of_binding(b) for b in members) for _, members in groupby(chosen, key=lambda b: b.q)]


def shared(request: Request, count: int) -> Request | None:
    """The request as each of ``count`` targets gets it that are tried together: with its share of the branches that it
    may have at a time, wherever they are (RFC 5393 §5.3.3). None: these are too few."""
    given = number(request.header(BREADTH_HEADER) or "", BREADTH)
    if count < 2 and given is None:
        return request
    share = (BREADTH if given is None else given) // max(1, count)
    if not share:
        return None
    if not request.count(BREADTH_HEADER):
        return request.append(BREADTH_HEADER, str(share))
    return request.replace(BREADTH_HEADER, str(share))


def aimed(request: Request, target: Target, local: Listener | None) -> tuple[Request, Hop | Uri]:
    """The copy of a request for one target, without our Via, and where it goes: a hop, or a URI that must be resolved
    (RFC 3261 §16.6 steps 1 to 7). ``local``: the socket that the other side of its dialog is reached from, if known.
    SipError if it cannot go anywhere."""
    message = forwarded(request, target.uri, target.routes)
    if target.hop is not None and not message.routes:
        return message, target.hop
    uri = message.routes[0].uri if message.routes else target.next_hop or message.uri
    natted = uri.params.get(MARK) == BEHIND_NAT
    if natted and uri == message.uri:
        message = message.with_uri(uri.without_param(MARK))
    literal = literal_hop(uri)
    if literal is None:
        return message, uri
    transport, remote = literal
    facing = local is not None and local.transport is transport and local.bind.version == remote.version
    return message, Hop(transport, remote, local.bind if facing and local is not None else None, connect=not natted)


def version_of(targets: Iterable[Target], uri: Uri) -> int:
    """The IP version by which all these targets are reached: 4 or 6; 0: they differ, or a name says nothing. ``uri``:
    the Request-URI, for a target that leaves it as it is."""
    versions = {_version(target, uri) for target in targets if not target.unreachable}
    return versions.pop() if len(versions) == 1 else 0


def _version(target: Target, uri: Uri) -> int:
    """Where its REGISTER came from says most; behind a Path, only the contact says anything of the phone."""
    if target.hop is not None:
        return target.hop.remote.version
    try:
        endpoint = (Uri.parse(target.uri) if target.uri else target.next_hop or uri).endpoint
    except SipError:
        return 0
    return endpoint.version if endpoint is not None else 0


_SALVAGEABLE = (401, 407, 415, 420, 484)
"Responses that let the caller try again better (RFC 3261 §16.7 step 6)."


def _badness(status: int) -> tuple[int, int]:
    """Sort key of RFC 3261 §16.7 step 6: 6xx wins, else the lowest class; within 4xx what can be mended, and what a
    person did before what a machine met."""
    if status >= 600:
        return (0, 0)
    if status in _SALVAGEABLE:
        return (4, 0)
    # A busy or declining phone tells the caller more than one that was switched off or did not answer.
    return (status // 100, 2 if status in (408, 480, 487, 503) else 1)


def best(responses: Sequence[Response]) -> Response | None:
    """The response to send upstream; with 401 or 407 it carries the challenges of all branches (§16.7 step 7)."""
    if not responses:
        return None
    chosen = min(responses, key=lambda response: _badness(response.status))
    if chosen.status not in (401, 407):
        return chosen
    for other in responses:
        if other is chosen or other.status not in (401, 407):
            continue
        for name in ("WWW-Authenticate", "Proxy-Authenticate"):
            for value in other.headers(name):
                chosen = chosen.append(name, value)
    return chosen
