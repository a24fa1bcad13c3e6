"""Contexts that steps have changed in place: nobody sees that, so each step that does so is named, once.

A step that assigns to its context is refused that at once. Nobody can refuse that it appends to a list in there. So
once an attempt has ended it is looked whether the context is what it was, unless nothing in it could be changed, or it
is large.
"""

from __future__ import annotations

import enum
import logging
import types
import typing
from datetime import date, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import from_json

from engine.store.values import BegunExecution

log = logging.getLogger("pointsman.engine")

BYTES_MAX = 10_000
"""As JSON; contexts that are larger are not looked at."""
CLASSES_MAX = 1_000
_PLAIN = (str, bytes, int, float, bool, types.NoneType, date, time, timedelta, Decimal, UUID, enum.Enum)


class Untouched:
    """Looks after contexts, for one engine."""

    def __init__(self) -> None:
        self._told: set[tuple[int, str]] = set()
        """Pipeline and name."""

    def watched(self, begun: BegunExecution, context: BaseModel) -> BaseModel | None:
        """The context that an attempt is given, if it is to be looked at again."""
        if is_plain(type(context)) or len(begun.input) > BYTES_MAX:
            return None
        return None if (begun.pipeline, begun.step) in self._told else context

    def look(self, begun: BegunExecution, context: BaseModel) -> None:
        """The attempt has ended."""
        place = begun.pipeline, begun.step
        if place in self._told:
            return
        try:
            changed = _changed(context, begun.input)
        except BaseException:  # noqa: BLE001 - serializers and validators are user code, and what it leaves may be anything
            return
        if changed:
            self._told.add(place)
            log.warning(
                "the step %s of the run %r has changed the context in place (%s), and that is lost: what a step "
                "is given is its own copy. Let it return what is new, and change the context in the action that takes "
                "its done. No other attempt at it is looked at",
                begun.step,
                begun.key,
                ", ".join(changed),
            )


def _changed(context: BaseModel, given: bytes) -> list[str]:
    """The fields that are not what they were; it was read from what was ``given``."""
    written = _written(context)
    if written == given:
        return []
    before = from_json(_written(type(context).__pydantic_validator__.validate_json(given)))
    after = from_json(written)
    return [name for name in after if after[name] != before.get(name)]


def _written(context: BaseModel) -> bytes:
    written: bytes = type(context).__pydantic_serializer__.to_json(context, warnings=False, by_alias=True)
    return written


@lru_cache(maxsize=CLASSES_MAX)
def is_plain(context_class: type[BaseModel]) -> bool:
    """Whether nothing within its fields can be changed."""
    return all(_is_plain(field.annotation) for field in context_class.model_fields.values())


def _is_plain(annotation: Any) -> bool:
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _is_plain(inside[0])
    if origin in (typing.Union, types.UnionType):
        return all(map(_is_plain, inside))
    return origin is typing.Literal or (isinstance(annotation, type) and issubclass(annotation, _PLAIN))
