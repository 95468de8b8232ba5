"""Who may do what (calls.md 19), through the whole proxy: own and foreign targets, passwords, trusted proxies."""

import hashlib
import re

import pytest

from mediaproxy.edge.settings import EdgeSettings, RouteRule
from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.digest import Account, Algorithm
from mediaproxy.sip.message import Request, Response
from tests.vproxy import ALICE, BOB, CAROL, LISTENERS, World, reply, request

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
        (CLOSED, ALICE, AWAY, GATEWAY, "407"),
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


def test_what_was_heard_before_a_restart_is_of_no_use_after_it() -> None:
    world = World(CLOSED)
    first = register()
    heard = authorised(first, challenged(world, first))
    world.receive(heard, ALICE)
    assert world.sent() == [f"200 > {A}"]
    restarted = World(CLOSED)
    restarted.now += 10
    restarted.receive(heard, ALICE)
    answer = restarted.outbox.pop().response
    assert answer.status == 401
    assert "stale=true" in (answer.header("WWW-Authenticate") or "")
    again = authorised(first, answer.headers("WWW-Authenticate")[0])
    restarted.receive(again, ALICE)
    assert restarted.sent() == [f"200 > {A}"], "the phone need not ask its user"


def test_gateway_for_a_caller_who_hides() -> None:
    """RFC 3323 §4.1: From says nothing, the password does."""
    world = World(CLOSED)
    first = request("MESSAGE", GATEWAY, from_uri="sip:anonymous@anonymous.invalid")
    again = authorised(first, challenged(world, first))
    world.receive(again, ALICE)
    there = world.take(f"MESSAGE > {C}")
    assert not there.request.headers("Proxy-Authorization")


@pytest.mark.parametrize("domain", ["example.com", "other.test"])
def test_one_name_and_password_in_two_domains(domain: str) -> None:
    accounts = tuple(Account(username="alice", password="secret", domain=one) for one in ("example.com", "other.test"))
    domains = ("example.com", "other.test")
    algorithms = (Algorithm.SHA_256, Algorithm.MD5)
    world = World(EdgeSettings(listeners=LISTENERS, domains=domains, accounts=accounts, algorithms=algorithms))
    first = register(to_uri=f"sip:alice@{domain}")
    world.receive(authorised(first, challenged(world, first)), ALICE)
    assert world.sent() == [f"200 > {A}"]


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


# -- dialogs


STRANGER = Endpoint("203.0.113.66", 5060)
ELSEWHERE = Endpoint("203.0.113.99", 5060)


def call_of_a_stranger(world: World) -> Response:
    """Somebody from outside calls bob, who answers."""
    world.bind("bob", BOB)
    world.receive(request(source=STRANGER, contact=f"<sip:x@{STRANGER}>"), STRANGER)
    world.receive(reply(world.take(f"INVITE > {B}"), 200), BOB)
    return world.take(f"200 > {STRANGER.address}").response


@pytest.mark.parametrize(
    ("uri", "more_routes", "to_tag"),
    [
        (f"sip:+900@{ELSEWHERE}", (), "b"),
        (f"sip:+900@{ELSEWHERE}", (), ""),
        (f"sip:bob@{BOB};maddr={ELSEWHERE.address}", (), "b"),
        (f"sip:bob@{BOB}", (f"<sip:{ELSEWHERE};lr>",), "b"),
        (GATEWAY, (), "b"),
        (f"sip:+4930@{CAROL}", (), "b"),
    ],
    ids=["another-target", "a-new-call", "maddr", "another-route", "gateway-by-its-prefix", "gateway-by-its-address"],
)
@pytest.mark.parametrize("settings", [OPEN, CLOSED], ids=["open", "accounts"])
@pytest.mark.parametrize("method", ["INVITE", "MESSAGE", "ACK"])
def test_a_call_to_us_is_no_ticket_to_elsewhere(
    method: str, settings: EdgeSettings, uri: str, more_routes: tuple[str, ...], to_tag: str
) -> None:
    world = World(settings)
    ok = call_of_a_stranger(world)
    routes = [str(value) for value in reversed(ok.record_routes)] + list(more_routes)
    more = {"to_tag": to_tag} if to_tag else {}
    more |= {"cseq": "2"}
    headers = [("Route", value) for value in routes]
    forged = request(method, uri, source=STRANGER, headers=headers, **more)  # type: ignore[arg-type]  # names of texts
    world.receive(forged, STRANGER)
    assert [one for one in world.sent() if not one.endswith(STRANGER.address)] == []


def test_both_parties_of_a_call_reach_each_other() -> None:
    world = World(CLOSED)
    ok = call_of_a_stranger(world)
    there = [("Route", str(value)) for value in reversed(ok.record_routes)]
    world.receive(request("ACK", f"sip:bob@{BOB}", source=STRANGER, headers=there, to_tag="b"), STRANGER)
    world.receive(request("INFO", f"sip:bob@{BOB}", source=STRANGER, headers=there, to_tag="b", cseq="2"), STRANGER)
    moved = BOB.with_port(6000)
    world.receive(request("INFO", f"sip:bob@{moved}", source=STRANGER, headers=there, to_tag="b", cseq="3"), STRANGER)
    assert world.sent() == [f"ACK > {B}", f"INFO > {B}", f"INFO > {B}"], "to a phone of ours, wherever it moved"
    back = [("Route", str(value)) for value in ok.record_routes]
    moved = Endpoint("203.0.113.67", 5060)
    bye = request("BYE", f"sip:x@{moved}", source=BOB, headers=back, from_uri=OURS, from_tag="b", to_tag="a", cseq="9")
    world.receive(bye, BOB)
    assert world.sent() == [f"BYE > {moved.address}"], "from a phone of ours, wherever the other one moved"
