"""Which contexts are plain, and that one goes to the next event only where no handler has kept it."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar
from zoneinfo import ZoneInfo

import pytest
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

import statemachines.plain
from statemachines import Context, Pipeline, Searchable
from statemachines.contexts import write, write_last
from statemachines.failing import HandlerError
from statemachines.interpreter import step
from statemachines.limits import CONTEXT_BYTES_MAX
from statemachines.machine import Machine, compile_pipeline
from statemachines.outcome import Moved
from statemachines.plain import plain_of
from statemachines.run import Run
from tests.unit.machines import Noted, Opened, begun, occurrence

COMPILED = not str(statemachines.plain.__file__).endswith(".py")
T = TypeVar("T")


class Plain(Context):
    """With all that may be said of plain fields."""

    model_config = ConfigDict(title="A title")

    key: Annotated[str, Searchable()]
    paid: bool = False
    amount: int = Field(default_factory=int, description="in cents", title="amount")
    weight: float | None = None
    note: str | None = Field(default=None, examples=["a"])


class Below(Plain):
    more: int = 0


def test_text_numbers_and_truth_values_are_plain() -> None:
    for each in (Plain, Below):
        plain = plain_of(each)
        assert plain is not None
        assert plain.write(each(key="a", weight=1.5)) == each(key="a", weight=1.5).model_dump_json().encode()


class Pair(Context):
    first: int
    second: int


def read(text: str) -> datetime:
    """As pydantic reads it."""
    return TypeAdapter(datetime).validate_python(text)


def test_all_times_in_utc_have_the_same_object_for_their_zone_as_they_are_read() -> None:
    # Where a release of pydantic makes it anew each time, such times are written as of any other class.
    assert read("2026-03-01T12:00:00Z").tzinfo is read("1999-01-01T00:00:00.5+00:00").tzinfo
    assert read("2026-03-01T12:00:00Z").tzinfo is statemachines.plain._ZONE


@pytest.mark.parametrize(
    "text",
    [
        *("2026-03-01T12:00:00Z", "2026-03-01T12:00:00.5Z", "2026-03-01T12:00:00.000001Z"),
        *("2026-03-01T12:00:00", "2026-03-01T12:00:00.123456"),
        *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_times_as_they_were_read_are_plain(text: str) -> None:
    plain, timed = plain_of(Timed), Timed(a=read(text))
    assert plain is not None
    written = plain.write(timed)
    assert written == timed.model_dump_json().encode()
    assert repr(Timed.model_validate_json(written)) == repr(timed)
    assert plain.write(Timed()) == Timed().model_dump_json().encode()


class Day(datetime):
    pass


@pytest.mark.parametrize(
    "time",
    [
        # Read back, each would have another object for its zone, or none of its own.
        *(datetime(2026, 3, 1, tzinfo=ZoneInfo(zone)) for zone in ("UTC", "Europe/Amsterdam")),
        *(read("2026-03-01T12:00:00+01:00"), read("2026-03-01T12:00:00-00:30")),
        *(read("2026-03-01T12:00:00Z").replace(fold=1), Day(2026, 3, 1), date(2026, 3, 1), "2026-03-01"),
    ],
)
def test_times_that_would_come_back_otherwise_are_written_as_of_any_other_class(time: Any) -> None:
    plain, timed = plain_of(Timed), Timed.model_construct(a=time)
    assert plain is not None
    assert plain.write(timed) == b""


def test_values_in_another_order_are_written_as_of_any_other_class() -> None:
    plain, pair = plain_of(Pair), Pair(first=1, second=2)
    assert plain is not None
    assert plain.write(pair) == b'{"first":1,"second":2}'
    # Read back, they are in their order again.
    pair.__dict__["first"] = pair.__dict__.pop("first")
    assert plain.write(pair) == b""


class Colour(StrEnum):
    RED = "red"


class Inner(BaseModel):
    a: int = 0


class Bounded(Context):
    a: int = Field(0, ge=0)


class Short(Context):
    a: Annotated[str, Field(max_length=3)] = ""


class BoundedOrNone(Context):
    a: Annotated[int, Field(ge=0)] | None = None


class Renamed(Context):
    a: int = Field(0, alias="b")


class RenamedBack(Context):
    a: int = Field(0, serialization_alias="b")


class Left(Context):
    a: int = Field(0, exclude=True)


class Coloured(Context):
    a: Colour = Colour.RED


class Either(Context):
    a: int | str = 0


class Said(Context):
    a: Literal["a", "b"] = "a"


class Exactly(Context):
    a: Decimal = Decimal(0)


class Timed(Context):
    a: datetime | None = None
    b: datetime = datetime(2026, 3, 1)  # noqa: DTZ001 - what is without a zone stays so


class Aware(Context):
    a: AwareDatetime | None = None


class NotBefore(Context):
    a: Annotated[datetime, Field(ge=datetime(2026, 3, 1))] | None = None  # noqa: DTZ001 - as users may write it


class Dated(Context):
    a: date | None = None


class Listed(Context):
    a: list[int] = Field(default_factory=list)


class Nested(Context):
    a: Inner = Field(default_factory=Inner)


class Anything(Context):
    a: Any = None


class Binary(Context):
    a: bytes = b""


class Looked(Context):
    a: int = 0

    @field_validator("a")
    @classmethod
    def look(cls, value: int) -> int:
        return abs(value)


class LookedAfter(Context):
    a: int = 0

    @model_validator(mode="after")
    def look(self) -> LookedAfter:
        return self


class LookedBefore(Context):
    a: int = 0

    @model_validator(mode="before")
    @classmethod
    def look(cls, value: Any) -> Any:
        return value


class WrittenOtherwise(Context):
    a: int = 0

    @field_serializer("a")
    def write(self, value: int) -> str:
        return str(value)


class WrittenWhole(Context):
    a: int = 0

    @model_serializer
    def write(self) -> dict[str, Any]:
        return {"a": self.a}


class Computed(Context):
    a: int = 0

    @computed_field  # type: ignore[prop-decorator]  # as pydantic's documentation writes it
    @property
    def twice(self) -> int:
        return 2 * self.a


class Private(Context):
    a: int = 0
    _b: int = PrivateAttr(0)


class Slotted(Context):
    __slots__ = ("b",)
    a: int = 0


class BelowSlotted(Slotted):
    c: int = 0


class After(Context):
    a: int = 0

    def model_post_init(self, _: Any, /) -> None:
        self.a += 1


class Made(Context):
    a: int = 0

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)


class Stripped(Context):
    model_config = ConfigDict(str_strip_whitespace=True)
    a: str = ""


class Lenient(Context):
    model_config = ConfigDict(extra="ignore")
    a: str = ""


class Infinite(Context):
    model_config = ConfigDict(allow_inf_nan=True)
    a: float = 0


class Of(Context, Generic[T]):
    a: int = 0


class Empty(Context):
    pass


@pytest.mark.parametrize(
    "context",
    [
        *(Bounded, Short, BoundedOrNone, Renamed, RenamedBack, Left, Coloured, Either, Said, Exactly),
        *(
            Aware,
            NotBefore,
            Dated,
            Listed,
            Nested,
            Anything,
            Binary,
            Looked,
            LookedAfter,
            LookedBefore,
            WrittenOtherwise,
        ),
        *(WrittenWhole, Computed, Private, Slotted, BelowSlotted, After, Made, Stripped, Lenient, Infinite),
        *(Of[int], Empty),
    ],
)
def test_whatever_says_more_of_its_fields_is_not(context: type[Context]) -> None:
    assert plain_of(context) is None


def opened(_: Opened) -> Plain:
    return Plain(key="a")


def machine_of(note: Callable[[Plain, Noted], None]) -> Machine:
    flow = Pipeline("notes", Plain, topics=["notes"])
    flow.state("only", initial=True).on(Noted, do=note)
    flow.start(Opened, opened)
    return compile_pipeline(flow)


def noting(machine: Machine, run: Run, number: int) -> Run:
    outcome = step(machine, run, occurrence(Noted(text=number), digest=number.to_bytes(8, "big")))
    assert isinstance(outcome, Moved), outcome
    assert outcome.context is not None
    return run._replace(context=outcome.context)


def play(machine: Machine, between: Callable[[], None] = lambda: None) -> list[int]:
    """The amounts after each of some events."""
    run, amounts = begun(machine, Opened(name="acme")), []
    for number in range(1, 6):
        run = noting(machine, run, number)
        amounts.append(Plain.model_validate_json(run.context).amount)
        between()
    return amounts


def test_one_that_nobody_has_kept_goes_to_the_next_event_where_the_caller_is_compiled() -> None:
    had: list[int] = []

    def note(context: Plain, event: Noted) -> None:
        context.amount += event.text
        vars(context)  # whoever only looks keeps nothing
        had.append(len(machine.kept.contexts))

    machine = machine_of(note)
    run = begun(machine, Opened(name="acme"))
    kept = []
    for number in range(1, 5):
        run = noting(machine, run, number)
        kept.append(len(machine.kept.contexts))
    assert Plain.model_validate_json(run.context).amount == 10
    assert kept == ([1, 1, 1, 1] if COMPILED else [0, 0, 0, 0])
    assert had == [0, 0, 0, 0], "whoever takes it has it alone"


class Keeper:
    """Handlers that keep what is theirs for the length of one event only."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.weak_ones: weakref.WeakValueDictionary[str, Plain] = weakref.WeakValueDictionary()

    def context(self, context: Plain) -> None:
        self.kept.append(context)

    def values(self, context: Plain) -> None:
        self.kept.append(vars(context))

    def closure(self, context: Plain) -> None:
        def late() -> None:
            context.amount = -1

        self.kept.append(late)

    def generator(self, context: Plain) -> None:
        def late() -> Iterator[None]:
            yield
            context.amount = -1
            yield

        generator = late()
        next(generator)
        self.kept.append(generator)

    def weak(self, context: Plain) -> None:
        self.weak_ones["acme"] = context
        self.kept.append(weakref.ref(context))

    def fields_set(self, context: Plain) -> None:
        self.kept.append(context.model_fields_set)

    def method(self, context: Plain) -> None:
        self.kept.append(context.__setattr__)

    def thread(self, context: Plain) -> None:
        go, done = threading.Event(), threading.Event()

        def late() -> None:
            go.wait()
            context.amount = -1
            done.set()

        threading.Thread(target=late, daemon=True).start()
        self.kept.append((go, done))

    def spoil(self) -> None:
        for one in self.kept:
            if isinstance(one, dict):
                one["amount"] = -1
            elif isinstance(one, set):
                one.clear()
            elif isinstance(one, weakref.ref):
                assert one() is None
                assert not self.weak_ones
            elif isinstance(one, Plain):
                one.amount = -1
            elif isinstance(one, tuple):
                one[0].set()
                one[1].wait()
            elif isinstance(one, Iterator):
                next(one, None)
            elif getattr(one, "__name__", "") == "late":
                one()
            else:
                one("amount", -1)


