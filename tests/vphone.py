"""Toy phones for the toy Internet: a SIP user agent that writes and reads real SIP text.

Everything goes by the server it registers at (an outbound proxy). Requests are retransmitted until answered and a 2xx
until its ACK (RFC 3261 §17, §13.3.1.4), so that lossy links are no special case.
"""

from collections.abc import Callable
from typing import Any

from mediaproxy.endpoint import Endpoint
from tests.vcall import Call
from tests.vmedia import Voice
from tests.vnet import Datagram, Host, Internet, Timer
from tests.vsip import Text, parameter, read_sdp

DOMAIN = "example.net"
T1 = 0.5
__all__ = ["DOMAIN", "T1", "Call", "Phone"]

REVERSED = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}


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
        self.early_after = 0.0
        "Seconds of 180 before that."
        self.deaf_to: set[str] = set()
        "Methods it never gets to see: a phone that misses its BYE."
        self.pracks = False
        "It acknowledges provisional responses with SDP (RFC 3262), as callers do who ask for them to be reliable."
        self.reinvite_status = 200
        "How it answers a new offer within a call."
        self.takes_crossed = False
        "It keeps a call whose 2xx crossed its CANCEL; others hang up at once (RFC 3261 §15)."
        self.sent: list[bytes] = []
        "All the SIP it ever sent."
        self.tone = name
        self.host_name = ""
        "Told in c= instead of its address."
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
        options: dict[str, Any] = self.voice_options
        voice = Voice(host=self.host, tone=self.tone, port=port, kind=kind, **options)
        voice.public = self.stun(voice) if self.stun else None
        return voice

    @property
    def last(self) -> Call:
        """Its newest call."""
        return self.calls[-1]

    # requests

    def offer(self, call: Call, method: str) -> None:
        """INVITE, UPDATE or PRACK with the SDP as it is now (without for a late offer)."""
        call.cseq += 1
        body = "" if call.late_offer and method == "INVITE" else call.sdp()
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
        if call.late_offer and response.body:
            body, call.late_offer = call.sdp(), False
        self._send(self._text(call, "ACK", call.target, body, cseq=number, to=response.get("To")))

    def _answered(self, call: Call, response: Text) -> None:
        """A response to INVITE, UPDATE or PRACK."""
        call.status = response.status
        to_tag = parameter(response.get("To"), "tag")
        if response.status >= 300:
            if call.state in ("calling", "ringing") and response.method == "INVITE":
                call.over()
            return
        if response.status >= 200 and call.remote_tag and call.state == "up" and to_tag != call.remote_tag:
            self._second_answer(call, response)
            return
        if response.status == 100:
            return
        if call.state != "over":
            self._take(call, response)
        if response.status < 200 and self.pracks and response.body and to_tag not in call.pracked:
            call.pracked.add(to_tag)
            self._prack(call)
        if response.status >= 200 and response.method == "INVITE":
            self._ack(call, response)
            if call.cancelled and not self.takes_crossed and call.state == "up":
                call.hang_up()

    def _take(self, call: Call, response: Text) -> None:
        """What a response below 300 says."""
        if response.method == "INVITE":
            call.state = "up" if response.status >= 200 or call.state == "up" else "ringing"
        call.remote_tag = parameter(response.get("To"), "tag")
        call.target = response.contact or call.target
        if response.body:
            call.aim(response.body)

    def _prack(self, call: Call) -> None:
        """The answer to a late offer, else without SDP."""
        if call.late_offer:
            call.late_offer = False
            self.offer(call, "PRACK")
        else:
            self.request(call, "PRACK")

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
        elif text.method in ("INVITE", "UPDATE", "PRACK"):
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
        early = self.early and bool(text.body or self.pracks)
        if not early or self.early_after:
            self._respond(text, 180, call)
        if early:
            self.net.after(self.early_after, lambda: self._plays(call, text))
        if self.answer_after is not None:
            self.net.after(self.answer_after, lambda: self._pick_up(call, text))

    def _plays(self, call: Call, text: Text) -> None:
        """Early media."""
        if call.state == "ringing":
            if text.body:
                call.aim(text.body)
            self._respond(text, 183, call, call.sdp())

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
        # A late offer that was answered in a PRACK is not made again.
        self._respond(text, 200, call, call.sdp() if text.body or call.late_offer else "")

    def _reinvited(self, call: Call, text: Text) -> None:
        if self.reinvite_status >= 300:
            self._respond(text, self.reinvite_status, call)
            return
        if not text.body or (text.method == "PRACK" and call.late_offer):
            self._without_offer(call, text)
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

    def _without_offer(self, call: Call, text: Text) -> None:
        """It asks for one, brings the answer to one, or refreshes the session."""
        if text.body:
            call.late_offer = False
            call.aim(text.body)
        elif text.method == "INVITE":
            call.late_offer = True
        self._respond(text, 200, call, call.sdp() if text.method == "INVITE" else "")

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
        call = Call(phone=self, call_id=f"{name}@{self.name}", tag=name, user=user, caller=caller, voices=voices)
        call.offer.host_name = self.host_name
        return call

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
