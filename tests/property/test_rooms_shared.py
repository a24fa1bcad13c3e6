"""How room is shared by steps, whatever they are, want and have: no more than there is, and to the last place."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.limits import EngineLimits
from engine.steps.breakers import Breakers
from engine.steps.rooms import Place, Rooms, Taken
from statemachines import Call, Context, Pipeline
from statemachines.step import Step


def plain(_context: Context, _call: Call) -> int:
    return 1


async def waits(_context: Context, _call: Call) -> int:
    return 1


def step(function: Any, at_once: int | None) -> Step[Any, Any]:
    made: Step[Any, Any] = Pipeline("any", Context).step(at_once=at_once)(function)
    return made


KINDS = [step(function, at_once) for function in (plain, waits) for at_once in (None, 1, 5)]
places = st.tuples(st.integers(1, 2), st.sampled_from("abcd"))
many = st.integers(0, 30)


@settings(max_examples=1_000)
@given(
    steps=st.dictionaries(places, st.sampled_from(KINDS), min_size=1),
    going=st.dictionaries(places, many),
    wanted=st.dictionaries(places, many),
    first=st.sets(places),
    limits=st.tuples(st.integers(1, 60), st.integers(1, 20)),
    turns=st.integers(0, 3),
)
def test_room_is_shared_to_the_last_place_and_no_further(
    steps: Mapping[Place, Step[Any, Any]],
    going: Mapping[Place, int],
    wanted: Mapping[Place, int],
    first: set[Place],
    limits: tuple[int, int],
    turns: int,
) -> None:
    at_once_max, threads_max = limits
    rooms = Rooms(
        EngineLimits(steps_at_once_max=at_once_max, step_threads_max=threads_max),
        Breakers(lambda: datetime.now(UTC)),
    )
    rooms.load(steps)
    going = {place: number for place, number in going.items() if place in steps}
    threads = sum(number for place, number in going.items() if steps[place].takes_thread)
    taken = Taken(going, threads, sum(going.values()))
    for _ in range(turns):
        rooms.free(steps, taken, wanted, first)
    given_to = rooms.free(steps, taken, wanted, first)
    in_all = sum(given_to.values())
    with_threads = sum(room for place, room in given_to.items() if steps[place].takes_thread)
    assert all(room > 0 for room in given_to.values())
    assert in_all <= max(0, at_once_max - taken.in_all)
    assert with_threads <= max(0, threads_max - threads)
    for place, room in given_to.items():
        at_once = steps[place].at_once
        assert at_once is None or room + going.get(place, 0) <= at_once
        assert room <= wanted.get(place, room)
    # Who wants more and may have it was only kept from that by what is left to pipelines that have none.
    left, threads_left = at_once_max - taken.in_all - in_all, threads_max - threads - with_threads
    for place, most in wanted.items():
        if place not in steps or given_to.get(place, 0) >= most:
            continue
        at_once = steps[place].at_once
        is_full = at_once is not None and going.get(place, 0) + given_to.get(place, 0) >= at_once
        no_thread = steps[place].takes_thread and threads_left <= 1
        assert is_full or no_thread or left <= 1, (place, left, threads_left, given_to)


def test_what_goes_on_for_ever_keeps_nobody_waiting_for_ever() -> None:
    again, other = (1, "again"), (1, "other")
    steps = dict.fromkeys((again, other), KINDS[3])
    rooms = Rooms(EngineLimits(steps_at_once_max=16), Breakers(lambda: datetime.now(UTC)))
    rooms.load(steps)
    going, waiting_again, waiting = 16, 0, 100
    for _ in range(200):
        # All that goes on ends by a commit, and each of its runs asks for the same again.
        free = rooms.free(steps, Taken({}, 0, 0), {again: waiting_again + going, other: waiting + 1}, {again})
        promised = max(0, min(going, free.get(again, 0) - waiting_again))
        waiting_again += going - promised
        taken = Taken({again: promised}, 0, promised)
        looked = rooms.free(steps, taken, {again: waiting_again + 1, other: waiting + 1})
        found = {again: min(waiting_again, looked.get(again, 0)), other: min(waiting, looked.get(other, 0))}
        waiting_again -= found[again]
        waiting -= found[other]
        # Those of the others go on for ever, too.
        going = promised + found[again] + found[other]
        assert going <= 16
    assert waiting == 0
