"""What a store does for steps that go on outside: the same suite for the fake and for Postgres."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest

from engine.steps.executions import FAR
from engine.steps.rooms import NEVER_BEGAN
from engine.store import postgres
from engine.store.contract import TOKENS_KEPT, RefusedByStoreError, Store, TokenTakenError
from engine.store.limited import LimitedRoom
from engine.store.values import AskedExecution, BegunExecution, Commit, Operation, SentCompletion, Token
from statemachines.run import Run
from tests.contract.test_store import AT, World, fake_world, moved, postgres_world, started, world
from tests.contract.test_store_steps import HOMES_ALL, LIMIT, ask, asked, begin, lost

__all__ = ["fake_world", "postgres_world", "world"]


def waiting(run: Run, token: str, number: int = 0, **more: Any) -> AskedExecution:
    return asked(run, number, token=token, again=FAR, **more)


def token_of(one: AskedExecution, *, waits: bool = True) -> Token:
    address = one.run, one.sequence, one.number
    return Token(one.token, one.pipeline, one.key, *address, one.step, one.attempt, waits)


async def wait(store: Store, run: Run, *several: AskedExecution) -> Run:
    """A commit by which these go on outside."""
    after, commit = moved(run)
    tokens = [token_of(one) for one in several]
    await store.commit(replace(commit, executions_asked=[*several], tokens=tokens))
    return after


async def end(store: Store, run: Run, one: AskedExecution) -> Run:
    """A commit by which one is not waited for any more."""
    after, commit = moved(run)
    over = (one.token, one.run, one.sequence, one.number)
    await store.commit(replace(commit, executions_over=[over[1:]], tokens_over=[over]))
    return after


async def late(store: Store, seconds: int, *, limit: int = LIMIT) -> list[BegunExecution]:
    """Those that have taken too long after so many seconds."""
    overdue, until = {(1, "charge"): NEVER_BEGAN}, AT + timedelta(seconds=seconds)
    return await store.begin_untried(overdue, until, HOMES_ALL, [1], [], 1, limit)


async def test_what_runs_say_of_steps_is_in_the_inbox_in_order_and_known_by_its_token(world: World) -> None:
    store = await world.open()
    pipeline = await store.register_pipeline("sum")
    said = [
        SentCompletion("sum", "complete", b'{"token":"t1"}', "the run 'a'", "on told 'e1'", "t1"),
        SentCompletion("sum", "fail", b'{"token":"t2"}', "the run 'a'", "on told 'e2'", "t2"),
    ]
    await store.commit(Commit(AT, completed=said))
    found = await store.read_inbox([pipeline], 10)
    assert [one[1:6] for one in found] == [(pipeline, *one[1:5]) for one in said]
    await store.commit(Commit(AT, commands=[one.id for one in found]))
    assert await store.read_inbox([pipeline], 10) == []


async def test_what_waits_for_its_token_is_passed_over_until_that_is_known(world: World) -> None:
    store = await world.open()
    pipeline = await store.register_pipeline("sum")
    run = await started(store)
    said = [
        SentCompletion("sum", "complete", orjson.dumps({"token": token}), "the run 'k'", "on told 'e'", token)
        for token in ("t", "u", "t")
    ]
    await store.commit(Commit(AT, completed=said))
    first, second, third = await store.read_inbox([pipeline], 10)
    assert [one.awaits_token for one in (first, second, third)] == [True] * 3
    unheard_of = [first.id, second.id]
    assert await store.read_inbox([pipeline], 1, (), unheard_of) == [third]
    await wait(store, run, waiting(run, "t"))
    known = [one._replace(awaits_token=False) for one in (first, third)]
    assert await store.read_inbox([pipeline], 10, (), unheard_of) == known
    assert await store.read_inbox([pipeline], 10) == [known[0], second, known[1]]


async def find(store: Store, token: str) -> Token | None:
    found = await store.find_tokens([token, "nobody's"])
    assert found.keys() <= {token}
    return found.get(token)


async def test_what_goes_on_outside_is_found_by_its_token_and_neither_begun_nor_lost(world: World) -> None:
    store = await world.open()
    run = await started(store)
    one = asked(run)
    run = await ask(store, run, one)
    await begin(store)
    outside = waiting(run, "t")._replace(sequence=one.sequence)
    assert await find(store, "t") is None
    await wait(store, run, outside)
    assert await find(store, "t") == token_of(outside)
    assert await begin(store, 2, later=1_000_000) == []
    assert await lost(store, silent=0.0) == []
    assert not await store.has_executions([1], [1])


async def test_once_it_has_taken_too_long_it_begins_to_be_told_so(world: World) -> None:
    store = await world.open()
    run = await started(store)
    outside = waiting(run, "t", limited_by="a")._replace(again=AT + timedelta(minutes=1))
    await wait(store, run, outside)
    assert await begin(store, later=61) == []
    limit, then = LimitedRoom(1, "charge", 100, 2, None), AT + timedelta(seconds=61)
    assert await store.begin_limited([limit], then, HOMES_ALL, [1], [], 1) == []
    assert await late(store, 59) == []
    [begun] = await late(store, 61)
    assert (begun.token, begun.attempt, begun.input) == ("t", 1, b"")
    assert await late(store, 61) == []
    assert await lost(store) == [("k", 1)]


async def test_so_many_that_have_taken_too_long_are_told_of_at_a_time(world: World) -> None:
    store = await world.open()
    run = await started(store)
    several = [waiting(run, f"t{number}", number)._replace(again=AT) for number in range(3)]
    after = await wait(store, run, *several)
    await ask(store, after, asked(run, 3, stopping=True))
    found = [one.number for _ in range(2) for one in await late(store, 0, limit=2)]
    assert sorted(found) == [0, 1, 2, 3]
    assert await late(store, 0) == []


async def test_no_two_that_wait_have_one_token_and_nothing_of_the_second_is_kept(world: World) -> None:
    one, two = await world.open(), await world.open()
    run, other = await started(one, "a"), await started(one, "b")
    first, second = waiting(run, "t"), waiting(other, "t")
    await wait(one, run, first)
    with pytest.raises(TokenTakenError) as taken:
        await wait(two, other, second)
    assert isinstance(taken.value, RefusedByStoreError)
    assert await find(one, "t") == token_of(first)
    assert await one.run_by_id(other.id) == other
    third = waiting(other, "u"), waiting(other, "u", 1)
    with pytest.raises(TokenTakenError):
        await wait(two, other, *third)
    assert await find(one, "u") is None


async def test_a_token_that_is_waited_for_no_more_may_be_had_by_another(world: World) -> None:
    store = await world.open()
    run, other = await started(store, "a"), await started(store, "b")
    first, second = waiting(run, "t"), waiting(other, "t")
    after = await wait(store, run, first)
    await end(store, after, first)
    assert await find(store, "t") == token_of(first, waits=False)
    later = await wait(store, other, second)
    assert await find(store, "t") == token_of(second)
    # What ends the first once more is not about the second.
    _, commit = moved(later)
    over = ("t", first.run, first.sequence, first.number)
    await store.commit(replace(commit, tokens_over=[over]))
    assert await find(store, "t") == token_of(second)


async def test_in_one_commit_a_token_goes_from_one_to_another(world: World) -> None:
    store = await world.open()
    run = await started(store)
    first = waiting(run, "t")
    after = await wait(store, run, first)
    second = waiting(after, "t")
    _, commit = moved(after)
    over = ("t", first.run, first.sequence, first.number)
    await store.commit(
        replace(
            commit,
            executions_over=[over[1:]],
            executions_asked=[second],
            tokens=[token_of(second, waits=False), token_of(second)],
            tokens_over=[over],
        )
    )
    assert await find(store, "t") == token_of(second)


async def test_what_no_run_waited_for_is_known_and_takes_the_place_of_nothing(world: World) -> None:
    store = await world.open()
    run = await started(store)
    told = token_of(waiting(run, "t"), waits=False)
    after, commit = moved(run)
    await store.commit(replace(commit, tokens=[told]))
    assert await find(store, "t") == told
    outside = waiting(after, "t")
    last = await wait(store, after, outside)
    _, commit = moved(last)
    await store.commit(replace(commit, tokens=[told]))
    assert await find(store, "t") == token_of(outside)


async def test_what_has_completed_a_step_is_found_by_its_execution(world: World) -> None:
    store = await world.open()
    run = await started(store)
    made = Operation(1, 1, "k", "complete", "key/1/command/1", run.id, True, "It is.", "ana", "why", AT, AT)
    refused = made._replace(command=2, event_id="key/1/command/2", done=False)
    sent = made._replace(command=3, event_id="key/1/sent", what="send")
    after, commit = moved(run)
    await store.commit(replace(commit, operations=[made, refused, sent]))
    assert await store.completion_of(run.id, "key/1/") == made
    assert await store.completion_of(run.id, "key/2/") is None
    assert await store.completion_of(after.id + 1, "key/1/") is None


async def test_what_a_command_completes_that_waits_is_not_told_to_be_late(world: World) -> None:
    store = await world.open()
    pipeline = await store.register_pipeline("charging")
    run = await started(store)
    ends = AT + timedelta(minutes=1)
    outside = [waiting(run, token, number)._replace(again=ends) for number, token in enumerate("abc")]
    await wait(store, run, *outside)
    for token in "ab":
        # What a result has is not looked at, and not every JSON is a text for a store.
        await world.complete(token, rb'{"by": "b\u0000o", "token": "c", "execution": 1}')
    assert [one.token for one in await late(store, 61)] == ["c"]
    taken = min(one.id for one in await store.read_inbox([pipeline], 10) if one.command == "complete")
    await store.commit(Commit(AT, commands=[taken]))
    assert [one.token for one in await late(store, 61)] == ["a"]


async def test_a_token_that_is_over_for_long_is_forgotten(world: World) -> None:
    store = await world.open()
    run = await started(store)
    kept, gone = waiting(run, "kept"), waiting(run, "gone", 1)
    run = await wait(store, run, kept, gone)
    run = await end(store, run, gone)
    after, commit = moved(run)
    unheard = token_of(waiting(run, "unheard", 2), waits=False)
    await store.commit(replace(commit, tokens=[unheard]))
    await store.keep_up(AT + TOKENS_KEPT)
    assert await find(store, "gone") == token_of(gone, waits=False)
    await store.keep_up(AT + TOKENS_KEPT + timedelta(minutes=1))
    assert [await find(store, one) for one in ("gone", "unheard")] == [None, None]
    assert await find(store, "kept") == token_of(kept), "it is waited for"
    again = waiting(after, "gone", 3)
    run = await wait(store, after, again)
    await store.keep_up(AT + 2 * TOKENS_KEPT)
    assert await find(store, "gone") == token_of(again)


async def test_a_token_that_is_used_again_is_not_over(world: World) -> None:
    store = await world.open()
    run = await started(store)
    first = waiting(run, "t")
    run = await end(store, await wait(store, run, first), first)
    again = waiting(run, "t", 1)
    await wait(store, run, again)
    await store.keep_up(AT + 2 * TOKENS_KEPT)
    assert await find(store, "t") == token_of(again)


async def test_where_more_are_over_than_are_forgotten_at_a_time_that_is_told(
    postgres_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "TOKENS_FORGOTTEN_MAX", 1)
    store = await postgres_world.open()
    run = await started(store)
    for number in range(2):
        one = waiting(run, f"t{number}", number)
        run = await end(store, await wait(store, run, one), one)
    long_after = AT + 2 * TOKENS_KEPT
    assert [await store.keep_up(long_after) for _ in range(3)] == [True, True, False]
    assert [await find(store, f"t{number}") for number in range(2)] == [None, None]
