"""Mistakes with what is declared searchable: runs are found by values that every process writes alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.functional_serializers import PlainSerializer, WrapSerializer

from statemachines.context import Context
from statemachines.definition import Pipeline
from statemachines.mistakes import Mistake
from statemachines.search import is_mark, kind_of, searchable_fields

_TYPES = (
    "str, int, bool, Decimal, date, datetime, an enum of str, a Literal, one of these or None, and list[str]"
)


def find(pipeline: Pipeline[Any]) -> Iterator[Mistake]:
    """All mistakes with search attributes of a context that pydantic can validate."""
    context: type[Context] = pipeline.context
    serialized = _with_serializers(context)
    for name, field in searchable_fields(context).items():
        what = f"the field {name!r} of the context {context.__name__} is searchable"
        if kind_of(field.annotation) is None:
            message = f"{what}, and of a type that runs cannot be found by: {_shown(field.annotation)}"
            yield Mistake(message, f"Searchable are {_TYPES}", pipeline.place)
        elif field.exclude:
            yield Mistake(f"{what}, and left out when the context is stored", "Store it", pipeline.place)
        elif serialized is None or name in serialized or any(map(_is_serializer, field.metadata)):
            message = f"{what}, and written by a serializer of its own"
            cure = "Leave its form to pydantic, or keep what runs are to be found by in another field"
            yield Mistake(message, cure, pipeline.place)
        if not name.isprintable() or not name or "=" in name:
            message = f"{what}, and nobody could ask for it by that name"
            cure = "Give it an alias of printable characters other than '='"
            yield Mistake(message, cure, pipeline.place)
    for path in sorted(set(_misplaced(context, "", ()))):
        message = f"the field {path!r} of the context {context.__name__} has a Searchable inside"
        cure = "Searchable are whole fields of the context itself: write Annotated[str | None, Searchable()]"
        yield Mistake(message, cure, pipeline.place)


def _with_serializers(context: type[Context]) -> set[str] | None:
    """The fields that a serializer of the class writes; None: all of them."""
    decorators = context.__pydantic_decorators__
    if decorators.model_serializers:
        return None
    named = {name for one in decorators.field_serializers.values() for name in one.info.fields}
    if "*" in named:
        return None
    fields = context.model_fields
    return {
        fields[name].serialization_alias or fields[name].alias or name for name in named if name in fields
    }


def _is_serializer(metadata: object) -> bool:
    return isinstance(metadata, PlainSerializer | WrapSerializer)


def _misplaced(model: type[BaseModel], path: str, around: tuple[type[BaseModel], ...]) -> Iterator[str]:
    """The fields with a mark where it says nothing: inside of another type, or in a model inside the context."""
    for name, field in model.model_fields.items():
        at = f"{path}.{name}".lstrip(".")
        if around and any(map(is_mark, field.metadata)):
            yield at
        for part in _parts(field.annotation):
            if is_mark(part):
                yield at
            elif isinstance(part, type) and issubclass(part, BaseModel) and part not in (*around, model):
                yield from _misplaced(part, at, (*around, model))


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for one in (*get_args(annotation), *getattr(annotation, "__metadata__", ())):
        yield from _parts(one) if not is_mark(one) else (one,)


def _shown(annotation: Any) -> str:
    return annotation.__name__ if type(annotation) is type else str(annotation).replace("typing.", "")
