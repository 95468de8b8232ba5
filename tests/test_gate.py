"""Who may do what (calls.md 19), through the whole proxy: own and foreign targets, passwords, trusted proxies."""

import hashlib
import re

import pytest

from mediaproxy.edge.settings import EdgeSettings, RouteRule
from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.digest import Account, Algorithm
from mediaproxy.sip.message import Request
from tests.vproxy import ALICE, BOB, CAROL, LISTENERS, World, request

A, B, C = ALICE.address, BOB.address, CAROL.address
LAN = Endpoint("192.168.1.9", 5060)
ACCOUNTS = (Account(username="alice", password="secret"), Account(username="bob", password="x", domain="example.com"))
RULE = (RouteRule(to=f"sip:gw@{CAROL}", prefix="+"),)
OPEN = EdgeSettings(listeners=LISTENERS, domains=("example.com",), open=True, routes=RULE)
CLOSED = EdgeSettings(
    listeners=LISTENERS,
    domains=("example.com",),
    accounts=ACCOUNTS,
    algorithms=(Algorithm.SHA_256, Algorithm.MD5),
    routes=RULE,
)
PROXIED = EdgeSettings(
    listeners=LISTENERS, domains=("example.com",), accounts=ACCOUNTS, trusted_proxies=("203.0.113.0/28",)
)
ANYBODY = EdgeSettings(listeners=LISTENERS, open=True)
OURS, FOREIGN, GATEWAY = "sip:bob@example.com", f"sip:x@{CAROL}", "sip:+49301@example.com"
HOME, AWAY = "sip:alice@example.com", "sip:alice@elsewhere.test"


def outcome(settings: EdgeSettings, source: Endpoint, from_uri: str, uri: str) -> str:
    world = World(settings)
    world.bind("bob", BOB)
    world.receive(request("MESSAGE", uri, source=source, from_uri=from_uri), source)
    (said,) = world.sent()
    return said.split()[0] if said.endswith(source.address) else said


@pytest.mark.parametrize(
    ("settings", "source", "from_uri", "uri", "expected"),
    [
        (OPEN, ALICE, AWAY, OURS, f"MESSAGE > {B}"),
        (OPEN, ALICE, HOME, OURS, f"MESSAGE > {B}"),
        (OPEN, ALICE, HOME, FOREIGN, "403"),
        (OPEN, LAN, HOME, FOREIGN, "403"),
        (OPEN, ALICE, HOME, GATEWAY, "480"),
        (OPEN, LAN, HOME, GATEWAY, f"MESSAGE > {C}"),
        (CLOSED, ALICE, AWAY, OURS, f"MESSAGE > {B}"),
        (CLOSED, ALICE, HOME, OURS, "407"),
        (CLOSED, ALICE, AWAY, FOREIGN, "407"),
        (CLOSED, ALICE, AWAY, GATEWAY, "404"),
        (CLOSED, ALICE, HOME, GATEWAY, "407"),
        (PROXIED, ALICE, HOME, OURS, f"MESSAGE > {B}"),
        (PROXIED, ALICE, HOME, FOREIGN, f"MESSAGE > {C}"),
        (PROXIED, BOB, HOME, OURS, "407"),
        (ANYBODY, ALICE, AWAY, "sip:bob@example.com", "403"),
    ],
    ids=[
        "open-ours",
        "open-ours-from-us",
        "open-foreign",
        "open-foreign-from-lan",
        "open-gateway",
        "open-gateway-from-lan",
        "accounts-from-outside",
        "accounts-from-us",
        "accounts-foreign",
        "accounts-gateway-from-outside",
        "accounts-gateway-from-us",
        "trusted-ours",
        "trusted-foreign",
        "not-trusted",
        "catch-all-knows-only-registered-hosts",
    ],
)
def test_who_may_send_where(settings: EdgeSettings, source: Endpoint, from_uri: str, uri: str, expected: str) -> None:
    assert outcome(settings, source, from_uri, uri) == expected


@pytest.mark.parametrize(
    ("user", "status"), [("bob", 480), ("alice", 480), ("nobody", 404)], ids=["here", "away", "unknown"]
)
def test_own_users_that_are_not_registered(user: str, status: int) -> None:
    world = World(CLOSED)
    world.receive(request("MESSAGE", f"sip:{user}@example.com"), ALICE)
    assert world.sent() == [f"{status} > {A}"]


def test_preloaded_route_to_somebody_else() -> None:
    world = World(OPEN)
    world.bind("bob", BOB)
    world.receive(request("MESSAGE", OURS, headers=[("Route", f"<sip:{CAROL};lr>")]), ALICE)
    assert world.sent() == [f"403 > {A}"]
    assert world.refused


# -- passwords


def authorised(request: Request, challenge: str, password: str = "secret", user: str = "alice") -> Request:
    """The request again with credentials (RFC 7616, the phone's side)."""
    params = dict(re.findall(r'(\w+)="?([^",]*)"?', challenge))
    algorithm = {"MD5": "md5", "SHA-256": "sha256"}[params["algorithm"]]

    def h(text: str) -> str:
        return hashlib.new(algorithm, text.encode()).hexdigest()

    ha1 = h(f"{user}:{params['realm']}:{password}")
    ha2 = h(f"{request.method}:{request.uri_text}")
    response = h(f"{ha1}:{params['nonce']}:00000001:0a4f113b:auth:{ha2}")
    value = (
        f'Digest username="{user}", realm="{params["realm"]}", nonce="{params["nonce"]}", uri="{request.uri_text}", '
        f'response="{response}", algorithm={params["algorithm"]}, qop=auth, nc=00000001, cnonce="0a4f113b"'
    )
    name = "Authorization" if request.method == "REGISTER" else "Proxy-Authorization"
    again = request.append(name, value).replace("CSeq", f"{request.cseq.number + 1} {request.method}")
    return again.replace_value("Via", 0, str(request.via.with_param("branch", request.via.branch + "x")))


