"""nat_test: each name, what makes it fire and what does not."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.endpoint import Endpoint
from mediaproxy.nat import NAMED_TESTS, Arrival, client_nat_test, named_tests, nat_test, nat_tests
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Message, parse

SOURCE = "198.51.100.7:34567"
VIA = f"SIP/2.0/UDP {SOURCE};branch=z9hG4bKx"
CONTACT = f"<sip:a@{SOURCE}>"


def arrival(source: str = SOURCE) -> Arrival:
    return Arrival(Endpoint.parse(source), "udp", Endpoint("203.0.113.1", 5060))


def sdp(*connections: str) -> str:
    """The first is the session's, "" for none."""
    session, *streams = connections
    lines = ["v=0", "o=- 1 1 IN IP4 10.9.9.9", "s=-", *([f"c=IN {session}"] if session else []), "t=0 0"]
    for connection in streams:
        lines += ["m=audio 4000 RTP/AVP 0", *([f"c=IN {connection}"] if connection else [])]
    return "\r\n".join([*lines, ""])


def message(*contacts: str, via: str = VIA, body: str = "", start: str = "INVITE sip:b@example.com SIP/2.0") -> Message:
    lines = [start, f"Via: {via}", "CSeq: 1 INVITE", *(f"Contact: {value}" for value in contacts)]
    if body:
        lines += ["Content-Type: application/sdp"]
    return parse("\r\n".join([*lines, "", body]).encode("latin-1"))


def test_the_names() -> None:
    assert list(NAMED_TESTS) == [
        "contact-private",
        "source-differs",
        "via-private",
        "sdp-private",
        "port-differs",
        "cgn",
        "contact-differs",
        "ula",
    ]
    with pytest.raises(KeyError):
        nat_test(message(), arrival(), "x")


def test_the_documentation_has_them_all() -> None:
    text = (Path(__file__).parents[1] / "docs/nat.md").read_text("utf-8")
    table = text[text.index("| name | fires if |") : text.index("`nat_uac_test(flags)`")]
    first = "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    assert re.findall(r"`([a-z-]+)`", first) == list(NAMED_TESTS)


