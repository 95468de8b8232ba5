"""The lists of asymmetric clients in a running edge: changed while it runs, lost, and what they do for phones."""

import asyncio
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mediaproxy.control import MediaRequest
from mediaproxy.edge.settings import EdgeSettings
from tests.edgeserver import Server, running, settings
from tests.sipua import PATIENCE, Phone, sdp

pytestmark = [pytest.mark.usefixtures("no_leaks")]

SIPTONE = "ipDialog SipTone II"
AGENT = [("User-Agent", SIPTONE)]


@pytest.fixture
def sip(tmp_path: Path) -> Path:
    path = tmp_path / "sip-asymmetric-clients"
    path.write_text("# nobody yet\n")
    return path


def with_lists(sip: Path | str = "", rtp: Path | str = "") -> EdgeSettings:
    return settings(sip_asymmetrics=str(sip), rtp_asymmetrics=str(rtp))


async def keeps_its_port(server: Server, phone: Phone) -> bool:
    """Whether the phone is taken for asymmetric now: it registers, and its Contact keeps its port or does not. The
    answer is not waited for: it goes to that port then."""
    sent = phone.request("REGISTER", "sip:example.com", to=f"<{phone.aor}>", headers=AGENT, call_id="reg")
    number = int(sent.get("CSeq").split()[0])
    async with asyncio.timeout(PATIENCE):
        while not (found := [one for one in server.edge.registrations() if one.cseq == number]):
            await asyncio.sleep(0.01)
    port = found[0].contact.rpartition(":")[2]
    assert port in ("5062", str(phone.source.port))
    return port == "5062"


async def becomes(server: Server, phone: Phone, asymmetric: bool) -> None:
    """It must happen within 5 s."""
    async with asyncio.timeout(30):
        while await keeps_its_port(server, phone) is not asymmetric:
            await asyncio.sleep(0.1)


def edited_in_place(path: Path) -> None:
    with path.open("a") as file:
        file.write("ipDialog SipTone.*\n")


def replaced(path: Path) -> None:
    new = path.with_name("new")
    new.write_text("[[:alpha:]]*dialog siptone\n")
    new.replace(path)


def replaced_by_an_older_one(path: Path) -> None:
    new = path.with_name("new")
    new.write_text("^ipDialog\n")
    os.utime(new, (1_000_000_000, 1_000_000_000))
    new.replace(path)


