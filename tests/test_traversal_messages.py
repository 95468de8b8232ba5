"""Messages that a server before us sends on: repaired, with relay ports, and otherwise as they came."""

from pathlib import Path

import pytest

from mediaproxy.control import MediaReply
from mediaproxy.policy import Policy
from mediaproxy.sdp import IcePolicy
from mediaproxy.sip.message import Message, parse
from mediaproxy.traversal import plan, repair
from tests.test_traversal import PHONE, POLICY, PROXY, SIPTONE, arrival, message, relay

MESSAGES = Path(__file__).parent / "messages"


# Whole messages, byte for byte


@pytest.mark.parametrize(
    ("name", "source", "reply", "ice"),
    [
        ("invite-behind-nat", PHONE, relay(60000, 60002), IcePolicy.REMOVE),
        ("compact-folded-two-contacts", PHONE, relay(60000), IcePolicy.REMOVE),
        ("hold-by-zero-address", PHONE, relay(60000), IcePolicy.REMOVE),
        ("answer-with-rejected-video", PHONE, relay(60000, 0), IcePolicy.REMOVE),
        ("chat-beside-audio", PHONE, relay(0, 60000), IcePolicy.REMOVE),
        ("ice-and-dtls-lf-only-body", PHONE, relay(60000), IcePolicy.REMOVE),
        ("multipart-isup", PHONE, relay(60000), IcePolicy.REMOVE),
        ("latin-1-everywhere", PHONE, relay(60000), IcePolicy.REMOVE),
        ("lf-only-no-content-length", PHONE, relay(60000), IcePolicy.REMOVE),
        ("length-left-by-an-alg", PHONE, relay(60000), IcePolicy.REMOVE),
        ("ipv6-offer", "[2001:db8::7]:5060", relay(60000, address="2001:db8::5"), IcePolicy.REMOVE),
    ],
)
def test_pairs_of_messages(name: str, source: str, reply: MediaReply, ice: IcePolicy) -> None:
    """tests/messages: NAME.sip as a phone behind a NAT sent it, NAME.relayed.sip as it goes on."""
    came = parse((MESSAGES / f"{name}.sip").read_bytes())
    policy = Policy(sip_asymmetric=SIPTONE, rtp_asymmetric=SIPTONE, ice=ice)
    planned = plan(came, arrival(source), policy)
    assert planned.failure(reply) is None
    repaired = repair(came, arrival(source), policy)
    sent = planned.complete(reply, repaired.message)
    assert bytes(sent) == (MESSAGES / f"{name}.relayed.sip").read_bytes()
    # The next hop may be a copy of ourselves: it finds nothing more to change.
    again = plan(sent, arrival(source), policy)
    assert again.complete(reply, sent) == sent


# Repairs


def direct(via: str, contact: str, *more: str) -> Message:
    return message("INVITE", f"Via: SIP/2.0/UDP {via}", *more, f"Contact: <sip:a@{contact}>")


