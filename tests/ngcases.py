"""What is asked of rtpengine 10.5 and of us alike: a table of calls in NG, each a few offers and answers.

tests/data/ng/rtpengine-10.5.json has what the daemon of Debian 12 (10.5.3.5-1+deb12u1) said; ``tests/ngdaemon.py``
asks it again and writes that file. Values that differ from run to run are masked: ports, ICE credentials, foundations.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

HEAD = """v=0
o=alice 10 1 IN IP4 192.0.2.10
s=x
c=IN IP4 192.0.2.10
t=0 0
"""
ICE = """a=ice-ufrag:AAAA
a=ice-pwd:AAAAAAAAAAAAAAAAAAAAAAAA
a=ice-options:trickle
a=candidate:1 1 UDP 2130706431 192.0.2.10 4000 typ host
a=candidate:1 2 UDP 2130706430 192.0.2.10 4001 typ host
a=candidate:2 1 UDP 1694498815 198.51.100.7 4000 typ srflx raddr 192.0.2.10 rport 4000
a=candidate:3 1 UDP 16777215 198.51.100.9 4000 typ relay raddr 198.51.100.7 rport 4000
a=end-of-candidates
"""
PLAIN = HEAD + "m=audio 4000 RTP/AVP 0\n"
MUX = PLAIN + "a=rtcp-mux\na=rtcp:4000\n"
WITH_ICE = PLAIN + ICE
MANY = (
    HEAD.replace("c=", "i=info\nu=http://example.com\ne=a@example.com\np=+1\nc=").replace("t=0", "b=AS:100\nt=0")
    + """\
a=group:BUNDLE 0 1
a=msid-semantic: WMS *
a=tool:x
a=sendonly
a=rtcp-xr:voip
m=audio 4000 RTP/AVP 96 0 101 9 18 13
i=audio
b=AS:64
a=mid:0
a=rtpmap:96 opus/48000/2
a=fmtp:96 useinbandfec=1
a=rtcp-fb:96 nack
a=rtcp-fb:* ccm fir
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-15
a=fmtp:18 annexb=no
a=ptime:20
a=maxptime:40
a=extmap:1 urn:x
a=ssrc:1 cname:x
a=msid:a b
a=label:7
a=rtcp-rsize
a=silenceSupp:off - - - -
a=rtcp:4001
m=video 4002 RTP/AVP 97
b=AS:500
a=mid:1
a=rtpmap:97 H264/90000
a=rtcp-fb:97 nack pli
a=recvonly
"""
)
CODECS = (
    HEAD
    + """\
m=audio 4000 RTP/AVP 96 0 8 101 18 102
a=rtpmap:96 opus/48000/2
a=fmtp:96 useinbandfec=1
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-15
a=rtpmap:102 G729/8000/1
a=fmtp:102 annexb=no
"""
)
FAX = HEAD + "m=image 4000 udptl t38\na=T38FaxVersion:0\na=T38MaxBitRate:14400\n"
MSRP = PLAIN + "m=message 4010 TCP/MSRP *\na=path:msrp://192.0.2.10:4010/x;tcp\n"
VIDEO = PLAIN + "m=video 4002 RTP/AVP 97\na=rtpmap:97 H264/90000\n"


@dataclass(frozen=True)
class Case:
    """One call."""

    steps: tuple[dict[str, Any], ...]


TURNED = {"from-tag": "b", "to-tag": "a"}
"Of Bob's further offer."


def crlf(text: str) -> bytes:
    """The same with the line ends of SDP."""
    return text.replace("\r", "").replace("\n", "\r\n").encode()


def offer(sdp: str | bytes | None = PLAIN, /, **flags: Any) -> dict[str, Any]:
    """Alice's first one."""
    return _command("offer", sdp, flags)


def reoffer(sdp: str | bytes | None = PLAIN, /, **flags: Any) -> dict[str, Any]:
    """Alice's further one."""
    return _command("offer", sdp, {"to_tag": "b", **flags})


