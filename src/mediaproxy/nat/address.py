"""Hosts as the tests compare them: which address a host is, in every spelling, and which networks count as private."""

import re

from mediaproxy.endpoint import Endpoint, Scope, address_text, scope

_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,8}|0[0-7]{0,11}|[1-9][0-9]{0,9}")


def is_rfc1918(host: str) -> bool:
    """Whether a host is an address in 10/8, 172.16/12 or 192.168/16; names are not resolved.

    Every spelling that inet_aton(3) takes counts, as in the original: ``10.1``, octal and hexadecimal numbers too.
    """
    return scope_of(host) is Scope.PRIVATE


def scope_of(host: str) -> Scope | None:
    """The kind of network that a host is in, spelled in any way that inet_aton(3) takes; None for a name."""
    address = address_text(host) or inet_aton(host)
    return None if address is None else scope(address)


def inet_aton(host: str) -> str | None:
    """The IPv4 address that inet_aton(3) reads, in its usual spelling; None if it reads none."""
    parts = host.split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    *head, last = [int(part, 16 if part[:2] in ("0x", "0X") else 8 if part[0] == "0" else 10) for part in parts]
    if any(number > 255 for number in head) or last >= 256 ** (4 - len(head)):
        return None
    value = last + sum(number << 8 * (3 - place) for place, number in enumerate(head))
    return ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0))


def address_of(endpoint: Endpoint) -> str:
    """Its address without an IPv6 zone, and as IPv4 if it is mapped."""
    return plain(endpoint.address) or endpoint.address


def plain(host: str) -> str | None:
    """The address that a host is, in canonical text without brackets and zone (which is the host's own business: RFC
    4007 §6); None for a name."""
    return address_text(host.strip("[]").partition("%")[0])
