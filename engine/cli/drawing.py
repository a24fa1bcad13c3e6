"""``diagram``: pipelines as pictures, the way of one run in them, and how many runs are where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.arguments import check_generation
from engine.cli.asking import Generation, ask_store
from engine.cli.definitions import PANEL, compile_all, find
from engine.cli.options import Json, Modules, Namespace, Postgres, resolve
from engine.cli.output import note, print_json, say
from engine.errors import UsageError
from statemachines.suggest import listed

if TYPE_CHECKING:
    from engine.reading.way import RunPassages, StateCounts
    from engine.store.connecting import Connection
    from statemachines.definition import Pipeline
    from statemachines.diagram import Marks
    from statemachines.machine import Machine
    from statemachines.way import Rows, Way

ROWS_SHOWN_MAX = 5
"""In a picture; more are counted."""

Counts = dict[tuple[str, int], "StateCounts"]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture, and what it was made of."""

    pipeline: Pipeline[Any]
    mermaid: str
    run: dict[str, Any] | None
    counts: dict[str, int]
    elsewhere: int | None

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "pipeline": self.pipeline.name,
            "version": self.pipeline.version,
            "mermaid": self.mermaid,
            "run": self.run,
            "counts": self.counts,
            "elsewhere": self.elsewhere,
        }


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=PANEL)(diagram)


def diagram(
    modules: Modules,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="KEY", help="Mark where this run is, and the way that it took."),
    ] = None,
    generation: Generation = None,
    counts: Annotated[
        bool, typer.Option("--counts", help="Say how many runs are in each state; reads all of them.")
    ] = False,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> None:
    """Draw pipelines as Mermaid state diagrams, which GitHub and many editors show.

    Without --run and --counts no service is needed.
    """
    check_generation(generation, named=run is not None)
    options = {"postgres": postgres, "namespace": namespace}
    if run is not None:
        drawn = [_draw_run(modules, options, run, generation, counts=counts)]
    else:
        pipelines = find(modules)
        counted = _count(options, pipelines) if counts else None
        drawn = [_draw(one, pipelines, counted) for one in pipelines]
    for name, number in {one.pipeline.name: one.elsewhere for one in drawn if one.elsewhere}.items():
        what = "1 run follows" if number == 1 else f"{number:,} runs follow"
        note(f"{what} other versions of {name!r} than are drawn.")
    if json:
        print_json(drawn)
        return
    say("\n".join(one.mermaid.rstrip("\n") for one in drawn))


def _draw_run(
    modules: Sequence[str],
    options: dict[str, str | None],
    key: str,
    generation: int | None,
    *,
    counts: bool,
) -> Drawn:
    from statemachines.way import find_way  # noqa: PLC0415 - pydantic is loaded only when needed

    machines = compile_all(modules, resolve(options).namespace)
    names = list(dict.fromkeys(one.name for one in machines))

    async def question(connection: Connection, namespace: str) -> RunPassages:
        from engine.reading.way import passages_of  # noqa: PLC0415 - needs an extra to be installed

        name = await _pipeline_of(connection, namespace, names, key)
        return await passages_of(connection, namespace, name, key, generation)

    found = ask_store(options, question)
    machine = _machine_of(machines, found)
    way = find_way(machine, found.passages)
    if way.unexplained.times:
        note(f"This definition does not say what led from state to state in {_said(way.unexplained)}.")
    counted = _count(options, [machine.pipeline]) if counts else None
    pipelines = [machine.pipeline]
    told = _run_json(found, machine.pipeline, way)
    return _draw(machine.pipeline, pipelines, counted, _marks(found, way), told)


async def _pipeline_of(connection: Connection, namespace: str, names: list[str], key: str) -> str:
    """Which of these pipelines has a run of this key; where none has, the first, of which that is said then."""
    from engine.reading import NotFoundError, list_runs  # noqa: PLC0415 - needs an extra to be installed

    if len(names) == 1:
        return names[0]
    having = {one.pipeline for one in await list_runs(connection, namespace, key=key, limit=0)}
    found = [name for name in names if name in having]
    if len(found) > 1:
        raise UsageError(f"{listed(found)} have a run with the key {key!r}. Say which is meant: MODULE:NAME.")
    if not found:
        raise NotFoundError(
            f"None of {listed(names)} has a run with the key {key!r} in the namespace {namespace!r}. "
            "`pointsman runs` lists them."
        )
    return found[0]


