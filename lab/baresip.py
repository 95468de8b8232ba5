"""A real phone: baresip without a head, in a namespace, driven over its ctrl_tcp socket.

It sends one tone (aufile), plays into nothing (aubridge) and records what it decodes (sndfile). Each phone has a
folder of its own for profile, log and recordings.
"""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab import tones
from lab.netns import LabError, Namespace, stop, wait_until
from lab.phone import Account, Seat

MODULES = Path("/usr/lib/baresip/modules")

_CONFIG = """\
poll_method             epoll
call_local_timeout      120
call_max_calls          4
sip_listen              {seat.address}:{seat.sip}
{tls}audio_source            aufile,{folder}/tone.wav
audio_player            aubridge,sink
audio_alert             aubridge,alert
ausrc_srate             8000
auplay_srate            8000
ausrc_channels          1
auplay_channels         1
audio_level             no
rtp_ports               {seat.rtp.start}-{seat.rtp.stop}
rtp_stats               yes
rtp_timeout             0
jitter_buffer_delay     2-5
module_path             {modules}
module                  g711.so
module                  aufile.so
module                  aubridge.so
module                  sndfile.so
module                  ctrl_tcp.so
module_tmp              account.so
module_app              menu.so
snd_path                {folder}/recordings
ctrl_tcp_listen         127.0.0.1:{seat.control}
"""

_ACCOUNT = (
    '<sip:{user}@{domain};transport={transport}>;auth_pass={password};outbound="sip:{proxy};transport={transport}"'
    ";regint={expires};answermode={answers};audio_codecs=PCMU;ptime=20{more}\n"
)


def write_profile(folder: Path, seat: Seat, account: Account, tone: int, *modules: str) -> None:
    """Write the profile of a phone into a folder, for ``baresip -f FOLDER``. ``modules`` are loaded in addition."""
    (folder / "recordings").mkdir(parents=True, exist_ok=True)
    tones.write_wav(folder / "tone.wav", tones.samples(tone, 1) * account.talks)
    tls = f"sip_cafile              {account.ca_file}\n" if account.ca_file else ""
    if account.stun_server:
        modules += ("stun.so",)
    more = "".join(f"module                  {module}\n" for module in modules)
    (folder / "config").write_text(_CONFIG.format(seat=seat, folder=folder, tls=tls, modules=MODULES) + more)
    (folder / "accounts").write_text(
        _ACCOUNT.format(
            user=account.user,
            domain=account.domain,
            transport=account.transport,
            proxy=account.proxy,
            expires=account.expires,
            password=account.password,
            answers=account.answers,
            more=f";medianat=stun;stunserver=stun:{account.stun_server}" if account.stun_server else "",
        )
    )
    (folder / "contacts").write_text("")


