"""URIs as SIP uses them (RFC 3261 §19.1): sip and sips taken apart, all other schemes kept as they are.

Text comes in, a value that still knows its text goes out; an edit changes the span it is about and nothing else. A URI
is never normalised, unescaped or put in order, except by ``aor``, which is made for comparing.
"""

import re

import msgspec

from mediaproxy.endpoint import Endpoint, address_text
from mediaproxy.sip.grammar import HOST, Params, SipError, number, quotes_closed, remembered

_FORBIDDEN = re.compile(r"[\x00-\x20<>\x7f]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*+:(?=.)")
# The user part may hold ; ? / : unescaped, so the host begins at the first @ after which a host can be read.
_SIP = re.compile(
    rf"(sips?):(?:(.*?)@)?({HOST})(?::([0-9]++))?(?=[;?]|\Z)([^?]*+)",
    re.IGNORECASE,
)
_ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})")
# RFC 3261 §25.1: unreserved and user-unreserved without ; ? / which would read as something else to careless peers
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.!~*'()&=+$,")


class Uri(msgspec.Struct, frozen=True, kw_only=True):
    """A URI. ``str()`` gives the text it was read from."""

    text: str
    "The whole URI as written."
    scheme: str
    "In lower case."
    user: str | None = None
    "The user part as written, escapes and user parameters included; None if there is none."
    password: str | None = None
    "As written; None if there is none."
    host: str = ""
    'Host name or address as written, IPv6 in brackets; "" for schemes other than sip and sips.'
    port: int | None = None
    "0 to 65535, None if not given."
    host_at: int
    "Where the host begins in ``text``."
    params_at: int
    "Where the parameters begin in ``text``."
    headers_at: int
    "Where the ``?`` of the headers is in ``text``, or its end."
    params: Params
    "The URI's parameters; none for schemes other than sip and sips."

    @classmethod
    def parse(cls, text: str) -> "Uri":
        """Read a URI without the angle brackets. SipError if it is none (white space, no scheme, bad host or port)."""
        return _parse(text)

    @classmethod
    def _read(cls, text: str) -> "Uri":
        found = _SIP.match(text)
        if _FORBIDDEN.search(text) or not quotes_closed(text):
            raise SipError(f"a URI with white space, control characters, brackets or an open quote: {text[:80]!r}")
        if found is None:
            return cls._opaque(text)
        scheme, info, host, port_text, _ = found.groups()
        port = None
        if port_text is not None:
            port = number(port_text, 65535)
            if port is None:
                raise SipError(f"bad port in URI {text[:80]!r}")
        user = password = None
        if info is not None:
            user, colon, secret = info.partition(":")
            password = secret if colon else None
        return cls(
            text=text,
            scheme=scheme.lower(),
            user=user,
            password=password,
            host=host,
            port=port,
            host_at=found.start(3),
            params_at=found.start(5),
            headers_at=found.end(5),
            params=Params(found.group(5)),
        )

    @classmethod
    def _opaque(cls, text: str) -> "Uri":
        found = _SCHEME.match(text)
        if found is None:
            raise SipError(f"no URI: {text[:80]!r}")
        scheme = found.group()[:-1].lower()
        if scheme in ("sip", "sips"):
            raise SipError(f"bad host or port in URI {text[:80]!r}")
        end = len(text)
        return cls(text=text, scheme=scheme, host_at=end, params_at=end, headers_at=end, params=Params(""))

    def __str__(self) -> str:
        return self.text

    @property
    def rest(self) -> str:
        """All that stands behind ``scheme:``."""
        return self.text[len(self.scheme) + 1 :]

    @property
    def headers(self) -> str:
        """What stands behind the ``?``, as written; "" if nothing does."""
        return self.text[self.headers_at + 1 :]

    @property
    def endpoint(self) -> Endpoint | None:
        """Address and port if the host is an IP literal; the port defaults to 5060, for TLS 5061 (RFC 3261 §19.1.2)."""
        address = address_text(self.host) if self.host else None
        if address is None:
            return None
        port = self.port
        if port is None:
            tls = self.scheme == "sips" or self.params.get("transport", "").lower() == "tls"
            port = 5061 if tls else 5060
        return Endpoint(address, port)

    @property
    def aor(self) -> str:
        """The address of record for comparing: no port, password, parameters and headers, host in lower case, needless
        escapes resolved (RFC 3261 §10.3 step 5)."""
        if not self.host:
            return f"{self.scheme}:{self.rest.partition(';')[0]}"
        user = "" if self.user is None else _ESCAPED.sub(_unescape, self.user) + "@"
        return f"{self.scheme}:{user}{self.host.lower()}"

    def with_host_port(self, host: str, port: int | None) -> "Uri":
        """The same URI at another host and port (None: no port). An IPv6 address gets its brackets if it has none."""
        if not self.host:
            raise SipError(f"a {self.scheme} URI has no host to replace")
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        where = host if port is None else f"{host}:{port}"
        new = Uri.parse(self.text[: self.host_at] + where + self.text[self.params_at :])
        if (new.host, new.port) != (host, port):
            raise SipError(f"no host and port: {where[:80]!r}")
        return new

    def with_param(self, name: str, value: str | None = None) -> "Uri":
        """The same URI with the parameter set (None: without value)."""
        return self._with_params(self.params.with_param(name, value))

    def without_param(self, name: str) -> "Uri":
        """The same URI without the parameter."""
        return self._with_params(self.params.without_param(name))

    def _with_params(self, params: Params) -> "Uri":
        if not self.host:
            raise SipError(f"a {self.scheme} URI has no parameters to edit")
        return Uri.parse(self.text[: self.params_at] + params.text + self.text[self.headers_at :])


_parse = remembered(Uri._read)


def _unescape(found: re.Match[str]) -> str:
    char = chr(int(found.group(1), 16))
    return char if char in _PLAIN else found.group().upper()
