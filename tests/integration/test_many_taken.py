"""What operators ask of many runs, on a real Postgres: in few commits, in order, and of each run for itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from connectors.source import RawRecord
from engine.batch.batch import Batch
from engine.commands.commands import TOGETHER_AT_FIRST
from engine.commands.together import Room
from engine.limits import EngineLimits
from engine.reading import ask_of_runs, ask_to_map, choose_runs, choose_to_map, history, list_runs, show
from engine.reading.operating import AskedOfRun, What, ask_of_run, ask_send, wait_until_done
from engine.store.connecting import Connection
from engine.store.values import Pause
from statemachines.renames import Renames
from statemachines.run import Run
from tests.feeding import Feeding, event, feed
from tests.integration.test_draining import REFUSES
from tests.integration.test_mapping_held import Bank, orders, told
from tests.mapped import check_the_log, states
from tests.operators import WHO, WHY, ask
from tests.services import Database, execute
from tests.shop import shop

MANY = TOGETHER_AT_FIRST
KEYS = [f"o{number:02}" for number in range(MANY)]
REFUSING = """
create trigger refusing before insert on pointsman.events for each row
when (new.event_id = 'command/{}') execute function public.refuses()
"""
THREE_EVENTS = EngineLimits(drain_events_max=3)


def placed(key: str) -> RawRecord:
    return event("order.placed", {"order_id": key, "amount": 5})


def noted(key: str, text: str) -> RawRecord:
    return event("order.noted", {"order_id": key, "text": text})


def watch(feeding: Feeding, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many commands each commit takes up from now on."""
    commit, taken = feeding.committer.commit, list[int]()

    async def tell(batch: Batch) -> None:
        taken.append(len(batch.commit.commands))
        await commit(batch)

    monkeypatch.setattr(feeding.committer, "commit", tell)
    return taken


