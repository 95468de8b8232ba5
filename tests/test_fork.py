"""Targets of registrations, their order, and the best of several answers (RFC 3261 §16.5 to §16.7)."""

import pytest

from mediaproxy.edge.binding import Binding
from mediaproxy.edge.fork import Target, aimed, best, groups, of_binding, shared, version_of
from mediaproxy.edge.hop import Hop
from mediaproxy.edge.settings import Listener, Transport
from mediaproxy.endpoint import Endpoint
from mediaproxy.sip.header import Uri
from mediaproxy.sip.message import response_to
from tests.vproxy import BOB, CAROL, EDGE, binding, request

UDP, TCP = Transport.UDP, Transport.TCP
NATTED = Endpoint("203.0.113.99", 61000)


@pytest.mark.parametrize(
    ("given", "count", "share"),
    [
        (None, 1, ()),
        (None, 3, ("20",)),
        ("7", 3, ("2",)),
        ("7", 1, ("7",)),
        ("2", 3, None),
        ("0", 1, None),
        ("1000", 2, ("30",)),
        ("x", 2, ("30",)),
    ],
    ids=["no-fork", "fork", "given", "given-no-fork", "too-few", "none-left", "too-many", "unreadable"],
)
def test_each_branch_gets_its_share_of_breadth(given: str | None, count: int, share: tuple[str, ...] | None) -> None:
    headers = [("Max-Breadth", given)] if given is not None else []
    there = shared(request(headers=headers), count)
    assert (there.values("Max-Breadth") if there is not None else None) == share


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (binding("bob", BOB), Target(uri=f"sip:bob@{BOB}", next_hop=Uri.parse(f"sip:bob@{BOB}"))),
        (
            binding("bob", BOB, received=NATTED, nat=True),
            Target(uri=f"sip:bob@{BOB}", hop=Hop(UDP, NATTED, EDGE)),
        ),
        (
            binding("bob", BOB, received=NATTED, transport="tcp", connection="c1"),
            Target(uri=f"sip:bob@{BOB}", hop=Hop(TCP, NATTED, EDGE, "c1", connect=False)),
        ),
        (binding("bob", BOB, transport="tcp"), Target(uri=f"sip:bob@{BOB}", unreachable=True)),
        (
            binding("bob", BOB, path=("<sip:p1.test;lr>",)),
            Target(uri=f"sip:bob@{BOB}", routes=("<sip:p1.test;lr>",), next_hop=Uri.parse("sip:p1.test;lr")),
        ),
    ],
    ids=["plain", "natted", "tcp", "tcp-gone", "path"],
)
def test_target_of_a_registration(known: Binding, expected: Target) -> None:
    assert of_binding(known) == expected


def test_groups_by_q() -> None:
    known = [binding("bob", BOB.with_port(port), q=q) for port, q in ((1, 0.5), (2, 1.0), (3, 0.5), (4, 0.1))]
    found = [[target.uri for target in group] for group in groups(known, 3)]
    at = BOB.address
    assert found == [[f"sip:bob@{at}:2"], [f"sip:bob@{at}:1", f"sip:bob@{at}:3"]], "the likeliest, three at most"


LOCAL = Listener(transport=UDP, bind=Endpoint("192.168.1.1", 5060))


@pytest.mark.parametrize(
    ("uri", "target", "local", "expected"),
    [
        (f"sip:bob@{BOB}", Target(), LOCAL, Hop(UDP, BOB, LOCAL.bind)),
        (f"sip:bob@{BOB}", Target(), None, Hop(UDP, BOB)),
        (f"sip:bob@{BOB};transport=tcp", Target(), LOCAL, Hop(TCP, BOB)),
        (f"sip:bob@{BOB};transport=tcp;mp=nat", Target(), None, Hop(TCP, BOB, connect=False)),
        ("sip:bob@[2001:db8::1]", Target(), LOCAL, Hop(UDP, Endpoint("2001:db8::1", 5060))),
        ("sip:bob@home.test", Target(), LOCAL, Uri.parse("sip:bob@home.test")),
        ("sip:bob@home.test", Target(next_hop=Uri.parse(f"sip:{CAROL}")), None, Hop(UDP, CAROL)),
        (f"sip:bob@{BOB}", Target(routes=(f"<sip:{CAROL};lr>",)), None, Hop(UDP, CAROL)),
    ],
    ids=["dialog-socket", "any-socket", "other-transport", "natted-tcp", "other-family", "name", "rule", "path"],
)
def test_aim(uri: str, target: Target, local: Listener | None, expected: Hop | Uri) -> None:
    message, aim = aimed(request("BYE", uri), target, local)
    assert aim == expected
    assert "mp=" not in message.uri_text


def test_route_goes_before_the_registration() -> None:
    came = request("INFO", headers=[("Route", f"<sip:{CAROL};lr>")])
    _, aim = aimed(came, Target(uri="sip:bob@x", hop=Hop(UDP, BOB)), None)
    assert aim == Hop(UDP, CAROL)


@pytest.mark.parametrize(
    ("statuses", "chosen"),
    [
        ((486, 404), 486),
        ((404, 302), 302),
        ((503, 486), 486),
        ((500, 404), 404),
        ((486, 603), 603),
        ((404, 401), 401),
        ((480, 486), 486),
        ((408, 404), 404),
        ((487, 480), 487),
        ((503,), 503),
    ],
    ids=lambda value: str(value),
)
def test_best_response(statuses: tuple[int, ...], chosen: int) -> None:
    found = best([response_to(request(), status) for status in statuses])
    assert found is not None
    assert found.status == chosen


def test_best_of_none() -> None:
    assert best([]) is None


V6 = Endpoint("2001:db8::20", 5060)
REQUEST_URI = Uri.parse("sip:bob@203.0.113.5")


@pytest.mark.parametrize(
    ("targets", "version"),
    [
        ([of_binding(binding("bob", BOB))], 4),
        ([of_binding(binding("bob", V6))], 6),
        ([of_binding(binding("bob", V6)), of_binding(binding("bob", V6.with_port(9)))], 6),
        ([of_binding(binding("bob", BOB)), of_binding(binding("bob", V6))], 0),
        ([of_binding(binding("bob", V6, received=NATTED, nat=True))], 4),
        ([of_binding(binding("bob", V6)), Target(uri=f"sip:bob@{BOB}", unreachable=True)], 6),
        ([of_binding(binding("bob", V6, path=("<sip:203.0.113.6;lr>",)))], 6),
        ([of_binding(binding("bob", BOB, contact="sip:bob@phone.example"))], 0),
        ([Target(uri="nonsense")], 0),
        ([Target(next_hop=Uri.parse("sip:[2001:db8::7];transport=tcp"))], 6),
        ([Target(next_hop=Uri.parse("sip:gateway.example"))], 0),
        ([Target()], 4),
        ([], 0),
    ],
    ids=[
        *["v4", "v6", "two-v6", "mixed", "nat64", "unreachable", "behind-a-path", "name", "broken"],
        *["gateway", "gateway-by-name", "request-uri", "nobody"],
    ],
)
def test_ip_version_of_targets(targets: list[Target], version: int) -> None:
    assert version_of(targets, REQUEST_URI) == version
