"""[shell] Kamailio as this package sees it: what it knows of the message in hand, and the lumps by which it is edited.

``KSR`` is the module that Kamailio's app_python3 makes. Its functions give and take str in strict UTF-8: what is not is
read out of the error, and written by way of hexadecimal text in a variable of Kamailio's own. An edit is a note for the
moment when Kamailio sends the message on: the buffer is never replaced, so edits of others stay.
"""

from collections.abc import Sequence
from typing import Any

from mediaproxy.endpoint import Endpoint
from mediaproxy.module import ModuleError, RouteType
from mediaproxy.nat import Arrival


class HostError(Exception):
    """Kamailio does not take an edit."""


NEEDED = ("pv", "hdr", "textops", "textopsx", "tm", "tmx")
"Kamailio modules without which nothing works here (hdr is built in)."
_LONGEST_LOG = 500
_ITERATOR = "mediaproxy"
_DECODED = "$(var(mediaproxy_%s){s.decode.hexa})"
_NO_ROUTE = -1
_MOST_LEAKS = 5000


class Host:
    """The functions of KSR that are needed."""

    def __init__(self, ksr: Any) -> None:
        self.ksr = ksr
        self._get = ksr.pv.get
        self._leaks = 0
        self.missing = tuple(name for name in NEEDED if not hasattr(ksr, name))
        "Modules that are needed and not loaded."

    # -- the message in hand

    def message_id(self) -> object:
        """What tells messages apart that this process receives; see Turns for where it does not."""
        return self._get("$mi")

    def data(self) -> bytes:
        """The message as it was received (or as it is since msg_apply_changes)."""
        try:
            value = self._get("$mb")
        except UnicodeDecodeError as error:
            return error.object  # what it could not decode, all of it
        return b"" if value is None else str(value).encode()

    def route(self, msg: Any) -> RouteType:
        """The kind of route that runs. ModuleError if it is none of those in which our functions may be called."""
        if msg.Type == "SIP_REPLY":
            return RouteType.ONREPLY
        tmx = self.ksr.tmx
        if tmx.t_is_request_route() > 0:
            return RouteType.REQUEST
        if tmx.t_is_branch_route() > 0:
            return RouteType.BRANCH
        if tmx.t_is_failure_route() > 0:
            return RouteType.FAILURE
        raise ModuleError(f"cannot be called from here, only from {', '.join(RouteType)}")

    def wants_reply(self, msg: Any) -> bool:
        """Whether the message is a request that the request route has to answer or to send on."""
        return bool(msg.Type == "SIP_REQUEST" and msg.Method != "ACK" and self.ksr.tmx.t_is_request_route() > 0)

    def arrival(self, msg: Any) -> Arrival:
        """How the message came."""
        return Arrival(
            source=Endpoint(*msg.src_address), transport=self._get("$proto"), local=Endpoint(*msg.dst_address)
        )

    def branch(self) -> int:
        """Branch route: the number of the branch. Failure route: how many branches there have been."""
        return int(self.ksr.tm.t_get_branch_index())

    # -- variables

    def text(self, name: str) -> str:
        """The value of a variable as Latin-1 text; empty if it has none. ``name``: such as ``$du``."""
        try:
            value = self._get(name)
        except UnicodeDecodeError as error:
            return error.object.decode("latin-1")  # what it could not decode, all of it
        text = "" if value is None else str(value)
        return text if text.isascii() else text.encode().decode("latin-1")

    def set_text(self, name: str, text: str) -> None:
        """Give a variable a value, from Latin-1 text as ``text`` gives it. HostError if that is impossible."""
        try:
            self.ksr.pv.sets(name, _utf8(text.encode("latin-1")))
        except ValueError:
            raise HostError(f"{name} cannot be given what is not UTF-8") from None

    # -- lumps

    def set_body(self, msg: Any, body: bytes) -> None:
        """Another body of the same type, in place of as much as Content-Length declares. HostError if Kamailio does not
        take it."""
        # The type as Kamailio itself read it: any other spelling would make it write the header anew.
        kind = self.text("$cT") or "application/sdp"
        try:
            done = self.ksr.textops.set_body(_utf8(body), _ascii(kind))
        except ValueError:  # no UTF-8, or a NUL
            self.ksr.pv.sets("$var(mediaproxy_body)", body.hex())
            self.ksr.pv.sets("$var(mediaproxy_type)", kind.encode("latin-1").hex())
            done = self._native(msg, "MEDIAPROXY_BODY", "set_body", _DECODED % "body", _DECODED % "type")
        if done <= 0:
            raise HostError(f"Kamailio does not take a body of {len(body)} bytes (see its pv_buffer_size)")

    @staticmethod
    def can_replace_body(old: bytes, new: bytes) -> bool:
        """Whether ``replace_body`` can be called: what differs is UTF-8."""
        try:
            return all(_utf8(one) for one in _difference(old, new))
        except ValueError:
            return False

    def replace_body(self, old: bytes, new: bytes) -> None:
        """Another body in place of all that stands behind the headers, whatever Content-Length declares. HostError if
        Kamailio does not take it; ValueError if what differs is not UTF-8."""
        was, becomes = _difference(old, new)
        if self.ksr.textops.replace_body_str(_utf8(was), _utf8(becomes), "f") <= 0:
            raise HostError(f"Kamailio does not take a body of {len(new)} bytes")

    def declare_length(self, length: int) -> bool:
        """Have the right Content-Length in the buffer; whether Kamailio did it."""
        hdr = self.ksr.hdr
        hdr.remove("Content-Length")
        return hdr.append(f"Content-Length: {length}\r\n") > 0 and self.apply_changes()

    def replace_contacts(self, msg: Any, lines: Sequence[bytes | None]) -> None:
        """Put others in the place of the Contact header lines, in order. HostError if Kamailio does not take them.

        ``lines``: one for each, whole and with its line end; None: it stays as it is.
        """
        if not (self._replace_only(msg, lines[0]) if len(lines) == 1 else self._replace_each(msg, lines)):
            raise HostError("Kamailio does not take another Contact")

    def _replace_only(self, msg: Any, line: bytes | None) -> bool:
        try:
            text = _utf8(line or b"")
            hdr = self.ksr.hdr
            return bool(hdr.insert_before(text, "Contact") > 0 and hdr.remove("Contact") > 0)
        except ValueError:  # no UTF-8, or a NUL
            return self._replace_each(msg, (line,))

    def _replace_each(self, msg: Any, lines: Sequence[bytes | None]) -> bool:
        # append_hf(TEXT, "Contact") would be shorter; called from here it frees memory that is not its own.
        textopsx = self.ksr.textopsx
        left = list(reversed(lines))
        textopsx.hf_iterator_start(_ITERATOR)
        try:
            while left and textopsx.hf_iterator_next(_ITERATOR) > 0:
                if self.text(f"$hfitname({_ITERATOR})").lower() not in ("contact", "m"):
                    continue
                line = left.pop()
                if line is not None and not self._replace_here(msg, line):
                    return False
        finally:
            textopsx.hf_iterator_end(_ITERATOR)
        return not left

    def _replace_here(self, msg: Any, line: bytes) -> bool:
        textopsx = self.ksr.textopsx
        if textopsx.hf_iterator_rm(_ITERATOR) <= 0:
            return False
        try:
            return bool(textopsx.hf_iterator_append(_ITERATOR, _utf8(line)) > 0)
        except ValueError:
            self.ksr.pv.sets("$var(mediaproxy_line)", line.hex())
            return self._native(msg, "MEDIAPROXY_LINE", "hf_iterator_append", _ITERATOR, _DECODED % "line") > 0

    def _native(self, msg: Any, route: str, function: str, *arguments: str) -> int:
        """Have Kamailio run a function of its config with arguments that it evaluates itself.

        In a route of the config they are read once. Calling the function from here reads them anew and never frees
        them (120 bytes a message), so that is done only where the config has no such route, and not for ever.
        """
        done: int = self.ksr.route(route)
        if done != _NO_ROUTE:
            return done
        if self._leaks == 0:
            self.warn(f"route[{route}] is not in the config: what is not UTF-8 is edited only {_MOST_LEAKS} times")
        self._leaks += 1
        if self._leaks > _MOST_LEAKS:
            return -1
        return int(msg.call_function(function, *arguments))

    def apply_changes(self) -> bool:
        """Put all edits so far into the buffer, so that other modules see them; whether Kamailio did it."""
        return bool(self.ksr.textopsx.msg_apply_changes() > 0)

    # -- others

    def has(self, module: str) -> bool:
        """Whether a Kamailio module is loaded."""
        return hasattr(self.ksr, module)

    def is_local_domain(self, domain: str) -> bool:
        """What the domain module says; only if it is loaded."""
        return bool(self.ksr.domain.is_domain_local(domain) > 0)

    def warn(self, line: str) -> None:
        """A line into Kamailio's log."""
        self.ksr.warn(_log_line(line))

    def info(self, line: str) -> None:
        """A line into Kamailio's log, of less weight."""
        self.ksr.info(_log_line(line))


