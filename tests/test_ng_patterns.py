"""SDPs that are known by their pattern are answered as if they were not."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.control import MediaRequest
from mediaproxy.dialects.ng.flags import Command
from mediaproxy.dialects.ng.negotiation import _Negotiation
from mediaproxy.dialects.ng.patterns import LONGEST, MOST, Patterns
from mediaproxy.dialects.ng.settings import NgSettings
from tests.ngarm import Arm
from tests.ngcases import FAX, HEAD, PLAIN, VIDEO, WITH_ICE, answer, crlf, offer
from tests.ngdialogs import CALLS

_NUMBER = re.compile(r"(?<=\nm=audio )4000|(?<=\nm=video )4002|(?<=\na=rtcp:)400[01]")


def elsewhere(request: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The same of another phone, in another call."""
    text = request["sdp"]
    text = text.decode("latin-1") if isinstance(text, bytes) else text
    text = _NUMBER.sub(lambda match: str(int(match[0]) + 100 * number), text.replace("192.0.2.10", f"10.0.{number}.9"))
    return {**request, "sdp": text.replace("o=alice 10 1", f"o=bob {number} 77"), "call-id": f"call {number}"}


def said(arm: Arm, steps: list[dict[str, Any]], patterns: Patterns, settings: NgSettings | None = None) -> list[Any]:
    """The answers in a call."""
    answers = [arm.run(step, settings, patterns) for step in steps]
    for told in answers:
        if isinstance(told.get("sdp"), str):
            told["sdp"] = told["sdp"].encode("latin-1")
    return answers


def check(steps: list[dict[str, Any]], settings: NgSettings | None = None) -> Patterns:
    """A call in which everything was seen before is like one in which nothing was. The patterns that are known then."""
    known = Patterns()
    for number in range(4):
        moved = [elsewhere(step, number) if "sdp" in step else step for step in steps]
        first, again = Arm(), Arm()
        expected = said(first, moved, Patterns(), settings)
        assert said(again, moved, known, settings) == expected
        assert again.asked == first.asked
    return known


def test_one_port_for_both_has_no_pattern() -> None:
    """a=rtcp with the port of RTP means rtcp-mux; with another one, as the pattern was learned, it does not."""
    known = Patterns()
    for port in (4001, 4001, 4001, 4000, 4003):
        steps = [offer(PLAIN + f"a=rtcp:{port}\n"), answer(PLAIN + f"a=rtcp:{port}\n")]
        answers = said(Arm(), steps, known)
        assert answers == said(Arm(), steps, Patterns())
        assert [b"a=rtcp-mux" in told["sdp"] for told in answers] == [port == 4000] * 2
    assert patterns_of(known) == 2


def patterns_of(known: Patterns) -> int:
    return sum(pattern is not None for pattern in known._known.values())


@pytest.mark.parametrize("name", CALLS)
def test_all_known_calls(name: str) -> None:
    check([dict(step) for step in CALLS[name].steps])


SOURCE = {"received-from": ["IP4", "203.0.113.5"]}


@pytest.mark.parametrize(
    ("sdp", "keys"),
    [
        (PLAIN, {}),
        (PLAIN, SOURCE),
        (PLAIN, {"replace": ["origin", "session-connection"], "ICE": "remove", **SOURCE}),
        (PLAIN, {"flags": ["SIP-source-address"], **SOURCE}),
        (PLAIN, {"media-address": "203.0.113.77", "replace": ["origin"]}),
        (PLAIN, {"flags": ["loop-protect"]}),
        (PLAIN, {"direction": ["int", "ext"]}),
        (PLAIN, {"direction": ["int", "six"], "replace": ["origin", "session-connection"]}),
        (PLAIN, {"sdp-attr": {"audio": {"add": ["x:50000", "y:51000 %s %d -0- 198.18.0.101"]}}}),
        (PLAIN + "a=rtcp:4001\n", {"flags": ["full-rtcp-attribute"]}),
        (PLAIN + "a=rtcp:4000\na=rtcp-mux\n", {"rtcp-mux": ["accept"]}),
        (PLAIN.replace("\n", "\r\n"), {"replace": ["origin"]}),
        (VIDEO, {"replace": "origin"}),
        (VIDEO.replace("m=video 4002", "m=video 0"), {}),
        (FAX, {}),
        (PLAIN.replace("m=audio 4000", "m=audio 0"), {"media-address": "203.0.113.77", "replace": ["origin"]}),
        (HEAD + "m=audio 4000 RTP/AVP 0\nc=IN IP4 192.0.2.10\nm=audio 4010 RTP/AVP 8\nc=IN IP4 192.0.2.11\n", {}),
        (HEAD.replace("IP4", "IP6").replace("192.0.2.10", "2001:db8::1") + "m=audio 4000 RTP/AVP 0\n", {}),
    ],
)
def test_what_has_a_pattern(sdp: str, keys: dict[str, Any]) -> None:
    known = check([offer(sdp, **keys), answer(sdp, **keys)])
    assert patterns_of(known) == 2


