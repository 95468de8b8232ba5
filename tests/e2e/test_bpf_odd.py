"""The kernel program and packets that are not the usual ones, on real interfaces."""

import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from msgspec.structs import replace as change

from lab.netns import Namespace
from mediaproxy.endpoint import Endpoint
from mediaproxy.relay.bpf import syscalls
from mediaproxy.relay.slots import Reason
from tests.e2e.bpfhouse import ALICE, ALICE6, BOB, PORTS, House
from tests.e2e.conftest import need
from tests.packets.datagram import Datagram, ones_sum, rtp
from tests.packets.table import A6, B6, RELAY4, RELAY6, A, B, call, leg

CALL = call(alice=ALICE, bob=BOB)
VOICE = Datagram(source=ALICE, destination=A, payload=rtp())
_UDP_SEGMENT = 103
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x400454CA, 0x0001, 0x1000, 0x4000


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    need()
    with House() as built:
        built.attach()
        built.install(CALL)
        yield built


class Counted:
    """What was counted since."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.before = house.kernel.totals()

    def since(self) -> dict[Reason, int]:
        now = self.house.kernel.totals()
        return {reason: now[reason] - self.before[reason] for reason in Reason if now[reason] != self.before[reason]}


def inject(space: Namespace, frame: bytes) -> None:
    """Send a frame out of a host's interface as it is."""
    with space.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", 0))
        sock.send(frame)


def addresses(house: House) -> bytes:
    """The Ethernet addresses of a frame from host a to the relay."""
    return bytes.fromhex(mac(house.relay, "to-a") + mac(house.a, "eth0"))


def mac(space: Namespace, name: str) -> str:
    """The Ethernet address of an interface."""
    return space.run("ip", "-br", "link", "show", "dev", name).split()[2].replace(":", "")


def test_vlan_tags_are_left_to_their_interface_and_priorities_are_none(house: House) -> None:
    listener = house.phone(BOB)
    ethernet, counted = addresses(house), Counted(house)
    inject(house.a, ethernet + struct.pack("!HH", 0x8100, 0xA005) + VOICE.frame()[12:])
    inject(house.a, ethernet + struct.pack("!HH", 0x8100, 0xA000) + VOICE.frame()[12:])
    assert listener.recv(2048) == VOICE.payload
    assert counted.since() == {Reason.VLAN: 1, Reason.FORWARDED: 1}
    listener.close()


def test_frames_for_other_hosts_are_not_ours(house: House) -> None:
    counted, ethernet = Counted(house), addresses(house)
    inject(house.a, b"\x02\x00\x00\x00\x00\x99" + VOICE.frame(ethernet)[6:])
    inject(house.a, VOICE.frame(ethernet))
    wait(lambda: counted.since() == {Reason.FORWARDED: 1})