def answer(sdp: str | bytes | None = None, /, **flags: Any) -> dict[str, Any]:
    """Bob's."""
    return _command("answer", theirs(PLAIN) if sdp is None else sdp, {"to_tag": "b", **flags})


def theirs(sdp: str) -> str:
    """What Bob would say in Alice's place."""
    text = sdp.replace("alice 10 1", "bob 77 5").replace("192.0.2.10", "192.0.2.20").replace("AAAA", "BBBB")
    return text.replace(" 400", " 600").replace(":400", ":600")


def _command(name: str, sdp: str | bytes | None, flags: dict[str, Any]) -> dict[str, Any]:
    body = crlf(sdp) if isinstance(sdp, str) else sdp
    base: dict[str, Any] = {"command": name, "call-id": "c", "from-tag": "a", "sdp": body}
    base.update((key.replace("_", "-"), value) for key, value in flags.items())
    return {key: value for key, value in base.items() if value is not None}


def masked(answers: Iterable[Mapping[str, Any]]) -> list[str]:
    """What was answered in a call, without what differs from run to run."""
    ports: dict[str, str] = {}
    return [_masked(answer, ports) for answer in answers]


def _masked(answer: Mapping[str, Any], ports: dict[str, str]) -> str:
    if "sdp" not in answer:
        return "; ".join(f"{key}: {_text(value)}" for key, value in sorted(answer.items()))
    text = _text(answer["sdp"])
    for port in re.findall(r"^(?:m=\S+|a=candidate:\S+ 1 UDP \S+ \S+) (3\d{4})\b", text, re.M):
        if port not in ports:
            name = f"P{len(ports) + 1}"
            ports.setdefault(port, name)
            ports.setdefault(str(int(port) + 1), f"{name}+1")
    text = re.sub(r"\b3\d{4}\b", lambda match: ports.get(match[0], match[0]), text)
    text = re.sub(r"^a=(ice-ufrag|ice-pwd):(?!AAAA|BBBB).*?(?=\r?$)", r"a=\1:*", text, flags=re.M)
    text = re.sub(r"^a=candidate:(?:\w{16}|R\w+) ", "a=candidate:* ", text, flags=re.M)
    return re.sub(r"^a=rtpengine:\w{12}", "a=rtpengine:*", text, flags=re.M)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _hold(sdp: str = PLAIN) -> str:
    return sdp.replace("c=IN IP4 192.0.2.10", "c=IN IP4 0.0.0.0")


BOTH: Any = {"replace": ["origin", "session-connection"]}
CASES: dict[str, Case] = {}


def _case(name: str, *steps: dict[str, Any]) -> None:
    assert name not in CASES
    CASES[name] = Case(steps)


for _words in ([], ["offer"], ["require"], ["demux"], ["accept"], ["reject"], ["offer", "reject"], ["offer", "demux"]):
    for _a, _said in (("mux", MUX), ("plain", PLAIN)):
        for _b, _back in (("mux", MUX), ("plain", PLAIN)):
            _name = f"rtcp-mux {'+'.join(_words) or 'none'}: {_a}, {_b}"
            _case(_name, offer(_said, rtcp_mux=_words), answer(theirs(_back)))
for _word in ("demux", "accept", "reject", "offer", "require"):
    _case(f"rtcp-mux {_word} in the answer", offer(MUX), answer(theirs(PLAIN), rtcp_mux=[_word]))
_case("rtcp-mux goes on", offer(rtcp_mux=["offer"]), answer(theirs(MUX)), reoffer())
_case("rtcp-mux goes on, demux", offer(rtcp_mux=["offer"]), answer(theirs(MUX)), reoffer(rtcp_mux=["demux"]))
for _word in ("demux", "accept", "reject", "offer"):
    for _a, _said in (("mux", MUX), ("plain", PLAIN)):
        for _b, _back in (("mux", MUX), ("plain", PLAIN)):
            _steps = offer(MUX, rtcp_mux=[_word]), answer(theirs(_said)), {**offer(theirs(_back)), **TURNED}
            _case(f"rtcp-mux {_word}, Bob offers: {_a}, {_b}", *_steps)
