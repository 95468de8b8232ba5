"""What a server refuses, and with which status; RFC 4475's cases are in test_rfc4475.py."""

import pytest

from mediaproxy.sip.check import check
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import parse

GOOD = {
    "start": "INVITE sip:bob@example.com SIP/2.0",
    "via": "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1",
    "from": "From: <sip:alice@example.com>;tag=1",
    "to": "To: <sip:bob@example.com>",
    "call-id": "Call-ID: 1",
    "cseq": "CSeq: 1 INVITE",
    "contact": "Contact: <sip:alice@192.0.2.1>",
    "length": "Content-Length: 0",
}


def message(**changes: str | None) -> bytes:
    fields = {**GOOD, **{name.replace("_", "-"): text for name, text in changes.items()}}
    return ("\r\n".join(text for text in fields.values() if text is not None) + "\r\n\r\n").encode("latin-1")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"length": None},
        {"length": "Content-Length: 0\r\nl: 0"},
        {"x": "Max-Forwards: 255"},
        {"x": "Max-Forwards: 0"},
        {"contact": None},
        {"contact": "Contact: *"},
        {"contact": "Contact: <mailto:a@b>, <tel:1>, tel:2"},
        {"contact": 'Contact: <sip:a@b?Route=x>, "a,b" <sip:a,b@c>'},
        {"from": "From: A B. Ö \x81 'x' <sip:a@b>"},
        {"to": 'To: "a, b" <sip:a@b>;tag=x'},
        {"start": "INVITE tel:+1 SIP/2.0"},
        {"start": "INVITE sips:a@b sip/2.0"},
        {"via": "Via: SIP/2.0/WSS a.invalid;branch=z9hG4bK, SIP/2.0/UDP 255.255.255.255"},
        {"cseq": "CSeq: 2147483647 INVITE"},
        {"start": "SIP/2.0 200 OK"},
        {"start": "SIP/2.0 200 OK", "cseq": "CSeq: 1 BYE"},
        {"x": "Expires: soon"},
    ],
)
def test_accepted(changes: dict[str, str | None]) -> None:
    check(parse(message(**changes)))


@pytest.mark.parametrize(
    ("changes", "status", "what"),
    [
        ({"start": "INVITE sip:a@b SIP/3.0"}, 505, "version"),
        ({"start": "SIP/1.0 200 OK"}, 505, "version"),
        ({"start": "INVITE  sip:a@b SIP/2.0"}, 400, "start line"),
        ({"start": "INVITE sip:a@b SIP/2.0 "}, 400, "start line"),
        ({"start": "INVITE sip:a@b?x=y SIP/2.0"}, 400, "Request-URI"),
        ({"start": "INVITE sip:a@b:0x1 SIP/2.0"}, 400, "Request-URI"),
        ({"start": "INVITE bob SIP/2.0"}, 400, "Request-URI"),
        ({"start": "INVITE http://a/ SIP/2.0"}, 416, "scheme"),
        ({"start": "BYE sip:a@b SIP/2.0"}, 400, "cseq"),
        ({"start": "invite sip:a@b SIP/2.0"}, 400, "cseq"),
        ({"via": None}, 400, "via"),
        ({"from": None}, 400, "from"),
        ({"to": None}, 400, "to"),
        ({"call_id": None}, 400, "call-id"),
        ({"call_id": "i:  "}, 400, "call-id"),
        ({"cseq": None}, 400, "cseq"),
        ({"cseq": "CSeq: 2147483648 INVITE"}, 400, "cseq"),
        ({"x": "t: <sip:b@c>"}, 400, "to"),
        ({"x": "i: 1"}, 400, "call-id"),
        ({"x": "Max-Forwards: 70\r\nMax-Forwards: 70"}, 400, "max-forwards"),
        ({"x": "Max-Forwards: 256"}, 400, "max-forwards"),
        ({"x": "Max-Forwards:"}, 400, "max-forwards"),
        ({"via": "Via: SIP/2.0/UDP a, b"}, 400, "via"),
        ({"via": "\r\n".join(["Via: SIP/2.0/UDP a;branch=z9hG4bK"] * 72)}, 483, "via"),
        ({"contact": "Contact: <sip:a@b>, x"}, 400, "contact"),
        ({"contact": "Contact: sip:a@b?x=y"}, 400, "contact"),
        ({"to": "To: sip:a,b@c"}, 400, "to"),
        ({"to": "To: Watson, T <sip:a@b>"}, 400, "to"),
        ({"to": "To: *"}, 400, "to"),
        ({"x": "Route: *"}, 400, "route"),
        ({"x": "Route: x"}, 400, "route"),
        ({"x": "Record-Route: <sip:a@b"}, 400, "record-route"),
        ({"length": "Content-Length: 1"}, 400, "content-length"),
        ({"length": "Content-Length: -1"}, 400, "content-length"),
        ({"length": "Content-Length: 0\r\nl: 1"}, 400, "content-length"),
        ({"length": "Content-Length:"}, 400, "content-length"),
    ],
)
def test_refused(changes: dict[str, str | None], status: int, what: str) -> None:
    with pytest.raises(SipError, match=what) as caught:
        check(parse(message(**changes)))
    assert caught.value.status == status


def test_a_datagram_cut_in_its_head_is_refused() -> None:
    with pytest.raises(SipError, match="empty line"):
        check(parse(message()[:-2]))
