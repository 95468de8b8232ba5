"""bench/: the form of its lines, and that what is measured is done. Measuring itself is no test."""

from pathlib import Path

import pytest

from bench import doors, functions, kemi
from bench.messages import SERVER, cases, ours
from bench.report import HEAD, alone, figure, line
from mediaproxy.config import loads
from mediaproxy.server.assembly import Server
from mediaproxy.server.places import Places
from tests.test_server_doors import asker


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (4.567, "4.57"), (99.4, "99.4"), (312.4, "312"), (12345.6, "12 300"), (999_600, "1 000 000")],
    ids=str,
)
def test_three_digits_that_mean_something(value: float, text: str) -> None:
    assert figure(value) == text


def test_a_line_names_value_unit_rival_and_ratio_under_the_head() -> None:
    said = line("calls", 300, "calls/s", "Kamailio", 1000)
    assert said.split() == ["calls", "300", "calls/s", "1", "000", "0.30", "Kamailio"]
    assert said.index("Kamailio") == HEAD.index("rival's name")
    assert said.startswith(alone("calls", 300, "calls/s"))


def test_every_copy_of_an_invite_is_another_phones() -> None:
    todo = cases(copies=20)
    assert len({case.data for case in todo}) == len({case.arrival for case in todo}) == len(todo) >= 60
    assert cases(copies=20) == todo, "the same in every run"


def test_what_is_measured_is_done() -> None:
    for case in cases(copies=5):
        sent, source = ours(case), case.arrival.source
        head, _, sdp = sent.partition(b"\r\n\r\n")
        (contact,) = [field for field in head.split(b"\r\n") if field.startswith(b"Contact:")]
        assert f"@{source}>".encode() in contact
        assert f"c=IN IP4 {SERVER.address}\r\n".encode() in sdp and b"m=audio 30000 RTP/" in sdp
        assert f"Content-Length: {len(sdp)}".encode() in head.replace(b":   ", b": ")


def test_each_function_is_timed() -> None:
    took = functions.in_process(cases(copies=2))
    assert tuple(took) == functions.FUNCTIONS and all(seconds > 0 for seconds in took.values())


def test_what_kamailio_loads_is_python() -> None:
    names = {"ours": functions.FUNCTIONS, "theirs": functions.RIVALS}
    for script in (
        functions.SCRIPT.format(**names, result="/tmp/result", path="/tmp/socket"),
        kemi.SCRIPT.format(folder="/tmp", path="/tmp/socket"),
    ):
        compile(script, "script.py", "exec")


async def test_ng_requests_of_the_benchmark_set_up_a_call_and_end_it(tmp_path: Path) -> None:
    config = loads(doors.CONFIGURATION.format(folder=tmp_path, address="127.0.0.1").replace(":2223", ":0"))
    async with Server(config, Places.of(config)) as server:
        with asker(server) as sip:
            for request in doors.requests("call"):
                keys = {name.replace(" ", "_"): value for name, value in request.items() if name != "command"}
                assert (await sip.ask(str(request["command"]), **keys))["result"] == "ok"
            assert (await sip.ask("list"))["calls"] == []
