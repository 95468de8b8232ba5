"""Phones that know a public address of their own, and tell it in Contact and SDP, work behind every kind of NAT: they
asked STUN, or somebody has set it by hand, and it may be stale: somebody else's by now, or nobody's."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.homes import NOBODY, NatKind
from lab.hosts import Host
from lab.phone import Phone
from lab.site import Site
from tests.e2e.conftest import full, register, talk_until_full

SECONDS = 3.0


def asked(site: Site, home: str, user: str, tone: int) -> Phone:
    return site.baresip(home, tone, user=user, stun_server=site.stun_server())


def asked_for_all(site: Site, home: str, user: str, tone: int) -> Phone:
    return site.pjsip(home, tone, user=user, stun_server=site.stun_server())


def set_by_hand(site: Site, home: str, user: str, tone: int) -> Phone:
    return site.pjsip(home, tone, user=user, public_address=site.internet.homes[home].wan)


def somebody_elses(site: Site, home: str, user: str, tone: int) -> Phone:
    other = "b" if home == "a" else "a"
    return site.pjsip(home, tone, user=user, public_address=site.internet.homes[other].wan)


def nobodys(site: Site, home: str, user: str, tone: int) -> Phone:
    return site.pjsip(home, tone, user=user, public_address=NOBODY)


PHONES: tuple[Callable[[Site, str, str, int], Phone], ...] = (
    asked,
    nobodys,
    asked_for_all,
    somebody_elses,
    set_by_hand,
)
"Each calls the next one, so each is once a caller and once a callee."

KINDS = {
    "restricted": (NatKind.RESTRICTED, False),
    "symmetric": (NatKind.SYMMETRIC, False),
    "fullcone": (NatKind.FULLCONE, False),
    "same-lan": (NatKind.RESTRICTED, True),
    "alg": (NatKind.ALG, False),
}


@pytest.mark.parametrize(("kind", "same_lan"), KINDS.values(), ids=KINDS.keys())
def test_all_hear_each_other(kind: NatKind, same_lan: bool, host: Host, tmp_path: Path) -> None:
    with Site((kind, kind), tmp_path, same_lan=same_lan, host=host) as site:
        server = site.start_server()
        pairs: list[tuple[Phone, Phone]] = []
        for number, (first, second) in enumerate(zip(PHONES, PHONES[1:] + PHONES[:1], strict=True)):
            one, other = "ab" if number % 2 else "ba"
            caller = first(site, one, f"{first.__name__}-calls", 400 + 450 * number)
            callee = second(site, other, f"{second.__name__}-is-called", 625 + 450 * number)
            pairs.append((caller, callee))
        register(*(phone for pair in pairs for phone in pair))

        calls = talk_until_full(pairs, SECONDS)

        for (caller, callee), call in calls.items():
            assert full(call), (caller.account.user, callee.account.user, call)
        assert server.alive
