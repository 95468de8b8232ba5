"""Who is behind a NAT, and what is repaired: each sentence of the rules is a row."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.endpoint import Endpoint
from mediaproxy.nat import (
    Arrival,
    client_nat_test,
    fix_contact,
    force_rport,
    is_keep_alive,
    is_rfc1918,
    nat_tests,
    note_source,
)
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Message, parse

SOURCE = "198.51.100.7:34567"


def arrival(source: str = SOURCE) -> Arrival:
    return Arrival(Endpoint.parse(source), "udp", Endpoint("203.0.113.1", 5060))


def request(*headers: str, via: str = "SIP/2.0/UDP 198.51.100.7:34567;branch=z9hG4bKx") -> Message:
    lines = ["REGISTER sip:example.com SIP/2.0", f"Via: {via}", "CSeq: 1 REGISTER", *headers, "", ""]
    return parse("\r\n".join(lines).encode("latin-1"))


def contact(*values: str) -> Message:
    return request(*[f"Contact: {value}" for value in values])


def contacts_of(message: Message | None) -> list[str] | None:
    return None if message is None else list(message.headers("contact"))


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("10.0.0.1", True),
        ("172.16.0.1", True),
        ("172.31.255.255", True),
        ("172.32.0.1", False),
        ("192.168.255.1", True),
        ("192.169.0.1", False),
        ("127.0.0.1", False),
        ("169.254.1.1", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("198.51.100.7", False),
        ("10.1", True),
        ("10", False),
        ("167772161", True),
        ("012.0.0.1", True),
        ("0xa.0.0.1", True),
        ("0XC0.168.1.1", True),
        ("10.0.0.256", False),
        ("10.0x1000000", False),
        ("10.0.0.0.1", False),
        ("08.0.0.1", False),
        ("10.0.0.1.", False),
        ("10..0.1", False),
        ("", False),
        ("10.example.com", False),
        ("[fd00::1]", False),
        ("[::ffff:10.0.0.1]", True),
        ("[10.0.0.1]", True),
        ("9" * 5000, False),
        ("1." * 5000, False),
    ],
)
def test_private_addresses(host: str, private: bool) -> None:
    assert is_rfc1918(host) is private


@pytest.mark.parametrize(
    ("values", "fires"),
    [
        pytest.param(["<sip:a@10.0.0.1>"], True, id="private"),
        pytest.param(["<sip:a@198.51.100.7>"], False, id="public"),
        pytest.param(["<sip:a@phone.example.com>"], False, id="names-are-not-resolved"),
        pytest.param(["<sip:a@[fd00::1]>"], False, id="ipv6-is-never-private"),
        pytest.param(["*"], False, id="star"),
        pytest.param([], False, id="no-contact"),
        pytest.param(["<tel:+10.0.0.1>"], False, id="no-sip-uri"),
        pytest.param(["<sip:10.0.0.1@198.51.100.7>"], False, id="private-user-part"),
        pytest.param(["<sip:a@198.51.100.7;maddr=10.0.0.1>"], False, id="private-maddr"),
        pytest.param(["<sip:a@198.51.100.7>, <sip:a@10.0.0.1>"], True, id="any-of-a-line"),
        pytest.param(["<sip:a@10.0.0.1>, <sip:a@198.51.100.7>"], True, id="first-of-a-line"),
        pytest.param(["<sip:a@198.51.100.7>", "<sip:a@10.0.0.1>"], True, id="any-line"),
        pytest.param(["<sip:a@10.0.0.1"], False, id="unreadable"),
        pytest.param(["<sip:a@10.0.0.1", "<sip:a@192.168.0.1>"], True, id="unreadable-one-is-skipped"),
        pytest.param(['"x, <sip:y@198.51.100.7>" <sip:a@10.0.0.1>'], True, id="address-in-the-name"),
        pytest.param(["sip:a@10.0.0.1:5062;transport=udp"], True, id="no-brackets"),
        pytest.param(["sips:a@10.0.0.1"], True, id="sips"),
        pytest.param(["Bob sip:a@10.0.0.1"], True, id="bare-name-and-no-brackets"),
    ],
)
def test_bit_1_private_contact(values: list[str], fires: bool) -> None:
    message = contact(*values)
    assert client_nat_test(message, arrival(), 1) is fires
    assert nat_tests(message, arrival())[0].fired is fires
    assert not client_nat_test(message, arrival(), 0)
    assert not client_nat_test(message, arrival(), 2 | 4 | 8)


@pytest.mark.parametrize(
    ("sent_by", "source", "fires", "asymmetric"),
    [
        pytest.param("198.51.100.7:34567", SOURCE, False, False, id="equal"),
        pytest.param("198.51.100.7", "198.51.100.7:5060", False, False, id="default-port"),
        pytest.param("198.51.100.7", SOURCE, True, True, id="default-port-differs"),
        pytest.param("198.51.100.7:5060", SOURCE, True, True, id="port-differs"),
        pytest.param("192.168.1.2:34567", SOURCE, True, False, id="address-differs"),
        pytest.param("198.51.100.70:34567", SOURCE, True, False, id="longer-address"),
        pytest.param("198.51.100.7:34567", "198.51.100.77:34567", True, False, id="no-prefix-comparison"),
        pytest.param("phone.example.com:34567", SOURCE, True, False, id="host-name"),
        pytest.param("[2001:DB8::7]:5060", "[2001:db8::7]:5060", False, False, id="ipv6-by-value"),
        pytest.param("[2001:db8:0:0:0:0:0:7]", "[2001:db8::7]:5060", False, False, id="ipv6-spelled-out"),
        pytest.param("[2001:db8::8]", "[2001:db8::7]:5060", True, False, id="ipv6-differs"),
        pytest.param("[fe80::7%eth0]", "[fe80::7]:5060", False, False, id="zone"),
        pytest.param("[fe80::7]", "[fe80::7%en1]:5060", False, False, id="zone-of-ours"),
        pytest.param("198.51.100.7:34567", "[::ffff:198.51.100.7]:34567", False, False, id="mapped-source"),
        pytest.param("198.51.100.7:34567;received=198.51.100.7", SOURCE, True, False, id="received"),
        pytest.param("198.51.100.7:34567;received", SOURCE, True, False, id="received-without-value"),
        pytest.param("198.51.100.7:34567;rport", SOURCE, False, False, id="rport-says-nothing"),
        pytest.param("198.51.100.7:34567;maddr=10.0.0.1", SOURCE, False, False, id="maddr-says-nothing"),
        pytest.param("198.51.100.7 : 34567 ;branch=x", SOURCE, False, False, id="white-space"),
    ],
)
def test_bit_2_source_differs(sent_by: str, source: str, fires: bool, asymmetric: bool) -> None:
    """``asymmetric``: the port alone makes it fire, so it doesn't for SIP-asymmetric clients."""
    message = request(via=f"SIP/2.0/UDP {sent_by}")
    assert client_nat_test(message, arrival(source), 2) is fires
    assert client_nat_test(message, arrival(source), 2, sip_asymmetric=True) is (fires and not asymmetric)
    assert not client_nat_test(message, arrival(source), 1)


