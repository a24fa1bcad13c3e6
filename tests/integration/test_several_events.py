"""Records that hold several events, on the real store: each event has its own run, its own end, and is read again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pytest

from connectors.source import Partition
from engine.reading import (
    Answer,
    explain,
    history,
    list_dead_letters,
    list_runs,
    replay,
    show_dead_letter,
    verify,
)
from engine.session.claims import Slice
from engine.store.connecting import Connection
from engine.store.postgres import PostgresStore
from statemachines import Pipeline, Topic
from statemachines.machine import compile_pipeline
from tests.feeding import CLUSTER, feed, raw
from tests.services import Database, execute
from tests.storage import BROKEN, TEST_EVENT, objects, put, removed, sent

BY_PLACE = Topic("s3", each="Records", each_missing="ignore", type="eventName", unknown="ignore")

REFUSING = """
create function public.refuses() returns trigger language plpgsql as $$
begin raise 'it does not take this' using errcode = 'data_exception'; end $$;
create trigger refusing before insert on pointsman.events for each row
when (new.kind in (0, 1) and new.event_id = '02') execute function public.refuses()
"""


@pytest.fixture
def broken() -> Iterator[set[int]]:
    yield BROKEN
    BROKEN.clear()


async def ends(
    reader: Connection, offset: int, topic: str = "s3"
) -> list[tuple[str | None, str | None, str]]:
    """Pipeline, id and disposition of what a record held."""
    found = await explain(reader, "default", topic=topic, partition=0, offset=offset)
    told = [(one.pipeline, one.event_id, one.current.disposition) for one in found.answers]
    return sorted(told, key=repr)


async def asked(reader: Connection, event_id: str) -> Answer:
    found = await explain(reader, "default", event_id=event_id)
    [answer] = found.answers
    return answer


async def states(reader: Connection) -> dict[str, tuple[Any, ...]]:
    return {run.key: (*run.configuration, run.context["sizes"]) for run in await list_runs(reader, "default")}


async def is_sound(reader: Connection, *flows: Pipeline[Any]) -> bool:
    report = await replay(reader, "default", [compile_pipeline(one) for one in flows])
    assert report.mismatches == ()
    assert (found := await verify(reader, "default")).is_clean, found
    return True


async def test_each_element_moves_a_run_of_its_own_and_is_told_of_by_itself(
    database: Database, reader: Connection
) -> None:
    async with feed(database, objects()) as feeding:
        await feeding.records(sent(put("a", "01"), put("b", "02"), put("c", "03")))
        await feeding.records(sent(put("a", "11", size=5), removed("c", "13"), put("a", "12", size=6)))
    assert await states(reader) == {
        "a": ("there", [1024, 5, 6]),
        "b": ("there", [1024]),
        "c": ("gone", [1024]),
    }
    assert await ends(reader, 0) == [("objects", one, "started") for one in ("01", "02", "03")]
    assert await ends(reader, 1) == [("objects", one, "applied") for one in ("11", "12", "13")]
    told = await asked(reader, "02")
    assert (told.key, told.offset, told.source, told.type) == (
        "b", 0, f"kafka://{CLUSTER}/s3", "ObjectCreated:Put",
    )  # fmt: skip
    rows = await history(reader, "default", "objects", "a")
    assert [(row.event.id, row.event.offset, str(row.event.time)) for row in rows] == [
        ("01", 0, "2026-03-01 11:59:00.123000+00:00"),
        ("11", 1, "2026-03-01 11:59:00.123000+00:00"),
        ("12", 1, "2026-03-01 11:59:00.123000+00:00"),
    ]
    assert await is_sound(reader, objects())


async def test_a_record_that_is_delivered_twice_counts_once_element_by_element(
    database: Database, reader: Connection
) -> None:
    async with feed(database, objects()) as feeding:
        await feeding.records(sent(put("a", "01"), put("b", "02")))
        await feeding.records(sent(put("a", "01"), put("b", "02"), put("b", "03", size=7)))
        await feeding.records(sent(put("c", "04"), put("c", "04")))
    assert await states(reader) == {
        "a": ("there", [1024]),
        "b": ("there", [1024, 7]),
        "c": ("there", [1024]),
    }
    assert await ends(reader, 1) == [
        ("objects", "01", "duplicate"),
        ("objects", "02", "duplicate"),
        ("objects", "03", "applied"),
    ]
    assert {one.offset for one in (await explain(reader, "default", event_id="01")).answers} == {0, 1}
    assert await is_sound(reader, objects())


async def test_by_default_equal_elements_are_events_of_their_own(
    database: Database, reader: Connection
) -> None:
    async with feed(database, objects(BY_PLACE)) as feeding:
        await feeding.records(sent(put("a", "01"), put("a", "01")))
    assert await states(reader) == {"a": ("there", [1024, 1024])}
    assert [row.event.id for row in await history(reader, "default", "objects", "a")] == [
        f"{CLUSTER}/s3/0/0/0",
        f"{CLUSTER}/s3/0/0/1",
    ]
    assert await is_sound(reader, objects(BY_PLACE))


async def test_two_pipelines_have_each_event_by_keys_of_their_own(
    database: Database, reader: Connection
) -> None:
    def of_bucket(data: dict[str, Any]) -> str:
        name: str = data["s3"]["bucket"]["name"]
        return name

    buckets = objects(name="buckets")
    for event in [start.event for start in buckets.starts]:
        buckets.key(event, by=of_bucket)
    async with feed(database, objects(), buckets) as feeding:
        await feeding.records(sent(put("a", "01"), put("b", "02", size=7)))
    assert {(run.pipeline, run.key): run.context["sizes"] for run in await list_runs(reader, "default")} == {
        ("objects", "a"): [1024],
        ("objects", "b"): [7],
        ("buckets", "amzn-s3-demo-bucket"): [1024, 7],
    }
    assert await is_sound(reader, objects(), buckets)


async def test_what_is_no_event_is_a_dead_letter_of_its_own_and_the_others_go_on(
    database: Database, reader: Connection
) -> None:
    nameless = {key: value for key, value in put("x", "07").items() if key != "eventName"}
    async with feed(database, objects()) as feeding:
        await feeding.records(sent(put("a", "01"), 5, nameless, put("b", "02")))
        await feeding.records(raw(b'{"Records": {}}', topic="s3"), sent(put("b", "03")))
    assert await states(reader) == {"a": ("there", [1024]), "b": ("there", [1024, 1024])}
    letters = (await list_dead_letters(reader, "default"))[::-1]
    assert [(one.reason, one.event_id, one.offset) for one in letters] == [
        ("unreadable", f"{CLUSTER}/s3/0/0/1", 0),
        ("unreadable", "07", 0),
        ("unreadable", None, 1),
    ]
    record = (await show_dead_letter(reader, "default", letters[0].id)).record
    assert (record.value, record.headers) == (b'{"Records":[5]}', (("pointsman-index", b"1"),))
    assert (await asked(reader, "07")).current.disposition == "dead-lettered"
    assert (await asked(reader, "01")).current.disposition == "started"
    assert await is_sound(reader, objects())


async def test_a_record_without_events_is_ignored_and_told_of(database: Database, reader: Connection) -> None:
    async with feed(database, objects()) as feeding:
        await feeding.records(sent(), raw(orjson.dumps(TEST_EVENT), topic="s3"), sent(put("a", "01")))
    for offset in (0, 1):
        [told] = (await explain(reader, "default", topic="s3", partition=0, offset=offset)).answers
        assert (told.pipeline, told.current.disposition, told.current.reason) == (
            "objects", "ignored", "no events",
        )  # fmt: skip
        assert told.current.sentence == (
            "It was ignored for objects (no events): the record holds none. Its list of events is empty, or is not "
            "there, and the topic's settings say to ignore such records."
        )
    assert await list_dead_letters(reader, "default") == []
    assert await ends(reader, 2) == [("objects", "01", "started")]


async def test_an_element_of_a_type_that_nobody_knows_is_ignored_by_itself(
    database: Database, reader: Connection
) -> None:
    strange = put("a", "02", name="ObjectTagging:Put")
    async with feed(database, objects(BY_PLACE)) as feeding:
        await feeding.records(sent(strange, put("a", "01"), strange), sent(strange))
    assert await ends(reader, 0) == [
        ("objects", f"{CLUSTER}/s3/0/0/0", "ignored"),
        ("objects", f"{CLUSTER}/s3/0/0/1", "started"),
        ("objects", f"{CLUSTER}/s3/0/0/2", "ignored"),
    ]
    assert await ends(reader, 1) == [("objects", f"{CLUSTER}/s3/0/1/0", "ignored")]
    assert (await asked(reader, f"{CLUSTER}/s3/0/0/2")).type == "ObjectTagging:Put"


async def test_one_element_is_redriven_and_those_that_waited_behind_it_go_on(
    database: Database, reader: Connection, broken: set[int]
) -> None:
    async with feed(database, objects()) as feeding:
        await feeding.records(sent(put("a", "01"), put("b", "02")))
        broken.add(2)
        await feeding.records(sent(put("b", "11", size=1), put("a", "12", size=2), put("a", "13", size=3)))
        await feeding.records(sent(put("b", "21", size=4), put("a", "22", size=5)))
        assert await ends(reader, 1) == [
            ("objects", "11", "applied"),
            ("objects", "12", "dead-lettered"),
            ("objects", "13", "held"),
        ]
        broken.clear()
        [letter] = await list_dead_letters(reader, "default")
        await feeding.redrive(letter.id)
    assert await states(reader) == {"a": ("there", [1024, 2, 3, 5]), "b": ("there", [1024, 1, 4])}
    assert await ends(reader, 1) == [("objects", one, "applied") for one in ("11", "12", "13")]
    assert (await verify(reader, "default")).is_clean


async def test_one_element_is_dropped_and_those_that_waited_behind_it_go_on(
    database: Database, reader: Connection, broken: set[int]
) -> None:
    broken.add(2)
    async with feed(database, objects()) as feeding:
        await feeding.records(sent(put("a", "01"), put("b", "02"), put("a", "12", size=2)))
        await feeding.records(sent(put("b", "21", size=4), put("a", "22", size=5), removed("a", "23")))
        [letter] = await list_dead_letters(reader, "default")
        await feeding.drop(letter.id)
    assert await states(reader) == {"a": ("gone", [1024, 5]), "b": ("there", [1024, 4])}
    assert await is_sound(reader, objects())


async def test_a_record_that_could_not_be_taken_apart_is_redriven_as_all_of_its_events(
    database: Database, reader: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_out = PostgresStore.run_ids

    async def few(store: PostgresStore) -> Sequence[int]:
        return list(await given_out(store))[:3]

    monkeypatch.setattr(PostgresStore, "run_ids", few)
    wrong = Topic("s3", each="records", type="eventName", id="s3.object.sequencer")
    async with feed(database, objects(wrong)) as feeding:
        await feeding.records(sent(*(put(str(number), str(number)) for number in range(40)), 5))
        [letter] = await list_dead_letters(reader, "default")
        assert "there is no field 'records'" in letter.error
    mended = objects()
    mended.version = 2
    async with feed(database, objects(wrong), mended) as feeding:
        await feeding.redrive(letter.id)
    assert len(await list_runs(reader, "default")) == 40
    told = await asked(reader, "7")
    assert (told.current.disposition, [one.disposition for one in told.earlier]) == (
        "started",
        ["dead-lettered"],
    )
    [left] = await list_dead_letters(reader, "default", status="open")
    assert left.event_id == f"{CLUSTER}/s3/0/0/40"
    assert await is_sound(reader, objects(wrong), mended)


async def test_a_waiting_element_is_the_event_that_it_was_though_its_settings_are_gone(
    database: Database, reader: Connection, broken: set[int]
) -> None:
    async with feed(database, objects()) as feeding:
        await feeding.records(sent(put("a", "01")))
        broken.add(2)
        await feeding.records(sent(put("a", "02", size=2), put("a", "03", size=3)))
        broken.clear()
    other = Topic("s3", each="Records", type_default="other")
    async with feed(database, objects(other)) as feeding:
        # As version 1 again, which a test may do: the version that read them is not loaded any more.
        route = feeding.topics["s3"].routes[0]
        definition = await reader.fetchval("select definition from pointsman.runs")
        route.machines = {**route.machines, definition: feeding.machines[0]}
        await feeding.drop(1)
    assert await states(reader) == {"a": ("there", [1024, 3])}


async def test_where_the_store_refuses_one_element_none_of_its_record_is_applied(
    database: Database, reader: Connection
) -> None:
    await execute(database.owner_dsn, REFUSING)
    async with feed(database, objects()) as feeding:
        claim = await feeding.claim(Partition("s3", 0))
        given = [sent(put("a", "00")), sent(put("a", "01"), put("b", "02"), put("c", "03"))]
        slices = [Slice(claim, [one._replace(offset=at) for at, one in enumerate(given)], 0, 2)]
        batch = await feeding.committer.prepare(slices, None)
        assert not await feeding.committer.settle(feeding.committer.begin(slices, batch))
        assert await states(reader) == {"a": ("there", [1024])}
        letters = (await list_dead_letters(reader, "default"))[::-1]
        assert [(one.event_id, one.reason) for one in letters] == [
            (one, "refused by store") for one in ("01", "02", "03")
        ]
        await execute(database.owner_dsn, "drop trigger refusing on pointsman.events")
        await feeding.redrive(*(one.id for one in letters))
    assert await states(reader) == {
        "a": ("there", [1024, 1024]),
        "b": ("there", [1024]),
        "c": ("there", [1024]),
    }
    assert await is_sound(reader, objects())


async def test_a_record_in_which_a_handler_never_returned_is_dead_letters_of_all_that_was_not_consumed(
    database: Database, reader: Connection
) -> None:
    async with feed(database, objects()) as feeding:
        await feeding.records(sent(put("a", "01")))
        claim = await feeding.claim(Partition("s3", 0))
        feeding.committer.strikes = {(claim.id, 1): (2, "grow")}
        await feeding.records(sent(put("a", "01"), put("a", "02"), put("b", "03"), put("a", "04")))
    assert await ends(reader, 1) == [
        ("objects", "01", "duplicate"),
        ("objects", "02", "dead-lettered"),
        ("objects", "03", "dead-lettered"),
        ("objects", "04", "held"),
    ]
    letters = await list_dead_letters(reader, "default")
    assert {one.reason for one in letters} == {"handler never returned"}
    assert await is_sound(reader, objects())


async def test_an_element_that_moved_two_runs_is_found(database: Database, reader: Connection) -> None:
    async with feed(database, objects()) as feeding:
        await feeding.records(sent(put("a", "01"), put("b", "02")))
    assert (await verify(reader, "default")).is_clean
    await execute(
        database.owner_dsn,
        "update pointsman.events e set event_id = o.event_id, payload = o.payload from pointsman.events o "
        "where e.event_id = '02' and o.event_id = '01'",
    )
    findings = (await verify(reader, "default")).findings
    assert any("Offset 0 of s3/0 was consumed 2 times for objects" in one.sentence for one in findings)
