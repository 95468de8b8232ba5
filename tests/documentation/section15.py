"""1.5.1 to 1.5.3: the socket and the lists of asymmetric clients: meaning, defaults, the page's examples."""

import socket
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from lab.hosts import Host
from lab.kamailio import ROOT
from mediaproxy import agents
from mediaproxy.control import MediaReply, decode, encode
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.kamailio.settings import Settings
from mediaproxy.server.places import Places
from tests import asking
from tests.documentation.call import Call
from tests.documentation.house import ODD, House
from tests.documentation.instance import Instance
from tests.documentation.row import Row, Section
from tests.documentation.section13 import heard

SHIPPED = "ipDialog SipTone II 1.2.0"
"A client that the shipped list of SIP-asymmetric clients names."


def default(house: House, name: str) -> object:
    """What a setting of the host is if nobody sets it."""
    if house.host is Host.KAMAILIO:
        return getattr(Settings(), name)
    return str(Places.SYSTEM_SOCKET) if name == "mediaproxy_socket" else getattr(EdgeSettings(), name)


# -- mediaproxy_socket


def answers(path: Path) -> int:
    """How many ports the server gives to a question asked there."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(path))
        question = asking.offer(asking.Phone("a", "127.0.0.9"), asking.Phone("b", "127.0.0.9"), f"asked at {path}")
        sock.sendall(encode(question))
        reply = decode(sock.makefile("rb").readline())
        sock.sendall(encode(asking.bye(asking.Phone("a"), asking.Phone("b"), f"asked at {path}")))
    assert isinstance(reply, MediaReply) and not reply.error
    return len(reply.ports)


def relayed(house: House, at: Instance) -> object:
    """What use_media_proxy returns, and whether the media was really taken to a relay."""
    caller, callee = house.phone(at=at), house.phone(at=at)
    sent = caller.request("INVITE", callee.aor, body=caller.sdp(), headers=[("X-Run", "use_media_proxy")])
    invite = callee.receive("INVITE")
    callee.answer(invite, 486)
    caller.receive(486)
    return at.codes(sent.get("Call-ID"), "request_route"), call_address(invite.body) != caller.media[0]


def call_address(body: str) -> str:
    """The address in an SDP's c= line."""
    return next(line.split()[-1] for line in body.splitlines() if line.startswith("c="))


def the_server_listens_there(house: House) -> object:
    return house.main.socket.is_socket(), answers(house.main.socket), relayed(house, house.main)


def the_default_socket(house: House) -> object:
    """Started without it: server and module meet."""
    return default(house, "mediaproxy_socket"), answers(house.plain.socket), relayed(house, house.plain)


def another_socket(house: House) -> object:
    return house.main.socket == house.folder / "questions", relayed(house, house.main)


# -- sip_asymmetrics


def keeps_port(house: House, at: Instance, agent: str, *, reply: bool = False) -> bool:
    """Whether fix_contact keeps the port in a Contact: of a request with that User-Agent, or a reply with that
    Server."""
    run = [("X-Run", "fix_contact")]
    caller, callee = house.phone(at=at), house.phone(at=at)
    (callee if reply else caller).agent = agent
    contact = "<sip:x@192.168.1.10:5999>"
    caller.request("INVITE", callee.aor, contact=None if reply else contact, headers=[] if reply else run)
    invite = callee.receive("INVITE")
    callee.answer(invite, 183 if reply else 486, contact=contact, headers=run if reply else [])
    got = caller.receive(183) if reply else invite
    if reply:
        callee.answer(invite, 486)
        caller.receive(486)
    phone = callee if reply else caller
    ports = {"5999": True, str(phone.ear.outside[1]): False}
    return ports[got.contact.rpartition(":")[2]]


def both_headers(house: House, keeps: Callable[..., bool]) -> object:
    """Agents that the list's ``^Odd .*phone/[[:digit:]]+`` matches, and others; case does not matter."""
    matched, others = (ODD, "ODD OLD PHONE/7 (x)"), ("An Odd phone/1", "Odd phone/x")
    return {
        reply: (
            [keeps(house, agent, reply=reply) for agent in matched],
            [keeps(house, agent, reply=reply) for agent in others],
        )
        for reply in (False, True)
    }


