"""What a door has done since it was opened, for ``mediaproxy doors``."""

import msgspec


class DoorReport(msgspec.Struct, frozen=True, kw_only=True):
    """One door."""

    protocol: str
    address: str
    "Where it listens, with the port that it got."
    allow: tuple[str, ...] = ()
    "Who may ask; none: this host, or whom the rights of the UNIX socket let in."
    requests: int = 0
    "That were worked on, repetitions not counted."
    errors: int = 0
    "Of these, those whose answer says in the protocol's own words that it was not done."
    malformed: int = 0
    "Bytes that were no request, and have no answer in the protocol: a datagram was dropped, a connection closed."
    repeated: int = 0
    "Requests that came again and got the answer of the first one."
    refused: int = 0
    "Datagrams and connections of addresses that may not ask."
    dropped: int = 0
    "Datagrams and connections that were too many or too long, and clients that did not read their answers."
    working: int = 0
    "Requests under way now."
    connections: int = 0
    "Now. None with datagrams."
    seconds: float = 0.0
    "From a request to its answer, all of them together."
    longest: float = 0.0
    "Seconds that the slowest answer took."


class Counters:
    """The numbers of a DoorReport while they grow. Mutable."""

    __slots__ = (
        "connections",
        "dropped",
        "errors",
        "longest",
        "malformed",
        "refused",
        "repeated",
        "requests",
        "seconds",
        "working",
    )

    def __init__(self) -> None:
        self.requests = self.errors = self.malformed = self.repeated = self.refused = self.dropped = 0
        self.working = self.connections = 0
        self.seconds = self.longest = 0.0

    def answered(self, seconds: float) -> None:
        """A request is done."""
        self.seconds += seconds
        if seconds > self.longest:
            self.longest = seconds

    def report(self, protocol: str, address: str, allow: tuple[str, ...]) -> DoorReport:
        """As they are now."""
        numbers = {name: getattr(self, name) for name in self.__slots__}
        return DoorReport(protocol=protocol, address=address, allow=allow, **numbers)
