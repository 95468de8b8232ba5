"""Which relay is asked: sticky, by weight, and another one when that cannot."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.control import (
    ConfirmRequest,
    EndCause,
    EndRequest,
    Inquiry,
    ListRequest,
    MediaReply,
    MediaRequest,
    Party,
    QueryRequest,
    Question,
    Switch,
    SwitchRequest,
    TotalsRequest,
)
from mediaproxy.dispatcher.guide import Guide
from mediaproxy.dispatcher.pool import Pool, Relay
from mediaproxy.dispatcher.service import Dispatcher, Timing, whoever_has
from mediaproxy.events import CallEnded, CallReport, CallState, PartyReport, RelayTotals, raw, totals_of
from tests.relaybench import Bench

pytestmark = pytest.mark.usefixtures("no_leaks")

ALICE, BOB = Party(tag="a"), Party(tag="b")


def offer(call_id: str = "call", wish: str = "") -> MediaRequest:
    return MediaRequest(call_id=call_id, sender=ALICE, receiver=BOB, cseq=1, sdp_hash="o", relay_wish=wish)


def answer(call_id: str = "call") -> MediaRequest:
    return MediaRequest(call_id=call_id, sender=BOB, receiver=ALICE, cseq=1, sdp_hash="a", status=200)


def confirm(call_id: str = "call") -> ConfirmRequest:
    return ConfirmRequest(call_id=call_id, sender=ALICE, receiver=BOB, cseq=1)


def bye(call_id: str = "call") -> EndRequest:
    return EndRequest(call_id=call_id, sender=ALICE, receiver=BOB, cause=EndCause.BYE)


OK = MediaReply()
DOWN = MediaReply(error="no answer", status=503)
FULL = MediaReply(error="no ports", status=480)
BROKEN = MediaReply(error="a fault", status=500)
UNKNOWN = MediaReply(error="unknown call", status=481)


def pool(*relays: Relay, **changes: float) -> Pool:
    return Pool(relays or [Relay(name=name) for name in "abc"], **changes)  # type: ignore[arg-type]  # numbers by name


# -- the pool


@given(st.text(), st.permutations("abc"))
def test_every_dispatcher_agrees(call_id: str, order: list[str]) -> None:
    assert pool(*(Relay(name=name) for name in order)).candidates(offer(call_id), 0) == pool().candidates(
        offer(call_id), 1e9
    )


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        pytest.param((1, 1, 1), (1 / 3, 1 / 3, 1 / 3), id="equal"),
        pytest.param((3, 1, 0), (3 / 4, 1 / 4, 0), id="3 to 1, one drained"),
        pytest.param((0.5, 0, 0), (1, 0, 0), id="only one"),
    ],
)
def test_new_calls_are_shared_by_weight(weights: tuple[float, ...], shares: tuple[float, ...]) -> None:
    relays = pool(*(Relay(name=name, weight=weight) for name, weight in zip("abc", weights, strict=True)))
    firsts = Counter(relays.candidates(offer(str(number)), 0)[0] for number in range(4000))
    for name, share in zip("abc", shares, strict=True):
        assert firsts[name] / 4000 == pytest.approx(share, abs=0.03)


def test_a_relay_that_leaves_moves_only_its_own_calls() -> None:
    before, after = pool(), pool()
    after.discard("b")
    for number in range(300):
        question = offer(str(number))
        was = before.candidates(question, 0)
        assert after.candidates(question, 0) == tuple(name for name in was if name != "b")


def test_a_higher_tier_is_the_last_resort() -> None:
    relays = pool(Relay(name="far", tier=1, weight=100), Relay(name="near", tier=0))
    assert relays.candidates(offer(), 0) == ("near", "far")
    relays.answered(offer(), "near", DOWN, 0)
    assert relays.candidates(offer(), 5) == ("far", "near")
    assert relays.candidates(offer(), 11) == ("near", "far")


def test_a_relay_that_answers_again_is_back() -> None:
    relays = pool()
    first = relays.candidates(offer(), 0)[0]
    relays.answered(offer(), first, DOWN, 0)
    assert relays.is_down(first, 1) and relays.candidates(offer(), 1)[-1] == first
    relays.answered(offer("other"), first, OK, 2)
    assert not relays.is_down(first, 3) and relays.candidates(offer(), 3)[0] == first


def test_all_down_are_all_tried() -> None:
    relays = pool()
    for name in "abc":
        relays.answered(offer(), name, DOWN, 0)
    assert sorted(relays.candidates(offer(), 1)) == ["a", "b", "c"]


@pytest.mark.parametrize("question", [answer(), confirm(), bye()], ids=["answer", "confirm", "bye"])
def test_what_belongs_to_an_offer_goes_where_that_went(question: Question) -> None:
    relays = pool()
    home = relays.candidates(offer(), 0)[1]
    relays.answered(offer(), home, OK, 0)
    assert relays.candidates(question, 0) == (home,)
    relays.answered(offer("other"), home, DOWN, 0)
    assert relays.candidates(question, 1) == (home,), "nobody else can"


def test_an_offer_of_a_call_whose_relay_is_lost_moves() -> None:
    relays = pool()
    home = relays.candidates(offer(), 0)[0]
    relays.answered(offer(), home, OK, 0)
    relays.answered(bye("other"), home, DOWN, 1)
    moved = relays.candidates(offer(), 2)
    assert moved[-1] == home and len(moved) == 3
    relays.answered(offer(), moved[0], OK, 2)
    assert relays.candidates(answer(), 20) == (moved[0],), "and stays there when the other one is back"


def test_a_relay_may_be_wished_for_by_its_address() -> None:
    relays = Pool([Relay(name="a"), Relay(name="b", weight=0.0, aliases=("203.0.113.9", "192.0.2.9")), Relay(name="c")])
    assert relays.candidates(offer(wish="192.0.2.9"), 0)[0] == "b"
    assert relays.candidates(offer(wish="192.0.2.8"), 0) == relays.candidates(offer(), 0)


def test_a_wish_is_heard_for_new_calls_only() -> None:
    relays = pool(Relay(name="a"), Relay(name="b"), Relay(name="special", weight=0))
    assert relays.candidates(offer(wish="special"), 0)[0] == "special"
    assert "special" not in relays.candidates(offer(wish="no such relay"), 0)
    relays.answered(offer(), "a", OK, 0)
    assert relays.candidates(offer(wish="special"), 0)[0] == "a"


def test_a_drained_relay_keeps_its_calls() -> None:
    relays = pool()
    relays.answered(offer(), "b", OK, 0)
    relays.add(Relay(name="b", weight=0))
    assert relays.candidates(offer(), 0)[0] == "b" and relays.candidates(bye(), 0) == ("b",)
    assert "b" not in relays.candidates(offer("new"), 0)
    assert "b" in relays.candidates(bye("from before our restart"), 0)


@pytest.mark.parametrize(
    ("question", "reply", "another"),
    [
        pytest.param(offer(), OK, False, id="done"),
        pytest.param(offer(), FULL, True, id="no ports"),
        pytest.param(answer(), FULL, False, id="no ports for an answer"),
        pytest.param(offer(), BROKEN, True, id="a fault"),
        pytest.param(offer(), UNKNOWN, False, id="a ghost"),
        pytest.param(offer(), DOWN, True, id="down"),
        pytest.param(bye(), DOWN, True, id="bye, down"),
        pytest.param(bye(), UNKNOWN, True, id="bye, not here"),
        pytest.param(confirm(), UNKNOWN, True, id="ack, not here"),
        pytest.param(bye(), OK, False, id="bye, done"),
    ],
)
def test_when_another_relay_is_asked(question: Question, reply: MediaReply, another: bool) -> None:
    assert pool().another(question, reply) is another


def test_memory_is_bounded_and_calls_are_forgotten() -> None:
    relays = pool(remembered=3)
    for number in range(5):
        relays.answered(offer(str(number)), "c", OK, number)
    assert len(relays) == 3
    relays.forget("4")
    relays.forget("never heard of")
    assert len(relays) == 2
    relays.answered(bye("3"), "c", UNKNOWN, 9)
    assert len(relays) == 1


def test_groups_are_tried_in_their_order_but_the_living_first() -> None:
    relays = pool(*(Relay(name=name) for name in "abcd"))
    groups = [[Relay(name="a"), Relay(name="b", tier=1)], [Relay(name="a"), Relay(name="c")], [Relay(name="x")]]
    assert relays.candidates(offer(), 0, groups) == ("a", "b", "c")
    relays.down("a", 0)
    assert relays.candidates(offer(), 1, groups) == ("b", "c", "a")
    assert relays.candidates(offer(wish="d"), 1, groups) == ("d", "b", "c", "a")
    assert sorted(relays.candidates(bye(), 1, groups)) == ["a", "b", "c", "d"], "a call of before may be anywhere"
    assert relays.candidates(offer(), 1, []) == ()


def test_a_group_says_weight_and_tier() -> None:
    relays = pool(Relay(name="a"), Relay(name="b"))
    assert relays.candidates(offer(), 0, [[Relay(name="a", tier=2), Relay(name="b", tier=1)]]) == ("b", "a")
    assert relays.candidates(offer(), 0, [[Relay(name="a", weight=0), Relay(name="b")]]) == ("b",)


# -- the service


class Arm:
    """A relay that answers as told."""

    def __init__(self, reply: MediaReply | None) -> None:
        self.reply = reply
        "None: it never answers."
        self.asked: list[Question] = []

    async def ask(self, question: Question) -> MediaReply:
        self.asked.append(question)
        if self.reply is None:
            await asyncio.Event().wait()
        assert self.reply is not None
        return self.reply


async def test_a_call_stays_with_its_relay() -> None:
    arms = {name: Arm(OK) for name in "abc"}
    dispatcher = Dispatcher(arms)
    for number in range(30):
        replies = {(await dispatcher.ask(ask(str(number)))).relay for ask in (offer, answer, confirm, bye)}
        assert len(replies) == 1
    assert all(arm.asked for arm in arms.values())


@pytest.mark.parametrize("broken", [None, DOWN, FULL], ids=["silent", "down", "full"])
async def test_another_relay_takes_over(broken: MediaReply | None) -> None:
    arms = {name: Arm(OK) for name in "abc"}
    dispatcher = Dispatcher(arms, timing=Timing(last=0.02, hurry=0.02))
    first, second, _ = dispatcher.pool.candidates(offer(), 0)
    arms[first].reply = broken
    assert await dispatcher.ask(offer()) == MediaReply(relay=second)
    arms[first].reply = OK
    assert await dispatcher.ask(answer()) == MediaReply(relay=second)
    assert await dispatcher.ask(bye()) == MediaReply(relay=second)


async def test_calls_of_before_a_restart_are_found() -> None:
    """Our memory is lost; whoever has the call ends it."""
    arms = {name: Arm(UNKNOWN) for name in "abc"}
    dispatcher = Dispatcher(arms)
    last = dispatcher.pool.candidates(bye(), 0)[-1]
    arms[last].reply = OK
    assert await dispatcher.ask(bye()) == MediaReply(relay=last)
    arms[last].reply = UNKNOWN
    assert (await dispatcher.ask(bye())).status == 481


async def test_no_relay_at_all() -> None:
    assert await Dispatcher({}).ask(offer()) == MediaReply(error="no relay", status=503)
    silent = await Dispatcher({"only": Arm(None)}, timing=Timing(last=0.01)).ask(offer())
    assert (silent.status, silent.relay) == (503, "only")


async def test_the_relays_own_name_is_kept() -> None:
    dispatcher = Dispatcher({"link": Arm(MediaReply(relay="relay-7"))})
    assert (await dispatcher.ask(offer())).relay == "relay-7"


async def test_ended_calls_are_forgotten() -> None:
    dispatcher = Dispatcher({"only": Arm(OK)})
    await dispatcher.ask(offer())
    party = PartyReport()
    report = CallReport(call_id="call", caller=party, callee=party, state=CallState.ENDED, started=0.0)
    dispatcher.on_event(CallEnded(at=1.0, call_id="call", report=report))
    assert len(dispatcher.pool) == 0


def test_a_relay_without_link() -> None:
    with pytest.raises(ValueError, match="no link to relay b"):
        Dispatcher({"a": Arm(OK)}, [Relay(name="b")])


# -- relays that come and go


class Line(Arm):
    """A connection to a relay."""

    def __init__(self, reply: MediaReply | None = OK) -> None:
        super().__init__(reply)
        self.closed = 0

    async def close(self) -> None:
        self.closed += 1


class Strangers:
    """A guide that names one more relay whenever it is asked."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}
        self.named: list[str] = []

    async def groups(self, question: Question, *, wait: bool) -> list[list[Relay]]:
        return [[Relay(name=name) for name in self.named]]

    async def close(self) -> None:
        pass

    def connect(self, name: str) -> Line:
        return self.lines.setdefault(name, Line())

    def dispatcher(self, now: Callable[[], float] = lambda: 0.0) -> Dispatcher:
        timing = Timing(health_interval=0.01)
        return Dispatcher({}, guide=cast(Guide, self), connect=self.connect, timing=timing, now=now)


