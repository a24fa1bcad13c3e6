"""``dead-letters``: events that could not be applied, and what a person decides of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from engine.cli.arguments import BIGINT_MAX, check_fields, check_one_of, check_text, read_data, up_to
from engine.cli.asking import Key, Pipeline, ask_store, unknown_pipeline, whoever
from engine.cli.failures import FAILED
from engine.cli.looking import place, print_record, tell_limit
from engine.cli.options import Json, Limit, Namespace, Postgres, Who
from engine.cli.output import note, print_facts, print_json, print_rows, say
from engine.commands.words import handler_cure
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.reading import Asked, Became, DeadLetterDetails, DeadLetterView
    from engine.store.connecting import Connection

EACH_MAX = 20
"""Of more than so many dead letters it is counted what became of them."""
PANEL = "Decisions"

WithReason = Annotated[
    str | None,
    typer.Option("--with-reason", metavar="REASON", help="Only with this reason, such as 'no run'."),
]
Topic = Annotated[str | None, typer.Option("--topic", metavar="NAME", help="Only of this topic.")]
EventId = Annotated[str | None, typer.Option("--event-id", metavar="ID", help="Only of events with this id.")]
Ids = Annotated[
    list[int] | None,
    typer.Argument(
        metavar="ID", min=0, callback=up_to(BIGINT_MAX), help="Their numbers.", show_default=False
    ),
]
All = Annotated[bool, typer.Option("--all", help="All that are open, where no other filter is given.")]
Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept with the dead letter.")
]
Wait = Annotated[
    float,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        min=0,
        help="How long to wait for an engine to do it; else it ends with 1.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="dead-letters",
        help="Events that could not be applied: look, redrive, drop.",
        no_args_is_help=True,
    )
    group.command("list")(list_all)
    group.command("show")(show)
    group.command("redrive")(redrive)
    group.command("drop")(drop)
    group.command("edit")(edit)
    app.add_typer(group, rich_help_panel=PANEL)


def list_all(
    *,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="open|redriven|dropped|resolved",
            help="Only of this status. \\[default: open]",
            show_default=False,
        ),
    ] = None,
    all_of_them: Annotated[
        bool, typer.Option("--all", help="Of any status, and not only open ones.")
    ] = False,
    with_reason: WithReason = None,
    pipeline: Pipeline = None,
    key: Key = None,
    topic: Topic = None,
    event_id: EventId = None,
    limit: Limit = 100,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> None:
    """List dead letters that are open, the newest first; and say how many others there are."""
    if all_of_them and status is not None:
        raise UsageError("Give --all or --status, not both.")
    filters = {"reason": with_reason, "pipeline": pipeline, "key": key, "topic": topic, "event_id": event_id}
    by_default = status is None and not all_of_them
    wanted = {"status": "open" if by_default else status, **filters}
    _check(wanted)

    async def question(connection: Connection, namespace: str) -> tuple[list[DeadLetterView], str, str]:
        listed = await _find(connection, namespace, wanted, limit)
        others = await _others(connection, namespace, filters) if by_default else ""
        return listed, others, "" if listed else await unknown_pipeline(connection, namespace, pipeline)

    found, others, unknown = ask_store({"postgres": postgres, "namespace": namespace}, question)
    if json:
        print_json(found)
    else:
        print_letters(found)
    tell_limit(len(found), limit, "open dead letter" if by_default else "dead letter", unknown)
    if others:
        note(f"{others}. --all lists them, too; --status NAME lists those alone.")


async def _others(connection: Connection, namespace: str, filters: Mapping[str, str | None]) -> str:
    """How many there are of these that are not open."""
    from engine.reading.dead_letters import COUNTED_MAX, count_dead_letters  # noqa: PLC0415 - needs an extra

    counts = await count_dead_letters(connection, namespace, **filters)
    counted = sum(counts.values())
    among = f" among the newest {counted:,}" if counted >= COUNTED_MAX else ""
    others = ", ".join(f"{number:,} {name}" for name, number in counts.items() if name != "open")
    return others and f"Others{among}: {others}"


def show(
    number: Annotated[
        int, typer.Argument(metavar="ID", min=0, callback=up_to(BIGINT_MAX), help="Its number.")
    ],
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> None:
    """Show a dead letter: why it is one, and its record as it came."""

    async def question(connection: Connection, namespace: str) -> DeadLetterDetails:
        from engine.reading import show_dead_letter  # noqa: PLC0415 - needs an extra to be installed

        return await show_dead_letter(connection, namespace, number)

    found = ask_store({"postgres": postgres, "namespace": namespace}, question)
    if json:
        print_json(found)
        return
    letter = found.letter
    refused = f" ({found.publishing_error})" if found.publishing_error else ""
    print_facts(
        {
            "dead letter": f"{letter.id}, {letter.status}",
            "reason": letter.reason,
            "error": letter.error,
            **({"policy": found.policy} if found.policy else {}),
            "event": f"{letter.type or '?'} {letter.event_id or '?'}",
            **(
                {"run": f"{letter.pipeline} {letter.key or '?'}"}
                if letter.is_of_run
                else {"key": letter.key or "?"}
            ),
            "record": place(found.record),
            "holds its run": f"yes, {found.waiting} events wait" if found.holds else "no",
            "publishing": f"{letter.publishing}, to {found.dead_letter_topic or letter.topic}{refused}",
            "at": letter.at,
            **({"ended": f"by {found.who}: {found.why}"} if found.ended else {}),
        }
    )
    cure = handler_cure(letter.reason, letter.pipeline or "", letter.key) if found.holds else ""
    if cure:
        say(cure)
    for tried in found.details if isinstance(found.details, list) else []:
        say(f"  tried {_tried(tried)}")
    print_record(found.record)
    if found.edited is not None:
        say("offered instead:")
        say(found.edited.decode("utf-8", "backslashreplace"))


def redrive(
    ids: Ids = None,
    *,
    with_reason: WithReason = None,
    pipeline: Pipeline = None,
    key: Key = None,
    topic: Topic = None,
    event_id: EventId = None,
    all_open: All = False,
    reason: Reason = "redriven at the command line",
    who: Who = None,
    wait: Wait = 10.0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Put events back, each in its place before those that wait behind it.

    An event that a run was to publish and the broker refused goes back into the outbox, with its id, key and bytes: it
    is published behind what the run has published since. If the broker refuses it again, it is a dead letter again.

    By their numbers, or all open ones that the filters let through. An engine does it; doing it twice changes
    nothing the second time. Ends with 1 where a number is not known, where something else was decided of it before,
    where an event failed again, and where no engine has done it in time.
    """
    filters = {"reason": with_reason, "pipeline": pipeline, "key": key, "topic": topic, "event_id": event_id}
    return _ask(
        "redrive", ids or [], filters, all_open, reason, whoever(who), wait, postgres, namespace, json
    )


