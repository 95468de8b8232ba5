"""A relay's process that can be killed, calls through it that must not notice, and an attack on all of their ports."""

import ctypes
import errno
import os
import selectors
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from lab.netns import Namespace, Namespaces
from mediaproxy.endpoint import Endpoint
from tests.asking import Phone
from tests.e2e.relayprocess import RelayProcess, seat

RELAY = "192.0.2.1"
_BACKLOG = Path("/proc/sys/net/core/netdev_max_backlog")


class Site(RelayProcess):
    """Hosts ``a`` and ``b``, each on a veth of the relay's host, and the relay's process."""

    def __init__(self, folder: Path, more: str = "") -> None:
        """``more``: TOML, of the relay."""
        self.stack = ExitStack()
        spaces = Namespaces()
        self.stack.callback(spaces.close)
        self.stack.enter_context(deep_backlog())
        self.a, self.b = spaces.add("a"), spaces.add("b")
        super().__init__(spaces.add("relay"), folder, f'{{ bind = "{RELAY}" }}', more)
        self.space.ip(f"address add {RELAY}/32 dev lo")
        for number, space in ((1, self.a), (2, self.b)):
            self.space.ip(
                f"link add to-{number} type veth peer name eth0 netns {space.name}",
                f"link set to-{number} up",
                f"address add 10.0.{number}.254/24 dev to-{number}",
            )
            space.ip(
                "link set eth0 up",
                f"address add 10.0.{number}.1/24 dev eth0",
                f"address add 10.0.{number}.66/24 dev eth0",
                f"route add default via 10.0.{number}.254",
            )

    def close(self) -> None:
        super().close()
        self.stack.close()


@contextmanager
def deep_backlog() -> Iterator[None]:
    """The host's queue between two interfaces is long enough for every burst of an attack, if we may have it so: what
    it drops is no loss of the relay."""
    before = _BACKLOG.read_text()
    with suppress(OSError):
        _BACKLOG.write_text("100000")
    try:
        yield
    finally:
        with suppress(OSError):
            _BACKLOG.write_text(before)


def seat_both(stack: ExitStack, phone: Phone, space: Namespace) -> Phone:
    """Give a phone ports for RTP and RTCP, so that nobody else hears the latter."""
    while len(phone.ports) < 2:
        phone.ports.clear()
        phone.sockets.clear()
        seat(stack, phone, space)
        if phone.ports[0] % 2 == 0:
            with suppress(OSError):  # somebody has it
                seat(stack, phone, space, port=phone.ports[0] + 1)
    return phone


class Talk:
    """One call of two phones. They send no RTCP: an attacker's, from a phone's own address, may pass as such."""

    ears = 1
    "Sockets of each phone that are listened to: RTP, and RTCP."

    def __init__(self, site: Site, number: int) -> None:
        self.call_id = f"call-{number}"
        self.alice = seat_both(site.stack, Phone("alice", "10.0.1.1"), site.a)
        self.bob = seat_both(site.stack, Phone("bob", "10.0.2.1"), site.b)
        self.at_alice, self.at_bob = self._set_up(site)
        self.sent = 0
        self.heard = {self.alice: 0, self.bob: 0}
        self.unheard = {self.alice: 0, self.bob: 0}
        "Of what was sent while the other side was being learned."

    def _set_up(self, site: Site) -> tuple[Endpoint, Endpoint]:
        """The ports of the relay that Alice and Bob are told."""
        return site.call(self.alice, self.bob, self.call_id)

    @property
    def local(self) -> list[Endpoint]:
        """The relay's ports for RTP."""
        return [self.at_alice, self.at_bob]

    def speak(self) -> None:
        self.sent += 1
        for phone, to in ((self.alice, self.at_alice), (self.bob, self.at_bob)):
            packet = struct.pack("!BBHII", 0x80, 0, self.sent & 0xFFFF, self.sent * 160 & 0xFFFFFFFF, phone.ports[0])
            phone.sockets[0].sendto(packet + bytes(160), (to.address, to.port))

    def take(self, phone: Phone, data: bytes, source: Endpoint) -> None:
        """A packet that has come to a phone must be the other one's, by the right port."""
        expected = self.at_alice if phone is self.alice else self.at_bob
        other = self.bob if phone is self.alice else self.alice
        assert source == expected
        assert data[:1] == b"\x80" and struct.unpack_from("!I", data, 8) == (other.ports[0],), "nobody else's"
        self.heard[phone] += 1

    def learned(self) -> None:
        """All that is on its way has come; from now on nothing may be lost."""
        self.unheard = {phone: self.sent - heard for phone, heard in self.heard.items()}

    @property
    def lost(self) -> int:
        """Packets of both sides that were sent after that and have not come."""
        return sum(self.sent - self.unheard[phone] - heard for phone, heard in self.heard.items())


class Talks:
    """All calls at once, in a thread, until the end: each phone sends 25 packets a second."""

    INTERVAL = 0.04

    def __init__(self, talks: Sequence[Talk]) -> None:
        self._talks = talks
        self._over = Event()
        self._thread = Thread(target=self._run)
        self.rate = 0.0
        "Packets per second of all phones together, as they were really sent."

    def __enter__(self) -> "Talks":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with listening(self._talks) as selector:
            began = next_ = time.monotonic()
            rounds = 0
            while not self._over.is_set():
                for talk in self._talks:
                    talk.speak()
                rounds += 1
                next_ = max(next_ + self.INTERVAL, time.monotonic() - 1.0)
                while (left := next_ - time.monotonic()) > 0:
                    hear(selector, left)
            self.rate = rounds * 2 * len(self._talks) / (time.monotonic() - began)
            while hear(selector, 1.0):
                pass


