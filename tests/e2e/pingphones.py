"""A Kamailio whose registered phones are pinged, and phones that are bare sockets, for test_kamailio_pings.py."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lab.kamailio import EXAMPLE, Kamailio
from mediaproxy.sip.message import Request, parse, response_to
from tests.kamailiosite import Phone, free_ports

SCRIPT = """\
import KSR
import mediaproxy.kamailio

# A REGISTER says in X-Flags which branch flags it gets. Other requests are answered 200 if their user is registered,
# 404 if not; with X-Rpc that RPC is called first. Replies that come to the script are lines of the log.
class Registrar(mediaproxy.kamailio.Module):
    def ksr_request_route(self, msg):
        KSR.force_rport()
        if KSR.is_REGISTER():
            if KSR.hdr.is_present("X-No-Received") < 0:
                KSR.nathelper.fix_nated_register()
            for flag in (KSR.pv.get("$hdr(X-Flags)") or "").split():
                KSR.setbflag(int(flag))
            return KSR.registrar.save("location", 0)
        if KSR.hdr.is_present("X-Rpc") > 0:
            KSR.jsonrpcs.exec(KSR.pv.get("$hdr(X-Rpc)"))
        found = KSR.pv.is_null("$rU") or KSR.registrar.lookup("location") > 0
        return KSR.sl.send_reply(200, "Here") if found else KSR.sl.send_reply(404, "Not Here")

    def ksr_reply_route(self, msg):
        KSR.info("REPLY " + self.host.text("$ci") + "\\n")
        return 1

def mod_init():
    return Registrar(sip_asymmetrics="", rtp_asymmetrics="", **%r)
"""
NATHELPER = """\
loadmodule "nathelper.so"
modparam("nathelper", "received_avp", "$avp(received)")
modparam("registrar", "received_avp", "$avp(received)")
"""


FIRST, SECOND, OTHER = (("127.0.0.1", port) for port in free_ports(3))
"Two sockets of the Kamailio that many tests share, and where those listen that have one of their own."
SIXTH = ("::1", FIRST[1])
LISTEN = tuple(
    f"{transport}:{host}:{port}"
    for transport, host, port in (("udp", *FIRST), ("udp", *SECOND), ("udp", "[::1]", FIRST[1]), ("tcp", *FIRST))
)
NAT, SIP, REMOVE = "6", "7", "8"
ZEROS = b"\0\0\0\0"
PATIENCE = 60.0
"Seconds to wait for what must come, however busy the machine is."


@contextlib.contextmanager
def kamailio(folder: Path, *, listen: Sequence[str], without: str = "no module", **settings: Any) -> Iterator[Kamailio]:
    """Kamailio with the example's config and nathelper, and one module less."""
    config = (EXAMPLE / "kamailio.cfg").read_text()
    before, load, after = config.partition('loadmodule "app_python3.so"\n')
    lines = [line for line in (before + NATHELPER + load + after).splitlines() if f'"{without}' not in line]
    folder.mkdir(exist_ok=True)
    (folder / "kamailio.cfg").write_text("\n".join(lines) + "\n")
    with Kamailio(folder, listen, script=SCRIPT % settings, options=["-f", str(folder / "kamailio.cfg")]) as running:
        yield running
        assert running.alive
        assert "CRITICAL" not in running.log
        assert "Traceback" not in running.log


Heard = tuple[float, bytes, tuple[str, int]]
"When it came, what, from where."


class Lasting(Phone):
    """A phone whose port nobody else gets as long as the Kamailio lives that many tests share: that goes on to ping who
    has registered there."""

    ended: ClassVar[list[socket.socket]] = []

    def close(self) -> None:
        if self.server == OTHER:
            super().close()
        else:
            self.ended.append(self.socket)

    @classmethod
    def close_all(cls) -> None:
        """That Kamailio has gone."""
        while cls.ended:
            cls.ended.pop().close()


class Registered(Lasting):
    """A phone that says it is at 10.0.0.1, and is here."""

    def __init__(self, server: tuple[str, int], user: str, *flags: str, headers: str = "", contact: str = "") -> None:
        super().__init__(server)
        self.user = user
        self.contact = contact or f"<sip:{user}@10.0.0.1:5060;ob>"
        self.cseq = 0
        self.headers = f"X-Flags: {' '.join(flags)}\r\n{headers}"
        self.register()

    def register(self) -> None:
        """Register, again perhaps."""
        self.cseq += 1
        text = (
            f"REGISTER sip:sip.test SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK{self.port}.{self.cseq}\r\n"
            f"From: <sip:{self.user}@sip.test>;tag=1\r\nTo: <sip:{self.user}@sip.test>\r\nCall-ID: r{self.port}\r\n"
            f"CSeq: {self.cseq} REGISTER\r\nContact: {self.contact}\r\nExpires: 600\r\n{self.headers}"
            "Content-Length: 0\r\n\r\n"
        )
        self.send(text.encode("latin-1"))
        self.response(200)

    def heard(self, seconds: float, answer: bool = False, enough: int = 1_000_000) -> list[Heard]:
        """What comes within some seconds: when, what, from where. ``answer`` requests. ``enough``: no more."""
        until = time.monotonic() + seconds
        heard: list[Heard] = []
        while len(heard) < enough and (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                data, source = self.socket.recvfrom(65536)
            except TimeoutError:
                break
            heard.append((time.monotonic(), data, (source[0], source[1])))
            if answer and data != ZEROS:
                request = parse(data)
                assert isinstance(request, Request)
                self.socket.sendto(bytes(response_to(request, 200, to_tag="phone")), source)
        return heard

    def steadily(self, seconds: float, fits: Callable[[list[Heard]], bool], answer: bool = False) -> list[Heard]:
        """What comes within some seconds, if it fits; else again, five times at most: other work on the machine only
        ever adds delay, so once is proof. All of it."""
        heard: list[Heard] = []
        for _ in range(5):
            now = self.heard(seconds, answer)
            heard += now
            if fits(now):
                return heard
        raise AssertionError(heard)


def ask(server: tuple[str, int], user: str, headers: str = "") -> int:
    """Send an OPTIONS to a user at Kamailio; the status of the answer: 200 registered, 404 not."""
    with Phone(server) as phone:
        phone.send(
            f"OPTIONS sip:{user}@127.0.0.1:{server[1]} SIP/2.0\r\nVia: SIP/2.0/UDP {phone.place};branch=z9hG4bKask\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:x@sip.test>;tag=1\r\nTo: <sip:{user}@sip.test>\r\nCall-ID: ask{phone.port}"
            f"\r\nCSeq: 1 OPTIONS\r\n{headers}Content-Length: 0\r\n\r\n".encode("latin-1")
        )
        message = parse(phone.receive())
        status: int = message.status  # type: ignore[union-attr] # nobody sends requests here
        return status


def wait_gone(server: tuple[str, int], user: str, seconds: float) -> float:
    """Wait until a user is not registered; how long that took."""
    began = time.monotonic()
    while ask(server, user) != 404:
        assert time.monotonic() - began < seconds, f"{user} is still registered"
        time.sleep(0.1)
    return time.monotonic() - began


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
