"""1.8: keep-alives by SIP requests, and each line of the page's example 1-9."""

import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial

from lab.hosts import Host
from tests.documentation import scripts
from tests.documentation.call import reaches
from tests.documentation.house import BY_SIP, PING, House
from tests.documentation.instance import Instance
from tests.documentation.phone import PATIENCE, Phone
from tests.documentation.routes import PRIVATE
from tests.documentation.row import Otherwise, Row, Section
from tests.documentation.section13 import heard
from tests.documentation.section15 import relayed
from tests.documentation.section154 import none_at_all

FROM = "sip:ping@sipserver.net"
BLOCK = BY_SIP
"The page's REGISTER block, and what the phones here need to be reached."
ZEROS_ONLY = "force_rport fix_contact setflag=6 save"


def registered(house: House, run: str, at: Instance | None = None, **phone: object) -> Phone:
    """A phone whose REGISTER runs these words."""
    made = house.phone(at=at, register=False, **phone)  # type: ignore[arg-type] # as phone takes them
    made.register(headers=[("X-Run", run)])
    return made


def wait(phones: Iterable[Phone], seconds: float) -> None:
    """Phones that do nothing but answer OPTIONS."""
    some = tuple(phones)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for phone in some:
            phone.idle(0.02)


def wait_for(enough: Callable[[], bool], *phones: Phone) -> None:
    """The same until something has come, or until it is too late to come."""
    until = time.monotonic() + PATIENCE
    while not enough() and time.monotonic() < until:
        wait(phones, 0.05)


def both_ways(house: House) -> object:
    """Behind routers that count only what comes from inside: phones that are pinged by OPTIONS, by four bytes, and in
    Kamailio by OPTIONS of its own nathelper. Whether they are reached later."""
    kinds = {"SIP": (BLOCK, house.main, 4 * PING), "zeros": (ZEROS_ONLY, house.main, 4 * PING)}
    if house.host is Host.KAMAILIO:
        kinds["nathelper"] = (BLOCK, house.quiet, 1.8)  # it pings every second
    for _ in range(3):  # other work on the machine only adds delay, which closes channels
        phones = {
            name: registered(house, run, at, nat=house.nat(forgets=forgets, inward=False))
            for name, (run, at, forgets) in kinds.items()
        }
        wait(phones.values(), 1.5 * max(forgets for _, _, forgets in kinds.values()))
        found = {name: reaches(house.phone(at=kinds[name][1]), phone) for name, phone in phones.items()}
        if all(reached for name, reached in found.items() if name != "zeros"):
            break
    return found


def mediaproxy_is_there(house: House) -> object:
    return relayed(house, house.quiet)


def nathelper_is_there(house: House) -> object:
    """Its functions can be called beside ours; in the edge those of that name that we have."""
    word = "nathelper=1" if house.host is Host.KAMAILIO else "nat_uac_test=1"
    caller, callee = house.phone(at=house.quiet), house.phone(at=house.quiet)
    run = [("X-Run", f"{word} client_nat_test=1")]
    sent = caller.request("MESSAGE", callee.aor, contact=PRIVATE, headers=run)
    callee.answer(callee.receive("MESSAGE"), 200)
    return house.quiet.codes(sent.get("Call-ID"))


def kamailio_lacks(house: House, module: str, parameter: str) -> bool:
    """Whether a Kamailio that is told such a parameter says that it has none; also whether it takes the config without
    it."""
    found = []
    for line in (f'modparam("{module}", "{parameter}", 1)\n', ""):
        config = house.folder / "checked.cfg"
        config.write_text(scripts.kamailio_config(scripts.NATHELPER + line))
        script = house.quiet.folder / "kamailio" / "script.py"
        argv = ["kamailio", "-c", "-f", str(config), "-A", f'ROUTER="{script}"', "-Y", str(house.folder)]
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=30, env=house.quiet.environment
        )
        found.append((done.returncode == 0, f"parameter <{parameter}>" in done.stderr))
    return found == [(False, True), (True, False)]


