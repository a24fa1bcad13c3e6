"""Whenever engines crash or lose their connections, states are undone beside others, and to their end."""

from __future__ import annotations

import random
from functools import lru_cache

import pytest

from tests.property.crashing import ENOUGH, Lived
from tests.property.crashing_scopes import BESIDE, check, live
from tests.property.faults import told_as
from tests.simulated import Fate

SHARE, SHARE_OF_TURNS = 6, 17
SEEDS, SEEDS_LONG = 30, 1_000

pytestmark = pytest.mark.usefixtures("quiet")


@lru_cache(maxsize=1)
def usual() -> Lived:
    """Nothing happens in between."""
    return live()


def lived_with(point: int, fate: Fate) -> None:
    """This happens at this point."""
    check(live({point: fate}))


def lived_by(seed: int) -> None:
    """As the seed has it: what happens and where, and how long everything takes."""
    draw = random.Random(seed)
    fates = {draw.randint(1, 150): draw.choice([Fate.CRASH, Fate.BREAK]) for _ in range(draw.randint(0, 4))}
    attempts = draw.choice([2, ENOUGH, 2 * ENOUGH])
    check(live(fates, attempts=attempts, draw=draw), attempts)


def points() -> int:
    return len(usual().world.passed)


def test_without_any_fault_goods_are_undone_beside_papers() -> None:
    check(usual())
    beside = [row for row in usual().rows("refused") if row.configuration.startswith(BESIDE)]
    assert {row.type for row in beside} >= {"failed.step.ship.OutOfStockError", "done.step.file"}
    assert usual().runs["withdrawn"].configuration == "cancelled"
    assert any(row.configuration == "$compensating" for row in usual().rows("withdrawn"))


@pytest.mark.parametrize(("fate", "which"), [(Fate.CRASH, 0), (Fate.BREAK, 3)])
def test_a_fault_at_some_points_leaves_nothing_undone_or_done_twice(fate: Fate, which: int) -> None:
    for point in range(1 + which, points() + 1, SHARE):
        with told_as(f"lived_with({point}, {fate})"):
            lived_with(point, fate)


@pytest.mark.long
@pytest.mark.parametrize("fate", [Fate.CRASH, Fate.BREAK])
def test_a_fault_at_any_point_leaves_nothing_undone_or_done_twice(fate: Fate) -> None:
    for point in range(1, points() + 1):
        lived_with(point, fate)


def test_a_crash_at_some_awaits_leaves_nothing_undone_or_done_twice() -> None:
    for turn in range(1, usual().world.turns, SHARE_OF_TURNS):
        with told_as(f"live(crash_turn={turn})"):
            check(live(crash_turn=turn))


def test_several_faults_leave_nothing_undone_or_done_twice() -> None:
    for seed in range(SEEDS):
        with told_as(f"lived_by({seed})"):
            lived_by(seed)


@pytest.mark.long
@pytest.mark.parametrize("part", range(10))
def test_many_faults_leave_nothing_undone_or_done_twice(part: int) -> None:
    for seed in range(SEEDS + part, SEEDS_LONG, 10):
        lived_by(seed)
