"""Which slot of the kernel's maps belongs to which port, and the one control value that tells the program.

The relay's addresses and port range come in, indexes go out: number of the address × ports + port - first port. A
port that is not of the relay has no index. Nothing here looks at calls.
"""

import struct

import msgspec

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.settings import RelaySettings
from mediaproxy.relay.slots import ADDRESSES, CONTROL, layout_hash, packed, unpacked

HEARTBEAT = CONTROL.offsets["heartbeat"][0]
"Where the heartbeat is in the control value: 8 bytes, CLOCK_MONOTONIC in nanoseconds."


class Rate(msgspec.Struct, frozen=True):
    """A token bucket: packets per second, and how many at once."""

    per_second: float
    burst: float

    def encode(self) -> bytes:
        """As the program takes it: the nanoseconds that one packet costs, and those that may be owed."""
        interval = round(1e9 / self.per_second)
        return struct.pack("=II", min(interval, 0xFFFFFFFF), min(round(interval * (self.burst - 1)), 0xFFFFFFFF))


class PortMap(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of a relay, and their slots."""

    addresses: tuple[tuple[str, str], ...]
    "Bound and advertised address, at most 8 pairs; the order is that of SlotConfig.address."
    port_min: int
    "The first port, an even one."
    ports: int
    "Ports per address, RTP and RTCP."

    @classmethod
    def of(cls, settings: RelaySettings) -> "PortMap":
        """All ports that a relay with these settings can lend."""
        even = settings.even_ports
        pairs = tuple((address.bind, address.public) for address in settings.addresses)
        return cls(addresses=pairs, port_min=even.start, ports=2 * len(even))

    def __post_init__(self) -> None:
        assert len(self.addresses) <= ADDRESSES, "more addresses than the program knows"

    @property
    def slots(self) -> int:
        """How many slots there are."""
        return self.ports * len(self.addresses)

    def index(self, local: Endpoint) -> int | None:
        """The slot of a bound address and port; None: no port of this relay."""
        number = self.address(local.address)
        offset = local.port - self.port_min
        return None if number is None or not 0 <= offset < self.ports else number * self.ports + offset

    def address(self, bind: str) -> int | None:
        """SlotConfig.address of a bound address."""
        return next((number for number, pair in enumerate(self.addresses) if pair[0] == bind), None)

    def endpoint(self, index: int) -> Endpoint:
        """The bound address and port of a slot."""
        number, offset = divmod(index, self.ports)
        return Endpoint(self.addresses[number][0], self.port_min + offset)

    def overlaps(self, other: "PortMap") -> bool:
        """Whether a port is in both."""
        first = max(self.port_min, other.port_min)
        last = min(self.port_min + self.ports, other.port_min + other.ports)
        binds = {bind for bind, _ in self.addresses}
        return first < last and any(bind in binds for bind, _ in other.addresses)

    def own(self, target: Endpoint) -> Endpoint | None:
        """A target that is a port of this relay, as bound or as advertised: where it is bound. None: it is not."""
        for bind, advertised in self.addresses:
            if target.address in (bind, advertised) and 0 <= target.port - self.port_min < self.ports:
                return Endpoint(bind, target.port)
        return None


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for all slots."""

    ports: PortMap
    heartbeat: int = 0
    "CLOCK_MONOTONIC in nanoseconds when the relay was last seen alive."
    alive: float = 1.0
    "Seconds that it counts as alive after that (calls.md 13)."
    silence: float = 1.0
    "Seconds of silence after which another port may replace a settled source (calls.md 6)."
    ahead: int = 500
    "Sequence numbers that a moved stream may be ahead (calls.md 6)."
    ranked: Rate = Rate(1000, 250)
    "Per slot, from sources that may change a decision."
    strangers: Rate = Rate(20, 20)
    "Per slot, from all others: enough to name them."
    spray: Rate = Rate(2000, 500)
    "From strangers to all slots together, on each CPU."
    retiring: bool = False
    "Other maps of the relay may have the same ports: what is not lent here is left alone."

    def encode(self) -> bytes:
        """The value of the map ``control``."""
        ports = self.ports
        return CONTROL.struct.pack(
            self.heartbeat,
            round(self.alive * 1e9),
            layout_hash(),
            round(self.silence * 1e9),
            self.ahead,
            ports.port_min,
            ports.ports,
            self.ranked.encode(),
            self.strangers.encode(),
            self.spray.encode(),
            len(ports.addresses),
            self.retiring,
            b"".join(packed(bind) for bind, _ in ports.addresses),
        )


def known_ports(control: bytes) -> tuple[int, PortMap]:
    """The layout hash and the ports that a control value of an earlier process names; advertised are those bound."""
    values = dict(zip(CONTROL.names, CONTROL.struct.unpack(control), strict=True))
    addresses = []
    for number in range(min(values["count"], ADDRESSES)):
        address = unpacked(values["addresses"][16 * number : 16 * number + 16])
        addresses.append((address, address))
    return values["layout"], PortMap(addresses=tuple(addresses), port_min=values["port_min"], ports=values["ports"])
