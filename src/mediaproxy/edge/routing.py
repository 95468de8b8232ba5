"""What a proxy does to a message on its way (RFC 3261 §16.3, §16.4, §16.6): judge, take our marks off, put them on.

A message comes in, an edited one or a refusal goes out. Our marks are a Via branch and a Record-Route parameter that
only this server can make, so a later message proves by itself that we let its dialog through: nothing is remembered.
"""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from mediaproxy.edge.domains import Domains
from mediaproxy.edge.hop import Hop, Inbound
from mediaproxy.edge.settings import Listener, RouteRule, Transport
from mediaproxy.endpoint import Endpoint, address_text
from mediaproxy.sip.grammar import SipError, number, split_params
from mediaproxy.sip.header import NameAddr, Uri, Via
from mediaproxy.sip.message import Request, Response
from mediaproxy.sip.transaction import MAGIC_COOKIE

MARK = "mp"
"""URI parameter of ours: in Record-Route it holds the mark of the dialog, in the Contact of a phone behind NAT that
came over a connection it is ``BEHIND_NAT``."""
BEHIND_NAT = "nat"
"Such a contact is reached over its live connection only; one is never opened to it (calls.md 18)."
PASSES = 5
"How often one request may come through us, always to another user: more is no forwarding but an attack (RFC 5393 §3)."
EXTENSIONS: tuple[str, ...] = ()
"Option tags of Proxy-Require that we understand."


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that is not forwarded: what to answer."""

    status: int
    reason: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    why: str = ""
    "For the log; empty: nothing that a person need know."


class Routed(msgspec.Struct, frozen=True, kw_only=True):
    """A request without the Routes that were ours (RFC 3261 §16.4)."""

    request: Request
    ours: bool = False
    "It had a Route of ours."
    marked: bool = False
    "It is in a dialog and carries its mark: we let the dialog-forming request through."
    leads: bool = False
    "Its next hop is the one that its sender learned through us when the dialog began."
    local: Listener | None = None
    "The socket that the dialog's other side is reached from, if it is marked."


class Marks:
    """Makes and recognises what we write into messages. One secret, shared by all runs that shall know each other."""

    def __init__(self, secret: bytes) -> None:
        self._key = hashlib.sha256(secret).digest()

    def _mac(self, kind: str, text: str, size: int) -> str:
        data = f"{kind}\0{text}".encode("latin-1", "replace")
        return hashlib.blake2b(data, digest_size=size // 2, key=self._key).hexdigest()

    def dialog(self, call_id: str) -> str:
        """The mark of a dialog that we record-route."""
        return self._mac("dialog", call_id, 16)

    def way(self, call_id: str, target: Uri | None) -> str:
        """The mark as one party gets it: with the next hop behind us on the way to the other, if that is known. Who
        brings it back may go there; the dialog's mark alone would open the way to everywhere."""
        mark = self.dialog(call_id)
        return mark if target is None else f"{mark}.{self._mac('way', f'{_place(target)} {call_id}', 12)}"

    def genuine(self, text: str, call_id: str) -> bool:
        """Whether it is a mark of that dialog, whatever its way."""
        return text.partition(".")[0] == self.dialog(call_id)

    def tag(self, request: Request) -> str:
        """The To tag of the answers that we give ourselves: the same for every retransmission (RFC 3261 §8.2.7)."""
        return self._mac("tag", f"{request.call_id}\0{request.from_.tag}\0{request.cseq.number}", 12)

    def branch(self, unique: str, loop: str) -> str:
        """A Via branch: unique, with the loop hash of the request (RFC 3261 §16.6 step 8), and not to be forged."""
        return f"{MAGIC_COOKIE}mp{unique}.{loop}.{self._mac('branch', unique + loop, 10)}"

    def stateless_branch(self, request: Request, loop: str) -> str:
        """A branch that is the same for every retransmission (RFC 3261 §16.11)."""
        via = request.via
        same = f"{via.branch}\0{via.sent_by}\0{request.call_id}\0{request.cseq}\0{request.from_.tag}"
        return self.branch(self._mac("stateless", same, 16), loop)

    def loop_of(self, via: Via) -> str | None:
        """The loop hash in a branch that we made; None if we did not make it."""
        branch = via.branch
        prefix = MAGIC_COOKIE + "mp"
        parts = branch.removeprefix(prefix).split(".")
        if not branch.startswith(prefix) or len(parts) != 3:
            return None
        genuine = hmac.compare_digest(
            branch.encode("latin-1", "replace"), self.branch(parts[0], parts[1]).encode("latin-1", "replace")
        )
        return parts[1] if genuine else None

    def loop_hash(self, request: Request) -> str:
        """Of all that decides where a request goes: the same again means that nothing will change (RFC 5393 §4.2).
        Ports and parameters of the Request-URI make no other user of ours of it."""
        parts = (
            request.uri.aor,
            request.call_id,
            request.from_.tag,
            request.to.tag,
            str(request.cseq),
            *request.values("Route"),
            *request.values("Proxy-Require"),
        )
        return hashlib.blake2b("\0".join(parts).encode("latin-1"), digest_size=6).hexdigest()


