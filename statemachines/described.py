"""Work that a step describes instead of doing it: its function says what is to be done, and an executor does it.

    class Job(Described[R]):
        def __init__(self, image: str, result: type[R]) -> None: ...

    @flow.step()
    def render(film: Film, call: Call) -> Job[Reel]:
        return Job("render:3", result=Reel)

Such a function is pure and quick, and a unit test compares what it returns. Which executor does the work of which class
is said to the engine; ``Command`` is one that each engine knows.
"""

from __future__ import annotations

import typing
from typing import Any, Generic, TypeVar

R_co = TypeVar("R_co", covariant=True)


class Described(Generic[R_co]):
    """What is to be done, and comes to an ``R`` in the end; to be derived from."""

    __slots__ = ()


def described_by(annotation: Any) -> type[Described[Any]] | None:
    """The class of described work that an annotation names; None: it names none."""
    named = typing.get_origin(annotation) or annotation
    return named if isinstance(named, type) and issubclass(named, Described) else None


def result_of(annotation: Any) -> Any:
    """What the described work comes to that an annotation names.

    Raises:
        TypeError: it does not say so.
    """
    named, given = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    parameters = getattr(named, "__parameters__", ())
    if parameters and not given:
        message = f"says {named.__name__}, and not what that comes to, as in -> {named.__name__}[None]"
        raise TypeError(message)
    if named is Described:
        return given[0]
    known = dict(zip(parameters, given, strict=True))
    for base in named.__orig_bases__ if "__orig_bases__" in vars(named) else named.__bases__:
        if described_by(base) is not None:
            wanted = tuple(known[one] for one in getattr(base, "__parameters__", ()))
            return result_of(base[wanted] if wanted else base)
    raise AssertionError(f"{named} is one, so one of its bases is")


def mixes(annotation: Any) -> bool:
    """Whether it names described work beside something else, or within it."""
    is_described = described_by(annotation) is not None
    return not is_described and any(described_by(one) or mixes(one) for one in typing.get_args(annotation))