@pytest.mark.parametrize(
    ("via", "fires"),
    [
        pytest.param("SIP/2.0/UDP 192.168.1.2", True, id="private"),
        pytest.param("SIP/2.0/UDP 192.168.1.2:5060;received=198.51.100.7", True, id="sent-by-counts"),
        pytest.param("SIP/2.0/UDP 198.51.100.7;received=192.168.1.2", False, id="received-does-not"),
        pytest.param("SIP/2.0/UDP 198.51.100.7, SIP/2.0/UDP 192.168.1.2", False, id="only-the-top-one"),
        pytest.param("SIP/2.0/UDP 192.168.1.2, SIP/2.0/UDP 198.51.100.7", True, id="top-one-of-a-line"),
        pytest.param("SIP/2.0/UDP phone.lan", False, id="host-name"),
        pytest.param("nonsense", False, id="unreadable"),
    ],
)
def test_bit_4_private_via(via: str, fires: bool) -> None:
    assert client_nat_test(request(via=via), arrival(), 4) is fires


def test_the_verdicts_say_why() -> None:
    message = request("Contact: <sip:a@10.0.0.1>", via="SIP/2.0/UDP 192.168.1.2:5060")
    assert [(verdict.test, verdict.fired, verdict.reason) for verdict in nat_tests(message, arrival())] == [
        (1, True, "Contact has the private address 10.0.0.1"),
        (2, True, "the packet came from 198.51.100.7, the top Via says 192.168.1.2"),
        (4, True, "the top Via has the private address 192.168.1.2"),
    ]


