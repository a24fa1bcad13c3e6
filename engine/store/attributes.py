"""Writes the search attributes of runs, in the transaction of the moves that changed them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from engine.store.connecting import Connection
from engine.store.queries import load
from statemachines.search import Attributes

_SQL = load("store")


async def write_attributes(connection: Connection, changed: Sequence[tuple[int, Attributes]]) -> None:
    """Write those of (run, attributes); a run that has none any more has no row.

    The rows of these runs are locked already, by the statements that moved them.
    """
    found = [(run, json.dumps(attributes)) for run, attributes in changed if attributes]
    gone = [run for run, attributes in changed if not attributes]
    if found:
        runs, values = zip(*found, strict=True)
        await connection.execute(_SQL["write_attributes"], runs, values)
    if gone:
        await connection.execute(_SQL["remove_attributes"], gone)
