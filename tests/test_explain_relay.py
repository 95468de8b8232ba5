"""What explain makes of a message when it is told what the relay answers, and what it says without."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.endpoint import Endpoint
from mediaproxy.explain import Explanation, RelayAnswer, RelayError, SdpStream, explain
from mediaproxy.policy import Policy
from mediaproxy.sdp import IcePolicy
from mediaproxy.sip.message import Message, parse
from tests.sip_corpus import MESSAGES, anything, parsed
from tests.test_traversal import PHONE, POLICY, SDP, arrival, message

OFFER = message("INVITE", "Contact: <sip:alice@192.168.1.10>", body=SDP)
NO_C = "v=0\r\ns=-\r\n"
SESSION = "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n"


def of(asked: Message, relay: str = "", source: str = PHONE, policy: Policy = POLICY) -> Explanation:
    return explain(asked, arrival(source), policy, relay=RelayAnswer.parse(relay) if relay else None)


def text(explanation: Explanation) -> str:
    return bytes(explanation.message).decode("latin-1")


def test_with_an_answer_the_message_is_rewritten() -> None:
    told = of(OFFER, "203.0.113.5 60000")
    assert (told.fix_contact, told.use_media_proxy) == (1, 1)
    expected = bytes(OFFER).decode().replace("sip:alice@192.168.1.10>", "sip:alice@198.51.100.7:34567>")
    expected = expected.replace("c=IN IP4 192.168.1.10", "c=IN IP4 203.0.113.5").replace(
        "m=audio 5004", "m=audio 60000"
    )
    assert text(told) == expected
    assert str(told).endswith("The message that is sent on\n\n" + expected.replace("\r\n", "\n"))


def test_without_an_answer_only_contact_is_fixed() -> None:
    told = of(OFFER)
    assert (told.fix_contact, told.use_media_proxy) == (1, 1)
    assert text(told) == bytes(OFFER).decode().replace("alice@192.168.1.10>", "alice@198.51.100.7:34567>")
    assert "use_media_proxy: 1, if the relay has ports" in str(told)
    assert "The message that is sent on" not in str(told)


@pytest.mark.parametrize(
    ("lines", "relay", "written"),
    [
        pytest.param(["m=audio 4 RTP/AVP 0", "m=video 0 RTP/AVP 31"], "9.9.9.9 60000 0", ["60000", "0"], id="rejected"),
        pytest.param(
            ["m=audio 4 RTP/AVP 0", "m=video 0 RTP/AVP 31"], "9.9.9.9 60000 60002", ["60000", "0"], id="stays-rejected"
        ),
        pytest.param(
            ["m=audio 4 RTP/AVP 0", "m=message 9 TCP/MSRP *"], "9.9.9.9 60000 0", ["60000", "9"], id="msrp-and-0"
        ),
        pytest.param(
            ["m=message 9 TCP/MSRP *", "m=image 6 udptl t38"], "9.9.9.9 7 65535", ["9", "65535"], id="msrp-and-a-number"
        ),
        pytest.param(["m=message 9 TCP/MSRP *"], "9.9.9.9 0", ["9"], id="nothing-relayed"),
        pytest.param(["m=audio 4 RTP/AVP 0"], " [2001:db8::5]  60000 ", ["60000"], id="brackets-and-spaces"),
    ],
)
def test_lines_that_get_no_ports(lines: list[str], relay: str, written: list[str]) -> None:
    asked = message("INVITE", body=SESSION + "".join(f"{line}\r\n" for line in lines))
    told = of(asked, relay)
    assert told.use_media_proxy == 1
    assert [line.split()[1] for line in text(told).split("\r\n") if line.startswith("m=")] == written


def test_rtcp_has_the_next_port() -> None:
    asked = message("INVITE", body=SESSION + "m=audio 4000 RTP/AVP 0\r\na=rtcp:5000 IN IP4 10.0.0.2\r\n")
    assert "a=rtcp:60001 IN IP4 203.0.113.5\r\n" in text(of(asked, "203.0.113.5 60000"))


def test_a_response_and_the_way_to_an_ipv6_relay() -> None:
    asked = message("SIP/2.0 200 OK", "Contact: <sip:bob@10.1.1.1>", body=SDP)
    told = of(asked, "2001:db8::5 60000")
    assert (told.client_nat_test, told.fix_contact, told.use_media_proxy) == (1, 1, 1)
    assert "c=IN IP6 2001:db8::5\r\n" in text(told) and "<sip:bob@198.51.100.7:34567>" in text(told)


def test_the_relay_as_a_candidate() -> None:
    asked = message(
        "INVITE", body=SDP + "a=ice-ufrag:x\r\na=ice-pwd:y\r\na=candidate:1 1 UDP 1 10.0.0.1 4 typ host\r\n"
    )
    told = of(asked, "203.0.113.5 60000", policy=Policy(ice=IcePolicy.HIGH_PRIORITY))
    assert "a=candidate:Rcb007105 1 UDP 2197815295 203.0.113.5 60000 typ relay raddr" in text(told)
    assert "the relay becomes a candidate of high priority" in str(told)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        pytest.param(message("BYE"), -2, id="bye"),
        pytest.param(message("CANCEL"), -2, id="cancel"),
        pytest.param(message("OPTIONS", sdp=False), -2, id="options"),
        pytest.param(message("REGISTER", "Contact: *"), -2, id="register"),
        pytest.param(message("INVITE"), -2, id="late-offer"),
        pytest.param(message("OPTIONS", body=SDP), -1, id="options-with-sdp"),
        pytest.param(message("INVITE", "Content-Type: text/plain", body="hello", sdp=False), -1, id="text"),
        pytest.param(message("INVITE", body=SESSION + "m=audio x\r\n"), -1, id="broken-sdp"),
        pytest.param(message("INVITE", "From: <", body=SDP), -1, id="broken-from"),
        pytest.param(message("SIP/2.0 486 Busy"), -2, id="refusal"),
        pytest.param(message("SIP/2.0 100 Trying"), -2, id="trying"),
        pytest.param(message("INVITE", body="v=0\r\ns=-\r\n"), 1, id="sdp-without-streams"),
    ],
)
@pytest.mark.parametrize("relay", ["", "203.0.113.5", "203.0.113.5 60000"])
def test_messages_without_a_media_question(asked: Message, code: int, relay: str) -> None:
    told = of(asked, relay)
    assert (told.use_media_proxy, told.message) == (code, asked)
    assert f"use_media_proxy: {code}" in str(told)


@pytest.mark.parametrize(
    ("relay", "error"),
    [
        ("", "'' is not an IP address"),
        ("relay.example.com 60000", "'relay.example.com' is not an IP address"),
        ("203.0.113.5:60000", "is not an IP address"),
        ("203.0.113.5 -1", "'-1' is not a port"),
        ("203.0.113.5 65536", "'65536' is not a port"),
        ("203.0.113.5 \xb2", "is not a port"),
        ("203.0.113.5 60000,60002", "is not a port"),
        ("203.0.113.5 65535", "port 65535 leaves none for RTCP"),
    ],
)
def test_an_answer_that_cannot_be_one(relay: str, error: str) -> None:
    with pytest.raises(RelayError) as raised:
        explain(OFFER, arrival(), POLICY, relay=RelayAnswer.parse(relay))
    assert error in str(raised.value)
    assert 'expected "ADDRESS PORT..."' in str(raised.value)


@pytest.mark.parametrize(
    ("relay", "why"),
    [
        ("203.0.113.5", "0 ports for 1 streams"),
        ("203.0.113.5 60000 60002", "2 ports for 1 streams"),
    ],
)
@pytest.mark.parametrize("start", ["INVITE", "SIP/2.0 200 OK"])
def test_too_few_or_too_many_ports_are_an_error_of_use_media_proxy(start: str, relay: str, why: str) -> None:
    asked = message(start, body=SDP)
    told = of(asked, relay)
    assert (told.use_media_proxy, told.message) == (-1, asked)
    assert why in str(told)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        pytest.param(["m=audio 4 RTP/AVP 0"], -1, id="none"),
        pytest.param(["m=audio 4 RTP/AVP 0", "c=IN IP4 10.0.0.1", "m=video 6 RTP/AVP 31"], -1, id="not-the-second"),
        pytest.param(["m=audio 4 RTP/AVP 0", "c=IN IP4 10.0.0.1", "m=video 0 RTP/AVP 31"], 1, id="rejected"),
        pytest.param(["m=audio 4 RTP/AVP 0", "c=IN IP4 10.0.0.1", "m=message 9 TCP/MSRP *"], 1, id="not-relayed"),
    ],
)
def test_streams_without_a_c_line(lines: list[str], code: int) -> None:
    """RFC 8866 §5.7. The original says so, too."""
    told = of(message("INVITE", body=NO_C + "".join(f"{line}\r\n" for line in lines)))
    assert told.use_media_proxy == code
    assert ("there is no c= line for it" in str(told)) is (code < 0)
    assert len(told.streams) == len([line for line in lines if line.startswith("m=")])


def test_a_stream_for_which_the_relay_has_no_port_stays_as_it_is() -> None:
    asked = message("INVITE", body=SESSION + "m=audio 4 RTP/AVP 0\r\nm=video 6 RTP/AVP 31\r\n")
    told = of(asked, "203.0.113.5 0 60002")
    assert told.use_media_proxy == 1
    written = (
        "c=IN IP4 203.0.113.5\r\nt=0 0\r\nm=audio 4 RTP/AVP 0\r\nc=IN IP4 10.0.0.1\r\nm=video 60002 RTP/AVP 31\r\n"
    )
    assert text(told).endswith(written)
    assert of(OFFER, "203.0.113.5 0").message == OFFER.replace("contact", "<sip:alice@198.51.100.7:34567>")


def stream(line: str, *more: str, session: str = SESSION) -> SdpStream:
    body = session + "".join(f"{one}\r\n" for one in (line, *more))
    (told,) = of(message("OPTIONS", body=body)).streams
    return told


def at(told: SdpStream) -> tuple[str | None, int, int | None]:
    return told.address, told.port, told.rtcp_port


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param(stream("m=audio 4000 RTP/AVP 0"), ("10.0.0.1", 4000, 4001), id="session"),
        pytest.param(stream("m=audio 4000 RTP/AVP 0", "c=IN IP4 10.0.0.2"), ("10.0.0.2", 4000, 4001), id="its-own"),
        pytest.param(stream("m=audio 4000/2 RTP/AVP 0", "c=IN IP4 224.2.1.1/127"), ("224.2.1.1", 4000, 4001), id="ttl"),
        pytest.param(stream("m=audio 0 RTP/AVP 0"), ("10.0.0.1", 0, None), id="rejected"),
        pytest.param(stream("m=audio 0 RTP/AVP 0", "a=rtcp:53020"), ("10.0.0.1", 0, None), id="rejected-with-rtcp"),
        pytest.param(stream("m=audio 4000 RTP/AVP 0", "a=rtcp:53020"), ("10.0.0.1", 4000, 53020), id="a=rtcp"),
        pytest.param(stream("m=audio 4000 RTP/AVP 0", "a=rtcp:0"), ("10.0.0.1", 4000, None), id="a=rtcp:0"),
        pytest.param(
            stream("m=audio 4000 RTP/AVP 0", "a=rtcp:53020 IN IP4 10.0.0.9"), ("10.0.0.1", 4000, 53020), id="elsewhere"
        ),
        pytest.param(stream("m=audio 4000 RTP/AVP 0", "a=rtcp-mux"), ("10.0.0.1", 4000, 4001), id="mux"),
        pytest.param(stream("m=audio 4000 RTP/AVP 0", "a=rtcp-mux-only"), ("10.0.0.1", 4000, None), id="mux-only"),
        pytest.param(stream("m=audio 65535 RTP/AVP 0"), ("10.0.0.1", 65535, None), id="last-port"),
        pytest.param(stream("m=image 4000 udptl t38"), ("10.0.0.1", 4000, None), id="udptl"),
        pytest.param(stream("m=message 2855 TCP/MSRP *"), ("10.0.0.1", 2855, None), id="msrp"),
        pytest.param(stream("m=audio 4000 UDP/TLS/RTP/SAVPF 0"), ("10.0.0.1", 4000, 4001), id="dtls"),
        pytest.param(stream("m=audio 4000 RTP/AVP 0", session=NO_C), (None, 4000, 4001), id="no-c"),
        pytest.param(
            stream("m=audio 4000 RTP/AVP 0", "c=IN IP4 phone.lan", session=NO_C), ("phone.lan", 4000, 4001), id="name"
        ),
        pytest.param(
            stream("m=audio 4000 RTP/AVP 0", "c=IN IP6 2001:DB8::1", session=NO_C),
            ("2001:DB8::1", 4000, 4001),
            id="ipv6-as-written",
        ),
    ],
)  # fmt: skip
def test_streams_as_they_stand_in_the_sdp(told: SdpStream, expected: tuple[str | None, int, int | None]) -> None:
    assert at(told) == expected


def test_streams_say_what_they_are() -> None:
    body = SESSION + "a=sendonly\r\nm=audio 4 RTP/AVP 0\r\na=inactive\r\nm=video 6 RTP/SAVP 31\r\nm=x 0 TCP/MSRP *\r\n"
    told = of(message("INVITE", body=body)).streams
    assert [(one.kind, one.transport, one.direction) for one in told] == [
        ("audio", "RTP/AVP", "inactive"),
        ("video", "RTP/SAVP", "sendonly"),
        ("x", "TCP/MSRP", "sendonly"),
    ]
    assert of(message("INVITE", body=SESSION + "m=audio x\r\n")).streams == ()
    assert of(message("INVITE")).streams == ()


@given(st.sampled_from(sorted(MESSAGES)), st.integers(1, 65534), st.sampled_from(["203.0.113.5", "2001:db8::5"]))
def test_whatever_the_relay_answers_comes_out(name: str, port: int, address: str) -> None:
    asked = parse(MESSAGES[name])
    relay = " ".join([address, *(str(port) for _ in of(asked).streams)])
    told = of(asked, relay)
    wanted = [one.endpoint is not None for one in told.plan.streams]
    again = of(told.message)
    for relayed, stream in zip(wanted, again.streams, strict=False):
        assert not relayed or stream.port == port
    ports = [one.endpoint.port for one in again.plan.streams if one.endpoint is not None]
    assert set(ports) <= {port} and len(ports) == sum(wanted)
    assert of(told.message, relay).message == told.message


def test_a_phone_whose_sdp_has_a_name_is_meant_itself() -> None:
    asked = message("INVITE", body=SESSION.replace("10.0.0.1", "phone.lan") + "m=audio 4000 RTP/AVP 0\r\n")
    told = of(asked, "203.0.113.5 60000")
    assert told.plan.streams[0].endpoint == Endpoint("198.51.100.7", 4000)
    assert "c=IN IP4 203.0.113.5\r\n" in text(told)


@given(anything)
def test_whatever_is_a_message_can_be_explained(data: bytes) -> None:
    asked = parsed(data)
    if asked is None:
        return
    told = explain(asked, arrival(), POLICY, relay=RelayAnswer.pretended())
    assert str(told).replace("\n", "").isprintable()
    assert (told.client_nat_test, told.fix_contact) in ((one, other) for one in (1, -1) for other in (1, -1))
    assert len(told.streams) >= len(told.plan.streams) and isinstance(told.message.values("contact"), tuple)
