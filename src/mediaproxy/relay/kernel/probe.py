"""Whether packets to the relay's ports reach it at all, tried with one that is sent by loopback.

A bank whose programs hang and the receiving sockets come in; which addresses are cut off goes out. Another relay's
program, that we may not see because it is another user's, would take every packet before ours; so would a firewall.
"""

import select
import socket
from collections.abc import Mapping

from mediaproxy.relay.kernel.bank import Bank
from mediaproxy.relay.slots import SlotConfig, State

_PATIENCE = 2.0
"Seconds: loopback delivers at once, if at all, unless the machine is very busy."
_GENERATION = 0xFFFFFFFF


def unreachable(bank: Bank, receivers: Mapping[int, socket.socket]) -> list[str]:
    """The relay's addresses whose ports no packet comes up from. Nothing may be started yet."""
    found = []
    bank.beat()  # loading may have taken longer than the program takes a silent process for alive
    for number, (address, _) in enumerate(bank.ports.addresses):
        version = 6 if ":" in address else 4
        start = number * bank.ports.ports
        free = (index for index in range(start, start + bank.ports.ports) if index not in bank.lent)
        index = next(free, None)
        if index is not None and not _arrives(bank, index, number, version, receivers[version]):
            found.append(address)
    return found


def _arrives(bank: Bank, index: int, number: int, version: int, receiver: socket.socket) -> bool:
    local = bank.ports.endpoint(index)
    config = SlotConfig(address=number, version=version)
    bank.kernel.slots.store(index, _GENERATION, State.DEAF, config)
    try:
        with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                sock.bind((local.address, 0))
            except OSError:
                return True  # this host has it not, or not yet: whose port is lent is told that
            sock.sendto(b"mediaproxy: is this port ours?", (local.address, local.port))
        return bool(select.select([receiver], [], [], _PATIENCE)[0])
    except OSError:  # a firewall says so
        return False
    finally:
        bank.kernel.slots.free(index)
