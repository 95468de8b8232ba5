"""Everything that an operator can set, as one value: the parts' own settings, and where this machine keeps things.

Nothing here reads files or the environment; ``server`` turns what is empty into what suits the machine.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

from mediaproxy.dialects.doorsettings import DoorSettings
from mediaproxy.dialects.ng.settings import NgOptions
from mediaproxy.dialects.rtpproxy.sockets import RtpProxyOptions
from mediaproxy.dispatcher.settings import DispatcherSettings, ListenSettings
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.relay.settings import MOST_ADDRESSES, RelayAddress, RelaySettings
from mediaproxy.web.settings import WebSettings


class LogFormat(StrEnum):
    """How log lines look."""

    TEXT = "text"
    "For people."
    JSON = "json"
    "One JSON object a line, for machines."


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    "One line per event of a call."
    WARNING = "warning"
    ERROR = "error"


class Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Log lines go to standard error; a service manager or a shell puts them where they belong."""

    format: LogFormat = LogFormat.TEXT
    "``text`` for people, ``json`` for machines. --log-format wins over it."
    level: LogLevel = LogLevel.INFO
    "``debug``, ``info``, ``warning`` or ``error``."


class Records(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Call records: one JSON line for every call that has ended (calls.md 21)."""

    path: str = ""
    "File that they are appended to. Empty: ``records.jsonl`` in ``state_dir``."


class Admin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The control socket ``admin.sock`` in ``runtime_dir``, behind ``mediaproxy calls`` and its like."""

    mode: Annotated[str, msgspec.Meta(pattern="^0?[0-7]{3}$")] = "0600"
    "Permissions of the socket in octal: 0600 lets its owner in, 0660 its group too."
    group: str = ""
    "Group that the socket is given to; empty: that of the server's user."


class Relay(RelaySettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The media relay of this process."""

    name: str = ""
    "Its name in records and logs. Empty: ``local``, and with ``mediaproxy relay`` the name of the host."
    addresses: Annotated[tuple[RelayAddress, ...], msgspec.Meta(max_length=MOST_ADDRESSES)] = ()
    """Where media comes to; the first one of an IP version, unless a SIP server asks for another by its name. Empty:
    chosen at start among the addresses that SIP listens on, or without SIP among those of the host: of each IP version
    one that phones can reach before a loopback one."""
    listen: ListenSettings = ListenSettings()
    "Where ``mediaproxy relay`` takes the questions of dispatchers; ``mediaproxy run`` has no use for it."


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration."""

    runtime_dir: str = ""
    """Directory of the control socket. Empty: ``/run/mediaproxy`` for root, else ``$XDG_RUNTIME_DIR/mediaproxy`` or
    ``~/.local/state/mediaproxy``."""
    state_dir: str = ""
    """Directory of registrations and call records. Empty: ``/var/lib/mediaproxy`` for root, else
    ``$XDG_STATE_HOME/mediaproxy`` or ``~/.local/state/mediaproxy``."""
    listen: tuple[DoorSettings, ...] = ()
    "Doors: sockets on which SIP servers ask in the words of MediaProxy, rtpproxy or rtpengine (docs/doors.md)."
    log: Log = Log()
    records: Records = Records()
    admin: Admin = Admin()
    web: WebSettings = WebSettings()
    edge: EdgeSettings = EdgeSettings()
    relay: Relay = Relay()
    dispatcher: DispatcherSettings = DispatcherSettings()
    ng: NgOptions = NgOptions()
    rtpproxy: RtpProxyOptions = RtpProxyOptions()
