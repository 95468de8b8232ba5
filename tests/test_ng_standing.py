"""How a call stands in the words of rtpengine's query: whose ports, whose packets, and the sums."""

from typing import Any

from mediaproxy.dialects.ng.bencode import decode, encode
from mediaproxy.dialects.ng.standing import standing
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallReport, Quality
from tests.ngstand import party, report, side, stream, texts

A, B = "192.0.2.10:4000", "198.51.100.7:4002"


def told(*reports: CallReport, tag: str = "") -> dict[str, Any]:
    found = texts(decode(encode(standing(reports, tag))))
    assert isinstance(found, dict)
    return found


def talking(**others: Any) -> CallReport:
    """Both have sent."""
    caller = side(
        30000,
        A,
        learned=Endpoint.parse("192.0.2.10:4444"),
        codec="PCMU",
        packets=5,
        bytes=860,
        rtcp_packets=1,
        rtcp_bytes=28,
        refused_packets=7,
        rtcp_refused=2,
        last_packet=1020.9,
        ssrc=16909060,
        sequence=4,
        direction="sendonly",
        rtcp_sdp=Endpoint.parse("192.0.2.10:4001"),
        rtcp_last=1019.0,
    )
    callee = side(30002, B, packets=3, bytes=516, direction="recvonly")
    return report([stream(caller, callee, plane="kernel")], **others)


def test_a_call_of_two() -> None:
    found = told(talking())
    assert list(found) == ["created", "created_us", "last signal", "SSRC", "tags", "totals"]
    assert (found["created"], found["created_us"], found["last signal"]) == (1000, 250000, 1010)
    assert found["totals"] == {
        "RTP": {"packets": 8, "bytes": 1376, "errors": 5},
        "RTCP": {"packets": 1, "bytes": 28, "errors": 2},
    }
    caller, callee = found["tags"]["ft"], found["tags"]["tt"]
    assert caller["subscriptions"] == caller["subscribers"] == [{"tag": "tt", "type": "offer/answer"}]
    assert callee["subscriptions"] == [{"tag": "ft", "type": "offer/answer"}]
    (media,) = caller["medias"]
    assert (media["index"], media["type"], media["protocol"], media["codec"]) == (1, "audio", "RTP/AVP", "PCMU")
    assert media["flags"] == ["initialized", "recv"]
    assert callee["medias"][0]["flags"] == ["initialized", "send"]
    rtp, rtcp = media["streams"]
    assert rtp == {
        "local port": 30000,
        "local address": "192.0.2.250",
        "family": "IPv4",
        "endpoint": {"family": "IPv4", "address": "192.0.2.10", "port": 4444},
        "advertised endpoint": {"family": "IPv4", "address": "192.0.2.10", "port": 4000},
        "flags": ["RTP", "filled", "confirmed", "kernelized"],
        "stats": {"packets": 5, "bytes": 860, "errors": 5},
        "last packet": 1020,
        "SSRC": 16909060,
    }
    assert (rtcp["local port"], rtcp["endpoint"]["port"], rtcp["flags"]) == (30001, 4001, ["RTCP", "filled"])
    assert rtcp["stats"] == {"packets": 1, "bytes": 28, "errors": 2}
    assert rtcp["last packet"] == 1019
    assert callee["medias"][0]["streams"][0]["last packet"] == 1000


def test_a_callee_without_a_tag_yet() -> None:
    found = told(report([stream(side(30000, A), side(30002))], callee=party()))
    assert list(found["tags"]) == ["ft", "<untagged 1>"]
    callee = found["tags"]["<untagged 1>"]
    assert callee["tag"] == ""
    (media,) = callee["medias"]
    assert media["flags"] == ["send", "recv"]
    assert media["streams"][0]["endpoint"] == media["streams"][0]["advertised endpoint"] == {}
    assert media["streams"][0]["flags"] == ["RTP"]


def test_a_tag_that_looks_like_none() -> None:
    written = encode(
        standing([report([stream(side(30000, A), side(30002))], caller=party("<untagged 1>"), callee=party())])
    )
    assert written.count(b"<untagged 1>d") == 1, "of a dictionary each key is one"


def test_labels_branches_and_asymmetric_clients() -> None:
    call = talking(caller=party("ft", label="alice", asymmetric=True), callee=party("tt", branch="z9hG4bK1"))
    tags = told(call)["tags"]
    assert (tags["ft"]["label"], tags["tt"]["via-branch"]) == ("alice", "z9hG4bK1")
    assert "label" not in tags["tt"]
    assert "asymmetric" in tags["ft"]["medias"][0]["flags"]