class Baresip:
    """A running baresip."""

    def __init__(self, namespace: Namespace, seat: Seat, account: Account, tone: int, folder: Path) -> None:
        """Start the phone; it registers by itself, ``wait_registered`` waits for it."""
        self.account = account
        self.tone = tone
        self._folder = folder
        self._namespace = namespace
        self._events: list[dict[str, Any]] = []
        self._buffer = b""
        self._socket: socket.socket | None = None
        self._seat = seat
        write_profile(folder, seat, account, tone)
        self._process: subprocess.Popen[bytes] = namespace.start(["baresip", "-f", str(folder)], folder / "log")

    def _connect(self) -> socket.socket:
        if self._socket is None:
            wait_until(f"baresip of {self.account.user} answers", self._try_connect)
        assert self._socket is not None
        return self._socket

    def _try_connect(self) -> bool:
        if self._process.poll() is not None:
            raise LabError(f"baresip of {self.account.user} ended: {self.log[-500:]}")
        attempt = self._namespace.socket(socket.SOCK_STREAM)
        try:
            attempt.connect(("127.0.0.1", self._seat.control))
        except OSError:
            attempt.close()
            return False
        self._socket = attempt
        return True

    @property
    def log(self) -> str:
        """What baresip printed so far."""
        return (self._folder / "log").read_text(errors="replace")

    def command(self, name: str, parameters: str = "") -> None:
        """Give a command of the menu module, such as ``dial`` or ``hangup``."""
        line = json.dumps({"command": name, "params": parameters}).encode()
        self._connect().sendall(b"%d:%s," % (len(line), line))

    def _read(self, seconds: float) -> None:
        """Read what baresip has to tell within ``seconds``, at most one chunk."""
        connection = self._connect()
        connection.settimeout(max(seconds, 0.001))
        try:
            data = connection.recv(65536)
        except TimeoutError:
            return
        if not data:
            raise LabError(f"baresip of {self.account.user} closed its control socket: {self.log[-500:]}")
        self._buffer += data
        while (colon := self._buffer.find(b":")) > 0:
            end = colon + 1 + int(self._buffer[:colon])
            if len(self._buffer) <= end:
                return
            self._events.append(json.loads(self._buffer[colon + 1 : end]) | {"at": time.monotonic()})
            self._buffer = self._buffer[end + 1 :]

    def wait_event(self, *kinds: str, seconds: float = 30.0) -> dict[str, Any]:
        """The next event whose type is one of ``kinds``; earlier ones are forgotten. LabError if none comes.

        ``at`` in it is the time.monotonic() at which it was read.
        """
        return self._wait(lambda event: event.get("type") in kinds, " or ".join(kinds), seconds)

    def _wait(self, wanted: Callable[[dict[str, Any]], bool], what: str, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        seen = []
        while True:
            while self._events:
                event = self._events.pop(0)
                if wanted(event):
                    return event
                seen.append(event.get("type") or "response")
            if time.monotonic() > deadline:
                raise LabError(f"{self.account.user}: no {what} within {seconds:g} s, only {seen}")
            self._read(deadline - time.monotonic())

    def wait_registered(self, seconds: float = 30.0) -> None:
        """Wait until the server accepted the registration. LabError if it refuses or does not answer.

        The log is asked, because the event may have passed before the control socket was open.
        """
        user = self.account.user
        wait_until(f"{user} is registered", lambda: "binding" in self.log or "reg: " in self.log, seconds)
        if "binding" not in self.log:
            raise LabError(f"{user}: registration failed: {self.log[-500:]}")
        self._connect()

    def wait_established(self, seconds: float = 30.0) -> float:
        """Wait until the call stands; when that was (time.monotonic). LabError if it fails."""
        event = self.wait_event("CALL_ESTABLISHED", "CALL_CLOSED", seconds=seconds)
        if event["type"] == "CALL_CLOSED":
            raise LabError(f"{self.account.user}: call failed: {event.get('param')}")
        return float(event["at"])

    def wait_closed(self, seconds: float = 30.0) -> None:
        """Wait until the call is over."""
        self.wait_event("CALL_CLOSED", seconds=seconds)

    def dial(self, uri: str) -> None:
        """Call somebody."""
        self.command("dial", uri)

    def hang_up(self) -> None:
        """End the current call."""
        self.command("hangup")

    def accept(self) -> None:
        """Answer the call that comes in."""
        self.command("accept")

    def hold(self) -> None:
        """Put the call on hold."""
        self.command("hold")

    def resume(self) -> None:
        """Take it off hold."""
        self.command("resume")

    def take_recording(self) -> Path | None:
        """What the phone heard in the call that just ended, moved aside so that the next call has its own."""
        found = sorted((self._folder / "recordings").glob("*-dec.wav"))
        if not found:
            return None
        taken = self._folder / f"heard-{time.monotonic_ns()}.wav"
        found[-1].rename(taken)
        for rest in (self._folder / "recordings").glob("*.wav"):
            rest.unlink()
        return taken

    def close(self) -> None:
        """End the phone at once, without farewell to the server."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
        stop(self._process, signal.SIGKILL)
