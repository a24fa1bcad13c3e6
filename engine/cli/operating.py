"""``send``, ``pause``, ``resume``, ``cancel``: what an operator does to runs, as events in their logs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.arguments import check_run, check_text
from engine.cli.asking import RunWords, ask_store, find_address, whoever
from engine.cli.failures import FAILED
from engine.cli.options import Json, Namespace, Postgres, Who
from engine.cli.output import print_json, say

if TYPE_CHECKING:
    from engine.reading import Done
    from engine.reading.operating import What
    from engine.store.connecting import Connection

PANEL = "Decisions"

Reason = Annotated[
    str,
    typer.Option("--reason", metavar="TEXT", help="Why; it is kept in the run's log.", show_default=False),
]
Wait = Annotated[
    float, typer.Option("--wait", metavar="SECONDS", min=0, help="How long to wait for an engine to do it.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (send, pause, resume, cancel):
        app.command(rich_help_panel=PANEL)(command)


def send(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="The run's pipeline.")],
    key: Annotated[str, typer.Argument(metavar="KEY", help="The run's key; it need not have a run yet.")],
    event_type: Annotated[str, typer.Argument(metavar="TYPE", help="The event's type.")],
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]", help="The event's data, in JSON; - reads standard input.", show_default=False
        ),
    ] = None,
    *,
    reason: Reason,
    event_id: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="ID",
            help="The event's id: sent again under it, it is a duplicate. [default: one of its own]",
            show_default=False,
        ),
    ] = None,
    who: Who = None,
    wait: Wait = 10.0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Send an event to a run, or one that begins a run, as if it came from a topic; and tell what became of it.

    Its source is /pointsman/NAMESPACE/operators. What the run does not take meets the pipeline's policies, and what
    fails holds the run, like any event. Ends with 1 where it became a dead letter.
    """
    check_text("--reason", reason)
    check_text("--who", who)
    given = (
        sys.stdin.buffer.read() if data == "-" else None if data is None else data.encode("utf-8", "replace")
    )

    async def question(connection: Connection, namespace: str) -> Done:
        from engine.reading import ask_send, wait_until_done  # noqa: PLC0415 - needs an extra to be installed

        asked = await ask_send(
            connection,
            namespace,
            pipeline,
            key,
            event_type,
            given,
            who=whoever(who),
            why=reason,
            event_id=event_id,
        )
        (done,) = await wait_until_done(connection, namespace, [asked], seconds=wait)
        return done

    found = ask_store({"postgres": postgres, "namespace": namespace}, question)
    if json:
        print_json(found)
    else:
        say(f"{found.asked.event_id}: {found.sentence}")
    return FAILED if found.failed else 0


def pause(
    run: RunWords,
    *,
    reason: Reason,
    who: Who = None,
    wait: Wait = 10.0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Hold a run: what comes for it waits, in its order, and its timers do not fire, until it is resumed.

    Of one run at most 1,000 events wait; what comes beyond that is a dead letter. Ends with 1 where the run cannot be
    paused, as one that a dead letter holds.
    """
    return _ask("pause", run, reason, whoever(who), wait, postgres, namespace, json)


def resume(
    run: RunWords,
    *,
    reason: Reason,
    who: Who = None,
    wait: Wait = 10.0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Let a run go on that is paused: first with what waited, then with what has fallen due.

    Ends with 1 where something else holds the run, as a dead letter does.
    """
    return _ask("resume", run, reason, whoever(who), wait, postgres, namespace, json)


def cancel(
    run: RunWords,
    *,
    reason: Reason,
    who: Who = None,
    wait: Wait = 10.0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """End a run, whatever holds it: by the transition that its pipeline has for that, or where it is.

    What fell due for it does not come any more, and what waited for it meets the policy for events of ended runs. Ends
    with 1 where the run has ended already, other than by being cancelled, and where an action of the transition fails.
    """
    return _ask("cancel", run, reason, whoever(who), wait, postgres, namespace, json)


def _ask(
    what: What,
    words: list[str],
    reason: str,
    who: str,
    wait: float,
    postgres: str | None,
    namespace: str | None,
    json: bool,
) -> int:
    check_run(words)
    check_text("--reason", reason)
    check_text("--who", who)

    async def question(connection: Connection, namespace: str) -> list[Done]:
        from engine.reading import ask_of_run, wait_until_done  # noqa: PLC0415 - needs an extra to be installed

        address = await find_address(connection, namespace, words)
        asked = await ask_of_run(connection, namespace, what, *address, who=who, why=reason)
        return await wait_until_done(connection, namespace, [asked], seconds=wait)

    became = ask_store({"postgres": postgres, "namespace": namespace}, question)
    if json:
        print_json(
            {"command": what, "runs": len(became), "done": sum(one.done for one in became), "became": became}
        )
    else:
        for one in became:
            say(one.sentence)
    return FAILED if any(one.failed for one in became) else 0
