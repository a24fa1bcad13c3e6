"""What was read from JSON becomes what a type says, as JSON itself does; and what is lost on the way."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic_core import from_json

from statemachines import Call, Context, Event, Pipeline
from statemachines.handlers import validated
from statemachines.machine import compile_pipeline
from statemachines.parsed import reader_of
from statemachines.results import ResultError, stored
from statemachines.step import Step
from tests.unit.machines import Opened

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    at: datetime
    who: UUID
    much: Decimal
    colour: Colour
    pair: tuple[int, int]


class InLetters(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    raw: bytes


STRICT = Strict(
    at=datetime(2026, 1, 1, tzinfo=UTC), who=UUID(int=7), much=Decimal("1.50"), colour=Colour.RED, pair=(1, 2)
)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Strict, STRICT),
        (list[Strict], [STRICT]),
        (InLetters, InLetters(raw=b"\xff\0")),
        (datetime | str, datetime(2026, 1, 1, tzinfo=UTC)),
        (UUID | str, UUID(int=7)),
        (Decimal | str, Decimal("1.50")),
        (timedelta | str, timedelta(days=1)),
        (int | str, "7"),
        (date | None, date(2026, 1, 1)),
        (dict[str, int | float], {"a": 1, "b": 1.5}),
        (str | int, "half a letter \ud800"),
    ],
    ids=str,
)
def test_what_was_read_is_what_would_be_read_from_json(annotation: Any, value: Any) -> None:
    adapter = TypeAdapter(annotation)
    read = reader_of(adapter.core_schema, adapter.validator)  # type: ignore[arg-type]  # it may be one of a plugin
    parsed = value if isinstance(value, str) else from_json(adapter.dump_json(value))
    assert read(parsed) == value
    assert type(read(parsed)) is type(value)


def test_a_result_and_an_event_are_read_so() -> None:
    class Told(Event, type="told", key="name"):
        model_config = ConfigDict(strict=True)

        name: str
        at: datetime

    assert step_of(Strict).read_result(stored(step_of(Strict), STRICT)) == STRICT
    flow = Pipeline("box", Box, topics=["boxes"])
    flow.state("only", initial=True).on(Told, do=lambda _box, _event: None)
    flow.start(Opened, lambda _event: Box())
    event, error = validated(compile_pipeline(flow), "told", {"name": "o1", "at": "2026-01-01T00:00:00Z"})
    assert (event, error) == (Told(name="o1", at=datetime(2026, 1, 1, tzinfo=UTC)), "")


class Box(Context):
    pass


def step_of(annotation: Any) -> Step[Any, Any]:
    flow = Pipeline("box", Box, topics=["boxes"])

    def work(box: Box, call: Call) -> Any: ...

    work.__annotations__["return"] = annotation
    made: Step[Any, Any] = flow.step(work)
    return made


class Accepted(BaseModel):
    reason: str


class Denied(BaseModel):
    reason: str


class AcceptedPlainly(BaseModel):
    kind: Literal["accepted"] = "accepted"
    reason: str


class DeniedPlainly(BaseModel):
    kind: Literal["denied"] = "denied"
    reason: str


class DeniedAtLength(Denied):
    length: int


@dataclass
class Refused:
    reason: str


class Page(BaseModel, Generic[T]):
    of: T


@pytest.mark.parametrize(
    ("annotation", "value", "comes_back"),
    [
        (
            Accepted | Denied,
            Denied(reason="no money"),
            "returned Denied, which comes back as Accepted once it",
        ),
        (Accepted | Refused, Refused("no money"), "returned Refused, which comes back as Accepted once it"),
        (
            Denied,
            DeniedAtLength(reason="no", length=2),
            "returned DeniedAtLength, which comes back as Denied once it",
        ),
    ],
)
def test_a_model_that_comes_back_as_another_one_does_not_survive(
    annotation: Any, value: Any, comes_back: str
) -> None:
    with pytest.raises(ResultError, match=f"work {comes_back}"):
        stored(step_of(annotation), value)


@pytest.mark.parametrize(
    ("annotation", "value", "comes_back"),
    [
        (Accepted | Denied, Accepted(reason=""), Accepted(reason="")),
        (
            AcceptedPlainly | DeniedPlainly,
            DeniedPlainly(reason="no money"),
            DeniedPlainly(reason="no money"),
        ),
        (Refused, Refused("no money"), Refused("no money")),
        (Page[int], Page[int](of=1), Page[int](of=1)),
        (Page, Page[int](of=1), Page(of=1)),
        (float, 1, 1.0),
        (Any, Denied(reason="no money"), {"reason": "no money"}),
        (dict[str, Any], {"a": Denied(reason="no money")}, {"a": {"reason": "no money"}}),
    ],
)
def test_what_comes_back_as_it_is_annotated_survives(annotation: Any, value: Any, comes_back: Any) -> None:
    step = step_of(annotation)
    assert step.read_result(stored(step, value)) == comes_back


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("annotation", [float, float | None, list[float], dict[str, Any], Any])
def test_what_is_no_number_does_not_become_nothing(annotation: Any, value: float) -> None:
    returned = (
        [value] if annotation == list[float] else {"a": value} if annotation == dict[str, Any] else value
    )
    with pytest.raises(ResultError, match="does not survive being stored"):
        stored(step_of(annotation), returned)
