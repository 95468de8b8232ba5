"""The relay among the candidates of a phone with ICE: what a second phone reads, and what stays as it was."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.control import MediaPort
from mediaproxy.endpoint import Endpoint
from mediaproxy.sdp import IcePolicy, Sdp
from tests.test_sdp_ports import FAR_RTCP, NO_RTCP, V4, V4_B, V6

C = "c=IN IP4 192.168.1.10"
RELAYED = "c=IN IP4 203.0.113.5"
AUDIO, AUDIO_RELAYED = "m=audio 5004 RTP/AVP 0", "m=audio 60000 RTP/AVP 0"
CREDENTIALS = ("a=ice-ufrag:8hhY", "a=ice-pwd:asd88fgpdd777uzjYhagZg")
HOST = "a=candidate:1 1 UDP 2130706431 192.168.1.10 5004 typ host"
HOST_RTCP = "a=candidate:1 2 UDP 2130706430 192.168.1.10 5005 typ host"
OURS = "a=candidate:Rcb007105 1 UDP {} 203.0.113.5 60000 typ relay raddr 203.0.113.5 rport 60000"
OURS_RTCP = "a=candidate:Rcb007105 2 UDP {} 203.0.113.5 {} typ relay raddr 203.0.113.5 rport {}"
HIGH, LOW = IcePolicy.HIGH_PRIORITY, IcePolicy.LOW_PRIORITY


def raw(lines: Sequence[str], line_end: str = "\r\n") -> bytes:
    return "".join(f"{line}{line_end}" for line in lines).encode()


CASES = [
    pytest.param(
        HIGH,
        [C, *CREDENTIALS, AUDIO, "a=sendrecv", HOST],
        [V4],
        [RELAYED, *CREDENTIALS, AUDIO_RELAYED, "a=sendrecv", OURS.format(2197815295), HOST],
        id="session-credentials",
    ),
    pytest.param(
        LOW,
        [C, AUDIO, *CREDENTIALS, HOST, HOST_RTCP],
        [V4],
        [RELAYED, AUDIO_RELAYED, *CREDENTIALS, OURS.format(16777215), OURS_RTCP.format(16777214, 60001, 60001), HOST]
        + [HOST_RTCP],
        id="component-2",
    ),
    pytest.param(
        HIGH,
        [C, AUDIO, HOST_RTCP, HOST, *CREDENTIALS, "a=rtcp-mux"],
        [V4],
        [RELAYED, AUDIO_RELAYED, OURS.format(2197815295), OURS_RTCP.format(2197815294, 60001, 60001), HOST_RTCP, HOST]
        + [*CREDENTIALS, "a=rtcp-mux"],
        id="component-2-for-whom-has-no-mux",
    ),
    pytest.param(
        HIGH,
        [C, AUDIO, HOST, HOST_RTCP, *CREDENTIALS, "a=rtcp-mux-only"],
        [FAR_RTCP],
        [RELAYED, AUDIO_RELAYED, OURS.format(2197815295), HOST, HOST_RTCP, *CREDENTIALS, "a=rtcp-mux-only"],
        id="no-component-2-with-mux-only",
    ),
    pytest.param(
        LOW,
        [C, AUDIO, HOST, HOST_RTCP, *CREDENTIALS],
        [FAR_RTCP],
        [RELAYED, AUDIO_RELAYED, "a=rtcp:61001", OURS.format(16777215), OURS_RTCP.format(16777214, 61001, 61001), HOST]
        + [HOST_RTCP, *CREDENTIALS],
        id="rtcp-elsewhere-and-candidates-first",
    ),
    pytest.param(
        LOW,
        [C, "m=image 5004 udptl t38", HOST, HOST_RTCP, *CREDENTIALS],
        [NO_RTCP],
        [RELAYED, "m=image 60000 udptl t38", OURS.format(16777215), HOST, HOST_RTCP, *CREDENTIALS],
        id="no-rtcp",
    ),
    pytest.param(
        HIGH,
        [C, AUDIO, *CREDENTIALS, "a=ice-options:trickle", "m=video 5006 RTP/AVP 31"],
        [V4, V4_B],
        [RELAYED, AUDIO_RELAYED, *CREDENTIALS, "a=ice-options:trickle", OURS.format(2197815295)]
        + ["m=video 60002 RTP/AVP 31"],
        id="no-candidates-yet-and-a-stream-without-ice",
    ),
    pytest.param(
        HIGH,
        [C, AUDIO, *CREDENTIALS, "a=end-of-candidates"],
        [V4],
        [RELAYED, AUDIO_RELAYED, *CREDENTIALS, OURS.format(2197815295), "a=end-of-candidates"],
        id="no-candidates-at-all",
    ),
    pytest.param(
        HIGH,
        [C, CREDENTIALS[0], AUDIO, CREDENTIALS[1], HOST, "m=message 5 TCP/MSRP *", HOST, "m=video 0 RTP/AVP 31", HOST],
        [V4, None, None],
        [RELAYED, CREDENTIALS[0], AUDIO_RELAYED, CREDENTIALS[1], OURS.format(2197815295), HOST]
        + ["m=message 5 TCP/MSRP *", C, HOST, "m=video 0 RTP/AVP 31", HOST],
        id="other-streams-stay",
    ),
    pytest.param(
        HIGH, [C, CREDENTIALS[0], AUDIO, HOST], [V4], [RELAYED, CREDENTIALS[0], AUDIO_RELAYED, HOST], id="no-password"
    ),
    pytest.param(HIGH, [C, AUDIO], [V4], [RELAYED, AUDIO_RELAYED], id="no-ice"),
    pytest.param(
        LOW,
        [C, *CREDENTIALS, AUDIO, HOST, "a=remote-candidates:1 10.0.0.9 4000"],
        [V4],
        [RELAYED, *CREDENTIALS, AUDIO_RELAYED, OURS.format(16777215), HOST, "a=remote-candidates:1 10.0.0.9 4000"],
        id="ice-is-over",
    ),
]


@pytest.mark.parametrize(("policy", "lines", "ports", "expected"), CASES)
@pytest.mark.parametrize("line_end", ["\r\n", "\n"], ids=["crlf", "lf"])
def test_the_relay_becomes_a_candidate(
    policy: IcePolicy, lines: list[str], ports: list[MediaPort | None], expected: list[str], line_end: str
) -> None:
    written = Sdp.parse(raw(lines, line_end)).with_ports(ports, ice=policy)
    assert bytes(written) == raw(expected, line_end)
    assert written.with_ports(ports, ice=policy) == written, "our candidate is not added twice"


def test_an_ipv6_relay() -> None:
    """A foundation has 32 characters at most (RFC 8839 §5.1), of letters, digits, + and /."""
    written = Sdp.parse(raw([C, *CREDENTIALS, AUDIO, HOST])).with_ports([V6], ice=LOW)
    ours = next(written.sections[0].values("candidate"))
    foundation, rest = ours.split(" ", 1)
    assert rest == "1 UDP 16777215 2001:db8::5 60000 typ relay raddr 2001:db8::5 rport 60000"
    assert foundation == "RIAENuAAAAAAAAAAAAAAABQ" and len(foundation) <= 32


def test_a_body_without_final_line_end() -> None:
    body = raw([C, *CREDENTIALS, AUDIO]).removesuffix(b"\r\n")
    written = bytes(Sdp.parse(body).with_ports([V4], ice=LOW))
    assert written == raw([RELAYED, *CREDENTIALS, AUDIO_RELAYED, OURS.format(16777215)]).removesuffix(b"\r\n")


@given(st.ip_addresses())
def test_foundations_are_legal_and_differ(address: object) -> None:
    def foundation(address: object) -> str:
        port = MediaPort(rtp=Endpoint.of(str(address), 4000))
        written = Sdp.parse(raw([C, *CREDENTIALS, AUDIO])).with_ports([port], ice=LOW)
        return next(written.sections[0].values("candidate")).split()[0]

    assert 1 <= len(foundation(address)) <= 32 and foundation(address).replace("+", "a").replace("/", "a").isalnum()
    assert foundation(address) != foundation("203.0.113.99") or str(address) == "203.0.113.99"
