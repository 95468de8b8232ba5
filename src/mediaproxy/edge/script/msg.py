"""What a route sees of its message: read-only, and with what the functions have done to it so far."""

from mediaproxy.edge.script.stage import Stage
from mediaproxy.sip.message import Message, Request, Response
from mediaproxy.traversal import sdp_part


class Msg:
    """The message. Text is as it came, one character per byte (Latin-1)."""

    __slots__ = ("_stage",)

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    @property
    def _message(self) -> Message:
        return self._stage.run.message

    @property
    def method(self) -> str:
        """Of a request its own, of a reply that of its request: ``INVITE``."""
        message = self._message
        return message.method if isinstance(message, Request) else message.cseq.method

    @property
    def status(self) -> int:
        """Of a reply its own; in failure_route that of the reply with which the request failed; else 0."""
        message = self._message
        return message.status if isinstance(message, Response) else self._stage.run.status

    @property
    def reason(self) -> str:
        """The reason phrase of a reply; "" of a request."""
        message = self._message
        return message.reason if isinstance(message, Response) else ""

    @property
    def ruri(self) -> str:
        """The Request-URI as it is now; in branch_route that of the branch; "" of a reply."""
        message = self._message
        return message.uri_text if isinstance(message, Request) else ""

    @property
    def ruri_user(self) -> str:
        """The user part of the Request-URI; "" if it has none."""
        message = self._message
        return (message.uri.user or "") if isinstance(message, Request) else ""

    @property
    def ruri_host(self) -> str:
        """The host of the Request-URI; "" of a reply."""
        message = self._message
        return message.uri.host if isinstance(message, Request) else ""

    @property
    def from_uri(self) -> str:
        """The URI in From."""
        return self._message.from_.uri.text

    @property
    def from_tag(self) -> str:
        """The tag in From; "" if there is none."""
        return self._message.from_.tag or ""

    @property
    def to_uri(self) -> str:
        """The URI in To."""
        return self._message.to.uri.text

    @property
    def to_tag(self) -> str:
        """The tag in To; "" of a request means that it begins something and is not within a dialog."""
        return self._message.to.tag or ""

    @property
    def call_id(self) -> str:
        """The Call-ID."""
        return self._message.call_id

    @property
    def cseq(self) -> int:
        """The number in CSeq."""
        return self._message.cseq.number

    @property
    def user_agent(self) -> str:
        """User-Agent, else Server, else ""."""
        return self._message.user_agent

    @property
    def src_ip(self) -> str:
        """The address that the message came from."""
        return self._stage.inbound.source.address

    @property
    def src_port(self) -> int:
        """The port that it came from."""
        return self._stage.inbound.source.port

    @property
    def proto(self) -> str:
        """How it came: ``udp``, ``tcp`` or ``tls``."""
        return self._stage.inbound.transport.value

    @property
    def direct(self) -> bool:
        """Whether it came straight from a phone, as far as one can see: not from a trusted proxy, and a request has
        only one Via. What another server sent says nothing of a phone's NAT."""
        return self._stage.direct

    @property
    def has_body(self) -> bool:
        """Whether it has a body."""
        return bool(self._message.body)

    @property
    def has_sdp(self) -> bool:
        """Whether its body is an SDP, or has one among its parts."""
        return sdp_part(self._message) is not None

    def header(self, name: str) -> str:
        """The value of the first header of that name, in any case of letters; "" if there is none."""
        return self._message.header(name) or ""

    def headers(self, name: str) -> tuple[str, ...]:
        """The values of all headers of that name."""
        return self._message.headers(name)

    def __repr__(self) -> str:
        return f"<{self.status or ''} {self.method} of call {self.call_id}>".replace("< ", "<")
