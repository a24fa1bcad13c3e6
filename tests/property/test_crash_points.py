"""Whenever engines crash, stop, freeze, or lose connections, each order is shipped or undone once; its log says so.

A failure names the point, the turn, or the seed, with which it can be lived again: ``lived_with(57, Fate.CRASH)``,
``lived_to(123)``, ``lived_frozen(123, 2)`` or ``lived_by(17)``.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import pytest

from engine.store.contract import LostRunsError, RefusedByStoreError
from engine.store.values import BegunExecution, Commit
from tests.fakes.store import FakeStore
from tests.property.crashing import (
    BEGUN,
    CUT,
    DONE,
    ENOUGH,
    ORDERS,
    Lived,
    check,
    check_the_stories,
    check_the_usual_stories,
    live,
)
from tests.property.faults import WAYS, told_as
from tests.simulated import Fate

SHARE = 11
"""One of so many points is tried each time, another one for each way; all of them in the long form."""
SHARE_OF_TURNS = 29
SHARE_OF_SILENCES = 113
FIRST_TURN = 2
"""Before it there is no engine."""
SEEDS = 30
SEEDS_LONG = 2_000
FAULTS_MAX = 6
FEW = 2
"""As often as any order needs where nothing happens."""
STOPS_MAX = 40
APART = range(40, 110, 5)
FEW_POINTS, MANY_POINTS = 20, 150
"""At most so many are between two faults; either they come in quick succession or they do not."""

pytestmark = pytest.mark.usefixtures("quiet", "has_lived_as_usual")


@lru_cache(maxsize=1)
def usual() -> Lived:
    """Nothing happens in between."""
    return live()


@pytest.fixture(scope="module")
def has_lived_as_usual() -> None:
    """Before any test has made the world another one."""
    usual()


def points() -> int:
    """How many there are where nothing happens."""
    return len(usual().world.passed)


def lived_with(point: int, fate: Fate, instance: str | None = None) -> None:
    """This happens at this point."""
    lived = live({point: fate}, instance=instance)
    assert (lived.world.deaths, lived.world.stops) == (fate is Fate.CRASH, fate is Fate.STOP)
    check(lived)
    check_the_stories(lived, usual())


def lived_between_stops(apart: int) -> Lived:
    """The engine is stopped in order at each so manieth point, and nothing is tried more often than it raises."""
    lived = live(dict.fromkeys(range(apart, STOPS_MAX * apart, apart), Fate.STOP), attempts=FEW, undoing=FEW)
    check(lived, FEW)
    check_the_stories(lived, usual())
    return lived


def lived_to(turn: int) -> None:
    """Before this turn of its loop the engine crashes."""
    lived = live(crash_turn=turn)
    check(lived)
    check_the_stories(lived, usual())


def lived_frozen(turn: int, engines: int) -> Lived:
    """Before this turn of its loop the first engine is frozen, and goes on once it was missed."""
    lived = live(freeze_turn=turn, engines=engines)
    assert lived.world.silences == 1
    check(lived)
    check_the_usual_stories(lived, usual())
    return lived


def lived_by(seed: int) -> Lived:
    """As the seed has it: what happens and where, how many engines there are, and how long everything takes."""
    draw = random.Random(seed)
    lengths = [draw.choice([FEW_POINTS, MANY_POINTS]) for _ in range(draw.randint(1, FAULTS_MAX))]
    faults = itertools.accumulate(draw.randint(1, length) for length in lengths)
    fates = {
        point: draw.choice([Fate.CRASH, Fate.CRASH, Fate.STOP, Fate.BREAK, Fate.SILENCE]) for point in faults
    }
    engines = draw.choice([1, 2])
    instance = draw.choice([None, "one"]) if engines == 1 else None
    attempts = draw.choice([1, 2, ENOUGH, FAULTS_MAX + ENOUGH])
    lived = live(fates, attempts=attempts, engines=engines, instance=instance, draw=draw)
    check(lived, attempts)
    return lived


def try_points(numbers: Iterable[int], fate: Fate, instance: str | None) -> None:
    for number in numbers:
        with told_as(f"lived_with({number}, {fate}, {instance!r}), where {usual().world.passed[number - 1]}"):
            lived_with(number, fate, instance)


def try_turns(numbers: Iterable[int]) -> None:
    for number in numbers:
        with told_as(f"lived_to({number})"):
            lived_to(number)


def try_silences(turns: Iterable[int], engines: int) -> None:
    lost, void = 0, 0
    for turn in turns:
        with told_as(f"lived_frozen({turn}, {engines})"):
            lived = lived_frozen(turn, engines)
            lost += sum(lived.has_lost(order, step) for order in ORDERS for step in ("charge", "reserve"))
            void += sum(one.thawed_at is not None and one.what == DONE for one in lived.ledger)
    assert void, "who was frozen has done something afterwards"
    assert lost or engines == 1, "and others have gone on without it"


def try_seeds(seeds: Sequence[int]) -> None:
    compared = 0
    for seed in seeds:
        with told_as(f"lived_by({seed})"):
            compared += check_the_usual_stories(lived_by(seed), usual())
    assert compared > len(seeds) * len(ORDERS) / 2


def test_without_any_fault_all_is_well() -> None:
    check(usual())
    check_the_stories(usual(), usual())
    assert usual().world.deaths == 0
    asked = [(one.key, one.done) for one in usual().world.tables.operations]
    assert sorted(asked) == [("later", False), ("later", True), ("left", False), ("left", False)]
    # What takes longer than it may is done once all the same, and is void where its run has gone on by then.
    begun = [(one.step, one.attempt) for one in usual().ledger if (one.order, one.what) == ("slow", BEGUN)]
    assert begun == [("charge", 1), ("reserve", 1), ("ship", 1)]
    void = [one.type for one in usual().world.tables.noted if one.key == "late"]
    assert void == ["done.step.reserve"]


def test_the_same_is_lived_again() -> None:
    again = live()
    assert again.world.passed == usual().world.passed
    assert again.ledger == usual().ledger
    assert lived_by(1).world.passed == lived_by(1).world.passed


def test_what_a_commit_is_lost_with_is_durable_once_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    commit, asked, without = FakeStore.commit, itertools.count(), usual()

    async def lost(store: FakeStore, one: Commit) -> int | None:
        if next(asked) % 3 and one.changed:
            raise LostRunsError("another engine moved a run first")
        return await commit(store, one)

    monkeypatch.setattr(FakeStore, "commit", lost)
    lived = live()
    check(lived)
    check_the_stories(lived, without)
    given = [row.event_id for row in lived.world.tables.rows.values()]
    assert len(given) == len({*given}), "nothing is offered twice"


def test_a_look_that_the_store_refuses_for_data_that_it_finds_ends_no_engine(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begin, asked, without = FakeStore.begin_untried, itertools.count(1), usual()

    async def refused(store: FakeStore, *given: Any) -> list[BegunExecution]:
        if next(asked) == 3:
            raise RefusedByStoreError("a text has no NUL: 'secret'") from ValueError("of 'secret'")
        return await begin(store, *given)

    monkeypatch.setattr(FakeStore, "begin_untried", refused)
    caplog.set_level(logging.WARNING, "pointsman.engine")
    lived = live()
    assert next(asked) > 4, "it was asked again"
    assert "no record is to blame; nothing is lost" in caplog.text
    assert "until it is mended (ValueError)" in caplog.text
    assert "secret" not in caplog.text, "what Postgres says may quote the data"
    assert lived.world.deaths == 0
    check(lived)
    check_the_stories(lived, without)


@pytest.mark.parametrize(("fate", "instance", "which"), WAYS)
def test_a_fault_at_some_points_leaves_nothing_undone_or_done_twice(
    fate: Fate, instance: str | None, which: int
) -> None:
    try_points(range(1 + which, points() + 1, SHARE), fate, instance)


@pytest.mark.long
@pytest.mark.parametrize(("fate", "instance", "which"), WAYS)
def test_a_fault_at_any_point_leaves_nothing_undone_or_done_twice(
    fate: Fate, instance: str | None, which: int
) -> None:
    try_points(range(1, points() + 1), fate, instance)


def test_however_often_engines_are_stopped_nothing_fails_for_it() -> None:
    cut = 0
    for apart in APART:
        with told_as(f"lived_between_stops({apart})"):
            lived = lived_between_stops(apart)
            assert lived.world.stops > FEW
            cut += sum(bool(one.of) and one.what == CUT for one in lived.ledger)
    assert cut > len(APART), "compensations were cut, too"


def test_a_crash_at_some_awaits_leaves_nothing_undone_or_done_twice() -> None:
    try_turns(range(1, usual().world.turns, SHARE_OF_TURNS))


@pytest.mark.long
def test_a_crash_at_any_await_leaves_nothing_undone_or_done_twice() -> None:
    try_turns(range(1, usual().world.turns))


@pytest.mark.parametrize("engines", [1, 2])
def test_an_engine_that_is_frozen_at_some_awaits_leaves_nothing_undone_or_done_twice(engines: int) -> None:
    try_silences(range(FIRST_TURN + engines, usual().world.turns, SHARE_OF_SILENCES), engines)


@pytest.mark.long
@pytest.mark.parametrize("engines", [1, 2])
def test_an_engine_that_is_frozen_at_any_await_leaves_nothing_undone_or_done_twice(engines: int) -> None:
    try_silences(range(FIRST_TURN, usual().world.turns), engines)


def test_several_faults_leave_nothing_undone_or_done_twice() -> None:
    try_seeds(range(SEEDS))


@pytest.mark.long
@pytest.mark.parametrize("part", range(10))
def test_many_faults_leave_nothing_undone_or_done_twice(part: int) -> None:
    try_seeds(range(SEEDS + part, SEEDS_LONG, 10))
