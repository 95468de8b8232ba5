"""Values of header fields: addresses with display name and parameters, CSeq; and, from their own files, Uri and Via.

Text of one value comes in, perhaps folded; a frozen value that still knows its text goes out. An edit gives a new value
in which only the edited span differs. Nothing is put in order, normalised or unescaped in the text itself.
"""

import re

import msgspec

from mediaproxy.sip.grammar import (
    TOKEN,
    WS,
    Params,
    SipError,
    number,
    quote,
    quotes_closed,
    remembered,
    split_commas,
    unfold,
    unquote,
)
from mediaproxy.sip.uri import Uri
from mediaproxy.sip.via import Via

__all__ = ["CSeq", "NameAddr", "Params", "Uri", "Via"]

# All up to an angle bracket that does not stand in a quoted string
_DISPLAY = re.compile(r'((?:[^"<]++|"(?:[^"\\]++|\\.)*+")*+)<', re.DOTALL)
# A URI without brackets. Words before it are a display name, against RFC 3261 §25.1: OpenSER took them so.
_BARE = re.compile(
    rf"[ \t\r\n]*+(?:(?:{TOKEN.pattern}+[ \t\r\n]++)+(?=[A-Za-z][A-Za-z0-9+.\-]*+:))?"
    r"([^; \t\r\n]++)[ \t\r\n]*+(?=;|\Z)"
)
_CSEQ = re.compile(rf"[ \t\r\n]*+([0-9]++)[ \t\r\n]++({TOKEN.pattern})[ \t\r\n]*+")
_STAR = Uri(text="*", scheme="", host_at=1, params_at=1, headers_at=1, params=Params(""))


class NameAddr(msgspec.Struct, frozen=True, kw_only=True):
    """``"Display" <uri>;params``, the same without brackets, or the ``*`` of a Contact. ``str()`` gives its text."""

    text: str
    "The whole value as written."
    uri: Uri
    'The address. Of ``*`` a URI with no scheme and no host, text "*".'
    uri_at: int
    "Where the URI begins in ``text``."
    uri_end: int
    "Where it ends."
    params_at: int
    "Where the parameters begin in ``text``."
    params: Params
    "The parameters of the header field, not those of the URI."

    @classmethod
    def parse(cls, text: str) -> "NameAddr":
        """Read one value. SipError if it is no address (open quote or bracket, no URI, something behind the URI)."""
        return _parse(text)

    @classmethod
    def _read(cls, text: str) -> "NameAddr":
        found = _DISPLAY.match(text)
        if found is not None:
            begin = found.end()
            end = text.find(">", begin)
            if end < 0:
                raise SipError(f"angle bracket without end in {text[:80]!r}")
            after = end + 1
            rest = text[after:].lstrip(WS)
            if rest and rest[0] != ";":
                raise SipError(f"no semicolon behind the angle bracket in {text[:80]!r}")
            uri = Uri.parse(text[begin:end])
        else:  # RFC 3261 §20: without brackets all parameters belong to the header field
            found = _BARE.match(text)
            if found is None:
                raise SipError(f"no address: {text[:80]!r}")
            begin, end = found.span(1)
            after = end
            uri = _STAR if text[begin:end] == "*" else Uri.parse(text[begin:end])
        if not quotes_closed(text[after:]):
            raise SipError(f"a quote without end in {text[:80]!r}")
        return cls(text=text, uri=uri, uri_at=begin, uri_end=end, params_at=after, params=Params(text[after:]))

    @classmethod
    def parse_many(cls, text: str) -> tuple["NameAddr", ...]:
        """Read a comma list of values."""
        return tuple(cls.parse(part) for part in split_commas(text))

    @classmethod
    def build(cls, uri: Uri | str, display: str = "") -> "NameAddr":
        """A new value ``"display" <uri>``."""
        return cls.parse(f"{quote(display)} <{uri}>" if display else f"<{uri}>")

    def __str__(self) -> str:
        return self.text

    @property
    def star(self) -> bool:
        """Whether this is the ``*`` of REGISTER (RFC 3261 §10.2.2)."""
        return self.uri is _STAR or (self.uri.text == "*" and not self.uri.scheme)

    @property
    def bracketed(self) -> bool:
        """Whether the URI stands in angle brackets."""
        return self.text[self.uri_end : self.uri_end + 1] == ">"

    @property
    def quoted(self) -> bool:
        """Whether the display name is a quoted string."""
        return self.text.lstrip(WS).startswith('"')

    @property
    def display(self) -> str:
        """The display name without its quotes, escapes resolved; "" if there is none."""
        return unquote(unfold(self.text[: self.uri_at - self.bracketed]))

    @property
    def tag(self) -> str:
        """The tag of From or To, "" if there is none."""
        return self.params.get("tag", "")

    def with_uri(self, uri: Uri | str) -> "NameAddr":
        """The same with another URI. Brackets are added only if the new URI needs them (RFC 3261 §20.10)."""
        new = Uri.parse(uri) if isinstance(uri, str) else uri
        add = not self.bracketed and any(char in new.text for char in ",;?")
        written = f"<{new.text}>" if add else new.text
        begin = self.uri_at + add
        return NameAddr(
            text=self.text[: self.uri_at] + written + self.text[self.uri_end :],
            uri=new,
            uri_at=begin,
            uri_end=begin + len(new.text),
            params_at=self.params_at + len(written) - (self.uri_end - self.uri_at),
            params=self.params,
        )

    def with_param(self, name: str, value: str | None = None) -> "NameAddr":
        """The same with the parameter set (None: without value)."""
        return self._with_params(self.params.with_param(name, value))

    def without_param(self, name: str) -> "NameAddr":
        """The same without the parameter."""
        return self._with_params(self.params.without_param(name))

    def _with_params(self, params: Params) -> "NameAddr":
        return NameAddr.parse(self.text[: self.params_at] + params.text)


_parse = remembered(NameAddr._read)


class CSeq(msgspec.Struct, frozen=True):
    """Number and method of a request (RFC 3261 §20.16)."""

    number: int
    "0 to 2**31 - 1."
    method: str
    "The method, as written: methods are case-sensitive."

    @classmethod
    def parse(cls, text: str) -> "CSeq":
        """Read a CSeq value. SipError if it is none or the number is 2**31 or more (RFC 3261 §8.1.1.5)."""
        return _cseq(text)

    @classmethod
    def _read(cls, text: str) -> "CSeq":
        found = _CSEQ.fullmatch(text)
        value = number(found.group(1), 2**31 - 1) if found else None
        if found is None or value is None:
            raise SipError(f"bad CSeq: {text[:80]!r}")
        return cls(value, found.group(2))

    def __str__(self) -> str:
        return f"{self.number} {self.method}"


_cseq = remembered(CSeq._read)
