"""Toy phones for the toy Internet: a SIP user agent that writes and reads real SIP text.

Everything goes by the server it registers at (an outbound proxy). Requests are retransmitted until answered and a 2xx
until its ACK (RFC 3261 §17, §13.3.1.4), so that lossy links are no special case.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from mediaproxy.endpoint import Endpoint
from tests.vmedia import Voice
from tests.vnet import Datagram, Host, Internet, Timer
from tests.vsip import Offer, Text, parameter, read_sdp, write_sdp

DOMAIN = "example.net"
T1 = 0.5
REVERSED = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}


@dataclass(kw_only=True)
class Call:
    """One dialog at one phone: its tags, its SDP and its voices."""

    phone: "Phone"
    call_id: str
    tag: str
    user: str
    "The other user."
    caller: bool
    voices: list[Voice]
    remote_tag: str = ""
    target: str = ""
    "Request-URI for the other side: its Contact."
    cseq: int = 1
    state: str = "calling"
    "calling, ringing, up, over"
    status: int = 0
    "Of the last response to INVITE."
    offer: Offer = field(default_factory=Offer)
    late_offer: bool = False
    cancelled: bool = False
    invite: Text | None = None
    "The INVITE being answered, or sent."
    answer: Timer | None = None
    "Retransmission of our 2xx."

    @property
    def voice(self) -> Voice:
        """Its audio."""
        return self.voices[0]

    def sdp(self) -> str:
        """Its SDP as it is now."""
        return write_sdp(self.phone.name, self.phone.host.address(self.phone.version), self.offer, self.voices)

    def aim(self, body: str) -> None:
        """Media as the other side's SDP wants it."""
        for voice, section in zip(self.voices, read_sdp(body), strict=False):
            dead = section.endpoint.port == 0 or voice.kind in self.offer.dropped
            mute = section.endpoint.address in ("0.0.0.0", "::")
            speak = section.direction in ("sendrecv", "recvonly") and self.offer.direction in ("sendrecv", "sendonly")
            there = None if dead or mute else section.endpoint
            voice.aim(there, section.rtcp if there else None, speak)

    def hang_up(self) -> None:
        """BYE, and silence."""
        self.over()
        self.phone.request(self, "BYE")

    def cancel(self) -> None:
        """CANCEL of the INVITE that is not answered yet."""
        self.cancelled = True
        self.phone.cancel(self)

    def reinvite(self, direction: str | None = None, *, zero: bool = False, method: str = "INVITE") -> None:
        """A new offer. Without a change of anything it is a session timer's."""
        new = direction or self.offer.direction
        if (new, zero) != (self.offer.direction, self.offer.zero):
            self.change()
        self.offer.direction, self.offer.zero = new, zero
        self.phone.offer(self, method)

    def change(self) -> None:
        """The next SDP is a new version."""
        self.offer.version += 1

    def add(self, kind: str) -> Voice:
        """Another m-line from the next offer on."""
        voice = self.phone.voice(kind)
        self.voices.append(voice)
        self.change()
        return voice

    def drop(self, kind: str) -> None:
        """That m-line has port 0 from the next offer on."""
        self.offer.dropped.add(kind)
        self.change()

    def over(self) -> None:
        """The end, as this phone sees it."""
        self.state = "over"
        if self.answer:
            self.answer.cancel()
        for voice in self.voices:
            voice.close()


