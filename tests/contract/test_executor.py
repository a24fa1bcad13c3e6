"""What every executor must do: functions in the loop and in threads, commands, and what outlives engines."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from connectors.executor import Ended, Running
from tests.contract.executor_worlds import DescribedWorld, FunctionWorld, World
from tests.desk import open_desk
from tests.lasting import LastingExecutor

DEADLINE_SECONDS = 60.0


@pytest.fixture(params=["loop", "threads", "commands", "lasting"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    # The names of sockets are short; and a process that outlives its engine may write there until it ends.
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        async with open_desk() as desk:
            made: World = FunctionWorld(desk, has_threads=request.param == "threads")
            if request.param in ("commands", "lasting"):
                made = DescribedWorld(desk, Path(folder) if request.param == "lasting" else None)
            yield made
            await made.executor.close()


async def begun(world: World, key: str = "k", attempt: int = 1) -> Running:
    running = world.executor.start(world.work(key, attempt))
    await world.desk.begun(f"{key}/{attempt}")
    return running


async def end_of(running: Running) -> Ended:
    """How it ended, once nothing of it goes on any more."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        await asyncio.wait({running.released})
    assert running.ended.done(), "it is not released before it has ended"
    return running.ended.result()


async def end_by(world: World, running: Running, word: str, name: str = "k/1") -> Ended:
    assert not running.ended.done()
    world.desk.tell(name, word)
    ended = await end_of(running)
    await world.desk.gone(name)
    return ended


async def test_what_an_attempt_returns_is_how_it_ended(world: World) -> None:
    ended = await end_by(world, await begun(world), "answer 7")
    assert ended == Ended(7)


async def test_what_an_attempt_raises_is_how_it_ended(world: World) -> None:
    ended = await end_by(world, await begun(world), "raise no such picture")
    assert "no such picture" in str(ended.error)
    assert (ended.result, ended.lost, ended.timed_out, ended.final) == (None, False, False, False)


async def test_one_that_ends_its_process_takes_nobody_along(world: World) -> None:
    ended = await end_by(world, await begun(world), "exit")
    assert ended.error is not None
    if world.has_processes:
        ended = await end_by(world, await begun(world, "other"), "die", "other/1")
        assert ended.error is not None
    assert await end_by(world, await begun(world, "next"), "answer 1", "next/1") == Ended(1)


async def test_what_is_no_result_is_not_taken_for_one(world: World) -> None:
    ended = await end_by(world, await begun(world), "junk")
    assert not isinstance(ended.result, int)
    # What a function returns is looked at by the engine.
    assert (ended.error is None) == (not world.has_processes)


async def test_what_cannot_begin_has_ended(world: World) -> None:
    if isinstance(world, DescribedWorld):
        work = world.work("k")
        assert work.described is not None
        object.__setattr__(work.described, "arguments", ("no-such-command",))
        ended = await end_of(world.executor.start(work))
        assert ended.error is not None


async def test_one_that_is_cancelled_ends_and_is_released_once_nothing_of_it_goes_on(world: World) -> None:
    running = await begun(world)
    assert running.can_stop == (not world.has_threads)
    running.cancel()
    running.cancel()
    if world.has_threads:
        await world.desk.ask("k/1", "ping")
        assert not running.ended.done()
        assert await end_by(world, running, "answer 7") == Ended(7)
        return
    ended = await end_of(running)
    await world.desk.gone("k/1")
    assert ended.error is not None


async def test_one_that_does_not_heed_that_is_not_released_while_it_goes_on(world: World) -> None:
    running = await begun(world)
    await world.desk.ask("k/1", "deaf")
    running.cancel()
    await world.desk.ask("k/1", "ping")
    await world.desk.ask("k/1", "ping")
    assert not running.released.done()
    ended = await end_by(world, running, "answer 7")
    # What a process makes of it once it was told to end counts, or does not.
    assert ended == Ended(7) or (world.has_processes and ended.error is not None)


async def test_a_process_that_does_not_heed_that_is_ended_after_a_while(world: World) -> None:
    if not world.has_processes:
        return
    world.grace_seconds = 0.2
    running = await begun(world)
    assert running.stop_seconds >= 0.2
    await world.desk.ask("k/1", "deaf")
    running.cancel()
    ended = await end_of(running)
    assert ended.error is not None
    await world.desk.gone("k/1")


