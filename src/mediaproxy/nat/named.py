"""nat_test: one test by its name. The original's three are among them; the others say what it does not look at.

Each name is a question of its own and changes nothing about the sums of client_nat_test. In a response the top Via is
our own: the tests that are not the original's do not look at it there.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TypeAlias

from mediaproxy.endpoint import Scope
from mediaproxy.nat.address import address_of, scope_of
from mediaproxy.nat.arrival import Arrival, Verdict
from mediaproxy.nat.contact import contacts, fix_uri
from mediaproxy.nat.media import media_hosts
from mediaproxy.nat.original import contact_private, source_differs, via_private
from mediaproxy.nat.source import top_via
from mediaproxy.sip.message import Message

NamedTest: TypeAlias = Callable[[Message, Arrival, bool], Verdict]


def nat_test(message: Message, arrival: Arrival, name: str, sip_asymmetric: bool = False) -> bool:
    """Whether the named test finds that the sender is behind a NAT; see ``NAMED_TESTS``. KeyError if there is none."""
    return NAMED_TESTS[name](message, arrival, sip_asymmetric).fired


def named_tests(message: Message, arrival: Arrival, sip_asymmetric: bool = False) -> tuple[Verdict, ...]:
    """All named tests with their reasons."""
    return tuple(test(message, arrival, sip_asymmetric) for test in NAMED_TESTS.values())


def _sdp_private(message: Message, arrival: Arrival, sip_asymmetric: bool) -> Verdict:
    """A c= line of the SDP, the session's or any stream's, has an RFC 1918 address."""
    hosts = media_hosts(message)
    private = next((host for host in hosts if scope_of(host) is Scope.PRIVATE), None)
    if private is not None:
        reason = f"the SDP has the private address {private}"
    elif hosts:
        reason = f"no private address in the SDP ({', '.join(hosts[:4])})"
    else:
        reason = "no SDP with an address"
    return Verdict(name="sdp-private", fired=private is not None, reason=reason)


def _port_differs(message: Message, arrival: Arrival, sip_asymmetric: bool) -> Verdict:
    """A request's source port is not that of the top Via, 5060 if it has none. Never of SIP-asymmetric clients."""
    fired, reason = _ports(message, arrival, sip_asymmetric)
    return Verdict(name="port-differs", fired=fired, reason=reason)


def _ports(message: Message, arrival: Arrival, sip_asymmetric: bool) -> tuple[bool, str]:
    via = top_via(message)
    if not message.is_request:
        return False, "in a response the top Via is our own"
    if via is None:
        return False, "no readable Via"
    said = 5060 if via.port is None else via.port
    if arrival.source.port == said:
        return False, f"the packet came from port {said}, as the top Via says"
    if sip_asymmetric:
        return False, "the port is not compared: SIP-asymmetric client"
    return True, f"the packet came from port {arrival.source.port}, the top Via says {said}"


def _contact_differs(message: Message, arrival: Arrival, sip_asymmetric: bool) -> Verdict:
    """A Contact's host or port is not the packet's source. The port of SIP-asymmetric clients is not compared."""
    uris = [contact.uri for _, contact in contacts(message) if contact.uri.host]
    other = next((uri for uri in uris if fix_uri(uri, arrival.source, sip_asymmetric) is not uri), None)
    source = f"{address_of(arrival.source)} port {arrival.source.port}"
    if other is not None:
        port = "without port" if other.port is None else f"port {other.port}"
        reason = f"the packet came from {source}, a Contact says {other.host} {port}"
    elif uris:
        reason = f"the packet came from {source}, as Contact says"
    else:
        reason = "no Contact with a host"
    return Verdict(name="contact-differs", fired=other is not None, reason=reason)


def _names_itself(message: Message) -> Iterator[tuple[str, str]]:
    """Where its sender names an address of its own, and the address: Contact, a request's top Via, SDP."""
    for _, contact in contacts(message):
        yield "Contact", contact.uri.host
    via = top_via(message) if message.is_request else None
    if via is not None:
        yield "the top Via", via.host
    for host in media_hosts(message):
        yield "the SDP", host


def _within(name: str, wanted: Scope, what: str) -> NamedTest:
    def test(message: Message, arrival: Arrival, sip_asymmetric: bool) -> Verdict:
        for where, host in _names_itself(message):
            if scope_of(host) is wanted:
                return Verdict(name=name, fired=True, reason=f"{where} has the {what} address {host}")
        return Verdict(name=name, fired=False, reason=f"no {what} address in Contact, Via or SDP")

    return test


NAMED_TESTS: Mapping[str, NamedTest] = MappingProxyType(
    {
        "contact-private": contact_private,
        "source-differs": source_differs,
        "via-private": via_private,
        "sdp-private": _sdp_private,
        "port-differs": _port_differs,
        "cgn": _within("cgn", Scope.SHARED, "carrier-grade NAT"),
        "contact-differs": _contact_differs,
        "ula": _within("ula", Scope.ULA, "unique local"),
    }
)
"""Name -> test, the original's 1, 2 and 4 first. ``cgn`` is RFC 6598's 100.64/10, ``ula`` RFC 4193's fc00::/7, each
wherever the phone names itself: in a Contact, in a request's top Via or in a c= line."""