class Phone:
    """A SIP phone: registers, calls, rings, answers, holds and hangs up."""

    def __init__(
        self, net: Internet, name: str, server: Endpoint, *, sip_port: int = 5060, media_port: int = 4000
    ) -> None:
        self.net, self.name, self.server, self.sip_port = net, name, server, sip_port
        self.version = server.version
        self.host = Host(net)
        self.host.bind(sip_port, self._receive)
        self.calls: list[Call] = []
        "All it ever had, newest last."
        self.answer_after: float | None = 1.0
        "Seconds of ringing; None: rings for ever."
        self.answer_status = 200
        self.early: bool = False
        "183 with SDP and early media instead of 180."
        self.deaf_to: set[str] = set()
        "Methods it never gets to see: a phone that misses its BYE."
        self.reinvite_status = 200
        "How it answers a new offer within a call."
        self.takes_crossed = False
        "It keeps a call whose 2xx crossed its CANCEL; others hang up at once (RFC 3261 §15)."
        self.sent: list[bytes] = []
        "All the SIP it ever sent."
        self.tone = name
        self.direction = "sendrecv"
        "Of the first SDP of its calls, if the other side's allows it."
        self.kinds = ["audio"]
        "The m-lines it offers."
        self.voice_options: dict[str, object] = {}
        self.stun: Callable[[Voice], Endpoint] | None = None
        "Asked for the public side of each new voice's port."
        self._media_port = media_port
        self._number = 0
        self._pending: dict[tuple[str, str], tuple[Timer, Callable[[Text], None], bytes]] = {}
        self._answers: dict[tuple[str, str, str], bytes] = {}
        net.every(20.0, lambda: self.host.send(sip_port, self.server, b"\r\n\r\n"))

    # what a person does

    def register(self) -> None:
        """REGISTER, once: keep-alives hold the NAT open."""
        call = self._new_call(self.name, caller=True, voices=[])
        self._transact(call, self._text(call, "REGISTER", f"sip:{DOMAIN}"), lambda response: None)

    def call(self, user: str, *, late_offer: bool = False) -> Call:
        """INVITE a user."""
        call = self._new_call(user, caller=True, voices=[self.voice(kind) for kind in self.kinds])
        call.late_offer, call.offer.direction = late_offer, self.direction
        self.calls.append(call)
        call.target = f"sip:{user}@{DOMAIN}"
        self.offer(call, "INVITE")
        return call

    def voice(self, kind: str = "audio") -> Voice:
        """A new stream on ports of its own."""
        port, self._media_port = self._media_port, self._media_port + 2
        voice = Voice(host=self.host, tone=self.tone, port=port, kind=kind, **self.voice_options)  # type: ignore[arg-type]
        voice.public = self.stun(voice) if self.stun else None
        return voice

    @property
    def last(self) -> Call:
        """Its newest call."""
        return self.calls[-1]

    # requests

    def offer(self, call: Call, method: str) -> None:
        """INVITE or UPDATE with the SDP as it is now (without for a late offer)."""
        call.cseq += 1
        body = "" if call.late_offer and method == "INVITE" and call.state == "calling" else call.sdp()
        text = self._text(call, method, call.target, body)
        if method == "INVITE":
            call.invite = Text.read(text)
        self._transact(call, text, lambda response: self._answered(call, response))

    def request(self, call: Call, method: str) -> None:
        """A request without a body inside the dialog."""
        call.cseq += 1
        self._transact(call, self._text(call, method, call.target), lambda response: None)

    def ring_again(self, call: Call) -> None:
        """Repeat the provisional response."""
        assert call.invite is not None
        self._send(self._answers[call.invite.get("Call-ID"), call.invite.get("CSeq"), call.invite.branch])

    def cancel(self, call: Call) -> None:
        """CANCEL with the INVITE's Via, CSeq number and Request-URI (RFC 3261 §9.1)."""
        assert call.invite is not None
        number = int(call.invite.get("CSeq").split()[0])
        uri = call.invite.start.split()[1]
        text = self._text(call, "CANCEL", uri, branch=call.invite.branch, cseq=number, to=call.invite.get("To"))
        self._transact(call, text, lambda response: None)

    def _ack(self, call: Call, response: Text) -> None:
        number = int(response.get("CSeq").split()[0])
        body = ""
        if call.late_offer and call.state == "up" and response.body:
            body, call.late_offer = call.sdp(), False
        self._send(self._text(call, "ACK", call.target, body, cseq=number, to=response.get("To")))

    def _answered(self, call: Call, response: Text) -> None:
        """A response to INVITE or UPDATE."""
        call.status = response.status
        to_tag = parameter(response.get("To"), "tag")
        if response.status >= 300:
            if call.state in ("calling", "ringing"):
                call.over()
            return
        if response.status >= 200 and call.remote_tag and call.state == "up" and to_tag != call.remote_tag:
            self._second_answer(call, response)
            return
        if response.status == 100:
            return
        if call.state != "over":
            call.state = "up" if response.status >= 200 else call.state if call.state == "up" else "ringing"
            call.remote_tag = to_tag
            call.target = response.contact or call.target
            if response.body:
                call.aim(response.body)
        if response.status >= 200 and response.method == "INVITE":
            self._ack(call, response)
            if call.cancelled and not self.takes_crossed and call.state == "up":
                call.hang_up()

    def _second_answer(self, call: Call, response: Text) -> None:
        """A 2xx of another fork: a dialog of its own, kept while a test wants to hear it (RFC 3261 §13.2.2.4)."""
        tag = parameter(response.get("To"), "tag")
        twin = next((other for other in self.calls if other.call_id == call.call_id and other.remote_tag == tag), None)
        if twin is None:
            twin = self._new_call(call.user, caller=True, voices=[voice.twin() for voice in call.voices])
            twin.call_id, twin.tag, twin.cseq, twin.state = call.call_id, call.tag, call.cseq, "up"
            twin.remote_tag, twin.target = tag, response.contact
            if response.body:
                twin.aim(response.body)
            self.calls.append(twin)
        self._ack(twin, response)

    # responses

    def _receive(self, datagram: Datagram) -> None:
        if len(datagram.data) <= 4:
            return
        text = Text.read(datagram.data)
        if text.status:
            self._response(text)
            return
        if text.method in self.deaf_to:
            return
        again = self._answers.get((text.get("Call-ID"), text.get("CSeq"), text.branch))
        if again:
            self._send(again)
        else:
            self._request(text)

    def _response(self, text: Text) -> None:
        pending = self._pending.get((text.branch, text.method))
        if pending is None:
            return
        if text.status >= 200 or text.method == "INVITE":
            pending[0].cancel()
        pending[1](text)

    def _request(self, text: Text) -> None:
        call_id, from_tag = text.get("Call-ID"), parameter(text.get("From"), "tag")
        call = next((c for c in self.calls if c.call_id == call_id and c.remote_tag == from_tag), None)
        if text.method == "INVITE" and call is None and not parameter(text.get("To"), "tag"):
            self._rings(text)
        elif call is None:
            if text.method != "ACK":
                self._respond(text, 481)
        elif text.method in ("INVITE", "UPDATE"):
            self._reinvited(call, text)
        elif text.method == "ACK":
            self._acked(call, text)
        elif text.method == "CANCEL":
            self._respond(text, 200, call)
            if call.state == "ringing" and call.invite:
                call.over()
                self._respond(call.invite, 487, call)
        elif text.method == "BYE":
            call.over()
            self._respond(text, 200, call)

    def _rings(self, text: Text) -> None:
        user = text.get("From").partition("sip:")[2].partition("@")[0]
        kinds = [section.kind for section in read_sdp(text.body)] if text.body else self.kinds
        call = self._new_call(user, caller=False, voices=[self.voice(kind) for kind in kinds])
        call.call_id, call.state, call.invite = text.get("Call-ID"), "ringing", text
        call.remote_tag, call.target = parameter(text.get("From"), "tag"), text.contact
        call.late_offer, call.offer.direction = not text.body, self.direction
        self.calls.append(call)
        if self.early and text.body:
            call.aim(text.body)
            self._respond(text, 183, call, call.sdp())
        else:
            self._respond(text, 180, call)
        if self.answer_after is not None:
            self.net.after(self.answer_after, lambda: self._pick_up(call, text))

    def _pick_up(self, call: Call, text: Text) -> None:
        if call.state != "ringing":
            return
        if self.answer_status >= 300:
            call.over()
            self._respond(text, self.answer_status, call)
            return
        call.state = "up"
        if text.body:
            call.aim(text.body)
        self._respond(text, 200, call, call.sdp())

    def _reinvited(self, call: Call, text: Text) -> None:
        if self.reinvite_status >= 300:
            self._respond(text, self.reinvite_status, call)
            return
        sections = read_sdp(text.body)
        for section in sections[len(call.voices) :]:
            call.voices.append(self.voice(section.kind))
        before = call.sdp()
        call.offer.dropped = {section.kind for section in sections if section.endpoint.port == 0}
        call.offer.direction = REVERSED[sections[0].direction]
        if call.sdp() != before:
            call.change()
        call.target = text.contact or call.target
        call.aim(text.body)
        self._respond(text, 200, call, call.sdp())

    def _acked(self, call: Call, text: Text) -> None:
        if call.answer:
            call.answer.cancel()
        if call.late_offer and text.body:
            call.late_offer = False
            call.aim(text.body)

    # the wire

    def _new_call(self, user: str, *, caller: bool, voices: list[Voice]) -> Call:
        self._number += 1
        name = f"{self.name}{self._number}-{self.net.rng.getrandbits(32):08x}"
        return Call(phone=self, call_id=f"{name}@{self.name}", tag=name, user=user, caller=caller, voices=voices)

    @property
    def _contact(self) -> str:
        return f"<sip:{self.name}@{Endpoint(self.host.address(self.version), self.sip_port)}>"

    def _text(self, call: Call, method: str, uri: str, body: str = "", **given: str | int) -> bytes:
        self._number += 1
        branch = given.get("branch") or f"z9hG4bK{self.name}{self._number}"
        remote = f"<sip:{call.user}@{DOMAIN}>" + (f";tag={call.remote_tag}" if call.remote_tag else "")
        here = Endpoint(self.host.address(self.version), self.sip_port)
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP {here};rport;branch={branch}",
            "Max-Forwards: 70",
            f"From: <sip:{self.name}@{DOMAIN}>;tag={call.tag}",
            f"To: {given.get('to') or remote}",
            f"Call-ID: {call.call_id}",
            f"CSeq: {given.get('cseq') or call.cseq} {method}",
            f"Contact: {self._contact}",
            f"User-Agent: Toy {self.name}",
        ]
        return self._finish(lines, body)

    def _respond(self, request: Text, status: int, call: Call | None = None, body: str = "") -> None:
        to = request.get("To")
        if call and not parameter(to, "tag"):
            to += f";tag={call.tag}"
        lines = [f"SIP/2.0 {status} Toy", *(f"Via: {via}" for via in request.all("Via"))]
        lines += [f"{name}: {request.get(name)}" for name in ("From", "Call-ID", "CSeq")]
        lines += [f"To: {to}", f"Contact: {self._contact}", f"User-Agent: Toy {self.name}"]
        data = self._finish(lines, body)
        self._answers[request.get("Call-ID"), request.get("CSeq"), request.branch] = data
        self._send(data)
        if call and request.method == "INVITE" and 200 <= status < 300:
            self._repeat_until_ack(call, data, T1)

    def _repeat_until_ack(self, call: Call, data: bytes, delay: float) -> None:
        def again() -> None:
            self._send(data)
            if delay < 64 * T1:
                self._repeat_until_ack(call, data, delay * 2)

        call.answer = self.net.after(delay, again)

    @staticmethod
    def _finish(lines: list[str], body: str) -> bytes:
        if body:
            lines.append("Content-Type: application/sdp")
        lines.append(f"Content-Length: {len(body)}")
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")

    def _transact(self, call: Call, data: bytes, done: Callable[[Text], None]) -> None:
        """Send a request again and again until something answers it."""
        text = Text.read(data)
        key = (text.branch, text.method)

        def send(delay: float) -> None:
            self._send(data)
            timer = self.net.after(delay, lambda: send(delay * 2) if delay < 64 * T1 else None)
            self._pending[key] = (timer, done, data)

        send(T1)

    def _send(self, data: bytes) -> None:
        self.sent.append(data)
        self.host.send(self.sip_port, self.server, data)
