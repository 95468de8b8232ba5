"""Messages that a server before us sends on: repaired, with relay ports, and otherwise as they came."""

from pathlib import Path

import pytest

from mediaproxy.control import MediaReply
from mediaproxy.policy import Policy
from mediaproxy.sdp import IcePolicy
from mediaproxy.sip.message import parse
from mediaproxy.traversal import plan
from tests.repairs import repair
from tests.test_traversal import PHONE, SIPTONE, arrival, relay

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
