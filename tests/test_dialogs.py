"""The table of answered calls: what a BYE will have to say, what changes it, and what it can never grow to."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.edge.dialogs import FORKS, LONGEST, Attempt, Dialog, Dialogs
from mediaproxy.edge.farewell import WHY, bye
from mediaproxy.edge.settings import Listener, Transport
from mediaproxy.events import EndReason, Side
from mediaproxy.sip.message import Request, Response, response_to
from tests.vproxy import ALICE, BOB, EDGE, request

SOCKET = Listener(transport=Transport.UDP, bind=EDGE)


def answer(asked: Request, tag: str = "b", contact: str = f"<sip:bob@{BOB}>") -> Response:
    return response_to(asked, 200, to_tag=tag, headers=[("Contact", contact)])


def dialog(tag: str = "b", call_id: str = "call", contact: str = f"<sip:bob@{BOB}>") -> Dialog:
    asked = request(call_id=call_id)
    made = Attempt(asked, SOCKET).answered(answer(asked, tag, contact), (), SOCKET)
    assert made is not None
    return made


def within(method: str, side: Side, tag: str = "b", **more: str) -> Request:
    """A request of one party in the dialog."""
    near, far = ("a", tag) if side is Side.CALLER else (tag, "a")
    return request(method, from_tag=near, to_tag=far, **more)  # type: ignore[arg-type]  # only names of texts


def kept(*dialogs: Dialog, limit: int = 100) -> Dialogs:
    table = Dialogs(limit)
    for one in dialogs:
        table.keep(one)
    return table


def the_only(table: Dialogs, call_id: str = "call") -> Dialog:
    (found,) = table.take(call_id, "a")
    return found


def test_what_is_kept_of_an_answered_call() -> None:
    asked = request(headers=[("Record-Route", "<sip:p2.test;lr>, <sip:p1.test;lr>")], cseq="7")
    made = Attempt(asked, SOCKET).answered(answer(asked), ("<sip:p3.test;lr>",), None)
    assert made is not None
    caller, callee = made.party(Side.CALLER), made.party(Side.CALLEE)
    assert (caller.address, caller.tag, caller.cseq) == (str(asked.from_), "a", 7)
    assert (caller.target, caller.local) == (f"sip:alice@{ALICE}", SOCKET)
    assert caller.routes == ("<sip:p2.test;lr>", "<sip:p1.test;lr>")
    assert (callee.address, callee.tag, callee.cseq) == ("<sip:bob@example.com>;tag=b", "b", 0)
    assert (callee.target, callee.routes, callee.local) == (f"sip:bob@{BOB}", ("<sip:p3.test;lr>",), None)


@pytest.mark.parametrize(
    ("from_tag", "tag"), [("a", "b"), ("a", ""), ("", "b")], ids=["again", "callee-without-tag", "caller-without-tag"]
)
def test_a_2xx_that_makes_no_dialog(from_tag: str, tag: str) -> None:
    asked = request(from_tag=from_tag)
    attempt = Attempt(asked, SOCKET)
    if from_tag and tag:
        assert attempt.answered(answer(asked, tag), (), None) is not None
    assert attempt.answered(answer(asked, tag) if tag else response_to(asked, 200), (), None) is None


def test_cseq_of_requests_before_the_answer_counts() -> None:
    asked = request(cseq="7")
    attempt = Attempt(asked, SOCKET)
    table = Dialogs(10)
    table.begin(attempt)
    table.saw(within("PRACK", Side.CALLER, cseq="8"))
    table.saw(within("UPDATE", Side.CALLER, cseq="9"))
    table.saw(within("UPDATE", Side.CALLEE, cseq="41"))
    table.saw(within("PRACK", Side.CALLER, tag="other", cseq="20"))
    table.settled(attempt)
    made = attempt.answered(answer(asked), (), None)
    assert made is not None
    assert (made.caller.cseq, made.callee.cseq) == (9, 41)
    table.saw(within("PRACK", Side.CALLER, cseq="50"))
    assert len(table) == 0


def test_bye_of_either_party_ends_a_dialog() -> None:
    for side in Side:
        table = kept(dialog(), dialog("c"))
        table.saw(within("BYE", side))
        assert [one.callee.tag for one in table.take("call", "a")] == ["c"]


@pytest.mark.parametrize(
    "other",
    [
        within("BYE", Side.CALLER, tag="x"),
        within("BYE", Side.CALLER, call_id="other"),
        request("BYE", from_tag="a", to_tag="a"),
        request("BYE", from_tag="b", to_tag="b"),
        request("BYE", from_tag="b"),
    ],
    ids=["another-tag", "another-call", "caller-twice", "callee-twice", "no-to-tag"],
)
def test_bye_of_another_dialog_ends_nothing(other: Request) -> None:
    table = kept(dialog())
    table.saw(other)
    assert len(table) == 1


@pytest.mark.parametrize(
    ("method", "side", "targets"),
    [
        ("INVITE", Side.CALLER, ("sip:new@1.2.3.4", "sip:newer@5.6.7.8")),
        ("UPDATE", Side.CALLEE, ("sip:newer@5.6.7.8", "sip:new@1.2.3.4")),
        ("INFO", Side.CALLER, (f"sip:alice@{ALICE}", f"sip:bob@{BOB}")),
    ],
)
def test_target_refresh(method: str, side: Side, targets: tuple[str, str]) -> None:
    table = kept(dialog())
    again = within(method, side, contact="<sip:new@1.2.3.4>", cseq="5")
    table.saw(again)
    table.refresh(again, answer(again, contact="<sip:newer@5.6.7.8>"))
    found = the_only(table)
    assert (found.caller.target, found.callee.target) == targets


def test_a_2xx_without_contact_refreshes_only_the_other_target() -> None:
    table = kept(dialog())
    again = within("INVITE", Side.CALLER, contact="<sip:new@1.2.3.4>", cseq="5")
    table.refresh(again, response_to(again, 200))
    found = the_only(table)
    assert (found.caller.target, found.callee.target) == ("sip:new@1.2.3.4", f"sip:bob@{BOB}")


def test_refresh_of_an_unknown_dialog_is_nothing() -> None:
    table = Dialogs(10)
    again = within("INVITE", Side.CALLER)
    table.refresh(again, answer(again))
    assert len(table) == 0


def test_the_call_that_was_silent_for_longest_makes_room() -> None:
    table = kept(*(dialog(call_id=name) for name in "abc"), limit=3)
    table.saw(within("OPTIONS", Side.CALLEE, call_id="a", cseq="2"))
    again = within("INVITE", Side.CALLER, call_id="b")
    table.refresh(again, answer(again))
    table.keep(dialog(call_id="d"))
    assert [len(table.take(name, "a")) for name in "abcd"] == [1, 1, 0, 1]


def test_dialogs_of_one_call_are_bounded() -> None:
    asked = request()
    attempt = Attempt(asked, SOCKET)
    made = [attempt.answered(answer(asked, f"t{n}"), (), None) for n in range(2 * FORKS)]
    assert len([one for one in made if one is not None]) == FORKS


def test_a_flood_of_early_requests_is_bounded() -> None:
    attempt = Attempt(request(), SOCKET)
    for n in range(10 * FORKS):
        attempt.saw(within("PRACK", Side.CALLER, tag=f"t{n}", cseq="2"))
    assert len(attempt._seen) == 2 * FORKS


def test_monsters_are_not_kept() -> None:
    table = kept(dialog(contact=f"<sip:bob@{BOB};x={'y' * LONGEST}>"))
    assert len(table) == 0
    table.keep(dialog())
    again = within("UPDATE", Side.CALLEE, contact=f"<sip:bob@{BOB};x={'y' * LONGEST}>")
    table.refresh(again, response_to(again, 200))
    assert len(table) == 0


def test_attempts_are_found_until_they_are_settled() -> None:
    table = Dialogs(10)
    first, second, other = (Attempt(request(call_id=name), SOCKET) for name in ("call", "call", "other"))
    for attempt in (first, second, other):
        table.begin(attempt)
    assert table.ringing("call", "a") == (first, second)
    table.settled(first)
    table.settled(first)
    assert table.ringing("call", "a") == (second,)
    table.settled(second)
    assert table.ringing("call", "a") == ()
    assert table.ringing("other", "x") == ()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(Side),
            st.sampled_from(["INFO", "INVITE", "UPDATE", "OPTIONS", "FOO"]),
            st.integers(0, 2**31 - 2),
        )
    )
)
def test_our_bye_is_newer_than_all_requests_of_its_direction(requests: list[tuple[Side, str, int]]) -> None:
    table = kept(dialog())
    highest = {Side.CALLER: 1, Side.CALLEE: 0}
    for side, method, number in requests:
        table.saw(within(method, side, cseq=str(number)))
        highest[side] = max(highest[side], number)
    found = the_only(table)
    for to in Side:
        assert bye(found, to, WHY[EndReason.SILENT]).cseq.number == highest[to.other] + 1


def test_cseq_never_leaves_its_range() -> None:
    made = dialog()
    spent = dataclasses.replace(made.caller, cseq=2**31 - 1)
    assert bye(made.having(Side.CALLER, spent), Side.CALLEE, WHY[EndReason.ADMIN]).cseq.number == 2**31 - 1