async def test_one_that_was_cancelled_is_not_cut_short_by_another_word_of_that(world: World) -> None:
    running = await begun(world)
    if world.has_threads:
        world.desk.tell("k/1", "answer 7")
        return
    await world.desk.ask("k/1", "tidy")
    running.cancel()
    await world.desk.heard("k/1", 2)
    running.cancel()
    await world.executor.close()
    await world.desk.ask("k/1", "ping")
    assert not running.released.done()
    world.desk.tell("k/1", "answer 7")
    await world.desk.gone("k/1")


async def test_heartbeats_are_heard(world: World) -> None:
    if not world.hears:
        return
    heard = asyncio.Event()
    loop = asyncio.get_running_loop()

    def beat(_progress: bytes | None) -> None:
        loop.call_soon_threadsafe(heard.set)

    running = world.executor.start(world.work("k", beat=beat))
    await world.desk.begun("k/1")
    assert not heard.is_set()
    await world.desk.ask("k/1", "beat")
    await asyncio.wait_for(heard.wait(), DEADLINE_SECONDS)
    assert await end_by(world, running, "answer 7") == Ended(7)


async def test_attempts_with_different_keys_go_on_beside_each_other(world: World) -> None:
    one, two = await begun(world, "one"), await begun(world, "two")
    assert await end_by(world, two, "answer 2", "two/1") == Ended(2)
    await world.desk.ask("one/1", "ping")
    assert not one.ended.done()
    assert await end_by(world, one, "answer 1", "one/1") == Ended(1)


async def test_one_that_is_cancelled_leaves_others_alone(world: World) -> None:
    one, two = await begun(world, "one"), await begun(world, "two")
    one.cancel()
    await world.desk.ask("two/1", "ping")
    assert await end_by(world, two, "answer 2", "two/1") == Ended(2)
    if world.has_threads:
        await end_by(world, one, "answer 1", "one/1")
    await end_of(one)


async def test_what_is_started_twice_is_done_once_and_both_are_told(world: World) -> None:
    one = await begun(world)
    two = world.executor.start(world.work("k"))
    assert await end_by(world, one, "answer 7") == Ended(7)
    assert await end_of(two) == Ended(7)
    assert world.desk.times("k/1") == 1


async def test_a_further_attempt_with_the_same_key_is_one_of_its_own(world: World) -> None:
    await end_by(world, await begun(world), "raise away")
    assert await end_by(world, await begun(world, attempt=2), "answer 7", "k/2") == Ended(7)
    assert (world.desk.times("k/1"), world.desk.times("k/2")) == (1, 1)


async def test_what_was_never_begun_is_not_known(world: World) -> None:
    assert await world.executor.attach(world.work("k")) is None
    running = await begun(world)
    assert await world.executor.attach(world.work("k", 2)) is None
    assert await world.executor.attach(world.work("other")) is None
    await end_by(world, running, "answer 7")


async def test_what_another_engine_has_begun_is_found_again_where_it_is_kept(world: World) -> None:
    first, second = world.executor, world.another()
    await begun(world)
    if not first.keeps:
        assert await second.attach(world.work("k")) is None
        world.desk.tell("k/1", "answer 7")
        return
    await first.close()
    await world.desk.ask("k/1", "ping")
    running = await second.attach(world.work("k"))
    assert running is not None
    assert await end_by(world, running, "answer 7") == Ended(7)
    assert world.desk.times("k/1") == 1
    # One that has ended is known, too.
    third = world.another()
    again = await third.attach(world.work("k"))
    assert again is not None
    assert await end_of(again) == Ended(7)
    assert await end_of(third.start(world.work("k"))) == Ended(7)
    assert world.desk.times("k/1") == 1


async def test_what_was_found_again_can_be_cancelled_and_says_how_long_it_has_gone_on(world: World) -> None:
    first, second = world.executor, world.another()
    if not first.keeps:
        return
    assert isinstance(first, LastingExecutor)
    running = await begun(world)
    assert running.gone_on_seconds == 0
    path = first.path(world.work("k"))
    long_ago = path.stat().st_mtime - 100
    os.utime(path, (long_ago, long_ago))
    await first.close()
    found = await second.attach(world.work("k"))
    assert found is not None
    assert found.gone_on_seconds >= 100
    found.cancel()
    ended = await end_of(found)
    assert ended.error is not None
    await world.desk.gone("k/1")


async def test_what_is_not_kept_ends_with_the_engine_if_it_can_be_ended(world: World) -> None:
    running = await begun(world)
    await world.executor.close()
    if world.executor.keeps or world.has_threads:
        await world.desk.ask("k/1", "ping")
        assert not running.ended.done()
        world.desk.tell("k/1", "answer 7")
    else:
        await end_of(running)
    await world.desk.gone("k/1")
