"""Errors that the server would log and live on with: to a fuzzer they are failures."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def alarmed() -> Iterator[None]:
    """Nothing that ``mediaproxy`` logs meanwhile is written; an error fails."""
    log, alarm = logging.getLogger("mediaproxy"), _Alarm()
    before = log.level, log.propagate, log.handlers
    log.propagate, log.handlers = False, [alarm]
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before[0])
        log.propagate, log.handlers = before[1:]
    assert not alarm.heard, alarm.heard[0]


class _Alarm(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """From logging."""
        self.heard.append(logging.Formatter().format(record))
