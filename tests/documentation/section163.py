"""1.6.3 and 1.6.4: use_media_proxy and end_media_session."""

import re
import time

from mediaproxy.events import EndReason
from tests.documentation.call import PACKETS, Call, cancel
from tests.documentation.house import House
from tests.documentation.phone import PATIENCE, Got, Phone
from tests.documentation.routes import EVERYWHERE, in_each_route, journal
from tests.documentation.row import Row, Section
from tests.documentation.section15 import call_address
from tests.vsip import Text

OFFER = "\r\n".join(
    [
        "v=0",
        "o=- 1 1 IN IP4 192.168.1.10",
        "s=\xe4 \xfc",
        "c=IN IP4 192.168.1.10",
        "t=0 0",
        "m=audio 5004 RTP/AVP 0 8",
        "a=rtpmap:0 PCMU/8000",
        "a=rtcp:5099",
        "m=video 5006 RTP/AVP 96",
        "c=IN IP4 192.168.1.11",
        "a=x-unknown:5006 192.168.1.10",
        "m=audio 0 RTP/AVP 0",
        "",
    ]
)
"""An offer with a stream that has an address of its own, and one that is disabled."""
NO_ADDRESS = "v=0\r\no=- 1 1 IN IP4 192.168.1.10\r\ns=-\r\nc=IN IP4\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
NO_PORT = "v=0\r\no=- 1 1 IN IP4 192.168.1.10\r\ns=-\r\nc=IN IP4 192.168.1.10\r\nt=0 0\r\nm=audio\r\n"
RUN = ("X-Run", "use_media_proxy")


def asked(house: House, body: str, run: str = "use_media_proxy", kind: str = "") -> tuple[Text, Got]:
    """An INVITE with such a body and words to run, and what arrives; it is refused then. ``kind``: Content-Type."""
    caller, callee = house.phone(), house.phone()
    headers = [("X-Run", run), *([("Content-Type", kind)] if kind else [])]
    sent = caller.request("INVITE", callee.aor, body=body, headers=headers)
    invite = callee.receive("INVITE")
    callee.answer(invite, 486)
    caller.receive(486)
    return sent, invite


def said(house: House, sent: Text) -> list[str]:
    """What use_media_proxy returned in the request route: code and truth."""
    return [text for word, text in journal(house, sent, "request_route") if word == "use_media_proxy"]


def each_stream_gets_a_place(house: House) -> object:
    """The body with the relay's address and ports written as words: nothing else has changed."""
    _, invite = asked(house, OFFER)
    places = [stream.endpoint for stream in invite.streams]
    body = invite.body.replace(house.main.address, "RELAY")
    for name, place in zip(("FIRST", "SECOND"), places, strict=False):
        body = re.sub(rf"\b{place.port}\b", name, body)
        body = re.sub(rf"\b{place.port + 1}\b", f"{name}+1", body)
    return (
        body.split("\r\n"),
        len({place.port for place in places if place.port}),
        invite.get("Content-Length") == str(len(invite.body)),
    )


def media_goes_through_it(house: House) -> object:
    """Where packets come from, at both phones, and whether the relay has counted all of them."""
    call = Call(house.phone(), house.phone())
    talked = call.talk()
    sources = []
    for phone, other, place in (
        (call.caller, call.callee, call.relay(call.ok)),
        (call.callee, call.caller, call.relay(call.invite)),
    ):
        phone.speak(place, b"one more")
        sources.append(other.rtp.receive(PATIENCE)[1][0])
    call.hang_up()
    (record,) = house.main.records(call.call_id)
    (stream,) = record.streams
    counted = stream.caller.packets, stream.callee.packets
    return talked, sources == [house.main.address] * 2, counted == (call.caller.sequence, call.callee.sequence)


def with_it_or_without(house: House) -> object:
    """Whether the SDP leads to the relay, whether the call is known there, and what the phones hear by way of it."""
    found = {}
    for run in ("use_media_proxy", "force_rport"):
        caller, callee = house.phone(), house.phone()
        headers = [("X-Run", run)]
        call = Call(
            caller, callee, headers=headers, answer_headers=[("X-Run", "isflagset=1" if run != RUN[1] else run)]
        )
        relayed = [call_address(message.body) == house.main.address for message in (call.invite, call.ok)]
        found[run] = relayed, call.call_id in house.main.calls()
        call.hang_up()
    return found


