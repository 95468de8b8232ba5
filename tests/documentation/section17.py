"""1.7: what the module has that nathelper has not: several relays, and control by what lies outside the routing."""

import inspect
import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

from lab.hosts import Host
from lab.kamailio import EXAMPLE, ROOT
from mediaproxy.edge.script.functions import FUNCTIONS
from mediaproxy.edge.script.loading import default_text
from mediaproxy.kamailio.module import Functions
from tests.documentation.call import Call, talk
from tests.documentation.estate import SRV
from tests.documentation.house import House
from tests.documentation.instance import Instance
from tests.documentation.routes import PRIVATE
from tests.documentation.row import Row, Section
from tests.documentation.section13 import heard
from tests.documentation.section14 import relay_of, shares
from tests.documentation.section15 import SHIPPED, becomes, keeps_port
from tests.documentation.section161 import OTHER_VIA

MANY = 60
"New calls: that the relay which takes a quarter of them gets none has a chance of one in 30 million."
ORIGINALS = ("client_nat_test", "fix_contact", "use_media_proxy", "end_media_session")


def what_nathelper_cannot(house: House) -> object:
    """Whole calls behind NATs, without nathelper or a relay of Kamailio's."""
    others = re.findall("nathelper|rtpproxy|rtpengine", house.main.script)
    return heard(house.phone(nat=house.nat()), house.phone(nat=house.nat())), others


def the_same_at_first_sight(house: House) -> object:
    """Our tests 1, 2, 4 and those that nathelper has of them, by our nat_uac_test, and in Kamailio by its own."""
    at = house.quiet
    words = ["client_nat_test=7", "nat_uac_test=23"] + ["nathelper=23"] * (house.host is Host.KAMAILIO)
    messages: Mapping[str, Mapping[str, str]] = {
        "private Contact": {"contact": PRIVATE},
        "other address": {"via": OTHER_VIA},
        "private Via": {"via": "192.168.1.10:5060"},
        "none": {},
    }
    found = {}
    for name, message in messages.items():
        caller, callee = house.phone(at=at), house.phone(at=at)
        sent = caller.request("MESSAGE", callee.aor, headers=[("X-Run", " ".join(words))], **message)  # type: ignore[arg-type] # texts
        callee.answer(callee.receive("MESSAGE"), 200)
        codes = at.codes(sent.get("Call-ID"))
        assert len(codes) == len(words)
        found[name] = set(codes)
    return found


def several_servers(house: House) -> object:
    """Whether all relays are known to the one module, and up; those that calls of two domains are given."""
    wanted = {name: True for name in house.estate.relays}
    known = house.until(house.plain.relays, wanted, 60.0) == wanted
    phones = [house.phone(at=house.plain, domain=domain) for domain in ("sip.test", "sip.test", "gold.test")]
    return known, set(shares(house, MANY, phones[0], phones[1])) | set(shares(house, 1, phones[0], phones[2]))


def local_or_remote(house: House) -> object:
    """Where calls of a domain with a relay of its own go, and of one without, and whether phones hear each other."""
    house.wait_relays()
    found: dict[str, object] = {}
    links: dict[str, str] = {entry["name"]: entry["address"].partition(":")[0] for entry in house.estate.entries}
    for domain in ("gold.test", "sip.test"):
        caller, callee = (house.phone(at=house.plain, nat=house.nat(), domain=domain) for _ in range(2))
        call = Call(caller, callee)
        relay = house.estate.name_of(call.relay(call.invite)[0])
        found[domain] = relay if relay == "gold" else "for everybody", links[relay], call.talk()
        call.hang_up()
    return found


def balance_and_fallback(house: House) -> object:
    """The share of the relay with weight 3 beside that with 1; whether the spare one gets calls before both die, and
    after."""
    house.wait_relays()
    caller, callee = house.phone(at=house.plain), house.phone(at=house.plain)
    before = shares(house, MANY, caller, callee)
    if not _three_quarters(before["one"] / MANY):  # chance may have it so once in some thousand times
        before = shares(house, 4 * MANY, caller, callee)
    one, two = house.estate.relays["one"], house.estate.relays["two"]
    one.kill()
    two.kill()
    try:
        after = shares(house, 6, caller, callee)
    finally:
        one.start()
        two.start()
        house.wait_relays(one=True, two=True)
    return _three_quarters(before["one"] / before.total()), "spare" in before, set(after)


def _three_quarters(share: float) -> bool:
    return 0.55 <= share <= 0.93