def judge(request: Request, marks: Marks) -> Refusal | None:
    """RFC 3261 §16.3, what is left of it after ``sip.check``: whether the request may be processed at all."""
    if request.uri.scheme not in ("sip", "sips"):
        return Refusal(status=416)
    if request.max_forwards == 0 and request.method not in ("OPTIONS", "REGISTER"):
        return Refusal(status=483)
    loops = [loop for via in request.vias if (loop := marks.loop_of(via)) is not None]
    if loops and (len(loops) >= PASSES or marks.loop_hash(request) in loops):
        return Refusal(status=482)
    return None if request.method == "ACK" else lacking(request, "Proxy-Require", EXTENSIONS)


def lacking(request: Request, header: str, known: Iterable[str]) -> Refusal | None:
    """What a request requires that nobody here can (RFC 3261 §8.2.2.3, §16.3 step 5)."""
    unknown = [tag for tag in request.values(header) if tag.lower() not in known]
    return Refusal(status=420, headers=(("Unsupported", ", ".join(unknown)),)) if unknown else None


def reply_hop(request: Request, inbound: Inbound) -> Hop:
    """Where responses to a request go whose source is noted in its Via (RFC 3261 §18.2.2): the connection it came over;
    over UDP its source if rport is there (RFC 3581 §4), else the source's address with the port of the Via. maddr is
    not obeyed: a response goes nowhere but to who asked."""
    via = request.via
    transport = inbound.transport
    port = via.port if via.port else transport.default_port
    if via.rport is not None and not transport.reliable:
        port = inbound.source.port
    direct = address_text(via.host) == address_text(inbound.source.address)
    remote = inbound.source.with_port(port)
    if transport.reliable and not direct:
        # Behind NAT: there is no way back but the connection.
        return Hop(transport, inbound.source, inbound.local, inbound.connection, connect=False)
    return Hop(transport, remote, inbound.local, inbound.connection)


