"""What a SIP server in front of the module does with a message: the NAT test and, if it fires, the repairs."""

import msgspec

from mediaproxy.nat import CONTACT_PRIVATE, Arrival, client_nat_test, fix_contact, force_rport, note_source
from mediaproxy.policy import Policy
from mediaproxy.sip.message import Message, Response


class Repaired(msgspec.Struct, frozen=True, kw_only=True):
    """A message after the NAT test."""

    message: Message
    nat: bool
    "The sender is behind a NAT: answer it to its source, keep its binding alive."


def repair(message: Message, arrival: Arrival, policy: Policy, *, direct: bool | None = None) -> Repaired:
    """Judge the sender of a message by client_nat_test, and repair the message so that it can be reached.

    ``direct``: whether it came straight from a phone; None: what a trusted proxy sent did not, nor a request with more
    than one Via; any other request did, and a response may have. Others' phones are not ours to judge: such requests
    only get what RFC 3261 §18.2.1 asks for, such responses nothing.

    - Requests: ``policy.nat_tests``. Behind a NAT: ``force_rport`` and ``fix_contact``; else ``note_source``. A
      SIP-asymmetric client does not listen where it sends from: it gets ``note_source`` in either case.
    - Responses below 300: a private Contact is repaired; if ``direct`` is True, everyone that is not the source. The
      Contacts of redirections (3xx) are other people's.
    """
    asymmetric = policy.sip_asymmetric.matches(message.user_agent)
    if direct is None and policy.trusts(arrival.source.address):
        direct = False
    if isinstance(message, Response):
        nat = message.status < 300 and direct is not False and _reply_from_nat(message, arrival, direct, asymmetric)
        return Repaired(message=(fix_contact(message, arrival, asymmetric) if nat else None) or message, nat=nat)
    if direct is None:
        direct = len(message.values("via")) <= 1
    if not direct or not client_nat_test(message, arrival, policy.nat_tests, asymmetric):
        return Repaired(message=note_source(message, arrival), nat=False)
    fixed = fix_contact(message, arrival, asymmetric) or message
    return Repaired(message=(note_source if asymmetric else force_rport)(fixed, arrival), nat=True)


def _reply_from_nat(message: Message, arrival: Arrival, direct: bool | None, asymmetric: bool) -> bool:
    if client_nat_test(message, arrival, CONTACT_PRIVATE):
        return True
    if not direct:
        return False
    fixed = fix_contact(message, arrival, asymmetric)
    return fixed is not None and fixed is not message
