"""One Via value (RFC 3261 §20.42, RFC 3581): who sent the request, and where its response goes.

Text of one list element comes in, perhaps folded; a value that still knows its text goes out. Editing a parameter
touches that parameter only.
"""

import re

import msgspec

from mediaproxy.endpoint import Endpoint, address_text
from mediaproxy.sip.grammar import (
    HOST,
    WS,
    Params,
    SipError,
    number,
    quotes_closed,
    remembered,
    split_commas,
)

_VIA = re.compile(
    r"\s*+([\w\-.!%*+`'~]++)\s*+/\s*+([\w\-.!%*+`'~]++)\s*+/\s*+([\w\-.!%*+`'~]++)\s++"
    rf"({HOST})\s*+(?::\s*+([0-9]++)\s*+)?(?=;|\Z)",
    re.ASCII,
)
MAGIC = "z9hG4bK"
"How the branch of an RFC 3261 sender begins (§8.1.1.7)."


class Via(msgspec.Struct, frozen=True, kw_only=True):
    """A Via value. ``str()`` gives the text it was read from."""

    text: str
    "The whole value as written."
    protocol: str
    'Name and version of the protocol, "SIP/2.0".'
    transport: str
    "UDP, TCP, TLS, SCTP, WS… in upper case."
    host: str
    "The sent-by host as written, IPv6 in brackets."
    port: int | None
    "The sent-by port, None if not given."
    params_at: int
    "Where the parameters begin in ``text``."
    params: Params
    "Its parameters."

    @classmethod
    def parse(cls, text: str) -> "Via":
        """Read one Via value. SipError if it is none."""
        return _parse(text)

    @classmethod
    def _read(cls, text: str) -> "Via":
        found = _VIA.match(text)
        if found is None or not quotes_closed(text[found.end() :]):
            raise SipError(f"bad Via: {text[:80]!r}")
        name, version, transport, host, port_text = found.groups()
        port = None
        if port_text is not None:
            port = number(port_text, 65535)
            if port is None:
                raise SipError(f"bad port in Via: {text[:80]!r}")
        return cls(
            text=text,
            protocol=f"{name}/{version}",
            transport=transport.upper(),
            host=host,
            port=port,
            params_at=found.end(),
            params=Params(text[found.end() :]),
        )

    @classmethod
    def parse_many(cls, text: str) -> tuple["Via", ...]:
        """Read a comma list of Via values."""
        return tuple(cls.parse(part) for part in split_commas(text))

    def __str__(self) -> str:
        return self.text

    @property
    def sent_by(self) -> str:
        """``host`` or ``host:port``."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    @property
    def branch(self) -> str:
        """The branch, "" if there is none (a sender of RFC 2543)."""
        return self.params.get("branch", "")

    @property
    def received(self) -> str | None:
        """The address the request came from, as the next hop wrote it."""
        return self.params.get("received")

    @property
    def rport(self) -> str | None:
        """None: absent. "": asked for (RFC 3581 §3). Else the port the request came from."""
        return self.params.get("rport")

    def with_param(self, name: str, value: str | None = None) -> "Via":
        """The same Via with the parameter set (None: without value)."""
        return self._with_params(self.params.with_param(name, value))

    def without_param(self, name: str) -> "Via":
        """The same Via without the parameter."""
        return self._with_params(self.params.without_param(name))

    def _with_params(self, params: Params) -> "Via":
        return Via.parse(self.text[: self.params_at] + params.text)

    def response_endpoint(self, source: Endpoint | None = None) -> Endpoint | None:
        """Where to send the response over UDP, or over a new connection when the old one is gone.

        RFC 3261 §18.2.2 and RFC 3581 §4: maddr, else received with rport or the sent-by port, else sent-by. ``source``
        if that is a host name. The caller tries the connection the request came on first.
        """
        params = self.params
        port = 5061 if self.transport in ("TLS", "WSS") else 5060
        port = self.port or port
        maddr = address_text(params.get("maddr", "").strip(WS))
        if maddr is not None:
            return Endpoint(maddr, port)
        received = address_text(params.get("received", ""))
        if received is not None:
            rport = number(params.get("rport", ""), 65535)
            return Endpoint(received, rport or port)
        sent_by = address_text(self.host)
        return source if sent_by is None else Endpoint(sent_by, port)


_parse = remembered(Via._read)
