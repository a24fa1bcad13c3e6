"""The versions of pipelines that were ever run, how many open runs follow each, and which engines have it loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engine.reading.catalog import SQL
from engine.reading.values import shown_time
from engine.store.connecting import Connection
from statemachines.run import Status


@dataclass(frozen=True, slots=True)
class DefinitionView:
    """A version of a pipeline as it was registered once; one that has changed meanwhile, as in ``dev``, is another."""

    pipeline: str
    version: int
    definition: str
    """The hash of its structure, in hex."""
    code: str
    """The hash of its code, in hex."""
    registered: datetime
    """When an engine has loaded it first."""
    runs: int
    """How many open runs follow it."""
    engines: int
    """How many engines that are there now have loaded it."""

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "pipeline": self.pipeline,
            "version": self.version,
            "definition": self.definition,
            "code": self.code,
            "registered": shown_time(self.registered),
            "runs": self.runs,
            "engines": self.engines,
        }


async def list_definitions(
    connection: Connection, namespace: str, *, pipeline: str | None = None, limit: int = 0
) -> list[DefinitionView]:
    """All that were ever registered, by pipeline, the newest versions first; ``limit`` 0 gives all of them."""
    rows = [
        row for row in await connection.fetch(SQL["identities"], namespace) if pipeline in (None, row["name"])
    ]
    rows.sort(key=lambda row: (row["name"], -row["version"], -row["id"]))
    shown = rows[:limit] if limit else rows
    numbers = [row["id"] for row in shown if not row["is_over"]]
    counted = await connection.fetch(SQL["open_runs"], numbers, int(Status.RUNNING)) if numbers else ()
    open_runs = {number: int(many) for number, many in counted}
    engines = await loaded_now(connection, namespace)
    return [
        DefinitionView(
            row["name"],
            row["version"],
            row["hash"].hex(),
            row["code"].hex(),
            row["registered"],
            open_runs.get(row["id"], 0),
            engines.get(row["id"], 0),
        )
        for row in shown
    ]


async def loaded_now(connection: Connection, namespace: str) -> Mapping[int, int]:
    """Of each definition that engines which are there now have loaded, by its number, how many have; empty: none is."""
    return {number: int(many) for number, many in await connection.fetch(SQL["loaded_now"], namespace)}
