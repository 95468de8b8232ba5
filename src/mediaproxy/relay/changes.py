"""What of a relay's calls is news for its journal.

Calls say what has changed of them; News goes out, in bytes, when somebody is about to write. It must never tell of a
call that has not changed, because that costs time, nor forget one that has.
"""

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice

import msgspec

from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.agenda import Agenda
from mediaproxy.relay.call import Call
from mediaproxy.relay.callvalue import encode
from mediaproxy.relay.ports import CoolingValue, PortPool
from mediaproxy.relay.snapshot import call_value, counters_value


class Brief(msgspec.Struct, frozen=True, array_like=True):
    """What can be told of a call whose value cannot be read. It never changes, but that fields are added."""

    call_id: str = ""
    caller: tuple[str, str] = ("", "")
    "URI and tag."
    callee: tuple[str, str] = ("", "")
    started: float = 0.0
    answered: float | None = None
    dialog_id: str = ""
    notify: str = ""


_encode = msgspec.msgpack.Encoder().encode


class Gone(msgspec.Struct, frozen=True, array_like=True):
    """A call that has ended: a late 200 must not start a ghost."""

    call_id: str
    tag: str
    "The caller's."
    forget_at: float
    cseq: int
    "The highest of the caller's requests."


class Row(msgspec.Struct, frozen=True):
    """A call that has changed."""

    number: int
    call_id: str
    brief: bytes
    value: bytes


class News(msgspec.Struct, frozen=True, kw_only=True):
    """All that has changed."""

    calls: tuple[Row, ...]
    counters: tuple[tuple[int, bytes], ...]
    "Of calls of which nothing else has changed, by number."
    over: tuple[int, ...]
    "Numbers of calls that have ended."
    gone: tuple[Gone, ...]
    cooling: tuple[CoolingValue, ...]
    cooled: tuple[Endpoint, ...]
    "RTP ports of the pairs that are cooling no more."
    generation: int
    "The highest that a port was lent with."

    def __bool__(self) -> bool:
        return bool(self.calls or self.counters or self.over or self.cooling or self.cooled or self.gone)


class Changes:
    """Mutable: what has changed since ``take``."""

    def __init__(self, pool: PortPool, ends: Agenda[Call], looks: Agenda[Call]) -> None:
        self._pool, self._ends, self._looks = pool, ends, looks
        self._calls: dict[Call, None] = {}
        self._counters: dict[Call, None] = {}
        self._over: list[int] = []
        self._gone: list[Gone] = []
        self._rounds: OrderedDict[Call, float] = OrderedDict()
        "All calls, the one whose counters were looked at longest ago first, and how alive it was then."

    def __bool__(self) -> bool:
        return bool(self._calls or self._counters or self._over or self._gone or self._pool.news)

    def changed(self, call: Call) -> None:
        """Something of a call."""
        if call.reason is None:
            self._calls[call] = None

    def began(self, call: Call) -> None:
        """There is one more."""
        self._rounds[call] = 0.0

    def ended(self, call: Call, gone: Gone) -> None:
        """A call is over."""
        self._calls.pop(call, None)
        self._counters.pop(call, None)
        self._rounds.pop(call, None)
        self._over.append(call.number)
        self._gone.append(gone)

    def lost(self, number: int) -> None:
        """A call of an earlier process cannot go on."""
        self._over.append(number)

    def count(self, most: int) -> None:
        """Look at the counters of so many calls, each in its turn."""
        for call in list(islice(self._rounds, most)):
            alive = call.alive
            if alive > self._rounds[call] and call not in self._calls:
                self._counters[call] = None
            self._rounds[call] = alive
            self._rounds.move_to_end(call)

    def ports_next(self, most: int) -> list[Endpoint]:
        """The bound ports whose counters ``count`` should know."""
        calls = islice(self._rounds, most)
        return [port.local for call in calls for stream in call.all_streams() for port in stream.ports]

    def all(self, calls: Iterable[Call]) -> None:
        """All is news, whatever is written already. Who has just ended is not among the calls, and still to be told."""
        self._calls = dict.fromkeys(calls)
        self._rounds = OrderedDict.fromkeys(self._calls, 0.0)
        self._counters.clear()
        self._pool.news = set(self._pool.cooling_ports)

    def take(self, now: float) -> News:
        """What has changed; from now on it counts as written."""
        cooling = [(rtp, self._pool.cooled(rtp)) for rtp in self._pool.news]
        news = News(
            calls=tuple(self._row(call, now) for call in self._calls),
            counters=tuple(
                (call.number, encode(counters_value(call))) for call in self._counters if call not in self._calls
            ),
            over=tuple(self._over),
            gone=tuple(self._gone),
            cooling=tuple(value for _, value in cooling if value is not None),
            cooled=tuple(rtp for rtp, value in cooling if value is None),
            generation=self._pool.generation,
        )
        self._calls.clear()
        self._counters.clear()
        self._over.clear()
        self._gone.clear()
        self._pool.news.clear()
        return news

    def _row(self, call: Call, now: float) -> Row:
        call.turn += 1
        value = call_value(call, now, self._ends.planned(call), self._looks.planned(call))
        caller, callee = call.caller, call.callee
        parties = ((caller.uri, caller.tag), (callee.uri, callee.tag))
        brief = Brief(call.call_id, *parties, call.started, call.answered, call.dialog_id, call.notify)
        return Row(call.number, call.call_id, _encode(brief), encode(value))