async def test_relays_that_dns_names_are_met_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mediaproxy.dispatcher.service.STRANGERS", 3)
    strangers = Strangers()
    dispatcher = strangers.dispatcher()
    for name in ("a", "b", "c", "a", "d"):
        strangers.named = [name]
        assert (await dispatcher.ask(offer(f"call {name}"))).relay == name
    assert [state.name for state in dispatcher.states()] == ["a", "c", "d"], "b was not named for longest"
    assert {name: line.closed for name, line in strangers.lines.items()} == {"a": 0, "b": 1, "c": 0, "d": 0}
    strangers.named = ["c"]
    assert (await dispatcher.ask(bye("call a"))).relay == "a", "calls stay where they are"
    await dispatcher.stop()
    assert all(line.closed == 1 for line in strangers.lines.values())


async def test_relays_that_dns_names_no_more_are_forgotten_after_a_day() -> None:
    clock = [0.0]
    strangers = Strangers()
    dispatcher = strangers.dispatcher(lambda: clock[0])
    strangers.named = ["a"]
    await dispatcher.ask(offer())
    await dispatcher.start()
    clock[0] += 90_000
    async with asyncio.timeout(30):
        while dispatcher.states():
            await asyncio.sleep(0.01)
    await dispatcher.stop()
    assert strangers.lines["a"].closed == 1


