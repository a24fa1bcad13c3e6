"""``runs``, ``history``, ``show``, ``explain``: what there is, what happened, and why."""

from __future__ import annotations

import json as json_module
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.arguments import (
    BIGINT_MAX,
    INT_MAX,
    check_conditions,
    check_event,
    check_one_of,
    check_run,
    up_to,
)
from engine.cli.asking import Generation, Key, Pipeline, RunWords, ask_store, find_address, unknown_pipeline
from engine.cli.failures import FAILED
from engine.cli.options import Json, Limit, Namespace, Postgres
from engine.cli.output import counted, note, print_facts, print_json, print_rows, say, short_time
from engine.cli.working import ERROR_CHARACTERS, print_steps, print_stuck, stuck_words
from engine.commands.words import map_command, resume_command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.reading import (
        Answer,
        Explanation,
        HistoryRow,
        PausedPipeline,
        RecordView,
        RunAt,
        RunView,
    )
    from engine.reading.due import DueView
    from engine.store.connecting import Connection
    from statemachines.search import Value

PANEL = "Runs and events"
_OF_STEPS = {"step": "run", "stop": "stop", "settle": "settle", "complete": "complete", "fail": "fail"}
"""What is said of effects that are about steps."""
_IN_VAIN = {"left waiting": "waited in vain", "left deferred": "deferred in vain"}
"""How kinds of rows are printed that read as if the event waited still; it changed nothing."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (runs, history, show, explain):
        app.command(rich_help_panel=PANEL)(command)


def runs(
    pipeline: Pipeline = None,
    key: Key = None,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="expected|running|compensating|completed|cancelled|held|stuck|paused|waiting",
            help="Only of this status; stuck: the failure of a step or a compensation holds them; waiting: events wait "
            "for them; compensating: they are being undone, and nothing holds them.",
        ),
    ] = None,
    state: Annotated[
        str | None, typer.Option("--state", metavar="NAME", help="Only those that are in this state.")
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(
            "--version",
            metavar="N",
            min=1,
            callback=up_to(INT_MAX),
            help="Only those that follow this version of their pipeline.",
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="NAME=VALUE",
            help="Only with this value of a search attribute; given several times, all must hold.",
        ),
    ] = None,
    limit: Limit = 100,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> None:
    """List runs, those that started last first.

    A version that is not loaded is one that no engine has loaded now, though there are engines: its runs wait.
    """
    from engine.reading.runs import STATUSES  # noqa: PLC0415 - needs an extra to be installed

    check_one_of("status", status, STATUSES)
    conditions = check_conditions(where or ())

    async def question(
        connection: Connection, namespace: str
    ) -> tuple[list[RunView], list[PausedPipeline], str]:
        from engine.reading import list_pauses, list_runs  # noqa: PLC0415 - needs an extra to be installed

        filters = {"pipeline": pipeline, "key": key, "status": status, "state": state}
        listed = await list_runs(
            connection, namespace, **filters, version=version, where=conditions, limit=limit
        )
        unknown = "" if listed else await unknown_pipeline(connection, namespace, pipeline)
        return listed, await list_pauses(connection, namespace, pipeline=pipeline), unknown

    found, pauses, unknown = ask_store({"postgres": postgres, "namespace": namespace}, question)
    if json:
        print_json(found)
        tell_limit(len(found), limit, "run", unknown)
        return
    print_rows(
        (
            "pipeline",
            "key",
            "generation",
            "version",
            "status",
            "state",
            "stuck on",
            "attributes",
            "rows",
            "waiting",
            "updated",
        ),
        [
            (
                one.pipeline,
                one.key,
                one.generation,
                version_words(one),
                one.status,
                " ".join(one.configuration),
                "" if one.stuck is None else stuck_words(one.stuck),
                " ".join(f"{name}={shown_attribute(value)}" for name, value in one.attributes.items()),
                one.sequence,
                one.waiting or "",
                one.updated,
            )
            for one in found
        ],
        right=("generation", "rows", "waiting"),
        fold=("stuck on",),
        optional=("generation", "stuck on", "attributes", "waiting"),
    )
    if any(waits_for_version(one) for one in found):
        note(
            "Those whose version is not loaded wait for it. Load it, or have them follow another one: "
            f"{map_command('PIPELINE')}"
        )
    stuck = next((one.stuck for one in found if one.stuck is not None), None)
    if stuck is not None:
        note("What becomes of those that are stuck, you decide. Of the first one, one of these:")
        for command in stuck.commands.values():
            note(f"  {command}")
    tell_limit(len(found), limit, "run", unknown)
    for pause in pauses:
        note(
            f"{pause.pipeline} is paused since {short_time(pause.at)}, by {pause.who}: {pause.why}. To let it go on: "
            f"{resume_command(pause.pipeline)}."
        )


def waits_for_version(run: RunView | RunAt) -> bool:
    """Whether an open run waits for an engine that has loaded what it follows, though others are there."""
    return run.loaded is False and run.status in ("running", "held", "paused")


def version_words(run: RunView) -> str:
    """As in ``1``, or ``1, not loaded``."""
    return f"{run.version}, not loaded" if waits_for_version(run) else str(run.version)


def shown_attribute(value: Value) -> str:
    """The value of a search attribute as it is asked for."""
    match value:
        case bool():
            return str(value).lower()
        case list():
            return ",".join(value)
        case _:
            return str(value)


def history(
    run: RunWords,
    generation: Generation = None,
    limit: Limit = 0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> None:
    """Tell what happened to a run, row by row; with a limit, the newest rows."""
    check_run(run)

    async def question(connection: Connection, namespace: str) -> list[HistoryRow]:
        from engine.reading import history  # noqa: PLC0415 - needs an extra to be installed

        address = await find_address(connection, namespace, run)
        return await history(connection, namespace, *address, generation, limit)

    found = ask_store({"postgres": postgres, "namespace": namespace}, question)
    if json:
        print_json(found)
        return
    print_history(found)


def show(
    run: RunWords,
    at: Annotated[
        int | None,
        typer.Option(
            "--at", metavar="SEQUENCE", min=1, callback=up_to(INT_MAX), help="As it was after this row."
        ),
    ] = None,
    generation: Generation = None,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> None:
    """Show a run, as it is or as it was: states, context, and the event and record that brought it there."""
    check_run(run)

    async def question(connection: Connection, namespace: str) -> RunAt:
        from engine.reading import show  # noqa: PLC0415 - needs an extra to be installed

        address = await find_address(connection, namespace, run)
        return await show(connection, namespace, *address, generation, at_sequence=at)

    found = ask_store({"postgres": postgres, "namespace": namespace}, question)
    if json:
        print_json(found)
        return
    print_facts(
        {
            "run": f"{found.pipeline} {on_one_line(found.key)}, generation {found.generation}",
            "row": f"{found.sequence} of {found.latest}",
            "at": found.at,
            "status": found.status + (f", {waiting_words(found.waiting)}" if found.waiting else ""),
            "states": found.configuration,
            "definition": f"version {found.version}, {(found.definition or '')[:12]}",
            **_not_loaded(found),
            "event": f"{found.row.event.type} {found.row.event.id} ({kind_words(found.row.event.kind)})",
            **({"record": place(found.record)} if found.record else {}),
            **({"asked": _asked_for(found.command)} if found.command else {}),
        }
    )
    say("context:")
    say(json_module.dumps(found.context, indent=2, ensure_ascii=False))
    print_steps(found.steps)
    if found.stuck is not None and found.sequence == found.latest:
        print_stuck(found.stuck)
    print_memory(found)
    if found.record:
        print_record(found.record)


def on_one_line(text: str) -> str:
    """As a table has it; what else would move the cursor is escaped where it is said."""
    return text.replace("\n", "\\n").replace("\t", "\\t")


def waiting_words(number: int) -> str:
    """As in ``1 event waits``."""
    return f"{counted(number, 'event')} wait{'s' if number == 1 else ''}"


def _not_loaded(found: RunAt) -> dict[str, str]:
    """Why a run waits whose definition is missing, and what to do."""
    if not (found.lacks_definition or waits_for_version(found)):
        return {}
    said = (
        "the version that it follows is not loaded. Load it, or have its runs follow another one: "
        f"{map_command(found.pipeline, found.version)}"
    )
    return {"held" if found.lacks_definition else "waits": said}


def _asked_for(command: Any) -> str:
    """Who asked for a command, and why."""
    said = command if isinstance(command, dict) else {}
    who = f" by {said['who']}" if said.get("who") else ""
    return f"{said.get('command')}{who}: {said.get('why')}"


def explain(
    event_id: Annotated[
        str | None, typer.Argument(metavar="EVENT_ID", help="The event's id.", show_default=False)
    ] = None,
    topic: Annotated[str | None, typer.Option("--topic", metavar="NAME")] = None,
    partition: Annotated[
        int | None, typer.Option("--partition", metavar="NUMBER", min=0, callback=up_to(INT_MAX))
    ] = None,
    offset: Annotated[
        int | None, typer.Option("--offset", metavar="NUMBER", min=0, callback=up_to(BIGINT_MAX))
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--source", metavar="SOURCE", help="Of events with this id, only this source's."),
    ] = None,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Tell what became of an event, and why: by its id, or by topic, partition and offset.

    From what was recorded at the time. Ends with 1 where nothing is known of it, or not yet.
    """
    check_event(event_id, topic, partition, offset)

    async def question(connection: Connection, namespace: str) -> Explanation:
        from engine.reading import explain  # noqa: PLC0415 - needs an extra to be installed

        return await explain(
            connection,
            namespace,
            event_id=event_id,
            source=source,
            topic=topic,
            partition=partition,
            offset=offset,
        )

    found = ask_store({"postgres": postgres, "namespace": namespace}, question)
    if json:
        print_json(found)
    else:
        print_explanation(found)
    return 0 if found.known else FAILED