class Routes:
    """Our own Route URIs: reading them off requests, and writing Record-Route."""

    def __init__(self, marks: Marks, domains: Domains, listeners: Iterable[Listener]) -> None:
        self._marks = marks
        self._domains = domains
        self._listeners: dict[tuple[Transport, Endpoint], Listener] = {}
        for listener in listeners:
            self._listeners.setdefault((listener.transport, listener.bind), listener)
            self._listeners.setdefault((listener.transport, listener.public), listener)

    def listener(self, transport: Transport, endpoint: Endpoint) -> Listener | None:
        """The listener that is bound to, or advertised as, this endpoint."""
        return self._listeners.get((transport, endpoint))

    def _listener_of(self, uri: Uri) -> Listener | None:
        endpoint = uri.endpoint
        return None if endpoint is None else self.listener(transport_of(uri), endpoint)

    def strip(self, request: Request) -> Routed:
        """RFC 3261 §16.4: undo what a strict router did to the Request-URI, and take our Routes off the top. SipError
        if Route is broken."""
        uri = request.uri
        found: list[str] = []
        local = None
        if MARK in uri.params and self._domains.is_self(uri) and request.routes:
            # The element before us routed strictly: we are the Request-URI, the target is the last Route.
            last = len(request.routes) - 1
            found.append(uri.params[MARK])
            request = request.with_uri(str(request.routes[last].uri)).remove_value("Route", last)
        if "maddr" in request.uri.params and self._is_our_maddr(request.uri):
            request = request.with_uri(request.uri.without_param("maddr"))
        while request.routes and self._is_ours(request.routes[0].uri):
            route = request.routes[0].uri
            found.append(route.params.get(MARK, ""))
            if self._marks.genuine(found[-1], request.call_id):
                local = self._listener_of(route)
            request = request.remove_value("Route", 0)
        if not request.to.tag or not any(self._marks.genuine(mark, request.call_id) for mark in found):
            return Routed(request=request, ours=bool(found))
        way = self._marks.way(request.call_id, next_hop(request))
        return Routed(request=request, ours=True, marked=True, leads=way in found, local=local)

    def beyond(self, call_id: str, route_set: Sequence[NameAddr]) -> tuple[Listener | None, tuple[str, ...]]:
        """What a dialog's route set has behind us, and the socket of ours that faces it. Nothing, if the dialog does
        not lead through us."""
        for index in range(len(route_set) - 1, -1, -1):
            uri = route_set[index].uri
            if self._is_record(uri, call_id):
                return self._listener_of(uri), tuple(str(route) for route in route_set[index + 1 :])
        return None, ()

    def _is_ours(self, uri: Uri) -> bool:
        # A preloaded Route may name us by our domain (an outbound proxy in a phone's settings).
        return self._domains.is_self(uri) or (not uri.user and bool(uri.host) and self._domains.owns(uri, exactly=True))

    def _is_our_maddr(self, uri: Uri) -> bool:
        return address_text(uri.params["maddr"]) in self._domains.hosts

    def record(self, request: Request, came_to: Listener | None, leaves_from: Listener) -> Request:
        """Put our Record-Route on a dialog-forming request; two if it changes socket or transport on its way through
        us, so that each side sees the address that it can reach (RFC 5658 §5)."""
        upstream = [value.uri for value in request.record_routes if not self._is_record(value.uri, request.call_id)]
        upstream += [contact.uri for contact in request.contacts if not contact.star]
        mark = self._marks.way(request.call_id, upstream[0] if upstream else None)
        secure = request.uri.scheme == "sips"
        if came_to is not None and came_to != leaves_from:
            request = request.prepend("Record-Route", f"<{own_uri(came_to, secure)};lr;{MARK}={mark}>")
        return request.prepend("Record-Route", f"<{own_uri(leaves_from, secure)};lr;{MARK}={mark}>")

    def _is_record(self, uri: Uri, call_id: str) -> bool:
        return self._domains.is_self(uri) and self._marks.genuine(uri.params.get(MARK, ""), call_id)

    def returned(self, response: Response) -> Response:
        """A response on its way back, its Contact repaired: our Record-Routes, which say the way to the caller, now say
        the way to who answered (RFC 3261 §16.7 step 8)."""
        known = response.status < 300 and response.contacts and not response.contacts[0].star
        downstream = response.contacts[0].uri if known else None
        ours: dict[int, str] = {}
        for index, value in enumerate(response.record_routes):
            if self._is_record(value.uri, response.call_id):
                uri = value.uri.with_param(MARK, self._marks.way(response.call_id, downstream))
                ours[index] = str(value.with_uri(uri))
            else:
                downstream = value.uri
        return response.replace_values("Record-Route", ours) if ours else response


def next_hop(request: Request) -> Uri:
    """The URI that says where a request goes next, our own Routes taken off (RFC 3261 §16.6 step 7)."""
    return request.routes[0].uri if request.routes else request.uri


def endpoint_of(uri: Uri) -> Endpoint | None:
    """Where a URI leads, maddr obeyed; None: it names a host."""
    address = address_text(uri.params.get("maddr") or uri.host)
    port = transport_of(uri).default_port if uri.port is None else uri.port
    return None if address is None else Endpoint(address, port)


def _aliases(uri: Uri) -> list[str]:
    """The values of its alias parameters: a script may send a request to one of them (``nat.handle_ruri_alias``)."""
    if "alias" not in uri.params:
        return []
    params = (param.partition("=") for param in split_params(uri.params.text)[1:])
    return [value.strip() for name, _, value in params if name.strip().lower() == "alias"]


