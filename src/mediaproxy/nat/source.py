"""The top Via: who it says has sent a request, and the source that we note in it so that the response comes back."""

from typing import TypeVar

from mediaproxy.endpoint import Endpoint
from mediaproxy.nat.address import address_of, plain
from mediaproxy.nat.arrival import Arrival
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.header import Via
from mediaproxy.sip.message import Message

_M = TypeVar("_M", bound=Message)


def top_via(message: Message) -> Via | None:
    """The topmost Via, None if it cannot be read."""
    try:
        return message.via
    except SipError:
        return None


def note_source(message: _M, arrival: Arrival) -> _M:
    """A request with what its top Via must say about its source, and no more.

    RFC 3261 §18.2.1: ``received`` if sent-by is a name or another address. RFC 3581 §4: if it has ``rport``, its value
    and ``received`` in any case. What the peer wrote there itself is overwritten. A response is returned as it is.
    """
    via = top_via(message)
    if not message.is_request or via is None:
        return message
    params = via.params
    differs = plain(via.host) != address_of(arrival.source)
    if not differs and "rport" not in params and "received" not in params:
        return message
    return _with_source(message, via, arrival.source, "rport" in params)


def force_rport(message: _M, arrival: Arrival) -> _M:
    """A request that will be answered to its source port, asked for or not: ``received`` and ``rport`` in the top Via.

    A response is returned as it is.
    """
    via = top_via(message)
    if not message.is_request or via is None:
        return message
    return _with_source(message, via, arrival.source, True)


def _with_source(message: _M, via: Via, source: Endpoint, rport: bool) -> _M:
    # RFC 3261 §25.1 via-received: an IPv6 address stands without brackets
    params = via.params.with_param("received", address_of(source))
    if rport:
        params = params.with_param("rport", str(source.port))
    text = via.text[: via.params_at] + params.text
    return message.replace_value("via", 0, text) if text != via.text else message