def all_its_codes(house: House) -> object:
    """Of everything that can happen: the codes, and those that are true."""
    bodies = {
        "offer": OFFER,
        "nothing": "",
        "no address": NO_ADDRESS,
        "no port": NO_PORT,
        "no streams": OFFER.partition("m=")[0],
        "no SDP": "hello",
        "too many streams": OFFER + "m=audio 5008 RTP/AVP 0\r\n" * 300,
    }
    lines = [line for body in bodies.values() for line in said(house, asked(house, body)[0])]
    assert len(lines) == len(bodies)
    return {code: truth for code, truth in (line.split() for line in lines)}


def success(house: House) -> object:
    """Offer and answer: the code in the route of each, and whether it was changed."""
    call = Call(house.phone(), house.phone(), headers=[RUN], answer_headers=[RUN])
    changed = [call_address(message.body) == house.main.address for message in (call.invite, call.ok)]
    codes = [journal(house, call.sent, route) for route in ("request_route", "onreply_route")]
    call.hang_up()
    return codes, changed


def error(house: House) -> object:
    """What cannot be read, and what the relay refuses: the code, and whether the message went on as it was."""
    found = {}
    for name, body, kind in (
        ("no address", NO_ADDRESS, ""),
        ("no port", NO_PORT, ""),
        ("too many streams", OFFER + "m=audio 5008 RTP/AVP 0\r\n" * 300, ""),
        ("another type", OFFER, "text/plain"),
    ):
        sent, invite = asked(house, body, kind=kind)
        found[name] = said(house, sent), invite.body == body
    return found


def nothing_to_do(house: House) -> object:
    """An INVITE without a body, and a reply without."""
    caller, callee = house.phone(), house.phone()
    sent = caller.request("INVITE", callee.aor, headers=[RUN])
    invite = callee.receive("INVITE")
    callee.answer(invite, 180, headers=[RUN])
    caller.receive(180)
    callee.answer(invite, 486)
    caller.receive(486)
    return [journal(house, sent, route) for route in ("request_route", "onreply_route")]


def media_in_each_route(house: House) -> object:
    return in_each_route(house, "use_media_proxy")


def example_7(house: House) -> object:
    """The routing is the page's: offer and answer lead to the relay."""
    at = house.examples
    call = Call(house.phone(at=at), house.phone(at=at))
    found = [call_address(message.body) == at.address for message in (call.invite, call.ok)]
    call.hang_up()
    return found


# -- end_media_session


def talks(call: Call, phone: Phone, other: Phone, message: Got) -> int:
    """How many of three packets of a phone the other one hears."""
    other.rtp.drain()
    for _ in range(3):
        phone.speak(call.relay(message), b"more")
    return other.hears(b"more", 3)


def it_ends_the_session(house: House) -> object:
    """Called for a BYE: its code; whether the relay has the call before and after; what of three packets comes through
    before and after; the record."""
    call = Call(house.phone(agent="A"), house.phone(agent="B"))
    call.talk()
    before = call.call_id in house.main.calls(), talks(call, call.caller, call.callee, call.ok)
    said = call.caller.sequence, call.callee.sequence
    call.hang_up(run="end_media_session")
    (record,) = house.main.records(call.call_id)
    after = call.call_id in house.main.calls(), talks(call, call.caller, call.callee, call.ok)
    codes = [said for word, said in journal(house, call.sent, "request_route") if word == "end_media_session"]
    (stream,) = record.streams
    log = (
        (record.caller.uri, record.callee.uri) == (call.caller.aor, call.callee.aor),
        (record.caller.user_agent, record.callee.user_agent),
        ((stream.caller.packets, stream.callee.packets) == said, stream.caller.codec),
        record.answered is not None and 0 < record.duration < 60,
    )
    return codes, before, after, log