def relay_is_not_nathelpers(house: House) -> object:
    hears = heard(house.phone(at=house.quiet), house.phone(at=house.quiet))
    return (hears, kamailio_lacks(house, "nathelper", "rtpproxy_disable")) if house.host is Host.KAMAILIO else hears


def at_intervals(house: House) -> object:
    """Of nathelper in Kamailio, 30 s on the page and here one second; of ours in both hosts."""
    found = {PING: registered(house, BLOCK, nat=house.nat())}
    if house.host is Host.KAMAILIO:
        found[1.0] = registered(house, BLOCK, house.quiet, nat=house.nat())
    for _ in range(3):  # other work on the machine only adds delay
        for phone in found.values():
            phone.asked.clear()
        wait(found.values(), 2.7 * max(found))
        gaps = [_gap(phone) / interval for interval, phone in found.items()]
        if all(abs(gap - 1) < 0.35 for gap in gaps):
            return True
    return gaps


def _gap(phone: Phone) -> float:
    times = [at for at, _ in phone.asked]
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    return statistics.median(gaps or [0.0])


def the_from_of_pings(house: House) -> object:
    """Ours in both hosts; method, From, To, and that it is from the socket that the phone registered with."""
    phone = registered(house, BLOCK, nat=house.nat())
    phone.wait_until(lambda phone: bool(phone.asked))
    _, got = phone.asked[0]
    to = re.sub(r"[<>]", "", got.get("To"))
    return (
        got.start.split()[0],
        re.sub(r"[<>]|;tag=.*", "", got.get("From")),
        to == "sip:{}@{}:{}".format(phone.user, *phone.ear.outside),
        got.source == phone.server,
    )


@cache
def flags(house: House) -> Mapping[str, str]:
    """How phones are pinged whose REGISTER set these flags: the kinds of pings."""
    phones = {
        words: registered(house, f"force_rport fix_contact {words} save", nat=house.nat())
        for words in ("setflag=6", "setflag=2", "setflag=6 setflag=2", "setflag=5", "isflagset=1")
    }
    pinged = [phone for words, phone in phones.items() if "setflag=6" in words]
    wait_for(lambda: all(phone.pings or phone.asked for phone in pinged), *phones.values())
    wait(phones.values(), 3 * PING)
    return {words: "zeros" * bool(phone.pings) + "SIP" * bool(phone.asked) for words, phone in phones.items()}


def the_nat_flag(house: House) -> object:
    """Flag 6 says that a phone is behind a NAT, and no other flag does."""
    found = flags(house)
    pinged = {words: found[words] for words in ("setflag=6", "setflag=5", "isflagset=1")}
    return (pinged, kamailio_lacks(house, "registrar", "nat_flag")) if house.host is Host.KAMAILIO else pinged


def the_sip_flag(house: House) -> object:
    """Flag 2 says that it is pinged by SIP requests instead of zeros."""
    found = flags(house)
    pinged = {words: found[words] for words in ("setflag=6", "setflag=6 setflag=2")}
    lacks = house.host is not Host.KAMAILIO or kamailio_lacks(house, "registrar", "sip_natping_flag")
    return (pinged, lacks) if house.host is Host.KAMAILIO else pinged


def set_nat(house: House) -> object:
    """The block's words for the REGISTER of a phone behind a NAT: what they return; it is registered and pinged."""
    phone = registered(house, BLOCK, nat=house.nat())
    wait_for(lambda: len(phone.asked) >= 2, phone)
    other = house.phone()
    return house.main.codes(f"register-{phone.user}"), len(phone.asked) >= 2, reaches(other, phone)


def set_sip_ping(house: House) -> object:
    """Each registration decides for itself: of two phones behind one NAT one sets it. And the answers go no further:
    nobody sees them, and the phone is not asked again for lack of them."""
    nat = house.nat()
    one, two = registered(house, BLOCK, nat=nat), registered(house, ZEROS_ONLY, nat=nat)
    wait_for(lambda: bool(one.asked and two.pings), one, two)
    wait([one, two], 3 * PING)
    branches = [got.branch for _, got in one.asked]
    return (
        [bool(phone.asked) for phone in (one, two)],
        [bool(phone.pings) for phone in (one, two)],
        len(set(branches)) == len(branches),
    )


