"""``verify`` and ``replay``: whether the books are right, and whether a definition would do the same again."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.arguments import check_generation, check_one_of, check_run
from engine.cli.asking import Generation, Key, Pipeline, ask_store, find_address
from engine.cli.definitions import compile_all
from engine.cli.failures import FAILED
from engine.cli.looking import on_one_line
from engine.cli.options import Json, Modules, Namespace, Postgres, resolve
from engine.cli.output import console, counted, print_json, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.reading import ReplayReport, VerifyReport
    from engine.store.connecting import Connection

PANEL = "Runs and events"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel=PANEL)(verify)
    app.command(rich_help_panel=PANEL)(replay)


def verify(
    run: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PIPELINE] KEY", help="One run; without it, everything.", show_default=False),
    ] = None,
    generation: Generation = None,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Check the books: hash chains, gaps, folds, timers, positions, what waits to leave. Runs nobody's code.

    Ends with 1 where something is not as it must be.
    """
    if run:
        check_run(run)
    check_generation(generation, named=bool(run))

    async def question(connection: Connection, namespace: str) -> VerifyReport:
        from engine.reading import verify  # noqa: PLC0415 - needs an extra to be installed

        one = None
        if run:
            one = (*await find_address(connection, namespace, run), generation)
        with _progress("checked") as progress:
            return await verify(connection, namespace, run=one, progress=progress)

    found = ask_store({"postgres": postgres, "namespace": namespace}, question)
    if json:
        print_json(found)
        return 0 if found.is_clean else FAILED
    for finding in found.findings:
        say(f"{_run_name(finding.pipeline, finding.key, finding.generation)}{finding.sentence}")
    if found.more:
        say(f"And {found.more:,} more.")
    wrong = len(found.findings) + found.more
    verdict = "all as it must be" if found.is_clean else counted(wrong, "finding")
    if found.dropped:
        say(f"The rows of {counted(found.dropped, 'run')} were dropped with the log of old months.")
    say(f"{counted(found.runs, 'run')} with {counted(found.rows, 'row')}: {verdict}.")
    return 0 if found.is_clean else FAILED


def replay(
    modules: Modules,
    key: Key = None,
    pipeline: Pipeline = None,
    generation: Generation = None,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Run the recorded events through a definition again, and compare every row. Touches nothing.

    Ends with 1 where a row comes out otherwise, with where and how.
    """
    options = {"postgres": postgres, "namespace": namespace}
    check_generation(generation, named=key is not None)
    machines = compile_all(modules, resolve(options).namespace)
    check_one_of("pipeline in what is given,", pipeline, dict.fromkeys(one.name for one in machines))
    if pipeline is not None and key is None:
        machines = [one for one in machines if one.name == pipeline]

    async def question(connection: Connection, namespace: str) -> ReplayReport:
        from engine.reading import replay  # noqa: PLC0415 - needs an extra to be installed
        from statemachines.printing import printing_beside  # noqa: PLC0415 - loaded only when needed

        one = None
        if key is not None:
            words = [key] if pipeline is None else [pipeline, key]
            one = (*await find_address(connection, namespace, words), generation)
        with _progress("replayed") as progress, printing_beside():
            return await replay(connection, namespace, machines, run=one, progress=progress)

    found = ask_store(options, question)
    if json:
        print_json(found)
    else:
        _print_replay(found)
    return 0 if found.is_equal else FAILED


def _print_replay(found: ReplayReport) -> None:
    for sentence in found.notes:
        say(sentence)
    for one in found.mismatches:
        say(f"{_run_name(one.pipeline, one.key, one.generation)}row {one.sequence}: {one.sentence}")
        for difference in one.differences:
            say(f"  {difference.field}: recorded   {_short(difference.recorded)}")
            say(f"  {' ' * len(difference.field)}  recomputed {_short(difference.recomputed)}")
    if found.more:
        say(f"And {found.more:,} more runs.")
    say(
        f"{found.equal_runs:,} of {found.runs:,} runs and {found.equal_rows:,} of {found.rows:,} rows "
        "come out equal."
    )


def _run_name(pipeline: str | None, key: str | None, generation: int | None) -> str:
    if pipeline is None or key is None:
        return ""
    return f"{pipeline} {on_one_line(key)}{f' ({generation})' if generation else ''}: "


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json_module.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 300 else f"{text[:300]}..."  # noqa: PLR2004 - what fits a few lines


@contextmanager
def _progress(verb: str) -> Iterator[Callable[[int, int], None]]:
    """Tells on a terminal how far it is."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield lambda _runs, _rows: None
        return
    with screen.status(f"{verb} nothing yet") as status:
        yield lambda runs, rows: status.update(f"{verb} {runs:,} runs, {rows:,} rows")
