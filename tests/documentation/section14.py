"""1.4: the features."""

from collections import Counter

from tests.documentation.call import Call, talk
from tests.documentation.house import ODD, House
from tests.documentation.phone import Phone
from tests.documentation.row import Row, Section
from tests.documentation.section13 import heard


def a_whole_call_behind_nats(house: House) -> object:
    """Neither phone sees a private address of the other one, in any message; the callee hangs up."""
    caller, callee = house.phone(nat=house.nat()), house.phone(nat=house.nat())
    call = Call(caller, callee)
    heard_by = call.talk()
    call.hang_up(by=callee)
    told = call.invite.contact + call.ok.contact + call.invite.body + call.ok.body
    shown = [line for line in told.splitlines() if "192.168" in line and not line.startswith("o=")]
    return heard_by, shown


def all_streams(house: House) -> object:
    caller, callee = house.phone(nat=house.nat()), house.phone()
    lines = [house.line() for _ in range(2)]
    more = [
        (
            f"m=audio {line.outside[1]} RTP/AVP 0",
            "m=video 4444 RTP/AVP 96",
            "m=image 4446 udptl t38",
            "m=audio 0 RTP/AVP 8",
        )
        for line in lines
    ]
    call = Call(caller, callee, offer=caller.sdp(*more[0]), answer=callee.sdp(*more[1]))
    seen = [
        [(one.kind, one.endpoint.address == house.main.address, one.endpoint.port > 0) for one in message.streams]
        for message in (call.invite, call.ok)
    ]
    ports = [one.endpoint.port for message in (call.invite, call.ok) for one in message.streams if one.endpoint.port]
    first, second = call.talk(), _second(call, caller, callee)
    call.hang_up()
    return seen[0] == seen[1], seen[0], len(set(ports)), first, second


def _second(call: Call, caller: Phone, callee: Phone) -> object:
    """They talk on the second stream, from the ports of the first: only the relay's port tells streams apart."""
    return talk((caller, call.relay(call.ok, 1)), (callee, call.relay(call.invite, 1)))


def no_limit_of_64(house: House) -> object:
    caller, callee = house.phone(), house.phone()
    more = [f"m=audio {4000 + 2 * at} RTP/AVP 0" for at in range(98)]

    def sdp(phone: Phone) -> str:
        return phone.sdp(*more, f"m=audio {phone.media[1]} RTP/AVP 0")

    call = Call(caller, callee, offer=sdp(caller), answer=sdp(callee))
    found = [
        len({one.endpoint for one in message.streams if one.endpoint.address == house.main.address})
        for message in (call.invite, call.ok)
    ]
    last = talk((caller, call.relay(call.ok, 99)), (callee, call.relay(call.invite, 99)))
    call.hang_up()
    return found, last


def relay_of(house: House, caller: Phone, callee: Phone) -> str:
    """The relay that a new call gets; it is refused then."""
    caller.request("INVITE", callee.aor, body=caller.sdp())
    invite = callee.receive("INVITE")
    callee.answer(invite, 486)
    caller.receive(486)
    return house.estate.name_of(invite.streams[0].endpoint.address)


def shares(house: House, calls: int, caller: Phone, callee: Phone) -> Counter[str]:
    """How many of some new calls each relay gets."""
    return Counter(relay_of(house, caller, callee) for _ in range(calls))


def several_relays(house: House) -> object:
    house.wait_relays()
    caller, callee = house.phone(at=house.plain), house.phone(at=house.plain)
    return set(shares(house, 60, caller, callee))


def by_domain(house: House) -> object:
    house.wait_relays()
    gold, other = house.phone(at=house.plain, domain="gold.test"), house.phone(at=house.plain)
    third = house.phone(at=house.plain)
    return {
        "caller's": set(shares(house, 3, gold, other)),
        "callee's": set(shares(house, 3, other, gold)),
        "another": "gold" in shares(house, 6, other, third),
    }


def asymmetric_phones(house: House) -> object:
    """On a public address: each kind of asymmetry, as callee and as caller."""
    other = house.phone()
    phones = [house.phone(splits=splits, agent=ODD) for splits in ("sip", "rtp", "sip rtp")]
    return [(heard(other, phone), heard(phone, other)) for phone in phones]


def asymmetric_phones_behind_nat(house: House) -> object:
    other = house.phone(nat=house.nat())
    phones = [house.phone(nat=house.nat(), forward=True, splits=splits, agent=ODD) for splits in ("sip", "rtp")]
    return [(heard(other, phone), heard(phone, other)) for phone in phones]


BOTH = ((10, 10), (10, 10))
ROWS = (
    Row(
        1,
        "Symmetric phones work behind a NAT, transparently, with the server as their outbound server.",
        a_whole_call_behind_nats,
        ((10, 10), []),
    ),
    Row(
        2,
        "All media streams of an SDP are handled.",
        all_streams,
        (
            True,
            [("audio", True, True), ("audio", True, True), ("video", True, True), ("image", True, True)]
            + [("audio", True, False)],
            8,
            (10, 10),
            (10, 10),
        ),
    ),
    Row(
        3,
        "The original could do 64 streams a session, hardly a limit to anybody. Ours has no such limit: here are 100.",
        no_limit_of_64,
        ([100, 100], (10, 10)),
    ),
    Row(
        4,
        "The load of RTP can be spread over several proxy servers on several hosts.",
        several_relays,
        {"one", "two"},
        tries=3,
    ),
    Row(
        5,
        "The SIP domain of the caller or of the destination can decide which proxy server is used.",
        by_domain,
        {"caller's": {"gold"}, "callee's": {"gold"}, "another": False},
        tries=3,
    ),
    Row(
        6,
        "Asymmetric phones are handled properly.",
        asymmetric_phones,
        [BOTH] * 3,
    ),
    Row(
        7,
        "They can work behind a NAT that forwards their ports.",
        asymmetric_phones_behind_nat,
        [BOTH] * 2,
    ),
)
SECTION = Section("1.4 Features", 7, ROWS)
