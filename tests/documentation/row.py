"""A row of the table: one sentence of the documentation, and how it is tried."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lab.hosts import Host
from tests.documentation.house import House

Case = Callable[[House], object]
"Does what the sentence is about, with one host; what came of it."


@dataclass(frozen=True)
class Otherwise:
    """What comes of a case in a host that cannot have what the sentence says."""

    result: object
    why: str


@dataclass(frozen=True)
class Row:
    """One sentence."""

    number: int
    gist: str
    case: Case
    result: object
    "What must come of the case in both hosts,"
    but: Mapping[Host, Otherwise] = field(default_factory=dict)
    "except in these."
    tries: int = 1
    """So many times it may be tried: a relay that does not answer within a second is down for a moment, which other
    work on the machine can bring about."""
    late: bool = False
    "It counts what has happened for a while, so it is tried after the others."

    def expected(self, host: Host) -> object:
        """What must come of it there."""
        return self.but[host].result if host in self.but else self.result


@dataclass(frozen=True)
class Section:
    """One section of the documentation."""

    title: str
    sentences: int
    "How many it has on the original's page. Each item of a list counts, and each example; that of 1.8 by its lines."
    rows: Sequence[Row]
