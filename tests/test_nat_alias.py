"""Aliases: what goes into a Contact and comes off a Request-URI. tests/e2e/test_nat_uac.py compares with Kamailio."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.endpoint import Endpoint
from mediaproxy.nat import Arrival, add_contact_alias, handle_ruri_alias
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Message, Request, parse
from tests.test_nat import contact, contacts_of

SOURCE = "203.0.113.9:40123"
ALIAS = ";alias=203.0.113.9~40123~1"


def arrival(source: str = SOURCE, transport: str = "udp") -> Arrival:
    return Arrival(Endpoint.parse(source), transport, Endpoint("203.0.113.1", 5060))


def invite(uri: str) -> Request:
    request = parse(f"INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nX: \xff\r\n\r\n".encode("latin-1"))
    assert isinstance(request, Request)
    return request


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(["<sip:bob@10.0.0.5:5060>"], [f"<sip:bob@10.0.0.5:5060{ALIAS}>"], id="port"),
        pytest.param(["<sip:bob@10.0.0.5>"], [f"<sip:bob@10.0.0.5{ALIAS}>"], id="no-port"),
        pytest.param(["<sip:10.0.0.5>"], [f"<sip:10.0.0.5{ALIAS}>"], id="no-user"),
        pytest.param(["<sip:b@phone.lan>"], [f"<sip:b@phone.lan{ALIAS}>"], id="name"),
        pytest.param(["<sip:b@[fd00::1]:7>"], [f"<sip:b@[fd00::1]:7{ALIAS}>"], id="ipv6-contact"),
        pytest.param(
            ['"B" <sip:b:pw@10.0.0.5:5;line=1?X=y>;q=1;x=\xff'],
            [f'"B" <sip:b:pw@10.0.0.5:5{ALIAS};line=1?X=y>;q=1;x=\xff'],
            id="before-other-parameters",
        ),
        pytest.param(["<sip:b@10.0.0.5;alias=1~2~3>"], [f"<sip:b@10.0.0.5{ALIAS};alias=1~2~3>"], id="before-another"),
        pytest.param(["sip:bob@10.0.0.5:5062;q=1"], [f"<sip:bob@10.0.0.5:5062{ALIAS}>;q=1"], id="gets-brackets"),
        pytest.param(["Bob sip:bob@10.0.0.5"], [f"Bob <sip:bob@10.0.0.5{ALIAS}>"], id="gets-brackets-behind-a-name"),
        pytest.param(
            ["<sip:a@10.0.0.5>, <sip:b@203.0.113.9:40123>", "<sips:c@h>"],
            [f"<sip:a@10.0.0.5{ALIAS}>, <sip:b@203.0.113.9:40123>", f"<sips:c@h{ALIAS}>"],
            id="all-that-need-one",
        ),
        pytest.param(["<sip:b@h", "<sip:c@h>"], ["<sip:b@h", f"<sip:c@h{ALIAS}>"], id="one-is-unreadable"),
        pytest.param(["<sip:b@203.0.113.9:40124>"], [f"<sip:b@203.0.113.9:40124{ALIAS}>"], id="other-port"),
        pytest.param(
            ["<sip:b@203.0.113.9:40123;transport=tcp>"],
            [f"<sip:b@203.0.113.9:40123{ALIAS};transport=tcp>"],
            id="other-transport",
        ),
    ],
)  # fmt: skip
def test_an_alias_is_added(before: list[str], after: list[str]) -> None:
    message = contact(*before)
    aliased = add_contact_alias(message, arrival())
    assert aliased is not None and aliased is not message
    assert contacts_of(aliased) == after
    assert aliased.remove("contact") == message.remove("contact")


@pytest.mark.parametrize(
    ("values", "source", "transport"),
    [
        ([], SOURCE, "udp"),
        (["*"], SOURCE, "udp"),
        (["<sip:b@203.0.113.9:40123>"], SOURCE, "udp"),
        (["<sip:b@203.0.113.9:40123;transport=UDP>"], SOURCE, "udp"),
        (["<sip:b@203.0.113.9>"], "203.0.113.9:5060", "udp"),
        (["<sip:b@203.0.113.9;transport=tcp>"], "203.0.113.9:5060", "tcp"),
        (["<sips:b@203.0.113.9>"], "203.0.113.9:5061", "tls"),
        (["<sip:b@203.0.113.9;transport=tls>"], "203.0.113.9:5061", "tls"),
        (["<sip:b@[2001:DB8::9]:5060>"], "[2001:db8::9]:5060", "udp"),
    ],
)
def test_no_alias_is_needed(values: list[str], source: str, transport: str) -> None:
    message = contact(*values)
    assert add_contact_alias(message, arrival(source, transport)) is message


@pytest.mark.parametrize(
    ("values", "transport"), [(["<sip:b@h"], "udp"), (["<tel:+1>"], "udp"), (["<sip:b@h>"], "pigeon")]
)
def test_no_alias_can_be_added(values: list[str], transport: str) -> None:
    assert add_contact_alias(contact(*values), arrival(transport=transport)) is None


@pytest.mark.parametrize(
    ("transport", "digit", "parameter"),
    [
        ("udp", 1, ""),
        ("tcp", 2, ";transport=tcp"),
        ("tls", 3, ";transport=tls"),
        ("sctp", 4, ";transport=sctp"),
        ("ws", 5, ";transport=ws"),
        ("wss", 6, ";transport=ws"),
    ],
)
@pytest.mark.parametrize("source", [SOURCE, "[2001:db8::9]:1"])
def test_what_was_added_leads_back(transport: str, digit: int, parameter: str, source: str) -> None:
    aliased = add_contact_alias(contact("<sip:bob@10.0.0.5:5060;line=1>"), arrival(source, transport))
    assert aliased is not None
    host, _, port = source.rpartition(":")
    uri = str(aliased.contacts[0].uri)
    assert uri == f"sip:bob@10.0.0.5:5060;alias={host}~{port}~{digit};line=1"
    found = handle_ruri_alias(invite(uri))
    assert found is not None
    assert str(found.destination) == f"sip:{source}{parameter}"
    assert found.request == invite("sip:bob@10.0.0.5:5060;line=1")


def test_a_sip_asymmetric_client_is_reached_at_its_own_port() -> None:
    def aliased(value: str) -> list[str] | None:
        return contacts_of(add_contact_alias(contact(value), arrival(), sip_asymmetric=True))

    assert aliased("<sip:b@10.0.0.5:5070>") == ["<sip:b@10.0.0.5:5070;alias=203.0.113.9~5070~1>"]
    assert aliased("<sip:b@10.0.0.5>") == ["<sip:b@10.0.0.5;alias=203.0.113.9~5060~1>"]
    assert aliased("<sip:b@203.0.113.9:5070>") == ["<sip:b@203.0.113.9:5070>"]


@pytest.mark.parametrize(
    ("uri", "left", "destination"),
    [
        ("sip:b@h;alias=192.0.2.4~5~1", "sip:b@h", "sip:192.0.2.4:5"),
        ("sip:b@h;a=1;alias=192.0.2.4~5~2;z?h=v", "sip:b@h;a=1;z?h=v", "sip:192.0.2.4:5;transport=tcp"),
        ("sip:b@h;ALIAS=192.0.2.4~5~1", "sip:b@h", "sip:192.0.2.4:5"),
        ("sips:b@h:7;alias=[2001:DB8::1]~5~3", "sips:b@h:7", "sip:[2001:db8::1]:5;transport=tls"),
        ("sip:b@h;alias=192.0.2.4~5~1;alias=192.0.2.5~6~1", "sip:b@h;alias=192.0.2.5~6~1", "sip:192.0.2.4:5"),
        ('sip:b@h;x=";alias=192.0.2.9~9~1";alias=192.0.2.4~5~1', 'sip:b@h;x=";alias=192.0.2.9~9~1"', "sip:192.0.2.4:5"),
    ],
)
def test_an_alias_is_taken_off(uri: str, left: str, destination: str) -> None:
    found = handle_ruri_alias(invite(uri))
    assert found is not None
    assert (found.request, str(found.destination)) == (invite(left), destination)


@pytest.mark.parametrize(
    "uri",
    [
        "sip:b@h",
        "sip:b@h;x=alias",
        "sip:b@h;alias",
        "sip:b@h;alias=",
        "sip:b;alias=1.2.3.4~5~1@h",
        "tel:1;alias=1.2.3.4~5~1",
    ],
)
def test_there_is_no_alias(uri: str) -> None:
    assert handle_ruri_alias(invite(uri)) is None


@pytest.mark.parametrize(
    "alias",
    [
        "192.0.2.4", "192.0.2.4~5", "192.0.2.4~5~", "192.0.2.4~5~0", "192.0.2.4~5~7", "192.0.2.4~5~12", "192.0.2.4~~1",
        "192.0.2.4~0~1", "192.0.2.4~65536~1", "192.0.2.4~+5~1", "192.0.2.256~5~1", "10.1~5~1", "h~5~1", "~5~1",
        "2001:db8::1~5~1", "[192.0.2.4~5~1", "[x]~5~1", "192.0.2.4~5~1~",
    ],
)  # fmt: skip
def test_a_broken_alias(alias: str) -> None:
    with pytest.raises(SipError):
        handle_ruri_alias(invite(f"sip:b@h;alias={alias}"))


_junk = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=30)


@given(st.lists(st.sampled_from(["<sip:a@h>", "sip:a@h;x", "*", "<"]) | _junk, max_size=3))
def test_any_contact_is_aliased_or_left(values: list[str]) -> None:
    try:
        message: Message = contact(*values)
    except SipError:
        return
    aliased = add_contact_alias(message, arrival())
    if aliased is not None:
        assert parse(bytes(aliased)) == aliased
        assert aliased.remove("contact") == message.remove("contact")


@given(st.text("0123456789.~:[]abcf;=", max_size=30))
def test_only_sip_errors_leave(alias: str) -> None:
    try:
        found = handle_ruri_alias(invite(f"sip:b@h;alias={alias}"))
    except SipError:
        return
    assert found is None or found.destination.endpoint is not None
