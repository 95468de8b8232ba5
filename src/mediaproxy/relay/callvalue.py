"""A call as a value with its codec, for a relay that starts again. ``snapshot`` takes it, ``revival`` uses it.

Parties, latches and ports of a call refer to each other; here each leg, stream, latch and port has a number, and is
referred to by that. Fields have the names of the attributes that they are taken from. What follows from the rest is not
in it: flows, peers of ports, settings.
"""

import msgspec

from mediaproxy.control import PhoneAddress
from mediaproxy.control import Stream as Sdp
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import EndReason, Side
from mediaproxy.relay.expectation import Anchor, Expectation, Voucher
from mediaproxy.relay.gate import Gate
from mediaproxy.relay.ice import Credentials
from mediaproxy.relay.latchstate import State
from mediaproxy.relay.memory import Counter, Key, Ports
from mediaproxy.relay.offers import Said, Transaction
from mediaproxy.relay.ports import Pair
from mediaproxy.relay.quality import Gauge
from mediaproxy.relay.rtp import RtpHeader
from mediaproxy.relay.terms import Terms
from mediaproxy.relay.trace import Trace

LAYOUT = 4
"Raised whenever one of these values changes: a journal of another layout is not read (relay/journal.py)."

NONE = -1
"The number of no leg, stream or latch."


class TallyValue(msgspec.Struct, array_like=True):
    """What has come to a port."""

    first: float | None
    last: float | None
    recent: tuple[int, ...]
    _received: int
    _forwarded: int
    _bytes: int
    _plane_received: int
    _plane_forwarded: int
    _plane_bytes: int
    _updated: int
    _ssrc: int | None
    _sequence: int
    _expected: int
    _unmeasured: int
    gauge: Gauge | None
    _plane_undelivered: int = 0
    "Journals of before are read."


class RefusalsValue(msgspec.Struct, array_like=True):
    """Who was not let in at a port."""

    _packets: int
    dropped: int
    why: str
    _sources: dict[Endpoint, int]
    _early: dict[Endpoint, int]
    _told: set[Endpoint]


class LatchValue(msgspec.Struct, array_like=True):
    """One party's source at one port."""

    state: State
    expectation: Expectation | None
    learned: Endpoint | None
    learned_at: float
    rank: int
    _last: Trace
    _since: float
    _ranked_at: float | None
    _provisional: Endpoint | None
    _provisional_rank: int
    _provisional_at: float
    _home: Anchor | None
    _moved_target: Endpoint | None
    _nominated: tuple[Endpoint, str] | None
    rtp: int
    "Of an RTCP port's latch: that of its RTP port."
    probation: dict[Endpoint, tuple[int, RtpHeader]]


class PortValue(msgspec.Struct, array_like=True):
    """A lent port."""

    _told: int
    _told_at: float
    closed: bool
    native: bool
    offloaded: bool
    passed: float | None
    latch: int
    guests: tuple[int, ...]
    "Ports of other legs whose parties were told to send here."
    tally: TallyValue
    refusals: RefusalsValue | None


class EndValue(msgspec.Struct, array_like=True):
    """A pair of ports that face one party."""

    pair: Pair
    sent: tuple[float, ...]
    "When packets went to an address that may not want them, in the last second."
    rtp: PortValue
    rtcp: PortValue


class StreamValue(msgspec.Struct, array_like=True):
    """One m-section. Its ports are numbered 4n to 4n + 3: RTP and RTCP towards the caller, then towards the callee."""

    index: int
    changed: float
    sdp: dict[Side, Sdp]
    terms: dict[Side, Terms]
    one_way: dict[Side, float]
    caller: EndValue
    callee: EndValue


class PartyValue(msgspec.Struct, array_like=True):
    """One party."""

    tag: str
    uri: str
    user_agent: str
    facing: str
    gate: Gate
    label: str
    phone: PhoneAddress
    voucher: Voucher


class LegValue(msgspec.Struct, array_like=True):
    """One callee."""

    branch: str
    sdp: tuple[Sdp, ...]
    order: int
    answered: bool
    ended: bool
    failed: bool
    party: PartyValue
    latches: dict[int, tuple[int, int]]
    "By index of the stream: RTP and RTCP."
    streams: tuple[int, ...] | None


class MemoryValue(msgspec.Struct, array_like=True):
    """The questions of a call."""

    answers: dict[Key, Ports]
    last: dict[Counter, int]
    offers: dict[tuple[Side, str], list[int]]
    late: dict[tuple[Side, str], Transaction | None]
    refused: tuple[Transaction, ...]
    latest: dict[tuple[Side, str], tuple[int, str]]
    memos: dict[tuple[Side, str], str]


class ChangeValue(msgspec.Struct, array_like=True):
    """An SDP that may still be refused."""

    by: Transaction
    side: Side
    before: Said
    after: Voucher
    shared: bool
    own: bool
    founded: bool
    leg: int
    lent: tuple[int, ...]


class CallValue(msgspec.Struct, array_like=True):
    """A call."""

    number: int
    turn: int
    call_id: str
    attempts: set[str]
    adopted: bool
    dialog_id: str
    notify: str
    credentials: dict[Side, Credentials]
    tos: int | None
    asked: float
    offered: float
    holders: set[Side | None]
    deleted: bool
    started: float
    trying: float
    answered: float | None
    changed: float
    resumed: float
    lingering: EndReason | None
    lingers_until: float
    over: float | None
    status: int
    _failed_tag: str | None
    _was_held: bool
    _orders: int
    caller: PartyValue
    invited: PartyValue
    legs: tuple[LegValue, ...]
    "Those that it has, then those that only an SDP which may be refused still refers to."
    had: int
    "How many it has."
    locked: int
    active: int
    latches: tuple[LatchValue, ...]
    streams: tuple[StreamValue, ...]
    "All that anything refers to."
    present: tuple[int, ...]
    "Its own, by index of the m= line."
    retiring: tuple[tuple[int, int], ...]
    memory: MemoryValue
    offers: tuple[ChangeValue, ...]
    ends_at: float | None = None
    "When it is to be looked at because it may end."
    looks_at: float | None = None
    "When it is to be looked at for one-way audio."


class CountersValue(msgspec.Struct, array_like=True):
    """What packets alone change, of a call that has not changed otherwise since its CallValue was taken."""

    turn: int
    "That of the CallValue."
    tallies: tuple[TallyValue, ...]
    "By number of the port."
    passed: tuple[float | None, ...]
    traces: tuple[Trace, ...]
    "By number of the latch."


_encoder = msgspec.msgpack.Encoder()
_calls = msgspec.msgpack.Decoder(CallValue)
_counters = msgspec.msgpack.Decoder(CountersValue)


def encode(value: CallValue | CountersValue) -> bytes:
    """The value in bytes."""
    return _encoder.encode(value)


def decode_call(data: bytes) -> CallValue:
    """The value of a call. msgspec.MsgspecError if these bytes are none."""
    return _calls.decode(data)


def decode_counters(data: bytes) -> CountersValue:
    """The counters of a call. msgspec.MsgspecError if these bytes are none."""
    return _counters.decode(data)
