"""Which of the relay's addresses the modifiers ``e``, ``i`` and ``l`` of U and L mean.

The original has two at most, the internal and the external one. Here they are those of these names; where no address
has them but there are two IP versions, internal is IPv4 and external IPv6, as Kamailio's flag ``x`` means it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

INTERNAL, EXTERNAL = "internal", "external"


@dataclass(frozen=True, slots=True)
class Address:
    """One address, as an operator has set it (RelayAddress)."""

    name: str
    bind: str
    public: str

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.bind else 4


@dataclass(frozen=True, slots=True)
class Choice:
    """What a question says of it: its name, empty if it has none, and its IP version; 0: it has both."""

    name: str = ""
    version: int = 0


class Addresses:
    """All of them."""

    def __init__(self, addresses: Iterable[Address] = ()) -> None:
        self._all = tuple(addresses)

    def side(self, letter: str) -> Choice | None:
        """``e`` or ``i``; None: there is no such address."""
        name, version = (EXTERNAL, 6) if letter == "e" else (INTERNAL, 4)
        named = self._named(name)
        if named is not None:
            return named
        return Choice(version=version) if {one.version for one in self._all} == {4, 6} else None

    def local(self, word: str) -> Choice | None:
        """A name, or a number in its usual form; None: it is not ours."""
        for one in self._all:
            if word in (one.bind, one.public):
                return Choice(one.name, one.version)
        return self._named(word) if word else None

    def _named(self, name: str) -> Choice | None:
        versions = {one.version for one in self._all if one.name == name}
        if not versions:
            return None
        return Choice(name, versions.pop() if len(versions) == 1 else 0)
