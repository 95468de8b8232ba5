"""1.6.1 and 1.6.2: client_nat_test and fix_contact."""

from collections.abc import Mapping

from lab.hosts import Host
from tests.documentation.call import reaches
from tests.documentation.house import ODD, House
from tests.documentation.instance import Instance
from tests.documentation.phone import Got
from tests.documentation.routes import EVERYWHERE, PRIVATE, in_each_route, is_said
from tests.documentation.row import Otherwise, Row, Section

PUBLIC = "<sip:x@203.0.113.9:5060>"
OTHER_VIA = "203.0.113.9:5060"
PRIVATE_VIA = "172.20.0.9:5060"


def codes(house: House, *words: str, **message: str) -> list[int]:
    """What functions return for a MESSAGE from a phone on the Internet. ``message``: its ``contact``, ``via``,
    ``agent``; else they are true."""
    caller, callee = house.phone(), house.phone()
    caller.agent = message.pop("agent", "")
    sent = caller.request("MESSAGE", callee.aor, headers=[("X-Run", " ".join(words))], **message)  # type: ignore[arg-type] # texts
    callee.answer(callee.receive("MESSAGE"), 200)
    return house.main.codes(sent.get("Call-ID"))


def behind_nat_or_not(house: House) -> object:
    """A phone behind a NAT, one on the Internet; their REGISTER."""
    found = []
    for nat in (house.nat(), None):
        phone = house.phone(nat=nat, register=False)
        phone.register(headers=[("X-Run", "client_nat_test=7 force_rport save")])
        found.append(house.main.journal(f"register-{phone.user}")[0])
    return found


def sums(house: House) -> object:
    """Each sum, as text and as number, for messages in which one test holds, or all do."""
    words = [f"client_nat_test={sign}{number}" for sign in ("", "#") for number in range(8)]
    messages: Mapping[str, Mapping[str, str]] = {
        "only 1": {"contact": PRIVATE},
        "only 2": {"via": OTHER_VIA},
        "2 and 4": {"via": PRIVATE_VIA},
        "1, 2, 4": {"contact": PRIVATE, "via": PRIVATE_VIA},
        "none": {},
    }
    found = {}
    for name, message in messages.items():
        got = codes(house, *words, **message)
        assert got[:8] == got[8:], "text and number mean the same"
        found[name] = [number for number in range(8) if got[number] == 1]
    return found


def private_contacts(house: House) -> object:
    """The hosts in Contact that are taken for private."""
    hosts = ["10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.1", "192.168.0.1"]
    others = [
        "9.255.0.1",
        "11.0.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "192.167.0.1",
        "192.169.0.1",
        "100.64.0.1",
        "127.0.0.1",
    ]
    others += ["169.254.0.1", "10.example.com", "[fd00::1]"]
    return [
        [host for host in some if codes(house, "client_nat_test=1", contact=f"<sip:x@{host}:5060>") == [1]]
        == (some if some is hosts else [])
        for some in (hosts, others)
    ], codes(house, "client_nat_test=1", contact="")


def other_sources(house: House) -> object:
    """Sent from another address, or from another port than the Via says; that of a SIP-asymmetric phone may differ."""
    caller = house.phone()
    address = caller.ear.outside[0]
    found = {}
    for name, via, agent in (
        ("as in Via", "", ""),
        ("other address", OTHER_VIA, ""),
        ("other port", f"{address}:4", ""),
        ("no port, but not from 5060", address, ""),
        ("other port, asymmetric", f"{address}:4", ODD),
        ("other address, asymmetric", OTHER_VIA, ODD),
    ):
        callee = house.phone()
        caller.agent = agent
        sent = caller.request("MESSAGE", callee.aor, via=via, headers=[("X-Run", "client_nat_test=2")])
        callee.answer(callee.receive("MESSAGE"), 200)
        found[name] = house.main.codes(sent.get("Call-ID"))
    return [name for name, got in found.items() if got == [1]]


def private_vias(house: House) -> object:
    """Only the top Via counts."""
    second = [("Via", f"SIP/2.0/UDP {PRIVATE_VIA};branch=z9hG4bKsecond"), ("X-Run", "client_nat_test=4")]
    caller, callee = house.phone(), house.phone()
    sent = caller.request("MESSAGE", callee.aor, headers=second)
    callee.answer(callee.receive("MESSAGE"), 200)
    private = ("10.1.2.3", "172.16.0.1:5062", "192.168.9.9")
    return [codes(house, "client_nat_test=4", via=via) for via in (*private, "172.32.0.1", "box.example.com")], (
        house.main.codes(sent.get("Call-ID"))
    )


