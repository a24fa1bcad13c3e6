"""What annotations of functions say, as far as it can be found out, and whether a value may be that."""

from __future__ import annotations

import ast
import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

RETURN = -1
"""What a function returns, in place of the number of a parameter."""


def hint_of(function: Callable[..., Any], at: int) -> Any:
    """What the parameter at this place is said to be, or what is returned; None where nothing says so that is known."""
    try:
        name = _name_of(function, at)
        return None if name is None else typing.get_type_hints(_written(function)).get(name)
    except Exception:  # noqa: BLE001 - annotations may be any code, of names that are not there
        return None


def argument_of(function: Callable[..., Any], at: int, wanted: type) -> Any:
    """What stands in brackets behind this class, where the parameter is said to be that: of ``Done[Charge]`` the last.

    The class itself need not keep it, but annotations have to be kept as text (``from __future__ import annotations``).
    None where nothing says so that is known.
    """
    try:
        name, written = _name_of(function, at), _written(function)
        said = inspect.get_annotations(written)[name or ""]
        read = ast.parse(said, mode="eval").body
        if not isinstance(read, ast.Subscript):
            return None
        annotations = {"of": ast.unparse(read.value), "argument": ast.unparse(read.slice)}
        only = types.SimpleNamespace(__annotations__=annotations)
        found = typing.get_type_hints(only, getattr(inspect.unwrap(written), "__globals__", {}))
        return found["argument"] if found["of"] is wanted else None
    except Exception:  # noqa: BLE001 - as above
        return None


def parts_of(annotation: Any) -> list[Any]:
    """What a union is made of; of anything else itself."""
    if get_origin(annotation) is Annotated:
        return parts_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for one in get_args(annotation) for part in parts_of(one)]
    return [types.NoneType if annotation is None else annotation]


def may_be(part: Any, one: Any) -> bool:
    """Whether a value of the first type may be one of the second; in doubt it may."""
    if part in (one, Any) or one in (Any, object) or isinstance(one, TypeVar):
        return True
    narrow, wide = (get_origin(annotation) or annotation for annotation in (part, one))
    if not (isinstance(narrow, type) and isinstance(wide, type)):
        return types.NoneType not in (part, one)
    return issubclass(narrow, wide) or (narrow, wide) == (int, float)


def named(annotation: Any) -> str:
    """How sentences call it."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _name_of(function: Callable[..., Any], at: int) -> str | None:
    if at == RETURN:
        return "return"
    parameter = list(inspect.signature(function).parameters.values())[at]
    several = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.KEYWORD_ONLY)
    return None if several else parameter.name


def _written(function: Any) -> Any:
    """What has the annotations."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__
