"""Keep-alives inside a real Kamailio: from the right socket, at the right time, and what becomes of the answers."""

import contextlib
import json
import resource
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.kamailio import EXAMPLE, Kamailio
from lab.netns import wait_until
from mediaproxy.sip.message import Request, parse, response_to
from tests.e2e.pingphones import (
    FIRST,
    LISTEN,
    NAT,
    NATHELPER,
    OTHER,
    PATIENCE,
    REMOVE,
    SECOND,
    SIP,
    SIXTH,
    ZEROS,
    Heard,
    Lasting,
    Registered,
    ask,
    gaps,
    kamailio,
    wait_gone,
)
from tests.kamailiosite import Phone

_SO_TIMESTAMPNS, _TIMESPEC = 35, struct.Struct("@qq")


@pytest.fixture(scope="module")
def every_second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kamailio]:
    folder = tmp_path_factory.mktemp("pings")
    with kamailio(folder, listen=LISTEN, natping_interval=1, sipping_from="sip:ping@sipserver.net") as running:
        yield running
    Lasting.close_all()


def test_four_zero_bytes_every_interval_from_the_socket_of_the_registration(every_second: Kamailio) -> None:
    with Registered(FIRST, "one", NAT) as one, Registered(SECOND, "two", NAT) as two:
        heard = one.steadily(5.2, every_second_one)
        two_heard = two.heard(PATIENCE, enough=2)
    assert {(data, source) for _, data, source in heard} == {(ZEROS, FIRST)}
    assert {(data, source) for _, data, source in two_heard} == {(ZEROS, SECOND)}


def every_second_one(heard: list[Heard]) -> bool:
    """Whether these five seconds had a ping each. The first one may come soon after the registration."""
    return 4 <= len(heard) <= 6 and all(0.7 < gap < 1.3 for gap in gaps([at for at, _, _ in heard])[1:])


def test_ipv6(every_second: Kamailio) -> None:
    with Registered(SIXTH, "six", NAT, contact="<sip:six@[fd00::1]:5060>") as phone:
        assert {(data, source) for _, data, source in phone.heard(PATIENCE, enough=2)} == {(ZEROS, SIXTH)}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_without_received_it_goes_to_the_contact(host: str, every_second: Kamailio) -> None:
    with Lasting(FIRST) as there:
        contact = f"<sip:elsewhere@{host}:{there.port}>"
        with Registered(FIRST, "elsewhere", NAT, headers="X-No-Received: yes\r\n", contact=contact) as phone:
            assert there.receive(PATIENCE) == ZEROS
            assert phone.heard(1.0) == []


def test_nobody_else_is_pinged(every_second: Kamailio) -> None:
    with Registered(FIRST, "public") as public, Registered(FIRST, "sip", SIP) as sip:
        assert public.heard(2.5) == []
        assert sip.heard(0.1) == []


def test_who_unregisters_is_left_alone(every_second: Kamailio) -> None:
    with Registered(FIRST, "leaver", NAT) as phone:
        assert phone.heard(PATIENCE, enough=1)
        phone.headers = "Expires: 0\r\n"
        phone.register()
        wait_until("silence", lambda: not phone.heard(2.5))


def test_options_by_flag(every_second: Kamailio) -> None:
    with Registered(SECOND, "asked", NAT, SIP) as phone:
        heard = phone.steadily(3.2, lambda heard: 2 <= len(heard) <= 4, answer=True)
    assert {source for _, _, source in heard} == {SECOND}
    requests = [parse(data) for _, data, _ in heard]
    assert len({request.call_id for request in requests}) == len(requests)
    for request in requests:
        assert isinstance(request, Request)
        assert (request.method, request.uri_text) == ("OPTIONS", "sip:asked@10.0.0.1:5060;ob")
        assert str(request.from_.uri) == "sip:ping@sipserver.net"
        assert (request.via.host, request.via.port) == SECOND


@pytest.mark.parametrize("status", [200, 404, 483, 501, 100])
def test_answers_are_swallowed(status: int, every_second: Kamailio) -> None:
    """They reach neither the script, nor whom a second Via would name."""
    with Registered(FIRST, "answering", NAT, SIP) as phone, Phone(FIRST) as victim:
        request = phone.request("OPTIONS")
        reply = bytes(response_to(request, status, to_tag="x"))
        more = reply.replace(b"From:", b"Via: SIP/2.0/UDP " + victim.place.encode() + b";branch=z9hG4bKv\r\nFrom:", 1)
        phone.send(reply)
        phone.send(more)
        with pytest.raises(TimeoutError):
            victim.receive(0.5)
        assert request.call_id not in every_second.log
        assert f"REPLY {request.call_id}" not in every_second.log
        phone.send(more.replace(b"Call-ID: natping", b"Call-ID: other"))
        assert victim.receive().startswith(f"SIP/2.0 {status} ".encode())
        every_second.wait_log("REPLY other")


