"""What OpenSIPS' modules mediaproxy and rtpengine write where that differs from Kamailio's, as documented: it is not
in Debian, so its bytes are replayed (modules/mediaproxy/mediaproxy.c and modules/rtpengine of HEAD, 8f4f1e1b)."""

import re

import pytest

from mediaproxy.dialects.dialect import Peer
from mediaproxy.dialects.ng import bencode
from mediaproxy.dialects.v2 import MediaProxy2
from mediaproxy.events import CallState
from tests.mpbench import Desk
from tests.ngcases import PLAIN, crlf
from tests.relaybench import V4, at, rtp
from tests.test_ng_calls import NgBench

OFFER = (
    b"update\r\ntype: request\r\ndialog_id: 5299989648942\r\ncall_id: 8f3a@192.168.1.10\r\ncseq: 1\r\n"
    b"from_uri: alice@example.com\r\nto_uri: bob@example.net\r\nfrom_tag: a1b2\r\nto_tag: \r\n"
    b"user_agent: Cisco ATA 186\r\nsignaling_ip: 203.0.113.7\r\nmedia_relay: \r\n"
    b"media: audio:192.168.1.10:5004:sendrecv:ice=no,video:192.168.1.10:5006:sendrecv:ice=yes\r\n\r\n"
)
ANSWER = (
    b"update\r\ntype: reply\r\ndialog_id: 5299989648942\r\ncall_id: 8f3a@192.168.1.10\r\ncseq: 1\r\n"
    b"from_uri: alice@example.com\r\nto_uri: bob@example.net\r\nfrom_tag: a1b2\r\nto_tag: c3d4\r\n"
    b"user_agent: X-Lite\r\nsignaling_ip: 198.51.100.77\r\nmedia_relay: \r\n"
    b"media: audio:10.0.0.9:40000:sendrecv:ice=no,video:10.0.0.9:0:sendrecv:ice=no\r\n\r\n"
)
REMOVE = b"remove\r\ncall_id: 8f3a@192.168.1.10\r\nfrom_tag: a1b2\r\nto_tag: c3d4\r\n\r\n"


def test_a_call_of_mediaproxy() -> None:
    desk = Desk(MediaProxy2())
    facing_bob, _ = desk.ports(OFFER)
    facing_alice, rejected = desk.ports(ANSWER)
    assert rejected == 0
    assert (desk.call.state, desk.call.dialog_id) == (CallState.TALKING, "5299989648942")
    desk.bench.packet("203.0.113.7:31", at(f"{V4}:{facing_alice}"), rtp())
    (sent,) = desk.bench.packet("198.51.100.77:32", at(f"{V4}:{facing_bob}"), rtp())
    assert sent.target == at("203.0.113.7:31")
    assert desk.say(REMOVE) == b"removed\r\n"
    assert desk.say(b"remove\r\ncall_id: nosuch\r\nfrom_tag: x\r\nto_tag: \r\n\r\n") == b"error\r\n"


def ng(bench: NgBench, number: int, words: dict[str, object]) -> dict[bytes, object]:
    """The answer to a request with the cookie that OpenSIPS writes, without ``supports``."""
    message = b"4711_%d_1 %b" % (number, bencode.encode(words))
    answer = bench.tell(message, Peer("udp", "127.0.0.1:9", bench.now))
    assert answer.startswith(b"4711_%d_1 d" % number)
    found = bencode.decode(answer, answer.index(b" ") + 1)
    assert isinstance(found, dict)
    return dict(found)


REPLACE = ["origin", "session-connection", "SDP version", "zero address", "username", "session name"]


def talk(bench: NgBench) -> None:
    """Offer and answer as OpenSIPS asks: keys with spaces, all that can be replaced."""
    words: dict[str, object] = {
        "sdp": crlf(PLAIN),
        "address family": "IP4",
        "replace": REPLACE,
        "call-id": "os-1",
        "received-from": ["IP4", "203.0.113.1"],
        "from-tag": "a",
        "command": "offer",
    }
    told = ng(bench, 1, words)
    assert told[b"result"] == b"ok", told
    sdp = told[b"sdp"]
    assert isinstance(sdp, bytes)
    assert re.search(rb"(?m)^o=\S+ \S+ \S+ IN IP4 %b\r$" % re.escape(V4.encode()), sdp), sdp
    assert b"c=IN IP4 %b\r\n" % V4.encode() in sdp
    words |= {"command": "answer", "to-tag": "b", "received-from": ["IP4", "198.51.100.2"]}
    assert ng(bench, 2, words)[b"result"] == b"ok"
    assert bench.stands() == [(CallState.TALKING, False)]


def test_a_call_of_rtpengine_ends_by_its_call_id_alone() -> None:
    bench = NgBench()
    talk(bench)
    told = ng(bench, 3, {"call-id": "os-1", "command": "query"})
    assert told[b"result"] == b"ok" and told[b"tags"]
    told = ng(bench, 4, {"call-id": "os-1", "delete-delay": 0, "command": "delete"})
    assert told[b"result"] == b"ok" and told[b"totals"]
    assert bench.stands() == []


def test_the_module_asks_whether_somebody_is_there() -> None:
    assert ng(NgBench(), 1, {"command": "ping"}) == {b"result": b"pong"}


@pytest.mark.parametrize("command", ["block media", "unblock media"])
def test_media_of_a_call_is_switched(command: str) -> None:
    bench = NgBench()
    talk(bench)
    assert ng(bench, 3, {"call-id": "os-1", "from-tag": "a", "command": command})[b"result"] == b"ok"
    error = ng(bench, 4, {"call-id": "nosuch", "from-tag": "a", "command": command})
    assert error == {b"result": b"error", b"error-reason": b"Unknown call-ID"}


@pytest.mark.parametrize("command", ["start recording", "play media", "play DTMF", "subscribe request"])
def test_what_needs_more_than_a_relay_is_refused_by_name(command: str) -> None:
    bench = NgBench()
    talk(bench)
    told = ng(bench, 3, {"call-id": "os-1", "from-tag": "a", "command": command})
    assert told[b"result"] == b"error" and command.encode() in bytes(str(told[b"error-reason"]), "latin-1")
