"""Call records survive: rotation, a full disk, a process that died in the middle of a line."""

import logging
import os
from pathlib import Path

import pytest

from mediaproxy.accounting import PartyRecord, Record
from mediaproxy.events import EndReason
from mediaproxy.records import RecordWriter, read_records


def made(call_id: str) -> Record:
    return Record(
        call_id=call_id,
        caller=PartyRecord(uri="sip:alice@example.com"),
        callee=PartyRecord(uri="sip:bob@example.com"),
        started=1.0,
        ended=2.0,
        reason=EndReason.BYE,
    )


def ids(path: Path, **choice: object) -> list[str]:
    return [record.call_id for record in read_records(path, **choice)]  # type: ignore[arg-type]  # test shorthand


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "records.jsonl"
    writer = RecordWriter(path)
    for call_id in ("a", "b", "ü\n"):
        writer.append(made(call_id))
    assert list(read_records(path)) == [made("a"), made("b"), made("ü\n")]
    assert ids(path, last=2) == ["b", "ü\n"]
    assert ids(path, call_id="b") == ["b"]
    writer.close()
    writer.close()


def test_a_second_process_appends(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    for call_id in ("a", "b"):
        writer = RecordWriter(path)
        writer.append(made(call_id))
        writer.close()
    assert ids(path) == ["a", "b"]


@pytest.mark.parametrize("rubbish", [b'{"call_id":"half', b"\xff\xfe\n", b"[]\n", b"\n"], ids=repr)
def test_a_broken_line_costs_nobody_else(tmp_path: Path, rubbish: bytes) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(rubbish)
    writer = RecordWriter(path)
    writer.append(made("a"))
    writer.close()
    assert ids(path) == ["a"]


def test_a_file_that_was_rotated_away_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    writer = RecordWriter(path)
    writer.append(made("a"))
    path.rename(tmp_path / "records.jsonl.1")
    writer.append(made("b"))
    path.unlink()
    writer.append(made("c"))
    writer.close()
    assert ids(tmp_path / "records.jsonl.1") == ["a"]
    assert ids(path) == ["c"]


def test_a_full_disk_loses_nothing_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "records.jsonl"
    writer = RecordWriter(path)
    writer.append(made("a"))
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) > 10:
            return real(fd, data[:10])  # the last bytes that fit
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        # only a mount of its own could be full for real, and that needs root
        patch.setattr(os, "write", lambda fd, data: full(fd, data) if len(data) != 10 else full(fd, b""))
        writer.append(made("b"))
        writer.append(made("c"))
    assert ids(path) == ["a"]
    assert writer.waiting == 2
    assert [record.getMessage() for record in caplog.records if "No space left" in record.getMessage()] != []
    assert len(caplog.records) == 1
    writer.append(made("d"))
    writer.close()
    assert ids(path) == ["a", "b", "c", "d"]


def test_memory_is_bounded_while_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "records.jsonl"
    writer = RecordWriter(path, most_waiting=3)

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for number in range(5):
            writer.append(made(str(number)))
    assert (writer.waiting, writer.lost) == (3, 2)
    writer.close()
    assert ids(path) == ["2", "3", "4"]
