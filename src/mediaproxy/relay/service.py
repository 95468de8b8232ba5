"""The relay: the pure ``Calls`` with a plane, a clock and timers around it.

Questions come in from a link, packets from the plane; every effect that ``Calls`` returns is carried out here, in
order, and every event is told to one listener. Nothing is decided here but what to do when the operating system
refuses a port: another one is tried, and what was half done is undone.
"""

import asyncio
import errno
import logging
import random
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import assert_never

from mediaproxy import clock
from mediaproxy.complaints import Complaints
from mediaproxy.control import (
    ConfirmRequest,
    EndRequest,
    Inquiry,
    MediaReply,
    MediaRequest,
    QueryRequest,
    Question,
    SwitchRequest,
    TotalsRequest,
)
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import CallEnded, CallReport, CallStarted, Event
from mediaproxy.link import Pending
from mediaproxy.relay.call import Call
from mediaproxy.relay.calls import Calls, Effect, Install, Remove, Report, Send
from mediaproxy.relay.flow import Flow, Packet, Plane, SlotCounters
from mediaproxy.relay.inquiries import inquire
from mediaproxy.relay.journal import Journal
from mediaproxy.relay.keeper import Keeper
from mediaproxy.relay.resumption import Recorded, Resumption, Saved
from mediaproxy.relay.settings import RelaySettings

log = logging.getLogger("mediaproxy.relay")

_SWEEP = 1.0
"Seconds between two readings of the plane's counters."
_TRIES = 16
"Ports tried for one question when other programs have them."
_SOONEST = 0.001
"Seconds to the next timer at least: clocks are not exact, and a timer that is due again at once must not spin."

_KINDS = {MediaRequest: "media", ConfirmRequest: "confirm", EndRequest: "end"}
_Failure = tuple[Endpoint, OSError]


