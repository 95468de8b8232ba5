import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from mediaproxy.endpoint import Endpoint
from mediaproxy.kamailio.answers import Answers
from mediaproxy.kamailio.listeners import Listeners
from mediaproxy.kamailio.sipping import SipPing, token_of
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.message import Request, parse

LOCAL = Endpoint("192.0.2.1", 5060)
TOKEN = "0123456789abcdef"


def ping(**fields: Any) -> SipPing:
    known: dict[str, Any] = {
        "method": "OPTIONS",
        "contact": "sip:alice@10.0.0.1:5060;ob",
        "path": "",
        "sender": "",
        "mark": "natping.1.",
        "token": TOKEN,
        "count": 26,
    }
    return SipPing(**known | fields)


def request(one: SipPing, transport: str = "udp") -> Request:
    message = parse(one.text(LOCAL, transport))
    assert isinstance(message, Request)
    return message


def test_the_request() -> None:
    message = request(ping())
    assert (message.method, message.uri_text) == ("OPTIONS", "sip:alice@10.0.0.1:5060;ob")
    (via,) = message.vias
    assert (via.transport, via.host, via.port) == ("UDP", "192.0.2.1", 5060)
    assert via.branch is not None
    assert via.branch.startswith("z9hG4bK")
    assert via.rport == ""
    assert str(message.from_.uri) == "sip:ping@192.0.2.1"
    assert message.from_.tag
    assert str(message.to.uri) == message.uri_text
    assert message.to.tag == ""
    assert (message.cseq.number, message.cseq.method) == (1, "OPTIONS")
    assert message.header("max-forwards") == "70"
    assert message.content_length == 0
    assert message.header("route") is None


@pytest.mark.parametrize(
    ("fields", "header", "value"),
    [
        ({"sender": "sip:ping@sipserver.net"}, "from", f"<sip:ping@sipserver.net>;tag={TOKEN[:8]}1a"),
        ({"method": "NOTIFY"}, "cseq", "1 NOTIFY"),
        ({"method": "NOTIFY"}, "event", "keep-alive"),
        ({"path": "<sip:198.51.100.7;lr>"}, "route", "<sip:198.51.100.7;lr>"),
        ({"contact": "sip:alice@10.0.0.1?Subject=x"}, "to", "<sip:alice@10.0.0.1>"),
        ({"contact": "sip:al\xefce@10.0.0.1"}, "to", "<sip:al\xefce@10.0.0.1>"),
    ],
)
def test_what_the_operator_and_the_phone_may_change(fields: dict[str, Any], header: str, value: str) -> None:
    assert request(ping(**fields)).header(header) == value


def test_two_pings_differ_where_they_must() -> None:
    one, two = request(ping(count=1)), request(ping(count=2))
    assert one.call_id != two.call_id
    assert one.via.branch != two.via.branch
    assert one.from_.tag != two.from_.tag
    assert request(ping(), "tls").via.transport == "TLS"


@pytest.mark.parametrize(
    "fields",
    [
        {"contact": "tel:+4930123456"},
        {"contact": "sip:a\r\nEvil: yes@10.0.0.1"},
        {"contact": "sip:a@10.0.0.1>"},
        {"contact": ""},
        {"path": "<sip:x>\r\nEvil: yes"},
    ],
)
def test_nothing_is_smuggled_in(fields: dict[str, str]) -> None:
    with pytest.raises(SipError):
        ping(**fields).text(LOCAL, "udp")


@pytest.mark.parametrize(
    ("call_id", "token"),
    [
        (f"natping.1.{TOKEN}.1a", TOKEN),
        (f"natping.1.{TOKEN}.", TOKEN),
        (f"natping.2.{TOKEN}.1a", None),
        (f"natping.1.{TOKEN}", None),
        ("natping.1.0123.1a", None),
        (f"natping.1.{TOKEN}0.1a", None),
        (f"x{TOKEN}", None),
        ("natping.1.", None),
        ("natping.1.\xe4123456789abcdef.1", None),
        ("", None),
    ],
)
def test_an_answer_is_known_by_its_call_id(call_id: str, token: str | None) -> None:
    assert token_of(call_id, "natping.1.") == token
    assert token_of(request(ping()).call_id, "natping.1.") == TOKEN


class TestAnswers:
    """The pipe between Kamailio's processes."""

    @pytest.fixture
    def answers(self) -> Iterator[Answers]:
        with contextlib.closing(Answers()) as answers:
            yield answers

    def test_what_one_process_notes_another_one_takes(self, answers: Answers) -> None:
        assert not answers.shared
        child = os.fork()
        if not child:
            answers.note(TOKEN)
            os._exit(0 if answers.shared else 1)
        assert os.waitpid(child, 0)[1] == 0
        answers.note("f" * 16)
        assert answers.take() == [TOKEN, "f" * 16]
        assert answers.take() == []

    def test_a_full_pipe_stops_nobody(self, answers: Answers) -> None:
        for _ in range(100_000):
            answers.note(TOKEN)
        assert 4000 <= len(answers.take()) < 100_000
        answers.note("f" * 16)
        assert answers.take() == ["f" * 16]

    def test_each_start_has_its_own_mark(self, answers: Answers) -> None:
        with contextlib.closing(Answers()) as other:
            assert answers.mark != other.mark


class TestListeners:
    """Sockets that this process has anyway."""

    def test_a_ping_leaves_from_the_socket_that_is_named(self) -> None:
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        with sockets[0] as one, sockets[1] as two, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
            for each in (one, two, phone):
                each.bind(("127.0.0.1", 0))
                each.settimeout(30)
            listeners = Listeners()
            to = Endpoint(*phone.getsockname())
            for each in (one, two):
                local = listeners.named(f"udp:127.0.0.1:{each.getsockname()[1]}")
                assert local == Endpoint(*each.getsockname())
                listeners.send(local, to, b"\0\0\0\0")
                assert phone.recvfrom(100) == (b"\0\0\0\0", each.getsockname())
            for name in ("udp:127.0.0.1:1", "udp:nonsense", "[not set]", ""):
                assert listeners.named(name) is None
            first = listeners.first(4)
            assert first is not None
            assert first.version == 4
            listeners.close()
            phone.sendto(b"x", one.getsockname())
            assert one.recv(100) == b"x"

    def test_ipv6_in_any_spelling(self) -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
            one.bind(("::1", 0))
            port = one.getsockname()[1]
            listeners = Listeners()
            assert listeners.named(f"udp:[0:0:0:0:0:0:0:1]:{port}") == Endpoint("::1", port)
            listeners.close()
