"""Ending a dialog in a SIP server, as MediaProxy 2.x does when a call has ended by itself: ``dlg_end_dlg``.

A report's ``dialog_id`` comes in, a JSON-RPC 2.0 request goes out, and the server's answer comes in. The form of the id
tells whose it is: Kamailio's module writes ``H_ENTRY:H_ID``, that of OpenSIPS (since 2019) one number.
"""

import re
from enum import StrEnum
from typing import Any

import msgspec

from mediaproxy.link.address import host_text

EXAMPLE = "unix:/PATH, udp://HOST:PORT, fifo:/PATH or http://HOST:PORT/PATH"
_LARGEST = 2**64 - 1
_KAMAILIO = re.compile(r"([0-9]{1,10}):([0-9]{1,10})")
_OPENSIPS = re.compile(r"[0-9]{1,20}")
_NETWORK = re.compile(r"//(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+)):([0-9]{1,5})(/[!-~]*)?")
_NOT_FOUND = 404


class RpcKind(StrEnum):
    """How a SIP server takes commands."""

    UNIX = "unix"
    "Datagrams to a UNIX socket: Kamailio's jsonrpcs (dgram_socket), OpenSIPS' mi_datagram."
    UDP = "udp"
    "The same over UDP."
    FIFO = "fifo"
    "A FIFO: Kamailio's jsonrpcs (fifo_name), OpenSIPS' mi_fifo. The answer comes by another one, in /tmp."
    HTTP = "http"
    "POST: Kamailio's xhttp with jsonrpcs, OpenSIPS' mi_http."


class RpcAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a SIP server takes commands."""

    kind: RpcKind
    path: str = ""
    "Of the socket or FIFO; of a URL with its slash."
    host: str = ""
    "IPv6 without brackets."
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> "RpcAddress":
        """Read an address. ValueError says what was expected."""
        scheme, _, rest = text.partition(":")
        if scheme in (RpcKind.UNIX, RpcKind.FIFO) and rest.startswith("/") and "\0" not in rest:
            return cls(kind=RpcKind(scheme), path=rest)
        found = _NETWORK.fullmatch(rest)
        if scheme not in (RpcKind.UDP, RpcKind.HTTP) or found is None or not 0 < int(found[3]) < 65536:
            raise ValueError(f"expected {EXAMPLE}, got {text[:80]!r}")
        if scheme == RpcKind.UDP and found[4]:
            raise ValueError(f"expected udp://HOST:PORT, got {text[:80]!r}")
        host = host_text(found[1] or found[2])
        return cls(kind=RpcKind(scheme), path=found[4] or "/", host=host, port=int(found[3]))

    def __str__(self) -> str:
        if self.kind in (RpcKind.UNIX, RpcKind.FIFO):
            return f"{self.kind}:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}://{host}:{self.port}{self.path if self.kind is RpcKind.HTTP else ''}"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a server answers."""

    id: int | str | None = None
    result: Any = None
    error: Any = None


_answers = msgspec.json.Decoder(Answer)


def end_dialog(dialog_id: str, number: int, reply_name: str = "") -> bytes:
    """The command that ends a dialog; ``number``: by which its answer is known, ``reply_name``: of the FIFO that it is
    wanted by. ValueError if the id is of no form that is known."""
    request: dict[str, object] = {"jsonrpc": "2.0"}
    kamailio = _KAMAILIO.fullmatch(dialog_id)
    if kamailio is not None:
        request |= {"method": "dlg.end_dlg", "params": [int(kamailio[1]), int(kamailio[2])]}
        if reply_name:
            request["reply_name"] = reply_name
    elif _OPENSIPS.fullmatch(dialog_id) is not None and int(dialog_id) <= _LARGEST:
        request |= {"method": "dlg_end_dlg", "params": [dialog_id]}
    else:
        raise ValueError(
            f"expected the dialog_id of Kamailio (ENTRY:ID) or OpenSIPS (a number), got {dialog_id[:80]!r}"
        )
    line = msgspec.json.encode(request | {"id": number})
    if reply_name and kamailio is None:
        return b":%b:%b" % (reply_name.encode(), line)
    return line


def judge(answer: bytes, number: int) -> bool:
    """Whether these bytes answer the command of that number. ValueError if they say that it failed; a dialog that the
    server does not know any more has ended."""
    try:
        told = _answers.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"expected an answer in JSON, got {answer[:80]!r}") from error
    if told.id is not None and str(told.id) != str(number):
        return False
    if told.error is None:
        return True
    code = told.error.get("code") if isinstance(told.error, dict) else None
    if code == _NOT_FOUND:
        return True
    text = told.error.get("message", told.error) if isinstance(told.error, dict) else told.error
    raise ValueError(f"the SIP server says: {str(text)[:200]}")
