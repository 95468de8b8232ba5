"""What went wrong in a script, in words, with the line that it came from; and how much of it is logged."""

from types import TracebackType

from mediaproxy.edge.effects import Trouble
from mediaproxy.module import ModuleError, RouteType


def trouble(name: str, route: RouteType, error: BaseException) -> Trouble:
    """An exception of a script's route."""
    line = line_of(error.__traceback__, name)
    place = f"{name}:{line}" if line else name
    return Trouble(place, f"{place}: {route}: {said(error)}")


def said(error: BaseException) -> str:
    """What an exception says, whatever it is."""
    if isinstance(error, ModuleError):
        return str(error)
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - a script may define exceptions that cannot even be shown
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def line_of(trace: TracebackType | None, name: str) -> int:
    """The innermost line of the script in a traceback; 0: it has none."""
    line = 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == name:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


PERIOD = 60.0
"Seconds after which counting begins anew."


class Troubles:
    """Bounds what is logged of a script's mistakes: each message may make the same one."""

    def __init__(self, limit: int) -> None:
        """``limit``: lines per place and period."""
        self._limit = limit
        self._counts: dict[str, int] = {}
        self._until = 0.0

    def note(self, trouble: Trouble, now: float) -> list[str]:
        """The lines to log because of this one."""
        lines = self.summary(now)
        count = self._counts[trouble.place] = self._counts.get(trouble.place, 0) + 1
        return [*lines, trouble.text] if count <= self._limit else lines

    def summary(self, now: float) -> list[str]:
        """At the end of a period: how much was not logged."""
        if now < self._until:
            return []
        left = {place: count - self._limit for place, count in self._counts.items() if count > self._limit}
        self._counts.clear()
        self._until = now + PERIOD
        return [f"{place}: {count} more like these in {PERIOD:g} s" for place, count in left.items()]
