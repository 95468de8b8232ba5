"""Our SDP beside that of rtpengine 10.5.3.5 (Debian 12), call by call: byte for byte, save what differs by design."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ngarm import Arm
from tests.ngcases import masked
from tests.ngdaemon import GOLDEN, PROGRAM, running
from tests.ngdialogs import CALLS

SAID: dict[str, list[str]] = json.loads(GOLDEN.read_text())


def _without(*lines: str) -> Callable[[str], str]:
    return lambda text: re.sub("|".join(rf"^{re.escape(line)}\r?\n" for line in lines), "", text, flags=re.M)


_LEFT_OVER = _without("a=end-of-candidates", "a=ice-options:trickle")
_LITE = _without("a=ice-lite")


def _left_over(text: str) -> str:
    """Where a stream has ICE, these lines are part of it."""
    return text if "a=ice-ufrag" in text else _LEFT_OVER(text)


DIFFERENT: dict[str, Callable[[str], str]] = {
    # where all ICE goes, rtpengine leaves these two lines behind
    "ICE remove of ICE": _LEFT_OVER,
    "ICE not offered": _LEFT_OVER,
    "ICE removed both ways": _LEFT_OVER,
    **dict.fromkeys(
        (
            "ICE forced",
            "ICE goes on",
            "ICE removed, answered without word",
            "ICE was not answered, offered again",
            "ICE offered late",
            "ICE offered late, default",
            "ICE offered late by Bob",
            "ICE forced, offered by Bob",
            "ICE forced in answers",
        ),
        _left_over,
    ),
    # c= and m= are the phone's, so a=rtcp would name a port of the relay at the phone's address
    "ICE relay, rtcp-mux required": _without("a=rtcp:P1"),
    # an answer cannot bring a stream that was not offered
    "answer of more": lambda text: re.sub(r"m=video P\d+ (.*\n)(?s:.*)", r"m=video 0 \1", text),
    # the c= line that it copies ends in LF only
    "MSRP": lambda text: re.sub(r"(?<!\r)\n", "\r\n", text),
}
"Case -> what we make of rtpengine's text. docs/ng.md says why."


def ours(name: str) -> list[str]:
    """What we say in a call. Our relay is a lite agent, and says so."""
    arm = Arm()
    said = masked([arm.run(step) for step in CALLS[name].steps])
    for text in said:
        assert ("a=ice-lite\r\n" in text) == ("a=ice-pwd:*" in text)
    return [_LITE(text) for text in said]


def expected(name: str, said: list[str]) -> list[str]:
    """What rtpengine's answers are to us."""
    return [DIFFERENT[name](text) for text in said] if name in DIFFERENT else said


def test_every_case_was_recorded() -> None:
    assert list(SAID) == list(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_as_recorded(name: str) -> None:
    assert ours(name) == expected(name, SAID[name])


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_on_purpose_does(name: str) -> None:
    assert ours(name) != SAID[name]


@pytest.mark.e2e
def test_the_daemon_still_says_so(tmp_path: Path) -> None:
    assert PROGRAM is not None, "Debian's package rtpengine-daemon is not installed"
    with running(tmp_path / "log") as daemon:
        for number, (name, case) in enumerate(CALLS.items()):
            said = daemon.play(case, f"call-{number}")
            assert said == SAID[name], name
            assert ours(name) == expected(name, said), name