def wait(condition: object, seconds: float = 30.0) -> None:
    """Until it is true."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.01)


def test_fragments_reach_the_socket_whole(house: House) -> None:
    sockets, talker, counted = house.listen(), house.phone(ALICE), Counted(house)
    talker.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: fragments may be sent
    talker.sendto(rtp(size=4000), (A.address, A.port))
    data, source = sockets[4].recvfrom(8192)
    assert data == rtp(size=4000)
    assert source == (ALICE.address, ALICE.port)
    assert counted.since() == {Reason.UP_FRAGMENT: 1, Reason.FRAGMENT: 2}
    talker.close()


def test_options_reach_the_socket(house: House) -> None:
    sockets, talker, counted = house.listen(), house.phone(ALICE), Counted(house)
    talker.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x94\x04\0\0")  # router alert
    talker.sendto(rtp(), (A.address, A.port))
    assert sockets[4].recv(2048) == rtp()
    assert counted.since() == {Reason.UP_OPTIONS: 1}
    talker.close()


def test_ttl_1_ends_here(house: House) -> None:
    talker, counted = house.phone(ALICE), Counted(house)
    talker.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
    talker.sendto(rtp(), (A.address, A.port))
    wait(lambda: counted.since() == {Reason.TTL: 1})
    talker.close()


def test_datagrams_that_the_kernel_carries_as_one_are_counted_apart(house: House) -> None:
    talker, listener = house.phone(ALICE), house.phone(BOB)
    index = PORTS.index(A)
    assert index is not None
    before = house.kernel.counters.read(index)
    talker.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, 172)
    talker.sendto(b"".join(rtp(1000 + number) for number in range(5)), (A.address, A.port))
    for number in range(5):
        assert listener.recv(2048) == rtp(1000 + number)
    after = house.kernel.counters.read(index)
    assert after["packets"] - before["packets"] == 5
    assert after["rtp"] - before["rtp"] == 5
    assert after["sequence"] == 1004
    talker.close()
    listener.close()


@pytest.mark.parametrize("version", [4, 6])
def test_a_phone_on_the_relays_host(house: House, version: int) -> None:
    """A media server beside the relay, for example: the packet comes from outside and goes to a local socket."""
    flows, alice, a, b, beside = {
        4: (call, ALICE, A, B, Endpoint(RELAY4, 30000)),
        6: (call, ALICE6, A6, B6, Endpoint(RELAY6, 30000)),
    }[version]
    house.install(flows(a=a, b=b, alice=alice, bob=beside))
    talker, listener = house.phone(alice), house.phone(beside, house.relay)
    talker.sendto(rtp(), (a.address, a.port))
    data, source = listener.recvfrom(2048)
    assert (data, source[:2]) == (rtp(), (b.address, b.port))
    listener.sendto(rtp(2), (b.address, b.port))
    assert talker.recv(2048) == rtp(2)
    talker.close()
    listener.close()
    house.install(CALL)


@pytest.mark.parametrize("version", [4, 6])
def test_two_phones_on_the_relays_host(house: House, version: int) -> None:
    address, a, b = {4: (RELAY4, A, B), 6: (RELAY6, A6, B6)}[version]
    one, other = Endpoint(address, 30000), Endpoint(address, 30002)
    house.install(call(a=a, b=b, alice=one, bob=other))
    talker, listener = house.phone(one, house.relay), house.phone(other, house.relay)
    talker.sendto(rtp(), (a.address, a.port))
    assert listener.recv(2048) == rtp()
    listener.sendto(rtp(2), (b.address, b.port))
    assert talker.recv(2048) == rtp(2)
    talker.close()
    listener.close()
    house.install(CALL)


def test_two_versions_on_the_relays_host(house: House) -> None:
    one, other = Endpoint(RELAY4, 30000), Endpoint(RELAY6, 30002)
    house.install(call(b=B6, alice=one, bob=other))
    talker, listener = house.phone(one, house.relay), house.phone(other, house.relay)
    talker.sendto(rtp(), (A.address, A.port))
    assert listener.recv(2048) == rtp()
    listener.sendto(rtp(2), (B6.address, B6.port))
    assert talker.recv(2048) == rtp(2)
    talker.close()
    listener.close()
    house.install(CALL)


def test_two_legs_that_meet_here(house: House) -> None:
    """Alice's callee is the caller of another call of this relay: one packet, two calls, one way through the kernel."""
    c, d = B.with_port(20004), B.with_port(20006)
    flows = (leg(A, ALICE, B), leg(B, c, A), leg(c, B, d), leg(d, BOB, c))
    house.install(flows, own=True)
    talker, listener, wire, counted = house.phone(ALICE), house.phone(BOB), house.wire(house.b), Counted(house)
    talker.sendto(rtp(), (A.address, A.port))
    assert listener.recv(2048) == rtp()
    caught = wire.next()
    assert caught.ttl == 62
    assert caught.right
    assert counted.since() == {Reason.FORWARDED: 1}
    listener.sendto(rtp(5), (d.address, d.port))
    assert talker.recv(2048) == rtp(5)
    house.kernel.slots.free(PORTS.index(c) or 0)
    house.install(CALL)
    talker.close()
    listener.close()


def test_without_a_process_learned_flows_flow_and_others_hear_nothing(house: House) -> None:
    house.install(CALL)
    talker, listener = house.phone(ALICE), house.phone(BOB)
    stranger = house.phone(ALICE.with_port(6666), house.a)
    stranger.connect((A.address, A.port))  # so that an ICMP error would be told
    counted = Counted(house)
    house.kernel.beat(1)
    try:
        stranger.send(b"is anybody there?")
        talker.sendto(rtp(7), (A.address, A.port))
        assert listener.recv(2048) == rtp(7)
        assert counted.since() == {Reason.NO_PROCESS: 1, Reason.FORWARDED: 1}
        stranger.settimeout(0.2)
        with pytest.raises(TimeoutError):
            stranger.recv(100)
    finally:
        house.kernel.beat(time.monotonic_ns() + 3600 * 10**9)
    for sock in (talker, listener, stranger):
        sock.close()


