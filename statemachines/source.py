"""The source of a module as a syntax tree, and what is found in it by name."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

CALLED = "()"
"""Behind the path of a name that is called."""
MODULES_KEPT_MAX = 64
"""How many modules' trees are kept; further ones are read again."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
NOBODYS = frozenset({"statemachines", "connectors", "engine"})
"""Packages that are nobody's own."""
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def tree_of_file(file: str, module_globals: dict[str, Any]) -> ast.Module | None:
    """The tree of a module's source; None where there is no source, or it is no Python.

    Of what was loaded by name or path it is the source that runs, also where another one stands in the file by now.
    """
    runs = getattr(module_globals.get("__loader__"), "source_that_runs", None)
    if isinstance(runs, str):
        return _parse(runs)
    linecache.checkcache(file)
    return _parse("".join(linecache.getlines(file, module_globals)))


@lru_cache(maxsize=MODULES_KEPT_MAX)
def _parse(source: str) -> ast.Module | None:
    try:
        return ast.parse(source) if source else None
    except (SyntaxError, ValueError, RecursionError):
        return None


def definitions(tree: ast.Module, qualname: str, line: int | None = None) -> list[Definition]:
    """The functions and classes with this ``__qualname__``, in the order of the source.

    Of several with one name those that begin in ``line`` are meant, if any do; else all: the branches of an
    ``if``, or several lambdas in one line.
    """
    named = _definitions(tree).get(qualname, [])
    return [node for node in named if _first_line(node) == line] or named


@lru_cache(maxsize=MODULES_KEPT_MAX)
def _definitions(tree: ast.Module) -> dict[str, list[Definition]]:
    found: dict[str, list[Definition]] = {}
    for name, node in _qualified(tree, ""):
        found.setdefault(name, []).append(node)
    return found


def _first_line(node: Definition) -> int:
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _qualified(parent: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
    for node in ast.iter_child_nodes(parent):
        inner = prefix
        if isinstance(node, (*_SCOPES, ast.Lambda)):
            name = prefix + ("<lambda>" if isinstance(node, ast.Lambda) else node.name)
            yield name, node
            inner = f"{name}." if isinstance(node, ast.ClassDef) else f"{name}.<locals>."
        yield from _qualified(node, inner)


def bindings(tree: ast.Module, name: str) -> list[ast.stmt]:
    """The statements at the level of the module that give ``name`` a value."""
    return _bindings(tree).get(name, [])


@lru_cache(maxsize=MODULES_KEPT_MAX)
def _bindings(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    found: dict[str, list[ast.stmt]] = {}
    for statement in _statements(tree.body):
        for name in _bound_by(statement):
            found.setdefault(name, []).append(statement)
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if not isinstance(statement, _SCOPES):
            for part in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, part, []))
            for handler in getattr(statement, "handlers", []):
                yield from _statements(handler.body)


def _bound_by(statement: ast.stmt) -> set[str]:
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {statement.name}
        case ast.Import() | ast.ImportFrom():
            return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
        case ast.Assign():
            return {name for target in statement.targets for name in _stored_in(target)}
        case ast.AnnAssign() | ast.AugAssign():
            return _stored_in(statement.target)
        case _:
            return set()


def imports_within(nodes: Iterable[ast.AST]) -> list[ast.Import | ast.ImportFrom]:
    """The imports inside functions."""
    return [
        inner for node in nodes for inner in ast.walk(node) if isinstance(inner, ast.Import | ast.ImportFrom)
    ]


def names_used(nodes: Iterable[ast.AST]) -> set[tuple[str, ...]]:
    """The names that are read and not given a value within, with what follows: ``a.b.c`` as a tuple."""
    found: set[tuple[str, ...]] = set()
    for node in nodes:
        inside = list(ast.walk(node))
        local = (
            _local_to(inside) if not isinstance(node, ast.ClassDef | ast.Assign | ast.AnnAssign) else set()
        )
        paths = (_path(inner) for inner in inside if isinstance(inner, ast.Name | ast.Attribute))
        calls = (_path(inner.func) for inner in inside if isinstance(inner, ast.Call))
        found.update(path for path in paths if path and path[0] not in local)
        found.update((*path, CALLED) for path in calls if path and path[0] not in local)
    return found


def _local_to(inside: list[ast.AST]) -> set[str]:
    arguments = {node.arg for node in inside if isinstance(node, ast.arg)}
    stored = {node.id for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    shared = {name for node in inside if isinstance(node, ast.Global) for name in node.names}
    return (arguments | stored) - shared


def _path(node: ast.expr) -> tuple[str, ...]:
    match node:
        case ast.Name():
            return (node.id,) if isinstance(node.ctx, ast.Load) else ()
        case ast.Attribute():
            base = _path(node.value)
            return (*base, node.attr) if base else ()
        case _:
            return ()


def _stored_in(target: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}