def saved_or_refused(house: House) -> object:
    """A REGISTER that can be saved, and one that cannot (* with an Expires that is not 0), each answered once."""
    good, bad = house.phone(register=False), house.phone(register=False)
    run = "setflag=6 setflag=2 save_or_error"
    answer = good.register(headers=[("X-Run", run)])
    bad.contact = "*"
    bad.ask_to_register(headers=[("X-Run", run)])
    for phone in (good, bad):  # what the words returned is written when all has been answered
        house.until(partial(_words_run, house, phone), 3)
    bad.idle(0.3)
    return (
        answer.status,
        [got.status // 100 for got in bad.waiting],
        [house.main.codes(f"register-{phone.user}")[-1] > 0 for phone in (good, bad)],
    )


def _words_run(house: House, phone: Phone) -> int:
    return len(house.main.codes(f"register-{phone.user}"))


NO_REGISTRAR = "Kamailio 5.6 has the flag as branch flag nat_bflag of usrloc, and no such parameter of its registrar."
ROWS = (
    Row(
        1,
        "Pings by real SIP requests are answered; so routers that want traffic from inside keep the channel open. The"
        " four zero bytes are not.",
        both_ways,
        {"SIP": True, "zeros": False},
        {
            Host.KAMAILIO: Otherwise(
                {"SIP": True, "zeros": False, "nathelper": True},
                "Here real nathelper can ping, as on the page, or our module alone.",
            )
        },
    ),
    Row(2, "Example 1-9: mediaproxy is loaded,", mediaproxy_is_there, ([1], True)),
    Row(3, "and nathelper beside it.", nathelper_is_there, [1, 1]),
    Row(4, "mediaproxy's natping_interval is 0: it pings nobody.", none_at_all, 0, late=True),
    Row(
        5,
        "nathelper's rtpproxy is off: the media is mediaproxy's.",
        relay_is_not_nathelpers,
        (10, 10),
        {
            Host.KAMAILIO: Otherwise(
                ((10, 10), True),
                "Kamailio 5.6 has no rtpproxy in its nathelper, and no such parameter: it does not start with it.",
            )
        },
    ),
    Row(6, "nathelper's natping_interval says how often it pings.", at_intervals, True),
    Row(7, "sipping_from is the address in From.", the_from_of_pings, ("OPTIONS", FROM, True, True)),
    Row(
        8,
        "nat_flag of the registrar is the flag of phones behind a NAT.",
        the_nat_flag,
        {"setflag=6": "zeros", "setflag=5": "", "isflagset=1": ""},
        {
            Host.KAMAILIO: Otherwise(
                ({"setflag=6": "zeros", "setflag=5": "", "isflagset=1": ""}, True),
                NO_REGISTRAR,
            )
        },
    ),
    Row(
        9,
        "sip_natping_flag is the flag of phones that are pinged by SIP.",
        the_sip_flag,
        {"setflag=6": "zeros", "setflag=6 setflag=2": "SIP"},
        {
            Host.KAMAILIO: Otherwise(
                ({"setflag=6": "zeros", "setflag=6 setflag=2": "SIP"}, True),
                "It is branch flag sipping_bflag of nathelper, and of our module; the registrar has no such parameter.",
            )
        },
    ),
    Row(10, "For a REGISTER setflag(6): behind a NAT.", set_nat, ([1] * 5, True, True)),
    Row(11, "setflag(2): to be pinged by SIP.", set_sip_ping, ([True, False], [False, True], True)),
    Row(
        12,
        'if (!save("location")) { sl_reply_error(); }.',
        saved_or_refused,
        (200, [4], [True, False]),
        {
            Host.KAMAILIO: Otherwise(
                (200, [4, 5], [True, False]),
                "Kamailio's save() answers what it refuses, and its sl_reply_error() once more. Phones take the first.",
            )
        },
    ),
)
SECTION = Section("1.8 How to use sip_ping from the nathelper module", 12, ROWS)