@pytest.mark.parametrize(
    ("before", "after", "asymmetric"),
    [
        pytest.param(
            ['"Alice" <sip:alice@192.168.1.10:5060;line=7>;expires=3600'],
            ['"Alice" <sip:alice@198.51.100.7:34567;line=7>;expires=3600'],
            ['"Alice" <sip:alice@198.51.100.7:5060;line=7>;expires=3600'],
            id="as-documented",
        ),
        pytest.param(["<sip:a@10.0.0.1>"], ["<sip:a@198.51.100.7:34567>"], ["<sip:a@198.51.100.7>"], id="no-port"),
        pytest.param(
            ["<sip:a@198.51.100.7:5060>"],
            ["<sip:a@198.51.100.7:34567>"],
            ["<sip:a@198.51.100.7:5060>"],
            id="another-port-of-the-source",
        ),
        pytest.param(
            ["<sip:a@198.51.100.7>"], ["<sip:a@198.51.100.7:34567>"], ["<sip:a@198.51.100.7>"], id="default-port"
        ),
        pytest.param(
            ["<sip:a@198.51.100.7:34567>"], ["<sip:a@198.51.100.7:34567>"], ["<sip:a@198.51.100.7:34567>"], id="right"
        ),
        pytest.param(
            ["sip:bob@10.0.0.1:5062;transport=udp"],
            ["sip:bob@198.51.100.7:34567;transport=udp"],
            ["sip:bob@198.51.100.7:5062;transport=udp"],
            id="no-brackets",
        ),
        pytest.param(
            ["Bob sip:bob@10.0.0.1:5062;q=1"],
            ["Bob sip:bob@198.51.100.7:34567;q=1"],
            ["Bob sip:bob@198.51.100.7:5062;q=1"],
            id="bare-name-and-no-brackets",
        ),
        pytest.param(
            ["sip:a@10.0.0.1?x=y"],
            ["sip:a@198.51.100.7:34567?x=y"],
            ["sip:a@198.51.100.7?x=y"],
            id="headers-and-no-brackets",
        ),
        pytest.param(
            ['<sip:a:pw@10.0.0.1;transport=tcp;maddr=10.0.0.2?X=y>;q=0.5;+sip.instance="<urn:uuid:1>"'],
            ['<sip:a:pw@198.51.100.7:34567;transport=tcp;maddr=10.0.0.2?X=y>;q=0.5;+sip.instance="<urn:uuid:1>"'],
            ['<sip:a:pw@198.51.100.7;transport=tcp;maddr=10.0.0.2?X=y>;q=0.5;+sip.instance="<urn:uuid:1>"'],
            id="parameters-stay",
        ),
        pytest.param(
            ["<sip:a@10.0.0.1>, <sip:b@10.0.0.2:7>", "<sip:c@host.example>"],
            ["<sip:a@198.51.100.7:34567>, <sip:b@198.51.100.7:34567>", "<sip:c@198.51.100.7:34567>"],
            ["<sip:a@198.51.100.7>, <sip:b@198.51.100.7:7>", "<sip:c@198.51.100.7>"],
            id="all-contacts",
        ),
        pytest.param(
            ['"q\\", <sip:x@10.0.0.9>" <sip:a@10.0.0.1>'],
            ['"q\\", <sip:x@10.0.0.9>" <sip:a@198.51.100.7:34567>'],
            ['"q\\", <sip:x@10.0.0.9>" <sip:a@198.51.100.7>'],
            id="address-in-the-name",
        ),
        pytest.param(
            ["<sips:a@10.0.0.1>, <tel:+1>"],
            ["<sips:a@198.51.100.7:34567>, <tel:+1>"],
            ["<sips:a@198.51.100.7>, <tel:+1>"],
            id="sips-but-not-tel",
        ),
        pytest.param(["<sip:10.0.0.1>"], ["<sip:198.51.100.7:34567>"], ["<sip:198.51.100.7>"], id="no-user"),
        pytest.param(
            ["<sip:caf\xe9@10.0.0.1>;x=\xff"],
            ["<sip:caf\xe9@198.51.100.7:34567>;x=\xff"],
            ["<sip:caf\xe9@198.51.100.7>;x=\xff"],
            id="latin-1",
        ),
        pytest.param(
            ["<sip:a@10.0.0.1", "<sip:b@10.0.0.1>"],
            ["<sip:a@10.0.0.1", "<sip:b@198.51.100.7:34567>"],
            ["<sip:a@10.0.0.1", "<sip:b@198.51.100.7>"],
            id="unreadable-one-stays",
        ),
        pytest.param([], None, None, id="no-contact"),
        pytest.param(["*"], None, None, id="star"),
        pytest.param(["<tel:+1>"], None, None, id="tel-only"),
        pytest.param(["<sip:a@10.0.0.1"], None, None, id="unreadable"),
    ],
)
def test_fix_contact(before: list[str], after: list[str] | None, asymmetric: list[str] | None) -> None:
    message = contact(*before)
    fixed = fix_contact(message, arrival())
    assert contacts_of(fixed) == after
    assert contacts_of(fix_contact(message, arrival(), sip_asymmetric=True)) == asymmetric
    if fixed is not None:
        assert fix_contact(fixed, arrival()) is fixed
        assert fixed.remove("contact") == message.remove("contact")


