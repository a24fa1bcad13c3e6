"""Whether an event is what began a run."""

from __future__ import annotations

from engine.dispositions import Disposition
from engine.log import Kind
from engine.reading.catalog import SQL
from engine.reading.explain.changes import said_in
from engine.reading.explain.found import FoundNote, seen_first
from engine.reading.operating import number_of
from engine.reading.values import askable
from engine.store.connecting import Connection


async def has_begun(
    connection: Connection, namespace: str, pipeline: str, key: str, event_id: str | None
) -> bool:
    """Whether an event that was sent began a run of a key, of whichever generation; or one with its business key did.

    Of a run whose rows were dropped nobody knows any more what it began with. Raises NotFoundError: no such pipeline
    was ever run.
    """
    asked = await number_of(connection, namespace, pipeline), askable(key), askable(event_id)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        # What came with a record may have the same id, and is of another source.
        if await connection.fetchval(SQL["has_begun"], *asked, int(Kind.STARTED)):
            return True
        row = await connection.fetchrow(SQL["last_note"], *asked, int(Disposition.DUPLICATE))
        if row is None:
            return False
        note = FoundNote(*row)
        seen = await seen_first(connection, note, said_in(note.details, "known_by"))
        return seen is not None and seen.by_key and seen.kind == Kind.STARTED
