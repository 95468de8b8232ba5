"""nat_uac_test: what Kamailio 5.6 cannot show us on loopback. tests/e2e/test_nat_uac.py compares the rest with it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.endpoint import Endpoint
from mediaproxy.nat import Arrival, nat_uac_flags, nat_uac_test
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.header import Uri
from mediaproxy.sip.message import Message
from tests.test_nat_named import CONTACT, SOURCE, VIA, arrival, message, sdp


def flags(asked: Message, source: str = SOURCE, transport: str = "udp", destination: str | None = None) -> int:
    came = Arrival(Endpoint.parse(source), transport, Endpoint("203.0.113.1", 5060))
    return nat_uac_flags(asked, came, None if destination is None else Uri.parse(destination))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (SOURCE, 0),
        ("10.0.0.1:34567", 32),
        ("172.31.0.1:34567", 32),
        ("192.168.0.1:34567", 32),
        ("100.64.0.1:34567", 32),
        ("192.0.0.1:34567", 32),
        ("192.0.1.1:34567", 0),
        ("127.0.0.1:34567", 0),
        ("[::ffff:10.0.0.1]:34567", 32),
        ("[fd00::1]:34567", 0),
    ],
)
def test_32_is_about_the_source(source: str, expected: int) -> None:
    assert flags(message(CONTACT), source) & ~2 == expected


@pytest.mark.parametrize(("transport", "expected"), [("udp", 0), ("tls", 0), ("ws", 64), ("wss", 64), ("WSS", 64)])
def test_64_is_websocket(transport: str, expected: int) -> None:
    assert flags(message(CONTACT), transport=transport) == expected


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        (None, 0),
        ("sip:example.com", 0),
        ("sip:Example.COM:5060", 0),
        ("sip:example.com:5080", 512),
        ("sip:192.0.2.1", 512),
        ("sip:example.com;transport=ws", 512),
        ("sip:example.com;transport=tcp", 0),
        ("tel:1", 512),
    ],
)
def test_512_of_a_request_is_where_it_goes(destination: str | None, expected: int) -> None:
    assert flags(message(CONTACT), destination=destination) == expected


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ("SIP/2.0/UDP 192.0.2.1", 0),
        ("SIP/2.0/UDP 192.0.2.1;received=192.0.2.1", 0),
        ("SIP/2.0/UDP 192.0.2.1;received=192.0.2.1;rport=5060", 0),
        ("SIP/2.0/UDP 192.0.2.1:5070;rport=5070", 0),
        ("SIP/2.0/UDP 192.0.2.1;rport", 0),
        ("SIP/2.0/UDP 10.0.0.1;received=192.0.2.1", 512),
        ("SIP/2.0/UDP 192.0.2.1;received=192.0.2.1;rport=5061", 512),
        ("SIP/2.0/WS x.invalid", 512),
        ("SIP/2.0/WSS 192.0.2.1", 512),
        ("nonsense", 0),
    ],
)
def test_512_of_a_response_is_where_it_goes(second: str, expected: int) -> None:
    """The second Via is the one that it goes to from here."""
    asked = message(CONTACT, via=f"{VIA}, {second}", start="SIP/2.0 200 OK")
    assert flags(asked, destination="sip:192.0.2.99") == expected


def test_a_response_with_one_via_is_ours() -> None:
    assert flags(message(CONTACT, start="SIP/2.0 200 OK")) == 0


@pytest.mark.parametrize("chosen", range(0, 1024, 7))
def test_any_of_the_chosen_is_enough(chosen: int) -> None:
    asked = message("<sip:a@10.0.0.1>", via="SIP/2.0/UDP 10.0.0.1:34567", body=sdp("IP4 198.51.100.7", ""))
    assert flags(asked) == 1 + 2 + 4 + 128
    assert nat_uac_test(asked, arrival(), chosen) is bool(chosen & (1 + 2 + 4 + 128))


def test_other_bits_mean_nothing() -> None:
    assert not nat_uac_test(message("<sip:a@10.0.0.1>", via="x"), arrival("10.0.0.1:1"), 1024 + 2048 + 32768)


_junk = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=20)


@given(
    st.sampled_from([CONTACT, "*", "<", "tel:1"]) | _junk,
    _junk,
    _junk,
    st.sampled_from(["INVITE sip:b@c SIP/2.0", "SIP/2.0 200 OK"]),
)
def test_nothing_that_a_peer_writes_raises(contact: str, via: str, connection: str, start: str) -> None:
    try:
        asked = message(contact, via=f"{VIA}, {via}", body=sdp(f"IP4 {connection}", ""), start=start)
    except SipError:
        return
    flags(asked, destination="sip:x")
