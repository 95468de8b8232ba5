"""nat_uac_test, the tests of Kamailio's nathelper module by its numbers.

They differ from the original's: 1 and 128 look at the first Contact only, 2 at the address only, and what counts as
private is more than RFC 1918. A test that cannot read what it looks at does not hold.
"""

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv4Network
from types import MappingProxyType
from typing import TypeAlias

from mediaproxy.nat.address import address_of, inet_aton, plain
from mediaproxy.nat.arrival import Arrival
from mediaproxy.nat.contact import contacts
from mediaproxy.nat.media import host_of, said_address, sdp_of
from mediaproxy.nat.source import top_via
from mediaproxy.sip.grammar import SipError, number
from mediaproxy.sip.header import Uri, Via
from mediaproxy.sip.message import Message, Request

_Test: TypeAlias = Callable[[Message, Arrival, Uri | None], bool]

_PRIVATE = tuple(
    IPv4Network(prefix)
    # RFC 1918, RFC 6598, and RFC 6890's 192.0.0.0/24, which nathelper's default nat_addr_mode = 1 adds
    for prefix in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "192.0.0.0/24")
)
_WEBSOCKET = ("ws", "wss")


def nat_uac_test(message: Message, arrival: Arrival, flags: int, destination: Uri | None = None) -> bool:
    """Whether one of the chosen tests holds. ``flags`` is a sum of

    - 1: the first Contact has a private address; 4: the top Via has one; 32: the packet came from one;
    - 2: the packet's source address is not the top Via's host; 16: its source port is not the Via's (5060 if none);
    - 8: the SDP has a private address: a stream's own, else the session's. Streams are looked at up to the first that
      is IPv6 or 0.0.0.0;
    - 64: it came over WebSocket;
    - 128: the first Contact's port (5060 if none) is not the source port;
    - 256: the session's c= address is not the source address;
    - 512: it goes elsewhere than it says: a request's ``destination``, if it has one (Kamailio's $du), is not the
      Request-URI's host and port, or is a WebSocket; a response's second Via has another ``received`` or ``rport``
      than its own host and port, or is a WebSocket.

    Private are 10/8, 172.16/12, 192.168/16, 100.64/10 and 192.0.0/24. Other bits mean nothing.
    """
    return any(flags & flag and test(message, arrival, destination) for flag, test in _TESTS.items())


def nat_uac_flags(message: Message, arrival: Arrival, destination: Uri | None = None) -> int:
    """The sum of all tests of nat_uac_test that hold."""
    return sum(flag for flag, test in _TESTS.items() if test(message, arrival, destination))


def _private(host: str) -> bool:
    address = inet_aton(host)
    return address is not None and any(IPv4Address(address) in network for network in _PRIVATE)


def _first_contact(message: Message) -> Uri | None:
    for index, contact in contacts(message):
        return contact.uri if index == 0 and contact.uri.host else None
    return None


def _contact_private(message: Message, arrival: Arrival, destination: Uri | None) -> bool:
    uri = _first_contact(message)
    return uri is not None and _private(uri.host)


def _address_differs(message: Message, arrival: Arrival, destination: Uri | None) -> bool:
    via = top_via(message)
    return via is not None and plain(via.host) != address_of(arrival.source)


def _via_private(message: Message, arrival: Arrival, destination: Uri | None) -> bool:
    via = top_via(message)
    return via is not None and _private(via.host)


def _sdp_private(message: Message, arrival: Arrival, destination: Uri | None) -> bool:
    sdp = sdp_of(message)
    if sdp is None:
        return False
    for section in sdp.sections:
        connection = section.connection or sdp.session.connection
        if connection is None or connection.addrtype != "IP4" or connection.text == "0.0.0.0":
            return False
        if _private(host_of(connection)):
            return True
    return False


def _port_differs(message: Message, arrival: Arrival, destination: Uri | None) -> bool:
    via = top_via(message)
    return via is not None and arrival.source.port != (via.port or 5060)


def _source_private(message: Message, arrival: Arrival, destination: Uri | None) -> bool:
    return _private(address_of(arrival.source))


def _websocket(message: Message, arrival: Arrival, destination: Uri | None) -> bool:
    return arrival.transport.lower() in _WEBSOCKET


def _contact_port_differs(message: Message, arrival: Arrival, destination: Uri | None) -> bool:
    uri = _first_contact(message)
    return uri is not None and arrival.source.port != (uri.port or 5060)


def _session_differs(message: Message, arrival: Arrival, destination: Uri | None) -> bool:
    sdp = sdp_of(message)
    if sdp is None or not sdp.sections or sdp.session.connection is None:
        return False
    address = said_address(sdp.session.connection)
    return address is not None and address != address_of(arrival.source)


def _leads_elsewhere(message: Message, arrival: Arrival, destination: Uri | None) -> bool:
    try:
        if not isinstance(message, Request):
            return len(message.vias) > 1 and _answered_elsewhere(message.vias[1])
        return destination is not None and (
            destination.params.get("transport", "").lower() in _WEBSOCKET
            or _place(destination.host, destination.port) != _place(message.uri.host, message.uri.port)
        )
    except SipError:
        return False


def _answered_elsewhere(via: Via) -> bool:
    received = plain(via.host) if via.received is None else plain(via.received)
    rport = number(via.rport or "", 65535)
    return (
        via.transport.lower() in _WEBSOCKET
        or received != plain(via.host)
        or (rport is not None and rport != (via.port or 5060))
    )


def _place(host: str, port: int | None) -> tuple[str, int]:
    return plain(host) or host.lower(), port or 5060


_TESTS: Mapping[int, _Test] = MappingProxyType(
    {
        1: _contact_private,
        2: _address_differs,
        4: _via_private,
        8: _sdp_private,
        16: _port_differs,
        32: _source_private,
        64: _websocket,
        128: _contact_port_differs,
        256: _session_differs,
        512: _leads_elsewhere,
    }
)