async def test_a_relay_that_shows_no_life_is_down_until_it_does() -> None:
    line = Line(DOWN)
    dispatcher = Dispatcher({"a": line, "b": Line()}, timing=Timing(health_interval=0.01))
    await dispatcher.start()
    for up, why in ((False, "no answer"), (True, "")):
        async with asyncio.timeout(30):
            while [(one.up, one.why) for one in dispatcher.states()] != [(up, why), (True, "")]:
                await asyncio.sleep(0.01)
        line.reply = UNKNOWN
    assert line.closed, "it is asked over a new connection"
    assert all(question.call_id == "" for question in line.asked), "about no call"
    await dispatcher.stop()


async def test_a_flood_of_what_is_refused_makes_no_flood_of_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mediaproxy.dispatcher")
    clock = [0.0]
    dispatcher = Dispatcher({"a": Arm(UNKNOWN)}, now=lambda: clock[0])
    for number in range(100):
        await dispatcher.ask(answer(f"nosuch\n{number}"))
    assert len(caplog.records) == 30
    assert caplog.messages[0] == "relay a refuses with 481: call 'nosuch\\n0': unknown call"
    clock[0] = 61.0
    await dispatcher.ask(answer("one more"))
    assert caplog.messages[30:] == [
        "relay a refuses with 481: 70 more like these in 60 s",
        "relay a refuses with 481: call 'one more': unknown call",
    ]


