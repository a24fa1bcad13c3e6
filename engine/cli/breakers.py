"""``breakers``: which of what steps depend on is left alone just now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from engine.cli.asking import ask_store
from engine.cli.options import Json, Namespace, Postgres
from engine.cli.output import note, print_json, print_rows
from engine.cli.working import ERROR_CHARACTERS

if TYPE_CHECKING:
    from engine.reading import BreakerView
    from engine.store.connecting import Connection

PANEL = "Runs and events"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=PANEL)(breakers)


def breakers(postgres: Postgres = None, namespace: Namespace = None, json: Json = False) -> None:
    """List the breakers of the engines that are there, and how many steps wait for them.

    Each engine has its own. An open one lets no attempt begin, until a time; from then on it is half-open, and one
    attempt decides.
    """

    async def question(connection: Connection, namespace: str) -> list[BreakerView]:
        from engine.reading import list_breakers  # noqa: PLC0415 - needs an extra to be installed

        return await list_breakers(connection, namespace)

    found = ask_store({"postgres": postgres, "namespace": namespace}, question)
    if json:
        print_json(found)
        return
    if not found:
        note("No engine is there that has breakers: steps have one with breaker=Breaker(NAME).")
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
