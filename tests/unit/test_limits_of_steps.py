"""Limits for all engines: by which value, and what they leave to begin."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from engine.routing import Loaded, make_routes
from engine.steps.executions import note_executions
from engine.store.limited import CLOCKS_APART, LimitedRoom
from engine.store.values import Commit
from statemachines import Limit
from statemachines.machine import compile_pipeline
from statemachines.memory import Execution, Memory, write_memory
from statemachines.run import Run, Status
from statemachines.search import VALUE_CHARACTERS_MAX
from tests.charging import charging_pipeline

AT = datetime(2026, 3, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("by", "context", "value"),
    [
        ("tenant", {"tenant": "a"}, "a"),
        ("tenant", {"tenant": 7}, "7"),
        ("tenant", {"tenant": True}, "true"),
        ("tenant", {"tenant": ["a", 1]}, '["a",1]'),
        ("tenant", {"tenant": None}, ""),
        ("tenant", {}, ""),
        ("tenant", {"tenant": "a\0"}, "a\\x00"),
        ("customer.tenant", {"customer": {"tenant": "a"}}, "a"),
        ("customer.tenant", {"customer": None}, ""),
        (None, {"tenant": "a"}, ""),
    ],
)
def test_it_is_by_a_field_of_the_context(by: str | None, context: Any, value: str) -> None:
    assert Limit(by, at_once=1).key_of(orjson.dumps(context)) == value


def test_long_values_are_told_apart_and_short() -> None:
    one, two = (Limit("t", at_once=1).key_of(orjson.dumps({"t": "x" * 5_000 + end})) for end in "ab")
    assert one != two
    assert len(one) < VALUE_CHARACTERS_MAX + 50


@pytest.mark.parametrize(
    ("rate", "interval", "burst"),
    [
        (None, None, 1),
        (1, SECOND, 1),
        (0.5, 2 * SECOND, 1),
        (4, SECOND / 4, 1),
        (5, SECOND / 5, 2),
        (100, SECOND / 100, 25),
    ],
)
def test_a_rate_is_a_distance_and_a_burst(rate: float | None, interval: timedelta | None, burst: int) -> None:
    limit = Limit(rate=rate, at_once=1)
    assert (limit.interval, limit.burst) == (interval, burst)


def test_a_rate_is_never_exceeded_by_what_cannot_be_told_exactly() -> None:
    interval = Limit(rate=3).interval
    assert interval is not None
    assert interval * 3 >= SECOND


@pytest.mark.parametrize(
    ("at_once", "going", "interval", "ahead", "left"),
    [
        (None, 50, None, 0, 9),
        (3, 0, None, 0, 3),
        (3, 2, None, 0, 1),
        (3, 5, None, 0, 0),
        (20, 0, None, 0, 9),
        (None, 0, SECOND, 0, 4),
        (None, 0, SECOND, 0.5, 3),
        (None, 0, SECOND, 3, 1),
        (None, 0, SECOND, 3.1, 0),
        (2, 0, SECOND, 0, 2),
        (20, 0, SECOND, 2, 2),
    ],
)
def test_what_is_left(
    at_once: int | None, going: int, interval: timedelta | None, ahead: float, left: int
) -> None:
    room = LimitedRoom(1, "charge", 9, at_once, interval, 4)
    assert room.leaves(going, AT + ahead * SECOND, AT) == left


def test_a_stored_time_counts_unless_it_cannot_be() -> None:
    room = LimitedRoom(1, "charge", 9, None, SECOND, 4)
    latest = AT + 4 * SECOND + CLOCKS_APART
    assert room.due(None, AT) == AT
    assert room.due(AT - SECOND, AT) == AT
    assert room.due(latest, AT) == latest
    assert room.due(latest + SECOND, AT) == AT
    assert LimitedRoom(1, "charge", 9, 1, None).due(latest, AT) == AT


@pytest.mark.parametrize("look", [0.01, 0.2])
@pytest.mark.parametrize("rate", [0.5, 1, 2, 3, 4, 4.5, 4.9, 5, 7, 7.9, 8, 20, 100])
def test_a_rate_is_kept_however_often_it_is_looked(rate: float, look: float) -> None:
    limit, seconds = Limit(rate=rate), 200
    room = LimitedRoom(1, "charge", 1_000, None, limit.interval, limit.burst)
    assert limit.interval is not None
    known, begun = None, list[int]()
    for at in range(round(seconds / look)):
        now = AT + at * look * SECOND
        due = room.due(known, now)
        begun.append(room.leaves(0, due, now))
        known = due + begun[-1] * limit.interval if begun[-1] else known
    assert rate * seconds * 0.99 <= sum(begun) <= rate * seconds + limit.burst + 1
    assert max(begun) <= limit.burst


def test_what_comes_one_at_a_time_keeps_its_distance() -> None:
    room = LimitedRoom(1, "charge", 9, None, SECOND)
    known = room.due(AT - 9 * SECOND, AT) + SECOND
    assert room.leaves(0, room.due(known, AT + SECOND * 0.79), AT + SECOND * 0.79) == 0
    assert room.leaves(0, room.due(known, AT + SECOND * 0.81), AT + SECOND * 0.81) == 1


def test_what_is_asked_for_knows_what_it_is_limited_by() -> None:
    memory = write_memory(Memory(executions=(Execution(1, 0, "charge", "s"), Execution(1, 1, "pack", "t"))))
    named = 7, "o1", 0, 3, int(Status.RUNNING), "s", b'{"amount":5}', b"", b"", 1, 0, 0, AT, AT
    commit = Commit(AT)
    note_executions(commit, 5, Run(*named, memory), b"", {"charge": Limit("amount", at_once=1)})
    assert [(one.step, one.limited_by) for one in commit.executions_asked] == [
        ("charge", "5"),
        ("pack", None),
    ]


def test_of_versions_the_newest_says_how_a_step_is_limited() -> None:
    limits = [Limit("order", at_once=1), Limit("amount", at_once=1), None]
    for newest in range(1, 4):
        loaded = []
        for version, limit in enumerate(limits[:newest], start=1):
            flow = charging_pipeline(limit=limit)
            flow.version = version
            loaded.append(Loaded(compile_pipeline(flow), 1, version))
        [topic] = make_routes([*reversed(loaded)], {}).values()
        wanted = limits[newest - 1]
        assert topic.routes[0].limits == ({} if wanted is None else {"charge": wanted})
