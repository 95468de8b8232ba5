"""A call's record beside a capture of the same call: what the record says must be what passed on the wire."""

from collections.abc import Mapping
from typing import Any

from lab.capture import Datagram, is_answer
from lab.homes import SERVER

_PCMU_PACKET = 12 + 160
"Bytes of every RTP packet of these phones: PCMU, 20 ms."
_ON_THE_WAY = 8
"So many packets may be under way while SIP is; one or two, if the machine is not busy."
_OTHER = {"caller": "callee", "callee": "caller"}


def check_record(record: Any, datagrams: list[Datagram], wans: Mapping[str, str]) -> None:
    """``wans``: of each side (caller, callee) the public address of its home. Both phones are baresips, and the capture
    holds this call and nothing else."""
    for side, wan in wans.items():
        assert record[side]["user_agent"].startswith("baresip v1.")
        assert record[side]["signalling"]["address"] == wan
    assert [(one["kind"], one["transport"]) for one in record["streams"]] == [("audio", "RTP/AVP")]
    check_media(record, datagrams, wans)


def check_media(record: Any, datagrams: list[Datagram], wans: Mapping[str, str]) -> None:
    """The same without what some SIP servers do not tell a relay: times, packets and bytes."""
    answer = next(d for d in datagrams if is_answer(d.payload) and d.source[0] == wans["callee"])
    passed_on = next(d for d in datagrams if is_answer(d.payload) and d.source[0] == SERVER and d.at >= answer.at)
    bye = next(d for d in datagrams if d.payload.startswith(b"BYE ") and d.target[0] == SERVER)
    over = next(d for d in datagrams if d.payload.startswith(b"SIP/2.0 200") and d.at > bye.at and _ends(d, bye))
    assert record["reason"] == "bye"
    assert abs(record["duration"] - (bye.at - answer.at)) < 0.5
    assert abs(record["ended"] - bye.at) < 0.5
    (stream,) = record["streams"]
    for side, wan in wans.items():
        end = stream[side]
        local = end["advertised"]["address"], end["advertised"]["port"]
        came = [d for d in datagrams if d.source[0] == wan and d.target == local]
        went = [d for d in datagrams if d.source == local and d.target[0] == wan]
        # A baresip sends a first report just before its answer, to open its NAT; mostly nobody is expected there yet.
        reports = [d for d in datagrams if d.source[0] == wan and d.target == (SERVER, local[1] + 1)]
        for counted, octets, passed in (("packets", "bytes", came), ("rtcp_packets", "rtcp_bytes", reports)):
            # While an answer or a BYE is on its way through, a packet may meet the call or not.
            surely = [len(d.payload) for d in passed if passed_on.at <= d.at <= bye.at]
            perhaps = [len(d.payload) for d in passed if d.at <= over.at]
            assert len(surely) <= end[counted] <= len(perhaps), (side, len(surely), end, len(perhaps))
            assert sum(surely) <= end[octets] <= sum(perhaps), (side, sum(surely), end, sum(perhaps))
            assert len(perhaps) - len(surely) <= _ON_THE_WAY
        assert end["bytes"] == end["packets"] * _PCMU_PACKET
        # The kernel forwards on while the process handles the BYE: that is after the call, and may be counted or not.
        before = sum(d.at <= bye.at for d in went)
        assert before <= end["sent"] <= len(went) <= before + _ON_THE_WAY, (side, before, len(went), end)
        assert 0 <= stream[_OTHER[side]]["packets"] - end["sent"] <= _ON_THE_WAY, "none goes where nobody is known yet"
        assert end["refused_packets"] == end["lost"] == 0
        assert end["codec"] == "PCMU"
        assert (end["learned"]["address"], end["learned"]["port"]) == came[-1].source
        assert abs(end["first_packet"] - min(d.at for d in came if d.at >= answer.at)) < 0.3


def _ends(datagram: Datagram, bye: Datagram) -> bool:
    return datagram.source[0] == SERVER and datagram.target[0] == bye.source[0]