def test_silent_contacts_are_removed_if_their_flag_says_so(every_second: Kamailio) -> None:
    with (
        Registered(FIRST, "dead", NAT, SIP, REMOVE) as dead,
        Registered(FIRST, "tolerated", NAT, SIP) as tolerated,
        Registered(FIRST, "bytes", NAT, REMOVE),
        Registered(FIRST, "living", NAT, SIP, REMOVE) as living,
    ):
        until = time.monotonic() + PATIENCE
        asked, answered = [], 0
        while ask(FIRST, "dead") == 200 or answered < 7:  # longer than the dead one was given
            answered += len(living.heard(0.5, answer=True))
            asked += dead.heard(0.1)
            assert time.monotonic() < until
        assert 3 <= len(asked) <= 5, "three pings, and perhaps one more before it is gone"
        assert [ask(FIRST, user) for user in ("dead", "tolerated", "bytes", "living")] == [404, 200, 200, 200]
        tolerated.heard(0.1)
        assert tolerated.heard(PATIENCE, enough=1)
        every_second.wait_log("dead: sip:dead@10.0.0.1:5060;ob is removed: no answer to 3 pings")
        dead.register()
        assert ask(FIRST, "dead") == 200


def test_one_of_two_contacts_is_removed(every_second: Kamailio) -> None:
    with (
        Registered(FIRST, "pair", NAT, SIP, REMOVE, contact="<sip:pair@10.0.0.1:5060>"),
        Registered(FIRST, "pair", NAT, contact="<sip:pair@10.0.0.2:5060>") as other,
    ):
        every_second.wait_log("sip:pair@10.0.0.1:5060 is removed", PATIENCE)
        assert ask(FIRST, "pair") == 200
        other.heard(0.1)
        assert other.heard(PATIENCE, enough=1)


def test_latin_1_hides_nobody_and_can_be_removed(every_second: Kamailio) -> None:
    with (
        Registered(FIRST, "m\xfcller", NAT, SIP, REMOVE, headers='User-Agent: T\xe4st\x01"\\\r\n') as phone,
        Registered(FIRST, "neighbour", NAT) as neighbour,
    ):
        request = phone.request("OPTIONS")
        assert request.uri_text == "sip:m\xfcller@10.0.0.1:5060;ob"
        assert ask(FIRST, "m\xfcller") == 200
        wait_gone(FIRST, "m\xfcller", PATIENCE)
        neighbour.heard(0.1)
        assert neighbour.heard(PATIENCE, enough=1)


def test_over_tcp_the_open_connection_is_used_and_none_is_opened(every_second: Kamailio) -> None:
    with socket.create_connection(FIRST) as connection, socket.socket() as listener:
        connection.settimeout(PATIENCE)
        port = connection.getsockname()[1]
        connection.sendall(
            b"REGISTER sip:sip.test SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.1:5060;branch=z9hG4bKt\r\n"
            b"From: <sip:t@sip.test>;tag=1\r\nTo: <sip:t@sip.test>\r\nCall-ID: t\r\nCSeq: 1 REGISTER\r\n"
            b"Contact: <sip:t@10.0.0.1:5060;transport=tcp>\r\nX-Flags: 6\r\nContent-Length: 0\r\n\r\n"
        )
        with connection.makefile("rb") as stream:
            assert stream.readline().startswith(b"SIP/2.0 200")
            while stream.readline() != b"\r\n":
                pass  # its headers; it has no body
            assert stream.read(8) == 2 * b"\r\n\r\n"
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()  # by a reset, so that its port is free at once
        time.sleep(0.3)
        # Nobody connects to where it was, although somebody would be there.
        listener.bind(("127.0.0.1", port))
        listener.listen()
        listener.settimeout(3)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_the_script_may_be_loaded_again(every_second: Kamailio) -> None:
    rpc = json.dumps({"jsonrpc": "2.0", "method": "app_python.reload", "id": 1})
    with Registered(FIRST, "patient", NAT) as phone, Registered(FIRST, "talker", NAT, SIP, REMOVE) as talker:
        assert talker.heard(PATIENCE, answer=True, enough=1)
        ask(FIRST, "x", f"X-Rpc: {rpc}\r\n")
        assert len(talker.heard(PATIENCE, answer=True, enough=6)) == 6
        assert ask(FIRST, "talker") == 200
        phone.heard(0.1)
        phone.steadily(3.2, lambda heard: 2 <= len(heard) <= 4)
    assert "REPLY natping" not in every_second.log


def test_none_with_interval_0(tmp_path: Path) -> None:
    with (
        kamailio(tmp_path, listen=[f"udp:127.0.0.1:{OTHER[1]}"], natping_interval=0),
        Registered(OTHER, "a", NAT) as phone,
        Registered(OTHER, "b", NAT, SIP, REMOVE) as asked,
    ):
        assert phone.heard(2.5) == []
        assert asked.heard(0.1) == []