@pytest.mark.parametrize(
    ("asked", "source", "fired"),
    [
        pytest.param(message(CONTACT), SOURCE, "", id="a-public-phone"),
        pytest.param(message(), SOURCE, "", id="no-contact"),
        pytest.param(message("*"), SOURCE, "", id="star"),
        pytest.param(message("<tel:+1>"), SOURCE, "", id="tel"),
        pytest.param(message("<sip:a@"), SOURCE, "", id="unreadable-contact"),
        pytest.param(message(CONTACT, via="nonsense"), SOURCE, "", id="unreadable-via"),
        # the original's
        pytest.param(message("<sip:a@10.0.0.1:34567>"), SOURCE, "contact-private contact-differs", id="contact"),
        pytest.param(
            message(CONTACT, via="SIP/2.0/UDP 10.0.0.1:34567"), SOURCE, "source-differs via-private", id="private-via"
        ),
        # port-differs
        pytest.param(
            message(CONTACT, via="SIP/2.0/UDP 198.51.100.7:5060"), SOURCE, "source-differs port-differs", id="via-port"
        ),
        pytest.param(
            message(CONTACT, via="SIP/2.0/UDP 198.51.100.7"), SOURCE, "source-differs port-differs", id="via-no-port"
        ),
        pytest.param(
            message("<sip:a@198.51.100.7>", via="SIP/2.0/UDP 198.51.100.7"), "198.51.100.7:5060", "",
            id="via-default-port",
        ),
        pytest.param(
            message(CONTACT, via=f"SIP/2.0/UDP {SOURCE};received=198.51.100.7"), SOURCE, "source-differs", id="received"
        ),
        # contact-differs
        pytest.param(message("<sip:a@198.51.100.7:5060>"), SOURCE, "contact-differs", id="contact-port"),
        pytest.param(message("<sip:a@198.51.100.7>"), SOURCE, "contact-differs", id="contact-no-port"),
        pytest.param(message("<sip:a@192.0.2.1:34567>"), SOURCE, "contact-differs", id="contact-host"),
        pytest.param(message("<sip:a@phone.example.com:34567>"), SOURCE, "contact-differs", id="contact-name"),
        pytest.param(message(f"{CONTACT}, <sip:a@192.0.2.1>"), SOURCE, "contact-differs", id="second-contact"),
        pytest.param(message(CONTACT, "<sip:a@192.0.2.1>"), SOURCE, "contact-differs", id="second-line"),
        # sdp-private
        pytest.param(message(CONTACT, body=sdp("IP4 198.51.100.7", "")), SOURCE, "", id="sdp-public"),
        pytest.param(message(CONTACT, body=sdp("IP4 10.0.0.1", "")), SOURCE, "sdp-private", id="sdp-session"),
        pytest.param(message(CONTACT, body=sdp("IP4 192.168.0.1")), SOURCE, "sdp-private", id="sdp-no-streams"),
        pytest.param(message(CONTACT, body=sdp("", "IP4 172.16.0.1")), SOURCE, "sdp-private", id="sdp-stream"),
        pytest.param(
            message(CONTACT, body=sdp("IP4 0.0.0.0", "IP4 192.0.2.1", "IP4 172.16.0.1")), SOURCE, "sdp-private",
            id="sdp-last-stream",
        ),
        pytest.param(message(CONTACT, body=sdp("IP4 10.0.0.1/127", "")), SOURCE, "sdp-private", id="sdp-ttl"),
        pytest.param(message(CONTACT, body=sdp("IP4 phone.lan", "")), SOURCE, "", id="sdp-name"),
        pytest.param(message(CONTACT, body=sdp("IP4 127.0.0.1", "")), SOURCE, "", id="sdp-loopback"),
        pytest.param(message(CONTACT, body="v=0\r\nc=IN IP4 10.0.0.1\r\nm=broken\r\n"), SOURCE, "", id="sdp-broken"),
        # cgn
        pytest.param(message("<sip:a@100.64.0.1:34567>"), SOURCE, "cgn contact-differs", id="cgn-contact"),
        pytest.param(message("<sip:a@100.127.255.255:34567>"), SOURCE, "cgn contact-differs", id="cgn-last"),
        pytest.param(message("<sip:a@100.63.255.255:34567>"), SOURCE, "contact-differs", id="cgn-below"),
        pytest.param(message("<sip:a@100.128.0.0:34567>"), SOURCE, "contact-differs", id="cgn-above"),
        pytest.param(message(CONTACT, via="SIP/2.0/UDP 100.64.1.1:34567"), SOURCE, "source-differs cgn", id="cgn-via"),
        pytest.param(
            message(CONTACT, via=f"SIP/2.0/UDP {SOURCE}, SIP/2.0/UDP 100.64.1.1"), SOURCE, "", id="cgn-second-via"
        ),
        pytest.param(message(CONTACT, body=sdp("IP4 192.0.2.1", "IP4 100.64.1.1")), SOURCE, "cgn", id="cgn-sdp"),
        pytest.param(
            message("<sip:a@100.64.0.1:5060>", via="SIP/2.0/UDP 100.64.0.1"), "100.64.0.1:5060", "cgn",
            id="cgn-phone-beside-us",
        ),
        pytest.param(
            message("<sip:a@192.0.2.1:5060>", via="SIP/2.0/UDP 192.0.2.1"), "100.64.0.1:5060",
            "source-differs contact-differs", id="cgn-is-not-about-the-source",
        ),
        # ula
        pytest.param(message("<sip:a@[fd00::1]:34567>"), SOURCE, "contact-differs ula", id="ula-contact"),
        pytest.param(message("<sip:a@[FC12:0::1]:34567>"), SOURCE, "contact-differs ula", id="ula-any-spelling"),
        pytest.param(message("<sip:a@[fe80::1]:34567>"), SOURCE, "contact-differs", id="ula-link-local"),
        pytest.param(
            message("<sip:a@[2001:db8::7]:5060>", via="SIP/2.0/UDP [fd00::1]"), "[2001:db8::7]:5060",
            "source-differs ula", id="ula-via",
        ),
        pytest.param(message(CONTACT, body=sdp("IP6 fd12:3456::1", "")), SOURCE, "ula", id="ula-sdp"),
        pytest.param(
            message("<sip:a@[2001:db8::7]:5060>", via="SIP/2.0/UDP [2001:db8::7]"), "[2001:db8::7]:5060", "",
            id="ipv6-public",
        ),
        # responses: the top Via is ours
        pytest.param(
            message(CONTACT, via="SIP/2.0/UDP 203.0.113.1", start="SIP/2.0 200 OK"), SOURCE, "source-differs",
            id="response",
        ),
        pytest.param(
            message(CONTACT, via="SIP/2.0/UDP 100.64.0.1", start="SIP/2.0 200 OK"), SOURCE, "source-differs",
            id="response-of-a-server-inside-a-cgn",
        ),
        pytest.param(
            message("<sip:a@100.64.0.1>", start="SIP/2.0 200 OK"), SOURCE, "cgn contact-differs", id="response-contact"
        ),
    ],
)  # fmt: skip
def test_what_fires(asked: Message, source: str, fired: str) -> None:
    assert " ".join(name for name in NAMED_TESTS if nat_test(asked, arrival(source), name)) == fired
    verdicts = named_tests(asked, arrival(source))
    assert " ".join(verdict.name for verdict in verdicts if verdict.fired) == fired
    assert [verdict.name for verdict in verdicts] == list(NAMED_TESTS)
    assert all(verdict.reason for verdict in verdicts)
    for verdict, test in zip(nat_tests(asked, arrival(source)), (1, 2, 4), strict=True):
        assert client_nat_test(asked, arrival(source), test) is nat_test(asked, arrival(source), verdict.name)


