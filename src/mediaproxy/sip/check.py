"""What a server refuses before it does anything else with a message (RFC 3261 §16.3 and §8.2, RFC 4475).

A parsed message comes in; it is right, or SipError says what is wrong and which status answers it. After that no
getter of the message raises. Not judged here: what depends on who we are (Max-Forwards, Require, Route, loops, permissions).
"""

from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Message, Request

_ONCE = ("call-id", "cseq", "from", "to", "max-forwards", "content-type")
_SCHEMES = frozenset(("sip", "sips", "tel"))


def check(message: Message) -> None:
    """SipError with the status of the answer if the message must be refused; a response is then to be dropped."""
    if message.version.upper() != "SIP/2.0":
        raise SipError(f"start line: version {message.version[:20]}", 505)
    _check_headers(message)
    _check_body(message)
    if isinstance(message, Request):
        _check_request(message)


def _check_headers(message: Message) -> None:
    for name in _ONCE:
        if len(message.headers(name)) > 1:
            raise SipError(f"{name}: more than one")
    _ = message.call_id, message.cseq, message.via, message.vias, message.routes, message.record_routes
    for name, addresses in (("from", (message.from_,)), ("to", (message.to,)), ("contact", message.contacts)):
        for address in addresses:
            # RFC 3261 §20: a URI with a question mark or comma stands in brackets
            if not address.bracketed and address.uri.headers:
                raise SipError(f"{name}: a URI with headers but without brackets")
    if message.header("max-forwards") is not None and message.max_forwards is None:
        raise SipError("max-forwards: not a number up to 255")


def _check_body(message: Message) -> None:
    if not message.complete_head:
        raise SipError("no empty line behind the headers")
    if message.headers("content-length"):
        length = message.content_length
        if length is None:
            raise SipError("content-length: unreadable, or several different ones")
        if length > len(message.body):
            raise SipError(f"content-length: {length} declared, {len(message.body)} received")


def _check_request(request: Request) -> None:
    if request.start_line != f"{request.method} {request.uri_text} {request.version}":
        raise SipError("start line: white space other than two single spaces")
    if request.uri.headers:
        raise SipError("Request-URI: headers in it")
    if request.uri.scheme not in _SCHEMES:
        raise SipError(f"Request-URI: scheme {request.uri.scheme[:20]}", 416)
    if request.cseq.method != request.method:
        raise SipError(f"cseq: method {request.cseq.method[:20]} in a {request.method[:20]} request")
