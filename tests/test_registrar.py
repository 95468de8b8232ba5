"""REGISTER: who is registered where afterwards, and what the phone is told (RFC 3261 §10.3, RFC 3327, RFC 5626)."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.agents import NOBODY, AgentList
from mediaproxy.edge.binding import Binding
from mediaproxy.edge.media import policy_of
from mediaproxy.edge.registrar import Outcome, Registering, register
from mediaproxy.edge.settings import EdgeSettings, Expiry, Limits
from mediaproxy.endpoint import Endpoint
from mediaproxy.nat import Arrival
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Request, parse
from tests.repairs import repair

NOW = 1_700_000_000.0
HOME = Endpoint("203.0.113.7", 40000)
OTHER_HOME = Endpoint("198.51.100.9", 51000)
LOCAL = Endpoint("192.0.2.1", 5060)
SETTINGS = EdgeSettings()
PRIVATE = "<sip:alice@192.168.1.10:5060>"
PUBLIC_VIA = "SIP/2.0/UDP 203.0.113.7:40000;branch=z9hG4bK1"


def request(*contacts: str, via: str = "SIP/2.0/UDP 192.168.1.10:5060;branch=z9hG4bK1", **change: Any) -> Request:
    headers: dict[str, Any] = {"to": "<sip:alice@example.com>", "call_id": "call-1", "cseq": 1, "extra": ()} | change
    lines: list[tuple[str, str]] = [
        ("Via", via),
        ("From", "<sip:alice@example.com>;tag=a"),
        ("To", headers["to"]),
        ("Call-ID", headers["call_id"]),
        ("CSeq", f"{headers['cseq']} REGISTER"),
        ("User-Agent", "toy/1"),
        *(("Contact", contact) for contact in contacts),
        *headers["extra"],
    ]
    return Request.build("REGISTER", "sip:example.com", lines)


def scripted(message: Request, arrival: Arrival, settings: EdgeSettings, sip: AgentList = NOBODY) -> Registering:
    """What a routing script makes of it: Contact fixed and flag set behind a NAT."""
    found = repair(message, arrival, policy_of(settings, None, sip))
    assert isinstance(found.message, Request)
    flags = frozenset({settings.nat_flag} if found.nat else ())
    asymmetric = sip.matches(message.user_agent)
    return Registering(request=found.message, arrived=message, flags=flags, asymmetric=asymmetric)


class Phones:
    """A registrar with a table: what happens over several requests."""

    def __init__(self, settings: EdgeSettings = SETTINGS, sip: AgentList = NOBODY) -> None:
        self.settings, self.sip = settings, sip
        self.table: dict[tuple[str, str, str], Binding] = {}

    def send(
        self,
        message: Request,
        source: Endpoint = HOME,
        at: float = 0.0,
        transport: str = "udp",
        connection: str = "",
    ) -> Outcome:
        arrival = Arrival(source, transport, LOCAL)
        asked = scripted(message, arrival, self.settings, self.sip)
        outcome = register(asked, arrival, self.table.values(), self.settings, NOW + at, connection)
        for binding in outcome.remove:
            del self.table[binding.key]
        self.table |= {b.key: b for b in outcome.save}
        return outcome

    @property
    def contacts(self) -> list[str]:
        return sorted(b.contact for b in self.table.values())


def headers(outcome: Outcome, name: str) -> list[str]:
    return [value for header, value in outcome.headers if header == name]


def test_a_phone_behind_a_nat() -> None:
    phones = Phones()
    outcome = phones.send(request('"Alice" <sip:alice@192.168.1.10:5060;line=7>;expires=600;q=0.5'))
    assert outcome.status == 200
    assert headers(outcome, "Contact") == ['"Alice" <sip:alice@192.168.1.10:5060;line=7>;q=0.5;expires=600']
    (binding,) = outcome.save
    assert binding == Binding(
        aor="sip:alice@example.com",
        contact="sip:alice@203.0.113.7:40000;line=7",
        sent='"Alice" <sip:alice@192.168.1.10:5060;line=7>;q=0.5',
        received=HOME,
        transport="udp",
        local=LOCAL,
        expires=NOW + 600,
        q=0.5,
        call_id="call-1",
        cseq=1,
        user_agent="toy/1",
        nat=True,
    )
    assert binding.reachable
    # A query later shows what remains.
    assert headers(phones.send(request(cseq=2), at=100.4), "Contact") == [
        '"Alice" <sip:alice@192.168.1.10:5060;line=7>;q=0.5;expires=500'
    ]


@pytest.mark.parametrize(
    ("contact", "via", "change", "contact_kept", "nat"),
    [
        pytest.param("<sip:a@203.0.113.7:40000>", PUBLIC_VIA, {}, "sip:a@203.0.113.7:40000", False, id="no NAT"),
        pytest.param("<sip:a@192.168.1.10>", None, {}, "sip:a@203.0.113.7:40000", True, id="NAT"),
        pytest.param("<sip:a@192.168.1.10>", None, {"nat_tests": 0}, "sip:a@192.168.1.10", False, id="no tests"),
        pytest.param("<sip:a@phone.example>", PUBLIC_VIA, {}, "sip:a@phone.example", False, id="a name"),
        pytest.param(
            "<sip:a@192.168.1.10:5062>",
            None,
            {"sip": AgentList.parse("^toy")},
            "sip:a@203.0.113.7:5062",
            True,
            id="asymmetric client",
        ),
        pytest.param("<sip:a@192.168.1.10?Route=%3Csip:x%3E>", None, {}, "sip:a@203.0.113.7:40000", True, id="headers"),
        pytest.param("sip:a@192.168.1.10;x=y", None, {}, "sip:a@203.0.113.7:40000", True, id="no brackets"),
        pytest.param(
            "<sip:a@192.168.1.10>",
            f"{PUBLIC_VIA}, SIP/2.0/UDP 192.168.1.10",
            {},
            "sip:a@192.168.1.10",
            False,
            id="through a proxy: its NAT is not the phone's",
        ),
    ],
)
def test_repair(contact: str, via: str | None, change: dict[str, Any], contact_kept: str, nat: bool) -> None:
    message = request(contact, **({"via": via} if via else {}))
    sip = change.pop("sip", NOBODY)
    outcome = Phones(msgspec.structs.replace(SETTINGS, **change), sip).send(message)
    assert [(b.contact, b.nat) for b in outcome.save] == [(contact_kept, nat)]


@pytest.mark.parametrize(
    ("flags", "nat", "sip_ping", "remove_lost"),
    [
        pytest.param((), False, False, False, id="none"),
        pytest.param((6,), True, False, False, id="nat_flag"),
        pytest.param((6, 2), True, True, False, id="the documentation's example"),
        pytest.param((6, 2, 3), True, True, True, id="all"),
        pytest.param((2,), False, True, False, id="a phone without NAT"),
        pytest.param((0, 1, 4, 5, 31), False, False, False, id="others mean nothing here"),
    ],
)
def test_flags_of_the_script(flags: tuple[int, ...], nat: bool, sip_ping: bool, remove_lost: bool) -> None:
    def save(settings: EdgeSettings, flags: Iterable[int]) -> Binding:
        message = request(PRIVATE)
        asked = Registering(request=message, arrived=message, flags=frozenset(flags))
        (binding,) = register(asked, Arrival(HOME, "udp", LOCAL), (), settings, NOW).save
        return binding

    binding = save(SETTINGS, flags)
    assert (binding.nat, binding.sip_ping, binding.remove_lost) == (nat, sip_ping, remove_lost)
    assert binding.contact == "sip:alice@192.168.1.10:5060", "only the script fixes contacts"
    others = EdgeSettings(nat_flag=16, sip_natping_flag=12, sipping_remove_flag=13)
    assert save(others, [flag + 10 for flag in flags if flag < 20]) == binding


def test_where_a_sip_asymmetric_phone_is_reached() -> None:
    """It sends from any port, and listens on the one that it writes: that is forwarded to it by its NAT."""
    phones = Phones(sip=AgentList.parse("^toy/"))
    (binding,) = phones.send(request("<sip:alice@192.168.1.10:5062>")).save
    assert binding.received == HOME
    assert binding.place == HOME.with_port(5062)
    (binding,) = phones.send(request("<sip:alice@192.168.1.10>", cseq=2)).save
    assert binding.place == HOME.with_port(5060)
    symmetric = Phones().send(request("<sip:alice@192.168.1.10:5062>")).save[0]
    assert symmetric.place == symmetric.received == HOME
    over_tcp = phones.send(request("<sip:alice@192.168.1.10:5062>", cseq=3), transport="tcp", connection="c").save[0]
    assert over_tcp.place == HOME, "a connection goes both ways"


def test_contacts_that_the_script_has_put_in() -> None:
    message = request(PRIVATE)
    more = message.append("Contact", "<sip:alice@203.0.113.9>")
    outcome = register(Registering(request=more, arrived=message), Arrival(HOME, "udp", LOCAL), (), SETTINGS, NOW)
    assert [b.sent for b in outcome.save] == [PRIVATE, "<sip:alice@203.0.113.9>"]


ENTERTAIN = EdgeSettings(expiry=Expiry(minimum=60, default=3600, maximum=7200))


@pytest.mark.parametrize(
    ("contact", "header", "granted"),
    [
        pytest.param(PRIVATE, None, 3600, id="default"),
        pytest.param(PRIVATE, "600", 600, id="header"),
        pytest.param(f"{PRIVATE};expires=90", "600", 90, id="the contact's own wins"),
        pytest.param(f"{PRIVATE};expires=60", None, 60, id="just enough"),
        pytest.param(PRIVATE, "99999", 7200, id="cut"),
        pytest.param(PRIVATE, "99999999999999999999", 7200, id="beyond 32 bits"),
        pytest.param(f"{PRIVATE};expires=soon", "600", 600, id="unreadable parameter"),
        pytest.param(PRIVATE, "soon", 3600, id="unreadable header"),
        pytest.param(PRIVATE, "-1", 3600, id="negative"),
    ],
)
def test_expires(contact: str, header: str | None, granted: int) -> None:
    outcome = Phones(ENTERTAIN).send(request(contact, extra=[("Expires", header)] if header else []))
    assert headers(outcome, "Contact") == [f"{PRIVATE};expires={granted}"]
    assert [b.expires for b in outcome.save] == [NOW + granted]


def test_too_brief() -> None:
    phones = Phones()
    outcome = phones.send(request(PRIVATE, "<sip:alice@192.168.1.11>;expires=59"))
    assert (outcome.status, outcome.reason) == (423, "Interval Too Brief")
    assert headers(outcome, "Min-Expires") == ["60"]
    assert phones.contacts == []


def test_refresh_after_the_nat_moved_the_phone() -> None:
    phones = Phones()
    phones.send(request(PRIVATE))
    outcome = phones.send(request(PRIVATE, cseq=2), source=Endpoint(HOME.address, 40007), at=50)
    assert phones.contacts == ["sip:alice@203.0.113.7:40007"]
    assert len(headers(outcome, "Contact")) == 1


@pytest.mark.parametrize(
    ("source", "call_id", "bindings"),
    [
        pytest.param(HOME, "call-1", 1, id="refresh"),
        pytest.param(OTHER_HOME, "call-1", 1, id="roamed, same Call-ID"),
        pytest.param(Endpoint(HOME.address, 40001), "call-9", 1, id="rebooted, NAT moved it"),
        pytest.param(OTHER_HOME, "call-9", 2, id="a second phone, in another home with the same LAN addresses"),
    ],
)
def test_the_same_private_contact_again(source: Endpoint, call_id: str, bindings: int) -> None:
    phones = Phones()
    phones.send(request(PRIVATE))
    phones.send(request(PRIVATE, call_id=call_id, cseq=2), source=source)
    assert len(phones.table) == bindings


def test_one_uri_written_in_two_ways() -> None:
    """RFC 3261 §10.3 step 7: URIs are compared, not their text."""
    phones = Phones()
    phones.send(request("<sip:alice@Phone.test:5060;transport=TCP;x=1>"))
    other = "<sip:%61lice@phone.TEST:5060;x=1;transport=tcp>"
    outcome = phones.send(request(other, cseq=2))
    assert headers(outcome, "Contact") == [f"{other};expires=3600"]
    phones.send(request("<sip:alice@phone.test:5060;transport=tcp>;expires=0", cseq=3))
    assert phones.table == {}


def test_several_contacts_in_one_request() -> None:
    phones = Phones()
    one, two = "<sip:alice@192.168.1.10:5060>", "<sip:alice@192.168.1.10:5062;transport=tcp>"
    outcome = phones.send(request(f"{one};expires=100, {two}", one))
    assert headers(outcome, "Contact") == [f"{one};expires=100", f"{two};expires=3600"]
    outcome = phones.send(request(f"{one};expires=0", cseq=2))
    assert headers(outcome, "Contact") == [f"{two};expires=3600"]
    assert [b.sent for b in phones.table.values()] == [two]


def test_unregister_one_and_what_is_not_there() -> None:
    phones = Phones()
    phones.send(request(PRIVATE))
    assert phones.send(request("<sip:alice@192.168.1.99>;expires=0", cseq=2)).status == 200
    assert len(phones.table) == 1
    outcome = phones.send(request(f"{PRIVATE};expires=0", cseq=3))
    assert outcome.status == 200
    assert headers(outcome, "Contact") == []
    assert phones.table == {}


def test_star_removes_all() -> None:
    phones = Phones()
    phones.send(request(PRIVATE))
    phones.send(request(PRIVATE, call_id="call-2"), source=OTHER_HOME)
    outcome = phones.send(request("*", cseq=7, extra=[("Expires", "0")]))
    assert (outcome.status, headers(outcome, "Contact"), phones.table) == (200, [], {})


@pytest.mark.parametrize(
    ("contacts", "expires"),
    [
        pytest.param(["*"], None, id="no Expires"),
        pytest.param(["*"], "10", id="Expires not 0"),
        pytest.param(["*", PRIVATE], "0", id="not alone"),
        pytest.param(["<sip:a@h"], "0", id="open bracket"),
        pytest.param(["sip:a@h?Route=x"], None, id="question mark without brackets"),
        pytest.param(["<mailto:alice@example.com>"], None, id="mailto"),
        pytest.param(["not a uri"], None, id="no URI"),
        pytest.param(["<sip:alice@192.0.2.9:0>"], None, id="port 0"),
    ],
)
def test_contacts_that_are_the_phones_fault(contacts: list[str], expires: str | None) -> None:
    phones = Phones()
    phones.send(request(PRIVATE))
    with pytest.raises(SipError):
        phones.send(request(*contacts, cseq=2, extra=[("Expires", expires)] if expires else []))
    assert len(phones.table) == 1


@pytest.mark.parametrize("cseq", [4, 5])
@pytest.mark.parametrize("contact", [PRIVATE, f"{PRIVATE};expires=0", f"{PRIVATE}, <sip:alice@192.168.1.11>", "*"])
def test_an_old_request_changes_nothing(contact: str, cseq: int) -> None:
    phones = Phones()
    phones.send(request(PRIVATE, cseq=5))
    before = dict(phones.table)
    outcome = phones.send(request(contact, cseq=cseq, extra=[("Expires", "0")] if contact == "*" else []), at=9)
    assert outcome.status == 500
    assert phones.table == before
    assert phones.send(request(PRIVATE, cseq=cseq, call_id="after-reboot")).status == 200


PATH = [("Path", "<sip:p2.example.net;lr>, <sip:p1.example.net;lr;ob>"), ("Path", "<sip:p0.example.net;lr>")]


def test_path_is_kept_and_echoed() -> None:
    phones = Phones()
    outcome = phones.send(request(PRIVATE, extra=[*PATH, ("Supported", "timer, PATH")]))
    values = ["<sip:p2.example.net;lr>", "<sip:p1.example.net;lr;ob>", "<sip:p0.example.net;lr>"]
    assert headers(outcome, "Path") == values
    assert [b.path for b in outcome.save] == [tuple(values)]


@pytest.mark.parametrize(
    ("extra", "unsupported"),
    [
        pytest.param(PATH, "path", id="Path that the phone does not know of"),
        pytest.param([("Require", "path, teleport"), ("Require", "gruu")], "teleport, gruu", id="Require"),
    ],
)
def test_extensions_that_are_not_there(extra: list[tuple[str, str]], unsupported: str) -> None:
    outcome = Phones().send(request(PRIVATE, extra=extra))
    assert (outcome.status, headers(outcome, "Unsupported")) == (420, [unsupported])
    assert outcome.save == ()


INSTANCE = '+sip.instance="<urn:uuid:00000000-0000-1000-8000-000A95A0E128>"'
OUTBOUND = [("Supported", "path, outbound")]


def flow(port: int, reg_id: str = "") -> str:
    return f"<sip:alice@192.168.1.10:{port};transport=tcp>;{INSTANCE}" + (f";reg-id={reg_id}" if reg_id else "")


@pytest.mark.parametrize(
    ("first", "second", "extra", "bindings"),
    [
        pytest.param(flow(5001, "1"), flow(5002, "1"), OUTBOUND, 1, id="same flow, new contact"),
        pytest.param(flow(5001, "1"), flow(5001, "2"), OUTBOUND, 2, id="two flows of one phone"),
        pytest.param(flow(5001), flow(5002), (), 1, id="same instance moved"),
        pytest.param(flow(5001, "1"), flow(5002, "2"), (), 1, id="reg-id without outbound does not count"),
        pytest.param(flow(5001), flow(5002).replace("A95A", "B95B"), (), 2, id="another instance"),
        pytest.param(flow(5001), flow(5001).replace("A95A", "B95B"), (), 2, id="another instance, same contact"),
    ],
)
def test_instances(first: str, second: str, extra: Iterable[tuple[str, str]], bindings: int) -> None:
    phones = Phones()
    phones.send(request(first, extra=extra), transport="tcp", connection="1")
    outcome = phones.send(request(second, extra=extra, call_id="call-2"), transport="tcp", connection="2")
    assert len(phones.table) == len(headers(outcome, "Contact")) == bindings
    assert outcome.save[0].instance.startswith("<urn:uuid:")
    assert headers(outcome, "Require") == (["outbound"] if extra else [])


def test_two_contacts_of_one_instance_stay_two() -> None:
    phones = Phones()
    for cseq in (1, 2, 3):
        phones.send(request(flow(5001), flow(5002), cseq=cseq))
        assert len(phones.table) == 2


@pytest.mark.parametrize(
    ("path", "status"),
    [("<sip:edge.example.net;lr>", 439), ("<sip:edge.example.net;lr;ob>", 200), ("", 439)],
)
def test_outbound_needs_the_first_hop(path: str, status: int) -> None:
    extra = [*OUTBOUND, *([("Path", path)] if path else [])]
    message = request(flow(5001, "1"), via=f"{PUBLIC_VIA}, SIP/2.0/UDP 192.168.1.10", extra=extra)
    assert Phones().send(message).status == status


def test_a_limit_on_contacts() -> None:
    phones = Phones(EdgeSettings(limits=Limits(contacts=2)))
    contacts = [f"<sip:alice@192.168.1.{n}>" for n in range(1, 5)]
    assert phones.send(request(*contacts[:3])).status == 403
    assert phones.table == {}
    phones.send(request(*contacts[:2]))
    assert phones.send(request(contacts[2], cseq=2)).status == 403
    assert phones.send(request(f"{contacts[0]};expires=0", contacts[2], cseq=3)).status == 200
    assert phones.send(request(contacts[3], cseq=4), at=4000).status == 200
    assert len([b for b in phones.table.values() if b.expires > NOW + 4000]) == 1


def test_a_dead_connection_makes_room() -> None:
    phones = Phones(EdgeSettings(limits=Limits(contacts=1)))
    contacts = [f"<sip:alice@192.168.1.10:{port};transport=tcp>" for port in (5001, 5002)]
    phones.send(request(contacts[0]), transport="tcp", connection="1")
    full = phones.send(request(contacts[1], cseq=2), transport="tcp", connection="2")
    assert full.status == 403
    phones.table = {k: msgspec.structs.replace(b, connection="") for k, b in phones.table.items()}
    outcome = phones.send(request(contacts[1], cseq=3), transport="tcp", connection="2")
    assert outcome.status == 200
    assert [b.connection for b in phones.table.values()] == ["2"]


@given(st.binary(max_size=60), st.binary(max_size=20), st.binary(max_size=20))
def test_whatever_the_phone_writes_only_sip_errors_come(contact: bytes, expires: bytes, path: bytes) -> None:
    data = bytes(request(extra=[("Contact", "1!"), ("Expires", "2!"), ("Path", "3!"), ("Supported", "path")]))
    for mark, piece in ((b"1!", contact), (b"2!", expires), (b"3!", path)):
        data = data.replace(mark, piece)
    phones = Phones()
    try:
        message = parse(data)
        assert isinstance(message, Request)
        outcome = phones.send(message)
    except SipError:
        assert phones.table == {}
    else:
        assert outcome.status in (200, 403, 420, 423)
