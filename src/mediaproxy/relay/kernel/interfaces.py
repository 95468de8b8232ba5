"""Which interfaces packets to the relay can come in by: where the programs must hang.

Interfaces, the addresses that they carry and what an operator has named come in; interfaces go out. Nothing is attached
here.
"""

from collections.abc import Callable, Iterable, Mapping

from mediaproxy.endpoint import Scope, scope
from mediaproxy.relay.kernel.netlink import Link


def wanted(
    links: Mapping[int, Link], carriers: Callable[[str], set[int]], addresses: Iterable[str], named: Iterable[str]
) -> tuple[dict[int, Link], dict[int, Link]]:
    """Those that matter and those that may: ``lo``, all that carry an address, and those named. ``carriers``: the
    interfaces of an address. One that none but ``lo`` carries is reached by any, so all that are up may matter."""
    named = set(named)
    must = {index: link for index, link in links.items() if link.loopback or link.name in named}
    if named:
        return must, {}
    may: dict[int, Link] = {}
    for address in addresses:
        found = [links[index] for index in carriers(address) if index in links]
        must |= {link.index: link for link in found}
        if scope(address) is not Scope.LOOPBACK and all(link.loopback for link in found):
            may |= {index: link for index, link in links.items() if link.up}
    return must, {index: link for index, link in may.items() if index not in must}
