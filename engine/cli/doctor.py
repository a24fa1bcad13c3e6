"""``doctor``: whether an engine could run here, and would keep its promises."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.definitions import compile_all
from engine.cli.failures import FAILED, UNREACHABLE
from engine.cli.options import Group, Json, Kafka, Namespace, Postgres, resolve
from engine.cli.output import counted, print_json, print_rows, say

if TYPE_CHECKING:
    from engine.doctor import Check

COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Upkeep")(doctor)


def doctor(
    modules: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODULE[:NAME]", help="Pipelines, whose topics are looked at.", show_default=False
        ),
    ] = None,
    postgres: Postgres = None,
    kafka: Kafka = None,
    namespace: Namespace = None,
    group: Group = None,
    json: Json = False,
) -> int:
    """Look whether an engine could run here and would keep its promises; each finding with a cure.

    Changes nothing. Ends with 1 where something fails, with 3 where a service does not answer.
    """
    from engine.doctor import examine  # noqa: PLC0415 - needs an extra to be installed

    options = {"postgres": postgres, "kafka": kafka, "namespace": namespace, "group": group}
    settings = resolve(options)
    machines = compile_all(modules or [], settings.namespace)
    checks = asyncio.run(examine(settings, machines))
    failed = [one for one in checks if one.verdict.value == "fail"]
    if json:
        print_json({"healthy": not failed, "checks": checks})
    else:
        _print(checks)
        warned = sum(one.verdict.value == "warn" for one in checks)
        say(f"{counted(len(checks), 'check')}: {len(failed)} failed, {counted(warned, 'warning')}.")
    if any(one.unreachable for one in failed):
        return UNREACHABLE
    return FAILED if failed else 0


def _print(checks: list[Check]) -> None:
    from rich.text import Text  # noqa: PLC0415 - loaded only when needed

    print_rows(
        ("", "area", "what", "found"),
        [
            (
                Text(one.verdict.value, style=COLOURS[one.verdict.value]),
                one.area,
                one.name,
                f"{one.sentence}\n→ {one.cure}" if one.cure else one.sentence,
            )
            for one in checks
        ],
        fold=("found",),
    )
