"""Contact: the values that can be read, and the repair that puts the packet's source into them."""

from collections.abc import Iterator
from typing import TypeVar

from mediaproxy.endpoint import Endpoint
from mediaproxy.nat.address import address_of
from mediaproxy.nat.arrival import Arrival
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.header import NameAddr, Uri
from mediaproxy.sip.message import Message

_M = TypeVar("_M", bound=Message)


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
                # No brackets are added, not even around a URI that ought to have some (with_uri would).
                fixed[index] = contact.text[: contact.uri_at] + uri.text + contact.text[contact.uri_end :]
    if not usable:
        return None
    return message.replace_values("contact", fixed) if fixed else message


def fix_uri(uri: Uri, source: Endpoint, sip_asymmetric: bool = False) -> Uri:
    """A sip: or sips: URI that leads to ``source``; the same one if it does so already (RFC 3261 §19.1.2: ports)."""
    address = address_of(source)
    said = uri.endpoint
    if said is not None and address_of(said) == address and (sip_asymmetric or said.port == source.port):
        return uri
    return uri.with_host_port(address, uri.port if sip_asymmetric else source.port)
