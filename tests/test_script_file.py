"""The file of the routing script: in a running edge with real sockets, and at the command line."""

import asyncio
import logging
import os
import re
from pathlib import Path

import pytest

from mediaproxy.control import MediaRequest
from mediaproxy.edge.effects import Trouble
from mediaproxy.edge.script.loading import default_text
from mediaproxy.edge.script.trouble import Troubles
from mediaproxy.edge.service import EdgeError
from tests.edgeserver import running, settings
from tests.sipua import Phone, sdp
from tests.test_cli import cli, write_config
from tests.test_cli import running as process_running

LIMIT = 8.0
"Seconds that a changed file may take: it is looked at every second, and left alone while it is being written."


def answering(status: int) -> str:
    return f"def request_route(msg):\n    if msg.method == 'REGISTER': save()\n    else: sl_send_reply({status})\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "routing.py"


async def until(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Wait for a line of the log."""
    async with asyncio.timeout(LIMIT):
        while text not in caplog.text:
            await asyncio.sleep(0.05)


async def asked(phone: Phone, status: int) -> None:
    """A request is answered with this."""
    phone.request("MESSAGE", "sip:bob@example.com")
    await phone.receive(status, "MESSAGE")
    assert phone.unread() == []


@pytest.mark.usefixtures("no_leaks")
async def test_a_script_is_read_again_and_the_old_one_stays_if_it_is_wrong(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file.write_text(answering(480))
    async with running(settings(script=str(file))) as server, Phone("alice", server.at()) as alice:
        assert f"script {file} loaded" in caplog.text
        await asked(alice, 480)
        # replaced, by something wrong
        other = file.with_suffix(".new")
        other.write_text("def request_route(msg):\n    pass\n    fix_contact(1)\n")
        other.replace(file)
        await until(caplog, "the one before stays in force")
        assert f"{file}:3: fix_contact(): too many positional arguments" in caplog.text
        await asked(alice, 480)
        # edited in place, with the time of last week
        caplog.clear()
        file.write_text(answering(486))
        os.utime(file, (1, 1))
        await until(caplog, f"script {file} loaded")
        await asked(alice, 486)
        # gone
        file.unlink()
        await until(caplog, "the last good one stays in force")
        await asked(alice, 486)


@pytest.mark.both_loops
@pytest.mark.usefixtures("no_leaks")
async def test_a_call_lives_on_while_its_script_is_replaced(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The INVITE waits for the media arm, rings, and is answered under three scripts."""
    caplog.set_level(logging.INFO)
    file.write_text(default_text())
    async with (
        running(settings(script=str(file), question_timeout=30.0)) as server,
        Phone("alice", server.at()) as alice,
        Phone("bob", server.at()) as bob,
    ):
        await bob.register()
        server.link.gate = asyncio.Event()
        alice.request("INVITE", bob.aor, body=sdp())
        await server.link.wait_for(lambda: len(server.link.questions) == 1)
        caplog.clear()
        file.write_text(default_text().replace("def onreply_route(msg):", "def onreply_route(msg):\n    log('second')"))
        await until(caplog, "loaded")
        server.link.gate.set()
        got = await bob.receive("INVITE")
        bob.answer(got, 180)
        await alice.receive(180)
        assert "second" in caplog.text
        caplog.clear()
        file.write_text(default_text() + "\n")
        await until(caplog, "loaded")
        bob.answer(got, 200, sdp(port=5000))
        ok = await alice.receive(200, "INVITE")
        alice.within("ACK", ok, cseq=1)
        await bob.receive("ACK")
        alice.within("BYE", ok)
        bob.answer(await bob.receive("BYE"), 200)
        await alice.receive(200, "BYE")
        assert "ERROR" not in caplog.text


@pytest.mark.both_loops
@pytest.mark.usefixtures("no_leaks")
async def test_mistakes_are_logged_at_a_bounded_rate(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text("def helper():\n    1 / 0\ndef request_route(msg):\n    log('caf\\xe9\\n')\n    helper()\n")
    caplog.set_level(logging.INFO)
    async with running(settings(script=str(file))) as server, Phone("alice", server.at()) as alice:
        for _ in range(20):
            await asked(alice, 500)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert lines == [f"{file}:2: request_route: ZeroDivisionError: division by zero"] * 5
    assert caplog.text.count("café") == 20 and "café\\x0a" in caplog.text, "on one line"


def test_what_is_not_logged_is_counted() -> None:
    troubles = Troubles(2)
    one, other = Trouble("r.py:1", "r.py:1: x"), Trouble("r.py:2", "r.py:2: y")
    assert [troubles.note(one, 0.0) for _ in range(4)] == [["r.py:1: x"], ["r.py:1: x"], [], []]
    assert troubles.note(other, 1.0) == ["r.py:2: y"]
    assert troubles.summary(59.0) == []
    assert troubles.note(one, 60.0) == ["r.py:1: 2 more like these in 60 s", "r.py:1: x"]


@pytest.mark.both_loops
@pytest.mark.usefixtures("no_leaks")
async def test_the_server_ends_while_a_hundred_scripts_wait(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text(default_text())
    async with (
        running(settings(script=str(file))) as server,
        Phone("alice", server.at()) as alice,
        Phone("bob", server.at()) as bob,
    ):
        await bob.register()
        server.link.gate = asyncio.Event()
        for _ in range(100):
            alice.request("INVITE", bob.aor, body=sdp())
        await server.link.wait_for(lambda: len(server.link.of(MediaRequest)) == 100)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_broken_or_missing_script_keeps_the_edge_from_starting(file: Path) -> None:
    with pytest.raises(EdgeError, match=re.escape(f"{file}: the routing script cannot be read: No such file")):
        async with running(settings(script=str(file))):
            pass
    file.write_text("def request_route(msg):\n    setflag(99)\n")
    with pytest.raises(EdgeError, match=re.escape(f"{file}:2: setflag(99): expected a flag")):
        async with running(settings(script=str(file))):
            pass


# -- the command line


def test_the_default_script_is_printed_and_good(tmp_path: Path) -> None:
    printed = cli("script", home=tmp_path)
    assert (printed.returncode, printed.stdout) == (0, default_text())
    (tmp_path / "mine.py").write_text(printed.stdout)
    done = cli("script", "--check", "mine.py", home=tmp_path)
    assert (done.returncode, done.stdout) == (0, "mine.py: good\n")


def test_every_mistake_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def failure_route():\n    fix_contact()\n    t_rely()\n")
    done = cli("script", "--check", "mine.py", home=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "mediaproxy: mine.py:2: fix_contact() cannot be called from failure_route, only from request_route,"
        " onreply_route, branch_route\n"
        "mediaproxy: mine.py:3: there is no function t_rely; did you mean t_relay?\n"
    )
    done = cli("script", "--check", "none.py", home=tmp_path)
    assert (done.returncode, done.stderr) == (
        1,
        "mediaproxy: none.py: the routing script cannot be read: No such file or directory\n",
    )


def test_run_with_a_script(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def request_route(:\n")
    config = write_config(tmp_path)
    done = cli("run", "--config", str(config), "--script", "bad.py", home=tmp_path)
    assert done.returncode == 1 and "mediaproxy: bad.py:1: no Python: " in done.stderr
    config.write_text(config.read_text() + 'script = "bad.py"\n')
    done = cli("run", "--config", str(config), home=tmp_path.parent)
    assert done.returncode == 1 and f"mediaproxy: {tmp_path}/bad.py:1: " in done.stderr, "from the file's directory"
    done = cli("config", "--check", str(config), home=tmp_path)
    assert done.returncode == 1 and f"mediaproxy: {tmp_path}/bad.py:1: " in done.stderr
    good = tmp_path / "good.py"
    good.write_text(default_text())
    with process_running(tmp_path, "--script", str(good)) as server:
        assert f"script {good} loaded" in server.end()
    config.write_text(f'runtime_dir = "{tmp_path}/run"\nstate_dir = "{tmp_path}/state"\n[edge]\nenabled = false\n')
    done = cli("run", "--config", str(config), "--script", str(good), home=tmp_path)
    assert done.returncode == 1 and "there is no SIP here (edge.enabled = false)" in done.stderr
