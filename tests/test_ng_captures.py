"""What Kamailio 5.6's rtpengine.so sent (tests/captures/rtpengine-ng.cap), replayed: each request gets an answer that
the module accepts, and what goes on in its SDP is what rtpengine would say."""

import re
from pathlib import Path
from typing import Any

from mediaproxy.dialects.dialect import Peer
from mediaproxy.dialects.ng import bencode
from mediaproxy.sdp import Sdp
from tests.test_ng_calls import NgBench

CAPTURE = Path(__file__).with_name("captures") / "rtpengine-ng.cap"
ENDS_SRTP = "c7-savpf"
"The call that asks for RTP/AVP of SRTP by DTLS."

ANSWERS_MORE = "c13-extra-answer"
"Its answer has a stream that was not offered."

ANSWERS_NOTHING = "c9-late-offer"
"The script of the capture calls the SDP of a 200 an answer even if the INVITE had none."


def requests() -> list[bytes]:
    """The datagrams, in order."""
    data, found, at = CAPTURE.read_bytes(), [], 0
    for match in re.finditer(rb"^### port\d+ from \S+ (\d+) bytes\n", data, re.M):
        if match.start() >= at:
            at = match.end() + int(match[1])
            found.append(data[match.end() : at])
    return found


def decoded(message: bytes) -> dict[str, Any]:
    """The dictionary of a message."""
    found = bencode.decode(message, message.index(b" ") + 1)
    assert isinstance(found, dict)
    return {key.decode(): value for key, value in found.items()}


def replay() -> list[tuple[dict[str, Any], bytes]]:
    """Each request with its answer."""
    bench = NgBench(port_max=30_000, addresses=NgBench().settings.addresses)
    said = []
    for message in requests():
        answer = bench.tell(message, Peer("udp", "127.0.0.1:5060", bench.now))
        assert answer.split(b" ", 1)[0] == message.split(b" ", 1)[0]
        said.append((decoded(message), answer))
        bench.run(1)
    bench.run(60)  # deletes of today's modules say nothing of a delay, which then is 30 s
    assert bench.stands() == []
    assert bench.calls.ports_lent == 0
    return said


def test_the_whole_capture() -> None:
    said = replay()
    assert len(said) == 57
    for request, answer in said:
        told = decoded(answer)
        match request["command"]:
            case b"ping":
                assert answer.endswith(b" d6:result4:ponge")
            case b"offer" | b"answer" | b"query" if request["call-id"] == ENDS_SRTP.encode():
                assert told["result"] == b"error"  # so there is no such call
            case b"answer" | b"query" if request["call-id"] == ANSWERS_NOTHING.encode():
                assert told == {"result": b"error", "error-reason": b"Unknown call-id"}
            case b"offer" | b"answer":
                assert told["result"] == b"ok", (request, told)
                before, after = Sdp.parse(request["sdp"]), Sdp.parse(told["sdp"])
                assert [one.kind for one in before.sections] == [one.kind for one in after.sections]
                unasked = request["command"] == b"answer" and request["call-id"] == ANSWERS_MORE.encode()
                expected = [one.port > 0 and not (unasked and one.kind == "video") for one in before.sections]
                assert [one.port > 0 for one in after.sections] == expected
                assert b"192.0.2.1" in told["sdp"]
                # ICE=remove is said of the offer only: who had ICE is answered with ours, as rtpengine does
                answered = request["command"] == b"answer" and request["call-id"] == b"c5-ice"
                assert (b"a=candidate:R" in told["sdp"]) == answered
                assert b"192.168.77.2 4000 typ" not in told["sdp"]
            case _:
                assert told["result"] == b"ok", (request, told)


def test_what_is_refused_says_which_word_it_was() -> None:
    (refused,) = [
        decoded(answer)
        for request, answer in replay()
        if request["command"] == b"offer" and request["call-id"] == ENDS_SRTP.encode()
    ]
    assert refused["error-reason"] == (
        b"transport-protocol=RTP/AVP needs SRTP termination, which this server does not do"
    )
