"""Which hosts are ours, and which listeners may be opened (calls.md 19, 20)."""

import pytest

from mediaproxy.edge.domains import Domains, refusals
from mediaproxy.edge.interfaces import host_addresses, listeners_of
from mediaproxy.edge.settings import EdgeSettings, Listener, Tls, Transport
from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.digest import Account
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.header import Uri

UDP, TCP, TLS = Transport.UDP, Transport.TCP, Transport.TLS
ACCOUNTS = (Account(username="alice", password="x"),)


def at(address: str, port: int = 5060, transport: Transport = UDP, advertise: str = "") -> Listener:
    public = Endpoint(advertise, port) if advertise else None
    return Listener(transport=transport, bind=Endpoint(address, port), advertise=public)


LISTENERS = (at("192.168.1.1"), at("10.0.0.2", advertise="198.51.100.1"), at("fd00::1"))
ODD = at("10.0.0.3", 15060)
HOST = ("127.0.0.1", "192.168.1.5", "198.51.100.7", "100.64.0.1", "::1", "fd00::5", "2001:db8::5")


# -- RFC 3261 §16.4: ours


@pytest.mark.parametrize(
    ("uri", "ours"),
    [
        ("sip:bob@example.com", True),
        ("sip:bob@EXAMPLE.com.", True),
        ("sip:bob@example.com:5060", True),
        ("sip:bob@example.com:5070", False),
        ("sip:bob@sub.example.com", False),
        ("sip:bob@192.168.1.1", True),
        ("sip:bob@192.168.1.1:5061", False),
        ("sip:bob@198.51.100.1:5060", True),
        ("sip:bob@[fd00::1]", True),
        ("sip:bob@[fd00:0::1]", True),
        ("sip:bob@203.0.113.1", False),
        ("sip:bob@10.0.0.3", True),
        ("sip:bob@10.0.0.3:5060", False),
        ("sip:bob@10.0.0.3:15060", True),
        ("tel:+4930", False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_ours(uri: str, ours: bool) -> None:
    assert Domains(EdgeSettings(domains=("Example.COM",)), (*LISTENERS, ODD)).owns(Uri.parse(uri)) == ours


def test_a_place_at_our_address_is_not_us() -> None:
    domains = Domains(EdgeSettings(), (ODD,))
    domains.learn("10.0.0.99")
    for text in ("sip:bob@10.0.0.3", "sip:bob@10.0.0.99"):
        assert domains.owns(Uri.parse(text)), "as an address of record"
        assert not domains.owns(Uri.parse(text), exactly=True), "as the Contact of a phone there"
    assert domains.owns(Uri.parse("sip:bob@10.0.0.3:15060"), exactly=True)


def test_hosts_for_the_media_arm() -> None:
    domains = Domains(EdgeSettings(domains=("example.com",)), LISTENERS)
    assert domains.hosts == {"example.com", "192.168.1.1", "10.0.0.2", "198.51.100.1", "fd00::1"}


def test_learned_hosts() -> None:
    domains = Domains(EdgeSettings(), LISTENERS)
    assert not domains.owns(Uri.parse("sip:bob@home.test"))
    assert domains.learn("Home.test")
    assert not domains.learn("home.test"), "nothing new"
    assert domains.owns(Uri.parse("sip:bob@home.test"))
    assert not domains.learn("192.168.1.1")
    assert domains.learn("203.0.113.5")
    assert domains.owns(Uri.parse("sip:bob@203.0.113.5")), "a number that is not ours, behind a port that is forwarded"
    assert not Domains(EdgeSettings(domains=("a.test",))).learn("b.test"), "who named domains means these"


@pytest.mark.parametrize(
    ("settings", "source", "may"),
    [
        (EdgeSettings(), "192.168.1.9", True),
        (EdgeSettings(), "127.0.0.1", True),
        (EdgeSettings(), "203.0.113.1", False),
        (EdgeSettings(), "100.64.0.9", False),
        (EdgeSettings(open=True), "203.0.113.1", True),
        (EdgeSettings(domains=("a.test",)), "192.168.1.9", False),
    ],
    ids=["lan", "loopback", "public", "cgn", "open", "other-domain"],
)
def test_who_may_register_under_any_host(settings: EdgeSettings, source: str, may: bool) -> None:
    domains = Domains(settings, LISTENERS)
    assert domains.may_register(Uri.parse("sip:bob@home.test"), Endpoint(source, 5060)) == may


def test_names_of_a_user() -> None:
    domains = Domains(EdgeSettings(domains=("a.test", "b.test")), LISTENERS[:2])
    assert domains.addresses_of_record(Uri.parse("sip:Bob@A.test;x=1")) == ("sip:Bob@a.test",)
    by_number = domains.addresses_of_record(Uri.parse("sip:bob@192.168.1.1"))
    assert by_number[:3] == ("sip:bob@192.168.1.1", "sip:bob@a.test", "sip:bob@b.test")
    with pytest.raises(SipError):
        domains.addresses_of_record(Uri.parse("sip:a.test"))


# -- may it serve?


@pytest.mark.parametrize(
    ("settings", "listeners", "words"),
    [
        (EdgeSettings(), (at("127.0.0.1"), at("192.168.1.1"), at("fd00::1")), ()),
        (EdgeSettings(), (at("198.51.100.1"),), ("without accounts", "domains")),
        (EdgeSettings(), (at("100.64.0.1"),), ("without accounts", "domains")),
        (EdgeSettings(), (at("10.0.0.2", advertise="198.51.100.1"),), ("without accounts", "domains")),
        (EdgeSettings(open=True), (at("198.51.100.1"),), ()),
        (EdgeSettings(accounts=ACCOUNTS), (at("198.51.100.1"),), ("domains",)),
        (EdgeSettings(accounts=ACCOUNTS, domains=("a.test",)), (at("198.51.100.1"),), ()),
        (EdgeSettings(domains=("a.test",)), (at("198.51.100.1"),), ("without accounts",)),
        (EdgeSettings(), (at("127.0.0.1", transport=TLS),), ("certificate",)),
        (EdgeSettings(tls=Tls(certificate="x")), (at("127.0.0.1", transport=TLS),), ()),
    ],
    ids=[
        "private",
        "public",
        "cgn",
        "advertised-public",
        "open",
        "accounts-no-domain",
        "accounts-and-domain",
        "domain-no-accounts",
        "tls-without-certificate",
        "tls",
    ],
)
def test_refusals(settings: EdgeSettings, listeners: tuple[Listener, ...], words: tuple[str, ...]) -> None:
    found = refusals(settings, listeners)
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))


# -- which listeners


def test_default_listeners_are_private_only() -> None:
    found = listeners_of(EdgeSettings(), HOST)
    assert {one.bind.address for one in found} == {"127.0.0.1", "192.168.1.5", "::1", "fd00::5"}
    assert {(one.transport, one.bind.port) for one in found} == {(UDP, 5060), (TCP, 5060)}
    assert not refusals(EdgeSettings(), found)


def test_wildcards_become_one_socket_per_address() -> None:
    wanted = (at("0.0.0.0", 5070, advertise="203.0.113.9"), at("::", 5071, TCP))
    found = listeners_of(EdgeSettings(listeners=wanted), HOST)
    assert [str(one.bind) for one in found] == [
        *("127.0.0.1:5070", "192.168.1.5:5070", "198.51.100.7:5070", "100.64.0.1:5070"),
        *("[::1]:5071", "[fd00::5]:5071", "[2001:db8::5]:5071"),
    ]
    assert [one.public.address for one in found[:2]] == ["127.0.0.1", "203.0.113.9"]


def test_this_host_has_a_loopback_address() -> None:
    assert "127.0.0.1" in host_addresses()
