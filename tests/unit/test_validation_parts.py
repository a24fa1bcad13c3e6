"""Mistakes in what a definition is made of: contexts, settings, topics, functions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel, field_serializer

from statemachines import Context, Event, Topic
from statemachines.validation import find_mistakes
from tests.unit.mistaken import (
    LONG,
    Asked,
    Empty,
    awaited,
    right,
    state_of,
    the_mistake,
    yes,
)


class Part(BaseModel):
    tags: frozenset[str] = frozenset()


def test_sets_are_found_anywhere_in_a_context_and_all_are_named() -> None:
    class WithSets(Context):
        plain: set[int]
        nested: dict[str, list[set[str] | None]]
        part: Part
        again: list[WithSets] = []  # noqa: RUF012 - pydantic copies defaults
        type: str = "set"
        fine: list[str] = []  # noqa: RUF012 - the same

    messages = [mistake.message for mistake in find_mistakes(right(context=WithSets))]
    assert messages == [
        f"the field {path!r} of the context WithSets holds a set" for path in ("nested", "part.tags", "plain")
    ]


def test_a_set_with_a_serializer_of_its_own_is_the_author_s_business() -> None:
    class Sorted(Context):
        tags: set[str]

        @field_serializer("tags")
        def in_order(self, tags: set[str]) -> list[str]:
            return sorted(tags)

    assert find_mistakes(right(context=Sorted)) == []


@pytest.mark.parametrize("context", [int, BaseModel, dict, Empty(), "Empty", None])
def test_a_context_is_a_subclass_of_context(context: Any) -> None:
    assert the_mistake(right(context=context)).message.endswith(
        "of pipeline 'right' is no subclass of Context"
    )


def test_a_context_that_refers_to_nothing_is_named() -> None:
    class Broken(Context):
        part: Missing  # type: ignore[name-defined]  # noqa: F821 - the mistake

    assert "the context Broken cannot be validated" in the_mistake(right(context=Broken)).message


@pytest.mark.parametrize("version", [0, -1, True, 1.5, "1", None, 2**31])
def test_a_version_is_a_positive_whole_number(version: Any) -> None:
    assert the_mistake(right(version=version)).message == f"the version of pipeline 'right' is {version!r}"


@pytest.mark.parametrize("setting", ["no_run", "unexpected", "closed"])
def test_a_policy_is_one_of_the_known_words(setting: str) -> None:
    mistake = the_mistake(right(**{setting: "ignroe"}))
    assert (mistake.message, mistake.cure) == (f"{setting}='ignroe' is no policy", "Did you mean 'ignore'?")


@pytest.mark.parametrize(
    ("topics", "message"),
    [
        ("orders", "topics='orders' is one topic where a list of them is wanted"),
        (Topic("orders"), "topics='orders' is one topic where a list of them is wanted"),
        (5, "topics=5 is no list of topics"),
        ([None], "topics=[None] is no list of topics"),
        (["a", Topic("b"), "a"], "the topic 'a' is named twice"),
        (["a b"], "the topic name 'a b' is none that Kafka takes"),
        ([".."], "the topic name '..' is none that Kafka takes"),
        ([""], "the topic name '' is empty"),
        (["x" * 250], f"the topic name {'x' * 250!r} is 250 characters long, of 249 allowed"),
        (
            [LONG],
            f"the dead-letter topic '{LONG}.dead-letters' of '{LONG}' is 253 characters long, of 249 allowed",
        ),
        ([Topic("a", unknown="ignor")], "unknown='ignor' of topic 'a' is no policy"),  # type: ignore[arg-type]  # the mistake
        ([Topic("a", tombstones="event")], "tombstones='event' of topic 'a' is no policy"),  # type: ignore[arg-type]  # the mistake
        ([Topic("a", dead_letters="b"), "b"], "pipeline 'right' reads 'b', to which its own dead letters go"),
        ([Topic("a", key="")], "key='' of topic 'a' names no header and no field"),
        ([Topic("a", type_default="")], "type_default='' of topic 'a' is no event type"),
    ],
)
def test_topics_are_legal_and_named_once(topics: Any, message: str) -> None:
    assert the_mistake(right(topics=topics)).message == message


def test_a_pipeline_that_reads_nothing_is_a_warning() -> None:
    assert the_mistake(right(topics=[]), "warning").message == "pipeline 'right' reads no topic"


async def builds(_event: Event) -> Empty:
    return Empty()


def one(_context: Empty) -> bool:
    return True


def three(_context: Empty, _event: Event, _more: int) -> bool:
    return True


def generating(_context: Empty, _event: Event) -> Iterator[bool]:
    yield True


class Callable2:
    def __call__(self, _context: Empty, _event: Event) -> bool:
        return True


class AsyncCallable:
    async def __call__(self, _context: Empty, _event: Event) -> bool:
        return True


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"do": 5}, "the action is not a function but 5"),
        ({"when": "yes"}, "the guard is not a function but 'yes'"),
        ({"do": [one, three]}, "the action is one function, not a list of them"),
        ({"when": (one,)}, "the guard is one function, not a list of them"),
        ({"do": awaited}, "the action awaited is async, but nothing awaits it"),
        ({"when": awaited}, "the guard awaited is async, but nothing awaits it"),
        ({"when": partial(awaited, Empty())}, "the guard awaited is async, but nothing awaits it"),
        ({"when": AsyncCallable()}, "the guard AsyncCallable is async, but nothing awaits it"),
        ({"when": one}, "the guard one(_context: 'Empty') -> 'bool' cannot be called with (context, event)"),
        ({"do": lambda: None}, "cannot be called with (context, event)"),
        ({"do": three}, "cannot be called with (context, event)"),
        ({"when": generating}, "the guard generating is a generator, which answers nothing by itself"),
    ],
)
def test_guards_and_actions_are_plain_functions_of_two(given: dict[str, Any], message: str) -> None:
    flow = right()
    state_of(flow, "open").on(Asked, **given)
    mistake = the_mistake(flow)
    assert message in mistake.message
    assert (mistake.state, mistake.event) == ("open", "asked")


@pytest.mark.parametrize(
    "given",
    [
        {"when": lambda _context, _event: True},
        {"when": Callable2()},
        {"when": partial(three, _more=1)},
        {"when": bool.__and__},
        {"do": generating},
        {"do": lambda *_anything: None},
        {"do": max},
    ],
)
def test_anything_that_can_be_called_with_two_will_do(given: dict[str, Any]) -> None:
    flow = right()
    state_of(flow, "open").on(Asked, **given)
    assert find_mistakes(flow) == []


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (builds, "the build function builds is async"),
        (yes, "cannot be called with (event)"),
        (Empty, "cannot be called with (event)"),
        (None, "the build function is not a function but None"),
    ],
)
def test_a_build_function_is_a_plain_function_of_one(function: Any, message: str) -> None:
    flow = right()
    flow.start(Asked, function)
    assert message in the_mistake(flow).message


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        (Topic("s3", each=""), "each='' of topic 's3' names no field"),
        (Topic("s3", each=5), "each=5 of topic 's3' names no field"),  # type: ignore[arg-type]  # the mistake
        (Topic("s3", each="Records", each_missing="skip"), "each_missing='skip' of topic 's3' is no policy"),  # type: ignore[arg-type]  # the same
        (Topic("s3", each_missing="ignore"), "each_missing='ignore' of topic 's3' says nothing without each"),
    ],
)
def test_a_list_of_events_is_named_by_a_field(topic: Topic, message: str) -> None:
    assert the_mistake(right(topics=[topic])).message == message