@pytest.mark.parametrize(
    ("uri", "source", "fixed"),
    [
        pytest.param("sip:a@[fd00::2]:5060", "[2001:db8::7]:34567", "sip:a@[2001:db8::7]:34567", id="ipv6"),
        pytest.param("sip:a@10.0.0.1", "[2001:db8::7]:34567", "sip:a@[2001:db8::7]:34567", id="ipv4-contact"),
        pytest.param("sip:a@[fd00::2]", "198.51.100.7:5060", "sip:a@198.51.100.7:5060", id="ipv6-contact"),
        pytest.param("sip:a@[2001:DB8:0::7]:5060", "[2001:db8::7]:5060", "sip:a@[2001:DB8:0::7]:5060", id="same-value"),
        pytest.param("sip:a@198.51.100.7:9", "[::ffff:198.51.100.7]:9", "sip:a@198.51.100.7:9", id="mapped-source"),
        pytest.param("sip:a@[fe80::7%25eth0]:9", "[fe80::7]:9", "sip:a@[fe80::7%25eth0]:9", id="zone"),
    ],
)
def test_fix_contact_of_both_families(uri: str, source: str, fixed: str) -> None:
    message = fix_contact(contact(f"<{uri}>"), arrival(source))
    assert contacts_of(message) == [f"<{fixed}>"]


def test_fix_contact_from_a_link_local_source_leaves_out_the_zone() -> None:
    source = Arrival(Endpoint("fe80::7%eth0", 5060), "udp", Endpoint("fe80::1", 5060))
    assert contacts_of(fix_contact(contact("<sip:a@host>"), source)) == ["<sip:a@[fe80::7]:5060>"]


def test_thousands_of_contacts_are_fixed_in_one_pass() -> None:
    message = request("Contact: " + ",".join(["<sip:h>"] * 7000))
    begin = time.process_time()
    fixed = fix_contact(message, arrival())
    assert time.process_time() - begin < 2
    assert fixed is not None and set(fixed.values("contact")) == {"<sip:198.51.100.7:34567>"}


@given(st.lists(st.lists(st.sampled_from(["<sip:a>", '"x, y" <sip:b@c>;q=1', "*", "  ", ""]), max_size=3), max_size=3))
def test_values_replaced_at_once_are_those_replaced_one_by_one(lines: list[list[str]]) -> None:
    message = request(*[f"Contact:{' ,'.join(line)} " for line in lines])
    texts = {index: f"<sip:new{index}>" for index in range(0, len(message.values("contact")), 2)}
    expected = message
    for index, text in texts.items():
        expected = expected.replace_value("contact", index, text)
    assert message.replace_values("contact", texts) == expected
    with pytest.raises(IndexError):
        message.replace_values("contact", {len(message.values("contact")): "x"})