def dead_relays_are_noticed(house: House) -> object:
    """One is killed: the calls that come go to the other one, all of them; and to both when it is back."""
    house.wait_relays()
    caller, callee = house.phone(at=house.plain), house.phone(at=house.plain)
    one = house.estate.relays["one"]
    one.kill()
    try:
        after = shares(house, 12, caller, callee)
        noticed = house.until(lambda: house.plain.relays()["one"], False)
    finally:
        one.start()
        house.wait_relays(one=True)
    return after, noticed, set(shares(house, MANY, caller, callee))


def more_is_documented(house: House) -> object:
    """Every setting by which the relays of these cases are arranged stands in docs/dispatcher.md, and the host's own
    page leads there."""
    text = (ROOT / "docs" / "dispatcher.md").read_text()
    names = {name for entry in house.estate.entries for name in entry} | {*house.estate.settings}
    page = {Host.EDGE: "operating.md", Host.KAMAILIO: "kamailio.md"}[house.host]
    missing = [name for name in (*names, "_mediaproxy._tcp") if name not in text]
    return missing, "(dispatcher.md)" in (ROOT / "docs" / page).read_text()


def logic_in_the_module(house: House) -> object:
    """The shipped routing calls use_media_proxy() the same way for all that follows. An INVITE without SDP, so that the
    callee offers and the ACK answers; a hold that the caller offers; talking again."""
    caller, callee = house.phone(nat=house.nat()), house.phone(nat=house.nat())
    sent = caller.request("INVITE", callee.aor)
    invite = callee.receive("INVITE")
    callee.answer(invite, 200, callee.sdp())
    ok = caller.receive(200, "INVITE")
    caller.within("ACK", ok, cseq=int(sent.get("CSeq").split()[0]), body=caller.sdp())
    ack = callee.receive("ACK")
    places = [(one.streams[0].endpoint.address, one.streams[0].endpoint.port) for one in (ok, ack)]
    first = talk((caller, places[0]), (callee, places[1]))
    told = []
    for address in ("0.0.0.0", caller.media[0]):
        again = caller.within("INVITE", ok, body=caller.sdp().replace(caller.media[0], address))
        got = callee.receive("INVITE")
        callee.answer(got, 200, callee.sdp())
        caller.receive(200, "INVITE")
        caller.within("ACK", ok, cseq=int(again.get("CSeq").split()[0]))
        callee.receive("ACK")
        told.append(got.streams[0].endpoint.address)
    second = talk((caller, places[0]), (callee, places[1]))
    caller.within("BYE", ok)
    callee.answer(callee.receive("BYE"), 200)
    return first, [address.replace(house.main.address, "relay") for address in told], second


def few_parameters(house: House) -> object:
    """How many parameters each of the original's functions has, beside Kamailio's message."""
    if house.host is Host.EDGE:
        parameters = {name: inspect.signature(FUNCTIONS[name]).parameters for name in ORIGINALS}
        return {name: len(some) for name, some in parameters.items()}
    found = {}
    for name in ORIGINALS:
        some = inspect.signature(getattr(Functions, name)).parameters.values()
        found[name] = sum(one.name not in ("self", "msg") and one.kind is not one.VAR_POSITIONAL for one in some)
    return found


Change = tuple[Callable[[], object], Callable[[], bool]]
"Changes something outside of the routing; looks whether it is in force."


def changed(at: Instance, *changes: Change) -> tuple[list[bool], list[bool], bool]:
    """Which changes are in force before, and after; whether all that configures the host, and its processes, are the
    same as before."""
    routing, pids = at.routing, at.pids
    before = [look() for _, look in changes]
    for change, _ in changes:
        change()
    return before, [becomes(look) for _, look in changes], (at.routing, at.pids) == (routing, pids)


def to_file(house: House, at: Instance, file: Path, agent: str) -> Change:
    """An agent is added to a list of SIP-asymmetric clients."""

    def add() -> None:
        with file.open("a") as text:
            text.write(f"^{agent}\n")

    return add, lambda: keeps_port(house, at, agent)


@cache
def while_it_runs(house: House) -> Mapping[str, object]:
    """A call talks before and after a file changes; who registered before is called after, too."""
    call = Call(house.phone(nat=house.nat()), house.phone(nat=house.nat()))
    before = call.talk()
    found = changed(house.main, to_file(house, house.main, house.sip_list, "New phone"))
    after = call.talk()
    call.hang_up()
    called = [heard(house.phone(), phone) for phone in (call.caller, call.callee)]
    return {"changed": found, "call": (before, after), "called": called}


