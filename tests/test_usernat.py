"""The NATs in user space behave as symmetric ones, on real loopback sockets."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab import capture
from lab.usernat import UserNats

NET = f"127.{os.getpid() // 250 % 250 + 2}.{os.getpid() % 250 + 2}"
PHONE, STRANGER, WAN, SERVER, WORLD = (f"{NET}.{host}" for host in (1, 3, 101, 10, 20))
PORTS = (20100, 20102)


def udp(stack: ExitStack, address: str, port: int = 0) -> socket.socket:
    sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.bind((address, port))
    sock.settimeout(2.0)
    return sock


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_every_destination_gets_a_mapping_of_its_own_that_only_it_may_use(stack: ExitStack, tmp_path: Path) -> None:
    servers = [udp(stack, SERVER, port) for port in PORTS]
    phone = udp(stack, PHONE)
    nats = stack.enter_context(UserNats({PHONE: WAN}, world=WORLD, server=SERVER, ports=PORTS))
    nats.capture_to(tmp_path / "wire.pcap")

    mapped = []
    for server, port in zip(servers, PORTS, strict=True):
        phone.sendto(b"out", (WORLD, port))
        data, source = server.recvfrom(100)
        assert (data, source[0]) == (b"out", WAN)
        mapped.append(source)
    assert mapped[0] != mapped[1]

    servers[1].sendto(b"intruder", mapped[0])
    servers[0].sendto(b"answer", mapped[0])
    assert phone.recvfrom(100) == (b"answer", (WORLD, PORTS[0]))

    nats.capture_to(None)
    passed = [(one.source, one.target, one.payload) for one in capture.read(tmp_path / "wire.pcap")]
    assert passed == [
        (mapped[0], (SERVER, PORTS[0]), b"out"),
        (mapped[1], (SERVER, PORTS[1]), b"out"),
        ((SERVER, PORTS[0]), mapped[0], b"answer"),
    ]


def test_who_lives_in_no_home_is_not_carried(stack: ExitStack) -> None:
    server, stranger, phone = udp(stack, SERVER, PORTS[0]), udp(stack, STRANGER), udp(stack, PHONE)
    stack.enter_context(UserNats({PHONE: WAN}, world=WORLD, server=SERVER, ports=PORTS))
    stranger.sendto(b"stranger", (WORLD, PORTS[0]))
    phone.sendto(b"phone", (WORLD, PORTS[0]))
    assert server.recvfrom(100)[0] == b"phone"


def test_an_address_in_use_is_told_and_nothing_stays_open(stack: ExitStack) -> None:
    udp(stack, WORLD, PORTS[1])
    with pytest.raises(OSError, match="in use"):
        UserNats({}, world=WORLD, server=SERVER, ports=PORTS)
    udp(stack, WORLD, PORTS[0])