@pytest.mark.parametrize(
    ("params", "source", "noted", "forced"),
    [
        pytest.param("", SOURCE, "", ";received=198.51.100.7;rport=34567", id="equal"),
        pytest.param(
            ";rport", SOURCE, ";rport=34567;received=198.51.100.7", ";rport=34567;received=198.51.100.7", id="asked-for"
        ),
        pytest.param("", "192.0.2.9:7", ";received=192.0.2.9", ";received=192.0.2.9;rport=7", id="another-address"),
        pytest.param(
            ";received=1.2.3.4;rport=99;branch=x",
            SOURCE,
            ";received=198.51.100.7;rport=34567;branch=x",
            ";received=198.51.100.7;rport=34567;branch=x",
            id="what-the-peer-wrote-is-overwritten",
        ),
        pytest.param(
            ";RPORT ; Branch=x",
            SOURCE,
            ";RPORT=34567 ; Branch=x;received=198.51.100.7",
            ";RPORT=34567 ; Branch=x;received=198.51.100.7",
            id="spelling-stays",
        ),
        pytest.param(
            ";rport",
            "[2001:db8::7]:5060",
            ";rport=5060;received=2001:db8::7",
            ";rport=5060;received=2001:db8::7",
            id="ipv6-without-brackets",
        ),
    ],
)
def test_received_and_rport(params: str, source: str, noted: str, forced: str) -> None:
    via = "SIP/2.0/UDP 198.51.100.7:34567"
    rest = ", SIP/2.0/UDP 10.0.0.1;rport"
    message = request(via=f"{via}{params}{rest}")
    assert note_source(message, arrival(source)) == request(via=f"{via}{noted}{rest}")
    assert force_rport(message, arrival(source)) == request(via=f"{via}{forced}{rest}")


def test_a_zone_in_via_is_no_other_address() -> None:
    message = request(via="SIP/2.0/UDP [fe80::7%eth0]:5060;branch=x")
    assert note_source(message, arrival("[fe80::7]:5060")) is message


def test_a_name_in_via_is_noted_with_its_address() -> None:
    noted = note_source(request(via="SIP/2.0/TCP phone.lan"), arrival())
    assert noted == request(via="SIP/2.0/TCP phone.lan;received=198.51.100.7")


def test_responses_and_broken_vias_are_left_alone() -> None:
    response = parse(b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.0.0.1;rport\r\nCSeq: 1 INVITE\r\n\r\n")
    broken = request(via="nonsense")
    for change in (note_source, force_rport):
        assert change(response, arrival()) is response
        assert change(broken, arrival()) is broken


@pytest.mark.parametrize(
    ("datagram", "expected"),
    [
        (b"\0\0\0\0", True),
        (b"\r\n\r\n", True),
        (b"\r\n", True),
        (b"\0", True),
        (b"", True),
        (b"\r\n\r\nOPTIONS sip:x SIP/2.0", False),
        (b"hello", False),
    ],
)
def test_keep_alives(datagram: bytes, expected: bool) -> None:
    assert is_keep_alive(datagram) is expected


_junk = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=30)
_values = (
    st.sampled_from(["<sip:a@10.0.0.1>", "*", '"x" <sip:y@[::1]:5>;q=1', "sip:h", "<", '"', "a,b", "tel:1"]) | _junk
)


@given(st.lists(_values, max_size=4), _junk | st.just("SIP/2.0/UDP 10.0.0.1;rport"), st.booleans())
def test_nothing_that_a_peer_writes_raises(values: list[str], via: str, asymmetric: bool) -> None:
    try:
        message = request(*[f"Contact: {value}" for value in values], via=via)
    except SipError:
        return
    for tests in range(8):
        client_nat_test(message, arrival(), tests, asymmetric)
    nat_tests(message, arrival(), asymmetric)
    force_rport(note_source(message, arrival()), arrival())
    fixed = fix_contact(message, arrival(), asymmetric)
    if fixed is not None:
        assert fix_contact(fixed, arrival(), asymmetric) is fixed
        assert parse(bytes(fixed)) == fixed
