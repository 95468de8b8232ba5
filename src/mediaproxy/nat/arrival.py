"""What a NAT test is told beside the message, and what it says."""

import msgspec

from mediaproxy.endpoint import Endpoint


class Arrival(msgspec.Struct, frozen=True):
    """How a message reached us."""

    source: Endpoint
    "Address and port that it came from, as the socket says."
    transport: str
    "``udp``, ``tcp`` or ``tls``; of a SIP server that knows more also ``ws``, ``wss`` or ``sctp``."
    local: Endpoint
    "The socket of ours that it came to."


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one test says."""

    name: str
    "Its name in nat_test."
    test: int = 0
    "Its number in client_nat_test: 1, 2 or 4. 0: it has none."
    fired: bool
    reason: str
    "In words, for people."