def three(house: House) -> object:
    """Code and truth of client_nat_test("3"): with the first, the second, neither; test 4 is not among them."""
    messages: Mapping[str, Mapping[str, str]] = {
        "first": {"contact": PRIVATE},
        "second": {"via": OTHER_VIA},
        "neither": {},
    }
    found = {}
    for name, message in messages.items():
        caller, callee = house.phone(), house.phone()
        run = [("X-Run", "client_nat_test=3 client_nat_test=4")]
        sent = caller.request("MESSAGE", callee.aor, headers=run, **message)  # type: ignore[arg-type] # texts
        callee.answer(callee.receive("MESSAGE"), 200)
        found[name] = [line.partition(" ")[2] for line in house.main.journal(sent.get("Call-ID"))]
    return found


def nat_test_in_each_route(house: House) -> object:
    return in_each_route(house, "client_nat_test=1")


def arrives(house: House, at: Instance, *, nat: bool, contact: str | None = None) -> Got:
    """A MESSAGE of a phone as another one gets it."""
    caller, callee = house.phone(at=at, nat=house.nat() if nat else None), house.phone(at=at)
    inside = str(caller.ear.inside[1])
    caller.request("MESSAGE", callee.aor, contact=contact, headers=[("X-Port", inside)])
    got = callee.receive("MESSAGE")
    callee.answer(got, 200)
    return got


def example_5(house: House) -> object:
    """What stands in the block is done for a phone behind a NAT, and for no other."""
    return [arrives(house, house.examples, nat=nat).all("X-Natted") for nat in (True, False)]


# -- fix_contact

CONTACT = '"A, \\"B\\" <x>" <sip:al%20@192.168.1.10:5070;line=7;transport=udp?x=1>;q=0.5;+sip.instance="<urn:a,b>"'


def the_source_replaces_it(house: House) -> object:
    """Contacts of all shapes: host and port become the source's, no other byte changes."""
    found = []
    for contact in (
        CONTACT,
        "<sip:192.168.1.10>",
        "sip:a@192.168.1.10;x=1",
        f"{CONTACT}, <sip:b@box.example.com:9>;q=0",
    ):
        caller, callee = house.phone(), house.phone()
        caller.request("MESSAGE", callee.aor, contact=contact, headers=[("X-Run", "fix_contact")])
        got = callee.receive("MESSAGE")
        callee.answer(got, 200)
        found.append(got.get("Contact").replace("{}:{}".format(*caller.ear.outside), "SOURCE"))
    star = codes(house, "fix_contact", contact="*"), codes(house, "fix_contact", contact="")
    return found, star


def the_port_is_kept(house: House) -> object:
    """Of a phone on the list, and of another; with a port in its Contact and without."""
    found: dict[str, list[str]] = {}
    for agent in (ODD, "Plain phone"):
        caller, callee = house.phone(agent=agent), house.phone()
        for contact in ("<sip:a@192.168.1.10:5999;x>", "<sip:a@192.168.1.10;x>"):
            caller.request("MESSAGE", callee.aor, contact=contact, headers=[("X-Run", "fix_contact")])
            got = callee.receive("MESSAGE")
            callee.answer(got, 200)
            address, port = caller.ear.outside
            shown = got.get("Contact").replace(address, "SOURCE").replace(str(port), "PORT")
            found.setdefault(agent, []).append(shown)
    return found


def after_the_test(house: House) -> object:
    """In the shipped routing and in the page's: Contacts of a phone behind a NAT, and of one on the Internet."""
    found = []
    for at in (house.main, house.examples):
        for nat in (True, False):
            got = arrives(house, at, nat=nat)
            private, port = "192.168.1.10" in got.contact, got.contact.rpartition(":")[2]
            found.append("private" if private else "its own" if port == got.get("X-Port") else "the source")
    # A public address that is not the source's is no matter of the tests 1 and 2.
    return found, arrives(house, house.examples, nat=False, contact=PUBLIC).contact


def fix_contact_in_each_route(house: House) -> object:
    return in_each_route(house, "fix_contact"), is_said(house, "fix_contact", "failure_route")


