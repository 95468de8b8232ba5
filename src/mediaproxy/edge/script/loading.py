"""Makes a script of the bytes of a file, or says with lines why it is none.

The text is parsed, its calls are judged (``syntax``), and its top level runs once. It must never let an exception of
the script out, nor anything half loaded.
"""

import ast
import inspect
import pkgutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any

from mediaproxy.edge.script.functions import FUNCTIONS
from mediaproxy.edge.script.syntax import Problem, problems
from mediaproxy.edge.script.trouble import line_of, said
from mediaproxy.edge.settings import EdgeSettings
from mediaproxy.module import RouteType

DEFAULT = "the default script"
"What it is called in the log."


class ScriptError(Exception):
    """A script cannot be used: one line per problem, each naming file and line."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script that can run."""

    name: str
    "Its file, as it was told."
    routes: Mapping[RouteType, tuple[Callable[..., object], bool]]
    "Those that it has, each with whether it takes the message."

    @classmethod
    def load(cls, data: bytes, name: str, settings: EdgeSettings) -> "Script":
        """The script in a file's bytes. ScriptError if it is none."""
        if 0 in data:
            raise _error(name, [Problem(data.count(b"\n", 0, data.index(0)) + 1, "no Python: a zero byte")])
        constants = flags_of(settings)
        tree = _parsed(data, name)
        found: list[Problem] = _python(lambda: problems(tree, constants), name)
        names: dict[str, Any] = {"__name__": "routing", "__file__": name, **FUNCTIONS, **constants}
        if not found:
            found = _execute(_compiled(tree, name), name, names) or list(_judge_routes(names))
        if found:
            raise _error(name, found)
        return cls(name, {route: (names[route], _fits(names[route], None)) for route in RouteType if route in names})

    @classmethod
    def default(cls, settings: EdgeSettings) -> "Script":
        """The script that runs if there is no other one."""
        return cls.load(default_text().encode(), DEFAULT, settings)


def default_text() -> str:
    """The default script, which is also the example."""
    data = pkgutil.get_data(__package__, "default.py")
    assert data is not None
    return data.decode()


def flags_of(settings: EdgeSettings) -> dict[str, int]:
    """The flags that have a meaning, by the names under which a script finds their numbers."""
    return {
        "NAT_FLAG": settings.nat_flag,
        "SIP_NATPING_FLAG": settings.sip_natping_flag,
        "SIPPING_REMOVE_FLAG": settings.sipping_remove_flag,
    }


def _error(name: str, found: list[Problem]) -> ScriptError:
    lines = (f"{name}:{one.line}: {one.text}" if one.line else f"{name}: {one.text}" for one in found)
    return ScriptError("\n".join(lines))


def _parsed(data: bytes, name: str) -> ast.Module:
    tree: ast.Module = _python(lambda: ast.parse(data, name), name)
    return tree


def _compiled(tree: ast.Module, name: str) -> CodeType:
    code: CodeType = _python(lambda: compile(tree, name, "exec", dont_inherit=True), name)
    return code


def _python(work: Callable[[], Any], name: str) -> Any:
    """What the compiler makes of it. ScriptError if it does not like it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as of odd escapes in strings: not our business
            return work()
    except SyntaxError as error:
        raise _error(name, [Problem(error.lineno or 0, f"no Python: {error.msg}")]) from error
    except ValueError as error:
        raise _error(name, [Problem(0, f"no Python: {error}")]) from error
    except (RecursionError, MemoryError) as error:
        raise _error(name, [Problem(0, "no Python: nested too deeply")]) from error


def _execute(code: CodeType, name: str, names: dict[str, Any]) -> list[Problem]:
    try:
        exec(code, names)
    except BaseException as error:  # noqa: BLE001 - whatever a script raises, the server goes on
        return [Problem(line_of(error.__traceback__, name), said(error))]
    return []


def _judge_routes(names: Mapping[str, Any]) -> Iterator[Problem]:
    if RouteType.REQUEST not in names:
        yield Problem(0, "there is no request_route; a script begins with: def request_route(msg):")
    for route in RouteType:
        if route in names and (text := _unfit(names[route])):
            code = getattr(names[route], "__code__", None)
            yield Problem(code.co_firstlineno if code is not None else 0, f"{route} {text}")


def _unfit(function: Any) -> str:
    """Why it is no route; empty: it is one."""
    if not callable(function):
        return f"is no function but {type(function).__name__}"
    if inspect.isgeneratorfunction(function):
        return "must not have yield: it would never run"
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return "must not be async: the functions wait by themselves"
    return "" if _fits(function, None) or _fits(function) else "must have one parameter, the message, or none"


def _fits(function: Callable[..., object], *arguments: object) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except (TypeError, ValueError):
        return False
    return True
