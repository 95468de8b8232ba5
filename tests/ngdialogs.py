"""Calls in NG that go on after their first answer: further cases beside those of ngcases, in the same way.

Found by comparing random sequences of offers and answers with rtpengine 10.5.
"""

from typing import Any

from tests.ngcases import (
    BOTH,
    CASES,
    FAX,
    HEAD,
    ICE,
    PLAIN,
    TURNED,
    VIDEO,
    WITH_ICE,
    Case,
    answer,
    offer,
    reoffer,
    theirs,
)

DIALOGS: dict[str, Case] = {}

_AVPF = PLAIN.replace("AVP", "AVPF")


def _case(name: str, *steps: dict[str, Any]) -> None:
    assert name not in CASES
    assert name not in DIALOGS
    DIALOGS[name] = Case(steps)


def _bob(sdp: str = PLAIN, /, **flags: Any) -> dict[str, Any]:
    """Bob's further offer."""
    return {**offer(theirs(sdp), **flags), **TURNED}


def _alice(sdp: str = PLAIN, /, **flags: Any) -> dict[str, Any]:
    """Alice's answer to that."""
    return {**answer(sdp, **flags), **TURNED}


_case("ICE was not answered, offered again", offer(WITH_ICE), answer(), reoffer(WITH_ICE), answer())
_case("ICE offered late", offer(), answer(), reoffer(WITH_ICE), answer(theirs(WITH_ICE)))
_case("ICE offered late, default", offer(), answer(), reoffer(WITH_ICE, ICE="default"), answer(theirs(WITH_ICE)))
_case("ICE offered late, reset", offer(), answer(), reoffer(WITH_ICE, flags=["reset"]), answer(theirs(WITH_ICE)))
_case("ICE offered late, optional", offer(), answer(), reoffer(WITH_ICE, ICE="optional"), answer(theirs(WITH_ICE)))
_case("ICE offered late by Bob", offer(), answer(), _bob(WITH_ICE), _alice(WITH_ICE))
_case("ICE forced, offered by Bob", offer(ICE="force"), answer(theirs(WITH_ICE)), _bob(WITH_ICE), _alice())
_case("ICE forced in answers", offer(WITH_ICE, ICE="remove"), answer(ICE="force"), _bob(ICE="force"), _alice(WITH_ICE))
_case("ICE of a stream that comes later", offer(), answer(), reoffer(VIDEO + ICE), answer(theirs(VIDEO + ICE)))
_TO_AVP: Any = {"transport_protocol": "RTP/AVP"}
_case("AVPF answered with AVP goes on so", offer(_AVPF), answer(), reoffer(_AVPF), answer())
_case("AVPF to AVP, Bob offers", offer(_AVPF, **_TO_AVP), answer(), _bob(), _alice(_AVPF))
_case("AVPF to AVP, without word", offer(_AVPF, **_TO_AVP), answer(), reoffer(_AVPF), answer())
_case("AVPF to AVP, Bob changes", offer(_AVPF, **_TO_AVP), answer(), _bob(_AVPF), _alice(_AVPF))
_case("AVP, Alice changes", offer(), answer(), reoffer(_AVPF), answer())
_case("AVP answered with AVPF goes on so", offer(), answer(theirs(_AVPF)), reoffer(), answer())
_case("AVP to AVPF, Bob offers", offer(transport_protocol="RTP/AVPF"), answer(theirs(_AVPF)), _bob(_AVPF), _alice())
_case(
    "AVPF to AVP, fax and back",
    *(offer(_AVPF, **_TO_AVP), answer(), _bob(FAX), _alice(FAX), _bob(), _alice(_AVPF)),
)
_ONE_PORT = PLAIN + "a=rtcp:4000\n"
_case("one port for both", offer(_ONE_PORT), answer(theirs(_ONE_PORT)))
_case("one port for both, refused", offer(_ONE_PORT), answer())
_case("one port for both, demux", offer(_ONE_PORT, rtcp_mux=["demux"]), answer())
_case(
    "one port for both, to come",
    offer(_ONE_PORT.replace("c=IN IP4 192.0.2.10", "c=IN IP4 0.0.0.0").replace("4000", "9")),
    answer(),
)
_OFF = VIDEO.replace("4002", "0") + "a=rtcp-mux\n"
_case("rtcp-mux of what is switched off", offer(_OFF), answer(theirs(_OFF)), _bob(VIDEO), _alice(VIDEO))
_NO_FAX = theirs(FAX).replace("6000", "0")
_case("fax refused", offer(**BOTH), answer(**BOTH), reoffer(FAX, **BOTH), answer(_NO_FAX, **BOTH))
_case("fax refused without replace", offer(), answer(), reoffer(FAX), answer(_NO_FAX))
_case("the only stream refused", offer(**BOTH), answer(theirs(PLAIN).replace("6000", "0"), **BOTH))
_OWN_C = PLAIN.replace("c=IN IP4 192.0.2.10\n", "") + "c=IN IP4 192.0.2.10\n"
_case("the only stream refused, c= of its own", offer(_OWN_C), answer(theirs(_OWN_C).replace("6000", "0"), **BOTH))
_case("switched off", offer(direction=["int", "ext"]), answer(), reoffer(PLAIN.replace("4000", "0"), **BOTH))
_RATES = HEAD + "m=audio 4000 RTP/AVP 96 0 104 13 100 101 105 106\n"
for _line in ("96 opus/48000/2", "104 speex/16000", "100 telephone-event/48000", "101 telephone-event/8000"):
    _RATES += f"a=rtpmap:{_line}\n"
_RATES += "a=rtpmap:105 telephone-event/16000\na=rtpmap:106 CN/16000\na=fmtp:105 0-15\n"
for _asked in (
    {"strip": ["opus"]},
    {"strip": ["PCMU"]},
    {"strip": ["speex", "PCMU"]},
    {"strip": ["all"], "except": ["PCMU", "telephone-event"]},
    {"strip": ["all"], "offer": ["PCMU", "telephone-event"]},
    {"mask": ["opus"]},
):
    _case(f"what comes beside {_asked}", offer(_RATES, codec=_asked))
    if "mask" not in _asked:
        _case(f"what comes beside {_asked} in an answer", offer(_RATES), answer(theirs(_RATES), codec=_asked))
_BUNDLE = HEAD + "a=group:BUNDLE 0 1\nm=audio 4000 RTP/AVP 0\na=mid:0\na=rtcp-mux\n" + ICE
_BUNDLE += "m=video 4002 RTP/AVP 97\na=mid:1\na=rtpmap:97 H264/90000\na=rtcp-mux\n" + ICE
for _word in ("default", "optional", "force"):
    _case(f"BUNDLE, ICE {_word}", offer(_BUNDLE, ICE=_word), answer(theirs(_BUNDLE)))
_case("BUNDLE, ICE force-relay", offer(_BUNDLE, ICE="force-relay"))
_case("BUNDLE without ICE, ICE optional", offer(_BUNDLE.replace(ICE, ""), ICE="optional"))
_case("ICE relay, rtcp-mux required", offer(ICE="force-relay", rtcp_mux=["require"]))
CALLS = CASES | DIALOGS
"All of them."
