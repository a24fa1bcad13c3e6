"""Open runs that are to follow another version of their pipeline; asked for run by run, out of the inbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from engine.channels import INBOX
from engine.commands.words import goes_on_by
from engine.errors import UsageError
from engine.reading.asking import check_said
from engine.reading.catalog import SQL
from engine.reading.choosing import Chosen
from engine.reading.definitions import loaded_now
from engine.reading.operating import AskedOfRun, Done, number_of, structures_of
from engine.reading.runs import word_for
from engine.reading.values import askable, states_of
from engine.store.connecting import Connection
from statemachines.chart.tree import COMPENSATING
from statemachines.renames import IS_UNDONE, Renames, other_timers, strange_state
from statemachines.run import Status
from statemachines.suggest import did_you_mean

_ROWS_AHEAD = 500
_HELD = ("held", "paused")
MAPPED_STATUSES = ("running", *_HELD)


async def choose_to_map(
    connection: Connection,
    namespace: str,
    pipeline: str,
    version: int,
    to: int,
    renames: Renames,
    *,
    key: str | None = None,
    status: str | None = None,
) -> list[Chosen]:
    """The open runs of a version of a pipeline, which are to follow another one, where these names are others.

    Of these only the one of a key, or those of a status. What the registered structures of both tell is looked at here;
    whether each run fits is seen by the engine.

    Raises:
        NotFoundError: no such pipeline was ever run.
        UsageError: it was never run with one of the versions, or one has no such name.
    """
    structures = await structures_of(connection, namespace, pipeline)
    before, after = (_of_version(structures, pipeline, one) for one in (version, to))
    for what, names in (("state", renames.states), ("step", renames.steps)):
        for old, new in names.items():
            _check_name(what, old, version, before)
            _check_name(what, new, to, after)
    found = []
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        asked = namespace, pipeline, version, int(Status.RUNNING), askable(key)
        async for row in connection.cursor(SQL["open_runs_of_version"], *asked, prefetch=_ROWS_AHEAD):
            word = word_for(int(Status.RUNNING), row["holding"])
            if status not in (None, word):
                continue
            states = tuple(states_of(row["configuration"]))
            place = pipeline, row["key"], row["generation"], row["sequence"]
            found.append(Chosen(*place, word, states, row["definition"]))
    return found


async def would_not_map(
    connection: Connection,
    namespace: str,
    pipeline: str,
    chosen: Sequence[Chosen],
    version: int,
    to: int,
    renames: Renames,
) -> list[Done]:
    """Those of these runs that an engine would leave as they are, and why, as far as that is known without one.

    That is where they are by the registered structures, whether they are being undone, and whether what they follow is
    loaded in an engine now. What they wait for and may have to undo, their contexts, and what waits for them, an engine
    looks at as it maps each.

    Raises:
        NotFoundError: no such pipeline was ever run.
        UsageError: it was never run with one of the versions.
    """
    structures = await structures_of(connection, namespace, pipeline)
    states = {
        str(state["name"]): None
        for one in _of_version(structures, pipeline, to)
        for state in one.get("states", ())
    }
    loaded = await loaded_now(connection, namespace)
    renamed = bool(renames.states or renames.steps)
    refused = []
    for one in chosen:
        named = [renames.state(name) for name in one.states]
        strange = next((name for name in named if name not in states and name != COMPENSATING), None)
        if one.definition in loaded and (one.status not in _HELD or renamed):
            refused.append(_left(one, goes_on_by(version)))
        elif COMPENSATING in named:
            refused.append(_left(one, IS_UNDONE))
        elif strange is not None:
            refused.append(_left(one, strange_state(strange, states, to)))
    return refused


def _left(one: Chosen, why: str) -> Done:
    sentence = f"The run {one.key!r} of {one.pipeline} would stay as it is: {why.rstrip('.')}."
    asked = AskedOfRun(0, "map", one.pipeline, one.key)
    return Done(
        asked, taken=False, done=False, disposition=None, dead_letter=None, sentence=sentence, reason=why
    )


async def ask_to_map(
    connection: Connection,
    namespace: str,
    pipeline: str,
    chosen: Sequence[Chosen],
    version: int,
    to: int,
    renames: Renames,
    *,
    who: str,
    why: str,
) -> list[AskedOfRun]:
    """Ask that these runs follow another version, each if it is still the run that was found. Needs the engine's role.

    Raises:
        NotFoundError: no such pipeline was ever run.
        UsageError: it is not said who asks, or why; or it was never run with one of the versions.
    """
    check_said("who asks", who)
    check_said("why", why)
    number = await number_of(connection, namespace, pipeline)
    structures = await structures_of(connection, namespace, pipeline)
    before, after = (_of_version(structures, pipeline, one) for one in (version, to))
    others = {timer: None for old in before for new in after for timer in other_timers(old, new, renames)}
    same = {"from": version, "to": to, "states": dict(renames.states), "steps": dict(renames.steps)}
    same |= {"other_timers": list(others)} if others else {}
    # What comes for such a run meanwhile waits, and moves it no further than a row of the log.
    bodies = [orjson.dumps({"key": one.key, "as_of": [one.generation], **same}) for one in chosen]
    async with connection.transaction():
        asked = namespace, "map", [number] * len(bodies), bodies, who, why
        rows = await connection.fetch(SQL["ask_of_runs"], *asked)
        await connection.execute(SQL["notify"], INBOX)
    commands = sorted(int(row["id"]) for row in rows)
    return [
        AskedOfRun(command, "map", pipeline, one.key) for command, one in zip(commands, chosen, strict=True)
    ]


def _of_version(
    structures: Sequence[Mapping[str, Any]], pipeline: str, version: int
) -> list[Mapping[str, Any]]:
    found = [one for one in structures if one.get("version") == version]
    if not found:
        known = ", ".join(str(one) for one in sorted({one.get("version", 0) for one in structures}))
        raise UsageError(
            f"{pipeline} was never run with version {version}, but with {known}. Load it in an engine first."
        )
    return found


def _check_name(what: str, name: str, version: int, structures: Sequence[Mapping[str, Any]]) -> None:
    known: dict[str, None] = {}
    for one in structures:
        if what == "state":
            known |= dict.fromkeys(str(state["name"]) for state in one.get("states", ()))
        else:
            known |= dict.fromkeys(one.get("steps", ()))
            known |= dict.fromkeys(name for name, *_ in one.get("compensations", {}).values())
    if name not in known:
        raise UsageError(
            f"Version {version} has no {what} {name!r}. {did_you_mean(name, known)} Nothing was done."
        )
