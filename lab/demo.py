"""The main job, shown: two phones behind symmetric NATs call each other, with the relay's help and without.

``python -m lab.demo`` (what ``make demo`` runs). Progress goes to the terminal while it runs, a table at its end, and
what has carried the media; recordings and captures are left in ``demo-out/``. Exit status 0 only if both sides heard at
least 95 % of the call, and nothing in the call without relay. Everything else it made is gone when it ends.
``--plane`` asks for what carries the media: it fails if anything else does.
"""

import argparse
import importlib.util
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from lab.capture import Way, Wire
from lab.homes import NatKind
from lab.judge import Heard
from lab.netns import LabError, end_on_signals
from lab.phone import Call, talk
from lab.server import PROGRAM, Server
from lab.site import Loopback, Site, Stage, missing, namespaces_refused
from mediaproxy.relay.settings import PlaneChoice

OUT = Path("demo-out")
NEEDED_SHARE = 0.95
_WITH, _WITHOUT = 10.0, 4.0
"Seconds that are talked with and without the relay."


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One of the two calls."""

    title: str
    call: Call
    wire: Wire
    planes: frozenset[str] = frozenset()
    "What has carried the media (``relay.plane``)."


class Demo:
    """Both calls on one stage."""

    def __init__(self, stage: Stage, console: Console, plane: str) -> None:
        self._stage = stage
        self._console = console
        self._plane = plane
        self._begin = time.monotonic()

    def say(self, text: str) -> None:
        """One line of progress, with the seconds since the start."""
        self._console.print(f"[dim]{time.monotonic() - self._begin:5.1f} s[/]  {text}", highlight=False)

    def call(self, title: str, name: str, *, relay: bool, seconds: float) -> Result:
        """Start server and phones, let Alice call Bob, end them all, keep what was heard and captured."""
        self.say(f"[bold]Alice calls Bob: {title}[/]")
        server = self._stage.start_server({"edge": {"media": relay}, "relay": {"plane": self._plane}})
        self.say("mediaproxy run: answers on port 5060")
        alice, bob = self._stage.phone("a"), self._stage.phone("b")
        planes: set[str] = set()
        try:
            alice.wait_registered()
            bob.wait_registered()
            self.say("Alice and Bob are registered, each through its NAT")
            capture = self._stage.folder / f"{name}.pcap"
            with self._stage.capture(capture):
                call = talk(alice, bob, seconds, every_second=self._progress(server, planes))
            self.say("Alice hung up")
            wire = self._stage.wire(capture, "a", "b")
        finally:
            alice.close()
            bob.close()
            server.stop()
            shutil.copy(server.folder / "log", OUT / f"{name}-server.log")
        shutil.copy(capture, OUT)
        for recording, who in zip(call.recordings, ("alice", "bob"), strict=True):
            if recording is not None:
                shutil.copy(recording, OUT / f"{name}-heard-by-{who}.wav")
        return Result(title=title, call=call, wire=wire, planes=frozenset(planes))

    def _progress(self, server: Server, planes: set[str]) -> Callable[[float], None]:
        """Tell how it goes; ``planes`` gets what carries the media."""

        def tell(seconds: float) -> None:
            streams = [stream for call in server.ask("calls") for stream in call["streams"]]
            planes.update(stream["plane"] for stream in streams if stream["plane"])
            self.say(f"talking for {seconds:.0f} s; {relayed(streams)}")

        return tell


def relayed(streams: Sequence[Mapping[str, Any]]) -> str:
    """What the server says of the streams of the running call."""
    if not streams:
        return "the server relays nothing"
    to_bob, to_alice = (sum(stream[side].get("sent", 0) for stream in streams) for side in ("callee", "caller"))
    carried = where({stream["plane"] for stream in streams if stream["plane"]})
    return f"the server has relayed {to_bob} packets to Bob, {to_alice} to Alice{carried and ', '}{carried}"


def where(planes: Collection[str]) -> str:
    """What has carried the media, in words; empty: nothing yet."""
    return " and ".join(PLANES[plane] for plane in sorted(planes))


PLANES = {"kernel": "in the kernel", "native": "in user space (threads in C)", "user": "in user space (Python)"}


def table(results: list[Result]) -> Table:
    """Who heard how much of whom, and what the wire says."""
    shown = Table(title="Who heard whom", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("call", "who", "heard", "share", "first audio", "relayed", "lost"):
        shown.add_column(name, justify="left" if name in ("call", "who") else "right", no_wrap=True)
    for result in results:
        call, wire = result.call, result.wire
        shown.add_row(result.title, "Alice hears Bob", *_cells(call.caller, wire.to_caller, call.seconds))
        shown.add_row("", "Bob hears Alice", *_cells(call.callee, wire.to_callee, call.seconds))
    return shown


def _cells(heard: Heard, way: Way, seconds: float) -> tuple[str, ...]:
    first = "never" if way.first_ms is None else f"{way.first_ms:.0f} ms"
    share = f"{heard.seconds / seconds:.1%}"
    return f"{heard.seconds:.2f}/{seconds:.2f} s", share, first, str(way.relayed), str(way.lost)


def complaints(result: Result, contrast: Call, plane: str = "auto") -> list[str]:
    """Why the demonstration failed; empty: it holds. ``plane``: the one that was asked for."""
    found, helped = [], result.call
    if plane != "auto" and result.planes != {plane}:
        found.append(f"media should have been relayed {PLANES[plane]}, and was {where(result.planes) or 'nowhere'}")
    if helped.share < NEEDED_SHARE:
        found.append(f"with the relay one side heard only {helped.share:.1%} of the call, wanted {NEEDED_SHARE:.0%}")
    if helped.strange:
        found.append(f"something else than the phones' tones was heard for {helped.strange:.2f} s")
    if contrast.caller.seconds or contrast.callee.seconds:
        found.append("something was heard without the relay, so the NATs prove nothing")
    return found


def stage(folder: Path, console: Console) -> Stage:
    """Real NATs where they can be had, else simulated ones. SystemExit names what is missing for either."""
    refused = namespaces_refused()
    if not refused:
        console.print("Two homes behind [bold]symmetric NATs[/]: Linux routers in network namespaces.")
        return Site((NatKind.SYMMETRIC, NatKind.SYMMETRIC), folder)
    absent = missing("setpriv")
    if importlib.util.find_spec("pjsua2") is None:
        absent.append("pjsua2-python (pip install pjsua2-python)")
    if absent:
        console.print(
            f"No network namespaces ({refused}), and for the demo on loopback is missing: {', '.join(absent)}"
        )
        raise SystemExit(2)
    console.print(
        f"No network namespaces here ({refused}): two homes behind [bold]symmetric NATs simulated in user space[/], "
        "on loopback, with PJSIP phones. As root, with baresip installed, the demo uses real NATs."
    )
    return Loopback(folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m lab.demo", description="Two phones behind NAT hear each other.")
    parser.add_argument("--plane", choices=get_args(PlaneChoice), default="auto", help="what carries the media")
    parser.add_argument("--seconds", type=float, default=_WITH, help="how long they talk with the relay")
    wanted = parser.parse_args(argv)
    end_on_signals()
    console = Console(soft_wrap=True)
    if not PROGRAM.exists():
        console.print(f"{PROGRAM} is missing: run `make install` first")
        return 2
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    with tempfile.TemporaryDirectory(prefix="mediaproxy-demo-") as folder, stage(Path(folder), console) as place:
        demo = Demo(place, console, wanted.plane)
        contrast = demo.call("no relay", "without-relay", relay=False, seconds=_WITHOUT)
        helped = demo.call("relay", "with-relay", relay=True, seconds=wanted.seconds)
    console.print()
    console.print(table([contrast, helped]))
    console.print(f"Recordings, captures and server logs are in {OUT}/.", highlight=False)
    console.print(f"Media was relayed {where(helped.planes) or 'nowhere'}.", highlight=False)
    failed = complaints(helped, contrast.call, wanted.plane)
    for complaint in failed:
        console.print(f"[red]FAILED[/]: {complaint}")
    if not failed:
        console.print("[green]Both hear each other through the relay, and nothing without it.[/]")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as problem:
        sys.exit(f"FAILED: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)