class RelayService:
    """One relay: a Link (link.py) that answers questions, and everything that happens between them."""

    def __init__(
        self,
        settings: RelaySettings,
        plane: Plane,
        rng: random.Random,
        on_event: Callable[[Event], None] = lambda event: None,
        *,
        name: str = "",
        now: Callable[[], float] = clock.now,
    ) -> None:
        """``name`` is shown in replies and reports; ``on_event`` is told what happens, and must not raise."""
        self._settings = settings
        self._plane = plane
        self._on_event = on_event
        self._now = now
        self.calls = Calls(settings, rng, name)
        "For numbers to show; questions go by ``ask``."
        self.calls.plane_name = plane.name
        self._sweep: asyncio.TimerHandle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_due = 0.0
        "Kept here, because the handle of uvloop does not know it if the time has come already."
        self._keeper: Keeper | None = None
        self._go_on = True
        self._saved = Saved()
        self._recorded: Collection[Recorded] = ()
        self.questions = Counter(dict.fromkeys(_KINDS.values(), 0))
        "That were asked, by kind."
        self.question_errors = Counter(self.questions)
        "Of these, those answered by an error."
        self._complaints = Complaints(1)
        "About ports that the operating system has refused: a full relay is asked often."

    # -- life

    def keep(self, journal: Journal, saved: Saved, recorded: Collection[Recorded] = (), *, go_on: bool = True) -> None:
        """Before ``start``: keep calls in a journal. ``saved``: what is in it, with which the start goes on;
        ``recorded``: calls that have their record already. ``go_on`` = False: end these, and keep none."""
        self._go_on = go_on
        self._keeper = Keeper(self.calls, journal, self._now, counters=not self._plane.lasting)
        self._saved, self._recorded = saved, recorded

    async def start(self, left: Iterable[tuple[Flow, SlotCounters]] = ()) -> None:
        """Begin. ``left``: what another plane had forwarded until now. OSError names an address that this host has not;
        what may go wrong later is logged as a warning."""
        assert self._sweep is None, "started twice"
        for address in self._settings.addresses:
            _probe(address.bind)
        for warning in port_warnings(self._settings):
            log.warning("%s", warning)
        self._plane.start(self._packet)
        self.calls.totals.started = self._now()
        self._resume(left)
        self._sweep = asyncio.get_running_loop().call_later(_SWEEP, self._sweep_now)
        self._set_alarm(self._now())

    async def stop(self, *, keep: bool = False) -> None:
        """End all calls (their CallEnded events are told) and give everything back. ``keep``: leave the calls to the
        next start, if there is a journal that can be written."""
        if self._sweep is None:
            return
        self._sweep.cancel()
        self._sweep = None
        self._set_alarm(None)
        if keep and self._keeper is not None and self._settings.restart_within > 0:
            self.calls.note(self._plane.counters())
            if await self._keeper.keep_all():
                self._plane.close(keep=True)
                return
        self._do(self.calls.shutdown(self._now(), self._plane.counters()))
        if self._keeper is not None:
            await self._keeper.stop()
        self._plane.close()

    def _resume(self, left: Iterable[tuple[Flow, SlotCounters]]) -> None:
        """Go on with what an earlier process has left, in the journal and in the plane."""
        if self._keeper is not None:
            self.calls.keep()
        now = self._now()
        resumption = Resumption(self.calls, self._saved, self._plane.adopt(), now, left)
        effects = resumption.run(self._settings.restart_within if self._go_on else None, self._recorded)
        self._saved, self._recorded = Saved(), ()
        events: list[Event] = []
        for local, error in self._carry_out(effects, events):
            self._withdraw(local, error, events, now)
        for why in resumption.unreadable:
            log.error("%s: it cannot go on", why)
        if resumption.strays:
            log.warning(
                "streams of an earlier process end, and leave no records: nothing is known of the calls that have %d "
                "ports in the kernel (another state_dir, or its calls.db is gone)",
                resumption.strays,
            )
        if resumption.taken or resumption.ended:
            log.info("%d calls go on, %d have ended meanwhile", resumption.taken, resumption.ended)
        self._tell(events)
        if self._keeper is not None:
            self._keeper.flush()
        if not self._go_on:
            self._keeper = self.calls.changes = None

    # -- questions

    async def ask(self, question: Question) -> MediaReply:
        """Answer a question of the SIP side. Never raises: what cannot be done is an error with a status."""
        reply = self.answer(question)
        return await reply.wait() if isinstance(reply, Pending) else reply

    def answer(self, question: Question) -> MediaReply | Pending:
        """The same without waiting, but perhaps for the journal (link.Prompt)."""
        if self._sweep is None:
            return MediaReply(error="the relay is not running", status=503)
        now = self._now()
        counters = self._plane.counters(self.calls.ports_of(question.call_id))
        events: list[Event] = []
        for _ in range(_TRIES):
            reply, effects = self.calls.ask(question, now, counters)
            failures = self._carry_out(effects, events)
            for local, error in failures:
                self._withdraw(local, error, events, now)
                reply = MediaReply(error=f"no port: {error.strerror}", status=480, relay=reply.relay)
            if not failures or any(error.errno != errno.EADDRINUSE for _, error in failures):
                break
        if reply.error and any(isinstance(event, CallStarted) for event in events):
            self._carry_out(self.calls.end(question.call_id, now), events)
            events.clear()  # the call that would have begun with this question has never been
        self._tell(events)
        self._set_alarm(now)
        kind = _KINDS[type(question)]
        self.questions[kind] += 1
        self.question_errors[kind] += bool(reply.error)
        return reply if self._keeper is None else self._keeper.kept(reply)

    async def inquire(self, inquiry: Inquiry) -> MediaReply:
        """Answer who looks after calls (link.Inquirable). Never raises, and never waits but for the journal."""
        if self._sweep is None:
            return MediaReply(error="the relay is not running", status=503)
        now = self._now()
        if isinstance(inquiry, QueryRequest | SwitchRequest) and inquiry.call_id:
            self.calls.note(self._plane.counters(self.calls.ports_of(inquiry.call_id)))
        elif isinstance(inquiry, QueryRequest):
            self._do(self.calls.tick(now, self._plane.counters()))
        carried = self._plane.carried() if isinstance(inquiry, TotalsRequest) else None
        reply, effects = inquire(self.calls, inquiry, now, carried)
        self._do(effects)
        self._set_alarm(now)
        kept = reply if self._keeper is None or not effects else self._keeper.kept(reply)
        return await kept.wait() if isinstance(kept, Pending) else kept

    def reports(self) -> tuple[CallReport, ...]:
        """All calls as they stand now."""
        if self._sweep is not None:
            self._do(self.calls.tick(self._now(), self._plane.counters()))
        return self.calls.reports(self._now())

    def reports_of(self, calls: Sequence[Call]) -> list[CallReport]:
        """Some calls as they stand now; without those that have ended."""
        there = [call for call in calls if call.reason is None]
        ports = [port.local for call in there for stream in call.all_streams() for port in stream.ports]
        if self._sweep is not None:
            self.calls.note(self._plane.counters(ports))
        return [self.calls.report(call, self._now()) for call in there]

    def _withdraw(self, local: Endpoint, error: OSError, events: list[Event], now: float) -> None:
        """The operating system has refused a port that a question was to get."""
        busy = error.errno == errno.EADDRINUSE
        effects = self.calls.withdraw(local, now, busy=busy)
        if not busy:
            for line in self._complaints.note("no port", error.strerror or str(error), now):
                log.error("%s", line)
        elif effects:  # none: another port of the same stream was refused before
            log.warning("%s is used by another program: it is not lent any more", local)
        self._carry_out(effects, events)

    # -- effects

    def _do(self, effects: Iterable[Effect]) -> None:
        """Carry out effects of ports that are lent already, and tell the events."""
        events: list[Event] = []
        for local, error in self._carry_out(effects, events):
            log.error("the flow of %s could not be changed: %s", local, error.strerror)
        self._tell(events)
        if self._keeper is not None:
            if any(isinstance(event, CallEnded) for event in events):
                self._keeper.soon()
            else:
                self._keeper.later()

    def _carry_out(self, effects: Iterable[Effect], events: list[Event]) -> list[_Failure]:
        """Do all of them in order, events apart: they are told when nothing of this is left half done."""
        failures: list[_Failure] = []
        for effect in effects:
            match effect:
                case Install(flow=flow):
                    try:
                        self._plane.install(flow)
                    except OSError as error:
                        failures.append((flow.local, error))
                case Remove(local=local, generation=generation):
                    self._plane.remove(local, generation)
                case Send(local=local, target=target, data=data):
                    self._plane.send(local, target, data)
                case Report(event=event):
                    events.append(event)
                case _:
                    assert_never(effect)
        return failures

    def _tell(self, events: Iterable[Event]) -> None:
        for event in events:
            self._on_event(event)

    # -- packets and time

    def _packet(self, packet: Packet) -> None:
        now = self._now()
        beside = self.calls.board.beside(packet.local)
        if beside:
            self.calls.note(self._plane.counters(beside))
        self._do(self.calls.packet(packet, now))
        self._set_alarm(now)

    def _sweep_now(self) -> None:
        self._sweep = asyncio.get_running_loop().call_later(_SWEEP, self._sweep_now)
        now = self._now()
        # Who measures loss tells it whenever he is asked; else it is what sequence numbers say from second to second.
        due = self.calls.ports_due(now) if self._plane.measures else None
        self._do(self.calls.tick(now, self._plane.counters(due)))
        self._set_alarm(now)
        if self._keeper is not None:
            if due is not None:
                self.calls.note(self._plane.counters(self._keeper.ports_next))
            self._keeper.sweep()

    def _deadline_now(self) -> None:
        self._alarm = None
        now = self._now()
        self._do(self.calls.tick(now, self._plane.counters(self.calls.ports_due(now))))
        self._set_alarm(now)

    def _set_alarm(self, now: float | None) -> None:
        """Wake up at the calls' deadline, unless the next sweep comes before it. None: no more alarms."""
        deadline = self.calls.deadline if now is not None else None
        if self._alarm is None and (now is None or deadline is None or deadline - now >= _SWEEP):
            return  # the usual case: the next sweep comes before it
        loop = asyncio.get_running_loop()
        due = None
        if now is not None and deadline is not None and self._sweep is not None:
            due = loop.time() + max(deadline - now, _SOONEST)
            if due >= self._sweep.when():
                due = None
        if self._alarm is not None:
            if due is not None and abs(self._alarm_due - due) < _SOONEST:
                return
            self._alarm.cancel()
        self._alarm, self._alarm_due = None, 0.0
        if due is not None:
            self._alarm, self._alarm_due = loop.call_at(due, self._deadline_now), due


