"""Whenever engines crash or lose their connections, what goes on without them is done once, and found again."""

from __future__ import annotations

import pytest

from connectors.executor import Ended
from engine.log import Kind
from statemachines.machine import compile_pipeline
from statemachines.run import Status
from tests.feeding import event
from tests.property.faults import WAYS, told_as
from tests.simulated import Fate, Simulated, check_alive
from tests.yard import TOPIC, Haul, Job, Yard, YardExecutor, hauling

SHARE = 17
"""One of so many points is tried, another one for each way; all of them in the long form."""
TAKES_SECONDS = 20.0
"""Longer than it takes until an engine that has crashed is missed."""

pytestmark = pytest.mark.usefixtures("quiet")


def live(
    fates: dict[int, Fate], instance: str | None = None, seconds: float = TAKES_SECONDS
) -> tuple[Simulated, Yard]:
    """A load is ordered, and hauled outside, which takes its time whatever becomes of engines."""
    yard = Yard(check=check_alive)
    machine = compile_pipeline(hauling())
    world = Simulated(machine, TOPIC, fates, instance=instance, executors={Haul: YardExecutor(yard)})

    def begun(job: Job) -> None:
        world.call_later(seconds, lambda: job.end(Ended(7)))

    yard.begun = begun
    world.source.append(event("haul.ordered", {"load": "l1"}, topic=TOPIC))
    world.live(lambda: any(run.status == Status.COMPLETED for _, run in world.tables.runs.values()))
    return world, yard


def check(world: Simulated, yard: Yard) -> None:
    """It was begun once; what is logged as lost never came to the yard."""
    [(_, run)] = world.tables.runs.values()
    assert (run.configuration, b'"tons":7' in run.context) == ("hauled", True)
    assert len(yard.jobs) == len(yard.asked) == 1, yard.asked
    lost = [row for row in world.tables.rows.values() if row.type == "tried.step.haul"]
    assert len(lost) == yard.job.work.attempt - 1
    assert not world.tables.executions.rows
    assert {row.kind for row in world.tables.rows.values()} <= {Kind.STARTED, Kind.FIRED, Kind.PASSED}


def tried(fate: Fate, instance: str | None, share: int, of: int) -> int:
    """Live with this at one of so many points; returns at how many."""
    world, yard = live({})
    check(world, yard)
    points = range(1 + share, len(world.passed) + 1, of)
    for point in points:
        with told_as(f"live({{{point}: {fate}}}, {instance!r})"):
            lived, outside = live({point: fate}, instance)
            check(lived, outside)
            assert lived.deaths == (fate is Fate.CRASH)
    return len(points)


@pytest.mark.parametrize(("fate", "instance", "share"), WAYS)
def test_at_some_points(fate: Fate, instance: str | None, share: int) -> None:
    assert tried(fate, instance, share, SHARE) > 5


@pytest.mark.long
@pytest.mark.parametrize(("fate", "instance", "_share"), WAYS)
def test_at_every_point(fate: Fate, instance: str | None, _share: int) -> None:
    assert tried(fate, instance, 0, 1) > 5


def test_one_that_ends_while_no_engine_is_there_is_found() -> None:
    looked_for = 0
    for point in range(1, len(live({}, seconds=0.05)[0].passed) + 1):
        world, yard = live({point: Fate.CRASH}, seconds=0.05)
        check(world, yard)
        looked_for += bool(yard.looked_for)
    assert looked_for > 3