def sip_list(house: House) -> object:
    return both_headers(house, lambda house, agent, reply: keeps_port(house, house.main, agent, reply=reply))


def sip_list_is_needed(house: House) -> object:
    """The same phone, on the list and not: whether its port is kept; whether test 2 takes the port for a NAT's; whether
    a phone that listens there is registered."""
    found = {}
    for agent in (ODD, "Plain phone"):
        phone = house.phone(splits="sip", agent=agent, register=False)
        phone.ask_to_register(headers=[("X-Run", "client_nat_test=2")])
        phone.ask_to_register()
        registered = phone.gets(200, "REGISTER")
        found[agent] = keeps_port(house, house.main, agent), _codes(house, f"register-{phone.user}"), registered
    return found


def _codes(house: House, call_id: str) -> list[int]:
    """What the words of a request returned, once they have: another process may have answered the next one."""
    house.until(lambda: bool(house.main.codes(call_id)), True)
    return house.main.codes(call_id)


def shipped_sip_list(house: House) -> object:
    """The shipped file is in force: what it lists is matched, nothing of it is complained about."""
    file = ROOT / "config" / "sip-asymmetric-clients"
    known = agents.AgentList.parse(file.read_text(), "shipped")
    return (
        _entries(file),
        known.problems,
        keeps_port(house, house.plain, SHIPPED),
        keeps_port(house, house.plain, "Other phone"),
    )


