"""What carries control questions to a media arm and the replies back: in memory, or as JSON lines (control.py) over a
UNIX socket, TLS, or TCP within the host.

``asking`` is what all links have in common; ``server`` answers and ``client`` asks over a connection; ``address`` is
how operators name one. A connection's replies come in the order of its questions, so a client may ask on before it has
been answered. No peer can make a link wait or remember without bound.
"""

from mediaproxy.link.address import Address, Kind
from mediaproxy.link.asking import (
    ASK_TIMEOUT,
    MAX_LINE,
    NOT_INQUIRABLE,
    Inquirable,
    Link,
    LocalLink,
    Pending,
    Prompt,
    ask_in_time,
    inquire_in_time,
    reply_in_time,
    reply_line,
)
from mediaproxy.link.client import StreamLink, UnixLink
from mediaproxy.link.guest import Guests
from mediaproxy.link.listener import UnixListener
from mediaproxy.link.server import MAX_CONNECTIONS, LineServer, UnixServer
from mediaproxy.link.socketfile import FileRights, bind_unix

__all__ = [
    "ASK_TIMEOUT",
    "MAX_CONNECTIONS",
    "MAX_LINE",
    "NOT_INQUIRABLE",
    "Address",
    "FileRights",
    "Guests",
    "Inquirable",
    "Kind",
    "LineServer",
    "Link",
    "LocalLink",
    "Pending",
    "Prompt",
    "StreamLink",
    "UnixLink",
    "UnixListener",
    "UnixServer",
    "ask_in_time",
    "bind_unix",
    "inquire_in_time",
    "reply_in_time",
    "reply_line",
]
