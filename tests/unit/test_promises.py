"""Which attempts begin with the commit that asks for them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from engine.homes import HOMES
from engine.steps.promises import Promises
from engine.store.values import AskedExecution, Commit
from statemachines.run import Run, Status

AT = datetime(2026, 3, 1, tzinfo=UTC)
CHARGE, SHIP = (1, "charge"), (1, "ship")


def run_of(key: str, *, held: int = 0, definition: int = 4) -> Run:
    return Run(
        int(key[1:]), key, 0, 3, int(Status.RUNNING), "charging", b"{}", b"", b"", definition, held, 0, AT, AT
    )


def commit_of(*runs: Run, step: str = "charge", **more: Any) -> Commit:
    one = [
        AskedExecution(1, run.key, run.id, run.sequence, 0, step, 1, AT, "", is_first=True) for run in runs
    ]
    asked = [each._replace(**more) for each in one]
    return Commit(AT, executions_asked=asked, asking={run.id: run for run in runs})


def settled(*places: tuple[int, str]) -> Promises:
    """As after a look that found nothing."""
    promises = Promises()
    promises.look(dict.fromkeys(places, 10))
    promises.found({}, places)
    return promises


def promised(promises: Promises, commit: Commit, room: int = 10) -> list[str]:
    promises.promise(commit, {CHARGE: room, SHIP: room}, range(HOMES), [4])
    return [one.asked.key for one in commit.promised]


def test_what_there_is_room_for_begins_in_order_and_the_rest_waits() -> None:
    commit = commit_of(*(run_of(f"r{number}") for number in range(3)))
    assert promised(settled(CHARGE), commit, room=2) == ["r0", "r1"]
    assert [one.key for one in commit.executions_asked] == ["r2"]


def test_where_others_wait_nothing_overtakes_them() -> None:
    assert promised(Promises(), commit_of(run_of("r1"))) == []
    promises = settled(CHARGE)
    assert promised(promises, commit_of(run_of("r1"), step="ship")) == []
    waits = commit_of(run_of("r2"))
    promises.kept(waits)
    assert promised(promises, commit_of(run_of("r3")), room=1) == []
    assert promised(promises, commit_of(run_of("r3")), room=2) == ["r3"], (
        "the other place is kept for what waits"
    )


@pytest.mark.parametrize(("found", "may"), [(9, True), (10, False)])
def test_a_look_that_found_as_many_as_it_had_room_for_may_have_left_some(found: int, may: bool) -> None:
    promises = settled(CHARGE)
    promises.look({CHARGE: 10})
    promises.found({CHARGE: found}, [CHARGE])
    assert bool(promised(promises, commit_of(run_of("r1")))) is may


def test_a_look_without_room_for_a_step_tells_nothing_of_it() -> None:
    promises = settled(CHARGE)
    promises.look({})
    promises.found({}, [CHARGE])
    assert promised(promises, commit_of(run_of("r1")), room=1) == ["r1"]


def test_where_others_may_have_asked_a_place_is_left_for_a_look_until_there_was_one() -> None:
    promises = settled(CHARGE)
    promises.look_anew([CHARGE, SHIP])
    assert not promises.is_settled(CHARGE)
    promises.look({})
    promises.found({}, [CHARGE])
    assert promised(promises, commit_of(run_of("r1")), room=1) == []
    assert promised(promises, commit_of(run_of("r1"), run_of("r2")), room=2) == ["r1"]
    promises.look({CHARGE: 1})
    promises.found({}, [CHARGE])
    assert promises.is_settled(CHARGE)
    assert promised(promises, commit_of(run_of("r3")), room=1) == ["r3"]


def test_a_look_may_not_have_seen_what_was_asked_for_meanwhile() -> None:
    promises = settled(CHARGE)
    promises.look({CHARGE: 10})
    promises.kept(commit_of(run_of("r1")))
    promises.found({}, [CHARGE])
    assert promised(promises, commit_of(run_of("r2")), room=1) == []
    assert promised(promises, commit_of(run_of("r2")), room=2) == ["r2"]


def test_a_look_asks_for_one_more_than_may_wait_as_far_as_that_is_known() -> None:
    promises = settled(CHARGE)
    assert promises.wanted() == {CHARGE: 1}
    promises.kept(commit_of(run_of("r1"), run_of("r2")))
    assert promises.wanted() == {CHARGE: 3}
    promises.look({CHARGE: 3})
    promises.kept(commit_of(run_of("r3")))
    promises.found({CHARGE: 3}, [CHARGE])
    assert promises.wanted() == {}, "there are some that nobody here has asked for"
    promises.look({CHARGE: 10})
    promises.found({CHARGE: 4}, [CHARGE])
    assert promises.is_settled(CHARGE)


def test_how_many_wait_is_known_also_where_a_look_has_no_room_for_all_of_them() -> None:
    promises = settled(CHARGE)
    promises.kept(commit_of(*(run_of(f"r{number}") for number in range(5))))
    promises.look({CHARGE: 2})
    promises.kept(commit_of(run_of("r5")))
    promises.found({CHARGE: 2}, [CHARGE])
    assert promises.wanted() == {CHARGE: 4 + 1}
    assert promised(promises, commit_of(run_of("r6")), room=4) == []
    assert promised(promises, commit_of(run_of("r6")), room=5) == ["r6"]


def test_a_commit_wants_room_for_what_it_asks_for_beside_what_waits_and_a_place_for_a_look() -> None:
    promises = settled(CHARGE, SHIP)
    promises.kept(commit_of(run_of("r1"), run_of("r2")))
    promises.look_anew([SHIP])
    assert promises.wanted_with({CHARGE: 3}) == {CHARGE: 5, SHIP: 1}


@pytest.mark.parametrize(
    "run", [run_of("r1", held=3), run_of("r1", definition=5)], ids=["held", "not loaded"]
)
def test_what_would_not_begin_is_not_promised(run: Run) -> None:
    assert promised(settled(CHARGE), commit_of(run)) == []


@pytest.mark.parametrize("more", [{"is_first": False}, {"sequence": 2}], ids=["tried before", "moved since"])
def test_only_what_the_last_row_asks_for_first_is_promised(more: dict[str, Any]) -> None:
    assert promised(settled(CHARGE), commit_of(run_of("r1"), **more)) == []


def test_runs_of_other_homes_are_left_to_others() -> None:
    commit = commit_of(run_of("r1"))
    settled(CHARGE).promise(commit, {CHARGE: 1}, [], [4])
    assert (commit.promised, len(commit.executions_asked)) == ([], 1)


def test_what_is_promised_or_looked_for_takes_room_until_it_is_known_how_that_came_out() -> None:
    promises = settled(CHARGE, SHIP)
    first = commit_of(run_of("r1"), run_of("r2"))
    promised(promises, first)
    promises.look({SHIP: 3})
    assert promises.places == {CHARGE: 2, SHIP: 3}
    promises.found({}, [SHIP])
    promises.kept(first)
    assert not promises.places
    promised(promises, commit_of(run_of("r3")))
    promises.broken()
    assert not promises.places


async def test_nothing_is_promised_while_promises_are_withheld_which_waits_for_those_in_flight() -> None:
    promises = settled(CHARGE)
    first = commit_of(run_of("r1"))
    promised(promises, first)
    entered = asyncio.Event()

    async def withhold() -> None:
        async with promises.withheld(60):
            entered.set()
            assert promised(promises, commit_of(run_of("r3"))) == []

    task = asyncio.create_task(withhold())
    await asyncio.sleep(0)
    assert promised(promises, commit_of(run_of("r2"))) == []
    assert not entered.is_set()
    promises.kept(first)
    await task
    assert promised(promises, commit_of(run_of("r4"))) == ["r4"]