def same_size_and_time(path: Path) -> None:
    status = path.stat()
    path.write_text("SipTone".ljust(status.st_size - 1) + "\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size


@pytest.mark.parametrize(
    "change", [edited_in_place, replaced, replaced_by_an_older_one, same_size_and_time], ids=lambda one: one.__name__
)
async def test_a_list_is_read_again_within_five_seconds(change: Callable[[Path], None], sip: Path) -> None:
    async with running(with_lists(sip)) as server, Phone("alice", server.at(), says="192.168.1.10:5062") as alice:
        assert not await keeps_its_port(server, alice)
        change(sip)
        await becomes(server, alice, True)
        sip.write_text("")
        await becomes(server, alice, False)


async def test_a_lost_list_stays_in_force_and_is_told_once(sip: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mediaproxy")
    sip.write_text("SipTone\n(bad\n")

    def said(level: int) -> list[str]:
        return [one.getMessage() for one in caplog.records if str(sip) in one.getMessage() and one.levelno == level]

    async def told(level: int) -> list[str]:
        """What is said, and more of it if it is said again at the next look."""
        async with asyncio.timeout(30):
            while not said(level):
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.2)
        found = said(level)
        caplog.clear()
        return found

    async with running(with_lists(sip)) as server, Phone("alice", server.at(), says="192.168.1.10:5062") as alice:
        assert await keeps_its_port(server, alice)
        assert await told(logging.WARNING) == [f"{sip}, line 2: '(bad' is skipped: missing )"]
        sip.unlink()
        assert await told(logging.WARNING) == [
            f"{sip}: the list of SIP-asymmetric clients cannot be read: No such file or directory;"
            " the last good one stays in force"
        ]
        assert await keeps_its_port(server, alice)
        os.mkfifo(sip)
        assert len(await told(logging.WARNING)) == 1
        assert await keeps_its_port(server, alice), "the server lives, and the list with it"
        sip.with_name("new").write_text("nobody\n")
        sip.with_name("new").replace(sip)
        await becomes(server, alice, False)
        assert said(logging.INFO)[:2] == [
            f"{sip}: the list of SIP-asymmetric clients can be read again",
            f"{sip}: 1 entry in the list of SIP-asymmetric clients",
        ]


async def test_an_edge_without_lists_says_so_once_and_serves(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mediaproxy")
    async with running() as server, Phone("alice", server.at(), says="192.168.1.10:5062") as alice:
        assert not await keeps_its_port(server, alice)
        await asyncio.sleep(1.2)
    said = [record for record in caplog.records if "asymmetric" in record.getMessage()]
    assert [record.levelno for record in said] == [logging.INFO] * 2
    assert "/etc/openser/sip-asymmetric-clients" in said[0].getMessage()
    assert "/etc/openser/rtp-asymmetric-clients" in said[1].getMessage()


async def test_other_paths_count_from_now_on(sip: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copy(sip, other)
    with other.open("a") as file:
        file.write("siptone\n")
    async with running(with_lists(sip)) as server, Phone("alice", server.at(), says="192.168.1.10:5062") as alice:
        assert not await keeps_its_port(server, alice)
        server.edge.change(with_lists(other))
        assert await keeps_its_port(server, alice)
        server.edge.change(with_lists())
        assert not await keeps_its_port(server, alice)


@pytest.mark.parametrize("nat", [False, True], ids=["public", "behind NAT with a port forward"])
async def test_a_phone_that_listens_elsewhere_is_reached_there(nat: bool, sip: Path) -> None:
    """It registers and calls from one port, and hears on another: requests, and answers to its own."""
    sip.write_text("siptone\n")
    async with (
        running(with_lists(sip)) as server,
        Phone("alice", server.at()) as ear,
        Phone("bob", server.at()) as bob,
    ):
        address = "192.168.1.10" if nat else "127.0.0.1"
        async with Phone("alice", server.at(), says=f"{address}:{ear.source.port}") as mouth:
            mouth.request("REGISTER", "sip:example.com", to=f"<{mouth.aor}>", headers=AGENT)
            await ear.receive(200)
            await bob.register()
            invite = bob.request("INVITE", mouth.aor, body=sdp())
            got = await ear.receive("INVITE")
            assert got.start == f"INVITE sip:alice@127.0.0.1:{ear.source.port} SIP/2.0"
            mouth.answer(got, 200, sdp(), headers=[("Server", SIPTONE)])
            ok = await bob.receive(200, "INVITE")
            assert ok.contact == f"sip:alice@127.0.0.1:{ear.source.port}"
            bob.within("ACK", ok, cseq=int(invite.get("CSeq").split()[0]))
            await ear.receive("ACK")
            bob.within("BYE", ok)
            mouth.answer(await ear.receive("BYE"), 200)
            await bob.receive(200, "BYE")
            assert mouth.unread() == []


async def test_the_media_arm_is_told_who_is_rtp_asymmetric(tmp_path: Path) -> None:
    rtp = tmp_path / "rtp"
    rtp.write_text("siptone\n")
    async with (
        running(with_lists(rtp=rtp)) as server,
        Phone("alice", server.at()) as alice,
        Phone("bob", server.at()) as bob,
    ):
        await bob.register()
        alice.request("INVITE", bob.aor, body=sdp(), headers=AGENT)
        bob.answer(await bob.receive("INVITE"), 200, sdp())
        await alice.receive(200)
        assert [question.asymmetric for question in server.link.of(MediaRequest)] == [True, False]
