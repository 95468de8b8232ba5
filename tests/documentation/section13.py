"""1.3: which phones work behind a NAT, and why."""

import time
from collections.abc import Mapping
from functools import cache

from tests.documentation.call import Call, reaches
from tests.documentation.house import ODD, PING, House
from tests.documentation.lines import Line
from tests.documentation.phone import Phone
from tests.documentation.row import Row, Section

FORGETS = 4 * PING
"Seconds after which the routers here forget a channel: more than the keep-alives take, less than a phone waits."


def heard(caller: Phone, callee: Phone) -> tuple[int, int]:
    """What two phones hear of ten packets in a call: the callee, the caller."""
    call = Call(caller, callee)
    try:
        return call.talk()
    finally:
        call.hang_up()


def symmetric_phones(house: House) -> object:
    return heard(house.phone(nat=house.nat()), house.phone(nat=house.nat()))


def one_port_each_way(house: House) -> object:
    phone, other = house.phone(nat=house.nat()), house.phone()
    call = Call(other, phone)
    talked = call.talk()
    # Both came to the only ports that the router lets anything in by: those that the phone has sent from.
    sent = {line.outside for line in (phone.mouth, phone.rtp_mouth)}
    return {phone.ear.outside, phone.rtp.outside} == sent, call.invite.source == phone.server, talked


def on_port_5060(house: House) -> object:
    phone, other = house.phone(port=5060, register=False), house.phone()
    phone.says = phone.ear.outside[0]  # as phones do that use the default port
    phone.contact = f"<sip:{phone.user}@{phone.says}>"
    registered = phone.register()
    other.request("INVITE", phone.aor, body=other.sdp())
    invite = phone.receive("INVITE")
    phone.answer(invite, 486)
    return phone.contact in registered.get("Contact"), invite.start.startswith(f"INVITE sip:{phone.user}@{phone.says} ")


def sip_and_rtp_alike(house: House) -> object:
    other = house.phone()
    rtp = house.phone(nat=house.nat(), splits="rtp")
    sip = house.phone(nat=house.nat(), splits="sip", register=False)
    sip.ask_to_register()
    return {"splits RTP, hears": heard(other, rtp)[0], "splits SIP, is called": reaches(other, sip)}


def only_the_source_is_used(house: House) -> object:
    """The phone says a place where somebody else listens."""
    trap = Line("127.0.0.1")
    rtp_trap = Line("127.0.0.1")
    try:
        phone, other = house.phone(nat=house.nat(), register=False), house.phone()
        phone.says, phone.media = "{}:{}".format(*trap.outside), rtp_trap.outside
        phone.contact = f"<sip:{phone.user}@{phone.says}>"
        phone.register()
        talked = heard(other, phone)
        phone.wait_until(lambda phone: bool(phone.pings))
        # Before its first packet media may be tried where the SDP says; never afterwards.
        return talked, len(phone.pings) > 0, trap.drain()
    finally:
        trap.close()
        rtp_trap.close()


def the_channel_stays_open(house: House) -> object:
    """Of two phones the server knows of one only that it is behind a NAT."""
    found = {}
    for _ in range(3):  # other work on the machine only adds delay, which closes channels
        kept, left, other = (
            house.phone(nat=house.nat(forgets=FORGETS)),
            house.phone(nat=house.nat(forgets=FORGETS)),
            house.phone(),
        )
        left.register(headers=[("X-Run", "force_rport fix_contact save")])
        at_once = reaches(other, left)
        time.sleep(1.5 * FORGETS)
        found = {"kept alive": reaches(other, kept), "left alone, at once": at_once, "left alone": reaches(other, left)}
        if found["kept alive"] and at_once:
            break
    return found


def one_mapping_each(house: House) -> object:
    """Two phones with the same private address and port behind one router."""
    nat, other = house.nat(), house.phone()
    phones = house.phone(nat=nat), house.phone(nat=nat)
    reached = [(reaches(other, phone), quiet.gets("INVITE", seconds=0.05)) for phone, quiet in (phones, phones[::-1])]
    return reached, phones[0].ear.inside == phones[1].ear.inside


def where_it_listens_or_where_it_sends(house: House) -> object:
    nat, other = house.nat(), house.phone()
    return {splits or "one port": heard(other, house.phone(nat=nat, splits=splits))[0] for splits in ("", "rtp")}


def what_is_sent_back_arrives(house: House) -> object:
    phone, other = house.phone(nat=house.nat(), register=False), house.phone()
    phone.ask_to_register()
    answered = phone.gets(200, "REGISTER")
    call = Call(other, phone)
    talked = call.talk()[0]
    other.within("BYE", call.ok)
    return answered, call.invite.start.split()[0], talked, phone.gets("BYE")


def phones_that_know_the_public_address(house: House) -> object:
    other = house.phone(nat=house.nat())
    found = {}
    for knows in ("stun", "hand"):
        phone = house.phone(nat=house.nat(), knows=knows)
        assert phone.says.startswith(phone.ear.outside[0])
        found[knows] = (heard(phone, other), heard(other, phone))
    return found


def they_look_public(house: House) -> object:
    """The codes of the tests 1, 2, 4 for such phones; a phone that says its private address beside them."""
    run = "client_nat_test=1 client_nat_test=2 client_nat_test=4 force_rport save"
    found = {}
    for knows in ("stun", "hand", ""):
        phone = house.phone(nat=house.nat(), knows=knows, register=False)
        phone.register(headers=[("X-Run", run)])
        found[knows or "private"] = house.main.codes(f"register-{phone.user}")[:3]
    return found


def either_way(house: House) -> object:
    stun, private = house.phone(nat=house.nat(), knows="stun"), house.phone(nat=house.nat())
    hand = house.phone(nat=house.nat(), knows="hand")
    return [heard(one, other) for one, other in ((stun, private), (private, stun), (hand, stun), (private, hand))]


