"""Python source as a tree of plain bytes: equal for equal code, on every Python from 3.11 on.

Positions, comments and docstrings are left out, and so is what only some versions of Python have in their
trees. The parts of f-strings are put together again, since Python 3.12 splits them in other places than 3.11.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

_LEFT_OUT = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
_BODIES = frozenset({"body", "orelse", "finalbody"})


def encode(root: ast.AST) -> bytes:
    """The tree as bytes."""
    out: list[str] = []
    ahead: list[Any] = [root]  # a stack and no recursion: a chain of a thousand '+' is a thousand levels deep
    while ahead:
        node = ahead.pop()
        match node:
            case _Text():
                out.append(node)
            case ast.Constant():
                out.append(constant(node.value))
            case ast.AST():
                out.append(f"({type(node).__name__}")
                ahead.append(_Text(")"))
                for name, value in reversed(list(_fields(node))):
                    ahead += [value, _Text(f" {name}=")]
            case list():
                out.append("[")
                ahead.append(_Text("]"))
                for item in reversed(node):
                    ahead += [_Text(","), item]
            case _:
                out.append(ascii(node))
    return "".join(out).encode("ascii")


class _Text(str):
    """Text to be written as it is."""

    __slots__ = ()


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    for name, value in ast.iter_fields(node):
        if name in _LEFT_OUT or value is None or value == []:
            continue
        if name == "values" and isinstance(node, ast.JoinedStr):
            yield name, _joined(value)
        elif name in _BODIES and isinstance(value, list):
            yield name, [statement for statement in value if not _is_text(statement)]
        else:
            yield name, value


def _is_text(statement: ast.stmt) -> bool:
    """Whether this is a docstring, or one of those that follow an attribute: they do nothing."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _joined(parts: list[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string with texts next to each other put together, and empty ones left out."""
    joined: list[ast.expr] = []
    for part in parts:
        if not isinstance(part, ast.Constant):
            joined.append(part)
        elif joined and isinstance(joined[-1], ast.Constant):
            joined[-1] = ast.Constant(str(joined[-1].value) + str(part.value))
        elif part.value:
            joined.append(part)
    return joined


def constant(value: object) -> str:
    """A plain value as text, with its type: 1, 1.0 and True are not the same."""
    # Python refuses to write integers of more than 4300 digits as decimals, and what `repr` shows of a text
    # depends on the version of Unicode.
    return hex(value) if type(value) is int else f"{type(value).__name__}:{value!a}"
