"""Whenever engines crash, stop, freeze, or lose connections, states are undone beside others, and to their end.

A failure names the point, the turn, or the seed, with which it can be lived again: ``lived_with(57, Fate.STOP, None)``,
``lived_to(123)``, ``lived_frozen(123, 2)`` or ``lived_by(17)``.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from functools import lru_cache

import pytest

from tests.property.crashing import DONE, ENOUGH, Lived
from tests.property.crashing_scopes import (
    COVER_UNDONE,
    GOODS_UNDONE,
    ORDERS,
    PACKING_UNDONE,
    SIDES,
    check,
    check_the_stories,
    check_the_usual_stories,
    live,
    was_in,
)
from tests.property.faults import WAYS, told_as
from tests.simulated import Fate

SHARE, SHARE_OF_TURNS, SHARE_OF_SILENCES = 10, 41, 97
"""One of so many points, or turns, is tried each time; all of them in the long form."""
FIRST_TURN = 2
"""Before it there is no engine."""
SEEDS, SEEDS_LONG = 15, 1_000
POINTS = 250
"""Among so many the faults of a seed are."""

pytestmark = pytest.mark.usefixtures("quiet", "has_lived_as_usual")


@lru_cache(maxsize=1)
def usual() -> Lived:
    """Nothing happens in between."""
    return live()


@pytest.fixture(scope="module")
def has_lived_as_usual() -> None:
    """Before any test has made the world another one."""
    usual()


def lived_with(point: int, fate: Fate, instance: str | None) -> None:
    """This happens at this point."""
    lived = live({point: fate}, instance=instance)
    check(lived)
    check_the_stories(lived, usual())


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
    check_the_stories(lived, usual())
    return lived


def lived_by(seed: int) -> Lived:
    """As the seed has it: what happens and where, how many engines there are, and how long everything takes."""
    draw = random.Random(seed)
    kinds = [Fate.CRASH, Fate.CRASH, Fate.BREAK, Fate.STOP, Fate.SILENCE]
    fates = {draw.randint(1, POINTS): draw.choice(kinds) for _ in range(draw.randint(0, 4))}
    engines = draw.choice([1, 2])
    instance = draw.choice([None, "one"]) if engines == 1 else None
    attempts = draw.choice([2, ENOUGH, 2 * ENOUGH])
    lived = live(fates, attempts=attempts, engines=engines, instance=instance, draw=draw)
    check(lived, attempts)
    return lived


def points() -> int:
    return len(usual().world.passed)


def try_points(numbers: Iterable[int], fate: Fate, instance: str | None) -> None:
    for number in numbers:
        with told_as(f"lived_with({number}, {fate}, {instance!r}), where {usual().world.passed[number - 1]}"):
            lived_with(number, fate, instance)


def try_turns(turns: Iterable[int]) -> None:
    for turn in turns:
        with told_as(f"lived_to({turn})"):
            lived_to(turn)


def try_silences(turns: Iterable[int], engines: int) -> None:
    void = 0
    for turn in turns:
        with told_as(f"lived_frozen({turn}, {engines})"):
            lived = lived_frozen(turn, engines)
            void += sum(one.thawed_at is not None and one.what == DONE for one in lived.ledger)
    assert void, "who was frozen has done something afterwards"


def try_seeds(seeds: Sequence[int]) -> None:
    compared = 0
    for seed in seeds:
        with told_as(f"lived_by({seed})"):
            compared += check_the_usual_stories(lived_by(seed), usual())
    assert compared > len(seeds) * len(ORDERS) * len(SIDES) / 2


def test_without_any_fault_goods_are_undone_beside_papers() -> None:
    check(usual())
    check_the_stories(usual(), usual())
    beside = [row for row in usual().rows("refused") if row.configuration.startswith(PACKING_UNDONE)]
    assert {row.type for row in beside} >= {"failed.step.ship.OutOfStockError", "done.step.file"}
    assert any(row.configuration == "$compensating" for row in usual().rows("withdrawn"))
    assert was_in(usual(), "recalled", COVER_UNDONE), "and what is undone of it goes on in that of the goods"
    assert was_in(usual(), "recalled", GOODS_UNDONE)
    assert was_in(usual(), "bare", COVER_UNDONE)
    assert not was_in(usual(), "bare", GOODS_UNDONE)
    kept = {one.step for one in usual().ledger if one.order == "kept" and one.of}
    assert kept == {"cancel_bill"}, "what was settled is not undone"


@pytest.mark.parametrize(("fate", "instance", "which"), WAYS)
def test_a_fault_at_some_points_leaves_nothing_undone_or_done_twice(
    fate: Fate, instance: str | None, which: int
) -> None:
    try_points(range(1 + which * SHARE // len(WAYS), points() + 1, SHARE), fate, instance)


@pytest.mark.long
@pytest.mark.parametrize(("fate", "instance", "which"), WAYS)
def test_a_fault_at_any_point_leaves_nothing_undone_or_done_twice(
    fate: Fate, instance: str | None, which: int
) -> None:
    del which
    try_points(range(1, points() + 1), fate, instance)


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
