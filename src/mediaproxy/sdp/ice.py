"""What becomes of ICE (RFC 8839) in an SDP whose media is relayed: it stays, it goes, or the relay becomes a candidate.

The parts of a body and the relay's ports come in, edits of the body's ICE lines go out. Only relayed streams are
concerned, and the session's lines if no other stream needs them.
"""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from enum import StrEnum
from ipaddress import IPv4Address, ip_address

from mediaproxy.control import MediaPort
from mediaproxy.endpoint import Endpoint
from mediaproxy.sdp.edit import Edit
from mediaproxy.sdp.section import Block, Section


class IcePolicy(StrEnum):
    """What happens to the ICE lines (RFC 8839) of relayed streams."""

    KEEP = "keep"
    "They stay. A phone sees that c= is none of the candidates, and gives ICE up for this stream (RFC 8839 §4.2.5)."
    REMOVE = "remove"
    "They go, so that phones that do not look for that mismatch use the relay as plain RTP phones do."
    LOW_PRIORITY = "low-priority"
    "The relay is added to the phone's candidates as the last choice: media goes directly where it can."
    HIGH_PRIORITY = "high-priority"
    """The relay is added to the phone's candidates as the first choice. ICE leaves it to the phones how long they
    wait for that one: what answers first may do."""


_PRIORITIES = {
    # RFC 8445 §5.1.2.1: type preference * 2**24 + local preference (65535) * 2**8 + 256 - component
    IcePolicy.LOW_PRIORITY: (0 << 24) + 0xFFFF00 + 256,
    IcePolicy.HIGH_PRIORITY: (130 << 24) + 0xFFFF00 + 256,
}
"""Policy -> the priority of the relay's candidate before its component is taken off. The type preferences are the
original's: 130 is above that of host candidates (126), and above what RFC 8445 allows; phones only compare."""
_ICE = frozenset(("candidate", "remote-candidates", "end-of-candidates"))


def is_ice(name: str) -> bool:
    """Whether an attribute of that name belongs to ICE: RFC 8839 §5, RFC 8840 (end-of-candidates), RFC 5245
    (ice-mismatch…)."""
    return name in _ICE or name.startswith("ice-")


def uses_ice(*blocks: Block) -> bool:
    """Whether ICE is offered in one of the parts: a=ice-ufrag or a=candidate."""
    return any(block.has("ice-ufrag", "candidate") for block in blocks)


def apply_ice(
    edit: Edit,
    policy: IcePolicy,
    session: Block,
    relayed: Sequence[tuple[Section, MediaPort]],
    left: Sequence[Section],
) -> None:
    """Do what the policy says. ``left``: the streams that are not relayed, although they have a port."""
    if policy is IcePolicy.REMOVE:
        _remove(edit, session, [section for section, _ in relayed], left)
    elif policy in _PRIORITIES:
        for section, port in relayed:
            _join(edit, session, section, port, _PRIORITIES[policy])


def _remove(edit: Edit, session: Block, relayed: Sequence[Section], left: Sequence[Section]) -> None:
    concerned: list[Block] = list(relayed)
    if not any(section.has("candidate") for section in left):
        concerned.append(session)
    for block in concerned:
        gone = set(filter(is_ice, block.names))
        for attribute in block.attributes if gone else ():
            if attribute.name in gone:
                edit.drop(attribute.line)


def _join(edit: Edit, session: Block, section: Section, port: MediaPort, priority: int) -> None:
    """Add the relay's candidates before the phone's first one, or as the stream's last lines. Those that are there
    already are not added again."""
    if not all(section.has(name) or session.has(name) for name in ("ice-ufrag", "ice-pwd")):
        return  # RFC 8839 §5.4: both are mandatory
    there = {value.strip() for value in section.values("candidate")}
    names = ("candidate", "end-of-candidates")
    first = next((attribute.line for attribute in section.attributes if attribute.name in names), None)
    at = edit.last_line(section) if first is None else first - 1
    for candidate in _candidates(section, port, priority):
        if candidate not in there:
            edit.add(at, f"a=candidate:{candidate}")


def _candidates(section: Section, port: MediaPort, priority: int) -> Iterator[str]:
    yield _candidate(port.rtp, 1, priority - 1)
    # RFC 5761 §5.1.3: who offers rtcp-mux has candidates for RTCP, too, in case that the other side has no mux.
    offered = any(value.split()[1:2] == ["2"] for value in section.values("candidate"))
    if offered and port.rtcp is not None and section.rtp and not section.has("rtcp-mux-only"):
        yield _candidate(port.rtcp, 2, priority - 2)


def _candidate(relay: Endpoint, component: int, priority: int) -> str:
    """RFC 8839 §5.1. The related address, which a relayed candidate must have, is the relay's own: whose address it
    stands for is the phone's secret."""
    address, port = relay.address, relay.port
    foundation = candidate_foundation(address)
    return f"{foundation} {component} UDP {priority} {address} {port} typ relay raddr {address} rport {port}"


def candidate_foundation(address: str) -> str:
    """The foundation (RFC 8445 §5.1.1.3) of a candidate at a relay's address: ``R`` and the address, in
    32 characters at most: eight hexadecimal digits, of IPv6 22 in base 64."""
    ip = ip_address(address)
    return f"R{ip.packed.hex() if isinstance(ip, IPv4Address) else b64encode(ip.packed).decode().rstrip('=')}"
