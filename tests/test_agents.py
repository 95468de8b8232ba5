"""Asymmetric-client lists: POSIX expressions, no line lost, none that can hang."""

import ctypes
import re
import time
from pathlib import Path

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
        pytest.param("x" * 600, "x" * 599, False, id="longer-than-511-is-one-line"),
        pytest.param("^ba{,2}d$", "baad", True, id="interval-without-beginning"),
        pytest.param("^ba{,2}d$", "ba{,2}d", False, id="interval-without-beginning-is-no-text"),
        pytest.param("^a{2}{2}$", "aaaa", True, id="interval-of-an-interval"),
        pytest.param("^(ab)*?c", "ababc", True, id="repetition-of-a-repetition"),
        pytest.param("a)", "a)", True, id="unmatched-parenthesis-is-itself"),
        pytest.param(r"a\{2\}", "a{2}", True, id="escaped-brace"),
        pytest.param(r"^\*a\+$", "*a+", True, id="escaped-repetitions"),
        pytest.param("[[.-.]]x", "-x", True, id="collating-element-of-one-character"),
        pytest.param("[a-]x", "-x", True, id="hyphen-last"),
        pytest.param("[:alpha:]", "x:", True, id="class-without-its-brackets"),
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
        pytest.param("[z-a]", id="range-backwards"),
        pytest.param("[a-c-e]", id="range-of-a-range"),
        pytest.param("[[:alpha:]-z]", id="range-from-a-class"),
        pytest.param("[[:word:]]", id="class-of-perl"),
        pytest.param("*a", id="nothing-to-repeat"),
        pytest.param("a|+b", id="nothing-to-repeat-in-an-alternative"),
        pytest.param("(?:a)", id="perl-group"),
        pytest.param("^*a", id="anchor-repeated"),
        pytest.param("{2}", id="interval-of-nothing"),
        pytest.param("a{x}", id="brace-that-is-no-interval"),
        pytest.param("a{1", id="open-interval"),
        pytest.param("a{2,1}", id="interval-backwards"),
        pytest.param(r"\t", id="unknown-escape"),
        pytest.param(r"(a)\12", id="back-reference-not-octal"),
        pytest.param("a\0b", id="nul"),
        pytest.param("x" * 5000, id="too-long"),
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


CONFIG = Path(__file__).parent.parent / "config"


@pytest.mark.parametrize(
    ("name", "patterns"),
    [("sip-asymmetric-clients", ("ipDialog SipTone.*",)), ("rtp-asymmetric-clients", ())],
)
def test_the_files_that_are_shipped(name: str, patterns: tuple[str, ...]) -> None:
    agents = AgentList.parse((CONFIG / name).read_text("latin-1"), name)
    assert (agents.patterns, agents.problems) == (patterns, ())
    assert agents.matches("ipDialog SipTone II v1.2.0 rc Z_v01") is bool(patterns)
    assert not agents.matches("Linphone/3.12.0")


def test_the_examples_in_a_file_that_is_shipped() -> None:
    text = (CONFIG / "sip-asymmetric-clients").read_text("latin-1")
    found = re.findall(r'^#   (\S.*?) +"([^"]+)"(?: but not "([^"]+)")?$', text, re.MULTILINE)
    assert len(found) == 3
    for pattern, agent, other in found:
        agents = AgentList.parse(pattern)
        assert agents.matches(agent)
        assert not agents.matches(other)


def test_the_empty_list_matches_nobody() -> None:
    assert not AgentList().matches("anything")
    assert not AgentList.parse("# nothing\n").matches("anything")


def test_equal_texts_make_equal_lists() -> None:
    assert AgentList.parse("a\nb") == AgentList.parse("# x\na\n\nb\n")
    assert AgentList.parse("a") != AgentList.parse("b")


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*$", "(.*)*x", "(a?){50}a{50}$"])
def test_no_pattern_can_hang(pattern: str) -> None:
    agents = AgentList.parse(pattern)
    assert agents.problems == ()
    costs = []
    for _ in range(5):
        begin = time.process_time()
        agents.matches("a" * 10_000 + "!")
        costs.append(time.process_time() - begin)
    assert min(costs) < 0.05


@pytest.mark.parametrize("line", ["(", "a", "a" + "*" * 4000, "(" * 2000 + ")" * 2000])
def test_no_file_can_hang(line: str) -> None:
    text = f"{line}\n" * (1_000_000 // (len(line) + 1))
    begin = time.process_time()
    agents = AgentList.parse(text)
    assert time.process_time() - begin < 5
    assert len(agents.patterns) + len(agents.problems) <= 1001


def test_a_list_is_not_endless() -> None:
    agents = AgentList.parse("# comment\n" + "a\n" * 1001)
    assert len(agents) == 1000
    assert [problem.line for problem in agents.problems] == [1002]
    assert len(str(AgentList.parse("(" * 3000).problems[0])) < 200


_GNU = ctypes.CDLL(None)
_EXTENDED, _ICASE, _NOSUB = 1, 2, 8


def gnu(pattern: str, agent: str) -> bool | None:
    """What the C library's regcomp(3), with which the original compiles its lists, finds; None: no expression."""
    compiled = ctypes.create_string_buffer(256)
    if _GNU.regcomp(compiled, pattern.encode("latin-1"), _EXTENDED | _ICASE | _NOSUB):
        return None
    found: int = _GNU.regexec(compiled, agent.encode("latin-1"), 0, None, 0)
    _GNU.regfree(compiled)
    return found == 0


_PIECES = [
    *"abcA1-]x,()|*+?{}^$.",
    *("{1}", "{,2}", "{2,}", "{1,2}"),
    *(r"\.", r"\(", r"\-", r"\w", r"\W", r"\s", r"\b", r"\B", r"\`", r"\'"),
    *("[ab]", "[^a]", "[[:alpha:]]", "[[:digit:]-]", "[]a]", "[^]a]", "[a-c]", "[a\\]", "[--/]", "[[.a.]]", "[[=b=]]"),
]
"Characters and more, of which expressions are put together at random."


@given(st.lists(st.sampled_from(_PIECES), min_size=1, max_size=7).map("".join), st.text("aAbBc1- ]x.,(\\", min_size=1))
def test_an_expression_means_what_it_means_to_the_original(pattern: str, agent: str) -> None:
    agents = AgentList.parse(pattern)
    assert (None if agents.problems else agents.matches(agent)) is gnu(pattern, agent)


@given(st.text(), st.text())
def test_any_text_is_read(text: str, agent: str) -> None:
    agents = AgentList.parse(text)
    agents.matches(agent)
    lines = [
        line for line in text.split("\n") if line.strip(" \t\r\f\v") and not line.strip(" \t\r\f\v").startswith("#")
    ]
    assert len(agents.patterns) + len(agents.problems) == len(lines)