@contextmanager
def listening(talks: Sequence[Talk]) -> Iterator[selectors.BaseSelector]:
    """All phones' sockets."""
    with selectors.DefaultSelector() as selector:
        for talk in talks:
            for phone in (talk.alice, talk.bob):
                for sock in phone.sockets[: talk.ears]:
                    selector.register(sock, selectors.EVENT_READ, (talk, phone))
        yield selector


def hear(selector: selectors.BaseSelector, seconds: float) -> bool:
    """Take what comes in that time; True: something did."""
    ready = selector.select(seconds)
    for key, _ in ready:
        talk, phone = key.data
        data, source = key.fileobj.recvfrom(2048)  # type: ignore[union-attr]  # sockets are registered
        talk.take(phone, data, Endpoint(*source))
    return bool(ready)


def talking(site: Site, count: int) -> list[Talk]:
    """Calls whose streams are all in the kernel, and settled."""
    talks = [Talk(site, number) for number in range(count)]
    settle(site, talks)
    return talks


def settle(site: Site, talks: Sequence[Talk]) -> None:
    """They talk until all their streams are in the kernel, and settled; there may be no others."""
    with listening(talks) as selector:
        for _ in range(30):
            for talk in talks:
                talk.speak()
            while hear(selector, 0.3):
                pass
            planes = [one["streams"][0].get("plane") for one in site.shown("calls")]
            if set(planes) == {"kernel"}:
                break
        else:
            raise AssertionError(f"not all in the kernel: {planes}")
        end = time.monotonic() + 1.5  # then nobody better can come any more (calls.md 4)
        while time.monotonic() < end:
            hear(selector, 0.1)
    for talk in talks:
        talk.learned()


# -- the attack


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Header(ctypes.Structure):
    """struct msghdr"""

    _fields_ = [
        ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("iov", ctypes.POINTER(_Iovec)),
        ("iov_length", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]  # fmt: skip


class _Message(ctypes.Structure):
    """struct mmsghdr"""

    _fields_ = [("header", _Header), ("sent", ctypes.c_uint)]


_libc = ctypes.CDLL(None, use_errno=True)


class Volley:
    """A packet to each of some targets, sent by one system call (sendmmsg) from one socket."""

    def __init__(self, sock: socket.socket, targets: Sequence[Endpoint], data: bytes) -> None:
        self._sock = sock
        self._data = ctypes.create_string_buffer(data, len(data))
        self._iov = _Iovec(ctypes.addressof(self._data), len(data))
        self._names = [_address(target) for target in targets]
        self._messages = (_Message * len(targets))()
        for message, name in zip(self._messages, self._names, strict=True):
            header = message.header
            header.name, header.name_length = ctypes.addressof(name), len(name)
            header.iov, header.iov_length = ctypes.pointer(self._iov), 1

    def fire(self) -> int:
        """How many packets have left."""
        sent = _libc.sendmmsg(self._sock.fileno(), self._messages, len(self._messages), socket.MSG_DONTWAIT)
        if sent < 0 and ctypes.get_errno() not in (errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return max(int(sent), 0)


def _address(target: Endpoint) -> "ctypes.Array[ctypes.c_char]":
    """struct sockaddr_in"""
    raw = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", target.port, socket.inet_aton(target.address))
    return ctypes.create_string_buffer(raw, len(raw))


class Attack:
    """Packets to all ports of the calls and to ports that are not lent: from elsewhere, and from other ports of the
    phones' own addresses. In a thread, ``rate`` packets a second, or what the machine can."""

    STEP = 0.01

    def __init__(self, site: Site, talks: Sequence[Talk], rate: int) -> None:
        rtp = b"\x80\x00" + bytes(10) + b"evil" * 40
        targets = [target for talk in talks for target in talk.local]
        targets += [Endpoint(RELAY, port) for port in range(20000, 21000, 5)]
        homes = [(site.a, "10.0.1.66"), (site.a, "10.0.1.1"), (site.b, "10.0.2.66"), (site.b, "10.0.2.1")]
        self._sockets = [seat(site.stack, Phone("eve", address), space).sockets[0] for space, address in homes]
        self._volleys = [
            Volley(sock, targets[at : at + 100], data)
            for at in range(0, len(targets), 100)
            for sock in self._sockets
            for data in (rtp, b"\x80\xc9" + bytes(30), b"noise")
        ]
        self._wanted = rate
        self._over = Event()
        self._thread = Thread(target=self._run)
        self.rate = 0.0
        "Packets per second that were really sent."

    def __enter__(self) -> "Attack":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        began, sent, turn = time.monotonic(), 0, 0
        while not self._over.is_set():
            owed = (time.monotonic() - began) * self._wanted - sent
            while owed > 0 and not self._over.is_set():
                fired = self._volleys[turn % len(self._volleys)].fire()
                turn += 1
                sent += fired
                owed -= max(fired, 1)
            time.sleep(self.STEP)
        self.rate = sent / (time.monotonic() - began)
