"""Whether a Content-Length is too small for the body it stands with: some SIP ALGs write longer addresses into an SDP
and leave the length as it was.

What stands behind the headers of one datagram, the declared length and the Content-Type come in. Octets behind a body
are legal (RFC 3261 §18.3, RFC 4475 §3.1.1.8), so they count only if the body plainly goes on with them.
"""

import re

from mediaproxy.sip.grammar import Params, unquote

_SDP_LINE = re.compile(rb"[\r\n]*[a-z]=")
_PADDING = b"\0\r\n\t "


def goes_on(octets: bytes, length: int, content_type: str | None) -> bool:
    """Whether the body does not end after ``length`` octets, but with the last of ``octets``.

    An SDP does not end within a line, nor where another of its lines follows; a multipart does not end before its
    closing delimiter (RFC 2046 §5.1.1). Of another type of body the length is believed, and so it is if nothing but
    line ends, spaces and zeros follow.
    """
    rest = octets[length:]
    if not rest.strip(_PADDING):
        return False
    kind, semicolon, params = (content_type or "").partition(";")
    kind = "".join(kind.lower().split())
    if kind == "application/sdp" or (content_type is None and octets.startswith(b"v=")):
        within_line = length > 0 and octets[length - 1] not in b"\r\n" and rest[0] not in b"\r\n"
        return within_line or _SDP_LINE.match(rest) is not None
    if kind.startswith("multipart/"):
        boundary = unquote(Params(semicolon + params).get("boundary", "")).encode("latin-1")
        end = b"--" + boundary + b"--"
        return bool(boundary) and 0 <= octets.find(end) > length - len(end)
    return False