def test_dscp_of_the_policy(house: House) -> None:
    house.install((CALL[0], change(CALL[1], tos=0xB8)))
    talker, wire = house.phone(ALICE), house.wire(house.b)
    talker.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x29)
    talker.sendto(rtp(), (A.address, A.port))
    caught = wire.next()
    assert caught.tos == 0xB9
    assert caught.right
    house.install(CALL)
    talker.close()


def _instruction(code: int, to: int, from_: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, to | from_ << 4, offset, value)


_MOVE, _MOVE_REGISTER, _STORE, _LOAD, _JUMP_IF_0, _EXIT = 0xB7, 0xBF, 0x63, 0x61, 0x15, 0x95
"Instructions of BPF; the context is in register 1, the result in register 0."
_MARK, _QUEUE_MAPPING = 8, 12
"Offsets in struct __sk_buff."
_MARKS = (
    _instruction(_MOVE, 2, value=7) + _instruction(_STORE, 1, 2, _MARK)
    + _instruction(_MOVE, 2, value=3) + _instruction(_STORE, 1, 2, _QUEUE_MAPPING)
    + _instruction(_MOVE, 0, value=-1) + _instruction(_EXIT, 0)
)  # fmt: skip
"Another program's: marks every packet and asks for a queue."
_REFUSES = (
    _instruction(_LOAD, 2, 1, _QUEUE_MAPPING) + _instruction(_LOAD, 3, 1, _MARK)
    + _instruction(0x4F, 2, 3)  # 2 |= 3
    + _instruction(_MOVE, 0, value=-1) + _instruction(_JUMP_IF_0, 2, offset=1)
    + _instruction(_MOVE, 0, value=2) + _instruction(_EXIT, 0)
)  # fmt: skip
"Drops what has a mark or a queue."
_SCHED_CLS, _TCX_INGRESS, _TCX_EGRESS = 3, 46, 47


def test_mark_and_queue_mapping_are_reset() -> None:
    """Other programs meant them for the packet that came: Cilium's marks lead astray, and a queue may not be there."""
    need()
    with House() as house, ExitStack() as stack:

        def hang(name: str, code: bytes, hook: int) -> None:
            with house.relay.inside():
                program, _ = syscalls.program_load("other", _SCHED_CLS, code, "GPL", hook)
                stack.callback(os.close, program)
                stack.callback(os.close, syscalls.link_create(program, socket.if_nametoindex(name), hook))

        talker, listener = house.phone(ALICE), house.phone(BOB)
        beside = house.phone(Endpoint(RELAY4, 5060), house.relay)
        talker.sendto(b"so that Ethernet addresses are known", (RELAY4, 5060))
        assert beside.recv(2048)
        hang("to-a", _MARKS, _TCX_INGRESS)
        house.attach("to-a")
        hang("to-a", _REFUSES, _TCX_INGRESS)
        hang("to-b", _REFUSES, _TCX_EGRESS)
        house.install(CALL)
        talker.sendto(b"not for the relay", (RELAY4, 5060))
        talker.sendto(rtp(), (A.address, A.port))
        assert listener.recv(2048) == rtp()
        beside.settimeout(0.2)
        with pytest.raises(TimeoutError):  # else the others do nothing, and this test proves nothing
            beside.recv(2048)


def test_loss_and_jitter(house: House) -> None:
    """RFC 3550: jitter of packets that come 20 ms apart but say 10 ms, of which every fifth is lost."""
    index = PORTS.index(A)
    assert index is not None
    for generation in range(77, 82):  # the machine may do something else between a look at the clock and a packet
        house.install((change(CALL[0], generation=generation), change(CALL[1], peer_generation=generation)))
        expected = _uneven(house)
        counters = counted(house, index, generation, 32)
        assert counters["lost"] == 7, "the last one lost is not known yet"
        assert counters["jitter"] / 16 > 5_000_000
        if counters["jitter"] / 16 == pytest.approx(expected, abs=1_000_000):
            break
    else:
        raise AssertionError(f"{counters['jitter'] / 16}, not {expected} ns")
    house.install(CALL)


