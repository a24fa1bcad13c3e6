"""The values of ECMAScript as far as the expressions of outside suites need them: what JSON has, and undefined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson


class ScriptError(Exception):
    """An expression is illegal, or cannot be evaluated."""


class _Undefined:
    def __repr__(self) -> str:
        return "undefined"


UNDEFINED: Final = _Undefined()


def truth(value: Any) -> bool:
    """Whether it counts as true."""
    return value is not UNDEFINED and (isinstance(value, list | dict) or bool(value))


def text_of(value: Any) -> str:
    """As a text."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | dict):
        return orjson.dumps(value).decode()
    return (
        {True: "true", False: "false", None: "null"}.get(value, str(value)) if _is_word(value) else str(value)
    )


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def member(value: Any, name: Any) -> Any:
    if value is UNDEFINED or value is None:
        raise ScriptError(f"{text_of(value)} has no {name!r}")
    if isinstance(value, dict):
        return value.get(name, UNDEFINED)
    if isinstance(value, list) and isinstance(name, int):
        return value[name] if 0 <= name < len(value) else UNDEFINED
    if isinstance(value, list | str) and name == "length":
        return len(value)
    return UNDEFINED


def number(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    raise ScriptError(f"{text_of(value)!r} is no number")


def _plus(left: Any, right: Any) -> Any:
    if isinstance(left, str) or isinstance(right, str):
        return text_of(left) + text_of(right)
    return number(left) + number(right)


def _equals(left: Any, right: Any) -> bool:
    return _same(left, right) or (left in (None, UNDEFINED) and right in (None, UNDEFINED))


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    return left is right or bool(left == right)


def _has(left: Any, right: Any) -> bool:
    if not isinstance(right, dict):
        raise ScriptError("in asks for what an object has")
    return left in right


OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": _plus,
    "-": lambda left, right: number(left) - number(right),
    "*": lambda left, right: number(left) * number(right),
    "/": lambda left, right: number(left) / number(right),
    "%": lambda left, right: number(left) % number(right),
    "|": lambda left, right: int(truth(left)) | int(truth(right)),
    "<": lambda left, right: number(left) < number(right),
    ">": lambda left, right: number(left) > number(right),
    "<=": lambda left, right: number(left) <= number(right),
    ">=": lambda left, right: number(left) >= number(right),
    "==": _equals,
    "!=": lambda left, right: not _equals(left, right),
    "===": _same,
    "!==": lambda left, right: not _same(left, right),
    "in": _has,
}
