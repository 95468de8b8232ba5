"""Bindings: the name that a user is registered under, however it is written, and what makes a contact reachable."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.edge.binding import Binding, canonical_aor, same_uri
from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.header import Uri


@pytest.mark.parametrize(
    ("text", "aor"),
    [
        ("sip:alice@example.com", "sip:alice@example.com"),
        ("SIP:alice:secret@EXAMPLE.com:5070;transport=tcp?subject=x", "sip:alice@example.com"),
        ("sips:Alice@Example.COM.", "sip:Alice@example.com"),
        ("sip:%61lic%65@example.com", "sip:alice@example.com"),
        ("sip:a%40b@example.com", "sip:a%40b@example.com"),
        ("sip:j\xc3\xbcrgen@example.com", "sip:j%C3%BCrgen@example.com"),
        ("sip:j%c3%bcrgen@example.com", "sip:j%C3%BCrgen@example.com"),
        ("sip:+49;phone-context=x@192.0.2.1:5060", "sip:+49;phone-context=x@192.0.2.1"),
        ("sip:alice@[2001:DB8:0::1]:5060", "sip:alice@[2001:db8::1]"),
    ],
)
def test_address_of_record(text: str, aor: str) -> None:
    assert canonical_aor(Uri.parse(text)) == aor
    assert canonical_aor(Uri.parse(aor)) == aor


@pytest.mark.parametrize(
    ("text", "status"), [("tel:+4930", 416), ("sip:example.com", 404), ("mailto:a@b", 416), ("sip:@example.com", 404)]
)
def test_no_address_of_record(text: str, status: int) -> None:
    with pytest.raises(SipError) as error:
        canonical_aor(Uri.parse(text))
    assert error.value.status == status


# RFC 3261 §19.1.4: its own examples, and a few more
@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp", True),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5", True),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;newparam=5", True),
        ("sip:biloxi.com;transport=tcp;method=REGISTER", "sip:biloxi.com;method=REGISTER;transport=tcp", True),
        ("sip:a@b?to=x&priority=urgent", "sip:a@b?priority=urgent&to=x", True),
        ("sip:a@[2001:db8::1]", "SIP:a@[2001:DB8:0::1]", True),
        ("SIP:ALICE@AtLanTa.CoM", "sip:alice@AtLanTa.CoM", False),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060", False),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp", False),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off", False),
        ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting", False),
        ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4", False),
        ("sip:bob:a@h", "sip:bob:b@h", False),
        ("sip:h", "sip:bob@h", False),
        ("sip:bob@h", "sips:bob@h", False),
    ],
)
def test_equal_uris(one: str, other: str, same: bool) -> None:
    assert same_uri(Uri.parse(one), Uri.parse(other)) is same
    assert same_uri(Uri.parse(other), Uri.parse(one)) is same


@given(st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="<>@:\x7f"), min_size=1))
def test_a_canonical_name_stays_what_it_is(user: str) -> None:
    try:
        aor = canonical_aor(Uri.parse(f"sip:{user}@example.com"))
    except SipError:
        return
    assert canonical_aor(Uri.parse(aor)) == aor
    assert aor.isascii()


FIELDS: dict[str, Any] = {
    "aor": "sip:a@b",
    "contact": "sip:a@192.0.2.1",
    "sent": "<sip:a@192.0.2.1>",
    "received": Endpoint("192.0.2.1", 5060),
    "transport": "udp",
    "local": Endpoint("192.0.2.2", 5060),
    "expires": 100.0,
    "call_id": "c",
    "cseq": 1,
}


@pytest.mark.parametrize(
    ("change", "reachable"),
    [
        ({}, True),
        ({"transport": "tcp", "connection": "7"}, True),
        ({"transport": "tcp"}, False),
        ({"transport": "tls"}, False),
    ],
)
def test_reachable(change: dict[str, Any], reachable: bool) -> None:
    binding = Binding(**(FIELDS | change))
    assert binding.reachable is reachable
    assert (binding.remaining(40.6), binding.remaining(200.0)) == (59, 0)
    assert msgspec.json.decode(msgspec.json.encode(binding), type=Binding) == binding


@pytest.mark.parametrize(
    ("change", "port"),
    [
        pytest.param({}, 40000, id="symmetric: where it sends from"),
        pytest.param({"asymmetric": True, "contact": "sip:a@192.0.2.1:5062"}, 5062, id="asymmetric"),
        pytest.param({"asymmetric": True}, 5060, id="asymmetric, without a port"),
        pytest.param({"asymmetric": True, "contact": "sip:a@[2001:db8::1]:5062"}, 5062, id="another address"),
        pytest.param({"asymmetric": True, "transport": "tcp"}, 40000, id="a connection goes both ways"),
        pytest.param({"asymmetric": True, "contact": "nonsense"}, 40000, id="a file that somebody wrote into"),
    ],
)
def test_where_requests_go(change: dict[str, Any], port: int) -> None:
    binding = Binding(**(FIELDS | {"received": Endpoint("192.0.2.1", 40000)} | change))
    assert binding.place == Endpoint("192.0.2.1", port)
