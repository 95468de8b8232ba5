"""relay/callvalue.py: whatever a call knows is in its value, and what the value looks like has a number."""

import hashlib
import inspect

import msgspec
import pytest

from mediaproxy.relay import snapshot
from mediaproxy.relay.call import Call
from mediaproxy.relay.callvalue import LAYOUT, CallValue, CountersValue, decode_counters, encode
from mediaproxy.relay.changes import Brief, Gone
from mediaproxy.relay.latch import Latch
from mediaproxy.relay.leg import Leg, Party
from mediaproxy.relay.memory import Memory
from mediaproxy.relay.offers import Change, Offers
from mediaproxy.relay.ports import CoolingValue
from mediaproxy.relay.probation import Probation
from mediaproxy.relay.refusals import Refusals
from mediaproxy.relay.stream import End, Limit, Port, Stream
from mediaproxy.relay.tally import Tally
from tests.relaybench import Bench

KNOWN_OTHERWISE: dict[type, set[str]] = {
    Call: {
        "board",
        "legs",
        "streams",
        "retiring",
        "memory",
        "offers",
        "caller",
        "invited",
        "locked",
        "active",
        "reason",
    },
    Leg: {"_settings", "_latches", "party", "streams"},
    Party: set(),
    Stream: {"__weakref__", "_clocks", "caller", "callee", "ends", "ports", "index", "call_id", "changed", "sdp"}
    | {"one_way", "terms", "tos"}
    | {"audio", "described", "enabled", "held", "kind", "shakes_hands"},  # of the SDP
    End: {"__weakref__", "_stream", "codec", "credentials", "gate", "limit", "pair", "ports", "refusing", "rtcp"}
    | {"rtp", "side"}
    | {"muxed", "splits"},  # of the SDP
    Port: {"_end", "_version", "generation", "guests", "installed", "latch", "local", "peer", "refusals"}
    | {"rtcp", "tally", "shared", "tie"},
    Latch: {"_settings", "_rtp", "_probation", "_allowed"},
    # A gap that is under way in the moment of a restart counts as lost.
    Tally: {"traffic", "_aside", "_aside_at"},
    Refusals: set(),
    Limit: {"_sent"},
    Probation: {"_needed", "_runs"},
    Memory: {"_answers", "_last", "_offers", "_late", "_refused", "_latest", "memos"},
    Offers: {"_changes"},
    Change: {"leg", "lent"},
}
"Attributes that are kept in another way than by their name, or follow from others, or from the settings."
TAKEN = {
    Call: snapshot.of_call,
    Leg: snapshot.of_leg,
    Party: snapshot.of_party,
    Port: snapshot.of_port,
    Latch: snapshot.of_latch,
    Tally: snapshot.of_tally,
    Refusals: snapshot.of_refusals,
    Change: snapshot.of_change,
}


def attributes(kind: type, call: Call) -> set[str]:
    if hasattr(kind, "__slots__"):
        return set(kind.__slots__)
    return set(vars({Call: call, Memory: call.memory, Offers: call.offers}[kind]))


@pytest.mark.parametrize("kind", KNOWN_OTHERWISE, ids=lambda kind: str(kind.__name__))
def test_whatever_a_call_knows_is_kept(kind: type) -> None:
    """Who adds an attribute says here how it is restored, or adds it to the value in relay/callvalue.py."""
    bench = Bench()
    bench.talk()
    (call,) = bench.calls
    names = {name for name in attributes(kind, call)}
    take = TAKEN.get(kind)
    taken = set(take.__reduce__()[1]) if take is not None else set()
    assert names - taken == KNOWN_OTHERWISE[kind]


def test_a_changed_layout_has_a_new_number() -> None:
    """A journal of another layout must not be read as if it were of this one: raise LAYOUT in relay/callvalue.py, and
    say here what it looks like now. A field at the end with a default needs no number: both versions read both."""
    kinds = (CallValue, CountersValue, Brief, Gone, CoolingValue)
    text = "".join(repr(msgspec.inspect.type_info(kind)) for kind in kinds)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert (LAYOUT, digest) == (4, "fd310eeb76f1dbff"), inspect.getdoc(test_a_changed_layout_has_a_new_number)


def test_a_tally_of_a_journal_without_the_bytes_that_were_not_sent_on() -> None:
    bench = Bench()
    bench.talk()
    (call,) = bench.calls
    taken = snapshot.counters_value(call)
    known = msgspec.msgpack.decode(encode(taken))
    for tally in known[1]:
        assert tally.pop() == 0
    assert decode_counters(msgspec.msgpack.encode(known)) == taken
