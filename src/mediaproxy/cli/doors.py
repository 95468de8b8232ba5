"""What ``mediaproxy doors`` prints: a line per door, with what it was asked."""

from rich.text import Text

from mediaproxy.cli.show import Row, aligned
from mediaproxy.cli.words import count, several, shown
from mediaproxy.dialects.doorreport import DoorReport
from mediaproxy.server.answers import DoorsShown

_HEAD = (
    "protocol",
    "address",
    "requests",
    "errors",
    "malformed",
    "repeated",
    "refused",
    "dropped",
    "open",
    "mean",
    "max",
)


def show_doors(answer: DoorsShown) -> list[Text]:
    """The page."""
    rows: list[Row] = [_HEAD, *map(_row, answer.doors)]
    lines = aligned(rows, right=range(2, len(_HEAD)))
    lines[0].stylize("dim")
    for door, line in zip(answer.doors, lines[1:], strict=True):
        if door.refused or door.dropped or door.malformed:
            line.stylize("yellow")
    total = several(len(answer.doors), "door")
    told = answer.notices_told, answer.notices_failed
    notices = "" if not any(told) else f"; told of ends by themselves: {count(told[0])}, not told: {count(told[1])}"
    return [*(lines if answer.doors else []), Text(f"{total}{notices}", "bold")]


def _row(door: DoorReport) -> Row:
    mean = door.seconds / door.requests if door.requests else 0.0
    numbers = (door.requests, door.errors, door.malformed, door.repeated, door.refused, door.dropped, door.connections)
    return (door.protocol, shown(door.address), *map(count, numbers), _time(mean), _time(door.longest))


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