def example_6(house: House) -> object:
    """The routing is the page's: a phone behind a NAT is called where it really is, and its Contact tells others so."""
    phone, other = house.phone(at=house.examples, nat=house.nat()), house.phone(at=house.examples)
    phone.request("MESSAGE", other.aor)
    got = other.receive("MESSAGE")
    other.answer(got, 200)
    return reaches(other, phone), got.contact == "sip:{}@{}:{}".format(phone.user, *phone.ear.outside)


NO_FAILURE = {route: said for route, said in EVERYWHERE.items() if route != "failure_route"}
REFUSED = "refused: fix_contact() cannot be called from failure_route, only from "
REFUSED += "request_route, onreply_route, branch_route"
NAT_TEST = (
    Row(
        1,
        "It tests whether the client is behind a NAT.",
        behind_nat_or_not,
        ["client_nat_test=7 1 True", "client_nat_test=7 -1 False"],
    ),
    Row(
        2,
        "Its parameter is the sum of the numbers of the tests that are wanted.",
        sums,
        {
            "only 1": [1, 3, 5, 7],
            "only 2": [2, 3, 6, 7],
            "2 and 4": [2, 3, 4, 5, 6, 7],
            "1, 2, 4": [1, 2, 3, 4, 5, 6, 7],
            "none": [],
        },
    ),
    Row(
        3,
        "1: the client has a private address of RFC 1918 in Contact.",
        private_contacts,
        ([True, True], [-1]),
    ),
    Row(
        4,
        "2: the client sends from another address than the Via says.",
        other_sources,
        ["other address", "other port", "no port, but not from 5060", "other address, asymmetric"],
    ),
    Row(
        5,
        "4: the client has a private address of RFC 1918 in the top Via.",
        private_vias,
        ([[1], [1], [1], [-1], [-1]], [-1]),
    ),
    Row(
        6,
        'client_nat_test("3") does the first two, is true as soon as one succeeds, false if both fail.',
        three,
        {"first": ["1 True", "-1 False"], "second": ["1 True", "-1 False"], "neither": ["-1 False", "-1 False"]},
    ),
    Row(
        7,
        "It can be used in request, onreply, failure and branch routes.",
        nat_test_in_each_route,
        EVERYWHERE,
    ),
    Row(
        8,
        'Example 1-5: if (client_nat_test("3")) { ... }.',
        example_5,
        [["yes"], []],
    ),
)
FIXED = [
    CONTACT.replace("192.168.1.10:5070", "SOURCE"),
    "<sip:SOURCE>",
    "sip:a@SOURCE;x=1",
    f"{CONTACT.replace('192.168.1.10:5070', 'SOURCE')}, <sip:b@SOURCE>;q=0",
]
FIX_CONTACT = (
    Row(
        1,
        "It puts the address and port that the message came from into the Contact, in place of those that are there.",
        the_source_replaces_it,
        (FIXED, ([-1], [-1])),
    ),
    Row(
        2,
        "The port of clients that are asymmetric in signalling, as sip_asymmetrics says, is kept.",
        the_port_is_kept,
        {
            ODD: ["<sip:a@SOURCE:5999;x>", "<sip:a@SOURCE;x>"],
            "Plain phone": ["<sip:a@SOURCE:PORT;x>", "<sip:a@SOURCE:PORT;x>"],
        },
    ),
    Row(
        3,
        "It is usually called when a client_nat_test has succeeded.",
        after_the_test,
        (["the source", "its own"] * 2, "sip:x@203.0.113.9:5060"),
    ),
    Row(
        4,
        "It can be used in request, onreply and branch routes, and not in failure routes.",
        fix_contact_in_each_route,
        ({**NO_FAILURE, "failure_route": [REFUSED]}, "when it is loaded, with the line"),
        {
            Host.KAMAILIO: Otherwise(
                ({**NO_FAILURE, "failure_route": ["-1 False"]}, "in the log"),
                "Kamailio does not look at what a Python script calls, and an exception in it would cost a message: the"
                " function does nothing, returns -1, and the log names function and route.",
            )
        },
    ),
    Row(
        5,
        'Example 1-6: if (client_nat_test("3")) { fix_contact(); }.',
        example_6,
        (True, True),
    ),
)
SECTIONS = (
    Section("1.6.1 client_nat_test(type)", 8, NAT_TEST),
    Section("1.6.2 fix_contact()", 5, FIX_CONTACT),
)