async def test_a_relay_elsewhere_is_wished_for_by_where_its_media_comes_to() -> None:
    here, there = Office(), Office()
    there.addresses = ("203.0.113.7", "2001:db8::7")
    dispatcher = Dispatcher({"a": here, "b": there}, timing=Timing(health_interval=0.01))
    await dispatcher.start()
    async with asyncio.timeout(30):
        while not dispatcher.pool.relays[1].aliases:
            await asyncio.sleep(0.01)
    for call_id, wish in (("1", "203.0.113.7"), ("2", "2001:db8::7")):
        assert dispatcher.pool.candidates(offer(call_id, wish), 0.0)[0] == "b"
    await asyncio.sleep(0.05)
    assert len(there.inquired) == 1, "once, as long as it answers"
    await dispatcher.stop()


def test_asking_who_has_a_call_changes_nothing() -> None:
    bench = Bench()
    bench.talk()
    before = bench.report
    alice, bob = Party(tag=bench.alice.tag), Party(tag=bench.bob.tag)
    for sender, receiver in ((alice, bob), (bob, alice)):
        assert bench.ask(whoever_has(bench.call_id, sender, receiver)).error == ""
        assert bench.ask(whoever_has("another call", sender, receiver)).status == 481
    assert bench.ask(whoever_has("", Party(), Party())).status == 481
    assert bench.report == before


