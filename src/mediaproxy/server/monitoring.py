"""[shell] What the HTTP server of ``[web]`` tells of a server process, and that it listens.

A Station comes in, values for ``web`` go out. A scrape asks no call: it takes sums that are kept, and one look at the
plane's counters.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from mediaproxy import __version__, clock
from mediaproxy.accounting import discreet
from mediaproxy.admin import AdminError, Command
from mediaproxy.relay.inquiries import totals
from mediaproxy.relay.latch import Reason
from mediaproxy.relay.service import RelayService
from mediaproxy.server.answers import Calls
from mediaproxy.server.planes import Chosen
from mediaproxy.server.starting import told
from mediaproxy.web.figures import Chronicle, RelayFigures, Snapshot
from mediaproxy.web.server import Unavailable, WebServer

if TYPE_CHECKING:
    from mediaproxy.server.station import Station

_PIECE = 50
"Calls that are described in one turn of the event loop: two or three milliseconds."


async def start_web(stack: AsyncExitStack, station: "Station", chronicle: Chronicle) -> WebServer | None:
    """Listen, if the configuration wants that. StartError."""
    settings = station.config.web
    if not settings.address:
        return None
    server = WebServer(settings, StationSource(station), chronicle)
    with told(f"{settings.address}: cannot listen for HTTP there", "set web.address to one that is free"):
        await server.start()
    stack.push_async_callback(server.stop)
    return server


class StationSource:
    """A web.server.Source over a Station."""

    def __init__(self, station: "Station") -> None:
        self._station = station

    def healthy(self) -> str:
        """Why this server should get no calls; empty: it is well."""
        station = self._station
        if not station.running:
            return "the server is just starting or ending"
        relays = self._relays()
        return "no relay answers" if relays and not any(relays.values()) else ""

    def snapshot(self) -> Snapshot:
        """For /metrics."""
        station = self._station
        doors = station.doors_shown()
        relay = station.relay
        return Snapshot(
            version=__version__,
            started=station.started,
            relay=None if relay is None or station.chosen is None else relay_figures(relay, station.chosen),
            relays=self._relays(),
            doors=() if doors is None else doors.doors,
            notices_told=0 if doors is None else doors.notices_told,
            notices_failed=0 if doors is None else doors.notices_failed,
            registrations=station.registered if station.config.edge.enabled else None,
        )

    def _relays(self) -> dict[str, bool]:
        return {one.name: one.up for one in self._station.relays_shown()}

    def status(self) -> Any:
        """For /status."""
        try:
            return self._station.status(Command(command="status"))
        except AdminError as error:
            raise Unavailable(str(error)) from error

    async def calls(self, call_id: str, most: int) -> Any:
        """For /calls: redacted as ``mediaproxy calls``, a few at a time."""
        station, relay = self._station, self._station.relay
        if relay is None or not station.running:
            raise Unavailable("no relay runs in this process")
        found = list(relay.calls.of(call_id)) if call_id else sorted(relay.calls, key=lambda call: call.started)
        reports = []
        for first in range(0, min(most, len(found)), _PIECE):
            reports += relay.reports_of(found[first : min(first + _PIECE, most)])
            await asyncio.sleep(0)
        shown = tuple([replace(one, caller=discreet(one.caller), callee=discreet(one.callee)) for one in reports])
        why_not = "" if station.chosen is None else station.chosen.why_not
        return Calls(now=clock.now(), calls=shown, why_not_kernel=why_not)


def relay_figures(relay: RelayService, chosen: Chosen) -> RelayFigures:
    """The figures of a relay and of what forwards for it."""
    calls, carried = relay.calls, chosen.plane.carried()
    return RelayFigures(
        totals=totals(calls, carried),
        states={state.value: count for state, count in calls.census.states.items()},
        where=chosen.where,
        why_not_kernel=chosen.why_not,
        refused={reason: calls.board.traffic.reasons[reason] for reason in Reason} | {"rate": carried.dropped},
        undeliverable=carried.undeliverable,
        verdicts=chosen.packets(),
        send_errors=dict(chosen.plane.send_errors),
        questions=dict(relay.questions),
        question_errors=dict(relay.question_errors),
        free=calls.ports_free,
        lent=calls.ports_lent,
        cooling=calls.ports_cooling,
    )