def test_a_digit_is_no_jitter(house: House) -> None:
    """Packets of an event have the timestamp of its beginning (RFC 4733 §2.5.1)."""
    index = PORTS.index(A)
    assert index is not None
    for generation in range(87, 92):  # as above
        comes = change(CALL[0], generation=generation, clocks=((0, 8000), (101, 8000)))
        house.install((comes, change(CALL[1], peer_generation=generation)))
        talker, start = house.phone(ALICE), time.monotonic()
        for number in range(30):
            time.sleep(max(0.0, start + number * 0.02 - time.monotonic()))
            digit = 5 <= number < 20
            payload = rtp(number, payload_type=101 if digit else 0, timestamp=160 * (5 if digit else number))
            talker.sendto(payload, (A.address, A.port))
        talker.close()
        counters = counted(house, index, generation, 30)
        assert counters["lost"] == 0
        if 0 < counters["jitter"] / 16 < 8_000_000:  # 300 ms too late would be 18 ms
            break
    else:
        raise AssertionError(f"{counters['jitter'] / 16} ns")
    house.install(CALL)


def counted(house: House, index: int, generation: int, packets: int) -> dict[str, int]:
    """What a port has counted when so many packets of RTP have come to it, and no more."""
    wait(lambda: house.kernel.counters.read(index)["generation"] == generation)
    wait(lambda: house.kernel.counters.read(index)["rtp"] == packets)
    return house.kernel.counters.read(index)


def _uneven(house: House) -> float:
    """Alice sends such packets; the jitter that their times make, in nanoseconds."""
    talker = house.phone(ALICE)
    jitter, last, timestamp = 0.0, None, 0
    for sequence in range(40):
        if sequence % 5 == 4:
            continue
        now = time.monotonic_ns()
        timestamp += 80  # 10 ms of 8 kHz
        if last is not None:
            jitter += (abs(now - last - 10_000_000) - jitter) / 16
        last = now
        talker.sendto(rtp(sequence, timestamp=timestamp), (A.address, A.port))
        time.sleep(0.02)
    talker.close()
    return jitter


PHONE = Endpoint("198.51.101.1", 4000)
"In a tunnel."


@contextmanager
def tunnel(house: House) -> Iterator[int]:
    """A tunnel to the phone, whose packets are written to a file, each behind a struct virtio_net_hdr."""
    name = "tun-mp"
    with house.relay.inside():
        fd = os.open("/dev/net/tun", os.O_RDWR)
        request = struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR)
        fcntl.ioctl(fd, _TUNSETIFF, request.ljust(40, b"\0"))
    try:
        house.relay.ip(f"link set {name} up", f"address add 198.51.101.254/24 dev {name}")
        house.attach(name)
        house.install(call(alice=PHONE, bob=BOB))
        house.offload(house.relay, "to-b", tx=False)
        yield fd
    finally:
        house.attachments.pop().close()
        os.close(fd)
        house.offload(house.relay, "to-b", tx=True)
        house.install(CALL)


@pytest.mark.parametrize("checked", [False, True])
def test_a_tunnel_without_ethernet_headers(house: House, checked: bool) -> None:
    """Alice comes through a VPN whose interface has no Ethernet header; its driver may have checked her checksum
    (CHECKSUM_UNNECESSARY)."""
    listener, wire = house.phone(BOB), house.wire(house.b)
    with tunnel(house) as fd:
        header = bytes([2 if checked else 0]) + bytes(9)  # VIRTIO_NET_HDR_F_DATA_VALID
        os.write(fd, header + Datagram(source=PHONE, destination=A, payload=rtp()).ip)
        data, source = listener.recvfrom(2048)
        assert (data, source) == (rtp(), (B.address, B.port))
        assert wire.next().right
    listener.close()


def test_datagrams_that_a_virtual_card_hands_over_as_one_are_counted_apart(house: House) -> None:
    """It says how long each is, but not how many there are."""
    index = PORTS.index(A)
    assert index is not None
    listener = house.phone(BOB)
    talk = [rtp(number) for number in range(1, 5)] + [rtp(5)[:100]]
    with tunnel(house) as fd:
        before = house.kernel.counters.read(index)
        ip = bytearray(Datagram(source=PHONE, destination=A, payload=b"".join(talk)).ip)
        length = len(ip) - 20
        ip[26:28] = ones_sum(bytes(ip[12:20]) + struct.pack("!HH", socket.IPPROTO_UDP, length)).to_bytes(2, "big")
        # VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_UDP_L4, headers, length of each, where the checksum is
        os.write(fd, struct.pack("=BBHHHH", 1, 5, 28, len(talk[0]), 20, 6) + ip)
        assert [listener.recv(2048) for _ in talk] == talk
        after = house.kernel.counters.read(index)
    assert (after["packets"] - before["packets"], after["rtp"] - before["rtp"]) == (5, 5)
    assert after["bytes"] - before["bytes"] == sum(map(len, talk)) and after["sequence"] == 5
    listener.close()
