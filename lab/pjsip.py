"""A real phone of another make: PJSIP (wheel ``pjsua2-python``), driven as a program of its own.

Unlike baresip it can be told which address it believes to have, so it also serves where there are no namespaces: bound
to a loopback address, it writes its "private" one into Contact and SDP.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab import tones
from lab.netns import LabError, environment, stop
from lab.phone import Account, Seat

Runner = Callable[[list[str]], list[str]]
"Turns a command line into one that runs in the right place (a namespace, or just here)."


class Pjsip:
    """A running PJSIP phone."""

    def __init__(self, run_in: Runner, seat: Seat, account: Account, tone: int, folder: Path) -> None:
        """Start the phone; it registers by itself, ``wait_registered`` waits for it."""
        self.account = account
        self.tone = tone
        self._folder = folder
        self._recording = folder / "recording.wav"
        self._events: list[dict[str, Any]] = []
        self._buffer = b""
        folder.mkdir(parents=True, exist_ok=True)
        tones.write_wav(folder / "tone.wav", tones.samples(tone, 60))
        settings = {
            "user": account.user,
            "password": account.password,
            "uri": account.uri,
            "domain": account.domain,
            "proxy": account.proxy,
            "expires": account.expires,
            # PJSIP asks STUN only for what it has not been told.
            "address": account.public_address or ("" if account.stun_server else seat.address),
            "bind": seat.bind or seat.address,
            "stun": account.stun_server,
            "learns": account.learns,
            "ice": account.ice,
            "port": seat.sip,
            "rtp_port": seat.rtp.start,
            "tone": str(folder / "tone.wav"),
            "recording": str(self._recording),
        }
        argv = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "lab.pjsip_phone", json.dumps(settings)]
        paths = f"{Path(__file__).resolve().parents[1]}:{os.environ.get('PYTHONPATH', '')}"
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                run_in(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                env=environment(PYTHONPATH=paths),
            )

    def _command(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise LabError(f"PJSIP phone of {self.account.user} is gone: {self._log()}") from error

    def _log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-500:]

    def _wait(self, *wanted: str, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        seen = []
        while True:
            while self._events:
                event = self._events.pop(0)
                if event["event"] in wanted:
                    return event
                seen.append(event)
            left = deadline - time.monotonic()
            if left < 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise LabError(f"{self.account.user}: no {wanted} within {seconds:g} s, only {seen} {self._log()}")
            data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                raise LabError(f"PJSIP phone of {self.account.user} ended: {self._log()}")
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            # PJSIP itself prints warnings to the same place.
            self._events += [json.loads(line) | {"at": time.monotonic()} for line in lines if line.startswith(b"{")]

    def wait_registered(self, seconds: float = 30.0) -> None:
        """Wait until the server accepted the registration."""
        event = self._wait("registered", "registration-failed", seconds=seconds)
        if event["event"] != "registered":
            raise LabError(f"{self.account.user}: registration failed: {event['status']} {event['reason']}")

    def dial(self, uri: str) -> None:
        """Call somebody."""
        self._command(f"dial {uri}")

    def hang_up(self) -> None:
        """End the call."""
        self._command("hangup")

    def hold(self) -> None:
        """Put the call on hold."""
        self._command("hold")

    def resume(self) -> None:
        """Take it off hold."""
        self._command("resume")

    def wait_established(self, seconds: float = 30.0) -> float:
        """Wait until the call stands; when that was (time.monotonic)."""
        event = self._wait("established", "closed", seconds=seconds)
        if event["event"] == "closed":
            raise LabError(f"{self.account.user}: call failed: {event['status']} {event['reason']}")
        return float(event["at"])

    def wait_closed(self, seconds: float = 30.0) -> None:
        """Wait until the call is over."""
        self._wait("closed", seconds=seconds)

    def take_recording(self) -> Path | None:
        """What was heard in the call that just ended; None if nothing was recorded."""
        if not self._recording.exists():
            return None
        taken = self._folder / f"heard-{time.monotonic_ns()}.wav"
        self._recording.rename(taken)
        return taken

    def close(self) -> None:
        """End the phone at once, without farewell to the server."""
        stop(self._process, patience=0.0)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