def places_of(uri: Uri) -> list[Endpoint | None]:
    """Everywhere that a URI may lead, as a script likes: its own place and those of its aliases; None: a name."""
    return [endpoint_of(uri), *(_place_of_alias(alias) for alias in _aliases(uri))]


def _place_of_alias(alias: str) -> Endpoint | None:
    host, port, *_ = *alias.split("~"), "", ""
    address, at = address_text(host), number(port, 65535)
    return None if address is None or at is None else Endpoint(address, at)


def _place(uri: Uri) -> str:
    """Where it may lead as text, also of names."""
    endpoint = endpoint_of(uri)
    here = f"{uri.params.get('maddr') or uri.host}:{uri.port}".lower() if endpoint is None else str(endpoint)
    return " ".join((here, *_aliases(uri)))


def own_uri(listener: Listener, secure: bool = False) -> str:
    """The URI of one of our sockets."""
    scheme = "sips" if secure and listener.transport is Transport.TLS else "sip"
    transport = "" if listener.transport is Transport.UDP or scheme == "sips" else f";transport={listener.transport}"
    return f"{scheme}:{listener.public}{transport}"


def transport_of(uri: Uri) -> Transport:
    """The transport that a URI with an address literal means (RFC 3263 §4.1); an unknown one counts as UDP."""
    if uri.scheme == "sips":
        return Transport.TLS
    name = uri.params.get("transport", "").lower()
    return Transport(name) if name in ("tcp", "tls") else Transport.UDP


def forwarded(request: Request, uri: str, routes: Iterable[str]) -> Request:
    """RFC 3261 §16.6 steps 2, 3 and 6: Request-URI, Max-Forwards and Route of the copy that goes to one target."""
    if uri and uri != request.uri_text:
        request = request.with_uri(uri)
    left = request.max_forwards
    if left is None:
        request = request.append("Max-Forwards", "70")
    else:
        request = request.replace("Max-Forwards", str(max(0, left - 1)))
    for route in reversed(tuple(routes)):
        request = request.prepend("Route", route)
    return request


def strict(request: Request) -> Request:
    """RFC 3261 §16.6 step 6: if the next hop is a strict router, it wants itself as Request-URI."""
    routes = request.routes
    if not routes or "lr" in routes[0].uri.params:
        return request
    target = request.uri_text
    request = request.with_uri(str(routes[0].uri)).remove_value("Route", 0)
    return request.append("Route", f"<{target}>")


def with_via(request: Request, listener: Listener, branch: str) -> Request:
    """RFC 3261 §16.6 step 8."""
    return request.prepend("Via", f"SIP/2.0/{listener.transport.upper()} {listener.public};branch={branch}")


def stray_hop(response: Response, ours: Listener) -> Hop | None:
    """Where a response goes of whose request nothing is known, our Via already taken off (RFC 3261 §16.11); None:
    nowhere."""
    via = response.via
    name = via.transport.lower()
    if name not in ("udp", "tcp", "tls"):
        return None
    transport = Transport(name)
    remote = via.without_param("maddr").response_endpoint()
    if remote is None or remote.port == 0:
        return None
    return Hop(transport, remote, ours.bind if transport is ours.transport else None, connect=via.received is None)


def rule_for(uri: Uri, rules: Iterable[RouteRule]) -> RouteRule | None:
    """The first configured route that takes the URI."""
    host = uri.host.lower()
    for rule in rules:
        domain = rule.domain.lower()
        fits = domain in ("*", host) or (domain.startswith("*.") and host.endswith(domain[1:]))
        if fits and (uri.user or "").startswith(rule.prefix):
            return rule
    return None


def literal_hop(uri: Uri) -> tuple[Transport, Endpoint] | None:
    """Transport and endpoint of a URI that needs no resolver, maddr obeyed (RFC 3263 §4); None: it names a host."""
    target = uri.params.get("maddr") or uri.host
    address = address_text(target) if target else None
    if address is None:
        return None
    transport = transport_of(uri)
    port = uri.port if uri.port is not None else transport.default_port
    if port == 0:
        raise SipError("Request-URI: port 0")
    return transport, Endpoint(address, port)