def test_muxed_rtcp_and_ice() -> None:
    call = report([stream(side(30000, A, mux=True, ice=True, rtcp_packets=2, rtcp_bytes=56), side(30002, B))])
    found = told(call)
    (media,) = found["tags"]["ft"]["medias"]
    assert media["flags"] == ["initialized", "send", "recv", "rtcp-mux", "ICE"]
    rtp, rtcp = media["streams"]
    assert rtp["local port"] == rtcp["local port"] == 30000
    assert rtcp["endpoint"]["port"] == 4000
    assert rtp["flags"] == ["RTP", "RTCP", "filled", "ICE"]
    assert rtcp["flags"] == ["RTCP", "fallback RTCP", "filled", "ICE"]
    assert found["totals"]["RTCP"] == {"packets": 2, "bytes": 56, "errors": 0}


def test_streams_that_have_no_rtcp_or_no_ports() -> None:
    fax = stream(side(30004, A), side(30006, B), 1, kind="image", transport="udptl")
    rejected = stream(side(0), side(0), 2, kind="video")
    medias = told(report([stream(side(30000, A), side(30002, B)), fax, rejected]))["tags"]["ft"]["medias"]
    assert [media["index"] for media in medias] == [1, 2, 3]
    assert [len(media["streams"]) for media in medias] == [2, 1, 0]
    assert medias[1]["protocol"] == "udptl"


def test_a_stream_that_was_refused() -> None:
    """Its ports are told to nobody."""
    refused = stream(side(30004, A), side(30006), 1, kind="video", disabled=True)
    medias = told(report([stream(side(30000, A), side(30002, B)), refused]))["tags"]["ft"]["medias"]
    assert [one["flags"] for one in medias[1]["streams"]] == [["RTP", "filled"], ["RTCP"]]
    for one in medias[1]["streams"]:
        assert list(one) == ["endpoint", "advertised endpoint", "flags", "stats", "last packet"]


def test_whom_a_stream_hears() -> None:
    call = talking(caller=party("ft", strict_source=True), callee=party("tt", media_handover=True))
    tags = told(call)["tags"]
    for tag, word in (("ft", "strict source address"), ("tt", "media handover")):
        assert [one["flags"][-1] for one in tags[tag]["medias"][0]["streams"]] == [word, word]


def test_forks() -> None:
    shared = side(30000, A, packets=4, bytes=40)
    call = report(
        [
            stream(shared, side(30002, B, packets=1, bytes=10), leg="tt"),
            stream(shared, side(30004, "203.0.113.5:6000"), leg="t2"),
        ]
    )
    found = told(call)
    assert set(found["tags"]) == {"ft", "tt", "t2"}
    assert [one["tag"] for one in found["tags"]["ft"]["subscriptions"]] == ["tt", "t2"]
    assert len(found["tags"]["ft"]["medias"]) == 1, "the port that faces the caller is one"
    assert found["totals"]["RTP"] == {"packets": 5, "bytes": 50, "errors": 0}
    assert set(told(call, tag="t2")["tags"]) == {"ft", "t2"}
    assert set(told(call, tag="ft")["tags"]) == {"ft", "tt", "t2"}
    assert told(call, tag="nobody")["tags"] == {}
    assert told(call, tag="nobody")["totals"]["RTP"]["packets"] == 0


def test_two_calls_of_one_call_id() -> None:
    found = told(talking(), talking(caller=party("f2"), callee=party("t2"), started=999.0, asked=0.0))
    assert set(found["tags"]) == {"ft", "tt", "f2", "t2"}
    assert (found["created"], found["last signal"]) == (999, 1010)
    assert found["totals"]["RTP"]["packets"] == 16


def test_a_call_without_streams() -> None:
    found = told(report(asked=0.0))
    assert set(found["tags"]) == {"ft", "tt"}
    assert found["tags"]["ft"]["medias"] == []
    assert found["last signal"] == 1000


def test_quality() -> None:
    quality = Quality(
        packets=100,
        lost=3,
        loss=0.03,
        jitter=0.002,
        average_jitter=0.0031,
        highest_jitter=0.0119,
        average_mos=4.26,
        lowest_mos=3.94,
    )
    measured = side(30000, A, ssrc=7, packets=100, bytes=17200, sequence=99, quality=quality)
    counted = side(30002, B, ssrc=8, packets=1, bytes=172, lost=5)
    found = told(report([stream(measured, counted)]))["SSRC"]
    assert found["7"] == {
        "bytes": 17200,
        "packets": 100,
        "last RTP seq": 99,
        "cumulative loss": 3,
        "average MOS": {"MOS": 43, "jitter": 3, "packet loss": 3, "samples": 1},
        "lowest MOS": {"MOS": 39, "jitter": 12, "packet loss": 3, "samples": 1},
    }
    assert found["8"] == {"bytes": 172, "packets": 1, "last RTP seq": 0, "cumulative loss": 5}


def test_ipv6() -> None:
    local = Endpoint("2001:db8::1", 30000)
    place = Endpoint("2001:db8::2", 4000)
    call = report([stream(side(30000, A).__class__(local=local, advertised=local, sdp=place), side(30002, B))])
    rtp = told(call)["tags"]["ft"]["medias"][0]["streams"][0]
    assert (rtp["family"], rtp["local address"], rtp["endpoint"]["address"]) == ("IPv6", "2001:db8::1", "2001:db8::2")
