"""The control line: every question and reply survives it, and nothing else gets through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.control import (
    ConfirmRequest,
    Control,
    ControlError,
    Direction,
    EndCause,
    EndRequest,
    KnownBy,
    MediaPort,
    MediaReply,
    MediaRequest,
    Party,
    PayloadType,
    PhoneAddress,
    Stream,
    decode,
    encode,
)
from mediaproxy.endpoint import Endpoint

text = st.text(st.characters(codec="latin-1"), max_size=12)
"What peers write, a character per byte."
small = st.integers(0, 2**31 - 1)
endpoints = st.builds(Endpoint.of, st.ip_addresses().map(str), st.integers(0, 65535))
parties = st.builds(Party, tag=text, uri=text, domain=text, local=st.none() | st.booleans())
streams = st.builds(
    Stream,
    kind=text,
    transport=text,
    endpoint=st.none() | endpoints,
    rtcp=st.none() | endpoints,
    rtcp_mux=st.booleans(),
    direction=st.sampled_from(Direction),
    payload_types=st.lists(
        st.builds(PayloadType, number=st.integers(0, 127), codec=text, clock_rate=small), max_size=3
    ).map(tuple),
    ice=st.booleans(),
    dtls=st.booleans(),
)
dialogs = {"call_id": text, "sender": parties, "receiver": parties, "status": small, "branch": text}
values: st.SearchStrategy[Control] = st.one_of(
    st.builds(
        MediaRequest,
        **dialogs,
        cseq=small,
        sdp_hash=text,
        phone=st.builds(PhoneAddress, endpoint=st.none() | endpoints, known_by=st.sampled_from(KnownBy)),
        contact=text,
        user_agent=text,
        asymmetric=st.booleans(),
        streams=st.lists(streams, max_size=3).map(tuple),
        receiver_version=st.sampled_from([0, 4, 6]),
        dialog_id=text,
        relay_wish=text,
    ),
    st.builds(ConfirmRequest, **dialogs, cseq=small),
    st.builds(EndRequest, **dialogs, cause=st.sampled_from(EndCause)),
    st.builds(
        MediaReply,
        ports=st.lists(st.none() | st.builds(MediaPort, rtp=endpoints, rtcp=st.none() | endpoints), max_size=3).map(
            tuple
        ),
        error=text,
        status=small,
        relay=text,
    ),
)


@given(values)
def test_every_value_survives_the_line(value: Control) -> None:
    line = encode(value)
    assert line.endswith(b"\n") and line.count(b"\n") == 1 and line.startswith(b"{")
    assert decode(line) == value


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\n", id="blank"),
        pytest.param(b"request call-id 192.0.2.1:5004:audio", id="another-dialect"),
        pytest.param(b"[]", id="no-object"),
        pytest.param(b"{}", id="no-type"),
        pytest.param(b'{"type":"nonsense"}', id="unknown-type"),
        pytest.param(b'{"type":"media"}', id="fields-missing"),
        pytest.param(b'{"type":"end","call_id":"x","sender":{},"receiver":{},"cause":"why"}', id="unknown-cause"),
        pytest.param(b'{"type":"reply","ports":[{"rtp":"192.0.2.1"}]}', id="no-endpoint"),
        pytest.param(b'{"type":"reply","status":"503"}', id="text-for-a-number"),
        pytest.param(b'{"type":"reply"', id="cut-off"),
        pytest.param(b'{"type":"reply","error":"\xff"}', id="no-utf-8"),
        pytest.param(b"[" * 100_000, id="deep"),
    ],
)
def test_what_is_no_control_line_is_refused(line: bytes) -> None:
    with pytest.raises(ControlError):
        decode(line)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_value_or_an_error(line: bytes) -> None:
    try:
        value = decode(line)
    except ControlError:
        return
    assert decode(encode(value)) == value


def test_unknown_fields_of_a_newer_peer_are_ignored() -> None:
    assert decode(b'{"type":"reply","colour":"blue","relay":"r1"}') == MediaReply(relay="r1")


@pytest.mark.parametrize(
    ("stream", "rtp", "held"),
    [
        pytest.param(Stream(kind="audio", transport="RTP/AVP"), True, False, id="plain"),
        pytest.param(Stream(kind="audio", transport="udp/tls/rtp/savpf"), True, False, id="dtls-srtp"),
        pytest.param(Stream(kind="image", transport="udptl"), False, False, id="udptl"),
        pytest.param(Stream(kind="audio", transport="RTP/AVP", endpoint=Endpoint("0.0.0.0", 4)), True, True, id="zero"),
        pytest.param(Stream(kind="audio", transport="RTP/AVP", endpoint=Endpoint("::", 4)), True, True, id="zero-ipv6"),
        pytest.param(
            Stream(kind="audio", transport="RTP/AVP", direction=Direction.SENDONLY), True, True, id="sendonly"
        ),
        pytest.param(
            Stream(kind="audio", transport="RTP/AVP", direction=Direction.INACTIVE), True, True, id="inactive"
        ),
        pytest.param(
            Stream(kind="audio", transport="RTP/AVP", direction=Direction.RECVONLY), True, False, id="recvonly"
        ),
    ],
)
def test_what_a_stream_says_of_itself(stream: Stream, rtp: bool, held: bool) -> None:
    assert (stream.rtp, stream.held) == (rtp, held)
