"""The commands of NG but offer and answer: what they ask, what they answer, and each error in rtpengine's words."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.control import (
    EndCause,
    EndRequest,
    ListRequest,
    MediaReply,
    Party,
    QueryRequest,
    Switch,
    SwitchRequest,
    TotalsRequest,
)
from mediaproxy.dialects.dialect import DialectError, ErrorAnswer, Peer
from mediaproxy.dialects.ng.bencode import encode
from mediaproxy.dialects.ng.commands import UNDONE
from mediaproxy.dialects.ng.dialect import Ng
from mediaproxy.dialects.ng.settings import NgSettings
from mediaproxy.events import RelayTotals, raw
from tests.ngstand import UNKNOWN, Stand, party, reply, report, side, stream

OK = MediaReply()
DOWN = MediaReply(error="no relay", status=503)
CALL = report([stream(side(30000, "192.0.2.10:4000"), side(30002, "198.51.100.7:4002"))])
LABELLED = report(
    [stream(side(30000, "192.0.2.10:4000"), side(30002, "198.51.100.7:4002"))],
    caller=party("ft", label="alice"),
    callee=party("tt", label="bob"),
)
NOT_FOUND = "Call-ID not found or tags didn't match"


# -- messages


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"c1 d7:command4:pinge", b"c1 d6:result4:ponge"),
        (b"c1 d7:command4:ping3:foo3:bare", b"c1 d6:result4:ponge"),
        (b'c1 {"command":"ping"}', b'c1 {"result":"pong"}'),
        (b"c1 ", b"c1 d6:result5:error12:error-reason25:Invalid data (no payload)e"),
        (b"c1 x", b"c1 d6:result5:error12:error-reason22:Invalid NG data formate"),
        (b"c1 d3:abc", b"c1 d6:result5:error12:error-reason35:Could not decode bencode dictionarye"),
        (b'c1 {"a":', b'c1 {"result":"error","error-reason":"Failed to parse JSON document"}'),
        (b"c1 de", b'c1 d6:result5:error12:error-reason36:Dictionary contains no key "command"e'),
        (b"c1 {}", b'c1 {"result":"error","error-reason":"Dictionary contains no key \\"command\\""}'),
        (b"c1 d7:commandi3ee", b'c1 d6:result5:error12:error-reason36:Dictionary contains no key "command"e'),
        (b"c1 d7:command4:PINGe", b"c1 d6:result5:error12:error-reason20:Unrecognized commande"),
        (b"c1 d7:command8:nonsensee", b"c1 d6:result5:error12:error-reason20:Unrecognized commande"),
    ],
)
def test_messages(request_: bytes, answer: bytes) -> None:
    found = Stand().answer(request_)
    assert found == answer
    assert isinstance(found, ErrorAnswer) is (b"error-reason" in answer)


@pytest.mark.parametrize("request_", [b"", b"nospace", b" lead", b" d7:command4:pinge", b"d7:command4:pinge"])
def test_what_has_no_cookie_is_dropped(request_: bytes) -> None:
    stand = Stand()
    with pytest.raises(DialectError, match="expected a cookie"):
        stand.answer(request_)
    assert stand.dialect.cookie(request_) is None or not request_.startswith(b" ")


def test_connections_without_cookies() -> None:
    plain = Stand(Ng(NgSettings(), plain=True))
    assert plain.answer(b"d7:command4:pinge") == b"d6:result4:ponge"
    assert plain.answer(b'{"command":"ping"}') == b'{"result":"pong"}'
    assert b"Invalid data" in plain.answer(b"")
    assert plain.dialect.cookie(b"a b") is None
    unix = Peer("unix", "", 0.0)
    assert Stand().answer(b"d7:command4:pinge", peer=unix) == b"d6:result4:ponge"
    assert Stand().answer(b"c1 d7:command4:pinge", peer=unix) == b"c1 d6:result4:ponge"


def test_cookies() -> None:
    dialect = Ng(NgSettings())
    assert dialect.cookie(b"1_2_3 d7:command4:pinge") == b"1_2_3"
    assert dialect.cookie(b"nospace") is None
    assert dialect.cookie(b" de") is None


# -- delete


@pytest.mark.parametrize(
    ("request_", "question"),
    [
        ({}, {}),
        ({"from-tag": "ft"}, {"sender": Party(tag="ft")}),
        ({"from-tag": "ft", "to-tag": "tt"}, {"sender": Party(tag="ft")}),
        (
            {"from-tag": "ft", "to-tag": "tt", "flags": ["to-tag"]},
            {"sender": Party(tag="ft"), "receiver": Party(tag="tt")},
        ),
        ({"from-tag": "ft", "via-branch": "b1"}, {"sender": Party(tag="ft"), "branch": "b1"}),
        ({"to-tag": "tt", "flags": ["to-tag"]}, {}),
        ({"via-branch": "b1"}, {}),
        ({"delete delay": 0}, {"delay": 0.0}),
        ({"delete-delay": "5", "delete delay": 5}, {"delay": 5.0}),
        ({"delete delay": -1}, {}),
        ({"flags": ["fast"]}, {"report": False}),
    ],
)
def test_what_delete_asks(request_: dict[str, object], question: dict[str, Any]) -> None:
    stand = Stand()
    stand.told({"command": "delete", "call-id": "call"} | request_, reply(CALL) if question.get("report", True) else OK)
    usual: dict[str, Any] = {"sender": Party(), "receiver": Party(), "report": True}
    assert stand.asked == [EndRequest(call_id="call", cause=EndCause.DELETE, **usual | question)]


def test_what_delete_answers() -> None:
    told = Stand().told({"command": "delete", "call-id": "call"}, reply(CALL))
    assert told["result"] == "ok"
    assert set(told["tags"]) == {"ft", "tt"}
    assert told["created"] == 1000
    assert Stand().told({"command": "delete", "call-id": "call", "flags": ["fast"]}, OK) == {"result": "ok"}
    assert Stand().told({"command": "delete", "call-id": "call"}, OK) == {"result": "ok"}


def test_delete_of_what_is_unknown() -> None:
    request = {"command": "delete", "call-id": "call", "from-tag": "ft"}
    assert Stand().told(request, UNKNOWN) == {"result": "ok", "warning": NOT_FOUND}
    assert Stand().told(request | {"flags": ["fatal"]}, UNKNOWN) == {"result": "error", "error-reason": NOT_FOUND}
    assert Stand().told(request, DOWN) == {"result": "error", "error-reason": "no relay"}
    assert Stand().told(request, None) == {"result": "error", "error-reason": "no answer from the relay"}
    no_call = {"result": "error", "error-reason": "No call-id in message"}
    assert Stand().told({"command": "delete"}) == no_call
    assert Stand().told({"command": "query"}) == no_call
    assert Stand().told({"command": "block media"}) == no_call


# -- query and list


def test_query() -> None:
    stand = Stand()
    told = stand.told({"command": "query", "call-id": "call"}, reply(CALL))
    assert stand.asked == [QueryRequest(call_id="call")]
    assert list(told)[0] == "result"
    assert set(told["tags"]) == {"ft", "tt"}
    unknown = {"result": "error", "error-reason": "Unknown call-id"}
    assert Stand().told({"command": "query", "call-id": "call"}, UNKNOWN) == unknown
    assert Stand().told({"command": "query", "call-id": "call"}, OK) == unknown
    broken = MediaReply(reports=(raw(CALL).__class__(b'{"call_id":3}'),))
    assert "another version" in Stand().told({"command": "query", "call-id": "call"}, broken)["error-reason"]


@pytest.mark.parametrize(
    ("request_", "limit"), [({}, 32), ({"limit": 5}, 5), ({"limit": "7"}, 7), ({"limit": 0}, 0), ({"limit": "x"}, 32)]
)
def test_list(request_: dict[str, object], limit: int) -> None:
    stand = Stand()
    told = stand.told({"command": "list"} | request_, MediaReply(calls=("a", "b")))
    assert stand.asked == [ListRequest(limit=limit)]
    assert told == {"result": "ok", "calls": ["a", "b"]}


def test_list_with_a_limit_below_nothing() -> None:
    told = Stand().told({"command": "list", "limit": -1})
    assert told == {"result": "error", "error-reason": "invalid limit, must be >= 0"}


def test_an_answer_that_no_datagram_can_carry() -> None:
    calls = MediaReply(calls=tuple(f"call {number}" for number in range(10_000)))
    told = Stand().told({"command": "list", "limit": 10_000}, calls)
    assert told == {"result": "error", "error-reason": "The answer is too long for a datagram: ask over TCP"}
    told = Stand().told({"command": "list", "limit": 10_000}, calls, peer=Peer("tcp", "192.0.2.1:5060", 0.0))
    assert len(told["calls"]) == 10_000


def test_a_delete_whose_answer_no_datagram_can_carry_is_done() -> None:
    long = reply(report([stream(side(1), side(2), index=index) for index in range(100)]))
    request = {"command": "delete", "call-id": "call"}
    assert Stand().told(request, long) == {"result": "ok", "warning": "The statistics are too long for a datagram"}
    assert len(Stand().told(request, long, peer=Peer("tcp", "192.0.2.1:5060", 0.0))["tags"]) == 2


# -- block and silence


@pytest.mark.parametrize(
    ("command", "switch"),
    [
        ("block media", Switch.BLOCK),
        ("unblock media", Switch.UNBLOCK),
        ("silence media", Switch.SILENCE),
        ("unsilence media", Switch.UNSILENCE),
    ],
)
def test_switches(command: str, switch: Switch) -> None:
    stand = Stand()
    told = stand.told({"command": command, "call-id": "call"}, reply(CALL), OK)
    assert told == {"result": "ok"}
    assert stand.asked == [QueryRequest(call_id="call"), SwitchRequest(call_id="call", switch=switch)]


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        ({}, {}),
        ({"all": "all", "label": "nobody"}, {"everybody": True}),
        ({"flags": ["all"], "from-tag": "nobody"}, {"everybody": True}),
        ({"all": "none", "label": "alice"}, {"label": "alice"}),
        ({"label": "alice"}, {"label": "alice"}),
        ({"label": "bob", "address": "10.0.0.1", "from-tag": "nobody"}, {"label": "bob"}),
        ({"address": "198.51.100.7"}, {"address": "198.51.100.7"}),
        ({"address": "192.0.2.10", "from-tag": "nobody"}, {"address": "192.0.2.10"}),
        ({"from-tag": "ft"}, {}),
        ({"from-tag": "ft", "flags": ["directional"]}, {"tag": "ft"}),
        ({"from-tag": "tt", "flags": "directional"}, {"tag": "tt"}),
        ({"from-tag": "ft", "to-tag": "tt", "flags": ["directional"]}, {"tag": "ft"}),
        ({"label": "alice", "to-label": "bob"}, {"label": "alice"}),
    ],
)
def test_whom_a_switch_means(selection: dict[str, object], wanted: dict[str, Any]) -> None:
    stand = Stand()
    stand.told({"command": "block media", "call-id": "call"} | selection, reply(LABELLED), OK)
    assert stand.asked[1] == SwitchRequest(call_id="call", switch=Switch.BLOCK, **wanted)


@pytest.mark.parametrize(
    ("selection", "why"),
    [
        ({"label": "nobody"}, "No monologue matching the given label"),
        ({"address": "example.com"}, "Failed to parse network address"),
        ({"address": "10.0.0.1"}, "Failed to match address to any tag"),
        ({"from-tag": "nobody"}, "From-tag given, but no such tag exists"),
        ({"from-tag": "nobody", "flags": ["directional"]}, "From-tag given, but no such tag exists"),
        ({"from-tag": "ft", "to-tag": "nobody"}, "Media flow not found (to-tag not found)"),
        ({"from-tag": "ft", "to-label": "nobody"}, "Media flow not found (to-label not found)"),
    ],
)
def test_a_party_that_there_is_not(selection: dict[str, object], why: str) -> None:
    stand = Stand()
    told = stand.told({"command": "silence media", "call-id": "call"} | selection, reply(LABELLED))
    assert told == {"result": "error", "error-reason": why}
    assert len(stand.asked) == 1


def test_a_switch_in_a_call_that_there_is_not() -> None:
    unknown = {"result": "error", "error-reason": "Unknown call-ID"}
    request = {"command": "block media", "call-id": "call"}
    assert Stand().told(request, UNKNOWN) == unknown
    assert Stand().told(request, reply(CALL), UNKNOWN) == unknown
    refused = MediaReply(error="the plane cannot", status=501)
    assert Stand().told(request, reply(CALL), refused) == {"result": "error", "error-reason": "the plane cannot"}


def test_one_flow_of_a_fork_is_refused_by_name() -> None:
    fork = report([stream(side(1), side(2), leg="t1"), stream(side(3), side(4), leg="t2")])
    request = {"command": "block media", "call-id": "call", "from-tag": "ft", "to-tag": "t2"}
    assert "to-tag is not supported" in Stand().told(request, reply(fork))["error-reason"]


# -- what is not done


@pytest.mark.parametrize("command", sorted(UNDONE))
def test_what_is_not_done_is_refused_by_name(command: str) -> None:
    stand = Stand()
    told = stand.told({"command": command, "call-id": "call", "sdp": "v=0"})
    assert told["result"] == "error"
    assert told["error-reason"] == f"{command} is not supported: it needs {UNDONE[command]}"
    assert stand.asked == []


def test_unknown_words_are_remarked_and_ignored() -> None:
    remarks: list[str] = []
    stand = Stand(Ng(NgSettings(), remark=remarks.append))
    assert stand.told({"command": "ping", "nonsense": "x"}) == {"result": "pong"}
    assert remarks == ["ping: unknown word 'nonsense' is ignored"]


# -- statistics


def test_statistics() -> None:
    stand = Stand(Ng(NgSettings(), clock=lambda: PEER_LATER))
    stand.told({"command": "ping"})
    stand.told({"command": "query", "call-id": "x"}, UNKNOWN)
    totals = RelayTotals(relay="one", started=900.0, calls=3, packets=10)
    told = stand.told({"command": "statistics"}, MediaReply(totals=(raw(totals),)))
    assert stand.asked[-1] == TotalsRequest()
    assert told["result"] == "ok"
    found = told["statistics"]
    assert found["currentstatistics"]["sessionstotal"] == 3
    (proxy,) = found["controlstatistics"]["proxies"]
    assert (proxy["proxy"], proxy["pingcount"], proxy["querycount"], proxy["errorcount"]) == ("192.0.2.1", 1, 1, 1)
    assert proxy["pingduration"] == "0.500000"
    assert Stand().told({"command": "statistics"}, DOWN)["error-reason"] == "no relay"


PEER_LATER = 1000.5

# -- limits

OFFER = {"command": "offer", "call-id": "call", "from-tag": "ft", "sdp": "v=0"}


class Busy:
    """As busy as a test says."""

    def __init__(self, sessions: int = 0, load: float = 0.0, cpu: float = 0.0, bandwidth: float = 0.0) -> None:
        self.sessions, self.load, self.cpu, self.bandwidth = sessions, load, cpu, bandwidth


@pytest.mark.parametrize(
    ("settings", "busy", "why"),
    [
        ({"max_sessions": 10}, Busy(sessions=10), "Parallel session limit reached"),
        ({"max_sessions": 0}, Busy(), "Parallel session limit reached"),
        ({"max_load": 2.0}, Busy(load=2.1), "Load limit exceeded"),
        ({"max_cpu": 80.0}, Busy(cpu=80.1), "CPU usage limit exceeded"),
        ({"max_bandwidth": 1000.0}, Busy(bandwidth=1001.0), "Bandwidth limit exceeded"),
        ({"max_sessions": 10, "max_cpu": 1.0}, Busy(sessions=10, cpu=90.0), "Parallel session limit reached"),
    ],
)
def test_new_calls_are_turned_away(settings: dict[str, Any], busy: Busy, why: str) -> None:
    stand = Stand(Ng(NgSettings(**settings), busy=busy))
    told = stand.told(OFFER | {"supports": ["load limit"]}, UNKNOWN)
    assert told == {"result": "load limit", "message": why}
    assert stand.asked == [QueryRequest(call_id="call")]
    older = stand.told(OFFER, UNKNOWN)
    assert older == {"result": "error", "error-reason": "Parallel session limit reached"}


@pytest.mark.parametrize(
    ("settings", "busy"),
    [
        ({}, Busy(10**6, 100.0, 100.0, 1e12)),
        ({"max_sessions": 10}, Busy(sessions=9)),
        ({"max_load": 2.0}, Busy(load=2.0)),
        ({"max_cpu": 80.0}, Busy(cpu=80.0)),
        ({"max_bandwidth": 1000.0}, Busy(bandwidth=1000.0)),
    ],
)
def test_within_the_limits_nobody_asks(settings: dict[str, Any], busy: Busy) -> None:
    told = Stand(Ng(NgSettings(**settings), busy=busy)).told(OFFER)
    assert told["error-reason"] == "Error rewriting SDP"


def test_calls_that_there_are_go_on_at_the_limit() -> None:
    stand = Stand(Ng(NgSettings(max_sessions=0), busy=Busy()))
    assert stand.told(OFFER, reply(CALL))["error-reason"] == "Error rewriting SDP"
    for missing, why in (("call-id", "call-id"), ("from-tag", "from-tag")):
        request = {key: value for key, value in OFFER.items() if key != missing}
        assert stand.told(request)["error-reason"] == f"No {why} in message"
    assert stand.told(OFFER | {"command": "answer", "to-tag": "tt"})["result"] == "error"


# -- anything

KEYS = st.sampled_from(
    [
        b"call-id",
        b"from-tag",
        b"to-tag",
        b"flags",
        b"label",
        b"address",
        b"all",
        b"limit",
        b"delete delay",
        b"via-branch",
    ]
)
COMMANDS = [b"delete", b"query", b"list", b"statistics", b"block media", b"unsilence media", b"ping", b"cli"]
VALUES = st.recursive(
    st.binary(max_size=10) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.binary(), inner),
)


@given(st.sampled_from(COMMANDS), st.dictionaries(KEYS | st.binary(max_size=8), VALUES, max_size=6))
def test_any_values_get_an_answer(command: bytes, request: dict[bytes, Any]) -> None:
    steps = Ng(NgSettings()).answer(b"c " + encode(request | {b"command": command}), Peer("tcp", "", 0.0))
    try:
        next(steps)
        while True:
            steps.send(UNKNOWN)
    except StopIteration as stop:
        assert stop.value.startswith(b"c d6:result")


@given(st.binary(max_size=120))
def test_any_bytes_get_an_answer_or_are_dropped(data: bytes) -> None:
    with contextlib.suppress(DialectError):
        assert Stand().answer(data).startswith((data.partition(b" ")[0] + b" ",))
