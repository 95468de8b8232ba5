"""Reading SDP: every line of a body survives, and the streams are what a relay must know."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.control import Direction, PayloadType, Stream
from mediaproxy.endpoint import Endpoint
from mediaproxy.sdp import Sdp, SdpError
from tests.sip_corpus import quickly

HEAD = "v=0\r\no=- 1 1 IN IP4 192.168.1.10\r\ns=-\r\n"


def body(*lines: str, head: str = HEAD) -> bytes:
    return (head + "".join(f"{line}\r\n" for line in lines)).encode("latin-1")


def only(*lines: str) -> Stream:
    """The one stream of a body."""
    (stream,) = Sdp.parse(body(*lines)).streams
    return stream


SESSION = ("c=IN IP4 192.168.1.10", "t=0 0")
AUDIO = "m=audio 5004 RTP/AVP 0"
SHORT = "m=audio 4000 RTP/AVP 0"


def test_a_whole_stream() -> None:
    assert only(*SESSION, "m=audio 5004 RTP/AVP 0 8 101", "a=rtpmap:101 telephone-event/8000", "a=sendonly") == Stream(
        kind="audio",
        transport="RTP/AVP",
        endpoint=Endpoint("192.168.1.10", 5004),
        rtcp=Endpoint("192.168.1.10", 5005),
        direction=Direction.SENDONLY,
        payload_types=(
            PayloadType(number=0, codec="PCMU", clock_rate=8000),
            PayloadType(number=8, codec="PCMA", clock_rate=8000),
            PayloadType(number=101, codec="telephone-event", clock_rate=8000),
        ),
    )


@pytest.mark.parametrize(
    ("lines", "endpoint"),
    [
        pytest.param((*SESSION, AUDIO), "192.168.1.10:5004", id="session-c"),
        pytest.param((*SESSION, AUDIO, "c=IN IP4 10.0.0.9"), "10.0.0.9:5004", id="media-c-wins"),
        pytest.param((AUDIO, "c=IN IP4 10.0.0.9"), "10.0.0.9:5004", id="media-c-only"),
        pytest.param((AUDIO, "a=sendrecv", "c=IN IP4 10.0.0.9"), "10.0.0.9:5004", id="c-behind-attributes"),
        pytest.param((AUDIO, "c=IN IP4 10.0.0.9", "c=IN IP4 10.0.0.8"), "10.0.0.9:5004", id="several-c-first-counts"),
        pytest.param(("t=0 0", "c=IN IP4 10.0.0.9", AUDIO), "10.0.0.9:5004", id="c-behind-t"),
        pytest.param((*SESSION, "m=audio 5004/2 RTP/AVP 0"), "192.168.1.10:5004", id="number-of-ports"),
        pytest.param(("c=IN IP4 224.2.1.1/127/3", AUDIO), "224.2.1.1:5004", id="ttl"),
        pytest.param(("c=IN IP6 2001:DB8::00:1", AUDIO), "[2001:db8::1]:5004", id="ipv6"),
        pytest.param(("c=IN IP4 2001:db8::1", AUDIO), "[2001:db8::1]:5004", id="ipv6-called-ip4"),
        pytest.param(("c=IN IP6 ::ffff:192.0.2.1", AUDIO), "192.0.2.1:5004", id="mapped-ipv4"),
        pytest.param(("c=IN IP4 0.0.0.0", AUDIO), "0.0.0.0:5004", id="old-hold"),
        pytest.param(("c=IN  IP4\t10.0.0.9  ", "m=audio\t5004  RTP/AVP 0"), "10.0.0.9:5004", id="odd-white-space"),
        pytest.param((*SESSION, "m=audio 0005004 RTP/AVP 0"), "192.168.1.10:5004", id="leading-zeros"),
        pytest.param((*SESSION, "m=audio 5004 RTP/AVP"), "192.168.1.10:5004", id="no-formats"),
        pytest.param((*SESSION, "m=audio 65535 RTP/AVP 0"), "192.168.1.10:65535", id="last-port"),
        pytest.param((*SESSION, "m=image 5004 udptl t38"), "192.168.1.10:5004", id="udptl"),
        pytest.param((*SESSION, "m=image 5004 UDPTL t38"), "192.168.1.10:5004", id="udptl-upper-case"),
        pytest.param((*SESSION, "m=audio 5004 rtp/avp 0"), "192.168.1.10:5004", id="rtp-lower-case"),
        pytest.param((*SESSION, "m=image 5004 UDP/TLS/UDPTL t38"), "192.168.1.10:5004", id="udptl-with-dtls"),
        pytest.param((*SESSION, "m=application 5004 UDP/BFCP *"), None, id="bfcp-over-udp"),
        pytest.param((*SESSION, "m=application 5004 udp wb"), None, id="whatever-over-udp"),
        pytest.param((*SESSION, "m=application 5004 UDP/DTLS/SCTP webrtc-datachannel"), None, id="data-channel"),
        pytest.param((*SESSION, "m=application 5004 DTLS/SCTP 5000"), None, id="data-channel-old-name"),
        pytest.param((*SESSION, "m=audio 5004 DCCP/RTP/AVP 0"), None, id="rtp-over-dccp"),
        pytest.param((*SESSION, "m=audio 5004 UDP/TLS/RTP/SAVPF 0"), "192.168.1.10:5004", id="dtls-srtp"),
        pytest.param((*SESSION, "m=audio 0 RTP/AVP 0"), None, id="rejected"),
        pytest.param((*SESSION, "m=audio 00 RTP/AVP 0"), None, id="rejected-with-two-zeros"),
        pytest.param((*SESSION, "m=message 5004 TCP/MSRP *"), None, id="msrp"),
        pytest.param((*SESSION, "m=application 5004 TCP/TLS/BFCP *"), None, id="bfcp-over-tls"),
        pytest.param((*SESSION, "m=audio 5004 TCP/RTP/AVP 0"), None, id="rtp-over-tcp"),
        pytest.param((*SESSION, "m=audio 9 PSTN -"), None, id="pstn"),
        pytest.param(("c=IN IP4 phone.example.com", AUDIO), None, id="host-name"),
        pytest.param(("c=IN IP6 fe80::1%eth0", AUDIO), None, id="address-with-zone"),
        pytest.param((AUDIO,), None, id="no-c-at-all"),
    ],
)
def test_where_media_is_wanted(lines: tuple[str, ...], endpoint: str | None) -> None:
    assert only(*lines).endpoint == (Endpoint.parse(endpoint) if endpoint else None)


@pytest.mark.parametrize(
    ("lines", "places"),
    [
        pytest.param(("c=IN IP4 phone.lan", AUDIO), ["192.0.2.9:5004"], id="host-name"),
        pytest.param((AUDIO,), ["192.0.2.9:5004"], id="no-c-at-all"),
        pytest.param(("c=IN IP6 fe80::1%eth0", AUDIO), ["192.0.2.9:5004"], id="zone"),
        pytest.param((*SESSION, AUDIO), ["192.168.1.10:5004"], id="address"),
        pytest.param((*SESSION, AUDIO, AUDIO, "c=IN IP4 x"), ["192.168.1.10:5004", "192.0.2.9:5004"], id="one-of-two"),
        pytest.param(("c=IN IP4 phone.lan", "m=audio 0 RTP/AVP 0"), [None], id="rejected"),
        pytest.param(("c=IN IP4 phone.lan", "m=message 5004 TCP/MSRP *"), [None], id="not-carried"),
    ],
)
def test_a_name_stands_for_the_phone(lines: tuple[str, ...], places: list[str | None]) -> None:
    streams = Sdp.parse(body(*lines)).streams_at("192.0.2.9")
    assert [str(stream.endpoint) if stream.endpoint else None for stream in streams] == places
    assert all(stream.rtcp is None or stream.endpoint is not None for stream in streams)


@pytest.mark.parametrize(
    ("lines", "rtcp"),
    [
        pytest.param((AUDIO,), "192.168.1.10:5005", id="next-port"),
        pytest.param((AUDIO, "a=rtcp:6000"), "192.168.1.10:6000", id="port-given"),
        pytest.param((AUDIO, "a=rtcp:6000 IN IP4 10.0.0.9"), "10.0.0.9:6000", id="address-given"),
        pytest.param((AUDIO, "a=rtcp:6000 IN IP6 2001:db8::9"), "[2001:db8::9]:6000", id="ipv6-given"),
        pytest.param((AUDIO, "a=rtcp:6000 IN IP4 host.example"), "192.168.1.10:6000", id="host-name-given"),
        pytest.param((AUDIO, "a=rtcp:6000", "a=rtcp:7000"), "192.168.1.10:6000", id="twice"),
        pytest.param((AUDIO, "a=rtcp:x", "a=rtcp:7000"), "192.168.1.10:7000", id="unreadable-one-skipped"),
        pytest.param((AUDIO, "a=rtcp:70000"), "192.168.1.10:5005", id="out-of-range"),
        pytest.param((AUDIO, "a=rtcp:123456"), "192.168.1.10:5005", id="too-long"),
        pytest.param((AUDIO, "a=rtcp:6000;x"), "192.168.1.10:5005", id="number-with-a-tail"),
        pytest.param((AUDIO, "a=rtcp:60\x8500 IN IP4 10.0.0.9"), "192.168.1.10:5005", id="number-with-a-byte-in-it"),
        pytest.param((AUDIO, "a= rtcp : 6000"), "192.168.1.10:6000", id="white-space"),
        pytest.param((AUDIO, "a=rtcp\x85:6000"), "192.168.1.10:5005", id="another-name"),
        pytest.param((AUDIO, "a=rtcp:0"), None, id="unwanted"),
        pytest.param((AUDIO, "a=rtcp-mux"), "192.168.1.10:5005", id="mux-may-be-refused"),
        pytest.param((AUDIO, "a=rtcp-mux-only"), None, id="mux-only"),
        pytest.param(("m=audio 65535 RTP/AVP 0",), None, id="no-next-port"),
        pytest.param(("m=image 5004 udptl t38",), None, id="udptl"),
        pytest.param(("m=audio 0 RTP/AVP 0", "a=rtcp:6000"), None, id="rejected"),
        pytest.param(("m=video 5004 UDP/TLS/RTP/SAVPF 96",), "192.168.1.10:5005", id="dtls-srtp"),
    ],
)
def test_where_rtcp_is_wanted(lines: tuple[str, ...], rtcp: str | None) -> None:
    assert only(*SESSION, *lines).rtcp == (Endpoint.parse(rtcp) if rtcp else None)


@pytest.mark.parametrize(
    ("lines", "direction", "held"),
    [
        pytest.param((*SESSION, AUDIO), Direction.SENDRECV, False, id="default"),
        pytest.param((*SESSION, "a=sendonly", AUDIO), Direction.SENDONLY, True, id="session-level"),
        pytest.param((*SESSION, "a=sendonly", AUDIO, "a=recvonly"), Direction.RECVONLY, False, id="media-level-wins"),
        pytest.param((*SESSION, "a=inactive", AUDIO, "a=sendrecv"), Direction.SENDRECV, False, id="resumed-in-media"),
        pytest.param((*SESSION, AUDIO, "a=inactive"), Direction.INACTIVE, True, id="inactive"),
        pytest.param(("c=IN IP4 0.0.0.0", AUDIO), Direction.SENDRECV, True, id="old-hold"),
        pytest.param(("c=IN IP6 0:0:0:0:0:0:0:0", AUDIO), Direction.SENDRECV, True, id="old-hold-ipv6"),
        pytest.param(
            ("c=IN IP4 0.0.0.0", "m=audio 9 UDP/TLS/RTP/SAVPF 0", "a=ice-ufrag:x"),
            Direction.SENDRECV,
            False,
            id="candidates-follow",
        ),
        pytest.param(("c=IN IP4 0.0.0.0", "m=audio 9 RTP/AVP 0"), Direction.SENDRECV, True, id="old-hold-at-port-9"),
        pytest.param((*SESSION, AUDIO, "a=sendonly:x"), Direction.SENDRECV, False, id="no-property-attribute"),
        pytest.param((*SESSION, AUDIO, "a=SendOnly"), Direction.SENDRECV, False, id="names-are-case-sensitive"),
        pytest.param((*SESSION, AUDIO, "a=sendonly "), Direction.SENDONLY, True, id="space-at-the-end"),
    ],
)
def test_direction_and_hold(lines: tuple[str, ...], direction: Direction, held: bool) -> None:
    stream = only(*lines)
    assert (stream.direction, stream.held) == (direction, held)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(("m=audio 4 RTP/AVP 9",), [(9, "G722", 8000)], id="static"),
        pytest.param(("m=audio 4 RTP/AVP 96", "a=rtpmap:96 opus/48000/2"), [(96, "opus", 48000)], id="dynamic"),
        pytest.param(("m=audio 4 RTP/AVP 0", "a=rtpmap:0 X-PCM/16000"), [(0, "X-PCM", 16000)], id="rtpmap-wins"),
        pytest.param(("m=audio 4 RTP/AVP 97",), [(97, "", 0)], id="nameless"),
        pytest.param(("m=audio 4 RTP/AVP 96 96 0", "a=rtpmap:96 a/1"), [(96, "a", 1), (0, "PCMU", 8000)], id="once"),
        pytest.param(("m=audio 4 RTP/AVP 128 x -1 0",), [(0, "PCMU", 8000)], id="no-payload-types"),
        pytest.param(("m=audio 4 RTP/AVP 96", "a=rtpmap:96"), [(96, "", 0)], id="empty-rtpmap"),
        pytest.param(("m=audio 4 RTP/AVP 96", "a=rtpmap:96 G7/x"), [(96, "G7", 0)], id="rate-is-no-number"),
        pytest.param(("m=audio 4 RTP/AVP 96", "a=rtpmap:96\tG7/8000"), [(96, "G7", 8000)], id="tab"),
        pytest.param(
            ("m=audio 4 RTP/AVP 96", "m=video 5 RTP/AVP 96", "a=rtpmap:96 H264/90000"), [(96, "", 0)], id="own"
        ),
        pytest.param(("m=image 4 udptl t38",), [], id="no-rtp"),
    ],
)
def test_payload_types(lines: tuple[str, ...], expected: list[tuple[int, str, int]]) -> None:
    stream = Sdp.parse(body(*SESSION, *lines)).streams[0]
    assert [(t.number, t.codec, t.clock_rate) for t in stream.payload_types] == expected


@pytest.mark.parametrize(
    ("lines", "ice", "dtls", "mux"),
    [
        pytest.param((AUDIO,), False, False, False, id="plain"),
        pytest.param((AUDIO, "a=candidate:1 1 UDP 1 192.168.1.10 5004 typ host"), True, False, False, id="candidate"),
        pytest.param((AUDIO, "a=ice-ufrag:abcd"), True, False, False, id="ufrag"),
        pytest.param(("a=ice-ufrag:abcd", AUDIO), True, False, False, id="ufrag-of-the-session"),
        pytest.param((AUDIO, "a=fingerprint:sha-256 AA"), False, True, False, id="fingerprint"),
        pytest.param(("a=fingerprint:sha-256 AA", AUDIO), False, True, False, id="fingerprint-of-the-session"),
        pytest.param((AUDIO, "a=rtcp-mux"), False, False, True, id="mux"),
        pytest.param((AUDIO, "a=rtcp-mux-only"), False, False, True, id="mux-only"),
    ],
)
def test_ice_dtls_and_mux(lines: tuple[str, ...], ice: bool, dtls: bool, mux: bool) -> None:
    stream = only(*SESSION, *lines)
    assert (stream.ice, stream.dtls, stream.rtcp_mux) == (ice, dtls, mux)


@pytest.mark.parametrize(
    ("raw", "kinds"),
    [
        pytest.param(body(*SESSION, AUDIO, "m=video 6 RTP/AVP 31"), ["audio", "video"], id="crlf"),
        pytest.param(body(*SESSION, AUDIO).replace(b"\r\n", b"\n"), ["audio"], id="lf"),
        pytest.param(body(*SESSION, AUDIO).replace(b"\r\n", b"\r"), ["audio"], id="cr"),
        pytest.param(body(*SESSION, AUDIO).rstrip(), ["audio"], id="no-final-line-end"),
        pytest.param(body(*SESSION, AUDIO) + b"\r\n\r\n", ["audio"], id="blank-lines-at-the-end"),
        pytest.param(body("i=caf\xe9 \x85 \x1c m=fake 1 RTP/AVP 0", *SESSION, AUDIO), ["audio"], id="latin-1"),
        pytest.param(body("s=c=c=IN IP4 9.9.9.9", "X=unknown", *SESSION, AUDIO), ["audio"], id="unknown-lines"),
        pytest.param(body(*SESSION, "a=x:\xff\x00\xfe", AUDIO), ["audio"], id="any-bytes"),
        pytest.param(body(*SESSION, *[SHORT] * 100), ["audio"] * 100, id="a-hundred-streams"),
        pytest.param(b"m=audio 5 RTP/AVP 0", ["audio"], id="nothing-but-a-stream"),
        pytest.param(b"", [], id="empty"),
        pytest.param(b"\x00\x01\x02", [], id="no-sdp"),
    ],
)
def test_bodies_pass_losslessly(raw: bytes, kinds: list[str]) -> None:
    sdp = Sdp.parse(raw)
    assert bytes(sdp) == raw
    assert [stream.kind for stream in sdp.streams] == kinds


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        pytest.param((*SESSION, "m=audio"), "line 6", id="m-without-port"),
        pytest.param((*SESSION, "m=audio 5004"), "line 6", id="m-without-transport"),
        pytest.param((*SESSION, "m=audio x RTP/AVP 0"), "line 6", id="port-is-no-number"),
        pytest.param((*SESSION, "m=audio -1 RTP/AVP 0"), "line 6", id="negative-port"),
        pytest.param((*SESSION, "m=audio 65536 RTP/AVP 0"), "65536", id="port-too-large"),
        pytest.param((*SESSION, f"m=audio {'9' * 5000} RTP/AVP 0"), "0..65535", id="endless-port"),
        pytest.param((*SESSION, "m=audio 5/x RTP/AVP 0"), "line 6", id="number-of-ports-is-none"),
        pytest.param((*SESSION, "m=audio \xb2 RTP/AVP 0"), "line 6", id="superscript-two"),
        pytest.param(("c=IN IP4", AUDIO), "line 4", id="c-without-address"),
        pytest.param(("c=", AUDIO), "line 4", id="empty-c"),
    ],
)
def test_what_cannot_be_read_is_named(lines: tuple[str, ...], says: str) -> None:
    with pytest.raises(SdpError, match=says):
        Sdp.parse(body(*lines))


def test_the_hash_stands_for_the_bytes() -> None:
    one, same, other = Sdp.parse(body(AUDIO)), Sdp.parse(body(AUDIO)), Sdp.parse(body(AUDIO) + b"a=x\r\n")
    assert one.hash == same.hash != other.hash
    assert len(one.hash) == 16
    assert one == same and one != other and len({one, same, other}) == 2


@pytest.mark.parametrize(("line", "sdes"), [("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x", True), ("a=x", False)])
def test_srtp_with_its_keys_in_the_sdp_is_seen(line: str, sdes: bool) -> None:
    assert [stream.sdes for stream in Sdp.parse(body(*SESSION, SHORT, line, SHORT)).streams] == [sdes, False]


def test_many_streams_behind_many_attributes_take_no_time() -> None:
    sdp = Sdp.parse(body(*["a=x"] * 7000, "a=inactive", *["m=a 1 RTP/ 0"] * 2000))
    with quickly(0.2):
        assert {stream.direction for stream in sdp.streams} == {Direction.INACTIVE}


def test_sections_show_what_stands_there() -> None:
    sdp = Sdp.parse(body(*SESSION, "a=tool:x", "m=audio 5004/2 RTP/AVP 0", "a=crypto:1 AES inline:k", "a=crypto:2 B"))
    (section,) = sdp.sections
    assert (section.count, section.formats, section.carried, section.rtp) == (2, ("0",), True, True)
    assert list(section.values("crypto")) == ["1 AES inline:k", "2 B"]
    assert sdp.session.has("tool") and not section.has("tool")


# Pieces from which hypothesis builds bodies that look like SDP, and bodies that nearly do.
_word = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=12).map(
    lambda t: t.encode("latin-1")
)
_line = st.one_of(
    st.sampled_from(
        [
            b"m=audio 5004 RTP/AVP 0 96",
            b"m=image 0 udptl t38",
            b"m=message 9 TCP/MSRP *",
            b"m=audio 99999 RTP/AVP",
            b"m=",
            b"c=IN IP4 10.0.0.1",
            b"c=IN IP6 ::",
            b"c=IN IP4 0.0.0.0/1/2",
            b"c=IN IP4 host",
            b"c=",
            b"a=rtcp:5 IN IP4 1.2.3.4",
            b"a=rtcp:",
            b"a=candidate:1",
            b"a=sendonly",
            b"a=rtpmap:96 X/8000",
            b"",
        ]
    ),
    st.tuples(st.sampled_from([b"m=", b"c=", b"a=", b"a=rtcp:", b"a=rtpmap:", b"m=audio "]), _word).map(b"".join),
    _word,
)
bodies = st.lists(
    st.tuples(_line, st.sampled_from([b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r"])).map(b"".join), max_size=12
).map(b"".join) | st.binary(max_size=200)


@given(bodies)
def test_any_body_is_read_or_refused(raw: bytes) -> None:
    try:
        sdp = Sdp.parse(raw)
    except SdpError:
        return
    assert bytes(sdp) == raw
    assert len(sdp.streams) == len(sdp.sections) == Sdp.count(raw)
    assert all(0 <= section.port <= 65535 for section in sdp.sections)
