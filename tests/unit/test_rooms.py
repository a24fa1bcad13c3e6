"""How many attempts of which step may begin, where those of others do not end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine.limits import EngineLimits
from engine.steps.breakers import Breakers
from engine.steps.crowded import CROWDED_SECONDS, Crowded
from engine.steps.rooms import Place, Rooms, Taken
from statemachines import Call, Context, Pipeline
from statemachines.step import Step

HANGS, OTHER, ASYNC, THIRD = (1, "hangs"), (2, "other"), (1, "waits"), (3, "third")


def plain(_context: Context, _call: Call) -> int:
    return 1


async def waits(_context: Context, _call: Call) -> int:
    return 1


def step(function: Any, **settings: Any) -> Step[Any, Any]:
    made: Step[Any, Any] = Pipeline("any", Context).step(**settings)(function)
    return made


STEPS = {HANGS: step(plain), ASYNC: step(waits), OTHER: step(plain), THIRD: step(waits)}


def rooms_of(steps: Mapping[Place, Step[Any, Any]] = STEPS, **limits: int) -> Rooms:
    made = Rooms(EngineLimits(**limits), Breakers(lambda: datetime.now(UTC)))
    made.load(steps)
    return made


def taken(places: Mapping[Place, int], steps: Mapping[Place, Step[Any, Any]] = STEPS) -> Taken:
    threads = sum(many for place, many in places.items() if steps[place].takes_thread)
    return Taken(places, threads, sum(places.values()))


def fill(rooms: Rooms, waiting: set[Place]) -> dict[Place, int]:
    """What is taken once all has begun that may, and nothing ends, of those that wait."""
    places: dict[Place, int] = {}
    for _ in range(100 * len(STEPS)):
        for place, room in rooms.free(STEPS, taken(places)).items():
            if place in waiting:
                places[place] = places.get(place, 0) + room
    return places


def test_threads_that_hang_leave_one_to_each_other_pipeline() -> None:
    rooms = rooms_of(step_threads_max=40)
    assert fill(rooms, {HANGS}) == {HANGS: 39}
    assert rooms.free(STEPS, taken({HANGS: 39}))[OTHER] == 1
    assert fill(rooms, {HANGS, OTHER}) == {HANGS: 20, OTHER: 20}


def test_attempts_that_hang_leave_a_place_to_each_other_pipeline() -> None:
    rooms = rooms_of(steps_at_once_max=10)
    assert fill(rooms, {ASYNC}) == {ASYNC: 8}
    assert fill(rooms, {ASYNC, HANGS}).keys() == {ASYNC, HANGS}
    assert sum(fill(rooms, {ASYNC, HANGS}).values()) == 8, "both are of one pipeline"
    assert sum(fill(rooms, {ASYNC, OTHER}).values()) == 9, "those of two leave one to the third"
    found: set[Place] = set()
    for _ in STEPS:
        found |= rooms.free(STEPS, taken({ASYNC: 8})).keys()
    assert found == {OTHER, THIRD}


def test_a_place_that_is_given_back_is_for_who_has_none() -> None:
    rooms = rooms_of(steps_at_once_max=10)
    for _ in STEPS:
        assert rooms.free(STEPS, taken({ASYNC: 8, OTHER: 1})) == {THIRD: 1}


def test_what_is_not_asked_for_keeps_its_place() -> None:
    rooms = rooms_of(steps_at_once_max=10)
    assert rooms.free({ASYNC: STEPS[ASYNC]}, taken({})) == {ASYNC: 8}


@pytest.mark.parametrize("places", [1, 2])
def test_where_there_are_fewer_places_than_pipelines_they_have_turns(places: int) -> None:
    rooms = rooms_of(steps_at_once_max=places)
    found: set[Place] = set()
    for _ in STEPS:
        free = rooms.free(STEPS, taken({}))
        assert sum(free.values()) == places
        found |= free.keys()
    assert found == STEPS.keys()
    assert rooms.free(STEPS, taken({ASYNC: places})) == {}


def test_a_pipeline_that_is_alone_has_all() -> None:
    alone = {HANGS: STEPS[HANGS]}
    assert rooms_of(alone, step_threads_max=40).free(alone, taken({})) == {HANGS: 40}


FIRST, SECOND, LAST = (1, "first"), (1, "second"), (1, "last")
ALIKE = dict.fromkeys((FIRST, SECOND, LAST), step(waits))
"""Of one pipeline, without threads."""


def test_what_a_step_does_not_want_is_for_the_others() -> None:
    rooms = rooms_of(ALIKE, steps_at_once_max=100)
    for _ in ALIKE:
        assert rooms.free(ALIKE, taken({})).keys() == ALIKE.keys()
        assert rooms.free(ALIKE, taken({}), {FIRST: 1, SECOND: 0, LAST: 200}) == {FIRST: 1, LAST: 99}
        assert rooms.free(ALIKE, taken({}), {FIRST: 1, SECOND: 0})[LAST] >= 50, "as if it wanted any number"
        assert rooms.free(ALIKE, taken({}), dict.fromkeys(ALIKE, 20)) == dict.fromkeys(ALIKE, 20)


def test_where_all_want_more_than_there_is_each_has_as_much() -> None:
    rooms = rooms_of(ALIKE, steps_at_once_max=90)
    for _ in ALIKE:
        assert rooms.free(ALIKE, taken({}), dict.fromkeys(ALIKE, 1_000)) == dict.fromkeys(ALIKE, 30)


def test_one_that_wants_much_has_its_turn_beside_those_that_want_one() -> None:
    rooms = rooms_of(ALIKE, steps_at_once_max=1)
    found = [rooms.free(ALIKE, taken({}), {FIRST: 1, SECOND: 1, LAST: 1_000}) for _ in ALIKE]
    assert {place for one in found for place in one} == ALIKE.keys()


def test_a_step_that_may_go_on_so_often_at_once_gets_no_more_by_what_others_leave() -> None:
    steps = {**ALIKE, LAST: step(waits, at_once=10)}
    rooms = rooms_of(steps, steps_at_once_max=100)
    for _ in steps:
        free = rooms.free(steps, Taken({LAST: 4}, 0, 4), {FIRST: 1, SECOND: 200, LAST: 200})
        assert free == {FIRST: 1, SECOND: 89, LAST: 6}


def test_those_that_come_first_leave_a_part_to_others_that_want_it() -> None:
    rooms = rooms_of(ALIKE, steps_at_once_max=100)
    for _ in ALIKE:
        assert rooms.free(ALIKE, taken({}), {FIRST: 70}, {FIRST}) == {FIRST: 70, SECOND: 15, LAST: 15}
        assert rooms.free(ALIKE, taken({}), {FIRST: 1_000, SECOND: 1_000, LAST: 0}, {FIRST}) == {
            FIRST: 87,
            SECOND: 13,
        }
        assert rooms.free(ALIKE, taken({}), {FIRST: 1_000, SECOND: 3, LAST: 0}, {FIRST}) == {
            FIRST: 97,
            SECOND: 3,
        }
        assert rooms.free(ALIKE, taken({}), {FIRST: 1_000, SECOND: 0, LAST: 0}, {FIRST}) == {FIRST: 100}


def test_those_that_come_first_leave_a_thread_to_others_that_want_one() -> None:
    steps = {FIRST: step(plain), SECOND: step(plain)}
    rooms = rooms_of(steps, step_threads_max=8, steps_at_once_max=100)
    for _ in steps:
        assert rooms.free(steps, taken({}, steps), {FIRST: 50, SECOND: 50}, {FIRST}) == {FIRST: 7, SECOND: 1}


class Looks:
    """Looks for crowds, by a clock of its own."""

    def __init__(self, **settings: Any) -> None:
        self.now = 0.0
        self.crowded = Crowded(lambda: self.now)
        self.steps = {HANGS: step(plain, **settings), OTHER: STEPS[OTHER]}
        self.rooms = rooms_of(self.steps, step_threads_max=3)

    def look(self, *going: int, after: float = 0.0) -> None:
        self.now += after
        all_going = [(HANGS, number) for number in going]
        full = self.rooms.full(taken({HANGS: len(going)}, self.steps))
        self.crowded.look(full, all_going, self.steps, {1: "shop", 2: "post"})


def test_a_step_whose_places_are_all_taken_for_long_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    looks = Looks()
    looks.look(1, 2)
    looks.look(1, 2, after=CROWDED_SECONDS - 1)
    assert caplog.messages == []
    looks.look(1, 2, after=1)
    looks.look(1, 2, after=3_600)
    [said] = caplog.messages
    assert said.startswith(
        "all places that the step plain of the pipeline shop may have in this engine (2) have been taken for 1 min, "
        "and none of its attempts has ended"
    )
    assert "end by a timeout= of the step" in said


def test_one_whose_attempts_end_is_not(caplog: pytest.LogCaptureFixture) -> None:
    looks = Looks(at_once=1)
    for number in range(10):
        looks.look(number, after=CROWDED_SECONDS - 1)
    looks.look(after=3_600)
    looks.look(10)
    looks.look(10, after=1)
    assert caplog.messages == []


def test_one_that_may_take_its_time_has_it(caplog: pytest.LogCaptureFixture) -> None:
    looks = Looks(at_once=1, timeout=timedelta(minutes=10))
    looks.look(1)
    looks.look(1, after=600)
    assert caplog.messages == []
    looks.look(1, after=CROWDED_SECONDS)
    [said] = caplog.messages
    assert "go on though their time is over" in said


def test_one_that_has_room_is_not_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    looks = Looks()
    looks.look(1)
    looks.look(1, after=3_600)
    assert caplog.messages == []
