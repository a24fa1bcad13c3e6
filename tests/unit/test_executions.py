"""What a commit changes of executions, by the memories of a run before and after it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from engine.steps.executions import given_up, note_executions, open_executions
from engine.store.values import Commit
from statemachines.memory import Execution, Memory, read_memory, time_of, write_memory
from statemachines.run import Run, Status

AT = datetime(2026, 3, 1, tzinfo=UTC)
ASKED = Execution(1, 0, "charge", "charging")


def memory_of(*executions: Execution) -> bytes:
    return write_memory(Memory(executions=executions))


def run_with(*executions: Execution) -> Run:
    named = 7, "o1", 0, 3, int(Status.RUNNING), "charging", b"{}", b"", b"", 1, 0, 0, AT, AT
    return Run(*named, memory_of(*executions))


def noted(before: bytes, *after: Execution) -> Commit:
    commit = Commit(AT, steps_at=AT)
    note_executions(commit, 5, run_with(*after), before)
    return commit


def test_what_is_new_is_asked_for_at_once() -> None:
    [asked] = noted(b"", ASKED).executions_asked
    assert asked[:9] == (5, "o1", 7, 1, 0, "charge", 1, AT, "")


def test_what_is_as_before_is_not_touched() -> None:
    commit = noted(memory_of(ASKED), ASKED)
    assert (commit.executions_asked, commit.executions_over) == ([], [])


def test_what_goes_on_in_another_place_is_not_begun_anew() -> None:
    refund = Execution(3, 1, "refund", "$compensating", of="1.0", made=2, scope="trip")
    stopping = ASKED._replace(stopping=1, scope="trip")
    commit = noted(
        memory_of(refund, stopping), refund._replace(scope=""), stopping._replace(stopping=2, scope="wide")
    )
    assert (commit.executions_asked, commit.executions_over) == ([], [])


def test_what_is_of_a_state_of_another_name_is_not_touched() -> None:
    commit = noted(memory_of(ASKED), ASKED._replace(state="billing"))
    assert (commit.executions_asked, commit.executions_over) == ([], [])


def test_what_is_gone_is_over() -> None:
    assert noted(memory_of(ASKED)).executions_over == [(7, 1, 0)]


def test_what_is_to_be_tried_again_waits_for_its_time() -> None:
    again = ASKED._replace(attempt=2, again=1_800_000_000_000_000, error="Away: no")
    commit = noted(memory_of(ASKED), again)
    [asked] = commit.executions_asked
    assert (asked.attempt, asked.again, asked.error) == (2, time_of(again.again), "Away: no")
    assert commit.executions_over == []


def test_what_begins_anew_says_so_and_what_does_not_count_goes_on() -> None:
    first = ASKED._replace(attempt=2)
    anew = first.anew("Away: no")
    [asked] = noted(memory_of(first), anew).executions_asked
    assert (asked.attempt, asked.since, asked.progress) == (3, 2, b"")
    given_up = first._replace(again=-1, progress="[1]")
    [asked] = noted(memory_of(given_up), given_up.anew("Away: no")).executions_asked
    assert (asked.since, asked.progress) == (2, b"[1]")
    silent = first._replace(again=-1)
    [asked] = noted(memory_of(silent), silent.anew("Away: no")).executions_asked
    assert (asked.since, asked.progress) == (2, None)
    cut = ASKED._replace(attempt=2, since=1, again=1_800_000_000_000_000)
    [asked] = noted(memory_of(ASKED), cut).executions_asked
    assert (asked.attempt, asked.since, asked.progress) == (2, 1, None)


def test_what_is_to_be_stopped_waits_for_no_time() -> None:
    [asked] = noted(
        memory_of(ASKED), ASKED._replace(again=1_800_000_000_000_000, stopping=1)
    ).executions_asked
    assert (asked.stopping, asked.again) == (True, AT)


@pytest.mark.parametrize(("before", "unknown", "after"), [(0, False, 0), (0, True, 1), (1, False, 1)])
def test_what_was_given_up_is_over_and_stays_in_the_memory_with_what_is_not_known_of_it(
    before: int, unknown: bool, after: int
) -> None:
    asked = ASKED._replace(unknown=before)
    memory = given_up(memory_of(asked), ASKED, unknown=unknown)
    assert open_executions(memory) == {}
    [left] = read_memory(memory).executions
    assert (left.again, left.unknown, left.id) == (-1, after, ASKED.id)