def _split(house: House, agent: str, *, forward: bool = False, public: bool = False) -> dict[str, object]:
    """A phone that sends all from other ports than it listens on: whether it is registered and called, what it and
    the other one hear."""
    nat = None if public else house.nat()
    phone = house.phone(nat=nat, splits="sip rtp", forward=forward, agent=agent, register=False)
    other = house.phone()
    phone.ask_to_register()
    registered = phone.gets(200, "REGISTER")
    called = reaches(other, phone)
    return {"registered": registered, "called": called, "hears": heard(other, phone) if called else None}


WORKS = {"registered": True, "called": True, "hears": (10, 10)}
FAILS = {"registered": False, "called": False, "hears": None}


@cache
def split_behind_nat(house: House) -> Mapping[bool, object]:
    """By whether the router forwards to where the phone listens."""
    return {forward: _split(house, ODD, forward=forward) for forward in (True, False)}


def split_is_sent_to_where_it_listens(house: House) -> object:
    """On a public address, and behind a router that lets nothing in; what the record says of such a phone."""
    public = _split(house, ODD, public=True)
    phone = house.phone(splits="rtp", agent=ODD)
    call = Call(house.phone(), phone)
    call.hang_up()
    (record,) = house.main.records(call.call_id)
    return public, split_behind_nat(house)[False], (record.callee.asymmetric, record.caller.asymmetric)


def split_without_support(house: House) -> object:
    """On a public address; only one of the two is on the lists."""
    other = house.phone()
    rtp = {agent: heard(other, house.phone(splits="rtp", agent=agent))[0] for agent in (ODD, "Unknown phone")}
    return rtp, _split(house, "Unknown phone", public=True)["registered"]


def split_with_a_forward(house: House) -> object:
    """It calls, too."""
    phone = house.phone(nat=house.nat(), splits="sip rtp", forward=True, agent=ODD)
    return heard(phone, house.phone(nat=house.nat())), heard(house.phone(), phone)


def through_the_outbound_proxy(house: House) -> object:
    """A phone that sends all to the server is reached; who sends to it past the server is stopped by its router."""
    phone, other = house.phone(nat=house.nat()), house.phone(nat=house.nat())
    through = reaches(other, phone)
    server, other.server = other.server, phone.ear.outside
    past = reaches(other, phone)
    other.server = server
    return {"through": through, "past": past}


ROWS = (
    Row(
        1,
        "Phones that are symmetric work behind a NAT without anything being done for them there.",
        symmetric_phones,
        (10, 10),
    ),
    Row(
        2,
        "Symmetric: they receive on the port that they send from.",
        one_port_each_way,
        (True, True, (10, 10)),
    ),
    Row(
        3,
        "For example SIP on port 5060, sent and received.",
        on_port_5060,
        (True, True),
    ),
    Row(
        4,
        "That must be so for SIP and for RTP, else the router would need configuration.",
        sip_and_rtp_alike,
        {"splits RTP, hears": 0, "splits SIP, is called": False},
    ),
    Row(
        5,
        "The only way back to a phone behind a NAT is where its packets come from.",
        only_the_source_is_used,
        ((10, 10), True, 0),
    ),
    Row(
        6,
        "What a phone sends opens a channel both ways for a while; data at intervals keeps it open.",
        the_channel_stays_open,
        {"kept alive": True, "left alone, at once": True, "left alone": False},
    ),
    Row(
        7,
        "Through the channel, data to the mapped address, which is nobody else's, reaches the port it was opened from.",
        one_mapping_each,
        ([(True, False), (True, False)], True),
    ),
    Row(
        8,
        "Hence phones must be symmetric.",
        where_it_listens_or_where_it_sends,
        {"one port": 10, "rtp": 0},
    ),
    Row(
        9,
        "If they listen where they send from, what is sent back to the mapped address arrives.",
        what_is_sent_back_arrives,
        (True, "INVITE", 10, True),
    ),
    Row(
        10,
        "Some phones find out the NAT's address, or are told it, and write it into SIP and SDP.",
        phones_that_know_the_public_address,
        {"stun": ((10, 10), (10, 10)), "hand": ((10, 10), (10, 10))},
    ),
    Row(
        11,
        "They can be taken for phones with a public address.",
        they_look_public,
        {"stun": [-1, -1, -1], "hand": [-1, 1, -1], "private": [1, 1, 1]},
    ),
    Row(
        12,
        "To mediaproxy it makes no difference: it copes with both kinds.",
        either_way,
        [(10, 10)] * 4,
    ),
    Row(
        13,
        "Asymmetric phones behind a NAT can be served, too, but their router needs static forwarding.",
        split_behind_nat,
        {True: WORKS, False: FAILS},
    ),
    Row(
        14,
        "Asymmetric phones are recognised and sent to at the ports that they expect it at; but behind a NAT nothing"
        " gets back to a port that nothing was sent from, without static routes.",
        split_is_sent_to_where_it_listens,
        (WORKS, FAILS, (True, False)),
    ),
    Row(
        15,
        "Without that they would not work even on a public address.",
        split_without_support,
        ({ODD: 10, "Unknown phone": 0}, False),
    ),
    Row(
        16,
        "So an asymmetric phone can be used behind a NAT whose router forwards to it.",
        split_with_a_forward,
        ((10, 10), (10, 10)),
    ),
    Row(
        17,
        "All that a symmetric phone must accept is an outbound proxy, which has the module.",
        through_the_outbound_proxy,
        {"through": True, "past": False},
    ),
)
SECTION = Section("1.3 Types of SIP clients", 17, ROWS)