def drop(
    ids: Ids = None,
    *,
    with_reason: WithReason = None,
    pipeline: Pipeline = None,
    key: Key = None,
    topic: Topic = None,
    event_id: EventId = None,
    all_open: All = False,
    reason: Reason = "dropped at the command line",
    who: Who = None,
    wait: Wait = 10.0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Give events up: what waits behind them goes on without them. Chosen as for redrive.

    Ends with 1 where a number is not known, where something else was decided of it before, where its run could not go
    on without it, and where no engine has done it in time.
    """
    filters = {"reason": with_reason, "pipeline": pipeline, "key": key, "topic": topic, "event_id": event_id}
    return _ask("drop", ids or [], filters, all_open, reason, whoever(who), wait, postgres, namespace, json)


def edit(
    number: Annotated[
        int, typer.Argument(metavar="ID", min=0, callback=up_to(BIGINT_MAX), help="Its number.")
    ],
    *,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="JSON", help="All of the event's data; - reads standard input."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="A field, or a.b within one, with another value, JSON or else text.",
        ),
    ] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Let --set put in fields, too, that the data does not have.")
    ] = False,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept.", show_default=False)
    ],
    who: Who = None,
    wait: Wait = 10.0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Put an event back with other data, in its place and under its id, as redrive does with its own.

    The dead letter keeps the record as it came. Of a record with several events the data is that of this one. A field
    that the data does not have, as by a slip, is refused unless --add says that it is new. A field whose own name is
    a.b is found before one within a; where there is neither and one of that name is wanted, give all of the data. Ends
    with 1 where the event is a dead letter again, and where no engine has done it in time.
    """
    check_text("--reason", reason)
    check_text("--who", who)
    if data is not None and changes:
        raise UsageError("Give --data or --set, not both: all of the data, or fields of it.")
    if data is None and not changes:
        raise UsageError("Say what the data is to be: all of it with --data, or fields of it with --set.")
    if add and not changes:
        raise UsageError("--add is for --set.")
    given = None if data is None else read_data(data)
    fields = check_fields(changes or ())

    async def question(connection: Connection, namespace: str) -> tuple[Asked, list[Became]]:
        from engine.reading import ask_edit, wait_until_taken  # noqa: PLC0415 - needs an extra

        asked = await ask_edit(
            connection, namespace, number, data=given, changes=fields, add=add, who=whoever(who), why=reason
        )
        return asked, await wait_until_taken(connection, namespace, asked, seconds=wait)

    asked, became = ask_store({"postgres": postgres, "namespace": namespace}, question)
    print_outcomes(asked, became, json=json)
    return FAILED if asked.is_refused or _is_left(became) else 0


def _ask(
    command: Literal["redrive", "drop"],
    ids: list[int],
    filters: dict[str, str | None],
    all_open: bool,
    reason: str,
    who: str,
    wait: float,
    postgres: str | None,
    namespace: str | None,
    json: bool,
) -> int:
    chosen = any(value is not None for value in filters.values())
    if not (ids or chosen or all_open):
        raise UsageError(f"Say which to {command}: their numbers, a filter such as --key, or --all.")
    if ids and (chosen or all_open):
        raise UsageError("Give numbers or filters, not both.")
    _check(filters)
    check_text("--reason", reason)
    check_text("--who", who)

    async def question(connection: Connection, namespace: str) -> tuple[Asked, list[Became]]:
        from engine.reading import ask_drop, ask_redrive, wait_until_taken  # noqa: PLC0415 - needs an extra

        numbers = ids or [
            one.id for one in await _find(connection, namespace, {"status": "open", **filters}, 0)
        ]
        ask = ask_redrive if command == "redrive" else ask_drop
        asked = await ask(connection, namespace, numbers, who=who, why=reason)
        return asked, await wait_until_taken(connection, namespace, asked, seconds=wait)

    asked, became = ask_store({"postgres": postgres, "namespace": namespace}, question)
    print_outcomes(asked, became, json=json)
    return FAILED if asked.is_refused or _is_left(became) else 0


def _is_left(became: list[Became]) -> bool:
    """Whether something is to be done yet: by an engine, or by a person."""
    return any(one.failed or not one.taken for one in became)


def print_outcomes(asked: Asked, became: list[Became], *, json: bool) -> None:
    """What became of each, or of many how many came to what."""
    if json:
        print_json({**asked.as_json(), "became": became})
        return
    if len(became) > EACH_MAX:
        for sentence, number in Counter(one.sentence for one in became).most_common():
            say(f"{number:,} of them: {sentence}")
    else:
        for one in became:
            say(f"{one.id}: {one.sentence}")
    for number, why_not in asked.skipped:
        say(f"{number}: left alone, {why_not}")
    if not became and not asked.skipped:
        note("No open dead letters.")


def _check(filters: dict[str, str | None]) -> None:
    from engine.reading.dead_letters import REASONS, STATUSES  # noqa: PLC0415 - needs an extra to be installed

    check_one_of("status", filters.get("status"), STATUSES)
    check_one_of("reason", filters["reason"], REASONS)


async def _find(
    connection: Connection, namespace: str, filters: dict[str, str | None], limit: int
) -> list[DeadLetterView]:
    from engine.reading import list_dead_letters  # noqa: PLC0415 - needs an extra to be installed

    return await list_dead_letters(connection, namespace, **filters, limit=limit)


def print_letters(letters: list[DeadLetterView]) -> None:
    """A table."""
    print_rows(
        ("id", "status", "reason", "event", "run", "key", "error"),
        [
            (
                one.id,
                one.status,
                one.reason,
                one.type or "",
                f"{one.pipeline} {one.key or ''}".rstrip() if one.is_of_run else "",
                "" if one.is_of_run else one.key or "",
                " ".join(one.error.split()),
            )
            for one in letters
        ],
        right=("id",),
        optional=("event", "run", "key"),
        fold=("error",),
    )


def _tried(tried: dict[str, Any]) -> str:
    guard = f", but {tried['guard']} did not hold" if tried.get("guard") else ""
    return f"{tried.get('source') or 'any state'} → {tried.get('target') or 'stay'}{guard}"
