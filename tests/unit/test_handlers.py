"""Whatever user code does, it ends as an outcome: the event is refused, the run is held, and that is all."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import pytest
from pydantic import BaseModel, Field, field_serializer

from statemachines import Context, Event, Failed, Pipeline, Publish
from statemachines.effects import Publication
from statemachines.interpreter import step
from statemachines.limits import CONTEXT_BYTES_MAX, EFFECTS_MAX, ERROR_CHARACTERS_MAX
from statemachines.machine import compile_pipeline
from statemachines.outcome import Moved, Outcome, Reason, Refused
from tests.unit.machines import Added, Noted, Opened, begun, occurrence


class Inner(BaseModel):
    model_config = {"arbitrary_types_allowed": True}
    thing: Any = None


class Box(Context):
    value: Any = None
    number: float | None = 0.0
    inner: Inner | None = None
    items: list[str] = Field(default_factory=list)
    raw: bytes = b""

    @cached_property
    def doubled(self) -> float:
        return 2 * (self.number or 0.0)


def after(moved: Moved) -> Box:
    """What the run goes on from."""
    assert moved.context is not None
    return Box.model_validate_json(moved.context)


def acting(do: Callable[..., Any], *, when: Any = None, event: Event | None = None) -> Outcome:
    """The outcome of one event with this action, in a run that has just begun."""
    flow = Pipeline("box", Box, topics=["boxes"])
    flow.state("only", initial=True).on(Noted, when=when, do=do)
    flow.start(Opened, lambda _event: Box())
    machine = compile_pipeline(flow)
    return step(machine, begun(machine, Opened(name="acme")), occurrence(event or Noted(text="hello")))


def moved(outcome: Outcome) -> Moved:
    assert isinstance(outcome, Moved), outcome
    return outcome


def refused(outcome: Outcome, reason: Reason = Reason.ACTION_FAILED) -> str:
    assert isinstance(outcome, Refused), outcome
    assert (outcome.reason, outcome.holds) == (reason, True)
    assert outcome.error.isprintable()
    return outcome.error


def raising(error: BaseException) -> Callable[..., Any]:
    def handler(_context: Any, _event: Any) -> Any:
        raise error

    return handler


class Unspeakable(Exception):  # noqa: N818 - it is what it is
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("wrong"),
        BaseException("base"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError("cancelled"),
        MemoryError(),
        StopIteration(1),
        ExceptionGroup("several", [ValueError("one")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_handler_raises_the_event_is_refused_and_the_run_held(error: BaseException) -> None:
    name = type(error).__name__
    assert f"raised {name}: {error}" in refused(acting(raising(error)))
    assert f"raised {name}: {error}" in refused(
        acting(raising(error), when=raising(error)), Reason.GUARD_FAILED
    )


def test_the_message_names_the_handler_and_the_line_that_raised() -> None:
    line = raising.__code__.co_firstlineno + 2
    message = refused(acting(raising(ValueError("wrong"))))
    assert message == f"raising.<locals>.handler raised ValueError: wrong ({__file__}:{line})"


def test_an_exception_whose_message_cannot_be_shown_is_refused_all_the_same() -> None:
    assert "Unspeakable: (its message cannot be shown)" in refused(acting(raising(Unspeakable())))


def test_a_message_is_one_printable_line_of_limited_length() -> None:
    message = refused(acting(raising(ValueError("a\n\0\ud800\t" + "x" * 10_000))))
    assert r"a\n\x00\ud800\t" in message
    assert len(message) < ERROR_CHARACTERS_MAX + 100
    assert message.endswith(")"), "the place is kept where the message is cut off"
    assert message.encode()


def test_endless_recursion_ends_as_a_refusal() -> None:
    def again(context: Any, event: Any) -> Any:
        return again(context, event)

    assert "RecursionError" in refused(acting(again))


@pytest.mark.parametrize("nonsense", [1, "text", {"a": 1}, object(), [Publish], ["text"], [None]])
def test_an_action_that_returns_nonsense_is_refused(nonsense: Any) -> None:
    message = refused(acting(lambda _context, _event: nonsense))
    assert (
        "an action returns None, an effect (Publish, Raise, Send, Cancel, Complete, Compensate, Settle) or several"
        in message
    )


class Nothing(Context):
    """Gone through, it has nothing in it."""


class Happened(Event, type="happened"):
    """Neither has this."""


AS_EVENTS = (
    "an event: wrap it to say what is to become of it, as in Publish(topic, ...), Raise(...) or Send(...)"
)
AS_CONTEXTS = "a context: the run's is changed in place, and is not returned"


def generated(*effects: Any) -> Iterator[Any]:
    yield from effects


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Noted(text="hello"), f"Noted, {AS_EVENTS}"),
        (Happened, f"Happened, {AS_EVENTS}"),
        (lambda: [Publish("notes", Noted()), Noted()], f"several with Noted, {AS_EVENTS}"),
        (lambda: generated(Happened()), f"several with Happened, {AS_EVENTS}"),
        (Box, f"Box, {AS_CONTEXTS}"),
        (Nothing, f"Nothing, {AS_CONTEXTS}"),
        (lambda: (Box(),), f"several with Box, {AS_CONTEXTS}"),
        (Inner, "Inner; an action returns None, an effect"),
        (lambda: Happened, "the class Happened itself; an action returns None, an effect"),
        (lambda: [Publish], "several with the class Publish itself; an action returns None, an effect"),
        (lambda: {"a": 1}, "dict; an action returns None, an effect"),
        (lambda: "text", "str; an action returns None, an effect"),
        (lambda: [1], "several with int; an action returns None, an effect"),
        (lambda: 1, "int; an action returns None, an effect"),
    ],
)
def test_what_an_action_returned_is_called_what_it_is(made: Callable[[], Any], said: str) -> None:
    def told(_context: Any, _event: Any) -> Any:
        return made()

    where = "test_what_an_action_returned_is_called_what_it_is.<locals>.told"
    assert refused(acting(told)).startswith(f"{where} returned {said}")


@pytest.mark.parametrize("nonsense", [None, 1, 0, "yes", object()])
def test_a_guard_that_answers_neither_true_nor_false_is_refused(nonsense: Any) -> None:
    message = refused(acting(raising(ValueError()), when=lambda _c, _e: nonsense), Reason.GUARD_FAILED)
    assert message.endswith("a guard answers True or False")


@pytest.mark.parametrize("answer", [True, False])
def test_a_guard_that_assigns_to_the_context_is_refused(answer: bool) -> None:
    def counts(box: Box, _event: Any) -> bool:
        box.number = 7
        return answer

    message = refused(acting(lambda _box, _event: None, when=counts), Reason.GUARD_FAILED)
    assert message.endswith("changed 'number' of the context: a guard only answers, and an action changes it")


def test_what_a_context_keeps_for_itself_while_a_guard_asks_is_no_change() -> None:
    def asks(box: Box, _event: Any) -> bool:
        box.number = 0.0
        return bool(box.doubled == 0)

    def puts(box: Box, _event: Any) -> None:
        box.number = 1.0

    assert after(moved(acting(puts, when=asks))).number == 1.0


@pytest.mark.parametrize("nonsense", [None, 1, "text", {}, Inner()])
def test_a_start_function_that_returns_something_else_is_refused_and_holds_nothing(nonsense: Any) -> None:
    flow = Pipeline("box", Box, topics=["boxes"])
    flow.state("only", initial=True)
    flow.start(Opened, lambda _event: nonsense)
    outcome = step(compile_pipeline(flow), None, occurrence(Opened(name="acme")))
    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.holds) == (Reason.ACTION_FAILED, False)
    assert outcome.error.endswith("but the pipeline's context is Box")


def test_a_start_function_that_exits_is_refused() -> None:
    flow = Pipeline("box", Box, topics=["boxes"])
    flow.state("only", initial=True)
    flow.start(Opened, lambda _event: sys.exit(4))
    outcome = step(compile_pipeline(flow), None, occurrence(Opened(name="acme")))
    assert isinstance(outcome, Refused)
    assert "raised SystemExit: 4" in outcome.error


def leaving(**values: Any) -> Callable[..., None]:
    def change(context: Box, _event: Any) -> None:
        for name, value in values.items():
            setattr(context, name, value)

    return change


class Refusing(BaseModel):
    value: int = 1

    @field_serializer("value")
    def write(self, _value: int) -> int:
        raise SystemExit(1)


@pytest.mark.parametrize(
    "values",
    [
        {"value": object()},
        {"inner": Inner(thing=object())},
        {"value": [1, {"deep": object()}]},
        {"value": Refusing()},
        {"number": float("nan")},
        {"number": float("inf")},
        {"number": "not a number"},
        {"items": "not a list"},
        {"value": "lone \ud800 surrogate"},
    ],
    ids=lambda fields: f"{next(iter(fields))} {type(next(iter(fields.values()))).__name__}",
)
def test_a_context_that_does_not_survive_being_stored_is_refused(values: dict[str, Any]) -> None:
    message = refused(acting(leaving(**values)))
    assert "does not survive being stored" in message
    assert "leaving.<locals>.change" in message


def test_a_context_that_contains_itself_is_refused() -> None:
    def tie(context: Box, _event: Any) -> None:
        context.value = [context]

    assert "does not survive being stored" in refused(acting(tie))


def test_a_context_beyond_its_limit_is_refused_with_both_sizes() -> None:
    message = refused(acting(leaving(value="x" * CONTEXT_BYTES_MAX)))
    assert f"of {CONTEXT_BYTES_MAX} allowed" in message


@pytest.mark.parametrize("shape", ["flat", "chart", "chart that takes failures", "start"])
def test_a_context_beyond_its_limit_is_told_by_the_field_that_grew_most(shape: str) -> None:
    def grow(context: Box, _event: Any) -> None:
        context.items += ["x" * (CONTEXT_BYTES_MAX // 10)] * 2

    flow = Pipeline("box", Box, topics=["boxes"])
    only = flow.state("only", initial=True)
    only.on(Noted, do=grow)
    begins: dict[str, Any] = {"value": "v" * 900_000, "items": ["one"]}
    flow.start(Opened, lambda _event: Box(**begins), do=grow if shape == "start" else None)
    if shape.startswith("chart"):
        only.exit(lambda _context, _event: None)
    if shape.endswith("failures"):
        only.on(Failed, when=lambda _context, _event: False)
    machine = compile_pipeline(flow)
    assert machine.flat == (shape in ("flat", "start"))
    if shape == "start":
        outcome = step(machine, None, occurrence(Opened(name="acme")))
    else:
        outcome = step(machine, begun(machine, Opened(name="acme")), occurrence(Noted(text="hello")))
    assert isinstance(outcome, Refused)
    grown = (
        "'value' grew most, from 0 to 900002" if shape == "start" else "'items' grew most, from 7 to 200013"
    )
    assert f"of {CONTEXT_BYTES_MAX} allowed; its field {grown} bytes" in outcome.error


def test_bytes_that_are_no_text_survive() -> None:
    outcome = acting(leaving(raw=b"\xff\0\x80"))
    assert isinstance(outcome, Moved)
    assert after(outcome).raw == b"\xff\0\x80"


def test_a_run_goes_on_from_what_was_stored_and_not_from_what_was_assigned() -> None:
    outcome = acting(leaving(number="1.5", value=(1, 2)))
    assert isinstance(outcome, Moved)
    assert (after(outcome).number, after(outcome).value) == (1.5, [1, 2])


def test_a_handler_that_keeps_the_context_or_shares_parts_of_the_event_changes_nothing_later() -> None:
    kept: list[Any] = []

    def keep(context: Box, event: Noted) -> None:
        context.value = event.text
        kept.extend([context, event.text])

    outcome = acting(keep, event=Noted(text=["as it was"]))
    assert isinstance(outcome, Moved)
    before = outcome.context
    kept[0].items.append("later")
    kept[1].append("later")
    assert after(outcome).value == ["as it was"]
    assert after(outcome).items == []
    assert outcome.context == before


def test_an_event_cannot_be_assigned_to() -> None:
    def change(_context: Box, event: Any) -> None:
        event.text = "other"

    assert "frozen" in refused(acting(change))


def test_an_action_may_yield_its_effects() -> None:
    def several(_context: Box, event: Noted) -> Iterator[Publish]:
        yield Publish("one", event)
        yield Publish("two", event, key="mine")

    outcome = acting(several)
    assert isinstance(outcome, Moved)
    assert [(one.topic, one.key) for one in outcome.publications] == [("one", "acme"), ("two", "mine")]


def test_an_action_that_raises_between_its_effects_asks_for_none() -> None:
    def several(context: Box, event: Noted) -> Iterator[Publish]:
        context.value = "half"
        yield Publish("one", event)
        raise KeyboardInterrupt

    assert "raised KeyboardInterrupt" in refused(acting(several))


def test_an_action_without_end_is_cut_off_at_the_limit() -> None:
    asked = 0

    def endless(_context: Box, event: Noted) -> Iterator[Publish]:
        nonlocal asked
        while True:
            asked += 1
            yield Publish("more", event)

    assert f"more than {EFFECTS_MAX} effects" in refused(acting(endless))
    assert asked == EFFECTS_MAX + 1


@pytest.mark.parametrize(
    ("effect", "message"),
    [
        (Publish("out", Noted(), key="lone \ud800"), "surrogates not allowed"),
        (Publish("lone \ud800", Noted()), "surrogates not allowed"),
        (Publish("out", Noted(), key=5), "key as text, not int"),  # type: ignore[arg-type]  # the mistake
        (Publish(None, Noted()), "topic as text, not NoneType"),  # type: ignore[arg-type]  # the mistake
        (Publish("", Noted()), "names the topic '', which is empty"),
        (Publish("..", Noted()), "names the topic '..', which is none that Kafka takes"),
        (Publish("no topic", Noted()), "names the topic 'no topic', which is none that Kafka takes"),
        (Publish("orders/eu", Noted()), "names the topic 'orders/eu', which is none that Kafka takes"),
        (Publish("x" * 250, Noted()), "is 250 characters long, of 249 allowed"),
        (Publish("out", "text"), "needs an event whose class names a type, not str"),  # type: ignore[arg-type]  # the mistake
        (Publish("out", Event()), "needs an event whose class names a type, not Event"),
        (Publish("out", Noted(text=object())), "Unable to serialize"),
        (Publish("out", Noted(text="lone \ud800")), "surrogates not allowed"),
    ],
)
def test_a_publication_that_cannot_be_written_is_refused(effect: Publish, message: str) -> None:
    assert message in refused(acting(lambda _context, _event: effect))


def test_what_the_outlet_does_not_let_out_is_refused_and_the_run_held() -> None:
    offered: list[tuple[str, bytes, str]] = []

    def outlet(publication: Publication, event: Event) -> str:
        offered.append((publication.topic, publication.data, event.meta.key))
        return "is too much for it" if publication.topic == "small" else ""

    def several(context: Box, event: Noted) -> list[Publish]:
        context.value = "half"
        return [Publish("large", event), Publish("small", event), Publish("large", event)]

    flow = Pipeline("box", Box, topics=["boxes"])
    flow.state("only", initial=True).on(Noted, do=several)
    flow.start(Opened, lambda _event: Box(), do=lambda _context, event: Publish("small", event))
    free = compile_pipeline(flow)
    machine = replace(free, outlet=outlet)
    run = begun(free, Opened(name="acme"))
    outcome = step(machine, run, occurrence(Noted(text="hello")))
    assert refused(outcome, Reason.TOO_LARGE).endswith("several is too much for it")
    assert [(topic, key) for topic, _, key in offered] == [("large", "acme"), ("small", "acme")]
    assert b"hello" in offered[0][1]
    assert isinstance(step(free, run, occurrence(Noted(text="hello"))), Moved)

    start = step(machine, None, occurrence(Opened(name="acme")))
    assert isinstance(start, Refused)
    assert (start.reason, start.holds) == (Reason.TOO_LARGE, False)


def test_a_published_event_is_written_under_its_aliases_as_it_would_be_read() -> None:
    class Renamed(Event, type="renamed"):
        order_id: str = Field(alias="orderId")

    outcome = acting(lambda _context, _event: Publish("out", Renamed(orderId="o-1")))
    assert isinstance(outcome, Moved)
    assert outcome.publications[0].data == b'{"orderId":"o-1"}'


def test_a_stored_context_that_fails_its_class_is_refused() -> None:
    flow = Pipeline("box", Box, topics=["boxes"])
    flow.state("only", initial=True).on(Added, do=leaving(value=1))
    flow.start(Opened, lambda _event: Box())
    machine = compile_pipeline(flow)
    run = begun(machine, Opened(name="acme"))._replace(context=b'{"gone": 1}')
    message = refused(step(machine, run, occurrence(Added(name="acme", amount=1))))
    assert message.startswith("the stored context is no Box any more")
