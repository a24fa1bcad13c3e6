"""What is done to many runs at once: they are counted, somebody is asked, and what became of each is told."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import typer

from engine.cli.asking import ask_store
from engine.cli.failures import BAD_INPUT, FAILED
from engine.cli.output import counted, note, print_json, print_rows, say
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.reading import Chosen, Done
    from engine.store.connecting import Connection


@dataclass(frozen=True, slots=True)
class Asks:
    """How it is asked before it is done, and how it is answered."""

    what: str
    """The command."""
    dry_run: bool
    yes: bool
    json: bool
    further: str = ""
    """What is asked behind the number of runs."""

    def check(self) -> None:
        """See to it that there is somebody to ask. Raises UsageError."""
        if not (self.dry_run or self.yes or sys.stdin.isatty()):
            raise UsageError(
                f"There is no terminal to ask on whether to {self.what} runs. Say --yes, or --dry-run to look first."
            )


def do_to_many(
    asks: Asks,
    options: dict[str, str | None],
    choose: Callable[[Connection, str], Awaitable[list[Chosen]]],
    do: Callable[[list[Chosen], Connection, str], Awaitable[list[Done]]],
    look: Callable[[list[Chosen], Connection, str], Awaitable[list[Done]]] | None = None,
) -> int:
    """Do it to those that are chosen; returns what the command ends with.

    ``look`` tells, where it is not done, of those of which it is known that they would be left as they are.
    """
    what = asks.what
    chosen = ask_store(options, choose)
    if not asks.json:
        _print_chosen(chosen)
    if asks.dry_run or not chosen:
        left = ask_store(options, partial(look, chosen)) if look is not None and chosen else []
        if asks.json:
            print_many(what, len(chosen), left, dry_run=asks.dry_run)
        elif left:
            _tell_left(left, len(chosen))
        return 0
    question = f"{what.capitalize()} {counted(len(chosen), 'run')}{asks.further}?"
    if not (asks.yes or typer.confirm(question, err=True)):
        note("Nothing was done.")
        return FAILED
    became = ask_store(options, partial(do, chosen))
    if asks.json:
        print_many(what, len(chosen), became, dry_run=False)
    else:
        _tell_many(what, became)
    return ends_with(became)


def ends_with(became: list[Done]) -> int:
    """What a command ends with that was asked of one run or more."""
    if all(one.done for one in became):
        return 0
    return BAD_INPUT if all(one.is_invalid for one in became) else FAILED


def print_many(what: str, runs: int, became: list[Done], *, dry_run: bool) -> None:
    """What became of all of them, as JSON."""
    done = sum(one.done for one in became)
    print_json({"command": what, "dry_run": dry_run, "runs": runs, "done": done, "became": became})


def _print_chosen(chosen: list[Chosen]) -> None:
    """How many are where."""
    counts = Counter((one.pipeline, one.status, " ".join(one.states)) for one in chosen)
    rows = [(*where, number) for where, number in sorted(counts.items())]
    print_rows(("pipeline", "status", "state", "runs"), rows, right=("runs",))
    note(f"{counted(len(chosen), 'run')}." if chosen else "No runs.")


def _tell_left(left: list[Done], runs: int) -> None:
    """How many would be left, for each reason, with one of them."""
    counts = Counter(one.reason for one in left)
    keys = {one.reason: one.asked.key for one in reversed(left)}
    rows = [(number, keys[why], why) for why, number in counts.most_common()]
    print_rows(("runs", "one of them", "why it would stay as it is"), rows, right=("runs",))
    note(f"{len(left):,} of {counted(runs, 'run')} would stay as they are.")


def _tell_many(what: str, became: list[Done]) -> None:
    """Of how many it is done, and why not of others."""
    done = sum(one.done for one in became)
    say(f"{what}: done of {done:,} of {counted(len(became), 'run')}.")
    # It is the same for all of a pipeline.
    for sentence, waiting in Counter(one.sentence for one in became if not one.taken).items():
        say(f"{waiting:,} of them: {sentence}")
    for one in became:
        if one.failed:
            say(one.sentence)
