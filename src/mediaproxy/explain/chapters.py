"""What the page says about a message itself: who sent it, what the NAT tests see, what becomes of Contact and Via.

A message, how it arrived, the policy and verdicts come in; lines for people go out, peers' text in them as it came.
"""

from collections.abc import Iterator, Mapping

from mediaproxy.nat import Arrival, Verdict, contacts, fix_contact, fix_uri, force_rport
from mediaproxy.policy import Policy
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Message, Request, Response


def message_lines(message: Message, arrival: Arrival, policy: Policy) -> Iterator[str]:
    """What it is, whence, and of whom."""
    yield message.start_line
    yield f"from {arrival.source} over {arrival.transport} to {arrival.local}"
    yield f"Call-ID {message.header('call-id') or 'missing'}, CSeq {message.header('cseq') or 'missing'}"
    agent = message.user_agent
    yield f"user agent: {agent or 'not named'}"
    for name, agents in (("SIP", policy.sip_asymmetric), ("RTP", policy.rtp_asymmetric)):
        pattern = agents.match(agent)
        if pattern is not None:
            yield f"it is {name}-asymmetric, by {pattern!r}: it listens on another port than it sends from"


def tests_lines(message: Message, verdicts: Mapping[str, Verdict], chosen: int, result: int, uac: int) -> Iterator[str]:
    """Each test, what client_nat_test says with the chosen ones, and which of nathelper's hold."""
    for name, verdict in verdicts.items():
        if name == str(verdict.test) or not verdict.test:
            yield f"{name}: {'YES' if verdict.fired else 'no '} {verdict.reason}"
    yield f"client_nat_test({chosen}): {'1, behind a NAT' if result > 0 else '-1, no NAT seen'}"
    holding = ", ".join(str(1 << bit) for bit in range(uac.bit_length()) if uac >> bit & 1)
    yield f"nat_uac_test: {f'1 with any of {holding}' if holding else '-1'}"
    if isinstance(message, Response):
        yield "in a response the top Via is our own: tests 2 and 4 say nothing about its sender"


def contact_lines(message: Message, arrival: Arrival, asymmetric: bool) -> Iterator[str]:
    """What fix_contact does."""
    if fix_contact(message, arrival, asymmetric) is None:
        values = message.values("contact")
        yield f"fix_contact: -1, nothing to fix in {', '.join(values)}" if values else "fix_contact: -1, no Contact"
        return
    yield "fix_contact: 1"
    for _, contact in contacts(message):
        if contact.uri.scheme not in ("sip", "sips"):
            yield f"{contact.uri} stays: no SIP URI"
            continue
        fixed = fix_uri(contact.uri, arrival.source, asymmetric)
        yield f"{contact.uri} stays" if fixed is contact.uri else f"{contact.uri} becomes {fixed}"


def via_lines(message: Message, arrival: Arrival) -> Iterator[str]:
    """The top Via and what force_rport would make of it."""
    try:
        via = message.via
    except SipError as error:
        yield f"not readable: {error}"
        return
    count = len(message.values("via"))
    yield f"sent by {via.sent_by} over {via.transport.lower()}{f', the top one of {count}' if count > 1 else ''}"
    rport = "not asked for" if via.rport is None else via.rport or "asked for"
    yield f"as it came: received {via.received or 'not there'}, rport {rport}"
    if isinstance(message, Request):
        noted = force_rport(message, arrival).via
        yield f"force_rport: received={noted.received};rport={noted.rport}"
