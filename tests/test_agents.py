"""Asymmetric-client lists: POSIX expressions, no line lost, none that can hang."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.agents import AgentList


@pytest.mark.parametrize(
    ("line", "agent", "expected"),
    [
        pytest.param("ipDialog SipTone.*", "ipDialog SipTone II v1.2", True, id="as-the-original-shipped"),
        pytest.param("ipDialog", "IPDIALOG", True, id="any-case"),
        pytest.param("tone", "SipTone II", True, id="anywhere"),
        pytest.param("^tone", "SipTone", False, id="anchored"),
        pytest.param("^sip.*[0-9]$", "SipTone 2", True, id="anchored-both-ends"),
        pytest.param("^b$", "a\nb", False, id="anchors-are-of-the-text"),
        pytest.param("[[:alpha:]]+-[[:digit:]]{2}", "x-42", True, id="character-classes"),
        pytest.param("[^[:space:]]x", " x", False, id="negated-class"),
        pytest.param("[]a]", "]", True, id="bracket-first"),
        pytest.param("[^]a]", "]a", False, id="bracket-first-negated"),
        pytest.param(r"[\d]", "5", False, id="backslash-in-brackets-is-itself"),
        pytest.param(r"[\d]", "\\", True, id="backslash-in-brackets"),
        pytest.param(r"[\.]", ".", True, id="escaped-dot-in-brackets"),
        pytest.param("a|b", "b", True, id="alternatives"),
        pytest.param("(ab){2}", "abab", True, id="repetition"),
        pytest.param(r"v1\.0", "v1x0", False, id="escaped-dot"),
        pytest.param("v1.0", "v1x0", True, id="dot"),
        pytest.param(r"\<phone\>", "my phone 2", True, id="gnu-word"),
        pytest.param(r"\<phone\>", "phones", False, id="gnu-word-boundary"),
        pytest.param(r"\w+\s\bx", "ab x", True, id="gnu-classes"),
        pytest.param("ab+?c", "ac", True, id="plus-question-mark-is-optional"),
        pytest.param("caf\xe9", "CAF\xe9", True, id="latin-1"),
        pytest.param("caf\xc3\xa9", "caf\xc3\xa9 phone", True, id="utf-8-bytes"),
        pytest.param("phone", "", False, id="no-user-agent"),
        pytest.param(".*", "", False, id="no-user-agent-matches-nothing"),
        pytest.param("x" * 600, "x" * 600, True, id="longer-than-511"),
    ],
)
def test_one_line(line: str, agent: str, expected: bool) -> None:
    agents = AgentList.parse(line)
    assert agents.problems == ()
    assert agents.matches(agent) is expected
    assert agents.match(agent) == (line if expected else None)


def test_a_whole_file() -> None:
    text = "\xef\xbb\xbf# phones\r\n\r\n  ipDialog SipTone.*\t\r\n   # comment\n(unclosed\n\n\nLinksys #2\nlast"
    agents = AgentList.parse(text, "sip-asymmetric-clients")
    assert agents.patterns == ("ipDialog SipTone.*", "Linksys #2", "last")
    assert agents.name == "sip-asymmetric-clients"
    assert [problem.line for problem in agents.problems] == [5]
    assert str(agents.problems[0]).startswith("line 5: '(unclosed' is skipped: ")
    assert len(agents) == 3
    assert agents.matches("linksys #2")


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("(a", id="open-parenthesis"),
        pytest.param("[a", id="open-bracket"),
        pytest.param("[[:alpha:]", id="open-bracket-behind-class"),
        pytest.param("[[:alpha", id="open-class"),
        pytest.param("[[:nonsense:]]", id="unknown-class"),
        pytest.param("[[.hyphen.]]", id="collating-element"),
        pytest.param("*a", id="nothing-to-repeat"),
        pytest.param(r"(a)\1", id="back-reference"),
        pytest.param("a{5000}", id="too-many-repetitions"),
        pytest.param("(((a{99}){99}){99}){99}", id="too-large"),
        pytest.param("a\\", id="final-backslash"),
    ],
)
def test_a_bad_line_is_skipped_and_named(line: str) -> None:
    agents = AgentList.parse(f"good\n{line}\nbetter\n")
    assert agents.patterns == ("good", "better")
    assert [(problem.line, problem.text) for problem in agents.problems] == [(2, line)]
    assert agents.problems[0].reason


def test_the_empty_list_matches_nobody() -> None:
    assert not AgentList().matches("anything")
    assert not AgentList.parse("# nothing\n").matches("anything")


def test_equal_texts_make_equal_lists() -> None:
    assert AgentList.parse("a\nb") == AgentList.parse("# x\na\n\nb\n")
    assert AgentList.parse("a") != AgentList.parse("b")


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*$", "(.*)*x", "(a?){50}a{50}$"])
def test_no_pattern_can_hang(pattern: str) -> None:
    agents = AgentList.parse(pattern)
    begin = time.process_time()
    agents.matches("a" * 10_000 + "!")
    assert time.process_time() - begin < 0.5


@given(st.text(), st.text())
def test_any_text_is_read(text: str, agent: str) -> None:
    agents = AgentList.parse(text)
    agents.matches(agent)
    lines = [
        line for line in text.split("\n") if line.strip(" \t\r\f\v") and not line.strip(" \t\r\f\v").startswith("#")
    ]
    assert len(agents.patterns) + len(agents.problems) == len(lines)
