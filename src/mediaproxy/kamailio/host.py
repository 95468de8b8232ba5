"""[shell] Kamailio as this package sees it: what it knows of the message in hand, and the lumps by which it is edited.

``KSR`` is the module that Kamailio's app_python3 makes; no other file of the package touches it. Its functions take and
give str in strict UTF-8, so what is none goes by way of hexadecimal text in a variable of Kamailio's own. An edit is a
note for the moment when Kamailio sends the message on: the buffer is never replaced, so edits of others stay.
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
_PIECE = 16_000
"Bytes that are read as hexadecimal at a time: Kamailio's transformations end at 32 KiB."
_LONGEST_LOG = 500
_ITERATOR = "mediaproxy"


class Host:
    """The functions of KSR that are needed."""

    def __init__(self, ksr: Any) -> None:
        self.ksr = ksr
        self._get = ksr.pv.get
        self.missing = tuple(name for name in NEEDED if not hasattr(ksr, name))
        "Modules that are needed and not loaded."

    # -- the message in hand

    def message_id(self) -> object:
        """What tells messages apart that this process receives; see Turns for where it does not."""
        return self._get("$mi")

    def data(self) -> bytes:
        """The message as it was received (or as it is since msg_apply_changes)."""
        try:
            text: str = self._get("$mb")
        except UnicodeDecodeError:
            return self._hexa("mb", int(self._get("$ml")))
        return text.encode()

    def _hexa(self, name: str, length: int) -> bytes:
        places = range(0, length, _PIECE)
        return bytes.fromhex(
            "".join([self._get(f"$({name}{{s.substr,{at},{_PIECE}}}{{s.encode.hexa}})") for at in places])
        )

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
        except UnicodeDecodeError:
            inner = name[1:].removeprefix("(").removesuffix(")")
            value = bytes.fromhex(self._get(f"$({inner}{{s.encode.hexa}})")).decode("latin-1")
            return str(value)
        return "" if value is None else str(value).encode().decode("latin-1")

    def set_text(self, name: str, text: str) -> None:
        """Give a variable a value."""
        self.ksr.pv.sets(name, text)

    # -- lumps

    def set_body(self, msg: Any, body: bytes) -> None:
        """Another body of the same type. HostError if Kamailio does not take it."""
        # The type as Kamailio itself read it: any other spelling would make it write the header anew.
        kind = self.text("$cT") or "application/sdp"
        try:
            done = self.ksr.textops.set_body(body.decode(), _ascii(kind))
        except ValueError:  # no UTF-8, or a NUL
            pv = self.ksr.pv
            pv.sets("$var(mediaproxy_body)", body.hex())
            pv.sets("$var(mediaproxy_type)", kind.encode("latin-1").hex())
            body_, kind_ = "$(var(mediaproxy_body){s.decode.hexa})", "$(var(mediaproxy_type){s.decode.hexa})"
            done = msg.call_function("set_body", body_, kind_)
        if done <= 0:
            raise HostError(f"Kamailio does not take a body of {len(body)} bytes (see its pv_buffer_size)")

    def replace_contacts(self, msg: Any, lines: Sequence[bytes | None]) -> None:
        """Put others in the place of the Contact header lines, in order. HostError if Kamailio does not take them.

        ``lines``: one for each, whole and with its line end; None: it stays as it is.
        """
        if not (self._replace_only(msg, lines[0]) if len(lines) == 1 else self._replace_each(msg, lines)):
            raise HostError("Kamailio does not take another Contact")

    def _replace_only(self, msg: Any, line: bytes | None) -> bool:
        try:
            text = (line or b"").decode()
            hdr = self.ksr.hdr
            return bool(hdr.insert_before(text, "Contact") > 0 and hdr.remove("Contact") > 0)
        except ValueError:  # no UTF-8, or a NUL
            return self._replace_each(msg, (line,))

    def _replace_each(self, msg: Any, lines: Sequence[bytes | None]) -> bool:
        # append_hf(TEXT, "Contact") would be shorter, but called from Python it frees memory that is not its own.
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
            return bool(textopsx.hf_iterator_append(_ITERATOR, line.decode()) > 0)
        except ValueError:
            self.ksr.pv.sets("$var(mediaproxy_line)", line.hex())
            line_ = "$(var(mediaproxy_line){s.decode.hexa})"
            return bool(msg.call_function("hf_iterator_append", _ITERATOR, line_) > 0)

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
