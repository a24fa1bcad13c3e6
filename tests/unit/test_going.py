"""What an engine knows of its attempts, and of what became of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from engine.steps.going import AllGoing, Going, Results
from engine.steps.pulse import Pulse
from engine.steps.result import StepResult
from engine.store.values import BegunExecution, Commit

AT = datetime(2026, 3, 1, tzinfo=UTC)


def begun(number: int, step: str = "charge") -> BegunExecution:
    return BegunExecution(number, 1, f"k{number}", 0, number, 1, 0, 3, 0, step, 1, "", b"{}")


def going(number: int, step: str = "charge", *, in_thread: bool = False) -> Going:
    work: Any = None
    attempt: Any = None
    return Going(begun(number, step), work, attempt, Pulse(), in_thread)


def result(number: int, kind: str = "done") -> StepResult:
    route: Any = None
    return StepResult(begun(number), route, f"{number}/{kind}", f"{kind}.step.charge", {})


def test_an_attempt_takes_its_place_until_nothing_of_it_goes_on() -> None:
    all_of_them = AllGoing()
    one, other = going(1), going(2, "ship", in_thread=True)
    all_of_them.add(one)
    all_of_them.add(other)
    assert (all_of_them.places, all_of_them.threads, len(all_of_them)) == (
        {(1, "charge"): 1, (1, "ship"): 1},
        1,
        2,
    )
    all_of_them.tell(other)
    assert ([*all_of_them.untold], [*all_of_them.lingering]) == ([one], [2])
    assert (all_of_them.threads, all_of_them.at((2, 3, 0))) == (1, other)
    all_of_them.release(other)
    assert (all_of_them.threads, [*all_of_them.lingering], all_of_them.at((2, 3, 0))) == (0, [], None)
    assert (all_of_them.places[1, "ship"], 2 in all_of_them, [*all_of_them.ids]) == (0, False, [1])


def test_what_took_the_place_of_another_is_not_released_with_it() -> None:
    all_of_them = AllGoing()
    before, after = going(1), going(1)
    all_of_them.add(before)
    all_of_them.release(before)
    all_of_them.add(after)
    all_of_them.release(before)
    all_of_them.tell(before)
    assert ([*all_of_them.untold], all_of_them.at((1, 3, 0)), all_of_them.places.total()) == (
        [after],
        after,
        1,
    )


def test_the_place_of_one_is_dropped_once_it_has_ended_here_and_by_no_other_attempt() -> None:
    all_of_them, commit = AllGoing(), Commit(AT)
    all_of_them.add(going(1))
    left = [(number, 3, 0, 2 if number == 4 else 1) for number in range(1, 5)]
    commit.limited_left.extend(left)
    ended = [result(1), result(2), result(3, "tried")._replace(is_elsewhere=True), result(4)]
    all_of_them.drop_ended(commit, ended)
    goes_on, _, lost_elsewhere, tried_elsewhere = left
    assert commit.limited_left == [goes_on, lost_elsewhere, tried_elsewhere]


def test_all_come_in_turn() -> None:
    all_of_them = AllGoing()
    for number in range(5):
        all_of_them.add(going(number))
    turns = [[one.begun.id for one in all_of_them.in_turn(2)] for _ in range(4)]
    assert turns == [[0, 1], [2, 3], [4], [0, 1]]


def test_results_are_taken_once_in_order_and_first_again_where_they_are_given_back() -> None:
    results = Results()
    for number in range(4):
        results.keep(result(number))
    taken = results.take(2, but=[1])
    assert [one.begun.id for one in taken] == [0, 2]
    assert [*results.ready] == [1, 3]
    results.give_back(taken)
    assert [one.begun.id for one in results.take(9, but=[])] == [0, 2, 1, 3]
    assert (results.take(9, but=[]), len(results)) == ([], 4)
    results.give_all_back()
    assert len(results.take(9, but=[])) == 4


def test_what_came_behind_one_in_a_draft_is_taken_once_that_is_durable() -> None:
    results = Results()
    results.keep(result(1))
    taken = results.take(9, but=[])
    results.keep(result(1, "stopped"))
    assert [*results.ready] == []
    results.settle(taken)
    [behind] = results.take(9, but=[])
    assert behind.event_id == "1/stopped"
    results.settle([behind])
    assert len(results) == 0


def test_what_cannot_be_told_is_dropped_and_does_not_come_back() -> None:
    results = Results()
    results.keep(result(1))
    taken = results.take(9, but=[])
    results.drop(1)
    results.give_back(taken)
    assert (len(results), [*results.ready]) == (0, [])


def test_what_was_done_after_all_is_known_by_its_execution_until_that_is_durable() -> None:
    results = Results()
    late = result(1)._replace(is_late=True)
    results.keep(late)
    results.keep(result(2))
    assert results.late == {late.begun.address}
    [taken, _] = results.take(2, ())
    assert results.late == {late.begun.address}
    results.settle([taken])
    assert results.late == set()
    results.keep(late)
    results.drop(1)
    assert results.late == set()