for _word in ("", "remove", "force", "default", "force-relay", "optional"):
    _flags = {"ICE": _word} if _word else {}
    _case(f"ICE {_word or 'none'} of ICE", offer(WITH_ICE, **_flags))
    _case(f"ICE {_word or 'none'} of none", offer(PLAIN, **_flags))
_case("ICE answered", offer(WITH_ICE), answer(theirs(WITH_ICE)))
_case("ICE not answered", offer(WITH_ICE), answer())
_case("ICE not offered", offer(), answer(theirs(WITH_ICE), ICE="default"))
_case("ICE removed, answered without word", offer(WITH_ICE, ICE="remove"), answer())
_case("ICE removed both ways", offer(WITH_ICE, ICE="remove"), answer(ICE="remove"))
_case("ICE forced", offer(ICE="force"), answer(theirs(WITH_ICE)))
_case("ICE forced both ways", offer(ICE="force"), answer(theirs(WITH_ICE), ICE="force"))
_case("ICE optional both ways", offer(WITH_ICE, ICE="optional"), answer(theirs(WITH_ICE), ICE="optional"))
_case("ICE relay both ways", offer(WITH_ICE, ICE="force-relay"), answer(theirs(WITH_ICE), ICE="force-relay"))
_case("ICE forced with trickle", offer(ICE="force", flags=["trickle ICE"]))
_case("ICE rejected", offer(WITH_ICE, flags=["reject ICE"]), answer())
_case("ICE and mux required", offer(ICE="force", rtcp_mux=["require"]))
_case("ICE and mux", offer(MUX + ICE), answer(theirs(MUX + ICE)))
_case("ICE, candidates to come", offer(_hold(WITH_ICE).replace("audio 4000", "audio 9"), ICE="force"))
_case("ICE goes on", offer(ICE="force"), answer(theirs(WITH_ICE)), reoffer(), reoffer(ICE="remove"))
_case("ICE of the session", offer(HEAD + ICE.replace("a=end-of-candidates\n", "") + PLAIN[len(HEAD) :]))
_case("ICE and media address", offer(ICE="force", media_address="198.51.100.4"))
_case("ICE and another interface", offer(ICE="force", direction=["int", "ext"]))
for _number, _asked in enumerate(
    (
        {"strip": ["PCMU"]},
        {"strip": ["pcmu"]},
        {"strip": ["all"]},
        {"strip": ["full"]},
        {"strip": ["all"], "offer": ["PCMA"]},
        {"except": ["PCMA"]},
        {"strip": ["all"], "except": ["PCMA"]},
        {"mask": ["PCMU"]},
        {"mask": ["all"], "offer": ["PCMU"]},
        {"offer": ["PCMA", "PCMU"]},
        {"offer": ["PCMA"], "strip": ["opus"]},
        {"strip": ["opus/48000/2"]},
        {"strip": ["opus/48000/1"]},
        {"strip": ["opus/48000"]},
        {"strip": ["telephone-event"]},
        {"strip": ["G729"]},
        {"strip": ["all"], "offer": ["GSM"]},
        {"mask": ["full"]},
        {"offer": ["telephone-event", "PCMA"], "strip": ["all"]},
        {"strip": ["full"], "except": ["PCMA"]},
        {"strip": ["101"]},
        {"strip": ["PCMU/8000/1"]},
    )
):
    _case(f"codec {_number}: {_asked}", offer(CODECS, codec=_asked))
