"""How values look to a person: numbers, durations, peers' text; and the same values as plain JSON.

Values come in, short texts go out. A peer's text is shown as UTF-8 where it is, its control characters made visible, so
that no phone can play with an operator's terminal.
"""

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from mediaproxy.explain.text import shown

__all__ = ["count", "duration", "moment", "plain", "several", "shown"]


def duration(seconds: float) -> str:
    """``8 s``, ``1:23`` (minutes) or ``1:02:03``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def moment(at: float) -> str:
    """Local date and time."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")


def count(number: int) -> str:
    """``12 345``."""
    return f"{number:,}".replace(",", " ")


def several(number: int, noun: str) -> str:
    """``1 call``, ``2 calls``."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def plain(value: Any) -> Any:
    """A value as JSON for other programs: every key is there, peers' text is shown."""
    match value:
        case msgspec.Struct():
            return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        case str():
            return shown(value)
        case Mapping():
            return {plain(name): plain(one) for name, one in value.items()}
        case tuple() | list():
            return [plain(one) for one in value]
    return value