def _log_line(line: str) -> str:
    short = line if len(line) <= _LONGEST_LOG else line[:_LONGEST_LOG] + "..."
    return f"mediaproxy: {ascii(short)[1:-1]}\n"


def _ascii(text: str) -> str:
    """The text if it is the same in UTF-8 as in Latin-1; else ValueError."""
    return text.encode("ascii").decode()


def _difference(old: bytes, new: bytes) -> tuple[bytes, bytes]:
    """The lines of a body from the first to the last one that changes, and what they become. The whole bodies if lines
    only come or go, or if the same ones stand further ahead, where Kamailio would find them."""
    was, becomes = old.split(b"\n"), new.split(b"\n")
    shorter = min(len(was), len(becomes))
    begin = next((at for at in range(shorter) if was[at] != becomes[at]), shorter)
    end = next((at for at in range(shorter - begin) if was[-1 - at] != becomes[-1 - at]), shorter - begin)
    ahead = b"\n".join([*was[:begin], b""])
    piece, other = (b"\n".join(lines[begin : len(lines) - end]) for lines in (was, becomes))
    return (piece, other) if piece and other and old.find(piece) == len(ahead) else (old, new)


def _utf8(data: bytes) -> str:
    """Bytes as KSR's functions take them. ValueError if they do not: no UTF-8, or a NUL, which they choke on."""
    if b"\0" in data:
        raise ValueError
    return data.decode()