def challenged(world: World, first: Request) -> str:
    world.receive(first, ALICE)
    answer = world.outbox.pop().response
    name = "WWW-Authenticate" if first.method == "REGISTER" else "Proxy-Authenticate"
    assert answer.status == (401 if first.method == "REGISTER" else 407)
    offered = answer.headers(name)
    assert [re.findall("algorithm=([^,]*)", value) for value in offered] == [["SHA-256"], ["MD5"]]
    return offered[0]


def register(**more: str) -> Request:
    fields = {"to_uri": HOME, "from_uri": HOME, **more}
    return request("REGISTER", "sip:example.com", **fields)  # type: ignore[arg-type]  # names of texts only


def test_register_with_password() -> None:
    world = World(CLOSED)
    first = register()
    again = authorised(first, challenged(world, first))
    world.receive(again, ALICE)
    assert world.sent() == [f"200 > {A}"]
    assert world.directory.lookup("sip:alice@example.com", 0)
    world.receive(again, ALICE)
    assert world.sent() == [f"200 > {A}"], "a retransmission is not judged again"


@pytest.mark.parametrize(
    ("password", "user", "identity", "status"),
    [("wrong", "alice", HOME, 401), ("secret", "mallory", HOME, 401), ("x", "bob", HOME, 403)],
    ids=["wrong-password", "unknown-user", "another-user"],
)
def test_register_refused(password: str, user: str, identity: str, status: int) -> None:
    world = World(CLOSED)
    first = register(to_uri=identity)
    world.receive(authorised(first, challenged(world, first), password, user), ALICE)
    assert world.sent() == [f"{status} > {A}"]
    assert world.directory.bindings == {}
    assert world.refused, "the operator reads about it"


@pytest.mark.parametrize(
    ("settings", "to_uri", "source", "status"),
    [
        (OPEN, "sip:alice@other.test", ALICE, 404),
        (ANYBODY, "sip:alice@other.test", ALICE, 200),
        (EdgeSettings(listeners=LISTENERS), "sip:alice@other.test", LAN, 200),
        (EdgeSettings(listeners=LISTENERS), "sip:alice@other.test", ALICE, 404),
    ],
    ids=["domains", "catch-all-open", "catch-all-private", "catch-all-from-outside"],
)
def test_register_domains(settings: EdgeSettings, to_uri: str, source: Endpoint, status: int) -> None:
    world = World(settings)
    world.receive(request("REGISTER", "sip:198.51.100.1", source=source, to_uri=to_uri, from_uri=to_uri), source)
    assert world.sent() == [f"{status} > {source.address}"]


def test_catch_all_learns_the_hosts_of_registrations() -> None:
    world = World(ANYBODY)
    world.receive(
        request("REGISTER", "sip:198.51.100.1", source=BOB, to_uri="sip:bob@home.test", contact=f"<sip:bob@{BOB}>"), BOB
    )
    world.sent()
    world.receive(request("MESSAGE", "sip:bob@home.test"), ALICE)
    world.receive(request("MESSAGE", "sip:bob@198.51.100.1"), ALICE)
    assert world.sent() == [f"MESSAGE > {B}"] * 2, "by its own host, and by the server's number"


def test_call_with_password() -> None:
    world = World(CLOSED)
    world.bind("bob", BOB)
    first = request("INVITE", OURS, from_uri=HOME)
    again = authorised(first, challenged(world, first))
    world.receive(again, ALICE)
    assert [str(out) for out in world.outbox] == [f"100 > {A}", f"INVITE > {B}"]
    assert not world.outbox[1].request.headers("Proxy-Authorization"), "RFC 3261 §22.3: they were for us"
    assert not world.questions, "no SDP, no question"


def test_foreign_target_with_password() -> None:
    world = World(CLOSED)
    first = request("MESSAGE", FOREIGN, from_uri=HOME)
    world.receive(authorised(first, challenged(world, first)), ALICE)
    assert world.sent() == [f"MESSAGE > {C}"]


def test_somebody_elses_from() -> None:
    world = World(CLOSED)
    first = request("MESSAGE", OURS, from_uri="sip:carol@example.com")
    world.receive(authorised(first, challenged(world, first)), ALICE)
    assert world.sent() == [f"403 > {A}"]


def test_refusals_behind_a_password_are_repeated_not_judged_again() -> None:
    world = World(CLOSED)
    first = request("INVITE", "sip:bob@example.com", from_uri=HOME)
    again = authorised(first, challenged(world, first))
    world.receive(again, ALICE)
    world.receive(again, ALICE)
    assert world.sent() == [f"480 > {A}"] * 2


def test_others_credentials_pass() -> None:
    world = World(OPEN)
    world.bind("bob", BOB)
    world.receive(request("INVITE", OURS, headers=[("Proxy-Authorization", 'Digest realm="other"')]), ALICE)
    assert world.take(f"INVITE > {B}").request.headers("Proxy-Authorization")


def test_ack_and_cancel_are_never_challenged() -> None:
    world = World(CLOSED)
    world.receive(request("ACK", OURS, from_uri=HOME, to_tag="b"), ALICE)
    world.receive(request("CANCEL", OURS, from_uri=HOME), ALICE)
    assert world.sent() == [f"481 > {A}"]