def _machine_of(machines: Iterable[Machine], run: RunPassages) -> Machine:
    """The definition that the run follows. Raises UsageError where only other versions are given."""
    named = [one for one in machines if one.name == run.pipeline]
    for machine in named:
        if machine.version == run.version:
            if machine.hash != run.definition:
                note(
                    f"Version {run.version} of {run.pipeline!r} is not what it was when this run began; "
                    "it is drawn as it is given here."
                )
            return machine
    given = " and ".join(str(one.version) for one in named)
    raise UsageError(
        f"The run {run.key!r} of {run.pipeline!r} follows version {run.version}, and what is given is version {given}. "
        "Give the file that has its version, too."
    )


def _count(options: dict[str, str | None], pipelines: Sequence[Pipeline[Any]]) -> Counts:
    async def question(connection: Connection, namespace: str) -> Counts:
        from engine.reading.way import count_states  # noqa: PLC0415 - needs an extra to be installed

        return await count_states(connection, namespace, [one.name for one in pipelines])

    return ask_store(options, question)


def _draw(
    pipeline: Pipeline[Any],
    pipelines: Sequence[Pipeline[Any]],
    counted: Counts | None,
    marks: Marks | None = None,
    run: dict[str, Any] | None = None,
) -> Drawn:
    from statemachines.diagram import NO_MARKS, to_mermaid  # noqa: PLC0415 - only where pictures are drawn

    marks = marks or NO_MARKS
    if counted is None:
        return Drawn(pipeline, to_mermaid(pipeline, marks), run, {}, None)
    own = counted.get((pipeline.name, pipeline.version))
    states = [state.name for state in pipeline.states if state.kind != "history"]
    counts = {name: 0 if own is None else own.states.get(name, 0) for name in states}
    marks = replace(marks, states={name: f"{number:,}" for name, number in counts.items()})
    drawn = {(one.name, one.version) for one in pipelines}
    elsewhere = sum(
        one.runs for version, one in counted.items() if version[0] == pipeline.name and version not in drawn
    )
    return Drawn(pipeline, to_mermaid(pipeline, marks), run, counts, elsewhere)


def _marks(run: RunPassages, way: Way) -> Marks:
    from statemachines.chart.spots import told_apart  # noqa: PLC0415 - as above
    from statemachines.diagram import Marks  # noqa: PLC0415 - as above

    return Marks(
        here=told_apart(run.configuration),
        passed=list(way.entered),
        starts={start: _said(rows) for start, rows in way.starts.items()},
        moves={edge: _said(rows) for edge, rows in way.moves.items()},
    )


def _said(rows: Rows) -> str:
    """As in ``row 2`` and ``rows 2, 3? and 12 more``."""
    shown = [f"{row}{'?' if row in rows.uncertain else ''}" for row in rows.first[:ROWS_SHOWN_MAX]]
    more = rows.times - len(shown)
    return f"row{'s' if rows.times > 1 else ''} {', '.join(shown)}" + (f" and {more:,} more" if more else "")


def _run_json(run: RunPassages, pipeline: Pipeline[Any], way: Way) -> dict[str, Any]:
    from statemachines.definition import name_of  # noqa: PLC0415 - pydantic is loaded only when needed

    initial = next(state.name for state in pipeline.states if state.initial and state.parent is None)
    starts: list[dict[str, Any]] = [
        _taken(None, start.event.event_type(), [*start.targets] or [initial], name_of(start.guard), rows)
        for start, rows in way.starts.items()
    ]
    moves = [
        _taken(source, move.event_type, list(move.targets), name_of(move.guard), rows)
        for (source, move), rows in way.moves.items()
    ]
    return {
        "key": run.key,
        "generation": run.generation,
        "status": run.status,
        "sequence": run.sequence,
        "configuration": run.configuration,
        "entered": [
            {"state": state, "rows": rows.first, "times": rows.times} for state, rows in way.entered.items()
        ],
        "transitions": starts + sorted(moves, key=lambda one: (one["rows"], *map(str, one.values()))),
        "unexplained": way.unexplained.first,
    }


def _taken(
    source: str | None, event: str | None, targets: list[str], guard: str | None, rows: Rows
) -> dict[str, Any]:
    return {
        "source": source,
        "event": event,
        "targets": targets,
        "guard": guard,
        "rows": rows.first,
        "uncertain": sorted(rows.uncertain),
        "times": rows.times,
    }
