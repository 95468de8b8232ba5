"""Commands about the proxy as a whole: V and VF say what it can, I and G what it has done.

V        VF DATE        I[b][l]        G[v] [COUNTER…]
"""

from collections.abc import Callable, Mapping

from mediaproxy.control import MediaReply, TotalsRequest
from mediaproxy.dialects.dialect import Peer, Steps
from mediaproxy.dialects.rtpproxy.command import Command
from mediaproxy.dialects.rtpproxy.errors import Code, Refusal
from mediaproxy.events import RelayTotals, totals_of

VERSION = b"20040107"

FEATURES: Mapping[str, bool] = {
    "20040107": True,  # the protocol as such
    "20050322": True,  # several streams; music on hold, which is told apart by P's error
    "20060704": True,  # VF
    "20071116": False,  # z: other packet sizes
    "20071218": False,  # C: copies of a stream
    "20080403": True,  # Q
    "20081102": True,  # c: codecs in U and L
    "20081224": True,  # timeout sockets
    "20090810": False,  # r: the address by which the host reaches another one
    "20140323": True,  # Il
    "20140617": False,  # when a session was connected
    "20141004": True,  # G, counters by name in Q
    "20150330": False,  # n: a new port; done in U, not in L
    "20150420": False,  # all rtpa_ counters
    "20150617": True,  # %%CC_SELF%%
    "20191015": False,  # &&
    "20200226": False,  # N
    "20230205": True,  # rtpa_nlost
    "20230314": False,
    "20230424": False,  # jitter
}
"What a date that is a capability of the protocol stands for, and whether it is done here."

COUNTERS: Mapping[str, Callable[[RelayTotals], float]] = {
    "nsess_created": lambda totals: totals.started_calls,
    "nsess_destroyed": lambda totals: sum(totals.ended_calls.values()),
    "nsess_nortp": lambda totals: totals.silent_calls,
    "nsess_owrtp": lambda totals: totals.one_way_calls,
    "nplrs_created": lambda totals: 0,
    "nplrs_destroyed": lambda totals: 0,
    "npkts_rcvd": lambda totals: totals.packets + totals.refused_packets,
    "npkts_played": lambda totals: 0,
    "npkts_relayed": lambda totals: totals.packets,
    "npkts_resized": lambda totals: 0,
    "npkts_discard": lambda totals: totals.refused_packets,
    "total_duration": lambda totals: totals.seconds,
}
"What G knows; of players and other packet sizes there never are any. A session is a call."


def version(command: Command, peer: Peer) -> Steps:
    """V."""
    yield from ()
    return VERSION


def feature(command: Command, peer: Peer) -> Steps:
    """VF: 1 for what is really done."""
    yield from ()
    return b"1" if FEATURES.get(command.arguments[0], False) else b"0"


def info(command: Command, peer: Peer) -> Steps:
    """I. A stream is what one party sends, as with the original; a session that was deleted is none. ``l``: the part of
    the ports that is lent, of the relay that has lent the greatest part."""
    if command.modifiers.lower().strip(b"bl"):
        raise Refusal(Code.INFO_MODIFIER)
    reply = yield TotalsRequest()
    relays = _relays(reply)
    lines = [
        f"sessions created: {sum(one.started_calls for one in relays)}",
        f"active sessions: {sum(one.calls - one.lingering for one in relays)}",
        f"active streams: {2 * sum(one.streams for one in relays)}",
        f"packets received: {sum(one.packets + one.refused_packets for one in relays)}",
        f"packets transmitted: {sum(one.packets for one in relays)}",
    ]
    if b"l" in command.modifiers.lower():
        lines.append(f"average load: {max((one.ports_lent / one.ports for one in relays if one.ports), default=0.0):f}")
    return "\n".join(lines).encode("ascii")


def counters(command: Command, peer: Peer) -> Steps:
    """G: of all relays together."""
    if command.modifiers.strip(b"vV"):
        raise Refusal(Code.COUNTERS_MODIFIER)
    if not all(name in COUNTERS for name in command.arguments):
        raise Refusal(Code.COUNTERS)
    reply = yield TotalsRequest()
    relays = _relays(reply)
    values = [(name, _number(name, sum(COUNTERS[name](one) for one in relays))) for name in command.arguments]
    return " ".join(f"{name}={value}" if command.modifiers else value for name, value in values).encode("ascii")


def _number(name: str, value: float) -> str:
    return f"{value:f}" if name == "total_duration" else str(int(value))


def _relays(reply: MediaReply | None) -> tuple[RelayTotals, ...]:
    if reply is None or reply.error:
        raise Refusal(Code.OVERLOAD)
    return totals_of(reply)