@pytest.mark.parametrize(
    ("asked", "source", "nat", "via", "contact"),
    [
        pytest.param(
            direct("192.168.1.10;branch=x", "192.168.1.10"), PHONE, True,
            "192.168.1.10;branch=x;received=198.51.100.7;rport=34567", "198.51.100.7:34567", id="behind-nat",
        ),
        pytest.param(
            direct("198.51.100.7:34567;branch=x", "198.51.100.7:34567"), PHONE, False,
            "198.51.100.7:34567;branch=x", "198.51.100.7:34567", id="public",
        ),
        pytest.param(
            direct("198.51.100.7:34567;rport", "phone.example.com"), PHONE, False,
            "198.51.100.7:34567;rport=34567;received=198.51.100.7", "phone.example.com", id="public-asks-for-rport",
        ),
        pytest.param(
            direct("192.0.2.99:5060", "192.0.2.99:5060"), PHONE, True,
            "192.0.2.99:5060;received=198.51.100.7;rport=34567", "198.51.100.7:34567", id="stale-stun",
        ),
        pytest.param(
            direct("203.0.113.50", "192.168.1.10", "Via: SIP/2.0/UDP 192.168.1.10"), PROXY, False,
            "203.0.113.50", "192.168.1.10", id="through-a-proxy",
        ),
        pytest.param(
            direct("192.168.1.50", "192.168.1.10"), PROXY, False,
            "192.168.1.50;received=203.0.113.50", "192.168.1.10", id="from-a-trusted-proxy",
        ),
        pytest.param(
            direct("198.51.100.7:5060", "198.51.100.7:5060", "User-Agent: ipDialog SipTone II"), PHONE, False,
            "198.51.100.7:5060", "198.51.100.7:5060", id="sip-asymmetric-public",
        ),
        pytest.param(
            direct("192.168.1.10", "192.168.1.10:5062", "User-Agent: ipDialog SipTone II"), PHONE, True,
            "192.168.1.10;received=198.51.100.7", "198.51.100.7:5062", id="sip-asymmetric-behind-nat",
        ),
    ],
)  # fmt: skip
def test_requests_are_repaired(asked: Message, source: str, nat: bool, via: str, contact: str) -> None:
    repaired = repair(asked, arrival(source), POLICY)
    assert repaired.nat is nat
    assert repaired.message.headers("via")[0] == f"SIP/2.0/UDP {via}"
    assert repaired.message.header("contact") == f"<sip:a@{contact}>"


def response(status: int, contact: str) -> Message:
    return message(f"SIP/2.0 {status} X", f"Contact: <sip:b@{contact}>")


@pytest.mark.parametrize(
    ("asked", "is_direct", "contact"),
    [
        pytest.param(response(200, "10.1.1.1"), None, "198.51.100.7:34567", id="private"),
        pytest.param(response(183, "10.1.1.1"), None, "198.51.100.7:34567", id="provisional"),
        pytest.param(response(200, "10.1.1.1"), False, "10.1.1.1", id="by-a-proxy"),
        pytest.param(response(302, "10.1.1.1"), None, "10.1.1.1", id="redirection"),
        pytest.param(response(200, "192.0.2.99"), None, "192.0.2.99", id="public-may-be-a-proxys-phone"),
        pytest.param(response(200, "192.0.2.99"), True, "198.51.100.7:34567", id="public-but-wrong"),
        pytest.param(response(200, "198.51.100.7:5060"), True, "198.51.100.7:34567", id="own-other-port"),
        pytest.param(response(200, "198.51.100.7:5060"), None, "198.51.100.7:5060", id="other-port-of-a-proxy"),
        pytest.param(response(200, "198.51.100.7:34567"), True, "198.51.100.7:34567", id="right"),
        pytest.param(response(200, "phone.lan"), True, "198.51.100.7:34567", id="host-name"),
        pytest.param(response(200, "phone.lan"), None, "phone.lan", id="host-name-of-a-proxy"),
    ],
)
def test_responses_are_repaired(asked: Message, is_direct: bool | None, contact: str) -> None:
    repaired = repair(asked, arrival(), POLICY, direct=is_direct)
    assert repaired.message.header("contact") == f"<sip:b@{contact}>"
    assert repaired.nat is (repaired.message is not asked)
    assert repaired.message.headers("via") == asked.headers("via")


def test_a_sip_asymmetric_phone_answers_with_its_own_port() -> None:
    asked = message("SIP/2.0 200 X", "Server: ipDialog SipTone II", "Contact: <sip:b@198.51.100.7:5060>")
    assert repair(asked, arrival(), POLICY, direct=True).message is asked


def test_the_phones_of_a_trusted_proxy_are_its_own_business() -> None:
    """It is on their side of the NAT, and in their way: with its address for theirs, a BYE would not get beyond it."""
    asked = response(200, "10.1.1.1")
    repaired = repair(asked, arrival(PROXY), POLICY)
    assert repaired.message is asked and not repaired.nat
    assert repair(asked, arrival(PROXY), POLICY, direct=True).message.header("contact") == "<sip:b@203.0.113.50:5060>"


def test_star_is_no_contact_to_repair() -> None:
    repaired = repair(message("REGISTER", "Contact: *"), arrival(), POLICY)
    assert repaired.nat and repaired.message.header("contact") == "*"