def by_resources_outside(house: House) -> object:
    return while_it_runs(house)["changed"]


def without_interruption(house: House) -> object:
    return while_it_runs(house)["call"], while_it_runs(house)["called"]


def of_named(house: House) -> str:
    """The relay that calls of the domain get whose relays stand in DNS, or not."""
    phones = [house.phone(at=house.plain, domain="named.test") for _ in range(2)]
    return relay_of(house, *phones)


def srv_and_files(house: House) -> object:
    """A record for a domain is made, a line is added to a file, at once."""
    house.wait_relays()
    dns = house.estate.dns.server
    record: Change = (lambda: dns.srv("named.test", f"1 1 25060 {SRV}."), lambda: of_named(house) == SRV)
    try:
        return changed(house.plain, record, to_file(house, house.plain, house.etc / "sip-asymmetric-clients", "Newer"))
    finally:
        dns.records.clear()


def back_again(house: House) -> object:
    """What the file said is taken back: whether the shipped client is known before, and after."""
    file = house.etc / "sip-asymmetric-clients"
    text = file.read_text()
    look = partial(keeps_port, house, house.plain, SHIPPED)
    before = look()
    file.write_text("# nobody\n")
    try:
        return before, becomes(look, False)
    finally:
        file.write_text(text)


def a_simple_routing(house: House) -> object:
    """What of the relays, the asymmetric clients and the domain in DNS stands in the routing that these cases ran with;
    and how often the shipped one calls the four functions."""
    shipped = default_text() if house.host is Host.EDGE else (EXAMPLE / "router.py").read_text()
    outside = [word for relay in house.estate.relays.values() for word in (relay.address, f'"{relay.name}"')]
    found = [word for word in (*outside, "ipDialog", "Newer") if word in house.plain.script]
    return found, 4 <= len(re.findall(rf"\b(?:{'|'.join(ORIGINALS)})\(", shipped)) <= 12


ROWS = (
    Row(
        1,
        "One may wonder what it has that nathelper has not, and why it was made.",
        what_nathelper_cannot,
        ((10, 10), []),
    ),
    Row(
        2,
        "At first sight they do the same; a few core differences set them apart.",
        the_same_at_first_sight,
        {"private Contact": {1}, "other address": {1}, "private Via": {1}, "none": {-1}},
    ),
    Row(
        3,
        "The main difference is a distributed environment: one module controls several proxy servers.",
        several_servers,
        (True, {"gold", "one", "two"}),
        tries=3,
    ),
    Row(
        4,
        "They can be local or remote, and be there for a domain, or for domains that have none of their own.",
        local_or_remote,
        {"gold.test": ("gold", "tls", (10, 10)), "sip.test": ("for everybody", "unix", (10, 10))},
        tries=3,
    ),
    Row(
        5,
        "They can be arranged to balance load and to stand in, so that service goes on when some are down.",
        balance_and_fallback,
        (True, False, {"spare"}),
        tries=3,
    ),
    Row(
        6,
        "Dead proxy servers are noticed, and their calls go to others that are there.",
        dead_relays_are_noticed,
        ({"two": 12}, False, {"one", "two"}),
        tries=3,
    ),
    Row(
        7,
        "More about it is in the documentation of the proxy server.",
        more_is_documented,
        ([], True),
    ),
    Row(
        8,
        "The logic of decisions is in the module and the servers, not in the routing.",
        logic_in_the_module,
        ((10, 10), ["0.0.0.0", "relay"], (10, 10)),
    ),
    Row(
        9,
        "So very few of its functions take a parameter.",
        few_parameters,
        {"client_nat_test": 1, "fix_contact": 0, "use_media_proxy": 0, "end_media_session": 0},
    ),
    Row(
        10,
        "Control is by changing what is outside of the configuration file.",
        by_resources_outside,
        ([False], [True], True),
    ),
    Row(
        11,
        "Such as proxy servers in DNS SRV records, or files of asymmetric clients, read again as soon as they change.",
        srv_and_files,
        ([False, False], [True, True], True),
    ),
    Row(
        12,
        "So the server runs on without interruption or restart.",
        without_interruption,
        (((10, 10), (10, 10)), [(10, 10)] * 2),
    ),
    Row(
        13,
        "Who wants another behaviour changes these resources, and the server adapts on the fly.",
        back_again,
        (True, False),
    ),
    Row(
        14,
        "The configuration file gets simpler, and easier to maintain.",
        a_simple_routing,
        ([], True),
    ),
)
SECTION = Section("1.7 Comparison with the nathelper module", 14, ROWS)