# -- what the host allows


def _probe(address: str) -> None:
    """OSError with a sentence for the operator if media could not be bound there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        raise OSError(error.errno, f"relay address {address}: {error.strerror}") from error


def port_warnings(settings: RelaySettings, root: Path = Path("/proc/sys/net/ipv4")) -> list[str]:
    """What an operator should do so that no other program gets the relay's ports (calls.md 17)."""
    try:
        low, high = map(int, (root / "ip_local_port_range").read_text().split())
        reserved = _ports((root / "ip_local_reserved_ports").read_text())
    except (OSError, ValueError):
        return []  # not Linux, or a /proc that hides it: nothing is known
    mine = range(settings.even_ports.start, settings.even_ports[-1] + 2)
    shared = [port for port in range(max(mine.start, low), min(mine.stop - 1, high) + 1) if port not in reserved]
    if not shared:
        return []
    return [
        f"{len(shared)} of the relay's ports ({mine.start}-{mine.stop - 1}) are ephemeral ports of this host "
        f"({low}-{high}): other programs may take them. Set net.ipv4.ip_local_reserved_ports to "
        f"{mine.start}-{mine.stop - 1} with sysctl, or choose port_min and port_max below {low}"
    ]


def _ports(text: str) -> set[int]:
    """The ports of ``ip_local_reserved_ports``: ``8080,9000-9010``."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first:
            found.update(range(int(first), int(last or first) + 1))
    return found
