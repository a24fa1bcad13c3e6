"""Mistakes with what is declared searchable."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType

import pytest
from pydantic import BaseModel, Field, PlainSerializer, create_model, field_serializer, model_serializer

from statemachines import Context, Searchable
from statemachines.validation import find_mistakes
from tests.tickets import Everything
from tests.unit.mistaken import right, the_mistake

Tenant = NewType("Tenant", str)


def holding(annotation: Any) -> type[Context]:
    return create_model("Holding", __base__=Context, field=(Annotated[annotation, Searchable()], ...))


class Part(BaseModel):
    name: Annotated[str, Searchable()] = ""


@pytest.mark.parametrize(
    "annotation",
    [
        str, int, bool, Decimal, date, str | None, Literal["a", "b"], Literal[1, 2], list[str],
        Literal["a", None],  # noqa: PYI061 - as somebody may write it
        Annotated[str, Field(max_length=5)] | None, Tenant, list[str] | None,
    ],
)  # fmt: skip
def test_what_runs_can_be_found_by_is_no_mistake(annotation: Any) -> None:
    assert find_mistakes(right(context=holding(annotation))) == []
    assert find_mistakes(right(context=Everything)) == []


@pytest.mark.parametrize(
    ("annotation", "shown"),
    [
        (float, "float"),
        (bytes, "bytes"),
        (Any, "Any"),
        (dict[str, str], "dict[str, str]"),
        (list[int], "list[int]"),
        (str | int, "str | int"),
        (Literal["a", 1], "Literal['a', 1]"),
        (None, "NoneType"),
    ],
)
def test_a_searchable_field_of_another_type_is_found(annotation: Any, shown: str) -> None:
    mistake = the_mistake(right(context=holding(annotation)))
    assert mistake.message == (
        "the field 'field' of the context Holding is searchable, and of a type that runs cannot be found by: "
        + shown
    )
    assert "list[str]" in mistake.cure


def test_a_mark_where_it_says_nothing_is_found() -> None:
    class Inside(Context):
        maybe: Annotated[str, Searchable()] | None = None
        part: Part = Part()
        parts: list[Part] = []  # noqa: RUF012 - pydantic copies defaults

    messages = [one.message for one in find_mistakes(right(context=Inside))]
    assert messages == [
        f"the field {path!r} of the context Inside has a Searchable inside"
        for path in ("maybe", "part.name", "parts.name")
    ]


def test_a_field_that_is_not_stored_or_not_as_pydantic_writes_it_is_found() -> None:
    class LeftOut(Context):
        name: Annotated[str, Searchable(), Field(exclude=True)] = ""

    class Serialized(Context):
        name: Annotated[str, Searchable(), PlainSerializer(str.upper)] = ""

    class ByMethod(Context):
        name: Annotated[str, Searchable(), Field(alias="as")] = ""

        @field_serializer("name")
        def upper(self, name: str) -> str:
            return name.upper()

    class Whole(Context):
        name: Annotated[str, Searchable()] = ""

        @model_serializer
        def nothing(self) -> dict[str, str]:
            return {}

    assert the_mistake(right(context=LeftOut)).message.endswith("left out when the context is stored")
    for context in (Serialized, ByMethod, Whole):
        assert the_mistake(right(context=context)).message.endswith("written by a serializer of its own"), (
            context
        )


def test_a_name_that_nobody_could_ask_for_is_found() -> None:
    class Odd(Context):
        name: Annotated[str, Searchable(), Field(alias="a=b")] = ""

    assert the_mistake(right(context=Odd)).message == (
        "the field 'a=b' of the context Odd is searchable, and nobody could ask for it by that name"
    )


def test_the_class_alone_marks_a_field_as_well() -> None:
    class Marked(Context):
        name: Annotated[float, Searchable] = 0.0

    assert "is searchable" in the_mistake(right(context=Marked)).message
