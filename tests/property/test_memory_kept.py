"""A memory that was written is kept as it is, for whoever reads it next; and is what is read from its bytes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachines.memory import EMPTY, Delayed, Execution, Memory, Owed, read_memory, write_memory

NUMBERS = st.integers(0, 2**53)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
EXECUTIONS = st.builds(
    Execution,
    NUMBERS,
    NUMBERS,
    TEXTS,
    TEXTS,
    attempt=NUMBERS,
    again=st.integers(-1, 2**53),
    error=TEXTS,
    of=TEXTS,
    made=NUMBERS,
    stopping=st.integers(0, 2),
    unknown=st.integers(0, 1),
    since=NUMBERS,
    scope=TEXTS,
    token=TEXTS,
    progress=TEXTS,
)
OWED = st.builds(Owed, NUMBERS, NUMBERS, TEXTS, NUMBERS, TEXTS, st.integers(0, 1))
DELAYED = st.builds(
    Delayed,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    TEXTS,
    st.none() | st.lists(NUMBERS, max_size=2),
    at_once=st.booleans(),
)


@given(
    st.lists(DELAYED, max_size=2),
    st.dictionaries(TEXTS, NUMBERS, max_size=1),
    st.lists(EXECUTIONS, max_size=3),
    st.lists(OWED, max_size=3),
    st.integers(-1, 3),
)
def test_what_is_read_is_what_its_bytes_say(
    delayed: list[Delayed], marks: dict[str, int], executions: list[Execution], owed: list[Owed], undoing: int
) -> None:
    memory = Memory(tuple(delayed), marks, {}, None, tuple(executions), tuple(owed), undoing)
    written = write_memory(memory)
    found = read_memory(written)
    said: dict[str, Any] = orjson.loads(written)
    assert found == Memory(
        tuple(Delayed(*one) for one in said.get("delayed", ())),
        said.get("marks", {}),
        {},
        None,
        tuple(Execution(*one) for one in said.get("executions", ())),
        tuple(Owed(*one) for one in said.get("owed", ())),
        said.get("undoing", -1),
    )
    # Not only equal: true is no number.
    assert repr(read_memory(written)) == repr(read_memory(written + b" "))


def test_what_could_be_changed_is_not_kept_as_it_was_given() -> None:
    marks, words = {"stream": 1}, ["a"]
    written = write_memory(Memory((Delayed(1, 1, 0, "said", words),), marks))
    marks["stream"] = 2
    words.append("b")
    found = read_memory(written)
    assert (found.marks, found.delayed[0].data) == ({"stream": 1}, ["a"])


PARTS: list[dict[str, Any]] = [
    {"delayed": (Delayed(2, 1, 1, "t", None),)},
    {"marks": {"stream": 1}},
    {"seen": {"key": 1}},
    {"output": 0},
    {"executions": (Execution(1, 0, "charge", "s"),)},
    {"owed": (Owed(1, 0, "charge"),)},
    {"undoing": 0},
    {"scopes": {"": 0}},
]


@pytest.mark.parametrize("parts", [{}, *PARTS, {name: part for one in PARTS for name, part in one.items()}])
def test_what_has_fallen_due_leaves_a_memory_and_nothing_else_does(parts: dict[str, Any]) -> None:
    timer, stays = Delayed(1, 1, 0, "t", None, "s"), Memory(**parts)
    left = stays._replace(delayed=(timer, *stays.delayed)).without(timer)
    assert left == stays
    # A memory of which nothing is left is known at once by whoever looks.
    assert (left is EMPTY) == (not parts)
