"""``send``: what an operator does to runs, as events in their logs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.arguments import check_text
from engine.cli.asking import ask_store, whoever
from engine.cli.failures import FAILED
from engine.cli.options import Json, Namespace, Postgres, Who
from engine.cli.output import print_json, say

if TYPE_CHECKING:
    from engine.reading import Done
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
    for command in (send,):
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