@pytest.mark.parametrize(
    ("sdp", "keys"),
    [
        (WITH_ICE, {}),
        (PLAIN, {"ICE": "force"}),
        (PLAIN, {"replace": ["session-name"]}),
        (PLAIN, {"flags": ["fragment"]}),
        (PLAIN.replace("c=IN IP4 192.0.2.10", "c=IN IP4 phone.example"), SOURCE),
        ("v=0\nm=audio 4000 RTP/AVP 0\no=alice 10 1 IN IP4 192.0.2.10\nc=IN IP4 192.0.2.10\n", {}),
        ("v=0\no=- 1 1 IN IP4 192.0.2.10\nc=IN IP4 192.0.2.10\n", {}),
        ("no SDP", {}),
        (PLAIN, {"sdp-attr": {"audio": {"remove": ["rtcp:30001"]}}}),
        (PLAIN, {"sdp-attr": {"audio": {"remove": ["RTCP:30001"]}}}),
        (PLAIN.replace("m=", "a=rtcp:4001\nm="), {"sdp-attr": {"global": {"substitute": [["rtcp:4001", "x"]]}}}),
        (PLAIN, {"sdp": "v=0\rm=x 9 TCP/MSRP *\n" + PLAIN[4:] + "c=IN IP4 192.0.2.10\n"}),
    ],
)
@pytest.mark.parametrize("more", [{}, {"replace": ["origin", "session-connection"]}])
def test_what_has_none(sdp: str, keys: dict[str, Any], more: dict[str, Any]) -> None:
    assert not patterns_of(check([offer(sdp, **more | keys)]))


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("m=audio 4000", "m=audio 65535"),
        ("m=audio 4000", "m=audio 65536"),
        ("m=audio 4000", "m=audio 04000"),
        ("m=audio 4000", "m=audio ff"),
        ("m=audio 4000", "m=audio 0"),
        ("m=audio 4000", "m=audio 4000/2"),
        ("c=IN IP4 192.0.2.10", "c=IN IP4 0.0.0.0"),
        ("c=IN IP4 192.0.2.10", "c=IN IP4 192.0.2.256"),
        ("c=IN IP4 192.0.2.10", "c=IN IP4 ::"),
        ("c=IN IP4 192.0.2.10", "c=IN IP4 2001:DB8::1"),
        ("c=IN IP4 192.0.2.10", "c=IN IP4 ::ffff:192.0.2.1"),
        ("c=IN IP4 192.0.2.10", "c=IN IP4 127.0.0.1"),
        ("c=IN IP4 192.0.2.10", "c=IN IP4 224.2.1.1/127"),
        ("o=alice 10 1 IN IP4 192.0.2.10", "o=-"),
        ("o=alice 10 1 IN IP4 192.0.2.10", "o=%s  \t-0- 50000 IN"),
        ("a=rtcp:4001", "a=rtcp:65535"),
        ("a=rtcp:4001", "a=rtcp:0"),
        ("a=rtcp:4001", "a=rtcp:99999"),
    ],
)
@pytest.mark.parametrize("keys", [{}, {"replace": ["origin", "session-connection"], **SOURCE}])
def test_what_is_not_plain_is_worked_out(here: str, there: str, keys: dict[str, Any]) -> None:
    known, sdp = Patterns(), PLAIN + "a=rtcp:4001\n"
    for text in (sdp, sdp, sdp.replace(here, there)):
        first, again = Arm(), Arm()
        steps = [offer(text, **keys), answer(PLAIN, **keys)]
        assert said(again, steps, known) == said(first, steps, Patterns())
        assert again.asked == first.asked


