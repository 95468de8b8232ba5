"""A relay in virtual time with a plane of a few lines: what a fuzzed dialect asks, it answers.

After whatever was asked, ``settle`` lets time pass until every call has ended by itself, and looks whether anything is
left: a call that never ends, a port that was lent and not given back, a flow that nobody removed.
"""

from mediaproxy.control import ConfirmRequest, EndRequest, Inquiry, MediaReply, MediaRequest, Question
from mediaproxy.events import CallEnded, CallStarted
from mediaproxy.relay.inquiries import inquire
from tests.relaybench import Bench

_TURNS = 10_000
"Looks at the clock until all calls must have ended."
_COOLED = 3600.0
"Seconds after which no port is kept back any more."


class House:
    """The relay. Also a Link (mediaproxy.link) that answers at once."""

    def __init__(self) -> None:
        self.bench = Bench(port_max=20398, max_streams=64)

    def told(self, wanted: Question | Inquiry) -> MediaReply:
        """The answer."""
        bench = self.bench
        bench.now += 0.01
        if isinstance(wanted, MediaRequest | ConfirmRequest | EndRequest):
            return bench.ask(wanted)
        bench.calls.note(bench.slots.values())
        reply, effects = inquire(bench.calls, wanted, bench.now)
        bench.do(effects)
        return reply

    def answer(self, question: Question) -> MediaReply:
        """Prompt."""
        return self.told(question)

    async def ask(self, question: Question) -> MediaReply:
        """Link."""
        return self.told(question)

    async def inquire(self, inquiry: Inquiry) -> MediaReply:
        """Inquirable."""
        return self.told(inquiry)

    def settle(self) -> None:
        """Nothing is left when everything has ended."""
        bench, calls = self.bench, self.bench.calls
        for _ in range(_TURNS):
            deadline = calls.deadline
            if not len(calls):
                break
            assert deadline is not None, "calls that nothing will ever end"
            bench.now = max(bench.now, deadline) + 0.001
            bench.tick()
        assert not len(calls), "calls that go on for ever"
        bench.now += _COOLED
        bench.tick()
        assert not calls.ports_lent and not calls.ports_cooling, "ports that were not given back"
        assert not bench.flows, "flows that were not removed"
        assert len(bench.seen(CallStarted)) == len(bench.seen(CallEnded)), "a call that has not ended just once"
