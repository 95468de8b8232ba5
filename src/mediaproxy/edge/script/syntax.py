"""Finds the wrong calls in a script before anything of it runs, by its syntax tree.

A tree comes in, problems with their lines go out. What stands in the text of a route and calls one of our functions by
its name is judged: whether it may be called from there, how many arguments it has, and those that are literals. Calls
by another name, or from a helper of the script, are only seen when they are made.
"""

import ast
import builtins
import difflib
import inspect
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mediaproxy.edge.script.functions import CHECKS, FUNCTIONS, refusal
from mediaproxy.module import ModuleError, RouteType

_TOP = "the top level of the script"
_HELPER = "a helper"
"Where a call stands: one of these, or the name of a route."
_ROUTES = frozenset(str(route) for route in RouteType)
_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong with a script."""

    line: int
    "0: with all of it."
    text: str


def problems(tree: ast.Module, constants: Container[str]) -> list[Problem]:
    """What is wrong. ``constants``: names that the script finds besides the functions."""
    calls = _Calls(tree, constants)
    calls.visit(tree)
    return sorted({*calls.found, *_names(tree)})


def _names(tree: ast.Module) -> Iterator[Problem]:
    """Routes that are defined twice, or nearly."""
    defined: dict[str, int] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name in defined and node.name in _ROUTES:
                text = f"{node.name} is defined again; the first time was in line {defined[node.name]}"
                yield Problem(node.lineno, text)
            defined[node.name] = node.lineno
    for name, line in defined.items():
        meant = difflib.get_close_matches(name, sorted(_ROUTES - defined.keys()), n=1, cutoff=0.85)
        if meant and name not in _ROUTES:
            yield Problem(line, f"there is no {name}; did you mean {meant[0]}?")


class _Calls(ast.NodeVisitor):
    """Walks through a script and judges the calls."""

    def __init__(self, tree: ast.Module, constants: Container[str]) -> None:
        self.found: list[Problem] = []
        self._constants = constants
        self._where = _TOP
        nodes = list(ast.walk(tree))
        anywhere = {name for node in nodes if isinstance(node, ast.Global) for name in node.names}
        self._scopes: list[set[str]] = [_bound(tree.body) | anywhere]
        self._all_known = not any(isinstance(node, ast.alias) and node.name == "*" for node in nodes)

    # -- where we are

    @contextmanager
    def _within(self, where: str, names: set[str]) -> Iterator[None]:
        outer, self._where = self._where, where
        self._scopes.append(names)
        yield
        self._where = outer
        self._scopes.pop()

    def _function(self, node: _Function, name: str, body: list[ast.AST]) -> None:
        where = self._where
        if where == _TOP:
            where = name if name in _ROUTES and len(self._scopes) == 1 else _HELPER
        parameters = {one.arg for one in ast.walk(node.args) if isinstance(one, ast.arg)}
        with self._within(where, parameters | _bound(body)):
            for one in body:
                self.visit(one)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Its decorators and defaults belong to where it is defined, its body runs when it is called."""
        for outer in (*node.decorator_list, node.args, *([node.returns] if node.returns else [])):
            self.visit(outer)
        self._function(node, node.name, [*node.body])

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        """The same."""
        self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """The same."""
        self.visit(node.args)
        self._function(node, "", [node.body])

    def visit_Assign(self, node: ast.Assign) -> None:
        """A route may be a lambda."""
        names = [target.id for target in node.targets if isinstance(target, ast.Name) and target.id in _ROUTES]
        if not names or not isinstance(node.value, ast.Lambda):
            self.generic_visit(node)
            return
        self.visit(node.value.args)
        for name in names:
            self._function(node.value, name, [node.value.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Its body runs where it stands."""
        for outer in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(outer)
        with self._within(self._where, _bound(node.body)):
            for one in node.body:
                self.visit(one)

    def generic_visit(self, node: ast.AST) -> None:
        """A comprehension has names of its own."""
        if not isinstance(node, _Comprehension):
            super().generic_visit(node)
            return
        with self._within(self._where, {name for one in node.generators for name in _names_in(one.target)}):
            super().generic_visit(node)

    # -- calls

    def visit_Call(self, node: ast.Call) -> None:
        """One call."""
        if isinstance(node.func, ast.Name) and not any(node.func.id in names for names in self._scopes):
            name = node.func.id
            if name in FUNCTIONS:
                self._judge(node, name)
            elif self._all_known and not hasattr(builtins, name) and name not in self._constants:
                near = difflib.get_close_matches(name, FUNCTIONS, n=1)
                self._problem(node, f"there is no function {name}" + (f"; did you mean {near[0]}?" if near else ""))
        self.generic_visit(node)

    def _judge(self, node: ast.Call, name: str) -> None:
        if self._where == _TOP:
            self._problem(node, f"{name}() can only be called while a route runs, not at {_TOP}")
            return
        if self._where in _ROUTES and (why := refusal(name, RouteType(self._where))):
            self._problem(node, why)
        for text in wrong_arguments(node, name):
            self._problem(node, text if self._where == _HELPER else f"{text} (in {self._where})")

    def _problem(self, node: ast.Call, text: str) -> None:
        self.found.append(Problem(node.lineno, text))


def wrong_arguments(node: ast.Call, name: str) -> Iterator[str]:
    """What is wrong with the arguments of a call of one of our functions, as far as its text tells."""
    if any(isinstance(one, ast.Starred) for one in node.args) or any(one.arg is None for one in node.keywords):
        return
    signature = inspect.signature(FUNCTIONS[name])
    try:
        given = signature.bind(*node.args, **{one.arg: one.value for one in node.keywords if one.arg is not None})
    except TypeError as error:
        parameters = signature.parameters.values()
        expected = ", ".join(one.name if one.default is one.empty else f"[{one.name}]" for one in parameters)
        yield f"{name}(): {error}; expected {name}({expected})"
        return
    for parameter, value in given.arguments.items():
        check = CHECKS.get((name, parameter))
        try:
            literal = ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue  # only known when it is called
        if check is not None:
            try:
                check(literal)
            except ModuleError as error:
                yield str(error)


# -- names


def _bound(body: Iterable[ast.AST]) -> set[str]:
    """The names that statements bind in their own scope."""
    found: set[str] = set()
    elsewhere: set[str] = set()
    for node in _in_scope(body):
        match node:
            case ast.Global(names=names):
                elsewhere.update(names)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                found.add(name)
            case ast.alias(name=name, asname=other):
                found.add(other or name.partition(".")[0])
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                found.add(name)
            case ast.MatchMapping(rest=str(name)):
                found.add(name)
    return found - elsewhere


def _in_scope(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes below that belong to the same scope."""
    waiting = list(body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, _Comprehension):
            waiting += [one for one in ast.walk(node) if isinstance(one, ast.NamedExpr)]
        elif not isinstance(node, _Function | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)


def _names_in(target: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}
