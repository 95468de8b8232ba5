"""[shell] What aiohttp says while it serves, for the log: bytes of peers that are no HTTP must not fill it."""

import logging
from collections.abc import Callable
from typing import Any

from aiohttp.http_exceptions import HttpProcessingError


class HttpLog(logging.LoggerAdapter[logging.Logger]):
    """What aiohttp has to say: of bytes that are no HTTP it says all there is to say each time they come."""

    def __init__(self, log: logging.Logger, malformed: Callable[[str, str], None]) -> None:
        """``malformed`` is told who has sent bytes that are no HTTP, and what was wrong; ``log`` all else."""
        super().__init__(log, {})
        self._malformed = malformed

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """As LoggerAdapter."""
        error = kwargs.get("exc_info")
        if isinstance(error, HttpProcessingError):
            source = str(args[0]) if args else "somebody"
            self._malformed(source, f"no HTTP: {' '.join(error.message.split())[:80]}")
        else:
            super().log(level, msg, *args, **kwargs)
