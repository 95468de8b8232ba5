"""Contact aliases, as Kamailio's nathelper writes them: the source of a message as a parameter of its Contact URI.

The phone's own Contact stays, so that a request to it has the Request-URI that the phone knows; the server that gets
the request takes the alias off and sends it to where the alias says. ``;alias=203.0.113.9~40123~3`` is an address, a
port and a transport.
"""

import re
from typing import TypeVar

import msgspec

from mediaproxy.endpoint import Endpoint, address_text
from mediaproxy.nat.address import address_of
from mediaproxy.nat.arrival import Arrival
from mediaproxy.nat.contact import contacts
from mediaproxy.sip.grammar import SipError, number, split_params
from mediaproxy.sip.header import Uri
from mediaproxy.sip.message import Message, Request

_M = TypeVar("_M", bound=Message)

_DIGITS = {"udp": "1", "tcp": "2", "tls": "3", "sctp": "4", "ws": "5", "wss": "6"}
"Transport -> its digit."
_TRANSPORTS = {"1": "", "2": "tcp", "3": "tls", "4": "sctp", "5": "ws", "6": "ws"}
"Digit -> the transport parameter of a URI; there is none of its own for secure WebSockets (RFC 7118 §5.3)."
_ALIAS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9.]+)~([0-9]{1,5})~([1-6])")


def add_contact_alias(message: _M, arrival: Arrival, sip_asymmetric: bool = False) -> _M | None:
    """The message with the packet's source as alias in every Contact URI that leads elsewhere, right behind its host
    and port. A URI without brackets gets them. No address, port or other byte changes. A SIP-asymmetric client is
    reached at the port that its Contact names, so that port stands in its alias.

    The same message if there is nothing to add: no Contact, ``*``, or each leads to the source already, by address,
    port and transport. None if no Contact can be read, or the transport has no digit.
    """
    transport = arrival.transport.lower()
    found = list(contacts(message))
    if not message.count("contact") or any(contact.star for _, contact in found):
        return message
    usable = [(index, contact) for index, contact in found if contact.uri.host]
    if not usable or transport not in _DIGITS:
        return None
    source = Endpoint(address_of(arrival.source), arrival.source.port)
    added: dict[int, str] = {}
    for index, contact in usable:
        uri = contact.uri
        place = source.with_port(_port(uri)) if sip_asymmetric else source
        if not _leads_to(uri, place, transport):
            alias = f";alias={place.host}~{place.port}~{_DIGITS[transport]}"
            added[index] = str(contact.with_uri(uri.text[: uri.params_at] + alias + uri.text[uri.params_at :]))
    return message.replace_values("contact", added) if added else message


def _leads_to(uri: Uri, place: Endpoint, transport: str) -> bool:
    said = uri.endpoint
    return said is not None and Endpoint(address_of(said), _port(uri)) == place and _transport(uri) == transport


def _transport(uri: Uri) -> str:
    """RFC 3263 §4.1: an address without transport parameter is reached over UDP, of a sips: URI over TLS."""
    return uri.params.get("transport", "").lower() or ("tls" if uri.scheme == "sips" else "udp")


def _port(uri: Uri) -> int:
    if uri.port is None:
        return 5061 if uri.scheme == "sips" or _transport(uri) == "tls" else 5060
    return uri.port


class Unaliased(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose alias has been taken off."""

    request: Request
    destination: Uri
    "Where the request is to be sent. A peer may have written it: it is to be judged as its Request-URI is."


def handle_ruri_alias(request: Request) -> Unaliased | None:
    """Take the first alias off the Request-URI. None if there is none; SipError if it, or the URI, cannot be read.

    Further aliases stay: they are those of the next servers on the way to the phone.
    """
    uri = request.uri
    first, *params = split_params(uri.params.text)
    for at, param in enumerate(params):
        name, _, value = param.partition("=")
        if name.strip().lower() == "alias" and value.strip():
            kept = ";".join([first, *params[:at], *params[at + 1 :]])
            own = uri.text[: uri.params_at] + kept + uri.text[uri.headers_at :]
            return Unaliased(request=request.with_uri(own), destination=_destination(value.strip()))
    return None


def _destination(alias: str) -> Uri:
    found = _ALIAS.fullmatch(alias)
    address = address_text(found[1]) if found else None
    port = number(found[2], 65535) if found else None
    if found is None or address is None or not port:
        raise SipError(f"Request-URI: bad alias {alias[:80]!r}")
    transport = _TRANSPORTS[found[3]]
    return Uri.parse(f"sip:{Endpoint(address, port)}" + (f";transport={transport}" if transport else ""))
