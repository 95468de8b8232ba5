"""SIP and SDP: what can be read is read without loss, and what cannot raises the parser's own error."""

from collections.abc import Callable

from fuzz.house import House
from mediaproxy.control import EndRequest, MediaPort
from mediaproxy.endpoint import Endpoint
from mediaproxy.nat import Arrival, client_nat_test, fix_contact
from mediaproxy.policy import Policy
from mediaproxy.sdp import IcePolicy, Sdp, SdpError, find_sdp
from mediaproxy.sip.framing import Frame, Framer, Pong
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Message, Request, Response, parse
from mediaproxy.traversal import plan

_ARRIVAL = Arrival(Endpoint("198.51.100.7", 34567), "udp", Endpoint("192.0.2.1", 5060))
_POLICY = Policy(trusted_proxies=("203.0.113.0/24",), local_domains=frozenset(("example.com",)))
_READERS: tuple[Callable[[Message], object], ...] = (
    lambda m: m.cseq,
    lambda m: (m.from_.tag, m.from_.display, m.from_.uri.aor, m.from_.uri.endpoint, m.from_.uri.params),
    lambda m: (m.to.tag, m.to.params, m.to.uri.rest, m.to.uri.headers),
    lambda m: (m.via.branch, m.via.rport, m.via.received, m.via.sent_by, m.via.response_endpoint()),
    lambda m: m.vias,
    lambda m: [(c.uri.aor, c.uri.endpoint, c.params, c.star, c.display) for c in m.contacts],
    lambda m: (m.routes, m.record_routes),
    lambda m: (m.call_id, m.content_type, m.content_length, m.max_forwards, m.expires, m.user_agent),
    lambda m: (m.body, m.octets, m.start_line, repr(m), hash(m)),
    lambda m: m.uri.aor if isinstance(m, Request) else None,
    lambda m: (m.status, m.reason) if isinstance(m, Response) else None,
    lambda m: [(m.values(name), m.headers(name), m.count(name)) for name in m.names],
)


def sip(data: bytes) -> None:
    """A message, or a stream of them."""
    _framed(data)
    try:
        message = parse(data)
    except SipError:
        return
    assert bytes(message) == data, "bytes were lost"
    for read in _READERS:
        try:
            read(message)
        except SipError:
            continue
    _traversed(message)


def _framed(data: bytes) -> None:
    """The same frames, however a stream is cut, but for pongs (Framer), and the same end if it is beyond repair."""
    assert _frames(data, len(data) or 1) == _frames(data, 7)


def _frames(data: bytes, step: int) -> tuple[list[Frame], bool]:
    framer, frames = Framer(4096), list[Frame]()
    try:
        for at in range(0, len(data), step):
            frames += framer.feed(data[at : at + step])
    except SipError:
        assert framer.broken is not None
    return [frame for frame in frames if not isinstance(frame, Pong)], framer.broken is not None


def _traversed(message: Message) -> None:
    """The NAT tests and their repairs, then media: no bytes raise."""
    client_nat_test(message, _ARRIVAL, 7)
    fixed = fix_contact(message, _ARRIVAL) or message
    planned = plan(message, _ARRIVAL, _POLICY)
    house = House()
    reply = house.told(planned.request) if planned.request is not None else None
    sent = planned.complete(reply, fixed)
    assert bytes(parse(bytes(sent))) == bytes(sent), "what we send cannot be read"
    if not isinstance(planned.request, EndRequest):
        house.settle()


def sdp(data: bytes) -> None:
    """A body of SDP; after a byte 0 and a line, a body of the type that the line says."""
    if data[:1] == b"\0":
        kind, _, body = data[1:].partition(b"\n")
        part = find_sdp(body, kind.decode("latin-1"))
        if part is None:
            return
        assert part.with_sdp(part.sdp, part.alternatives) == body or part.sdp
        data = part.sdp
    try:
        parsed = Sdp.parse(data)
    except SdpError:
        return
    assert bytes(parsed) == data, "bytes were lost"
    streams = parsed.streams
    ports = [_port(index) if stream.endpoint is not None else None for index, stream in enumerate(streams)]
    for ice in IcePolicy:
        written = parsed.with_ports(ports, ice=ice)
        again = Sdp.parse(bytes(written)).streams
        assert len(again) == len(streams), "streams were lost"
        for port, stream, before in zip(ports, again, streams, strict=True):
            if port is not None and stream.endpoint is not None and before.endpoint is not None:
                assert stream.endpoint.port == port.rtp.port, "the phone is told another port than the relay's"


def _port(index: int) -> MediaPort:
    return MediaPort(rtp=Endpoint("192.0.2.1", 20000 + 2 * index), rtcp=Endpoint("192.0.2.1", 20001 + 2 * index))