@pytest.mark.parametrize(
    ("asked", "name", "fires"),
    [
        (message(CONTACT, via="SIP/2.0/UDP 198.51.100.7:5060"), "port-differs", False),
        (message(CONTACT, via="SIP/2.0/UDP 198.51.100.7:5060"), "source-differs", False),
        (message("<sip:a@198.51.100.7:5060>"), "contact-differs", False),
        (message("<sip:a@192.0.2.1:5060>"), "contact-differs", True),
    ],
)
def test_ports_of_sip_asymmetric_clients_are_not_compared(asked: Message, name: str, fires: bool) -> None:
    assert nat_test(asked, arrival(), name)
    assert nat_test(asked, arrival(), name, sip_asymmetric=True) is fires


def test_the_verdicts_say_why() -> None:
    asked = message("<sip:a@100.64.0.1>", via="SIP/2.0/UDP 192.168.1.2", body=sdp("IP4 10.0.0.1", ""))
    assert {(verdict.name, verdict.test, verdict.reason) for verdict in named_tests(asked, arrival())} == {
        ("contact-private", 1, "no private address in Contact (100.64.0.1)"),
        ("source-differs", 2, "the packet came from 198.51.100.7, the top Via says 192.168.1.2"),
        ("via-private", 4, "the top Via has the private address 192.168.1.2"),
        ("sdp-private", 0, "the SDP has the private address 10.0.0.1"),
        ("port-differs", 0, "the packet came from port 34567, the top Via says 5060"),
        ("cgn", 0, "Contact has the carrier-grade NAT address 100.64.0.1"),
        ("contact-differs", 0, "the packet came from 198.51.100.7 port 34567, a Contact says 100.64.0.1 without port"),
        ("ula", 0, "no unique local address in Contact, Via or SDP"),
    }


def test_an_sdp_of_thousands_of_streams_is_not_read() -> None:
    asked = message(CONTACT, body=sdp("IP4 10.0.0.1", *[""] * 2000))
    assert not nat_test(asked, arrival(), "sdp-private")


_junk = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=20)


@given(
    st.lists(st.sampled_from([CONTACT, "*", "<sip:a@[fd00::1%25x]>", "<", "tel:1"]) | _junk, max_size=3), _junk, _junk
)
def test_nothing_that_a_peer_writes_raises(contacts: list[str], via: str, connection: str) -> None:
    try:
        asked = message(*contacts, via=via, body=sdp(f"IP4 {connection}", ""))
    except SipError:
        return
    named_tests(asked, arrival())
