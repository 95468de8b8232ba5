"""[shell] The file of the routing script: read at start, and again whenever it changes."""

from collections.abc import Callable
from pathlib import Path

from mediaproxy.edge.script.loading import Script, ScriptError
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.watch import WatchedFile

Report = Callable[[str], None]
"Takes a line for the log."


class ScriptFile:
    """One file; none if the default script is wanted."""

    def __init__(self, settings: EdgeSettings, report: Report, notice: Report) -> None:
        """``report`` takes what is wrong, ``notice`` what is only news."""
        self._settings = settings
        self._report = report
        self._notice = notice
        path = settings.script
        self._file = WatchedFile(Path(path), report, what="routing script", notice=notice) if path else None

    def load(self, now: float) -> Script:
        """The script to begin with. ScriptError if it cannot be used."""
        if self._file is None:
            return Script.default(self._settings)
        self._file.report = lambda line: None
        data = self._file.refresh(now)
        self._file.report = self._report
        if data is None:
            raise ScriptError(f"{self._file.path}: the routing script cannot be read: {self._file.trouble}")
        return self._loaded(data)

    def refresh(self, now: float) -> Script | None:
        """Another script, if the file has changed and is good. If it is not, that is reported."""
        data = self._file.refresh(now) if self._file is not None else None
        if data is None:
            return None
        try:
            return self._loaded(data)
        except ScriptError as error:
            for line in str(error).splitlines():
                self._report(line)
            self._report(f"script {self._settings.script} not loaded; the one before stays in force")
            return None

    def _loaded(self, data: bytes) -> Script:
        script = Script.load(data, self._settings.script, self._settings)
        self._notice(f"script {script.name} loaded")
        return script