@pytest.mark.parametrize(
    "how", ["context", "values", "closure", "fields_set", "generator", "method", "thread", "weak"]
)
def test_what_is_done_later_to_one_that_was_kept_is_not_seen(how: str) -> None:
    keeper = Keeper()

    def note(context: Plain, event: Noted) -> None:
        keeper.spoil()
        assert context.model_fields_set == set(Plain.model_fields)
        context.amount += event.text
        getattr(keeper, how)(context)

    assert play(machine_of(note), keeper.spoil) == [1, 3, 6, 10, 15]
    assert len(keeper.kept) == 5


@pytest.mark.parametrize(
    "leave",
    [
        lambda context: context.__dict__.update(amount=2**64),
        lambda context: context.__dict__.update(amount=float(context.amount)),
        lambda context: context.__dict__.update(other=1),
        lambda context: context.__dict__.update(key=context.__dict__.pop("key")),
        lambda context: context.model_fields_set.clear(),
        lambda context: (context.model_fields_set.discard("note"), context.model_fields_set.add("other")),
        lambda context: object.__setattr__(context, "__class__", Below),
        lambda context: object.__setattr__(context, "__dict__", OrderedDict(context.__dict__)),
    ],
    ids=[
        *("too large for orjson", "of another class", "more than fields", "another order", "fields not set"),
        *("other fields set", "of a class below", "a dict of a class below"),
    ],
)
def test_what_goes_from_event_to_event_is_as_if_it_were_read_anew(leave: Callable[[Plain], Any]) -> None:
    seen: list[tuple[type, str, set[str]]] = []

    def note(context: Plain, event: Noted) -> None:
        seen.append((type(context), repr(vars(context)), set(context.model_fields_set)))
        context.amount = event.text
        if event.text == 1:
            leave(context)

    machine = machine_of(note)
    run = begun(machine, Opened(name="acme"))
    for number in range(4):
        was = run
        outcome = step(machine, run, occurrence(Noted(text=number), digest=number.to_bytes(8, "big")))
        if isinstance(outcome, Moved) and outcome.context is not None:
            run = run._replace(context=outcome.context)
        read = Plain.model_validate_json(was.context)
        assert seen[-1] == (Plain, repr(vars(read)), read.model_fields_set)


