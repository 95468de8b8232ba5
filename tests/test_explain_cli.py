"""`mediaproxy explain` as its documentation promises it: what it prints, in JSON too, and its exit status."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.sip_corpus import MESSAGES
from tests.test_cli import cli

SOURCE = "203.0.113.7:40000"
INVITE = MESSAGES["invite-behind-nat"]
NAMED = {"contact-private", "source-differs", "via-private", "sdp-private", "port-differs", "cgn", "contact-differs"}


def explained(home: Path, data: bytes, *options: str) -> Any:
    """The JSON about a message on standard input."""
    done = cli("explain", "-", "--source", SOURCE, "--json", *options, home=home, stdin=data)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_everything_about_an_invite(tmp_path: Path) -> None:
    told = explained(tmp_path, INVITE, "--relay", "203.0.113.5 60000 60002")
    assert {name: told["tests"][name] for name in "124"} == {"1": True, "2": True, "4": True}
    assert told["tests"].keys() - {"1", "2", "4"} >= NAMED and all(
        isinstance(one, bool) for one in told["tests"].values()
    )
    assert told["reasons"].keys() == told["tests"].keys()
    assert told["client_nat_test"] == 1
    contact = '"Alice" <sip:alice@203.0.113.7:40000;line=7>;expires=3600'
    assert told["fix_contact"] == {"result": 1, "contacts": [contact]}
    assert told["streams"] == [
        {
            "kind": kind,
            "transport": "RTP/AVP",
            "address": "192.168.1.10",
            "port": port,
            "rtcp_port": port + 1,
            "direction": "sendrecv",
        }
        for kind, port in (("audio", 5004), ("video", 5006))
    ]
    assert told["use_media_proxy"] == 1
    expected = INVITE.replace(b"sip:alice@192.168.1.10:5060;", b"sip:alice@203.0.113.7:40000;")
    for before, after in (
        (b"c=IN IP4 192.168.1.10", b"c=IN IP4 203.0.113.5"),
        (b"audio 5004", b"audio 60000"),
        (b"video 5006", b"video 60002"),
        (b"Content-Length: 234", b"Content-Length: 235"),
    ):
        assert before in expected
        expected = expected.replace(before, after)
    assert bytes.fromhex(told["message"]) == expected
    assert told["phone"]["known_by"] == "source" and told["question"]["cseq"] == 314159 and told["warnings"] == []


def test_the_page_shows_the_rewritten_message(tmp_path: Path) -> None:
    file = tmp_path / "m"
    file.write_bytes(INVITE.replace(b"Zoiper 5", b"Z\xfcri \x1b[31m"))
    page = cli("explain", str(file), "--source", SOURCE, "--relay", "203.0.113.5 60000 60002", home=tmp_path).stdout
    assert "fix_contact: 1\n" in page and "Stream 2: video over RTP/AVP\n" in page and "use_media_proxy: 1\n" in page
    assert '{"type":"media","call_id"' in page and "2: YES the packet came from 203.0.113.7, the top Via says" in page
    assert "\nUser-Agent: Z\\xfcri \\x1b[31m\n" in page and "\nc=IN IP4 203.0.113.5\nt=0 0\nm=audio 60000 RTP" in page


@pytest.mark.parametrize(
    ("tests", "result"), [("1", 1), ("2", 1), ("4", 1), ("7", 1), ("0", -1), ("", -1), ("8", -1), ("6", 1)]
)
def test_tests_are_a_sum(tmp_path: Path, tests: str, result: int) -> None:
    assert explained(tmp_path, INVITE, "--tests", tests)["client_nat_test"] == result


def test_without_an_answer_and_with_other_ice(tmp_path: Path) -> None:
    data = INVITE.replace(b"a=sendrecv", b"a=ice-ufrag:x\r\na=ice-pwd:y")
    told = explained(tmp_path, data, "--ice", "low-priority")
    assert told["use_media_proxy"] == 1
    assert bytes.fromhex(told["message"]) == data.replace(b"192.168.1.10:5060;line", b"203.0.113.7:40000;line")
    told = explained(tmp_path, data, "--ice", "low-priority", "--relay", "203.0.113.5 60000 60002")
    assert b"a=candidate:Rcb007105 1 UDP 16777215 203.0.113.5 60000" in bytes.fromhex(told["message"])


def test_a_response(tmp_path: Path) -> None:
    told = explained(tmp_path, MESSAGES["answer-with-rejected-video"], "--relay", "203.0.113.5 60000 0")
    assert [(one["port"], one["rtcp_port"]) for one in told["streams"]] == [(6000, 6001), (0, None)]
    assert {name: told["tests"][name] for name in "124"} == {"1": True, "2": True, "4": False}
    assert b"m=video 0 RTP/AVP 96" in bytes.fromhex(told["message"])


@pytest.mark.parametrize("name", ["star-contact", "lf-only-no-content-length", "latin-1-everywhere"])
def test_what_is_no_offer_or_has_odd_bytes(tmp_path: Path, name: str) -> None:
    if name == "star-contact":
        told = explained(tmp_path, b"REGISTER sip:a SIP/2.0\r\nContact: *\r\n\r\n", "--relay", "203.0.113.5")
        assert told["fix_contact"] == {"result": -1, "contacts": ["*"]}
        assert (told["use_media_proxy"], told["streams"]) == (-1, [])
        return
    told = explained(tmp_path, MESSAGES[name])
    assert told["fix_contact"]["result"] == 1 and told["use_media_proxy"] == 1
    sent = bytes.fromhex(told["message"])
    assert sent.split(b"\nContact:")[0] == MESSAGES[name].split(b"\nContact:")[0]


def test_a_relay_without_enough_ports(tmp_path: Path) -> None:
    told = explained(tmp_path, INVITE, "--relay", "203.0.113.5 60000")
    assert told["use_media_proxy"] == -1
    assert told["message"] == explained(tmp_path, INVITE)["message"]


@pytest.mark.parametrize(
    ("data", "options", "error"),
    [
        pytest.param(INVITE, ["--relay", "203.0.113.5 1 65535"], "--relay: port 65535 leaves none for RTCP", id="rtcp"),
        pytest.param(INVITE, ["--relay", "relay 60000 60002"], "--relay: 'relay' is not an IP address", id="address"),
        pytest.param(INVITE, ["--relay", "203.0.113.5 60000 x"], "--relay: 'x' is not a port", id="port"),
        pytest.param(INVITE, ["--tests", "x"], "--tests: client_nat_test('x'): expected a sum", id="tests"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", [], "not a SIP message: ", id="no-sip"),
        pytest.param(b"", [], "not a SIP message: ", id="empty"),
    ],
)
def test_what_cannot_be_explained(tmp_path: Path, data: bytes, options: list[str], error: str) -> None:
    done = cli("explain", "-", "--source", SOURCE, *options, home=tmp_path, stdin=data)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert error in done.stderr
