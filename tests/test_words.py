"""Texts for people: durations, numbers, peers' bytes, and JSON for other programs."""

import json
import os
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.cli.words import count, duration, moment, plain, several, shown
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import PartyReport, Refused


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1:00"),
        (83, "1:23"),
        (3599, "59:59"),
        (3723, "1:02:03"),
        (1e6, "277:46:40"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 calls"), (1, "1 call"), (12345, "12 345 calls")])
def test_several(number: int, text: str) -> None:
    assert several(number, "call") == text
    assert count(number) == text.rpartition(" ")[0]


def test_moment_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.environ.get("TZ")
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        assert moment(1_700_000_000) == "2023-11-15 00:13:20"
    finally:
        monkeypatch.undo()
        assert os.environ.get("TZ") == before
        time.tzset()


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain", "plain"),
        ("Caf\xc3\xa9", "Café"),
        ("Caf\xe9", "Café"),
        ("\x1b[31mred\x07\r\n", "\\x1b[31mred\\x07\\x0d\\x0a"),
        ("\xe2\x80\xae", "\\xe2\\x80\\xae"),
    ],
)
def test_shown(text: str, seen: str) -> None:
    assert shown(text) == seen


@given(st.text(st.characters(max_codepoint=255)))
def test_nothing_that_is_shown_controls_a_terminal(text: str) -> None:
    assert shown(text).isprintable()


@pytest.mark.parametrize(
    ("value", "json_value"),
    [
        (Endpoint("2001:db8::1", 5060), {"address": "2001:db8::1", "port": 5060}),
        (
            Refused(source=Endpoint("192.0.2.1", 1), packets=3),
            {"source": {"address": "192.0.2.1", "port": 1}, "packets": 3},
        ),
        (
            (PartyReport(uri="sip:a"),),
            [
                {
                    "uri": "sip:a",
                    "tag": "",
                    "user_agent": "",
                    "signalling": None,
                    "known_by": "unknown",
                    "asymmetric": False,
                    "strict_source": False,
                    "media_handover": False,
                    "label": "",
                    "branch": "",
                }
            ],
        ),
        ({"a": ("x", 1.5, None)}, {"a": ["x", 1.5, None]}),
    ],
)
def test_plain_leaves_no_key_out(value: Any, json_value: Any) -> None:
    assert json.loads(json.dumps(plain(value))) == json_value
