"""Keep-alives that are SIP requests (OPTIONS), and how their answers are known among all other replies.

A contact and our socket come in, the bytes of a request go out; a reply's Call-ID comes in, the token of the contact
that was asked goes out. Such a request has no transaction: it is not repeated before the next interval, and its answer
is taken by the Call-ID alone, in whichever process it arrives. The Call-ID carries a mark that is drawn anew at each
start, and a random token, so nobody but the phone that was asked can answer.
"""

import msgspec

from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.uri import Uri

TOKEN_LENGTH = 16
"Characters of a token."


class SipPing(msgspec.Struct, frozen=True, kw_only=True):
    """One request. ``text`` makes its bytes."""

    method: str
    "OPTIONS, or what the operator chose."
    contact: str
    "The phone's Contact: where to, as far as the phone is concerned."
    path: str
    "The Path that leads there (RFC 3327), as it is registered; empty: none."
    sender: str
    "The URI in From; empty: ``sip:ping@`` and the address of our socket."
    mark: str
    "How our Call-IDs begin."
    token: str
    "Who is asked; TOKEN_LENGTH hexadecimal digits."
    count: int
    "So many such requests went there before."

    def text(self, local: Endpoint, transport: str) -> bytes:
        """The request as it leaves our socket ``local``. SipError if the contact is no URI that can be
        asked."""
        uri = request_uri(self.contact)
        if not self.path.isprintable():
            raise SipError(f"control characters in a Path: {self.path[:80]!r}")
        lines = [
            f"{self.method} {uri} SIP/2.0",
            f"Via: SIP/2.0/{transport.upper()} {local};branch=z9hG4bK{self.token}.{self.count:x};rport",
            *([f"Route: {self.path}"] if self.path else []),
            "Max-Forwards: 70",
            f"From: <{self.sender or f'sip:ping@{local.host}'}>;tag={self.token[:8]}{self.count:x}",
            f"To: <{uri}>",
            f"Call-ID: {self.mark}{self.token}.{self.count:x}",
            f"CSeq: 1 {self.method}",
            *(["Event: keep-alive"] if self.method == "NOTIFY" else []),
            "Content-Length: 0",
            "",
            "",
        ]
        return "\r\n".join(lines).encode("latin-1")


def request_uri(contact: str) -> str:
    """A registered contact as Request-URI: without headers, which may not stand there (RFC 3261 §19.1.1). SipError if
    it is no SIP URI."""
    uri = Uri.parse(contact)
    if uri.scheme not in ("sip", "sips"):
        raise SipError(f"not a SIP URI: {contact[:80]!r}")
    return uri.text[: uri.headers_at]


def token_of(call_id: str, mark: str) -> str | None:
    """The token in the Call-ID of a reply to one of our requests; None if it answers somebody else's."""
    if not call_id.startswith(mark):
        return None
    token, dot, _ = call_id[len(mark) :].partition(".")
    return token if dot and len(token) == TOKEN_LENGTH and token.isascii() else None
