"""Far-end NAT diagnosis and repair: is the sender of a message behind a NAT, and what must change so that it can be
answered and called back?

A message and how it arrived come in; verdicts with their reasons, or the repaired message, go out. Only the top Via's
received and rport and the host and port of Contact URIs are ever changed. Nothing here resolves names, sends, or raises
for what a peer wrote: a value that cannot be read is a value that no test fires for and no repair touches.
"""

import re
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from mediaproxy.endpoint import Endpoint, Scope, address_text, scope
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.header import NameAddr, Uri, Via
from mediaproxy.sip.message import Message

UDP_PING = b"\0\0\0\0"
"Keep-alive over UDP: four zero bytes, no answer expected."
TCP_PING = b"\r\n\r\n"
"Keep-alive over TCP and TLS (RFC 5626 §4.4.1), answered by TCP_PONG."
TCP_PONG = b"\r\n"

CONTACT_PRIVATE = 1
"client_nat_test: a Contact has an RFC 1918 address."
SOURCE_DIFFERS = 2
"client_nat_test: the packet's source is not what the top Via says."
VIA_PRIVATE = 4
"client_nat_test: the top Via has an RFC 1918 address."

_M = TypeVar("_M", bound=Message)


class Arrival(msgspec.Struct, frozen=True):
    """How a message reached us."""

    source: Endpoint
    "Address and port that it came from, as the socket says."
    transport: str
    "``udp``, ``tcp`` or ``tls``."
    local: Endpoint
    "The socket of ours that it came to."


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one test of client_nat_test says."""

    test: int
    "1, 2 or 4."
    fired: bool
    reason: str
    "In words, for people."


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


def _contact_private(message: Message, arrival: Arrival, sip_asymmetric: bool) -> Verdict:
    hosts = [contact.uri.host for _, contact in contacts(message) if contact.uri.host]
    private = [host for host in hosts if is_rfc1918(host)]
    if private:
        reason = f"Contact has the private address {private[0]}"
    elif hosts:
        reason = f"no private address in Contact ({', '.join(hosts[:4])})"
    else:
        reason = "no Contact with a host"
    return Verdict(test=CONTACT_PRIVATE, fired=bool(private), reason=reason)


def _source_differs(message: Message, arrival: Arrival, sip_asymmetric: bool) -> Verdict:
    via = _top_via(message)
    if via is None:
        return Verdict(test=SOURCE_DIFFERS, fired=False, reason="no readable Via")
    address, port = _address(arrival.source), arrival.source.port
    said_port = 5060 if via.port is None else via.port
    if "received" in via.params:
        reason = f"the top Via came with received={via.received}"
    elif _plain(via.host) != address:
        reason = f"the packet came from {address}, the top Via says {via.host}"
    elif said_port != port and not sip_asymmetric:
        said = "5060 (by default)" if via.port is None else via.port
        reason = f"the packet came from port {port}, the top Via says {said}"
    else:
        ignored = " (its port is not compared: SIP-asymmetric client)" if sip_asymmetric and said_port != port else ""
        same = f"the packet came from {arrival.source}, as the top Via says{ignored}"
        return Verdict(test=SOURCE_DIFFERS, fired=False, reason=same)
    return Verdict(test=SOURCE_DIFFERS, fired=True, reason=reason)


def _via_private(message: Message, arrival: Arrival, sip_asymmetric: bool) -> Verdict:
    via = _top_via(message)
    if via is None:
        return Verdict(test=VIA_PRIVATE, fired=False, reason="no readable Via")
    fired = is_rfc1918(via.host)
    reason = f"the top Via has {'the private address' if fired else 'no private address:'} {via.host}"
    return Verdict(test=VIA_PRIVATE, fired=fired, reason=reason)


_TESTS = {CONTACT_PRIVATE: _contact_private, SOURCE_DIFFERS: _source_differs, VIA_PRIVATE: _via_private}

_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,8}|0[0-7]{0,11}|[1-9][0-9]{0,9}")


def is_rfc1918(host: str) -> bool:
    """Whether a host is an address in 10/8, 172.16/12 or 192.168/16; names are not resolved.

    Every spelling that inet_aton(3) takes counts, as in the original: ``10.1``, octal and hexadecimal numbers too.
    """
    address = address_text(host) or _inet_aton(host)
    return address is not None and scope(address) is Scope.PRIVATE


def _inet_aton(host: str) -> str | None:
    parts = host.split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    *head, last = [int(part, 16 if part[:2] in ("0x", "0X") else 8 if part[0] == "0" else 10) for part in parts]
    if any(number > 255 for number in head) or last >= 256 ** (4 - len(head)):
        return None
    value = last + sum(number << 8 * (3 - place) for place, number in enumerate(head))
    return ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0))


def contacts(message: Message) -> Iterator[tuple[int, NameAddr]]:
    """The Contact values that can be read, ``*`` included, each with its index for ``replace_value``."""
    try:
        yield from enumerate(message.contacts)
    except SipError:
        for index, text in enumerate(message.elements("contact")):
            try:
                yield index, NameAddr.parse(text)
            except SipError:
                continue


def fix_contact(message: _M, arrival: Arrival, sip_asymmetric: bool = False) -> _M | None:
    """The message with the packet's source address and port in every Contact URI that says something else.

    Only the host and port of sip: and sips: URIs change; IPv6 addresses get brackets. The port is always written, but
    a SIP-asymmetric client keeps the one it has, or has not. None if there is nothing to fix: no Contact, ``*``, or
    none that can be read. The same message if every Contact is right already.
    """
    usable = False
    fixed: dict[int, str] = {}
    for index, contact in contacts(message):
        if contact.star:
            return None
        if contact.uri.scheme in ("sip", "sips"):
            usable = True
            uri = fix_uri(contact.uri, arrival.source, sip_asymmetric)
            if uri is not contact.uri:
                fixed[index] = str(contact.with_uri(uri))
    if not usable:
        return None
    return message.replace_values("contact", fixed) if fixed else message


def fix_uri(uri: Uri, source: Endpoint, sip_asymmetric: bool = False) -> Uri:
    """A sip: or sips: URI that leads to ``source``; the same one if it does so already (RFC 3261 §19.1.2: ports)."""
    address = _address(source)
    said = uri.endpoint
    if said is not None and _address(said) == address and (sip_asymmetric or said.port == source.port):
        return uri
    return uri.with_host_port(address, uri.port if sip_asymmetric else source.port)


def note_source(message: _M, arrival: Arrival) -> _M:
    """A request with what its top Via must say about its source, and no more.

    RFC 3261 §18.2.1: ``received`` if sent-by is a name or another address. RFC 3581 §4: if it has ``rport``, its value
    and ``received`` in any case. What the peer wrote there itself is overwritten. A response is returned as it is.
    """
    via = _top_via(message)
    if not message.is_request or via is None:
        return message
    params = via.params
    differs = _plain(via.host) != _address(arrival.source)
    if not differs and "rport" not in params and "received" not in params:
        return message
    return _with_source(message, via, arrival.source, "rport" in params)


def force_rport(message: _M, arrival: Arrival) -> _M:
    """A request that will be answered to its source port, asked for or not: ``received`` and ``rport`` in the top Via.

    A response is returned as it is.
    """
    via = _top_via(message)
    if not message.is_request or via is None:
        return message
    return _with_source(message, via, arrival.source, True)


def _with_source(message: _M, via: Via, source: Endpoint, rport: bool) -> _M:
    # RFC 3261 §25.1 via-received: an IPv6 address stands without brackets
    params = via.params.with_param("received", _address(source))
    if rport:
        params = params.with_param("rport", str(source.port))
    text = via.text[: via.params_at] + params.text
    return message.replace_value("via", 0, text) if text != via.text else message


def is_keep_alive(datagram: bytes) -> bool:
    """Whether a datagram is no SIP but somebody's keep-alive: nothing but zero bytes and white space, or empty."""
    return not datagram.strip(b"\0\r\n\t ")


def _top_via(message: Message) -> Via | None:
    try:
        return message.via
    except SipError:
        return None


def _address(endpoint: Endpoint) -> str:
    """Its address without an IPv6 zone, and as IPv4 if it is mapped."""
    return _plain(endpoint.address) or endpoint.address


def _plain(host: str) -> str | None:
    """The address that a host is, in canonical text without brackets and zone (which is the host's own business: RFC
    4007 §6); None for a name."""
    return address_text(host.strip("[]").partition("%")[0])
