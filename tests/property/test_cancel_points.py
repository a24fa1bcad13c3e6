"""Whenever an order is cancelled, by an event or by an operator, it is shipped or undone once, and its log says so.

A failure names the call that lives it again: ``lived("good", "event", 0.034)``, or ``lived_by(17)``.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping

import orjson
import pytest

from engine.store.values import Command
from statemachines.memory import EMPTY, read_memory
from tests.property import crashing
from tests.property.crashing import (
    ENOUGH,
    NO_END,
    NOTHING,
    TOPIC,
    Lived,
    Outside,
    check_attempts,
    check_the_log,
    check_what_was_done,
    check_what_was_undone,
    is_over,
    saga,
    time_of,
    told,
)
from tests.property.faults import told_as
from tests.simulated import BEGINS_SECONDS, Fate, Simulated

ORDERS = "good", "changed", "refused", "hopeless", "slow", "later"
BY = "event", "operator"
SHARE, ALL = 25, 150
"""Moments of each life, from its beginning to its end."""
SEEDS, SEEDS_LONG = 100, 1_000

pytestmark = pytest.mark.usefixtures("quiet")


def lived(
    order: str,
    by: str = "",
    after: float = 0.0,
    fates: Mapping[int, Fate] = NOTHING,
    draw: random.Random | None = None,
    again_after: float | None = None,
) -> Lived:
    """An order that is cancelled so long after it was placed, and perhaps once more, by the other one of both."""
    world = Simulated(saga(ENOUGH, NO_END, 1.0), TOPIC, fates, draw)
    outside, asked = Outside(world), [0]

    def cancel() -> None:
        asked[0] -= 1
        number = world.tables.commands = world.tables.commands + 1
        body = orjson.dumps({"key": order})
        world.tables.inbox[number] = Command(number, 1, "cancel", body, "ana", "not wanted", world.clock())
        world.hear()

    def cancels(by: str, after: float) -> None:
        if by == "event":
            world.source.append(told("cancelled", order), after=after)
        elif by:
            asked[0] += 1
            world.call_later(after, cancel)

    world.source.append(told("placed", order))
    cancels(by, after)
    if again_after is not None:
        cancels(BY[by == BY[0]], again_after)
    crashing.OUTSIDE.append(outside)
    try:
        world.live(
            lambda: is_over(world, [order]) and not (asked[0] or outside.desk.open or outside.at_work.total())
        )
    finally:
        crashing.OUTSIDE.pop()
    return Lived(world, outside.ledger, time_of(1.0))


def check(life: Lived, order: str) -> None:
    """All that must hold."""
    tables = life.world.tables
    assert not tables.executions.rows
    assert not tables.letters
    assert not tables.waiting
    assert read_memory(life.runs[order].memory) == EMPTY
    check_the_log(life, order)
    check_attempts(life.ledger, ENOUGH + life.world.stops, life.time)
    if life.is_shipped(order):
        check_what_was_done(life.ledger)
    else:
        check_what_was_undone(life.ledger)


def try_moments(order: str, by: str, moments: int) -> None:
    usual = lived(order)
    ends = usual.world.seconds() - BEGINS_SECONDS
    found = set()
    for number in range(moments):
        after = round(ends * number / moments, 4)
        with told_as(f"lived({order!r}, {by!r}, {after})"):
            life = lived(order, by, after)
            check(life, order)
            found.add(life.is_shipped(order))
    assert False in found, "it was cancelled in time at least once"


def lived_by(seed: int) -> tuple[Lived, str]:
    """Cancelled twice, by either, and engines crash, are stopped, or lose their connections, as the seed has it."""
    draw = random.Random(seed)
    order, by = draw.choice(ORDERS), draw.choice(BY)
    after, again_after = draw.uniform(0, 0.5), draw.uniform(0, 1)
    points = itertools.accumulate(draw.randint(1, 60) for _ in range(draw.randint(0, 4)))
    fates = {point: draw.choice([Fate.CRASH, Fate.CRASH, Fate.STOP, Fate.BREAK]) for point in points}
    return lived(order, by, after, fates, draw, again_after), order


def try_seeds(seeds: range) -> None:
    for seed in seeds:
        with told_as(f"lived_by({seed})"):
            check(*lived_by(seed))


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("order", ORDERS)
def test_whenever_it_is_cancelled_all_is_done_or_undone_once(order: str, by: str) -> None:
    try_moments(order, by, SHARE)


@pytest.mark.long
@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("order", ORDERS)
def test_at_any_moment_at_which_it_is_cancelled_all_is_done_or_undone_once(order: str, by: str) -> None:
    try_moments(order, by, ALL)


def test_cancelled_twice_and_engines_that_crash_leave_nothing_undone_or_done_twice() -> None:
    try_seeds(range(SEEDS))


@pytest.mark.long
def test_many_cancels_and_crashes_leave_nothing_undone_or_done_twice() -> None:
    try_seeds(range(SEEDS, SEEDS_LONG))
