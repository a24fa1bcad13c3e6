"""``retry``, ``skip``, ``resolve``: what becomes of runs that are stuck on a step, as an operator decides."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.arguments import read_data
from engine.cli.asking import Pipeline, whoever
from engine.cli.operating import (
    PANEL,
    DryRun,
    Filters,
    Reason,
    Run,
    State,
    Wait,
    Where,
    Yes,
    ask_runs,
)
from engine.cli.options import Json, Namespace, Postgres, Who


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (retry, skip, resolve):
        app.command(rich_help_panel=PANEL)(command)


def retry(
    run: Run = None,
    *,
    reason: Reason,
    pipeline: Pipeline = None,
    state: State = None,
    where: Where = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    who: Who = None,
    wait: Wait = 10.0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Have the step that a run is stuck on begin anew, or the compensation.

    Its attempts count from the beginning, and its idempotency key is what it was. Of a dead letter `step failed`,
    redrive does the same. Ends with 1 where something else holds the run, or nothing. Instead of one run, filters
    choose all that are stuck.
    """
    options = {"postgres": postgres, "namespace": namespace}
    filters = Filters(pipeline, None, state, where or [], dry_run=dry_run, yes=yes)
    return ask_runs("retry", run or [], filters, reason, whoever(who), wait, options, json)


def skip(
    run: Run = None,
    *,
    reason: Reason,
    pipeline: Pipeline = None,
    state: State = None,
    where: Where = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    who: Who = None,
    wait: Wait = 10.0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Let a run go on without the step that it is stuck on, or the compensation.

    Without a step it stays in its state, which events and timers may end, and it is refused where none does; an attempt
    of which nobody knows what it did is still undone if the run is. What a compensation was to undo is not undone, and
    is owed no more. Ends with 1 where something else holds the run, or nothing. Instead of one run, filters choose all
    that are stuck.
    """
    options = {"postgres": postgres, "namespace": namespace}
    filters = Filters(pipeline, None, state, where or [], dry_run=dry_run, yes=yes)
    return ask_runs("skip", run or [], filters, reason, whoever(who), wait, options, json)


def resolve(
    run: Run = None,
    *,
    reason: Reason,
    result: Annotated[
        str,
        typer.Option("--result", metavar="JSON", help="What it would have returned; - reads standard input."),
    ] = "null",
    pipeline: Pipeline = None,
    state: State = None,
    where: Where = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    who: Who = None,
    wait: Wait = 10.0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Have the step that a run is stuck on count as done, or the compensation: somebody has done it by hand.

    The result must be one that it could have returned, and comes to the run as if it had. Ends with 1 where it is none,
    or something else holds the run, or nothing. Instead of one run, filters choose all that are stuck; each gets the
    same result.
    """
    options = {"postgres": postgres, "namespace": namespace}
    filters = Filters(pipeline, None, state, where or [], dry_run=dry_run, yes=yes)
    given = read_data(result)
    return ask_runs("resolve", run or [], filters, reason, whoever(who), wait, options, json, given)
