"""[shell] The location table: which user is registered with which contacts, kept in SQLite so that a restart forgets
no phone.

Bindings come in from the registrar, bindings go out to the router and the keep-alives, from memory. A change is on disk
before it is in memory and before the phone gets its 200. It must never decide who may register, or take the server down
because of a bad disk.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import msgspec

from mediaproxy.edge.binding import Binding
from mediaproxy.endpoint import Endpoint, Scope, scope
from mediaproxy.sip.grammar import SipError
from mediaproxy.sip.header import Uri

SCHEMA = 1
"Version of the table; in ``PRAGMA user_version`` of the file."

_CREATE = """
CREATE TABLE binding (
    aor TEXT NOT NULL, sent TEXT NOT NULL, contact TEXT NOT NULL, expires REAL NOT NULL,
    value TEXT NOT NULL, -- the whole binding, JSON
    PRIMARY KEY (aor, sent, contact)
) WITHOUT ROWID
"""


Key: TypeAlias = tuple[str, str, str]
"``Binding.key``."


class LocationError(Exception):
    """The table cannot be read or written. The text names the file and says what to do; ``status`` suits a REGISTER."""

    status = 503


class Location:
    """All registered contacts. One process owns the file; a second one is refused."""

    def __init__(self, database: sqlite3.Connection, path: str) -> None:
        self._database = database
        self._path = path
        self._bindings: dict[str, dict[Key, Binding]] = {}
        self._by_connection: dict[str, set[Key]] = {}
        self._places: Counter[str] = Counter()

    @classmethod
    def open(cls, path: Path | str, now: float) -> "Location":
        """Open or create the table; what has expired by ``now`` is dropped, and TCP and TLS contacts count as
        unreachable. ``:memory:`` keeps it off the disk. LocationError if the file cannot be had."""
        name = str(path)
        database = None
        try:
            database = sqlite3.connect(name, timeout=1.0, isolation_level=None)
            location = cls(database, name)
            location._prepare()
            location._load(now)
        except (sqlite3.Error, msgspec.DecodeError, LocationError) as error:
            if database is not None:
                database.close()
            raise error if isinstance(error, LocationError) else LocationError(_explain(name, error)) from error
        return location

    def _prepare(self) -> None:
        # Exclusive: a second server on the same file would work from a stale copy in its memory.
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute("BEGIN IMMEDIATE")
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA:
            raise LocationError(
                f"{self._path}: the location table was written by a newer mediaproxy (version {version}, this one knows"
                f" {SCHEMA}); install that version again, or move the file away and let the phones register anew"
            )
        if version == 0:
            if self._database.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise LocationError(
                    f"{self._path}: is a database of something else; give the location table its own file"
                )
            self._database.execute(_CREATE)
            self._database.execute(f"PRAGMA user_version={SCHEMA}")
        self._database.execute("COMMIT")

    def _load(self, now: float) -> None:
        self._database.execute("DELETE FROM binding WHERE expires <= ?", (now,))
        for (value,) in self._database.execute("SELECT value FROM binding"):
            self._remember(msgspec.json.decode(value, type=Binding))

    def apply(self, save: Iterable[Binding], remove: Iterable[Binding]) -> None:
        """Remove and save bindings, all or nothing (RFC 3261 §10.3 step 7). LocationError if the disk refuses; then
        nothing has changed, in memory either."""
        save, remove = tuple(save), tuple(remove)
        rows = [(*b.key, b.expires, msgspec.json.encode(_without_connection(b)).decode()) for b in save]
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(
                "DELETE FROM binding WHERE aor = ? AND sent = ? AND contact = ?", [b.key for b in remove]
            )
            self._database.executemany("INSERT OR REPLACE INTO binding VALUES (?, ?, ?, ?, ?)", rows)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise LocationError(_explain(self._path, error)) from error
        for binding in remove:
            self._forget(binding)
        for binding in save:
            self._remember(binding)

    def _roll_back(self) -> None:
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def save(self, binding: Binding) -> None:
        """Add one binding, or change it. LocationError as for ``apply``."""
        self.apply((binding,), ())

    def remove(self, *bindings: Binding) -> None:
        """Forget bindings; unknown ones are no error. LocationError as for ``apply``."""
        self.apply((), bindings)

    def disconnected(self, connection: str) -> tuple[Binding, ...]:
        """A TCP or TLS connection is gone: its contacts cannot be reached any more. Returns them as they are now."""
        keys = self._by_connection.get(connection, ())
        changed = tuple(_without_connection(self._bindings[key[0]][key]) for key in keys)
        for binding in changed:
            self._remember(binding)
        return changed

    def lookup(self, aor: str, now: float) -> tuple[Binding, ...]:
        """The contacts of a user that have not expired, highest q first, then the newest. Whether one can be reached
        at all says ``Binding.reachable``."""
        valid = [b for b in self._bindings.get(aor, {}).values() if b.expires > now]
        return tuple(sorted(valid, key=lambda b: (-b.q, -b.expires)))

    def knows(self, place: Endpoint) -> bool:
        """Whether a contact is at this address, or registered from it. The port does not matter, because NATs change
        it; but on loopback, which many programs share, it does."""
        return _who(place) in self._places

    def all(self, now: float) -> tuple[Binding, ...]:
        """Every binding that has not expired, by address of record."""
        return tuple(b for aor in sorted(self._bindings) for b in self.lookup(aor, now))

    def expire(self, now: float) -> tuple[Binding, ...]:
        """Drop what has expired; returns it. LocationError as for ``apply``."""
        gone = tuple(b for b in self._everything() if b.expires <= now)
        if gone:
            self.apply((), gone)
        return gone

    def close(self) -> None:
        """Close the file. Closing twice is no error."""
        self._database.close()

    def __len__(self) -> int:
        return sum(len(bindings) for bindings in self._bindings.values())

    def _everything(self) -> Iterable[Binding]:
        return [b for bindings in self._bindings.values() for b in bindings.values()]

    def _remember(self, binding: Binding) -> None:
        self._forget(binding)
        self._bindings.setdefault(binding.aor, {})[binding.key] = binding
        if binding.connection:
            self._by_connection.setdefault(binding.connection, set()).add(binding.key)
        self._places.update(_places(binding))

    def _forget(self, binding: Binding) -> None:
        bindings = self._bindings.get(binding.aor, {})
        before = bindings.pop(binding.key, None)
        if not bindings:
            self._bindings.pop(binding.aor, None)
        if before is None:
            return
        for place in _places(before):
            self._places[place] -= 1
            if self._places[place] <= 0:
                del self._places[place]
        if before.connection:
            keys = self._by_connection[before.connection]
            keys.discard(before.key)
            if not keys:
                del self._by_connection[before.connection]


def _who(place: Endpoint) -> str:
    return str(place) if scope(place.address) is Scope.LOOPBACK else place.address


def _places(binding: Binding) -> set[str]:
    try:
        contact = Uri.parse(binding.contact).endpoint
    except SipError:
        contact = None  # somebody wrote into the file
    return {_who(place) for place in (binding.received, contact) if place is not None}


def _without_connection(binding: Binding) -> Binding:
    return msgspec.structs.replace(binding, connection="")


_ADVICE = {
    "SQLITE_BUSY": "another process has it open; stop that one, or give this server a file of its own",
    "SQLITE_LOCKED": "another process has it open; stop that one, or give this server a file of its own",
    "SQLITE_CANTOPEN": "create its directory and let the server's user write there",
    "SQLITE_READONLY": "let the server's user write it and its directory",
    "SQLITE_PERM": "let the server's user write it and its directory",
    "SQLITE_FULL": "make room on the disk; until then no phone can register",
    "SQLITE_IOERR": "look after the disk; until then no phone can register",
}


def _explain(path: str, error: Exception) -> str:
    """One line for the operator: file, what is wrong, what to do."""
    name = getattr(error, "sqlite_errorname", "")
    advice = next((text for prefix, text in _ADVICE.items() if name.startswith(prefix)), None)
    if advice is None:
        advice = "if the file is damaged, move it away and let the phones register anew"
    return f"{path}: cannot use the location table: {error}; {advice}"
