"""Messages as a routing script has them in hand, and a media arm that answers."""

from mediaproxy.agents import AgentList
from mediaproxy.control import MediaPort, MediaReply, MediaRequest, Question
from mediaproxy.endpoint import Endpoint
from mediaproxy.module import Result, RouteType, Run, drive
from mediaproxy.nat import Arrival
from mediaproxy.policy import Policy
from mediaproxy.sip.message import Message, parse
from mediaproxy.traversal import Facts

SOURCE = "198.51.100.7:34567"
SIPTONE = AgentList.parse("ipDialog SipTone.*")
POLICY = Policy(sip_asymmetric=SIPTONE, rtp_asymmetric=SIPTONE)
SDP = (
    "v=0\r\no=- 1 1 IN IP4 192.168.1.10\r\ns=-\r\nc=IN IP4 192.168.1.10\r\nt=0 0\r\n"
    "m=audio 5004 RTP/AVP 0\r\nm=video 5006 RTP/AVP 31\r\n"
)
NO_STREAMS = SDP[: SDP.index("m=")]
RELAYED = SDP.replace("c=IN IP4 192.168.1.10", "c=IN IP4 203.0.113.5").replace("5004", "60000").replace("5006", "60002")


def message(
    start: str = "INVITE", *headers: str, body: str = "", content_type: str | None = "application/sdp"
) -> Message:
    """``start``: a method, or a status and the method it answers: ``200 INVITE``."""
    status, _, method = start.rpartition(" ")
    first = f"SIP/2.0 {status} Reason" if status else f"{method} sip:bob@example.com SIP/2.0"
    usual = {
        "Via": "SIP/2.0/UDP 192.168.1.10:5060;branch=z9hG4bKtop",
        "From": "<sip:alice@example.com>;tag=a",
        "To": "<sip:bob@example.com>" + (";tag=b" if status else ""),
        "Call-ID": "c1",
        "CSeq": f"7 {method}",
    }
    given_names = {header.partition(":")[0] for header in headers}
    lines = [first, *(f"{name}: {value}" for name, value in usual.items() if name not in given_names)]
    lines += [header for header in headers if not header.endswith(":")]
    if body and content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    return parse("\r\n".join([*lines, "", body]).encode("latin-1"))


def run(
    asked: Message,
    route: RouteType | None = None,
    facts: Facts | None = None,
    source: str = SOURCE,
    transport: str = "udp",
) -> Run:
    if route is None:
        route = RouteType.REQUEST if asked.is_request else RouteType.ONREPLY
    came = Arrival(Endpoint.parse(source), transport, Endpoint("203.0.113.1", 5060))
    return Run(asked, came, POLICY, route, facts)


class MediaArm:
    """Answers questions and remembers them."""

    def __init__(self, reply: MediaReply | None = None, *, dead: bool = False) -> None:
        self.asked: list[Question] = []
        self._reply = reply
        self._dead = dead

    def answer(self, question: Question) -> MediaReply | None:
        self.asked.append(question)
        if self._dead or self._reply is not None:
            return self._reply
        if not isinstance(question, MediaRequest):
            return MediaReply()
        ports = [
            MediaPort(rtp=Endpoint("203.0.113.5", 60000 + 2 * at), rtcp=Endpoint("203.0.113.5", 60001 + 2 * at))
            if stream.endpoint is not None
            else None
            for at, stream in enumerate(question.streams)
        ]
        return MediaReply(ports=tuple(ports))

    @property
    def only(self) -> Question:
        (question,) = self.asked
        return question


def use(one: Run, arm: MediaArm | None = None) -> Result:
    return drive(one.use_media_proxy(), (arm or MediaArm()).answer)


def end(one: Run, arm: MediaArm | None = None) -> Result:
    return drive(one.end_media_session(), (arm or MediaArm()).answer)