# -- inquiries


class Office(Arm):
    """A relay that answers inquiries: it has some calls."""

    def __init__(self, *calls: str, silent: bool = False) -> None:
        super().__init__(OK)
        self.calls = calls
        self.addresses: tuple[str, ...] = ()
        self.silent = silent
        self.inquired: list[Inquiry] = []

    async def inquire(self, inquiry: Inquiry) -> MediaReply:
        self.inquired.append(inquiry)
        if self.silent:
            await asyncio.Event().wait()
        match inquiry:
            case ListRequest():
                return MediaReply(calls=self.calls[: inquiry.limit])
            case TotalsRequest():
                return MediaReply(totals=(raw(RelayTotals(calls=len(self.calls), addresses=self.addresses)),))
            case QueryRequest() | SwitchRequest():
                if inquiry.call_id and inquiry.call_id not in self.calls:
                    return UNKNOWN
                if isinstance(inquiry, SwitchRequest) and inquiry.tag:
                    return MediaReply(error="no such party", status=404)
                return MediaReply(reports=tuple(raw(_report(call)) for call in self.calls))


def _report(call_id: str) -> CallReport:
    return CallReport(call_id=call_id, caller=PartyReport(), callee=PartyReport(), state=CallState.TALKING, started=0.0)


def office(**arms: Arm) -> Dispatcher:
    return Dispatcher(arms, timing=Timing(last=0.05, hurry=0.05))


async def test_totals_name_the_relays_that_are_down() -> None:
    arms = {"a": Office("1"), "dead": Office(silent=True), "gone": Office(silent=True)}
    dispatcher = Dispatcher(arms, [Relay(name="gone", aliases=("203.0.113.9",))], timing=Timing(last=0.05, hurry=0.05))
    for _ in range(2):
        assert (await dispatcher.inquire(TotalsRequest())).absent == ("dead", "203.0.113.9")
    assert (await dispatcher.inquire(ListRequest())).absent == ()
    nobody = await Dispatcher({"dead": Office(silent=True)}, timing=Timing(last=0.05)).inquire(TotalsRequest())
    assert nobody.error and nobody.absent == ("dead",)


async def test_all_relays_are_asked_and_a_dead_one_is_left_out() -> None:
    arms = {"a": Office("1", "2"), "b": Office("3"), "dead": Office("4", silent=True), "old": Arm(OK)}
    dispatcher = office(**arms)
    assert await dispatcher.inquire(ListRequest()) == MediaReply(calls=("1", "2", "3"))
    assert len((await dispatcher.inquire(QueryRequest())).reports) == 3
    assert sorted(t.calls for t in totals_of(await dispatcher.inquire(TotalsRequest()))) == [1, 2]
    assert (await dispatcher.inquire(ListRequest(limit=2))).calls == ("1", "2")
    assert len(arms["dead"].inquired) == 1  # type: ignore[attr-defined]  # it is an Office
    assert not arms["old"].asked


async def test_one_call_is_asked_about_where_it_is() -> None:
    arms = {"a": Office("1", "2"), "b": Office("3")}
    dispatcher = office(**arms)
    assert (await dispatcher.inquire(QueryRequest(call_id="3"))).relay == "b"
    arms["a"].inquired.clear()
    assert (await dispatcher.inquire(SwitchRequest(call_id="3", switch=Switch.BLOCK))).relay == "b"
    assert not arms["a"].inquired, "its home is known now"
    arms["b"].calls, arms["a"].calls = (), ("3",)
    assert (await dispatcher.inquire(QueryRequest(call_id="3"))).relay == "a", "it is asked for anew"


async def test_errors_about_one_call() -> None:
    dispatcher = office(a=Office("1"), b=Office(), dead=Office(silent=True))
    assert (await dispatcher.inquire(QueryRequest(call_id="9"))).status == 481
    reply = await dispatcher.inquire(SwitchRequest(call_id="1", switch=Switch.BLOCK, tag="x"))
    assert (reply.status, reply.relay) == (404, "a")
    assert (await office().inquire(QueryRequest(call_id="9"))).status == 503
    assert (await office().inquire(ListRequest())).status == 503
    assert (await office(dead=Office(silent=True)).inquire(TotalsRequest())).status == 503
