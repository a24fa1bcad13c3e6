"""Runs that an operator chooses by what they are, instead of by their keys; and what is asked of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from engine import channels
from engine.reading.asking import check_said
from engine.reading.catalog import SQL
from engine.reading.operating import STUCK, AskedOfRun, What, number_of, said_with
from engine.reading.runs import asked_filters, word_for
from engine.reading.values import states_of
from engine.store.connecting import Connection

APPLIES: Mapping[What, frozenset[str]] = {
    "pause": frozenset({"running"}),
    "resume": frozenset({"paused"}),
    "cancel": frozenset({"running", "held", "paused"}),
    **dict.fromkeys(STUCK, frozenset({"held"})),
}
"""Of runs of which status something is to be done; none of them has a later generation."""
_ROWS_AHEAD = 500


@dataclass(frozen=True, slots=True)
class Chosen:
    """A run, and which version of it was found."""

    pipeline: str
    key: str
    generation: int
    sequence: int
    status: str
    states: tuple[str, ...]


async def choose_runs(
    connection: Connection,
    namespace: str,
    what: What,
    *,
    pipeline: str | None = None,
    status: str | None = None,
    state: str | None = None,
    where: Sequence[tuple[str, str]] = (),
) -> list[Chosen]:
    """The runs that the filters let through, as ``list_runs`` has them, and that this can be done to.

    Raises:
        UsageError: there is no such status or attribute, or no such value of it.
    """
    found = []
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        filters = await asked_filters(
            connection,
            namespace,
            pipeline=pipeline,
            status=status,
            state=state,
            where=where,
            stuck=what in STUCK,
        )
        async for row in connection.cursor(SQL["list_runs"], namespace, *filters, prefetch=_ROWS_AHEAD):
            word = word_for(row["status"], row["holding"])
            if word in APPLIES[what]:
                states = tuple(states_of(row["configuration"]))
                found.append(
                    Chosen(row["name"], row["key"], row["generation"], row["sequence"], word, states)
                )
    return found


async def ask_of_runs(
    connection: Connection,
    namespace: str,
    what: What,
    chosen: Sequence[Chosen],
    *,
    who: str,
    why: str,
    result: bytes | None = None,
) -> list[AskedOfRun]:
    """Ask the same of all these runs, of each if it is still as it was found. Needs the engine's role.

    ``result`` is JSON, for ``resolve``: what the steps that they are stuck on would have returned.

    Raises:
        UsageError: it is not said who asks, or why; or the result cannot be.
    """
    with_it = said_with(what, result)
    check_said("who asks", who)
    check_said("why", why)
    numbers = {
        name: await number_of(connection, namespace, name) for name in {one.pipeline for one in chosen}
    }
    bodies = [
        orjson.dumps({"key": one.key, "as_of": [one.generation, one.sequence], **with_it}) for one in chosen
    ]
    pipelines = [numbers[one.pipeline] for one in chosen]
    async with connection.transaction():
        rows = await connection.fetch(SQL["ask_of_runs"], namespace, what, pipelines, bodies, who, why)
        await connection.execute(SQL["notify"], channels.INBOX)
    commands = sorted(int(row["id"]) for row in rows)
    return [
        AskedOfRun(command, what, one.pipeline, one.key)
        for command, one in zip(commands, chosen, strict=True)
    ]
