"""The stage of the stories: a SIP server and a relay on the public toy Internet, and as many homes as a story wants."""

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.settings import RelayAddress, RelaySettings
from tests.vmedia import FRAME
from tests.vnet import DSL, RESTRICTED, Firewall, Host, Internet, Kind, Link, Nat, Network, OneToOne, Ports
from tests.vphone import Call, Phone
from tests.vrelay import Relay
from tests.vserver import Server

SERVER = Endpoint("198.51.100.5", 5060)
SERVER6 = Endpoint("2001:db8:5::5", 5060)
RELAY, RELAY6 = "198.51.100.7", "2001:db8:5::7"
LAN = "192.168.1.10"
"Everybody's address at home: both homes of a call use the same, as real ones do."


class World:
    """One story's Internet."""

    def __init__(
        self, seed: int = 1, *, relayed: bool = True, strict: bool = False, cloud: bool = False, **settings: object
    ) -> None:
        """``relayed``: the server uses the relay. ``strict``: the plane drops what is outside Flow.allowed.
        ``cloud``: the relay sits behind a 1:1 NAT. ``settings``: of the relay, beside its addresses."""
        self.net = Internet(seed)
        host = Host(self.net).attach(self.net.public, RELAY6)
        inner = "10.0.0.5" if cloud else RELAY
        outside = OneToOne(outer=self.net.public, address=RELAY, inner=inner).inside if cloud else self.net.public
        host.attach(outside, inner)
        addresses = (RelayAddress(bind=inner, advertise=RELAY), RelayAddress(bind=RELAY6, advertise=RELAY6))
        chosen = RelaySettings(addresses=addresses, **settings)  # type: ignore[arg-type]  # named values
        self.relay = Relay(host, chosen, strict=strict, seed=seed)
        server = Host(self.net).attach(self.net.public, SERVER.address).attach(self.net.public, SERVER6.address)
        self.server = Server(server, self.relay if relayed else None)
        self._homes = 0

    def home(
        self,
        kind: Kind = RESTRICTED,
        *,
        outer: Network | None = None,
        address: str = "",
        link: Link = DSL,
        lifetime: float = 120.0,
        ports: Ports = Ports.RANDOM,
    ) -> Nat:
        """A home router with an address of its own, in the Internet or in a carrier's network."""
        self._homes += 1
        address = address or f"203.0.113.{self._homes}"
        return Nat(
            outer=outer or self.net.public, addresses=[address], kind=kind, link=link, lifetime=lifetime, ports=ports
        )

    def phone(self, name: str, where: Nat | Firewall | Network | None = None, address: str = LAN) -> Phone:
        """A registered phone in a home (default: one of its own) or on a network."""
        phone = Phone(self.net, name, SERVER6 if ":" in address else SERVER)
        if where is None:
            where = self.home()
        if isinstance(where, Firewall):
            where.admit(phone.host, address)
        else:
            phone.host.attach(where.inside if isinstance(where, Nat) else where, address)
        phone.register()
        self.net.run(0.1)
        return phone

    def host(self) -> Host:
        """A bare computer, for whoever is no phone."""
        return Host(self.net)

    def relay_port(self, port: int) -> Endpoint:
        """A port of the relay as the world knows it."""
        return Endpoint(RELAY, port)

    def pair(self, one: Kind = RESTRICTED, other: Kind = RESTRICTED, *, lifetime: float = 120.0) -> tuple[Phone, Phone]:
        """Alice and Bob, each at home behind a NAT, both with the same private address."""
        homes = [self.home(kind, lifetime=lifetime) for kind in (one, other)]
        return self.phone("alice", homes[0]), self.phone("bob", homes[1])

    def connect(self, caller: Phone, callee: Phone) -> tuple[Call, Call]:
        """A call that is answered: both sides of it, 1 s after the answer."""
        call = caller.call(callee.name)
        self.net.run((callee.answer_after or 0.0) + 1.0)
        assert call.state == "up", f"{call.state} {call.status}"
        return call, callee.last

    def share(self, listener: Call, tone: str, since: float, number: int = 0) -> float:
        """The part of a steady tone that a phone heard since a time on one of its streams, 1.0 = all of it."""
        return listener.voices[number].count(tone, since) * FRAME / (self.net.now - since)

    def two_way(self, one: Call, other: Call, seconds: float = 2.0, *, number: int = 0, least: float = 0.99) -> None:
        """From now on both hear (nearly) all that the other says on a stream, and nobody else."""
        since = self.net.now
        self.net.run(seconds)
        for listener, speaker in ((one, other), (other, one)):
            tone = speaker.voices[number].tone
            assert self.share(listener, tone, since, number) >= least, f"{listener.phone.name} hears too little"
            heard = {heard.tone for heard in listener.voices[number].heard if heard.at >= since}
            assert heard == {tone}, f"{listener.phone.name} hears {heard}"
