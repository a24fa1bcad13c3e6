"""What a function does to a context after its event is over is no part of the run, in a real Postgres."""

from __future__ import annotations

import orjson
import pytest

from engine.reading import replay, verify
from engine.store.connecting import Connection
from tests.feeding import event, feed
from tests.hoarder import TOPIC, Book, had, hoarder, spoil
from tests.services import Database

TEXTS = ["one", "two", "three", "four"]


@pytest.mark.parametrize("chart", [False, True])
async def test_what_functions_do_to_contexts_that_they_have_kept_changes_no_run(
    database: Database, reader: Connection, *, chart: bool
) -> None:
    async with feed(database, hoarder(chart=chart)) as feeding:
        await feeding.records(event("book.opened", {"book": "b"}, topic=TOPIC))
        spoil()
        for text in TEXTS:
            await feeding.records(event("book.noted", {"book": "b", "text": text}, topic=TOPIC))
            spoil()
        assert len({id(book) for book in had}) == 1 + len(TEXTS)
        [route] = feeding.topics[TOPIC].routes
        in_memory = route.cache["b"].context
        stored = await reader.fetchval("select context from pointsman.runs where key = 'b'")
        rows = await reader.fetch("select context from pointsman.events order by sequence")
        assert stored == in_memory
        assert Book.model_validate_json(stored) == Book(texts=TEXTS, count=len(TEXTS))
        assert [len(orjson.loads(row["context"])["texts"]) for row in rows] == [0, 1, 2, 3, 4]
        verified = await verify(reader, feeding.namespace)
        assert verified.is_clean, verified.findings
        assert (await replay(reader, feeding.namespace, feeding.machines)).is_equal
