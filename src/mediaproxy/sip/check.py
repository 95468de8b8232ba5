"""What a server refuses before it does anything else with a message (RFC 3261 §16.3 and §8.2, RFC 4475).

A parsed message comes in; it is right, or SipError says what is wrong and which status answers it. After that no
getter of the message raises. Not judged here is what depends on who we are: Max-Forwards 0, Require, Route, loops.
"""

from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.header import NameAddr
from mediaproxy.sip.message import Message, Request

_ONCE = ("call-id", "cseq", "from", "to", "max-forwards", "content-type")
_HOPS = 71
"Hops that a message can have behind it if it began with the usual Max-Forwards of 70 (RFC 3261 §8.1.1.6)."
_SCHEMES = frozenset(("sip", "sips", "tel"))


def check(message: Message) -> None:
    """SipError with the status of the answer if a request must be refused. A refused response is to be dropped."""
    if message.version.upper() != "SIP/2.0":
        raise SipError(f"start line: version {message.version[:20]}", 505)
    _check_headers(message)
    _check_body(message)
    if isinstance(message, Request):
        _check_request(message)


def _check_headers(message: Message) -> None:
    if message.count("via") > _HOPS:
        raise SipError(f"via: more than {_HOPS}", 483)
    for name in _ONCE:
        if message.count(name) > 1:
            raise SipError(f"{name}: more than one")
    _ = message.call_id, message.cseq, message.via, message.vias
    _check_addresses("from", (message.from_,))
    _check_addresses("to", (message.to,))
    _check_addresses("contact", message.contacts)
    _check_addresses("route", message.routes)
    _check_addresses("record-route", message.record_routes)
    if message.count("max-forwards") and message.max_forwards is None:
        raise SipError("max-forwards: not a number up to 255")


def _check_addresses(name: str, addresses: tuple[NameAddr, ...]) -> None:
    for address in addresses:
        if address.star and name != "contact":
            raise SipError(f"{name}: * is no address")
        # RFC 3261 §20: a URI with a comma or question mark stands in brackets
        if not address.bracketed and ("," in address.uri.text or address.uri.headers):
            raise SipError(f"{name}: a URI with headers or a comma, but without brackets")
        # RFC 4475 §3.1.2.15. Other marks and letters that a display name may have only in quotes are let through:
        # phones write them, and they mislead nobody.
        if address.bracketed and "," in address.text[: address.uri_at] and not address.quoted:
            raise SipError(f"{name}: a comma in a display name without quotes")


def _check_body(message: Message) -> None:
    if not message.complete_head:
        raise SipError("no empty line behind the headers")
    if not message.count("content-length"):
        return  # RFC 3261 §18.3: over UDP the body then ends with the datagram
    length = message.content_length
    if length is None:
        raise SipError("content-length: unreadable, or several different ones")
    if length > len(message.octets):
        raise SipError(f"content-length: {length} octets declared, {len(message.octets)} received")


def _check_request(request: Request) -> None:
    if request.start_line != f"{request.method} {request.uri_text} {request.version}":
        raise SipError("start line: white space other than two single spaces")
    uri = request.uri
    if uri.headers:
        raise SipError("Request-URI: headers in it")
    if uri.scheme not in _SCHEMES:
        raise SipError(f"Request-URI: scheme {uri.scheme[:20]}", 416)
    if request.cseq.method != request.method:
        raise SipError(f"cseq: method {request.cseq.method[:20]} in a {request.method[:20]} request")