def count_questions(feeding: Feeding, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the store is asked what commands need to know of their runs, from now on."""
    asked = Counter[str]()

    def counted(name: str) -> Callable[..., Awaitable[Any]]:
        ask = getattr(feeding.store, name)

        async def question(*args: Any) -> Any:
            asked[name] += 1
            return await ask(*args)

        return question

    for name in ("load_runs", "holds_of", "strikes", "deferred_events", "waiting_events", "run_ids"):
        monkeypatch.setattr(feeding.store, name, counted(name))
    return asked


def count_runs(feeding: Feeding, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs the store is asked for each time, from now on."""
    load, loaded = feeding.store.load_runs, list[int]()

    async def counted(pipeline: int, keys: Sequence[str]) -> list[Run]:
        loaded.append(len(keys))
        return await load(pipeline, keys)

    monkeypatch.setattr(feeding.store, "load_runs", counted)
    return loaded


async def ask_all(engine: Connection, what: What) -> list[AskedOfRun]:
    chosen = await choose_runs(engine, "default", what)
    return await ask_of_runs(engine, "default", what, chosen, who=WHO, why=WHY)


async def ask_to_map_all(engine: Connection) -> list[AskedOfRun]:
    chosen = await choose_to_map(engine, "default", "orders", 1, 2, Renames())
    return await ask_to_map(engine, "default", "orders", chosen, 1, 2, Renames(), who=WHO, why=WHY)


async def not_done(engine: Connection, asked: Sequence[AskedOfRun]) -> dict[str, str]:
    """By key, why it was not done."""
    became = await wait_until_done(engine, "default", asked, seconds=0)
    return {one.asked.key: one.sentence for one in became if not one.done}


async def test_many_are_mapped_in_one_commit_and_asked_for_once(
    database: Database, engine: Connection, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (orders(Bank(), version) for version in (1, 2))
    async with feed(database, old) as before:
        await before.records(*(told("placed", key) for key in KEYS))
        await before.records(*(told("shared", key, by=0) for key in KEYS))
    async with feed(database, old, new) as feeding:
        asked = await ask_to_map_all(engine)
        taken, questions = watch(feeding, monkeypatch), count_questions(feeding, monkeypatch)
        await feeding.commands()
        assert taken == [MANY]
        assert set(questions.values()) == {1}, questions
    assert await not_done(engine, asked) == {}
    assert {(await show(reader, "default", "orders", key)).version for key in KEYS} == {2}
    await check_the_log(reader, old, new)


@pytest.mark.parametrize(("what", "after"), [("pause", "paused"), ("cancel", "cancelled")])
async def test_many_are_asked_of_in_one_commit(
    database: Database,
    engine: Connection,
    reader: Connection,
    monkeypatch: pytest.MonkeyPatch,
    what: What,
    after: str,
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(*map(placed, KEYS))
        asked = await ask_all(engine, what)
        taken, questions = watch(feeding, monkeypatch), count_questions(feeding, monkeypatch)
        await feeding.commands()
        assert taken == [MANY]
        assert set(questions.values()) == {1}, questions
    assert await not_done(engine, asked) == {}
    assert {status for status, _ in (await states(reader)).values()} == {after}
    await check_the_log(reader, shop())


async def test_what_is_asked_of_one_run_is_done_in_order_beside_what_is_asked_of_others(
    database: Database, engine: Connection, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(*map(placed, KEYS))
        whats: tuple[What, ...] = ("pause", "resume", "pause", "cancel")
        said = [(what, key) for key in KEYS[:3] for what in whats]
        asked = [
            await ask_of_run(engine, "default", what, "shop", key, who=WHO, why=WHY) for what, key in said
        ]
        await feeding.commands()
    assert await not_done(engine, asked) == {}
    for key in KEYS[:3]:
        kinds = [row.event.kind for row in await history(reader, "default", "shop", key)]
        assert kinds == ["started", "paused", "released", "paused", "cancelled"]
    await check_the_log(reader, shop())


async def test_one_that_postgres_refuses_is_found_and_the_others_are_done(
    database: Database, engine: Connection, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(*map(placed, KEYS))
        asked = await ask_all(engine, "pause")
        bad = asked[MANY // 3]
        await execute(database.owner_dsn, REFUSES, REFUSING.format(bad.id))
        await feeding.commands()
    [(key, why)] = (await not_done(engine, asked)).items()
    assert (key, why.startswith("The store does not take")) == (bad.key, True)
    running = [one for one, (status, _) in (await states(reader)).items() if status == "running"]
    assert running == [bad.key]
    await check_the_log(reader, shop())


async def test_one_that_has_moved_since_is_told_of_and_the_others_are_done(
    database: Database, engine: Connection, reader: Connection
) -> None:
    async with feed(database, shop()) as feeding:
        await feeding.records(*map(placed, KEYS))
        asked = await ask_all(engine, "pause")
        await feeding.records(noted(KEYS[7], "meanwhile"))
        await feeding.commands()
    [(key, why)] = (await not_done(engine, asked)).items()
    assert (key, "has moved since it was chosen" in why) == (KEYS[7], True)


async def test_of_two_engines_that_find_the_same_each_run_is_done_once(
    database: Database, engine: Connection, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed(database, shop()) as first, feed(database, shop()) as second:
        await first.records(*map(placed, KEYS))
        asked = await ask_all(engine, "pause")
        second.inbox.wanted.set()
        assert await second.inbox.look()
        await first.commands()
        tried = watch(second, monkeypatch)
        await second.inbox.work()
        assert tried == [MANY], "what is gone is not tried one by one"
    assert await not_done(engine, asked) == {}
    assert await reader.fetchval("select count(*) from pointsman.operations") == MANY
    assert {run.held for run in await list_runs(reader, "default")} == {2}


async def test_as_much_of_what_waited_goes_into_a_commit_as_there_is_room_for(
    database: Database, engine: Connection, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = {key: number % 6 for number, key in enumerate(KEYS)}
    async with feed(database, shop(), limits=THREE_EVENTS) as feeding:
        await feeding.records(*map(placed, KEYS))
        for key in KEYS:
            await ask(feeding, "pause", "shop", key)
        for key, many in waited.items():
            await feeding.records(*(noted(key, str(number)) for number in range(many)))
        asked = await ask_all(engine, "resume")
        taken, loaded = watch(feeding, monkeypatch), count_runs(feeding, monkeypatch)
        await feeding.commands()
    assert await not_done(engine, asked) == {}
    # The newest first, for which 3 events wait; then 2 and 1 together; none with the first of 5, the rest of these,
    # those of 4, their rest, and 3 again.
    assert taken == [1, *[2, 2, 1, 1, 1, 1] * 2, 2, 1]
    assert sum(loaded) < 3 * MANY
    for run in await list_runs(reader, "default"):
        assert (run.status, run.context["notes"]) == ("running", [str(one) for one in range(waited[run.key])])
    await check_the_log(reader, shop())


async def test_many_whose_version_is_loaded_again_go_on_in_one_commit(
    database: Database, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (orders(Bank(), version) for version in (1, 2))
    async with feed(database, old) as feeding:
        await feeding.records(*(told("placed", key) for key in KEYS))
    async with feed(database, new) as feeding:
        await feeding.records(*(told("shared", key, by=4) for key in KEYS))
        assert {status for status, _ in (await states(reader)).values()} == {"held"}
    async with feed(database, old, new) as feeding:
        taken = watch(feeding, monkeypatch)
        await feeding.commands()
        assert taken == [MANY]
    assert {run.context["share"] for run in await list_runs(reader, "default")} == {25}
    assert {status for status, _ in (await states(reader)).values()} == {"running"}
    await check_the_log(reader, old, new)


async def test_where_there_is_no_time_left_what_was_done_by_then_is_committed(
    database: Database, engine: Connection, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed(database, shop(), limits=EngineLimits(inbox_seconds_max=0)) as feeding:
        await feeding.records(*map(placed, KEYS))
        await ask_all(engine, "pause")
        taken = watch(feeding, monkeypatch)
        await feeding.commands()
        assert (taken, feeding.inbox.wanted.is_set()) == ([1], True)


async def test_while_an_event_is_known_to_have_ended_an_engine_each_command_has_a_commit_of_its_own(
    database: Database, engine: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed(database, shop(), strikes={(7, 7): (1, "a handler")}) as feeding:
        await feeding.records(*map(placed, KEYS))
        asked = await ask_all(engine, "pause")
        taken = watch(feeding, monkeypatch)
        await feeding.commands()
        assert taken == [1] * MANY
    assert await not_done(engine, asked) == {}


async def test_what_is_refused_is_tried_again_by_halves_of_what_was_tried(
    database: Database, engine: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed(database, shop(), limits=THREE_EVENTS) as feeding:
        await feeding.records(*map(placed, KEYS))
        for key in KEYS:
            await ask(feeding, "pause", "shop", key)
            await feeding.records(noted(key, "0"))
        asked = await ask_all(engine, "resume")
        await execute(database.owner_dsn, REFUSES, REFUSING.format(asked[0].id))
        taken = watch(feeding, monkeypatch)
        await feeding.commands()
    assert [*await not_done(engine, asked)] == [asked[0].key]
    # Three, the first of which is refused; that alone, without what waits, and what is said of it; then the other two.
    assert taken[:5] == [3, 1, 1, 1, 2]


async def test_a_strike_counts_until_what_was_struck_out_is_done_with(
    database: Database, engine: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed(database, shop(), strikes={(7, 7): (2, "a handler")}) as feeding:
        await feeding.records(*map(placed, KEYS))
        batch = await feeding.committer.new_batch(0)
        batch.commit.strikes_forgotten.append((7, 7))
        batch.finish()
        await feeding.committer.commit(batch)
        await ask_all(engine, "pause")
        taken = watch(feeding, monkeypatch)
        await feeding.commands()
    assert taken == [MANY]


async def test_what_is_behind_a_pause_that_is_heard_of_meanwhile_stays_in_the_inbox(
    database: Database, engine: Connection, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed(database, shop(), strikes={(7, 7): (1, "a handler")}) as feeding:
        await feeding.records(*map(placed, KEYS))
        await ask_all(engine, "cancel")
        [route] = feeding.topics.pipelines
        commit = feeding.committer.commit

        async def hear_of_a_pause(batch: Batch) -> None:
            await commit(batch)
            feeding.committer.paused[route.pipeline] = Pause(route.pipeline, 1, WHO, WHY, batch.commit.at)

        monkeypatch.setattr(feeding.committer, "commit", hear_of_a_pause)
        await feeding.commands()
    assert await reader.fetchval("select count(*) from pointsman.inbox") == MANY - 1


async def test_dead_letters_that_hold_nothing_count_as_what_was_sent(
    database: Database, engine: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with feed(database, shop(), limits=EngineLimits(batch_bytes_max=100_000)) as feeding:
        await feeding.records(*map(placed, KEYS))
        for key in KEYS:
            body = b'{"order_id": "%b", "amount": "%b"}' % (key.encode(), b"x" * 50_000)
            await ask_send(engine, "default", "shop", key, "order.paid", body, who=WHO, why=WHY)
        taken = watch(feeding, monkeypatch)
        await feeding.commands()
    assert taken == [2] * (MANY // 2)


async def test_no_run_is_held_for_a_rest_where_others_have_all_but_filled_the_commit(
    database: Database, engine: Connection, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, take = list[int](), Room.take

    async def counting(room: Room, *args: Any) -> None:
        await take(room, *args)
        counted.append(room._bytes)

    monkeypatch.setattr(Room, "take", counting)
    async with feed(database, shop()) as feeding:
        await feeding.records(*map(placed, KEYS))
        for key in KEYS:
            await ask(feeding, "pause", "shop", key)
            await feeding.records(event("order.paid", {"order_id": key, "amount": 5}))
        counted.clear()
        await ask(feeding, "resume", "shop", KEYS[0])
    async with feed(database, shop(), limits=EngineLimits(batch_bytes_max=counted[0] + 1)) as feeding:
        asked = await ask_all(engine, "resume")
        taken = watch(feeding, monkeypatch)
        await feeding.commands()
    assert await not_done(engine, asked) == {}
    assert taken[:3] == [2, 2, 2]
    assert await reader.fetchval("select count(*) from pointsman.events where type = 'pointsman.drain'") == 0


async def test_behind_one_of_which_a_rest_is_to_go_on_the_next_has_another_commit(
    database: Database, engine: Connection, reader: Connection
) -> None:
    async with feed(database, shop(), limits=EngineLimits(batch_bytes_max=100_000)) as feeding:
        await feeding.records(*map(placed, KEYS[:4]))
        for key in KEYS[:4]:
            await ask(feeding, "pause", "shop", key)
            large = {"order_id": key, "text": "", "not kept": "x" * 40_000}
            await feeding.records(*(event("order.noted", large) for _ in range(3)))
        asked = await ask_all(engine, "resume")
        await feeding.commands()
        await feeding.commands()
    assert await not_done(engine, asked) == {}
    for run in await list_runs(reader, "default"):
        assert (run.status, run.context["notes"]) == ("running", [""] * 3)
    await check_the_log(reader, shop())
