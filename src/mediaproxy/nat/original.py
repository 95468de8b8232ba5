"""client_nat_test: the original's three tests of who is behind a NAT."""

from mediaproxy.nat.address import address_of, is_rfc1918, plain
from mediaproxy.nat.arrival import Arrival, Verdict
from mediaproxy.nat.contact import contacts
from mediaproxy.nat.source import top_via
from mediaproxy.sip.message import Message

CONTACT_PRIVATE = 1
"client_nat_test: a Contact has an RFC 1918 address."
SOURCE_DIFFERS = 2
"client_nat_test: the packet's source is not what the top Via says."
VIA_PRIVATE = 4
"client_nat_test: the top Via has an RFC 1918 address."


def client_nat_test(message: Message, arrival: Arrival, tests: int, sip_asymmetric: bool = False) -> bool:
    """Whether one of the chosen tests finds that the sender is behind a NAT. ``tests`` is a sum of

    - 1: the host of a Contact URI is an address of RFC 1918;
    - 2: the packet's source address or port differs from the top Via's sent-by (port 5060 if it has none), or the Via
      already has ``received``. For SIP-asymmetric clients the port is not compared;
    - 4: the host of the top Via is an address of RFC 1918.

    Other bits mean nothing. In a reply the top Via is our own, so 2 and 4 say nothing about its sender.
    """
    return any(_TESTS[bit](message, arrival, sip_asymmetric).fired for bit in _TESTS if tests & bit)


def nat_tests(message: Message, arrival: Arrival, sip_asymmetric: bool = False) -> tuple[Verdict, ...]:
    """All tests of client_nat_test with their reasons, in the order 1, 2, 4."""
    return tuple(test(message, arrival, sip_asymmetric) for test in _TESTS.values())


def contact_private(message: Message, arrival: Arrival, sip_asymmetric: bool) -> Verdict:
    """Test 1."""
    hosts = [contact.uri.host for _, contact in contacts(message) if contact.uri.host]
    private = [host for host in hosts if is_rfc1918(host)]
    if private:
        reason = f"Contact has the private address {private[0]}"
    elif hosts:
        reason = f"no private address in Contact ({', '.join(hosts[:4])})"
    else:
        reason = "no Contact with a host"
    return Verdict(name="contact-private", test=CONTACT_PRIVATE, fired=bool(private), reason=reason)


def source_differs(message: Message, arrival: Arrival, sip_asymmetric: bool) -> Verdict:
    """Test 2."""
    fired, reason = _source_differs(message, arrival, sip_asymmetric)
    return Verdict(name="source-differs", test=SOURCE_DIFFERS, fired=fired, reason=reason)


def _source_differs(message: Message, arrival: Arrival, sip_asymmetric: bool) -> tuple[bool, str]:
    via = top_via(message)
    if via is None:
        return False, "no readable Via"
    address, port = address_of(arrival.source), arrival.source.port
    said_port = 5060 if via.port is None else via.port
    if "received" in via.params:
        return True, f"the top Via came with received={via.received}"
    if plain(via.host) != address:
        return True, f"the packet came from {address}, the top Via says {via.host}"
    if said_port != port and not sip_asymmetric:
        said = "5060 (by default)" if via.port is None else via.port
        return True, f"the packet came from port {port}, the top Via says {said}"
    ignored = " (its port is not compared: SIP-asymmetric client)" if said_port != port else ""
    return False, f"the packet came from {arrival.source}, as the top Via says{ignored}"


def via_private(message: Message, arrival: Arrival, sip_asymmetric: bool) -> Verdict:
    """Test 4."""
    via = top_via(message)
    fired = via is not None and is_rfc1918(via.host)
    if via is None:
        reason = "no readable Via"
    else:
        reason = f"the top Via has {'the private address' if fired else 'no private address:'} {via.host}"
    return Verdict(name="via-private", test=VIA_PRIVATE, fired=fired, reason=reason)


_TESTS = {CONTACT_PRIVATE: contact_private, SOURCE_DIFFERS: source_differs, VIA_PRIVATE: via_private}
