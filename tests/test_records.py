"""Records on disk: all of them, once, in order, whatever the disk does; and the way back."""

import asyncio
import errno
import io
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaproxy.accounting import Filter, Record
from mediaproxy.endpoint import Endpoint
from mediaproxy.events import EndReason, PartyReport, SideReport, StreamReport
from mediaproxy.records import RecordReader, RecordWriter, _lines_backwards

pytestmark = pytest.mark.usefixtures("no_leaks")


def record(number: int, caller: str = "sip:alice@example.com") -> Record:
    return Record(
        date="2023-11-14T22:13:20.250Z",
        call_id=str(number),
        caller=PartyReport(uri=caller),
        callee=PartyReport(uri="sip:bob@example.com", user_agent="\x00\n\xff"),
        started=float(number),
        ended=number + 10.0,
        reason=EndReason.BYE,
    )


def read(path: Path, *args: Filter, last: int | None = None) -> list[str]:
    return [found.call_id for found in RecordReader(path).read(*args, last=last)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "records.jsonl"


@pytest.fixture
async def writer(path: Path) -> AsyncIterator[RecordWriter]:
    writer = RecordWriter(path, retry=0.01, spool=100)
    await writer.start()
    yield writer
    await writer.stop()
    await writer.stop()


# -- writing


async def test_a_record_says_what_did_not_happen_too(writer: RecordWriter, path: Path) -> None:
    """Whoever counts finds a number, also of a call that nobody spoke in."""
    port = Endpoint("203.0.113.5", 20000)
    side = SideReport(local=port, advertised=port)
    stream = StreamReport(index=0, kind="audio", transport="RTP/AVP", caller=side, callee=side)
    writer.write(msgspec.structs.replace(record(1), streams=(stream,)))
    await writer.stop()
    told = msgspec.json.decode(path.read_bytes())
    assert (told["duration"], told["answered"], told["caller"]["user_agent"]) == (0.0, None, "")
    party = told["streams"][0]["caller"]
    assert (party["packets"], party["bytes"], party["codec"], party["learned"]) == (0, 0, "", None)


@pytest.mark.parametrize("sync", [True, False], ids=["fsync", "no fsync"])
async def test_what_is_written_is_read(path: Path, sync: bool) -> None:
    writer = RecordWriter(path, sync=sync)
    await writer.start()
    written = [record(number) for number in range(2500)]
    for one in written:
        writer.write(one)
    await writer.stop()
    assert list(RecordReader(path).read()) == written
    assert (writer.waiting, writer.lost) == (0, 0)
    assert path.stat().st_mode & 0o777 == 0o640


async def test_records_are_on_disk_soon(writer: RecordWriter, path: Path) -> None:
    writer.write(record(1))
    await until(lambda: read(path) == ["1"])
    writer.write(record(2))
    await until(lambda: read(path) == ["1", "2"])


async def test_many_calls_that_end_at_once_cost_few_writes(
    writer: RecordWriter, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    monkeypatch.setattr("mediaproxy.records.os.fsync", writes.append)
    for number in range(50):
        writer.write(record(number))
        await asyncio.sleep(0.001)
    await until(lambda: writer.waiting == 0 and len(read(path)) == 50)
    assert len(writes) <= 5


async def test_a_file_that_was_moved_away_is_made_anew(writer: RecordWriter, path: Path) -> None:
    writer.write(record(1))
    await until(lambda: read(path) == ["1"])
    path.rename(path.with_suffix(".1"))
    writer.write(record(2))
    await until(path.exists)
    await until(lambda: read(path) == ["2"])
    assert read(path.with_suffix(".1")) == ["1"]


async def test_a_line_that_was_cut_short_stays_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"date":"2023-')
    writer = RecordWriter(path)
    await writer.start()
    writer.write(record(1))
    await writer.stop()
    assert path.read_bytes().startswith(b'{"date":"2023-\n{')
    assert read(path) == ["1"]


async def test_a_file_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "records.jsonl"):
        writer = RecordWriter(path)
        with pytest.raises(OSError, match="directory|exists"):
            await writer.start()
        await writer.stop()


class Disk:
    """os.write of a disk with room for so many bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None
        self._write = os.write
        monkeypatch.setattr("mediaproxy.records.os.write", self.write)

    def write(self, file: int, data: bytes) -> int:
        if self.room is None:
            return self._write(file, data)
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(file, data[: self.room])
        self.room -= written
        return written


async def test_a_full_disk_loses_nothing(
    writer: RecordWriter, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(monkeypatch)
    writer.write(record(0))
    await until(lambda: read(path) == ["0"])
    disk.room = 300
    for number in range(1, 11):
        writer.write(record(number))
    await until(lambda: "wait in memory" in caplog.text)
    before = path.read_bytes()
    await until(lambda: writer.waiting == 10)
    assert before.endswith(b"}\n"), "no half line is left where the disk was full"
    disk.room = 10
    writer.write(record(11))
    await until(lambda: disk.room == 0)
    disk.room = None
    await until(lambda: read(path) == [str(number) for number in range(12)])
    await until(lambda: "written again" in caplog.text)
    said = [entry.getMessage() for entry in caplog.records]
    assert len([line for line in said if "No space left" in line]) == 1, "said once, not with every try"


async def test_too_many_for_memory_are_given_up_oldest_first(
    writer: RecordWriter, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(monkeypatch)
    disk.room = 0
    for number in range(150):
        writer.write(record(number))
    await until(lambda: "wait in memory" in caplog.text)
    await until(lambda: writer.waiting == 100)
    disk.room = None
    await until(lambda: read(path) == [str(number) for number in range(50, 150)])
    assert writer.lost == 50


async def test_a_disk_that_stays_full_ends_nothing_late(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(monkeypatch)
    disk.room = 0
    writer = RecordWriter(path, retry=1000)
    await writer.start()
    writer.write(record(1))
    await until(lambda: "wait in memory" in caplog.text)
    await asyncio.wait_for(writer.stop(), 30)
    assert "1 call records could not be written and are lost" in caplog.text and writer.lost == 1


# -- reading


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    path = tmp_path / "filled.jsonl"
    lines = [_line(record(number, f"sip:user{number % 10}@example.com")) for number in range(1000)]
    lines[500] = b"{broken\n"
    lines[501] = b"\n"
    lines[502] = b"\xff\xfe\r\x00\n"
    lines[504] = lines[504].replace(b"user4", b"user\xff")
    lines[503] = b"[" * 100_000 + b"\n"
    path.write_bytes(b"".join(lines) + b'{"date": "torn')
    return path


def _line(one: Record) -> bytes:
    return msgspec.json.encode(one) + b"\n"


ALL = [str(number) for number in range(1000) if number not in range(500, 505)]


def test_broken_lines_are_passed_over_and_counted(filled: Path) -> None:
    reader = RecordReader(filled)
    assert [found.call_id for found in reader.read()] == ALL
    assert reader.broken == 4


@pytest.mark.parametrize("last", [0, 1, 5, 499, 995, 996, 5000], ids=str)
def test_the_newest(filled: Path, last: int) -> None:
    assert read(filled, last=last) == (ALL[-last:] if last else [])


def test_the_newest_that_are_wanted(filled: Path) -> None:
    assert read(filled, Filter(party="user7@"), last=3) == ["977", "987", "997"]
    assert read(filled, Filter(party="user7@", since=800, until=820)) == ["807", "817"]
    assert read(filled, Filter(call_id="42"), last=9) == ["42"]
    assert read(filled, Filter(party="nobody"), last=9) == []


def test_the_newest_are_found_without_reading_everything(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mediaproxy.records._BLOCK", 4096)
    reader = RecordReader(filled)
    assert [found.call_id for found in reader.read(last=1)] == ["999"]
    assert reader.broken == 0, "the broken lines in the middle were not met"


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(RecordReader(tmp_path / "none").read())


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert read(tmp_path / "empty") == read(tmp_path / "empty", last=3) == []


@given(st.lists(st.text(alphabet="ab\r ", max_size=9).map(str.encode), max_size=8), st.integers(1, 12), st.booleans())
def test_lines_backwards(lines: list[bytes], block: int, ended: bool) -> None:
    text = b"\n".join(lines) + (b"\n" if ended else b"")
    with tempfile.NamedTemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
        file.write(text)
        file.flush()
        patch.setattr("mediaproxy.records._BLOCK", block)
        backwards = [line for line in _lines_backwards(Path(file.name)) if line]
    assert backwards == list(reversed(io.BytesIO(text).readlines()))