def print_history(rows: list[HistoryRow]) -> None:
    """A table of moves."""
    print_rows(
        ("row", "at", "event", "what", "move", "asked for"),
        [
            (
                row.sequence,
                short_time(row.at),
                row.event.type,
                row_words(row),
                move_of(row),
                ", ".join(effect_words(effect) for effect in row.effects),
            )
            for row in rows
        ],
        right=("row",),
        fold=("what", "move"),
        optional=("asked for",),
    )


def row_words(row: HistoryRow) -> str:
    """What a row says of its event; of how an attempt ended, that."""
    if row.heard is None:
        return kind_words(row.event.kind)
    words = row.heard.words(ERROR_CHARACTERS)
    return words if row.event.kind == "passed" else f"{kind_words(row.event.kind)}: {words}"


def kind_words(kind: str) -> str:
    """What a row says of its event, in words; the others are words as they are."""
    return _IN_VAIN.get(kind, kind)


def effect_words(effect: Mapping[str, Any]) -> str:
    """As in ``order.late at 12:05:00``."""
    if effect["what"] == "cancel":
        return f"cancel {effect['name']}"
    if effect["what"] in _OF_STEPS:
        undoes = "" if effect["undoes"] is None else f" to undo {effect['undoes']['name']}"
        return f"{_OF_STEPS[effect['what']]} {effect['type']}{undoes}"
    due = "" if effect["due"] is None else f" at {short_time(datetime.fromisoformat(effect['due']))}"
    return f"{effect['type']}{due}"


