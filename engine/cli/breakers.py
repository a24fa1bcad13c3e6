"""``breakers``: which of what steps depend on is left alone just now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.arguments import check_one_of
from engine.cli.asking import ask_store
from engine.cli.looking import tell_limit
from engine.cli.options import Json, Limit, Namespace, Postgres
from engine.cli.output import print_json, print_rows
from engine.cli.working import ERROR_CHARACTERS

if TYPE_CHECKING:
    from engine.reading import BreakerView
    from engine.store.connecting import Connection

PANEL = "Runs and events"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=PANEL)(breakers)


def breakers(
    breaker: Annotated[
        str | None, typer.Option("--breaker", metavar="NAME", help="Only those of this name.")
    ] = None,
    state: Annotated[
        str | None, typer.Option("--state", metavar="closed|open|half-open", help="Only in this state.")
    ] = None,
    limit: Limit = 0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> None:
    """List the breakers of the engines that are there, and how many steps wait for them.

    Each engine has its own. An open one lets no attempt begin, until a time; from then on it is half-open, and one
    attempt decides.
    """
    from engine.reading.breakers import STATES  # noqa: PLC0415 - needs an extra to be installed

    check_one_of("state", state, STATES)

    async def question(connection: Connection, namespace: str) -> list[BreakerView]:
        from engine.reading import list_breakers  # noqa: PLC0415 - needs an extra to be installed

        return await list_breakers(connection, namespace, breaker=breaker, state=state, limit=limit)

    found = ask_store({"postgres": postgres, "namespace": namespace}, question)
    if json:
        print_json(found)
    else:
        print_rows(
            ("breaker", "engine", "state", "failures", "since", "until", "waiting", "steps", "error"),
            [
                (
                    one.name,
                    one.engine,
                    one.state,
                    f"{one.failures} of {one.failures_max}",
                    one.since,
                    one.until or "",
                    one.waiting,
                    " ".join(one.steps),
                    (one.error or "")[:ERROR_CHARACTERS],
                )
                for one in found
            ],
            right=("waiting",),
            optional=("until", "error"),
        )
    unknown = "No engine is there that has such: steps have one with breaker=Breaker(NAME)."
    tell_limit(len(found), limit, "breaker", unknown)