_case(
    "codec strip of video",
    offer(VIDEO.replace("97\n", "97 98\n", 1) + "a=rtpmap:98 VP8/90000\n", codec={"strip": ["VP8"]}),
)
_case("codec strip all of video", offer(VIDEO, codec={"strip": ["all"], "offer": ["PCMU"]}))
_ANSWER = theirs(HEAD) + "m=audio 6000 RTP/AVP 0 8 101\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15\n"
_case("codec strip in an answer", offer(CODECS), answer(_ANSWER, codec={"strip": ["PCMU"]}))
_case("codec offer in an answer", offer(CODECS), answer(_ANSWER, codec={"offer": ["PCMA"]}))
_case("codec mask in an answer", offer(CODECS), answer(_ANSWER, codec={"mask": ["PCMU"]}))
_case("single codec", offer(CODECS), answer(_ANSWER, flags=["single codec"]))
_case("single codec offered", offer(CODECS, flags=["single codec"]), answer(_ANSWER))
_case("codecs in another order", offer(CODECS), answer(_ANSWER.replace("0 8 101", "8 101 0")))
for _words in (
    [],
    ["origin"],
    ["session-connection"],
    ["session-name"],
    ["sdp-version"],
    ["SDP version"],
    ["username"],
):
    _case(
        f"replace {'+'.join(_words) or 'nothing'}",
        offer(replace=_words),
        answer(replace=_words),
        reoffer(replace=_words),
        reoffer(PLAIN.replace("10 1 IN", "10 2 IN"), replace=_words),
        reoffer(PLAIN.replace("alice 10", "alice 11").replace("s=x", "s=y").replace("AVP 0", "AVP 8"), replace=_words),
    )
