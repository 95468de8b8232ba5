"""The location table: what a restart keeps, and that a bad disk gives a clear error and no broken server."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.edge.binding import Binding
from mediaproxy.edge.location import SCHEMA, Location, LocationError
from mediaproxy.endpoint import Endpoint

NOW = 1_700_000_000.0
ALICE = "sip:alice@example.com"


def binding(**change: Any) -> Binding:
    fields: dict[str, Any] = {
        "aor": ALICE,
        "contact": "sip:alice@203.0.113.7:40000",
        "sent": "<sip:alice@192.168.1.10:5060>",
        "received": Endpoint("203.0.113.7", 40000),
        "transport": "udp",
        "local": Endpoint("198.51.100.1", 5060),
        "expires": NOW + 3600,
        "call_id": "c1",
        "cseq": 1,
        "nat": True,
    }
    return Binding(**(fields | change))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "location.db"


@pytest.fixture
def location(path: Path) -> Iterator[Location]:
    table = Location.open(path, NOW)
    yield table
    table.close()


FULL = binding(
    path=("<sip:edge.example.net;lr;ob>", "<sip:p2.example.net;lr>"),
    q=0.5,
    user_agent="Caf\xe9 \x00 phone",
    instance="<urn:uuid:00000000-0000-1000-8000-000A95A0E128>",
    reg_id="1",
    sip_ping=True,
    remove_lost=True,
    asymmetric=True,
)


@pytest.mark.parametrize("saved", [binding(), FULL], ids=["plain", "everything"])
def test_a_restart_forgets_no_udp_phone(path: Path, saved: Binding) -> None:
    before = Location.open(path, NOW)
    before.save(saved)
    before.close()
    after = Location.open(path, NOW + 10)
    assert after.lookup(ALICE, NOW + 10) == (saved,)
    assert after.lookup(ALICE, NOW + 10)[0].reachable
    after.close()


def test_a_killed_server_forgets_no_udp_phone(path: Path) -> None:
    child = os.fork()
    if child == 0:  # a process that saves and dies without closing anything
        Location.open(path, NOW).save(binding())
        os._exit(0)
    os.waitpid(child, 0)
    after = Location.open(path, NOW)
    assert after.lookup(ALICE, NOW) == (binding(),)
    after.close()


def test_a_table_of_an_earlier_version_is_read(path: Path) -> None:
    """As it was written when bindings knew nothing of pings."""
    Location.open(path, NOW).close()
    value = (
        '{"aor":"sip:alice@example.com","contact":"sip:alice@203.0.113.7:40000","sent":"<sip:alice@192.168.1.10:5060>",'
        '"received":{"address":"203.0.113.7","port":40000},"transport":"udp","local":{"address":"198.51.100.1",'
        '"port":5060},"expires":1700003600.0,"call_id":"c1","cseq":1,"nat":true}'
    )
    assert msgspec.json.encode(binding()).decode() == value
    file = sqlite3.connect(path)
    row = (ALICE, "<sip:alice@192.168.1.10:5060>", "sip:alice@203.0.113.7:40000", NOW + 3600, value)
    with file:
        file.execute("INSERT INTO binding VALUES (?, ?, ?, ?, ?)", row)
    file.close()
    location = Location.open(path, NOW)
    (alice,) = location.all(NOW)
    location.close()
    assert alice == binding()
    assert (alice.sip_ping, alice.remove_lost, alice.asymmetric) == (False, False, False)


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_after_a_restart_a_tcp_phone_is_known_but_unreachable(path: Path, transport: str) -> None:
    before = Location.open(path, NOW)
    before.save(binding(transport=transport, connection="tcp#7"))
    assert before.lookup(ALICE, NOW)[0].reachable
    before.close()
    after = Location.open(path, NOW)
    (found,) = after.lookup(ALICE, NOW)
    assert not found.reachable
    assert found.connection == ""
    after.close()


def test_a_lost_connection_makes_its_contacts_unreachable(location: Location) -> None:
    mine = binding(transport="tcp", connection="7")
    other = binding(transport="tcp", connection="8", sent="<sip:alice@10.0.0.2>")
    bob = binding(aor="sip:bob@example.com", transport="tcp", connection="7")
    location.apply((mine, other, bob), ())
    assert {b.aor for b in location.disconnected("7")} == {ALICE, bob.aor}
    assert [b.reachable for b in location.lookup(bob.aor, NOW)] == [False]
    assert {b.sent: b.reachable for b in location.lookup(ALICE, NOW)} == {mine.sent: False, other.sent: True}
    assert location.disconnected("7") == ()
    location.save(msgspec.structs.replace(mine, connection="9"))
    assert all(b.reachable for b in location.lookup(ALICE, NOW))


def test_places_of_phones(location: Location) -> None:
    one, other = binding(), binding(sent="<sip:a@10.0.0.9>", contact="sip:alice@203.0.113.8")
    near = binding(sent="<sip:a@127.0.0.1>", contact="sip:a@127.0.0.1", received=Endpoint("127.0.0.1", 40000))
    location.apply((one, other, near), ())
    assert [location.knows(Endpoint(f"203.0.113.{number}", 1)) for number in (7, 8, 9)] == [True, True, False]
    assert [location.knows(Endpoint("127.0.0.1", port)) for port in (5060, 40000, 1)] == [True, True, False]
    location.save(one)
    location.remove(one)
    assert location.knows(Endpoint("203.0.113.7", 1)), "the other one is registered from there"
    location.remove(other)
    assert not location.knows(Endpoint("203.0.113.7", 1))
    assert not location.knows(Endpoint("203.0.113.8", 1))


def test_lookup_gives_the_preferred_and_newest_first_and_nothing_expired(location: Location) -> None:
    low = binding(sent="<sip:low>", q=0.1)
    old = binding(sent="<sip:old>", expires=NOW + 10)
    new = binding(sent="<sip:new>", expires=NOW + 20)
    location.apply((low, old, new), ())
    assert location.lookup(ALICE, NOW) == (new, old, low)
    assert location.lookup(ALICE, NOW + 10) == (new, low)
    assert location.lookup("sip:nobody@example.com", NOW) == ()
    assert location.expire(NOW + 10) == (old,)
    assert location.expire(NOW + 10) == ()
    assert location.all(NOW) == (new, low)
    assert len(location) == 2


def test_what_expired_while_the_server_was_down_is_gone(path: Path) -> None:
    before = Location.open(path, NOW)
    before.save(binding(expires=NOW + 5))
    before.close()
    after = Location.open(path, NOW + 6)
    assert after.all(0.0) == ()
    after.close()


def test_remove_and_replace(location: Location) -> None:
    one, two = binding(), binding(contact="sip:alice@203.0.113.7:40001")
    location.save(one)
    location.apply((two,), (one,))
    assert location.all(NOW) == (two,)
    location.save(msgspec.structs.replace(two, cseq=9))
    assert [b.cseq for b in location.all(NOW)] == [9]
    location.remove(two, one)
    assert location.all(NOW) == ()


def test_disk_full_changes_nothing_and_heals(location: Location) -> None:
    location.save(binding())
    database = location._database
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count={pages}")
    many = [binding(sent=f"<sip:alice@10.0.0.{i}>", user_agent="x" * 500) for i in range(50)]
    with pytest.raises(LocationError, match=r"location\.db: .*full; make room on the disk") as error:
        location.apply(many, (binding(),))
    assert error.value.status == 503
    assert location.all(NOW) == (binding(),)
    database.execute("PRAGMA max_page_count=1000000")
    location.apply(many, ())
    assert len(location) == 51


def _corrupt(path: Path) -> None:
    path.write_bytes(b"this is not a database, whatever its name says" * 100)


def _damaged_row(path: Path) -> None:
    Location.open(path, NOW).close()
    database = sqlite3.connect(path)
    database.execute("INSERT INTO binding VALUES ('a', 'b', 'c', 9e9, '{]')")
    database.commit()
    database.close()


def _newer(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version={SCHEMA + 1}")
    database.close()


def _foreign(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE holiday (picture BLOB)")
    database.close()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        pytest.param(_corrupt, "not a database.*move it away", id="corrupt"),
        pytest.param(_damaged_row, "malformed.*move it away", id="damaged row"),
        pytest.param(_newer, "written by a newer mediaproxy", id="newer schema"),
        pytest.param(_foreign, "database of something else", id="foreign"),
        pytest.param(Path.mkdir, "unable to open.*let the server's user write there", id="a directory"),
    ],
)
def test_a_file_that_cannot_be_used(path: Path, spoil: Any, text: str) -> None:
    spoil(path)
    with pytest.raises(LocationError, match=rf"^{path}: .*{text}"):
        Location.open(path, NOW)
    assert path.exists()


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(LocationError, match="create its directory"):
        Location.open(tmp_path / "no" / "location.db", NOW)


def test_two_servers_cannot_share_a_file(location: Location, path: Path) -> None:
    location.save(binding())
    with pytest.raises(LocationError, match="another process has it open"):
        Location.open(path, NOW)


LATIN1 = st.text(st.characters(max_codepoint=255))


@given(st.lists(st.tuples(LATIN1, LATIN1, st.booleans()), max_size=8))
def test_disk_and_memory_agree(steps: list[tuple[str, str, bool]]) -> None:
    location = Location.open(":memory:", NOW)
    model: dict[tuple[str, str, str], Binding] = {}
    for sent, contact, keep in steps:
        item = binding(sent=sent, contact=contact)
        if keep:
            location.save(item)
            model[item.key] = item
        else:
            location.remove(item)
            model.pop(item.key, None)
    assert {b.key: b for b in location.all(NOW)} == model
    rows = location._database.execute("SELECT value FROM binding").fetchall()
    assert {(b := msgspec.json.decode(v, type=Binding)).key: b for (v,) in rows} == model
    location.close()