def test_they_are_kept_again_some_time_after_hardly_any_was_read_again() -> None:
    def note(context: Plain, event: Noted) -> None:
        context.amount = event.text

    machine = machine_of(note)
    machine.kept.pausing = 3
    run, pausing = begun(machine, Opened(name="acme")), []
    for number in range(1, 6):
        run = noting(machine, run, number)
        pausing.append((machine.kept.pausing, len(machine.kept.contexts)))
    kept = int(COMPILED)
    assert pausing == [(2, 0), (1, 0), (0, 0), (0, kept), (0, kept)]


def test_one_that_is_too_large_is_refused_as_any_other() -> None:
    machine = machine_of(lambda context, event: None)
    large = Plain(key="a" * CONTEXT_BYTES_MAX)
    with pytest.raises(HandlerError, match=r"field 'key' grew most"):
        write(machine, large, "note", b'{"key":"a"}')
    with pytest.raises(HandlerError, match=r"field 'key' grew most"):
        write_last(machine, large, "note", b'{"key":"a"}')


def test_text_that_is_not_unicode_is_refused_as_in_any_other() -> None:
    machine = machine_of(lambda context, event: None)
    with pytest.raises(HandlerError, match="does not survive being stored"):
        write(machine, Plain(key="\ud800"), "note")