_case("many lines", offer(MANY, **BOTH))
_case("many lines, AVPF", offer(MANY.replace("RTP/AVP", "RTP/AVPF"), transport_protocol="RTP/AVP", **BOTH))
_case("AVPF passes", offer(PLAIN.replace("AVP", "AVPF")), answer(theirs(PLAIN.replace("AVP", "AVPF"))))
_case("AVP to AVPF", offer(transport_protocol="RTP/AVPF"), answer(theirs(PLAIN.replace("AVP", "AVPF"))))
_case("AVPF to AVP and back", offer(PLAIN.replace("AVP", "AVPF"), transport_protocol="RTP/AVP"), answer())
_case("AVPF in the answer", offer(), answer(transport_protocol="RTP/AVPF"))
_case("fax", offer(FAX, **BOTH), answer(theirs(FAX), **BOTH))
_case("fax, AVP", offer(FAX, transport_protocol="RTP/AVP"))
_case("fax, upper case", offer(FAX.replace("udptl", "UDPTL")))
_case("fax re-INVITE", offer(), answer(), reoffer(FAX), answer(theirs(FAX)))
_case("MSRP", offer(MSRP, **BOTH))
_case("DTLS/SCTP", offer(PLAIN + "m=application 4012 UDP/DTLS/SCTP webrtc-datachannel\na=sctp-port:5000\n"))
_case("BFCP over UDP", offer(PLAIN + "m=application 4012 UDP/BFCP *\na=x\n"))
_case("hold by 0.0.0.0", offer(_hold(PLAIN + "a=sendrecv\n"), **BOTH), answer(theirs(PLAIN + "a=recvonly\n"), **BOTH))
_case("hold by 0.0.0.0, recvonly", offer(_hold(PLAIN + "a=recvonly\n")))
_case("hold by 0.0.0.0, inactive", offer(_hold(PLAIN + "a=inactive\n")))
_case("hold by 0.0.0.0, sendonly", offer(_hold(PLAIN + "a=sendonly\n")))
_case("zero-address", offer(_hold(), replace=["origin", "zero address"]))
_case("inactive", offer(PLAIN + "a=inactive\n"), answer(theirs(PLAIN + "a=inactive\n")))
_case("sendonly", offer(PLAIN + "a=sendonly\n"), answer(theirs(PLAIN + "a=recvonly\n")))
_case("original sendrecv", offer(flags=["original sendrecv"]))
_case("original sendrecv of sendonly", offer(PLAIN + "a=sendonly\n", flags=["original-sendrecv"]))
_case("full rtcp attribute", offer(flags=["full rtcp attribute"]))
_case("no rtcp attribute", offer(PLAIN + "a=rtcp:4001\n", flags=["no-rtcp-attribute"]))
_case("a=rtcp with address", offer(PLAIN + "a=rtcp:4009 IN IP4 192.0.2.11\n"))
_case(
    "media address",
    offer(media_address="198.51.100.1", replace=["origin"]),
    answer(media_address="198.51.100.2"),
)
_case("media address of IPv6", offer(media_address="2001:db8::1", replace=["origin"]))
_case("media address, none", offer(media_address="foo", replace=["origin"]))
_case("direction", offer(direction=["int", "ext"], **BOTH), answer(**BOTH))
_case("direction, one IP version", offer(direction=["int", "six"], **BOTH))
_case("direction unknown", offer(direction=["foo", "bar"], **BOTH))
_case("address family", offer(direction=["int", "six"], address_family="IP6", **BOTH), answer(**BOTH))
_case("loop protect", offer(flags=["loop protect"]))
_case("generate mid", offer(flags=["generate mid"]))
_case("strip extmap", offer(PLAIN + "a=extmap:1 urn:x\n", flags=["strip extmap"]))
_case("label", offer(PLAIN + "a=label:3\n", label="x"))
_case("port 0", offer(PLAIN.replace("4000", "0") + "a=sendrecv\na=mid:1\na=label:3\na=foo\n" + VIDEO[len(PLAIN) :]))
_case("port 0 with c=", offer(VIDEO.replace("4002", "0").replace("97\n", "97\nc=IN IP4 192.0.2.10\na=x\n", 1)))
_case("video refused", offer(VIDEO), answer(theirs(VIDEO).replace("6002", "0")))
_case("video dropped", offer(VIDEO), answer(theirs(VIDEO)), reoffer(VIDEO.replace("4002", "0")))
_case("answer of fewer", offer(VIDEO), answer())
_case("answer of more", offer(), answer(theirs(VIDEO)))
_case("c= of streams", offer(PLAIN.replace("c=IN IP4 192.0.2.10\n", "") + "c=IN IP4 192.0.2.10\n", **BOTH))
_case("c= of both", offer(PLAIN + "c=IN IP4 192.0.2.11\n" + VIDEO[len(PLAIN) :], **BOTH))
_case("payload types that are not offered", offer(PLAIN + "a=rtpmap:99 foo/1\na=fmtp:99 x\na=rtpmap:0 pcmu/8000\n"))
_case("mid, label and ptime", offer(PLAIN + "a=mid:a\na=label:1\na=ptime:30\na=maxptime:60\n"))
_case("no c=", offer(PLAIN.replace("c=IN IP4 192.0.2.10\n", "")))
_case("no m=", offer(HEAD))
_case("no SDP", offer(b"hello"))
_case("no v=", offer(PLAIN.replace("v=0\n", "")))
_case("no o=", offer(PLAIN.replace("o=alice 10 1 IN IP4 192.0.2.10\n", ""), **BOTH))
_case("bad port", offer(PLAIN.replace("4000", "x")))
_case("port too high", offer(PLAIN.replace("4000", "70000")))
_case("half a c=", offer(PLAIN + "c=IN\n"))
_case("blank line at the end", offer(PLAIN + "\n"))
_case("empty SDP", offer(b""))
_case("without sdp", offer(None))
_case("without call-id", {key: value for key, value in offer().items() if key != "call-id"})
_case("without from-tag", offer(from_tag=None))
_case("answer without to-tag", answer(to_tag=None))
_case("answer to nothing", answer())
_case("fragment", offer(flags=["fragment"]))
_case("both parties offer", offer(), answer(), offer(theirs(PLAIN), from_tag="b", to_tag="a"))
_case("SIP source address", offer(flags=["SIP-source-address"], received_from=["IP4", "203.0.113.5"]))
_case(
    "flags of Kamailio",
    offer(
        ICE="remove",
        flags=["trust-address"],
        rtcp_mux=["demux"],
        transport_protocol="RTP/AVP",
        record_call="no",
        supports=["load limit"],
        via_branch="z9hG4bK1",
        **BOTH,
    ),
)
# found by comparing random SDPs with random words
_OWN = PLAIN + "c=IN IP4 192.0.2.11\n"
_case("c= of the stream only is replaced", offer(_OWN))
_case("c= of both is replaced if asked for", offer(_OWN, replace=["session-connection"]))
_case("c= of the session if one stream inherits it", offer(_OWN + VIDEO[len(PLAIN) :]))
_case("hold by 0.0.0.0, ICE forced", offer(_hold(), ICE="force"))
_case("hold by 0.0.0.0, ICE", offer(_hold(WITH_ICE)))
_case("hold by 0.0.0.0 of the stream", offer(PLAIN + "c=IN IP4 0.0.0.0\n"))
_case("hold by 0.0.0.0 of the stream, ICE forced", offer(PLAIN + "c=IN IP4 0.0.0.0\n", ICE="force"))
_HELD = "m=video 4002 RTP/AVP 31\nc=IN IP4 0.0.0.0\n"
_case("hold by 0.0.0.0 of one stream", offer(_OWN + _HELD))
_case("hold by 0.0.0.0 of one stream beside ICE", offer(_OWN + ICE + _HELD))
_case("port 0, AVPF", offer(VIDEO.replace("4002", "0"), transport_protocol="RTP/AVPF"))
_case("port 0, codec", offer(VIDEO.replace("4002 RTP/AVP 97", "0 RTP/AVP 97 31"), codec={"strip": ["H264"]}))
_case("port 0, feedback", offer(VIDEO.replace("4002", "0") + "a=rtcp-fb:* nack\na=rtcp-fb:97 nack\na=sendonly\n"))
_case("port 0, generate mid", offer(VIDEO.replace("4002", "0"), flags=["generate-mid"]))
_case("generate mid in an answer", offer(), answer(flags=["generate-mid"]))
_case("ICE optional, answered without word", offer(WITH_ICE, ICE="optional"), answer(theirs(WITH_ICE)))
_case("ICE relay, answered without word", offer(WITH_ICE, ICE="force-relay"), answer(theirs(WITH_ICE)))
_case("ICE relay leaves more alone", offer(CODECS, ICE="force-relay", **BOTH))
_case("ICE relay, AVPF", offer(ICE="force-relay", transport_protocol="RTP/AVPF"))
_case("ICE optional of the session", offer(HEAD + "a=ice-options:ice2\n" + PLAIN[len(HEAD) :], ICE="optional"))
_case("ICE optional beside none", offer(WITH_ICE + VIDEO[len(PLAIN) :], ICE="optional"))
for _number, _asked in enumerate(
    (
        {"strip": ["PCMU"], "except": ["PCMU"]},
        {"mask": ["all"], "except": ["PCMA"]},
        {"mask": ["PCMA"], "offer": ["PCMA"]},
        {"strip": ["all"], "mask": ["PCMU"], "except": ["PCMA", "PCMU"]},
        {"strip": ["all", "PCMA"], "except": ["PCMA"]},
        {"mask": ["PCMU"], "strip": ["PCMA"]},
        {"mask": ["all"], "strip": ["PCMA"]},
    )
):
    _case(f"codecs against each other {_number}", offer(CODECS, codec=_asked))
_case("codecs kept in an answer", offer(CODECS), answer(theirs(CODECS), codec={"strip": ["all"], "except": ["PCMA"]}))
_case("version asked for late", offer(replace=["session-name"]), answer(), reoffer(replace=["sdp-version", "origin"]))