def test_all_contacts_if_the_setting_says_so(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"ping_nated_only": False, "sipping_bflag": 3, "sipping_method": "NOTIFY"}
    with (
        kamailio(tmp_path, listen=[f"udp:127.0.0.1:{OTHER[1]}"], natping_interval=1, **settings),
        Registered(OTHER, "a") as phone,
        Registered(OTHER, "b", "3") as asked,
        Registered(OTHER, "c", "7") as other,
    ):
        assert {data for _, data, _ in phone.heard(PATIENCE, enough=2)} == {ZEROS}
        assert asked.request("NOTIFY").header("event") == "keep-alive"
        assert {data for _, data, _ in other.heard(PATIENCE, enough=2)} == {ZEROS}


def test_what_is_missing_is_told_and_harms_nobody(tmp_path: Path) -> None:
    with kamailio(tmp_path, listen=[f"udp:127.0.0.1:{OTHER[1]}"], without="jsonrpcs", natping_interval=1) as running:
        running.wait_log("the module jsonrpcs is not loaded")
        time.sleep(1.0)
        assert ask(OTHER, "nobody") == 404
        assert running.log.count("the module jsonrpcs is not loaded") == 1


def test_a_native_config_calls_the_same(tmp_path: Path) -> None:
    config = (EXAMPLE / "kamailio.cfg").read_text().replace('cfgengine "python"', "") + NATHELPER
    config += """
loadmodule "kex.so"
request_route {
    force_rport();
    if (is_method("REGISTER")) {
        fix_nated_register(); setbflag(6); setbflag(7); setbflag(8);
        save("location");
        exit;
    }
    if ($rU == $null || lookup("location")) sl_send_reply("200", "Here"); else sl_send_reply("404", "Not Here");
}
onreply_route {
    if (python_exec("natping_reply")) drop;
    xlog("L_INFO", "REPLY $ci\n");
}
route[natping] { python_exec("ksr_rtimer_natping"); }
"""
    config = config.replace("route=ksr_rtimer_natping", "route=natping")
    (tmp_path / "kamailio.cfg").write_text(config)
    script = (
        "import mediaproxy.kamailio\n"
        "def mod_init():\n"
        '    return mediaproxy.kamailio.Module(natping_interval=1, sip_asymmetrics="", rtp_asymmetrics="")\n'
    )
    options = ["-f", str(tmp_path / "kamailio.cfg")]
    with (
        Kamailio(tmp_path, [f"udp:127.0.0.1:{OTHER[1]}"], script=script, options=options) as running,
        Registered(OTHER, "silent") as silent,
        Registered(OTHER, "living") as living,
    ):
        heard = living.heard(PATIENCE, answer=True, enough=5)
        assert len(heard) == 5
        assert {source for _, _, source in heard} == {OTHER}
        assert ask(OTHER, "living") == 200
        assert silent.request("OPTIONS")
        wait_gone(OTHER, "silent", PATIENCE)
        assert "REPLY" not in running.log


def test_many_contacts_are_spread_over_the_interval(tmp_path: Path) -> None:
    count, interval = 2000, 5
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 500), max(hard, count + 500)))
    try:
        with (
            kamailio(tmp_path, listen=[f"udp:127.0.0.1:{OTHER[1]}"], natping_interval=interval),
            contextlib.ExitStack() as stack,
        ):
            phones = [stack.enter_context(Registered(OTHER, f"u{n}", NAT)) for n in range(count)]
            for phone in phones:
                phone.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            time.sleep(2 * interval)  # now all are known, and in their rhythm
            for _ in range(4):  # other work on the machine only ever adds delay, so once is proof
                why_not = uneven(_two_intervals(phones, interval), interval)
                if not why_not:
                    break
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not why_not


def _two_intervals(phones: Sequence[Phone], interval: int) -> dict[int, list[float]]:
    """When each phone was pinged, in seconds from now on."""
    for phone in phones:
        _drain(phone.socket)
    began = time.time()
    while time.time() < began + 2 * interval:
        time.sleep(0.05)
    return {
        n: [at - began for at in _drain(phone.socket) if at < began + 2 * interval] for n, phone in enumerate(phones)
    }


def uneven(times: dict[int, list[float]], interval: int) -> str:
    """What is wrong, if the pings are not spread; else nothing."""
    odd = {n: each for n, each in times.items() if not 1 <= len(each) <= 3}
    if odd:
        return f"not each once in every interval: {odd}"
    if not all(interval - 1 < gap < interval + 1 for each in times.values() for gap in gaps(each)):
        return "not at intervals"
    per_second = Counter(int(at) for each in times.values() for at in each)
    share = len(times) / interval
    even = all(0.7 * share < per_second[second] < 1.3 * share for second in range(1, 2 * interval - 1))
    return "" if even else f"{per_second} of {share:g}"


def _drain(sock: socket.socket) -> list[float]:
    """Take what has come, and when the kernel got it. Not of another Kamailio, that still pings who had the port
    before."""
    times = []
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            _, ancillary, _, source = sock.recvmsg(100, 64)
            ((_, _, at),) = ancillary
            if source == OTHER:
                seconds, nanoseconds = _TIMESPEC.unpack(at)
                times.append(seconds + nanoseconds / 1e9)
    return times
