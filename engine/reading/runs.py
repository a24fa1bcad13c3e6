"""Which runs there are, and how they stand."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from engine.errors import UsageError
from engine.log import HOLDS, Kind
from engine.reading.catalog import SQL
from engine.reading.definitions import loaded_now
from engine.reading.due import MemoryView, memory_view
from engine.reading.errors import NotFoundError
from engine.reading.searching import asked_attributes
from engine.reading.states import check_states
from engine.reading.stuck import StuckView, stuck_view
from engine.reading.values import askable, json_of, shown_time, states_of
from engine.store.connecting import Connection
from statemachines.chart.tree import COMPENSATING
from statemachines.events import STEP_FAILED
from statemachines.run import Run, Status
from statemachines.search import Attributes
from statemachines.suggest import did_you_mean

RunStatus = Literal["expected", "running", "completed", "cancelled", "held", "paused"]


class _Filter(NamedTuple):
    """What a status means for the columns of a run."""

    status: int | None = None
    held: bool | None = None
    waiting: bool = False
    """Whether events must wait for it."""
    paused: bool | None = None
    """Whether it must be an operator who holds it."""
    state: str | None = None
    """What it must be in."""
    stuck: bool = False
    """Whether the failure of a step must hold it."""


_FILTERS = {
    "expected": _Filter(int(Status.EXPECTED), held=False),
    "running": _Filter(int(Status.RUNNING), held=False),
    "completed": _Filter(int(Status.COMPLETED), held=False),
    "cancelled": _Filter(int(Status.CANCELLED), held=False),
    "held": _Filter(held=True, paused=False),
    "paused": _Filter(held=True, paused=True),
    "waiting": _Filter(waiting=True),
    "stuck": _Filter(held=True, stuck=True),
    "compensating": _Filter(int(Status.RUNNING), held=False, state=COMPENSATING),
}
STATUSES = tuple(_FILTERS)
_LIMIT_MAX = 2**63 - 1
_RUN_COLUMNS = tuple(name for name in Run._fields if name != "deferred")
_WORDS: dict[int, RunStatus] = {
    int(Status.EXPECTED): "expected",
    int(Status.RUNNING): "running",
    int(Status.COMPLETED): "completed",
    int(Status.CANCELLED): "cancelled",
}


@dataclass(frozen=True, slots=True)
class RunView:
    """One run."""

    namespace: str
    pipeline: str
    key: str
    generation: int
    version: int | None
    """Of the definition that it follows."""
    status: str
    """expected, running, completed, cancelled, held or paused."""
    configuration: list[str]
    """The active states, outermost first."""
    sequence: int
    context: Any
    started: datetime
    updated: datetime
    held: int | None
    """The sequence number of the row that holds it."""
    waiting: int
    """How many events wait: behind the hold, and deferred ones."""
    memory: MemoryView
    attributes: Attributes
    """What it is found by."""
    stuck: StuckView | None = None
    """The failure of a step, or of a compensation, that holds it."""
    loaded: bool | None = None
    """Whether an engine that is there has loaded that definition; None: none is there, or it was not a list that was
    asked for."""

    @property
    def output(self) -> Any:
        """What the final state that ended it has said, as a JSON value; None as long as it goes on."""
        return self.memory.output

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "namespace": self.namespace,
            "pipeline": self.pipeline,
            "key": self.key,
            "generation": self.generation,
            "version": self.version,
            "loaded": self.loaded,
            "status": self.status,
            "configuration": self.configuration,
            "sequence": self.sequence,
            "context": self.context,
            "started": shown_time(self.started),
            "updated": shown_time(self.updated),
            "held": self.held,
            "waiting": self.waiting,
            "next": None if not self.memory.due else self.memory.due[0].as_json(),
            "output": self.output,
            "attributes": self.attributes,
            "stuck": None if self.stuck is None else self.stuck.as_json(),
        }


async def list_runs(
    connection: Connection,
    namespace: str,
    *,
    pipeline: str | None = None,
    key: str | None = None,
    status: str | None = None,
    state: str | None = None,
    version: int | None = None,
    where: Sequence[tuple[str, str]] = (),
    limit: int = 100,
) -> list[RunView]:
    """Runs, those that started last first; ``limit`` 0 gives all of them.

    The status ``waiting`` asks for those that events wait for, behind a hold or deferred, whatever else they are;
    ``compensating`` for running ones that are being undone, and that nothing holds; ``stuck`` for held ones that the
    failure of a step, or of a compensation, holds. ``where`` are search attributes with the values that a run must
    have, all of them.

    Raises:
        UsageError: there is no such status, state or attribute, or no such value of it; or no such limit.
    """
    _check_limit(limit)
    filters = await asked_filters(
        connection,
        namespace,
        pipeline=pipeline,
        key=key,
        status=status,
        state=state,
        version=version,
        where=where,
        limit=limit,
    )
    rows = await connection.fetch(SQL["list_runs"], namespace, *filters)
    loaded = await loaded_now(connection, namespace) if rows else {}
    return [_view(namespace, row, loaded) for row in rows]


def _check_limit(limit: Any) -> None:
    if not isinstance(limit, int) or not 0 <= limit <= _LIMIT_MAX:
        raise UsageError(f"A limit is so many runs at most, or 0 for all of them, and not {limit!r:.100}.")


async def count_runs(
    connection: Connection,
    namespace: str,
    *,
    pipeline: str | None = None,
    status: str | None = None,
    state: str | None = None,
    version: int | None = None,
    where: Sequence[tuple[str, str]] = (),
) -> int:
    """How many runs ``list_runs`` would give of the same. Raises UsageError."""
    filters = await asked_filters(
        connection, namespace, pipeline=pipeline, status=status, state=state, version=version, where=where
    )
    counting = f"select count(*) from ({SQL['list_runs']}) as found"  # noqa: S608 - a statement of our own
    return int(await connection.fetchval(counting, namespace, *filters))


async def find_view(
    connection: Connection, namespace: str, pipeline: str, key: str, generation: int | None = None
) -> RunView:
    """The run of this address; its latest generation where none is given. Raises NotFoundError, as ``find_run``."""
    asked = namespace, askable(pipeline), askable(key), generation
    row = await connection.fetchrow(SQL["view_of_run"], *asked)
    if row is None:
        await find_run(connection, namespace, pipeline, key, generation)
        row = await connection.fetchrow(SQL["view_of_run"], *asked)
    return _view(namespace, row)


def _view(namespace: str, row: Any, loaded: Collection[int] = ()) -> RunView:
    run = Run(*(row[name] for name in _RUN_COLUMNS))
    return RunView(
        namespace=namespace,
        pipeline=row["name"],
        key=row["key"],
        generation=row["generation"],
        version=row["version"],
        status=word_for(row["status"], row["holding"]),
        configuration=states_of(row["configuration"]),
        sequence=row["sequence"],
        context=json_of(row["context"]),
        started=row["started"],
        updated=row["updated"],
        held=row["held"] or None,
        waiting=row["waiting"],
        memory=memory_view(namespace, row["name"], run),
        attributes=json.loads(row["attributes"] or "{}"),
        stuck=None if row["holding"] is None else _stuck(namespace, run, row),
        loaded=run.definition in loaded if loaded else None,
    )


def _stuck(namespace: str, run: Run, row: Any) -> StuckView | None:
    held_by = row["holding"], row["held_by"], row["held_payload"]
    return stuck_view(namespace, row["name"], run, *held_by, row["held_structure"] or b"")


async def asked_filters(
    connection: Connection,
    namespace: str,
    *,
    pipeline: str | None = None,
    key: str | None = None,
    status: str | None = None,
    state: str | None = None,
    version: int | None = None,
    where: Sequence[tuple[str, str]] = (),
    limit: int = 0,
    stuck: bool = False,
) -> tuple[object, ...]:
    """What the statement ``list_runs`` is asked with. Raises UsageError, as ``list_runs`` does.

    ``stuck``: only those that are, whatever status is asked for.
    """
    if status is not None and status not in _FILTERS:
        raise UsageError(f"There is no status {status!r}. {did_you_mean(status, _FILTERS)}")
    meant = _Filter() if status is None else _FILTERS[status]
    if state is not None:
        await check_states(connection, namespace, pipeline, [state])
    asked = await asked_attributes(connection, namespace, pipeline, where) if where else None
    named = askable(pipeline), askable(key), meant.status, meant.held, askable(state)
    holds = [int(one) for one in HOLDS] if stuck or meant.stuck else None
    return (
        *named,
        limit,
        asked,
        meant.waiting,
        meant.paused,
        int(Kind.PAUSED),
        meant.state,
        holds,
        STEP_FAILED,
        version,
    )


def word_for(status: int, holding: int | None) -> RunStatus:
    """The status as people see it; ``holding`` is the kind of the row that holds the run, None where none does."""
    if holding is not None:
        return "paused" if holding == Kind.PAUSED else "held"
    return _WORDS[status]


async def find_run(
    connection: Connection, namespace: str, pipeline: str, key: str, generation: int | None = None
) -> Run:
    """The run of this address; its latest generation where none is given.

    Raises:
        NotFoundError: with what there is instead.
    """
    asked = (namespace, askable(pipeline), askable(key))
    row = await connection.fetchrow(SQL["find_run"], *asked, generation)
    if row is not None:
        return Run(*row)
    known = [one["name"] for one in await connection.fetch(SQL["pipelines"], namespace)]
    if pipeline not in known:
        raise NotFoundError(
            f"No pipeline {pipeline!r} was ever run in the namespace {namespace!r}. "
            f"{did_you_mean(pipeline, known)}"
        )
    generations = [one["generation"] for one in await connection.fetch(SQL["generations"], *asked)]
    if generations:
        raise NotFoundError(
            f"The run {key!r} of {pipeline!r} has no generation {generation}; it has {_listed(generations)}."
        )
    raise NotFoundError(
        f"{pipeline!r} has no run with the key {key!r} in the namespace {namespace!r}. "
        "Did an event for it come? pointsman explain EVENT_ID tells what became of one."
    )


def _listed(numbers: list[int]) -> str:
    return ", ".join(str(number) for number in numbers)
