"""``complete``: what says how a step ended that goes on outside, by its token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.arguments import check_text, read_data
from engine.cli.asking import ask_store, whoever
from engine.cli.failures import FAILED
from engine.cli.operating import PANEL, Wait
from engine.cli.options import Json, Namespace, Postgres, Who
from engine.cli.output import print_json, say
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.reading import Done
    from engine.store.connecting import Connection


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=PANEL)(complete)


def complete(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="The one that the step returned in Later.")],
    *,
    result: Annotated[
        str | None,
        typer.Option(
            "--result",
            metavar="JSON",
            help="What the step has made, as its annotation says; - reads standard input.",
            show_default=False,
        ),
    ] = None,
    error: Annotated[
        str | None,
        typer.Option("--error", metavar="TEXT", help="Why it has failed, instead.", show_default=False),
    ] = None,
    reason: Annotated[
        str,
        typer.Option("--reason", metavar="TEXT", help="Why this is said; it is kept in the run's log."),
    ] = "by its token",
    who: Who = None,
    wait: Wait = 10.0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Complete a step that goes on outside, with its result or with an error; and tell what became of that.

    A step is completed once: what comes after that, or once its state was left, is void and changes nothing. A result
    that is none of the step leaves it waiting. After an error it is tried again as its Retry says. Ends with 1 where it
    was not completed, and where no step has waited for the token within two seconds.
    """
    check_text("--reason", reason)
    check_text("--who", who)
    if result is not None and error is not None:
        raise UsageError("Give --result or --error, not both: the step ended in one way.")
    if result is None and error is None:
        raise UsageError("Say how the step ended: --result JSON, or --error TEXT.")
    given = None if result is None else read_data(result)

    async def question(connection: Connection, namespace: str) -> Done:
        from engine.reading import ask_complete, wait_until_done  # noqa: PLC0415 - needs an extra to be installed

        asked = await ask_complete(
            connection, namespace, token, result=given, error=error, who=whoever(who), why=reason
        )
        (done,) = await wait_until_done(connection, namespace, [asked], seconds=wait)
        return done

    found = ask_store({"postgres": postgres, "namespace": namespace}, question)
    if json:
        print_json(found)
    else:
        say(found.sentence)
    return 0 if found.done else FAILED
