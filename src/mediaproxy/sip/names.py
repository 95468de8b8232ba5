"""Names of header fields: compact forms, the usual spellings, and which fields are no comma lists.

A name in any spelling comes in, the one name under which we look it up goes out. Unknown names are as good as known.
"""

COMPACT = {
    "a": "accept-contact",
    "b": "referred-by",
    "c": "content-type",
    "d": "request-disposition",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "j": "reject-contact",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "n": "identity-info",
    "o": "event",
    "r": "refer-to",
    "s": "subject",
    "t": "to",
    "u": "allow-events",
    "v": "via",
    "x": "session-expires",
    "y": "identity",
}
"Compact header names and what they stand for: all of IANA's registry 'SIP Parameters, Header Fields'."

# fmt: off
SINGLE = frozenset((
    "authorization", "call-id", "content-disposition", "content-length", "content-type", "cseq", "date",
    "event", "expires", "from", "identity", "identity-info", "max-forwards", "mime-version", "min-expires",
    "min-se", "organization", "priority", "proxy-authenticate", "proxy-authorization", "rack", "refer-to",
    "referred-by", "replaces", "reply-to", "retry-after", "rseq", "server", "session-expires", "subject",
    "timestamp", "to", "user-agent", "www-authenticate",
))
"Header fields that are no comma lists, though their values may hold commas (RFC 3261 §7.3.1 and each one's grammar)."

_USUAL = (
    "Accept", "Accept-Encoding", "Accept-Language", "Alert-Info", "Allow", "Allow-Events",
    "Authentication-Info", "Authorization", "Call-ID", "Call-Info", "Contact", "Content-Disposition",
    "Content-Encoding", "Content-Language", "Content-Length", "Content-Type", "CSeq", "Date", "Error-Info",
    "Event", "Expires", "From", "In-Reply-To", "Max-Forwards", "MIME-Version", "Min-Expires", "Min-SE",
    "Organization", "P-Access-Network-Info", "P-Asserted-Identity", "P-Preferred-Identity", "Path", "Priority",
    "Privacy", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Require", "RAck", "Reason", "Record-Route",
    "Refer-To", "Referred-By", "Replaces", "Reply-To", "Require", "Retry-After", "Route", "RSeq", "Server",
    "Service-Route", "Session-Expires", "SIP-ETag", "SIP-If-Match", "Subject", "Subscription-State",
    "Supported", "Timestamp", "To", "Unsupported", "User-Agent", "Via", "Warning", "WWW-Authenticate",
)
# fmt: on
KNOWN_NAMES = {
    spelling: name.lower() for name in _USUAL for spelling in (name, name.lower(), name.title(), name.upper())
}
KNOWN_NAMES |= {spelling: name for letter, name in COMPACT.items() for spelling in (letter, letter.upper())}
"Usual spellings and their canonical name, so that most names need no more than one look-up."


def canonical(name: str) -> str:
    """The name by which a header field is looked up: lower case, compact forms written out."""
    known = KNOWN_NAMES.get(name)
    if known is not None:
        return known
    name = name.strip(" \t").lower()
    return COMPACT.get(name, name)