def _entries(file: Path) -> list[str]:
    lines = [line.strip() for line in file.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


@cache
def late_phones(house: House) -> tuple[tuple[bool, bool], ...]:
    """``Late phone`` is added to both default files. Of each: whether it counted before, and whether it does then."""
    looks = (partial(keeps_port, house, house.plain, "Late phone"), partial(_told_asymmetric, house))
    before = [look() for look in looks]
    for name in ("sip-asymmetric-clients", "rtp-asymmetric-clients"):
        with (house.etc / name).open("a") as file:
            file.write("^Late phone\n")
    return tuple(zip(before, map(becomes, looks), strict=True))


def becomes(look: Callable[[], bool], wanted: bool = True, seconds: float = 60.0) -> bool:
    """What is so in the end, after a minute at most. It has become as wanted if that is seen several times in a
    row: Kamailio has several processes, and all must know."""
    deadline = time.monotonic() + seconds
    same = 0
    while same < 8 and time.monotonic() < deadline:
        same = same + 1 if look() is wanted else 0
        time.sleep(0.02 if same else 0.1)
    return wanted if same >= 8 else not wanted


def default_sip_list(house: House) -> object:
    return default(house, "sip_asymmetrics"), late_phones(house)[0]


def another_sip_list(house: House) -> object:
    """It counts instead of the default one, which ``plain`` has."""
    return [keeps_port(house, at, agent) for at in (house.main, house.plain) for agent in (ODD, SHIPPED)]


# -- rtp_asymmetrics


def is_sent_to_its_sdp(house: House, at: Instance, agent: str, *, reply: bool = False) -> bool:
    """Whether media goes to the port of its SDP although it comes from another: of a caller with that User-Agent, or a
    callee with that Server."""
    odd, other = house.phone(at=at, splits="rtp"), house.phone(at=at)
    odd.agent = agent
    hears = heard(other, odd)[0] if reply else heard(odd, other)[1]
    return {10: True, 0: False}[hears]


def rtp_list(house: House) -> object:
    return both_headers(house, lambda house, agent, reply: is_sent_to_its_sdp(house, house.main, agent, reply=reply))


def rtp_list_is_needed(house: House) -> object:
    """The same phone, on the list and not: what it hears, and what the call's record says."""
    found = {}
    for agent in (ODD, "Plain phone"):
        phone, other = house.phone(splits="rtp", agent=agent), house.phone()
        call = Call(other, phone)
        hears = call.talk()[0]
        call.hang_up()
        (record,) = house.main.records(call.call_id)
        found[agent] = hears, record.callee.asymmetric
    return found


def shipped_rtp_list(house: House) -> object:
    """The shipped file names nobody, as the original's; a line more is all it takes."""
    file = ROOT / "config" / "rtp-asymmetric-clients"
    known = agents.AgentList.parse(file.read_text(), "shipped")
    said = f"/etc/openser/rtp-asymmetric-clients: {len(known)} entries" in house.plain.log
    return _entries(file), known.problems, said, is_sent_to_its_sdp(house, house.plain, SHIPPED)


def default_rtp_list(house: House) -> object:
    return default(house, "rtp_asymmetrics"), late_phones(house)[1]


def _told_asymmetric(house: House) -> bool:
    """Whether the relay is told so of a phone: its call's record says it."""
    phone, other = house.phone(at=house.plain, agent="Late phone"), house.phone(at=house.plain)
    call = Call(phone, other)
    call.hang_up()
    relay = house.estate.relays[house.estate.name_of(call.relay(call.invite)[0])]
    (record,) = relay.records(call.call_id)
    return record.caller.asymmetric


def another_rtp_list(house: House) -> object:
    """Only the file that is set counts."""
    return [is_sent_to_its_sdp(house, at, ODD) for at in (house.main, house.plain)]


MATCHED = {reply: ([True] * 2, [False] * 2) for reply in (False, True)}
SOCKET = (
    Row(
        1,
        "The path of the socket in the file system where the proxy server takes the module's commands.",
        the_server_listens_there,
        (True, 1, ([1], True)),
    ),
    Row(
        2,
        "Its default is /var/run/proxydispatcher.sock.",
        the_default_socket,
        ("/var/run/proxydispatcher.sock", 1, ([1], True)),
    ),
    Row(
        3,
        "Example 1-1: it is set like any parameter.",
        another_socket,
        (True, ([1], True)),
    ),
)
SIP = (
    Row(
        1,
        "The path of a file of regular expressions for the User-Agent or Server of phones asymmetric in signalling.",
        sip_list,
        MATCHED,
    ),
    Row(
        2,
        "It is needed to find out that a phone is.",
        sip_list_is_needed,
        {ODD: (True, [-1], True), "Plain phone": (False, [1], False)},
    ),
    Row(
        3,
        "There is an example of the file in config/.",
        shipped_sip_list,
        (["ipDialog SipTone.*"], (), True, False),
    ),
    Row(
        4,
        "Its default is /etc/openser/sip-asymmetric-clients.",
        default_sip_list,
        ("/etc/openser/sip-asymmetric-clients", (False, True)),
    ),
    Row(
        5,
        "Example 1-2: it is set like any parameter.",
        another_sip_list,
        [True, False, False, True],
    ),
)
RTP = (
    Row(
        1,
        "The path of a file of regular expressions for the User-Agent or Server of phones asymmetric in media.",
        rtp_list,
        MATCHED,
    ),
    Row(
        2,
        "It is needed to find out that a phone is.",
        rtp_list_is_needed,
        {ODD: (10, True), "Plain phone": (0, False)},
    ),
    Row(
        3,
        "There is an example of the file in config/.",
        shipped_rtp_list,
        ([], (), True, False),
    ),
    Row(
        4,
        "Its default is /etc/openser/rtp-asymmetric-clients.",
        default_rtp_list,
        ("/etc/openser/rtp-asymmetric-clients", (False, True)),
    ),
    Row(
        5,
        "Example 1-3: it is set like any parameter.",
        another_rtp_list,
        [True, False],
    ),
)
SECTIONS = (
    Section("1.5.1 mediaproxy_socket", 3, SOCKET),
    Section("1.5.2 sip_asymmetrics", 5, SIP),
    Section("1.5.3 rtp_asymmetrics", 5, RTP),
)
