"""What the arguments of the server's own functions may be, beside those of the module (``module.ARGUMENT``).

A value of a script comes in; the same value, read, goes out, or a ModuleError that says what was expected. Used twice:
for literals when a script is loaded, and for every value when the function is called.
"""

import re

from mediaproxy.module import ModuleError
from mediaproxy.sip.grammar import canonical

FLAGS = 32
"Flags are numbered from 0 to one less."
_NAME = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+")
_FIELD = re.compile(rf"({_NAME.pattern})[ \t]*:[ \t]*([^\r\n\0]*)(?:\r?\n)?")
_STATUS = re.compile(r"[1-6][0-9][0-9]")
PROTECTED = frozenset(
    (
        *("via", "from", "to", "call-id", "cseq", "max-forwards", "max-breadth"),
        *("route", "record-route", "contact", "content-length"),
    )
)
"Headers that are the server's business: without them as they are, a message gets lost or goes where it must not."


def status_code(value: object) -> int:
    """The status of sl_send_reply, as number or text."""
    if isinstance(value, str) and _STATUS.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 100 <= value <= 699:
        raise ModuleError(f"sl_send_reply({value!r}): expected a status from 100 to 699, such as 404")
    return value


def reason_phrase(value: object) -> str:
    """The reason phrase of sl_send_reply; empty: the usual one."""
    if not isinstance(value, str) or re.search(r"[\0-\x1f\x7f]|[^\0-\xff]", value):
        raise ModuleError(f"sl_send_reply(…, {value!r}): expected one line of Latin-1 text")
    return value


def flag(function: str, value: object) -> int:
    """The argument of ``setflag`` and its like."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < FLAGS:
        raise ModuleError(f"{function}({value!r}): expected a flag from 0 to {FLAGS - 1}")
    return value


def header_line(value: object) -> tuple[str, str]:
    """Name and value of the header of append_hf; a line end behind them is allowed, as the original wants it."""
    found = _FIELD.fullmatch(value) if isinstance(value, str) else None
    if found is None or re.search(r"[^\0-\xff]", found[2]):
        raise ModuleError(f'append_hf({value!r}): expected one header, such as "X-Name: value"')
    _check_name("append_hf", value, found[1])
    return found[1], found[2].rstrip()


def header_name(value: object) -> str:
    """The name for remove_hf."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ModuleError(f'remove_hf({value!r}): expected the name of a header, such as "X-Name"')
    _check_name("remove_hf", value, value)
    return value


def _check_name(function: str, value: object, name: str) -> None:
    if canonical(name) in PROTECTED:
        raise ModuleError(f"{function}({value!r}): {name} is the server's business")


def table(function: str, value: object) -> str:
    """The table of ``lookup`` and ``save``: there is only one."""
    if value != "location":
        raise ModuleError(f'{function}({value!r}): the only table is "location"')
    return "location"
