"""Who has heard such requests before asks, answers and remarks the same as who has not, however odd they are."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from mediaproxy.control import Inquiry, MediaReply, MediaRequest, Question
from mediaproxy.dialects.ng.bencode import encode
from mediaproxy.dialects.ng.dialect import Ng
from mediaproxy.dialects.ng.settings import NgSettings
from mediaproxy.endpoint import Endpoint
from tests.ngarm import ADDRESSES, PEER, Arm
from tests.ngcases import CODECS, FAX, MANY, MSRP, MUX, PLAIN, VIDEO, WITH_ICE

_SETTINGS = NgSettings(mark="0123456789ab", interfaces=frozenset(ADDRESSES))
_OWN_C = PLAIN + "c=IN IP4 192.0.2.10\nm=message 4002 TCP/MSRP *\nm=audio 4000 RTP/AVP 8\na=rtcp:4001\n"
_SECOND = "v=0\rm=x 9 TCP/MSRP *\n" + PLAIN[4:] + "c=IN IP4 192.0.2.10\n"
_MARKED = PLAIN + "a=x:50000 51000 -0- -1- 198.18.0.101 198.18.1.101 50200 51200 %s %d\n"
_SDPS = st.sampled_from((PLAIN, VIDEO, FAX, MSRP, MUX, WITH_ICE, MANY, CODECS, _OWN_C, _SECOND, _MARKED))
_KEYS: tuple[dict[str, Any], ...] = (
    {},
    {"replace": ["origin", "session-connection"]},
    {"replace": ["origin", "username", "sdp-version"]},
    {"flags": ["SIP-source-address", "nobody knows this"]},
    {"ICE": "optional", "rtcp-mux": ["require"]},
    {"rtcp-mux": ["demux"], "media-address": "203.0.113.77", "replace": ["origin"]},
    {"direction": ["int", "six"], "flags": ["loop-protect", "full-rtcp-attribute"]},
    {"sdp-attr": {"audio": {"remove": ["rtcp:30001", "rtcp:4001"], "add": ["y:50000"]}}},
    {"codec": {"strip": ["PCMU"]}, "flags": ["allow-no-codec-media"], "drop-traffic": "start"},
    {"rtpp-flags": "received-from=10.9.9.9 call-id=x"},
    {"T.38": "decode"},
)
_ADDRESSES = st.sampled_from(
    ("192.0.2.10", "10.0.0.1", "127.0.0.1", "0.0.0.0", "::", "2001:DB8::1", "::ffff:1.2.3.4", "::1", "192.0.2.010")
    + ("fe80::1%eth0", "224.2.1.1/127", "198.18.0.101", "198.19.1.100", "4000", "phone.example", "-0-", "")
)
_PORTS = st.sampled_from(
    ("4000", "4002", "4000/2", "0", "00", "9", "101", "65534", "65535", "65536", "04000", "50002", "51200", "ff", "")
)
_ORIGINS = st.sampled_from(
    ("alice 10 1 IN IP4 192.0.2.10", "- 4000 50000 IN IP6 ::1", "-0-", "%s %d\t5 IN IP4 -1-", "\xff  1 2", "0", " ")
)
_SOURCES = st.sampled_from(
    (None, ["IP4", "203.0.113.5"], ["IP4", "::1"], ["IP4", "0.0.0.0"], ["IP4", "::ffff:1.2.3.4"], "IP4:1.2.3.4", 7, [])
)
_TAGS = st.sampled_from(("a", "b", "c", "", "7:call-id1:x", "\xe9"))
_MOODS = st.sampled_from(("", "", "", "refuses", "silent", "fewer", "none", "no rtcp", "six", "not this version"))
_PHONES = st.tuples(_ADDRESSES, _ADDRESSES, _ORIGINS, _PORTS, _PORTS, _PORTS, _SOURCES, _TAGS, _TAGS, _MOODS)


class _Relay(Arm):
    """One that is in a mood."""

    def __init__(self, mood: str) -> None:
        super().__init__({**ADDRESSES, "": "::1"} if mood == "six" else ADDRESSES)
        self._mood = mood

    def reply(self, question: Question | Inquiry) -> MediaReply | None:
        if not isinstance(question, MediaRequest):
            self.asked.append(question)
            return MediaReply()
        reply = super().reply(question)
        if reply is None or self._mood in ("", "six"):
            return reply
        if self._mood == "silent":
            return None
        if self._mood == "refuses":
            return MediaReply(error="no ports left", status=480)
        if self._mood == "not this version" and len(self.asked) % 2:
            return MediaReply(error="this relay has no IPv6 address")
        ports = reply.ports[:-1] if self._mood == "fewer" else (None,) * len(reply.ports)
        if self._mood == "no rtcp":
            ports = tuple([one and msgspec.structs.replace(one, rtcp=None, rtp=_moved(one.rtp)) for one in reply.ports])
        return msgspec.structs.replace(reply, ports=ports)


def _moved(place: Endpoint) -> Endpoint:
    """Among those that patterns are learned with."""
    return Endpoint(place.address, place.port + 20_200)


class _Heard:
    """A dialect and what comes of it. Mutable."""

    def __init__(self) -> None:
        self.remarks: list[str] = []
        self._dialect = Ng(_SETTINGS, remark=self.remarks.append)

    def said(self, messages: list[bytes], mood: str) -> object:
        relay = _Relay(mood)
        self.remarks.clear()
        answers: list[object] = []
        for message in messages:
            told: Any = relay.finish(self._dialect.answer(message, PEER))  # type: ignore[arg-type]  # bytes come of it
            answers.append((type(told), told))
        return answers, relay.asked, list(self.remarks)


def _messages(sdp: str, keys: dict[str, Any], phone: tuple[Any, ...], *, number: int, last: bool) -> list[bytes]:
    address, other, origin, audio, video, rtcp, source, sender, receiver, _ = phone
    text = sdp.replace("c=IN IP4 192.0.2.10", f"c=IN IP4 {address}", 1).replace("alice 10 1 IN IP4 192.0.2.10", origin)
    text = text.replace("c=IN IP4 192.0.2.10", f"c=IN IP4 {other}").replace("rtcp:4001", f"rtcp:{rtcp}")
    text = text.replace(" 4000 ", f" {audio} ").replace(" 4002 ", f" {video} ").replace("\n", "\r\n")
    own = {"sdp": text, "call-id": f"c{number}", "from-tag": sender, "received-from": source}
    own = {key: value for key, value in own.items() if value is not None}
    offer = {**keys, **own, "command": "offer"} if last else {**own, "command": "offer", **keys}
    answer = {**offer, "to-tag": receiver, "command": "answer"}
    return [b"c " + encode(one) for one in (offer, answer, {**offer, "to-tag": receiver}, answer)]


@settings(deadline=None)  # a busy machine is slow
@given(_SDPS, st.sampled_from(_KEYS), st.booleans(), st.lists(_PHONES, min_size=1, max_size=4))
def test_the_same_is_said(sdp: str, keys: dict[str, Any], last: bool, phones: list[tuple[Any, ...]]) -> None:
    usual = ("192.0.2.10", "192.0.2.10", "alice 10 1 IN IP4 192.0.2.10", "4000", "4002", "4001", ["IP4", "1.2.3.4"])
    heard = _Heard()
    for number, phone in enumerate([(*usual, "a", "b", "")] * 2 + phones):
        messages = _messages(sdp, keys, phone, number=number, last=last)
        assert heard.said(messages, phone[-1]) == _Heard().said(messages, phone[-1])
