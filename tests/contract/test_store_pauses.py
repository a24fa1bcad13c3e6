"""What a store does for pipelines that are paused: the same suite for the fake and for Postgres."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from engine.log import PIPELINE_PAUSED, Kind, append, fold
from engine.store import writing
from engine.store.contract import LostRunsError, Store
from engine.store.values import Commit, FollowUp, Pause, Release
from tests.contract.test_store import (
    AT,
    World,
    fake_world,
    moved,
    packed,
    postgres_world,
    row_of,
    started,
    world,
)
from tests.fakes import store as fake_store

__all__ = ["fake_world", "postgres_world", "world"]


async def a_pause(store: Store, pipeline: int, command: int = 7) -> Pause:
    pause = Pause(pipeline, command, "ana", "to look at it", AT)
    await store.commit(Commit(AT, paused=[pause]))
    return pause


async def test_a_pipeline_is_paused_once_and_for_all_until_it_is_resumed(world: World) -> None:
    one, two = await world.open(), await world.open()
    pipeline, other = await one.register_pipeline("shop"), await one.register_pipeline("other")
    assert await one.pauses([pipeline, other]) == []
    pause = await a_pause(one, pipeline)
    assert await two.pauses([pipeline, other]) == [pause]
    assert await two.pauses([other]) == []
    with pytest.raises(LostRunsError):
        await two.commit(Commit(AT, paused=[pause._replace(command=8)]))
    with pytest.raises(LostRunsError):
        await two.commit(Commit(AT, resumed=[pause._replace(command=8)]))
    await two.commit(Commit(AT, resumed=[pause]))
    assert await one.pauses([pipeline]) == []
    with pytest.raises(LostRunsError):
        await one.commit(Commit(AT, resumed=[pause]))


async def test_nothing_is_held_for_a_pause_that_has_ended(world: World) -> None:
    store = await world.open()
    pipeline = await store.register_pipeline("shop")
    pause = await a_pause(store, pipeline)
    run = await started(store)
    after, commit = moved(run)
    await store.commit(replace(commit, under_pauses={pause.command}))
    await store.commit(Commit(AT, resumed=[pause]))
    _, commit = moved(after)
    with pytest.raises(LostRunsError):
        await store.commit(replace(commit, under_pauses={pause.command}))
    assert (await store.run_by_id(run.id) or run).sequence == after.sequence, "nothing of it was committed"


async def test_what_is_for_a_paused_pipeline_stays_in_the_inbox(world: World) -> None:
    store = await world.open()
    pipeline, other = await store.register_pipeline("shop"), await store.register_pipeline("other")

    def asked(number: int, what: str) -> FollowUp:
        return FollowUp(number, what, b'{"key":"a"}', "ana", "asked")

    names = ["redrive", "pause_pipeline", "resume_pipeline", "release_pipeline", "release", "cancel"]
    await store.commit(Commit(AT, going_on=[*(asked(pipeline, one) for one in names), asked(other, "send")]))
    pause = await a_pause(store, pipeline)
    found = [one.command for one in await store.read_inbox([pipeline, other], 10)]
    assert found == ["pause_pipeline", "resume_pipeline", "send"]
    await store.commit(Commit(AT, resumed=[pause]))
    assert [one.command for one in await store.read_inbox([pipeline, other], 10)] == [*names, "send"]


async def test_runs_that_were_held_for_a_pause_are_asked_to_go_on_so_many_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (writing, fake_store):
        monkeypatch.setattr(module, "RELEASED_AT_ONCE_MAX", 2)
    store = await world.open()
    held = []
    for key, event_type in (("a", PIPELINE_PAUSED), ("b", "pointsman.pause"), ("c", PIPELINE_PAUSED)):
        run = await started(store, key)
        row = append(
            run.hash, (*row_of(run, run.id, kind=Kind.PAUSED)[:10], event_type, *row_of(run, 1)[11:17])
        )
        after = fold(run, row)
        await store.commit(Commit(AT, rows=[packed(row)], changed=[(run.sequence, after)]))
        held.append(after)
    await store.commit(Commit(AT, released=[Release(1, 0, "ana", "seen")]))
    first, last, rest = await store.read_inbox([1], 10)
    assert [(one.command, orjson.loads(one.body)) for one in (first, last, rest)] == [
        ("release", {"run": held[0].id, "held": held[0].held}),
        ("release", {"run": held[2].id, "held": held[2].held}),
        ("release_pipeline", {"after": held[2].id}),
    ]
    assert (first.who, first.why) == ("ana", "seen")
    await store.commit(Commit(AT, released=[Release(1, held[2].id, "ana", "seen")]))
    assert len(await store.read_inbox([1], 10)) == 3, "nothing comes behind them"
