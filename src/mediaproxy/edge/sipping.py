"""SIP requests as keep-alives: how they are written, and how their answers are known again.

A contact comes in, a request goes out; a response comes in, and the contact that it answers for, if it answers one of
these. Nothing is remembered for it: the Call-ID says whom the request was for, and that it was ours, in a way that
nobody can invent who has not seen it.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable

from mediaproxy.edge.settings import EdgeSettings, Listener
from mediaproxy.endpoint import Endpoint, address_text
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Request, Response
from mediaproxy.sip.transaction import MAGIC_COOKIE

_NAME = re.compile(r"[A-Za-z0-9.-]+")
_BRANCH = MAGIC_COOKIE + "ping"
_CALL_ID = "ping"


class SipPings:
    """Writes and recognises them. One secret, shared by all runs of a server, so that none is a stranger's after a
    restart."""

    def __init__(self, settings: EdgeSettings, secret: bytes) -> None:
        """``secret``: at least 16 random bytes."""
        self._method = settings.sipping_method
        self._from = settings.sipping_from
        self._domain = _host(next(iter(settings.domains), ""))
        self._key = hashlib.sha256(b"sipping\0" + secret).digest()

    @property
    def method(self) -> str:
        """The method of the requests."""
        return self._method

    def _mac(self, kind: str, text: str) -> str:
        data = f"{kind}\0{text}".encode("latin-1", "replace")
        return hashlib.blake2b(data, digest_size=8, key=self._key).hexdigest()

    def name(self, *who: object) -> str:
        """A short name of a contact, for ``write``: who knows it learns nothing."""
        return self._mac("name", "\0".join(str(part) for part in who))

    def write(self, name: str, contact: str, routes: Iterable[str], listener: Listener, now: float) -> bytes:
        """The request to one contact, out of one socket. Each one is new: there are no retransmissions."""
        unique = f"{int(now * 1000):x}"
        host = self._domain or listener.public.host
        call_id = f"{_CALL_ID}-{name}-{unique}"
        headers = [
            ("Via", f"SIP/2.0/{listener.transport.upper()} {listener.public};branch={_BRANCH}{name}{unique}"),
            *(("Route", route) for route in routes),
            ("From", f"<{self._from or f'sip:ping@{host}'}>;tag={unique}"),
            ("To", f"<{contact}>"),
            ("Call-ID", f"{call_id}-{self._mac('ping', call_id)}"),
            ("CSeq", f"1 {self._method}"),
            *((("Event", "keep-alive"),) if self._method == "NOTIFY" else ()),  # RFC 6665: it must have one
            ("Max-Forwards", "70"),
            ("Content-Length", "0"),
        ]
        return bytes(Request.build(self._method, contact, headers))

    def answered(self, response: Response) -> str:
        """The name of the contact whose ping a response is for; empty: it answers none of ours. Never raises."""
        try:
            if len(response.vias) != 1 or not response.via.branch.startswith(_BRANCH):
                return ""
            call_id, _, mac = response.call_id.rpartition("-")
        except SipError:
            return ""
        parts = call_id.split("-")
        if len(parts) != 3 or parts[0] != _CALL_ID:
            return ""
        genuine = self._mac("ping", call_id).encode()
        return parts[1] if hmac.compare_digest(mac.encode("latin-1"), genuine) else ""


def _host(domain: str) -> str:
    """A configured domain as a URI writes it; empty: none can."""
    address = address_text(domain)
    if address is not None:
        return Endpoint(address, 0).host
    return domain if _NAME.fullmatch(domain) else ""
