"""A SIP server on the toy Internet: registrar, forking proxy and the real pure middle.

Every message goes the whole pure path: parse, NAT test and Contact repair, traversal.plan, one question to the relay,
complete, on its way. What makes a proxy a good one (timers, loops, Record-Route) is left to the product's edge: phones
send everything here because it is their outbound proxy, and they retransmit end to end.
"""

from dataclasses import dataclass, field

from mediaproxy import nat, traversal
from mediaproxy.endpoint import Endpoint
from mediaproxy.nat import Arrival
from mediaproxy.policy import Policy
from mediaproxy.sip.message import Message, Request, Response, parse, response_to
from mediaproxy.traversal import Facts, Failure
from tests.repairs import repair
from tests.vnet import Datagram, Host
from tests.vrelay import Relay


@dataclass(kw_only=True)
class Branch:
    """One copy of a request on its way to one phone."""

    request: Request
    "As sent there."
    target: Endpoint
    status: int = 0
    "Of its last response."


@dataclass(kw_only=True)
class Transaction:
    """A request and its copies."""

    request: Request
    "As received."
    source: Endpoint
    branches: dict[str, Branch] = field(default_factory=dict)

    @property
    def initial(self) -> bool:
        """Whether it forms a dialog: an INVITE without To tag."""
        return self.request.method == "INVITE" and not self.request.to.tag


class Server:
    """The server: bound to port 5060 of its host. Without a relay it is a plain proxy with NAT repairs."""

    def __init__(self, host: Host, relay: Relay | None, policy: Policy | None = None) -> None:
        self.host, self.relay = host, relay
        self.policy = policy or Policy()
        self.peer: Endpoint | None = None
        "Another server, through which everything goes that is not for phones registered here."
        self.location: dict[str, list[Endpoint]] = {}
        "User -> where the phones' registrations came from, newest first."
        self._transactions: dict[str, Transaction] = {}
        "By the branch of the request that came."
        self._sent: dict[str, Transaction] = {}
        "By the branch of the copy that left."
        host.bind(5060, self._receive)

    def _receive(self, datagram: Datagram) -> None:
        if nat.is_keep_alive(datagram.data):
            return
        message = parse(datagram.data)
        arrival = Arrival(datagram.source, "udp", datagram.target)
        if isinstance(message, Request):
            self._request(message, arrival)
        else:
            assert isinstance(message, Response)
            self._response(message, arrival)

    # requests

    def _request(self, request: Request, arrival: Arrival) -> None:
        if request.method == "REGISTER":
            user = request.to.uri.user or ""
            others = [place for place in self.location.get(user, []) if place != arrival.source]
            self.location[user] = [arrival.source, *others]
            self._send(arrival.source, response_to(request, 200, to_tag="registrar"))
            return
        key = request.via.branch or ""
        transaction = self._transactions.get(key)
        if request.method == "CANCEL":
            self._cancel(request, arrival)
        elif request.method != "ACK" or transaction is None:  # the ACK of a failure goes hop by hop, and ends here
            new = Transaction(request=request, source=arrival.source)
            self._forward(request, arrival, self._transactions.setdefault(key, new))

    def _forward(self, request: Request, arrival: Arrival, transaction: Transaction) -> None:
        """Send copies to everybody it is for; a retransmission makes the same copies again."""
        place = request.uri.endpoint
        targets = [place] if place else self.location.get(request.uri.user or "", [])
        if self.peer and arrival.source != self.peer and not self._registered(targets):
            targets = [self.peer]
        if not targets:
            self._send(arrival.source, response_to(request, 404, to_tag="server"))
            return
        ready, failed = self._through(request, arrival, Facts(receiver_version=targets[0].version))
        if failed is not None and request.method != "ACK":
            self._send(arrival.source, response_to(request, failed.status, failed.reason, to_tag="server"))
            return
        for number, target in enumerate(targets):
            branch = f"{request.via.branch}.{number}"
            via = f"SIP/2.0/UDP {Endpoint(self.host.address(target.version), 5060)};branch={branch}"
            copy = ready.prepend("Via", via)
            assert isinstance(copy, Request)
            known = transaction.branches.setdefault(branch, Branch(request=copy, target=target))
            self._sent[branch] = transaction
            if known.status < 200:
                self._send(known.target, copy)

    def _registered(self, targets: list[Endpoint]) -> bool:
        places = {place for places in self.location.values() for place in places}
        return bool(targets) and places.issuperset(targets)

    def _cancel(self, request: Request, arrival: Arrival) -> None:
        self._send(arrival.source, response_to(request, 200, to_tag="server"))
        transaction = self._transactions.get(request.via.branch or "")
        if transaction is not None:
            self._through(request, arrival, Facts())
            self._cancel_branches(transaction)

    def _cancel_branches(self, transaction: Transaction) -> None:
        for branch in transaction.branches.values():
            if branch.status < 200:
                invite = branch.request
                headers = [("Via", str(invite.via)), ("Max-Forwards", "70")]
                headers += [(name, invite.header(name) or "") for name in ("From", "To", "Call-ID")]
                headers.append(("CSeq", f"{invite.cseq.number} CANCEL"))
                self._send(branch.target, Request.build("CANCEL", invite.uri, headers))

    # responses

    def _response(self, response: Response, arrival: Arrival) -> None:
        branch_id = response.via.branch or ""
        transaction = self._sent.get(branch_id)
        if transaction is None or response.cseq.method == "CANCEL":
            return
        branch = transaction.branches[branch_id]
        if branch.status >= 200 > response.status:
            return
        branch.status = response.status
        failed = transaction.initial and response.status >= 300
        # The last failure goes upstream, unless somebody else has answered.
        final = failed and all(other.status >= 300 for other in transaction.branches.values())
        facts = Facts(
            in_dialog=not transaction.initial,
            final=final,
            branch=(transaction.request.via.branch or "") if final else branch_id,
            receiver_version=transaction.source.version,
        )
        ready, _ = self._through(response, arrival, facts)
        if final or not failed:
            self._send(transaction.source, ready.remove_value("Via", 0))
        if transaction.initial and 200 <= response.status < 300:
            self._cancel_branches(transaction)

    # the pure middle

    def _through(self, message: Message, arrival: Arrival, facts: Facts) -> tuple[Message, Failure | None]:
        """The message repaired, with its media sent by the relay if there is one; or why that cannot be."""
        repaired = repair(message, arrival, self.policy, direct=arrival.source != self.peer).message
        if self.relay is None:
            return repaired, None
        plan = traversal.plan(message, arrival, self.policy, facts)
        reply = self.relay.ask(plan.request) if plan.request else None
        return plan.complete(reply, repaired), plan.failure(reply)

    def _send(self, target: Endpoint, message: Message) -> None:
        self.host.send(5060, target, bytes(message))
