"""rtpproxy's dialect in front of the relay's ``Calls``, in virtual time: commands in, answers out."""

from typing import get_args

from mediaproxy.control import Inquiry, MediaReply, Question
from mediaproxy.dialects.dialect import Peer, Steps
from mediaproxy.dialects.rtpproxy.addresses import Address, Addresses
from mediaproxy.dialects.rtpproxy.dialect import RtpProxy
from mediaproxy.relay.inquiries import inquire
from tests.relaybench import Bench

INQUIRIES = get_args(Inquiry)


def drive(steps: Steps, answer: "list[MediaReply | None]") -> tuple[list[Question | Inquiry], bytes]:
    """What a command asks, given these answers, and what it is answered."""
    asked: list[Question | Inquiry] = []
    try:
        wanted = next(steps)
        while True:
            asked.append(wanted)
            wanted = steps.send(answer[len(asked) - 1])
    except StopIteration as stop:
        assert isinstance(stop.value, bytes)
        return asked, stop.value


class ProxyBench(Bench):
    """Also counts what was asked."""

    def __init__(self, **changed: object) -> None:
        super().__init__(**changed)
        own = (Address(one.name, one.bind, one.public) for one in self.settings.addresses)
        self.dialect = RtpProxy(Addresses(own), ("tcp:*",))
        self.asked: list[Question | Inquiry] = []

    def say(self, command: bytes | str, transport: str = "unix", address: str = "") -> str:
        """The answer to one command, without its line end."""
        data = command.encode("latin-1") if isinstance(command, str) else command
        steps = self.dialect.answer(data, Peer(transport=transport, address=address, now=self.now))
        reply: MediaReply | None = None
        try:
            while True:
                reply = self.put(steps.send(reply))
        except StopIteration as stop:
            answer = stop.value
            assert isinstance(answer, bytes) and answer.endswith(b"\n")
            return answer[:-1].decode("latin-1")

    def put(self, wanted: Question | Inquiry) -> MediaReply:
        """Ask the relay."""
        self.asked.append(wanted)
        if isinstance(wanted, INQUIRIES):
            self.calls.note(self.slots.values())
            reply, effects = inquire(self.calls, wanted, self.now)
            self.do(effects)
            return reply
        return self.ask(wanted)  # type: ignore[arg-type]  # a Question: isinstance does not narrow by a tuple of get_args

    def port(self, command: bytes | str) -> int:
        """The port that a U or L is told."""
        answer = self.say(command).split(" ")
        assert len(answer) == 2 and answer[1] == "192.0.2.1", answer
        return int(answer[0])