def bye_or_cancel(house: House) -> object:
    """In the shipped routing: how the record says that a call ended, by a BYE of either side, by CANCEL."""
    found = []
    for who in ("caller", "callee"):
        call = Call(house.phone(), house.phone())
        call.hang_up(by=getattr(call, who))
        found.append([record.reason for record in house.main.records(call.call_id)])
    caller, callee = house.phone(), house.phone()
    sent = caller.request("INVITE", callee.aor, body=caller.sdp())
    invite = callee.receive("INVITE")
    callee.answer(invite, 180)
    caller.receive(180)
    began = time.monotonic()
    cancel(caller, sent)
    callee.answer(callee.receive("CANCEL"), 200)
    callee.answer(invite, 487)
    caller.receive(487)
    found.append([record.reason for record in house.main.records(sent.get("Call-ID"))])
    return found, time.monotonic() - began < 20


def end_in_each_route(house: House) -> object:
    return in_each_route(house, "end_media_session")


def example_8(house: House) -> object:
    """The routing is the page's: a BYE ends the session and writes the record."""
    at = house.examples
    call = Call(house.phone(at=at), house.phone(at=at))
    before = call.call_id in at.calls()
    call.hang_up()
    reasons = [record.reason for record in at.records(call.call_id)]
    return before, call.call_id in at.calls(), reasons


REWRITTEN = (
    OFFER.replace("c=IN IP4 192.168.1.10", "c=IN IP4 RELAY")
    .replace("c=IN IP4 192.168.1.11", "c=IN IP4 RELAY")
    .replace("audio 5004", "audio FIRST")
    .replace("rtcp:5099", "rtcp:FIRST+1")
    .replace("video 5006", "video SECOND")
)
USE_MEDIA_PROXY = (
    Row(
        1,
        "It asks the proxy server, and puts the addresses and ports that this returns into the SDP, for each stream.",
        each_stream_gets_a_place,
        (REWRITTEN.split("\r\n"), 2, True),
    ),
    Row(
        2,
        "That forces the media through the proxy server.",
        media_goes_through_it,
        ((PACKETS, PACKETS), True, True),
    ),
    Row(
        3,
        "It is called to have a session go through a proxy server.",
        with_it_or_without,
        {"use_media_proxy": ([True, True], True), "force_rport": ([False, False], False)},
    ),
    Row(
        4,
        "It has three return codes.",
        all_its_codes,
        {"1": "True", "-1": "False", "-2": "False"},
    ),
    Row(
        5,
        "+1, true: the message has been changed.",
        success,
        ([[("use_media_proxy", "1 True")]] * 2, [True, True]),
    ),
    Row(
        6,
        "-1, false: an error.",
        error,
        {name: (["-1 False"], True) for name in ("no address", "no port", "too many streams", "another type")},
    ),
    Row(
        7,
        "-2, false: there is no SDP, and nothing to do.",
        nothing_to_do,
        [[("use_media_proxy", "-2 False")]] * 2,
    ),
    Row(
        8,
        "It can be used in request, onreply, failure and branch routes.",
        media_in_each_route,
        EVERYWHERE,
    ),
    Row(
        9,
        "Example 1-7: if (method==INVITE) { use_media_proxy(); }.",
        example_7,
        [True, True],
    ),
)
LOG = (True, ("A", "B"), (True, "PCMU"), True)
END_MEDIA_SESSION = (
    Row(
        1,
        "It has the proxy server end a call's media session at the end of the call, free what it took, and log it.",
        it_ends_the_session,
        (["1 True"], (True, 3), (False, 0), LOG),
    ),
    Row(
        2,
        "It is called when a session ends: when BYE or CANCEL has come.",
        bye_or_cancel,
        ([[EndReason.BYE], [EndReason.BYE], [EndReason.CANCEL]], True),
    ),
    Row(
        3,
        "It can be used in request, onreply, failure and branch routes.",
        end_in_each_route,
        EVERYWHERE,
    ),
    Row(
        4,
        "Example 1-8: if (method==BYE) { end_media_session(); }.",
        example_8,
        (True, False, [EndReason.BYE]),
    ),
)
SECTIONS = (
    Section("1.6.3 use_media_proxy()", 9, USE_MEDIA_PROXY),
    Section("1.6.4 end_media_session()", 4, END_MEDIA_SESSION),
)
