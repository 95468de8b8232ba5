"""The log stays readable under a flood."""

from mediaproxy.complaints import SOURCES, Complaints
from mediaproxy.endpoint import Endpoint

A, B = Endpoint("203.0.113.1", 5060), Endpoint("203.0.113.2", 5060)


def test_first_lines_then_a_sum() -> None:
    log = Complaints(2)
    lines = [line for n in range(100) for line in log.note(A, f"bad {n}", 10.0)]
    assert lines == [f"{A}: bad 0", f"{A}: bad 1"]
    assert log.note(B, "other", 20.0) == [f"{B}: other"], "one source does not hide another"
    assert log.note(A, "later", 71.0) == ["203.0.113.1: 98 more like these in 60 s", f"{A}: later"]
    assert log.total == 102


def test_ports_of_one_address_count_together() -> None:
    log = Complaints(2)
    assert len([line for port in range(50) for line in log.note(A.with_port(port), "x", 1.0)]) == 2


def test_forged_sources_fill_neither_log_nor_memory() -> None:
    log = Complaints(2)
    lines = [line for n in range(20_000) for line in log.note(Endpoint(f"10.{n >> 8}.{n & 255}.1", 1), "x", 1.0)]
    assert len(lines) == SOURCES
    assert len(log.summary(100.0)) <= 2
    assert log.summary(100.0) == []
