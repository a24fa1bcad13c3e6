"""Whether an event is what began a run."""

from __future__ import annotations

from engine.dispositions import Disposition
from engine.log import Kind
from engine.reading.explain.changes import said_in
from engine.reading.explain.found import find_by_id, seen_first
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
    number = await number_of(connection, namespace, pipeline)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        found = await find_by_id(connection, namespace, askable(event_id) or "")
        # What came with a record may have the same id, and is of another source.
        rows = [row for row in found.rows if (row.pipeline, row.key, row.position) == (number, key, None)]
        if any(row.kind == Kind.STARTED for row in rows):
            return True
        for note in found.notes:
            if (note.pipeline, note.key, note.position) != (number, key, None):
                continue
            if note.disposition == Disposition.DUPLICATE:
                seen = await seen_first(connection, note, said_in(note.details, "known_by"))
                if seen is not None and seen.by_key and seen.kind == Kind.STARTED:
                    return True
    return False
