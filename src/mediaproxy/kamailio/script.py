"""[shell] What a routing script's class stands on: the functions, all callbacks that Kamailio expects, and a guard.

A Kamailio process is poisoned by a method that raises, that returns no int, or that is missing: its next message meets
the error that is still pending, and is dropped without a word. Here a method that raises is logged, and answers a
request with 500; what is no int counts as 1; callbacks that a script has no use for are there.
"""

import functools
import gc
from collections.abc import Callable
from typing import Any, TypeVar

from mediaproxy.kamailio.module import Functions, where
from mediaproxy.kamailio.pinger import Pinger

_F = TypeVar("_F", bound=Callable[..., Any])
_PASS = 1
_ERROR = -1


def route(method: _F) -> _F:
    """Guard a method of a ``Module`` that Kamailio calls. Methods named ``ksr_...`` and ``child_init`` are guarded
    without it."""
    if getattr(method, "_guarded", False):
        return method
    replies = method.__name__ == "ksr_reply_route"

    @functools.wraps(method)
    def guarded(self: "Module", *args: Any) -> int:
        try:
            if replies and self.pinger.is_reply():
                self.host.ksr.set_drop()
                return _PASS
            result = method(self, *args)
        except BaseException as error:  # noqa: BLE001 - a pending exception would make the process drop its next message
            return self._failed(method.__name__, error, args)
        return int(result) if isinstance(result, int) else _PASS

    guarded._guarded = True  # type: ignore[attr-defined] # a mark on a function
    return guarded  # type: ignore[return-value] # the same arguments


class Module(Functions):
    """The base class of a KEMI script's class, and by itself what ``python_exec`` calls. To be made when the script is
    loaded: then all processes of Kamailio know the answers to keep-alives, which never come to ``ksr_reply_route``."""

    def __init__(self, ksr: Any = None, **settings: Any) -> None:
        super().__init__(ksr, **settings)
        self.pinger = Pinger(self.host.ksr, self.settings.pings, self.host.warn, self.host.info)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, value in list(vars(cls).items()):
            if (name.startswith("ksr_") or name == "child_init") and callable(value):
                setattr(cls, name, route(value))

    def child_init(self, rank: int) -> int:
        """Kamailio has forked a process. What was loaded before stays for good: it need not be looked at as garbage."""
        gc.freeze()
        return 0

    def ksr_rtimer_natping(self, msg: Any, event: Any = "") -> int:
        """The timer of the keep-alives has ticked."""
        return self.pinger.tick(msg)

    def natping_reply(self, msg: Any) -> int:
        """For ``onreply_route`` of a kamailio.cfg: 1 if the reply answers a keep-alive: it must be dropped; else -1."""
        return _PASS if self.pinger.is_reply() else _ERROR

    def ksr_request_route(self, msg: Any) -> int:
        """Every request."""
        return _PASS

    @route
    def ksr_reply_route(self, msg: Any) -> int:
        """Every reply, before its transaction is known."""
        return _PASS

    def ksr_onsend_route(self, msg: Any) -> int:
        """Everything that is about to be sent."""
        return _PASS

    def _failed(self, name: str, error: BaseException, args: tuple[Any, ...]) -> int:
        """A route raised: say so, and answer if it was to route a request."""
        try:
            self.complaints.about(name, f"{name}(): {type(error).__name__}: {error}{where(error)}")
            if name == "child_init":
                return 0
            if args and self.host.wants_reply(args[0]):
                self.host.ksr.sl.send_reply(500, "Server Internal Error")
        except BaseException:  # noqa: BLE001 - as above; nothing is left that could be done
            return _ERROR
        return _PASS