def move_of(row: HistoryRow) -> str:
    """From where to where."""
    after = " ".join(row.to_states)
    if row.from_states is None:
        return f"→ {after}"
    before = " ".join(row.from_states)
    if not after:
        return ""
    if not before:
        return f"→ {after}"
    return f"stays {after}" if before == after and not row.may_reenter else f"{before} → {after}"


def print_explanation(found: Explanation) -> None:
    """In sentences."""
    several = len({answer.source for answer in found.answers} - {None}) > 1
    for answer in found.answers:
        say(_subject(answer, answer.source or "a source that is not kept" if several else ""))
        for whence in (answer.origin, answer.sender):
            if whence is not None:
                say(f"  {whence.sentence}")
        for change in (*answer.earlier, answer.current):
            say(f"  {short_time(change.at)}  {change.sentence}")
    for sentence in found.notes:
        say(sentence)


def _subject(answer: Answer, source: str) -> str:
    what = " ".join(filter(None, [answer.type, answer.event_id, source and f"of {source}"])) or "A record"
    at = "" if answer.offset is None else f", {answer.topic}/{answer.partition} offset {answer.offset}"
    return f"{what}{at}, for {answer.pipeline or 'all pipelines of the topic'}:"


def place(record: RecordView) -> str:
    """Where a record is; what was never taken by a topic has no place in it."""
    if not record.topic:
        return "none: it came from a run, or from an operator"
    return (
        record.topic if record.offset is None else f"{record.topic}/{record.partition} offset {record.offset}"
    )


def print_memory(found: RunAt) -> None:
    """What waits for a run, what falls due, and what else it remembers."""
    for one in found.deferred:
        say(
            f"deferred: {one.type} {one.event_id} (row {one.sequence}), {one.reason}: {one.why}; until "
            f"{short_time(one.until)}, then {one.then.replace('_', ' ')}"
        )
    for due in found.memory.due:
        say(f"due {short_time(due.due)}: {due_words(due)}")
    for stream, mark in found.memory.marks.items():
        say(f"in order: {stream} has come to {mark}")
    if found.memory.output is not None:
        say(f"output: {json_module.dumps(found.memory.output, ensure_ascii=False)}")


def due_words(due: DueView) -> str:
    """What falls due, with the id that it will have."""
    match due.what:
        case "publish":
            what = f"{due.type} is published to {due.topic}"
        case "timer":
            what = f"{due.type}, a timer" + (f" of {due.state}" if due.state else "")
        case _:
            to = "itself" if due.key is None else f"{due.pipeline or 'the run'} {on_one_line(due.key)}"
            what = f"{due.type} is sent to {to}"
    return f"{what} ({due.id}, asked for in row {due.sequence})"


def print_record(record: RecordView) -> None:
    """A record as it came, as far as it is text."""
    shown: dict[str, Any] = record.as_json()
    say("record:")
    print_facts(
        {
            "  place": place(record),
            "  time": shown["time"] and datetime.fromisoformat(shown["time"]),
            "  key": on_one_line(_text(shown, "key")),
            **{f"  {one['name']}": _text(one, "value") for one in shown["headers"]},
            "  value": _text(shown, "value"),
        }
    )


def _text(shown: dict[str, Any], name: str) -> str:
    encoded = shown[f"{name}_base64"]
    if encoded is not None:
        return f"(base64) {encoded}"
    return "(none)" if shown[name] is None else str(shown[name])


def tell_limit(number: int, limit: int, what: str, unknown: str = "") -> None:
    """Say beside a list that there may be more, or none; ``unknown`` is why there can be none."""
    if number == 0:
        note(f"No {what}s. {unknown}".rstrip())
    elif limit and number == limit:
        note(f"The first {limit} {what}s; --limit 0 shows all.")