_ports = st.integers(0, 70_000)
_addresses = st.one_of(
    st.ip_addresses().map(str), st.sampled_from(("198.18.0.101", "198.19.0.100", "50000", "a.example", "-0-"))
)


@given(
    st.lists(st.tuples(_addresses, _addresses, _ports, _ports, st.booleans()), min_size=4, max_size=6),
    st.sampled_from((PLAIN, VIDEO, FAX, PLAIN + "a=rtcp:4001\n")),
    st.sampled_from(({}, {"replace": ["origin", "session-connection"]}, {"flags": ["SIP-source-address"], **SOURCE})),
)
def test_any_addresses_and_ports(phones: list[tuple[str, str, int, int, bool]], sdp: str, keys: dict[str, Any]) -> None:
    known = Patterns()
    for origin, address, audio, video, muxed in phones:
        text = sdp.replace("192.0.2.10", address).replace(f"IP4 {address}", f"IP4 {origin}", 1)
        text = text.replace("4000", str(audio)).replace("4002", str(video))
        steps = [offer(text + "a=rtcp-mux\n" * muxed, **keys), answer(text, **keys), offer(text, **keys)]
        first, again = Arm(), Arm()
        assert said(again, steps, known) == said(first, steps, Patterns())
        assert again.asked == first.asked


def test_relays_that_answer_otherwise() -> None:
    known = check([offer(crlf(PLAIN))])
    for arm in (Arm({"": "::1"}), Arm()):
        steps = [offer(crlf(PLAIN))]
        again = Arm(arm._addresses)
        assert said(arm, steps, known) == said(again, steps, Patterns())
    assert patterns_of(known) == 1


def test_nothing_is_remembered_without_bound() -> None:
    known = Patterns()
    for number in range(MOST + 9):
        for _ in range(2):
            said(Arm(), [offer(PLAIN + f"a=x:{number}\n")], known)
    assert 0 < len(known._known) <= MOST
    for number in range(MOST + 9):
        said(Arm(), [offer(PLAIN + f"a=y:{number}\n")], known)
    assert 0 < len(known._once) <= MOST


def test_what_the_other_party_said_is_not_remembered_without_bound() -> None:
    known = Patterns()
    for number in range(50):
        steps = [offer(PLAIN.replace("RTP/AVP", f"RTP/AVP{number}{'x' * 40 * number}")), answer(PLAIN), offer(PLAIN)]
        first, again = Arm(), Arm()
        assert said(again, steps, known) == said(first, steps, Patterns())
        assert again.asked == first.asked
    patterns = [pattern for pattern in known._known.values() if pattern is not None]
    assert len(patterns) == 2
    for pattern in patterns:
        assert sum(len(str(part)) for key in pattern._forms for part in key) < 16 * 2 * LONGEST
        for marked in pattern._marked:
            assert isinstance(marked._work, _Negotiation)
            assert len(marked._work._streams._decisions) < 9


def test_requests_of_one_phrase() -> None:
    one = Command.of({b"command": b"offer", b"call-id": b"1", b"from-tag": b"1", b"ICE": b"remove", b"sdp": b"v=0"})
    other = Command.of({b"command": b"answer", b"call-id": b"2", b"ICE": b"remove", b"received-from": [b"IP4", b"::1"]})
    assert one.phrase == other.phrase != Command.of({b"command": b"offer", b"ICE": b"force"}).phrase
    assert other.received_from == "::1"


def test_the_question_is_not_made_twice() -> None:
    """Neither is what stands for another SDP asked of a relay."""
    known = check([offer(PLAIN)])
    arm = Arm()
    said(arm, [offer(PLAIN)], known)
    assert len(arm.asked) == 1 and isinstance(arm.asked[0], MediaRequest)
