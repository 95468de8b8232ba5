"""Messages from end to end: what the module's functions may change of one, found by another way than they find it.

``sent`` applies fix_contact and use_media_proxy as a host does; ``check_untouched`` compares the bytes before and
after.
"""

import re
from collections.abc import Callable, Iterable

from mediaproxy.control import MediaReply, MediaRequest, Question
from mediaproxy.endpoint import Endpoint
from mediaproxy.module import RouteType, Run, drive
from mediaproxy.nat import Arrival
from mediaproxy.policy import Policy
from mediaproxy.sdp import IcePolicy
from mediaproxy.sip.message import Message
from tests.sip_corpus import field_lines

ARRIVAL = Arrival(Endpoint("198.51.100.7", 34567), "udp", Endpoint("203.0.113.1", 5060))
Answer = Callable[[MediaRequest], MediaReply | None]

_CONTACT = re.compile(rb"(?i)(sips?:(?:[^@\s<>,\"]*@)?)(?:\[[^\]]*\]|[^:;>?,\s\"]+)(?::[0-9]+)?")
_M_PORT = re.compile(rb"\A(m=[ \t]*\S+[ \t]+)[0-9]+(?:/[0-9]+)?")
_PLACES = re.compile(rb"c=|a=[ \t]*rtcp[ \t]*:")
_ICE = re.compile(rb"a=[ \t]*(?:ice-|candidate|remote-candidates|end-of-candidates)")
_OURS = re.compile(rb"a=candidate:R\S+ [12] UDP (?:2197815295|2197815294|16777215|16777214) \S+ \d+ typ relay raddr ")
_LENGTH = re.compile(rb"(?i)(?:content-length|l)[ \t]*:")


def sent(message: Message, answer: Answer, policy: Policy | None = None) -> tuple[Message, int, int]:
    """The message with both functions applied, and their codes."""

    def ask(question: Question) -> MediaReply | None:
        return answer(question) if isinstance(question, MediaRequest) else MediaReply()

    route = RouteType.REQUEST if message.is_request else RouteType.ONREPLY
    run = Run(message, ARRIVAL, policy or Policy(), route)
    fixed = run.fix_contact()
    done = drive(run.use_media_proxy(), ask)
    assert drive(run.use_media_proxy(), ask) == done, "twice is safe"
    return run.message, fixed, done


def check_untouched(before: bytes, after: bytes, ice: IcePolicy = IcePolicy.KEEP, *, contacts: bool = True) -> None:
    """Nothing is lost and nothing altered but host and port of Contacts, the places of media and lengths.

    ``contacts``: Contact URIs are well formed, so that what is around their host and port can be told.
    """
    assert _first_line(before) == _first_line(after)
    one, other = field_lines(before), field_lines(after)
    assert [_field(line, contacts) for line in one if not _LENGTH.match(line)] == [
        _field(line, contacts) for line in other if not _LENGTH.match(line)
    ]
    assert sum(map(bool, map(_LENGTH.match, other))) <= sum(map(bool, map(_LENGTH.match, one)))
    kept, now = _body_lines(before, ice), _body_lines(after, ice)
    # What stood behind the body may be gone; else every line is there, in its order.
    assert now == kept[: len(now)]


def _first_line(data: bytes) -> bytes:
    return data.lstrip(b"\r\n").partition(b"\n")[0]


def _field(line: bytes, contacts: bool) -> bytes:
    name, _, _ = line.partition(b":")
    if name.strip().lower() not in (b"contact", b"m"):
        return line
    return _CONTACT.sub(rb"\1H", line) if contacts else name


def _body_lines(data: bytes, ice: IcePolicy) -> list[bytes]:
    """The lines of a body, with what may change in them made equal."""
    data = data.lstrip(b"\r\n")
    ends = [found.end() for found in (re.search(rb"\n\r?\n", data),) if found]
    return list(_settled(data[ends[0] :].splitlines() if ends else [], ice))


def _settled(lines: Iterable[bytes], ice: IcePolicy) -> Iterable[bytes]:
    for line in lines:
        if _PLACES.match(line) or _LENGTH.match(line) or _OURS.match(line):
            continue
        if ice is IcePolicy.REMOVE and _ICE.match(line):
            continue
        yield _M_PORT.sub(rb"\1P", line)
