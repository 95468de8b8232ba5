"""Relay ports in SDP: what must change changes, everything else stays byte for byte."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.control import MediaPort, Stream
from mediaproxy.endpoint import Endpoint
from mediaproxy.sdp import IcePolicy, Sdp, SdpError, Section
from tests.test_sdp import bodies

V4 = MediaPort(rtp=Endpoint("203.0.113.5", 60000), rtcp=Endpoint("203.0.113.5", 60001))
V4_B = MediaPort(rtp=Endpoint("203.0.113.5", 60002), rtcp=Endpoint("203.0.113.5", 60003))
OTHER = MediaPort(rtp=Endpoint("203.0.113.6", 60004), rtcp=Endpoint("203.0.113.6", 60005))
V6 = MediaPort(rtp=Endpoint("2001:db8::5", 60000), rtcp=Endpoint("2001:db8::5", 60001))
NO_RTCP = MediaPort(rtp=Endpoint("203.0.113.5", 60000))
FAR_RTCP = MediaPort(rtp=Endpoint("203.0.113.5", 60000), rtcp=Endpoint("203.0.113.5", 61001))
RTCP_ELSEWHERE = MediaPort(rtp=Endpoint("203.0.113.5", 60000), rtcp=Endpoint("203.0.113.6", 60001))

O = "o=- 1 1 IN IP4 192.168.1.10"  # noqa: E741 - the name of the line
C = "c=IN IP4 192.168.1.10"
CANDIDATE = "a=candidate:1 1 UDP 2130706431 192.168.1.10 5004 typ host"


def text(*lines: str) -> str:
    return "".join(f"{line}\r\n" for line in lines)


CASES = [
    pytest.param(
        [O, C, "t=0 0", "m=audio 5004 RTP/AVP 0 8", "m=video 5006 RTP/AVP 31"],
        [V4, V4_B],
        [O, "c=IN IP4 203.0.113.5", "t=0 0", "m=audio 60000 RTP/AVP 0 8", "m=video 60002 RTP/AVP 31"],
        id="session-c-once-for-all",
    ),
    pytest.param(
        [O, "m=audio 5004 RTP/AVP 0", C, "a=sendonly"],
        [V4],
        [O, "m=audio 60000 RTP/AVP 0", "c=IN IP4 203.0.113.5", "a=sendonly"],
        id="media-c",
    ),
    pytest.param(
        [C, "m=audio 5004 RTP/AVP 0", "c=IN IP4 192.168.1.11"],
        [V4],
        ["c=IN IP4 203.0.113.5", "m=audio 60000 RTP/AVP 0", "c=IN IP4 203.0.113.5"],
        id="unused-session-c-too",
    ),
    pytest.param(
        [C, "m=audio 5004 RTP/AVP 0", "c=IN IP4 192.168.1.11", "m=message 4010 TCP/MSRP *"],
        [V4, None],
        [C, "m=audio 60000 RTP/AVP 0", "c=IN IP4 203.0.113.5", "m=message 4010 TCP/MSRP *"],
        id="session-c-that-only-a-left-stream-uses",
    ),
    pytest.param(
        [C, "m=audio 5004 RTP/AVP 0", "m=message 4010 TCP/MSRP *", "i=chat", "a=path:msrp://x"],
        [V4, None],
        [
            "c=IN IP4 203.0.113.5",
            "m=audio 60000 RTP/AVP 0",
            "m=message 4010 TCP/MSRP *",
            "i=chat",
            C,
            "a=path:msrp://x",
        ],
        id="left-stream-keeps-its-address",
    ),
    pytest.param(
        [C, "m=audio 5004 RTP/AVP 0", "m=message 4010 TCP/MSRP *", "c=IN IP4 192.168.1.12"],
        [V4, None],
        ["c=IN IP4 203.0.113.5", "m=audio 60000 RTP/AVP 0", "m=message 4010 TCP/MSRP *", "c=IN IP4 192.168.1.12"],
        id="left-stream-with-its-own-c",
    ),
    pytest.param(
        [C, "m=audio 5004 RTP/AVP 0", "m=video 0 RTP/AVP 31"],
        [V4, None],
        ["c=IN IP4 203.0.113.5", "m=audio 60000 RTP/AVP 0", "m=video 0 RTP/AVP 31"],
        id="rejected-stream-needs-no-address",
    ),
    pytest.param(
        [C, "m=audio 5004 RTP/AVP 0", "m=video 0 RTP/AVP 31", "c=IN IP4 192.168.1.12", "a=rtcp:5007"],
        [V4, V4_B],
        [
            "c=IN IP4 203.0.113.5",
            "m=audio 60000 RTP/AVP 0",
            "m=video 0 RTP/AVP 31",
            "c=IN IP4 192.168.1.12",
            "a=rtcp:5007",
        ],
        id="rejected-stream-stays-even-with-a-port",
    ),
    pytest.param(
        ["c=IN IP4 0.0.0.0", "m=audio 5004 RTP/AVP 0"],
        [V4],
        ["c=IN IP4 0.0.0.0", "m=audio 60000 RTP/AVP 0"],
        id="hold-stays-hold",
    ),
    pytest.param(
        [C, "m=audio 5004 RTP/AVP 0", "c=IN IP4 0.0.0.0", "m=video 5006 RTP/AVP 31"],
        [V4, V4_B],
        ["c=IN IP4 203.0.113.5", "m=audio 60000 RTP/AVP 0", "c=IN IP4 0.0.0.0", "m=video 60002 RTP/AVP 31"],
        id="one-stream-on-hold",
    ),
    pytest.param(
        ["c=IN IP4 0.0.0.0", "m=audio 5004 RTP/AVP 0"],
        [V6],
        ["c=IN IP6 ::", "m=audio 60000 RTP/AVP 0"],
        id="hold-of-the-other-family",
    ),
    pytest.param(
        ["c=IN IP6 ::", "m=audio 5004 RTP/AVP 0"],
        [V4],
        ["c=IN IP4 0.0.0.0", "m=audio 60000 RTP/AVP 0"],
        id="ipv6-hold-over-ipv4",
    ),
    pytest.param(
        [C, "m=audio 5004 RTP/AVP 0"],
        [V6],
        ["c=IN IP6 2001:db8::5", "m=audio 60000 RTP/AVP 0"],
        id="ipv4-offer-ipv6-relay",
    ),
    pytest.param(
        ["c=IN IP6 fd00::2", "m=audio 5004 RTP/AVP 0"],
        [V4],
        ["c=IN IP4 203.0.113.5", "m=audio 60000 RTP/AVP 0"],
        id="ipv6-offer-ipv4-relay",
    ),
    pytest.param(
        [C, "m=audio 5004 RTP/AVP 0", "m=video 5006 RTP/AVP 31", "b=AS:1"],
        [V4, OTHER],
        [
            "c=IN IP4 203.0.113.5",
            "m=audio 60000 RTP/AVP 0",
            "m=video 60004 RTP/AVP 31",
            "c=IN IP4 203.0.113.6",
            "b=AS:1",
        ],
        id="two-relay-addresses",
    ),
    pytest.param(
        ["c=IN IP4 224.2.1.1/127/2", "m=audio 49170/2 RTP/AVP 0"],
        [V4],
        ["c=IN IP4 203.0.113.5", "m=audio 60000 RTP/AVP 0"],
        id="ttl-and-number-of-ports-go",
    ),
    pytest.param(
        ["m=audio 5004 RTP/AVP 0", "c=IN IP4 192.168.1.10", "c=IN IP4 192.168.1.11"],
        [V4],
        ["m=audio 60000 RTP/AVP 0", "c=IN IP4 203.0.113.5", "c=IN IP4 203.0.113.5"],
        id="several-c-lines",
    ),
    pytest.param(
        ["m=audio 5004 RTP/AVP 0", "a=sendrecv"],
        [V4],
        ["m=audio 60000 RTP/AVP 0", "c=IN IP4 203.0.113.5", "a=sendrecv"],
        id="no-c-at-all",
    ),
    pytest.param(
        ["c=IN IP4 phone.example.com", "m=audio 5004 RTP/AVP 0"],
        [V4],
        ["c=IN IP4 203.0.113.5", "m=audio 60000 RTP/AVP 0"],
        id="host-name",
    ),
    pytest.param(
        ["c=IN  IP4\t192.168.1.10  ", "m=audio  5004\tRTP/AVP 0 "],
        [V4],
        ["c=IN  IP4\t203.0.113.5  ", "m=audio  60000\tRTP/AVP 0 "],
        id="white-space-stays",
    ),
    pytest.param(
        [C, "m=audio 5004 RTP/AVP 0", "a=rtcp:5009"],
        [V4],
        ["c=IN IP4 203.0.113.5", "m=audio 60000 RTP/AVP 0", "a=rtcp:60001"],
        id="rtcp-port",
    ),
    pytest.param(
        [C, "m=audio 5004 RTP/AVP 0", "a= rtcp : 5009  IN IP4 192.168.1.10", "a=rtcp:5009;x"],
        [V4],
        ["c=IN IP4 203.0.113.5", "m=audio 60000 RTP/AVP 0", "a= rtcp : 60001  IN IP4 203.0.113.5", "a=rtcp:5009;x"],
        id="rtcp-with-white-space-and-one-that-is-none",
    ),
    pytest.param(
        [C, "m=audio 5004 RTP/AVP 0", "a=rtcp:5009 IN IP4 192.168.1.10"],
        [V6],
        ["c=IN IP6 2001:db8::5", "m=audio 60000 RTP/AVP 0", "a=rtcp:60001 IN IP6 2001:db8::5"],
        id="rtcp-port-and-address",
    ),
    pytest.param(
        [C, "m=audio 5004 RTP/AVP 0", "b=AS:1", "a=sendrecv"],
        [FAR_RTCP],
        ["c=IN IP4 203.0.113.5", "m=audio 60000 RTP/AVP 0", "b=AS:1", "a=rtcp:61001", "a=sendrecv"],
        id="rtcp-added",
    ),
    pytest.param(
        [C, "m=audio 5004 RTP/AVP 0"],
        [RTCP_ELSEWHERE],
        ["c=IN IP4 203.0.113.5", "m=audio 60000 RTP/AVP 0", "a=rtcp:60001 IN IP4 203.0.113.6"],
        id="rtcp-added-with-address",
    ),
    pytest.param(
        [C, "m=audio 5004 RTP/AVP 0", "a=rtcp:0"],
        [FAR_RTCP],
        ["c=IN IP4 203.0.113.5", "m=audio 60000 RTP/AVP 0", "a=rtcp:0"],
        id="rtcp-unwanted",
    ),
    pytest.param(
        [C, "m=audio 5004 RTP/AVP 0", "a=rtcp-mux-only"],
        [FAR_RTCP],
        ["c=IN IP4 203.0.113.5", "m=audio 60000 RTP/AVP 0", "a=rtcp-mux-only"],
        id="rtcp-mux-only",
    ),
    pytest.param(
        [C, "m=audio 5004 RTP/AVP 0", "a=rtcp:5004", "a=rtcp-mux"],
        [NO_RTCP],
        ["c=IN IP4 203.0.113.5", "m=audio 60000 RTP/AVP 0", "a=rtcp:60000", "a=rtcp-mux"],
        id="relay-without-rtcp-port",
    ),
    pytest.param(
        [C, "m=image 5004 udptl t38"],
        [NO_RTCP],
        ["c=IN IP4 203.0.113.5", "m=image 60000 udptl t38"],
        id="udptl",
    ),
    pytest.param(
        [C, "a=ice-lite", "m=audio 5004 RTP/AVP 0", "a=ice-ufrag:x", "a=ice-pwd:y", CANDIDATE, "a=end-of-candidates"],
        [V4],
        ["c=IN IP4 203.0.113.5", "m=audio 60000 RTP/AVP 0"],
        id="ice-removed",
    ),
    pytest.param(
        [C, "a=ice-ufrag:x", "m=audio 5004 RTP/AVP 0", CANDIDATE, "m=message 4010 TCP/MSRP *", CANDIDATE],
        [V4, None],
        [
            "c=IN IP4 203.0.113.5",
            "a=ice-ufrag:x",
            "m=audio 60000 RTP/AVP 0",
            "m=message 4010 TCP/MSRP *",
            C,
            CANDIDATE,
        ],
        id="ice-of-a-left-stream-stays",
    ),
    pytest.param(
        ["m=audio 9 RTP/AVP 0", "c=IN IP4 0.0.0.0", "a=ice-ufrag:x", "a=rtcp:9 IN IP4 0.0.0.0"],
        [V4],
        ["m=audio 60000 RTP/AVP 0", "c=IN IP4 203.0.113.5", "a=rtcp:60001 IN IP4 203.0.113.5"],
        id="trickle-ice-is-no-hold",
    ),
    pytest.param(
        [C, "m=audio 5004 RTP/AVP 0", "a=crypto:1 x", "a=fingerprint:y", "a=\xff\xfe", "X-odd", ""],
        [V4],
        [
            "c=IN IP4 203.0.113.5",
            "m=audio 60000 RTP/AVP 0",
            "a=crypto:1 x",
            "a=fingerprint:y",
            "a=\xff\xfe",
            "X-odd",
            "",
        ],
        id="everything-else-passes",
    ),
    pytest.param(
        [C, "m=audio 5004 RTP/AVP 0", "m=video 5006 RTP/AVP 31", CANDIDATE],
        [None, None],
        [C, "m=audio 5004 RTP/AVP 0", "m=video 5006 RTP/AVP 31", CANDIDATE],
        id="nothing-relayed",
    ),
    pytest.param(
        ["c=IN IP4 203.0.113.5", "m=audio 60000 RTP/AVP 0", "m=message 4010 TCP/MSRP *"],
        [V4, None],
        ["c=IN IP4 203.0.113.5", "m=audio 60000 RTP/AVP 0", "m=message 4010 TCP/MSRP *"],
        id="already-so",
    ),
]


@pytest.mark.parametrize(("lines", "ports", "expected"), CASES)
@pytest.mark.parametrize("line_end", ["\r\n", "\n"], ids=["crlf", "lf"])
@pytest.mark.parametrize("final", [True, False], ids=["final-line-end", "no-final-line-end"])
def test_ports_are_written_in(
    lines: list[str], ports: list[MediaPort | None], expected: list[str], line_end: str, final: bool
) -> None:
    def raw(lines: list[str]) -> bytes:
        return (line_end.join(lines) + (line_end if final else "")).encode("latin-1")

    written = Sdp.parse(raw(lines)).with_ports(ports, ice=IcePolicy.REMOVE)
    assert bytes(written) == raw(expected)
    assert written.with_ports(ports, ice=IcePolicy.REMOVE) == written


def test_ice_passes_through() -> None:
    raw = text(C, "a=ice-lite", "m=audio 5004 RTP/AVP 0", "a=ice-ufrag:x", CANDIDATE)
    written = Sdp.parse(raw.encode()).with_ports([V4])
    assert bytes(written).decode() == raw.replace("192.168.1.10\r\na=ice", "203.0.113.5\r\na=ice").replace(
        "m=audio 5004", "m=audio 60000"
    )


def test_the_number_of_ports_must_fit() -> None:
    with pytest.raises(ValueError, match="1 ports for 2 streams"):
        Sdp.parse(text(C, "m=audio 4 RTP/AVP 0", "m=audio 6 RTP/AVP 0").encode()).with_ports([V4])


def test_every_one_of_a_hundred_streams() -> None:
    raw = text(C, *[f"m=audio {4000 + 2 * n} RTP/AVP 0" for n in range(100)]).encode()
    ports = [MediaPort(rtp=Endpoint("203.0.113.5", 20000 + 4 * n)) for n in range(100)]
    streams = Sdp.parse(raw).with_ports(ports).streams
    assert [stream.endpoint for stream in streams] == [port.rtp for port in ports]


relays = st.builds(
    lambda v6, port, far: MediaPort(
        rtp=Endpoint("2001:db8::5" if v6 else "203.0.113.5", port),
        rtcp=Endpoint("2001:db8::5" if v6 else "203.0.113.5", port + 1 + far),
    ),
    st.booleans(),
    st.integers(2, 30000).map(lambda n: 2 * n),
    st.sampled_from([0, 0, 0, 10]),
)


def _concerned(line: bytes) -> bool:
    """Whether a line is one that an edit may touch."""
    return line.startswith((b"m=", b"c=", b"a=rtcp:", b"a=candidate", b"a=ice-", b"a=remote-cand", b"a=end-of-cand"))


def _others(raw: bytes) -> list[bytes]:
    return [line for line in raw.splitlines() if line and not _concerned(line)]


def _check_relayed(before: Stream, section: Section, after: Stream, port: MediaPort) -> None:
    assert after.endpoint is not None
    assert after.endpoint.port == port.rtp.port
    assert after.endpoint.version == port.rtp.version
    if before.held and before.endpoint is not None and before.endpoint.address in ("0.0.0.0", "::"):
        assert after.endpoint.address in ("0.0.0.0", "::", port.rtp.address)
    else:
        assert after.endpoint == port.rtp
        if before.rtcp is not None:
            assert after.rtcp == port.rtcp


@given(bodies, st.data())
def test_any_body_takes_ports(raw: bytes, data: st.DataObject) -> None:
    try:
        sdp = Sdp.parse(raw)
    except SdpError:
        return
    ports: Sequence[MediaPort | None] = [
        data.draw(relays) if stream.endpoint is not None and data.draw(st.booleans()) else None
        for stream in sdp.streams
    ]
    ice = data.draw(st.sampled_from((IcePolicy.KEEP, IcePolicy.LOW_PRIORITY, IcePolicy.HIGH_PRIORITY)))
    written = sdp.with_ports(ports, ice=ice)
    again = Sdp.parse(bytes(written))
    assert again.with_ports(ports, ice=ice) == written
    assert _others(bytes(written)) == _others(raw)
    for before, section, after, port in zip(sdp.streams, sdp.sections, again.streams, ports, strict=True):
        if port is None:
            assert (after.kind, after.transport, after.endpoint) == (before.kind, before.transport, before.endpoint)
            assert (after.rtcp, after.direction) == (before.rtcp, before.direction)
        else:
            _check_relayed(before, section, after, port)
