"""The steps of a run as a table: what was asked for, how it ended, and what is undone of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from engine.cli.output import counted, note, print_rows, say, short_time

if TYPE_CHECKING:
    from engine.reading.stuck import StuckView
    from engine.reading.working import CompensationView, StepView

ERROR_CHARACTERS = 80
RESULT_CHARACTERS = 60
TOKEN_CHARACTERS = 60
STEPS_SHOWN_MAX = 50
_OUTCOMES = {
    "done": "it was done all the same",
    "failed": "it failed",
    "timed out": "it took too long",
    "lost": "its engine was lost",
    "cut short": "the engine was stopped",
    "not begun": "it was not begun",
    "unknown": "what it did is not known",
    "left": "nobody asks what it did",
}


def print_steps(steps: list[StepView]) -> None:
    """A table, if there are any; of very many the newest."""
    if not steps:
        return
    say("steps:")
    print_rows(
        ("step", "state", "row", "attempts", "what became of it", "last error", "result", "compensation"),
        [
            (
                one.of.name,
                one.state,
                one.asked.sequence,
                one.attempts,
                step_words(one),
                shortened(one.error or "", ERROR_CHARACTERS),
                result_words(one),
                "" if one.compensation is None else compensation_words(one.compensation),
            )
            for one in steps[-STEPS_SHOWN_MAX:]
        ],
        right=("row", "attempts"),
        fold=("what became of it", "last error", "compensation"),
        optional=("last error", "result", "compensation"),
    )
    if len(steps) > STEPS_SHOWN_MAX:
        note(f"The last {STEPS_SHOWN_MAX} of {len(steps):,} steps; --json has all of them.")


def print_stuck(found: StuckView) -> None:
    """On what a run is stuck, and the commands that decide of it, ready to be given."""
    say(f"stuck on {stuck_words(found)}, after {counted(found.attempts, 'attempt')}")
    say("  You decide what becomes of it, by one of these:")
    for command in found.commands.values():
        say(f"  {command}")


def stuck_words(found: StuckView) -> str:
    """As in ``charge: AwayError: no answer``."""
    return f"{found.name}: {shortened(found.error, ERROR_CHARACTERS)}"


def step_words(step: StepView) -> str:
    """What became of a step, as in ``timed out (row 5)``."""
    row = "" if step.ended is None else f" (row {step.ended.sequence})"
    by = "" if step.by is None else f" by {step.by}"
    match step.status:
        case "done":
            return f"resolved{by}{row}" if by else f"done{row}"
        case "skipped":
            return f"skipped{by}{row}: not done"
        case "failed":
            return f"{'timed out' if step.outcome == 'timed out' else _failed(step)}{row}"
        case "stopped":
            again = " again" if step.outcome == "not begun" and step.attempts else ""
            return f"stopped{row}: {_OUTCOMES.get(step.outcome or '', step.outcome)}{again}"
    if step.behind is not None:
        return f"ended, and waits behind the hold of the run (row {step.behind})"
    if step.status == "later":
        return f"attempt {step.attempts} {_outside(step)}"
    going = "attempt {} goes on" if step.status == "going" else "waits for attempt {}"
    number = step.attempts if step.status == "going" else step.attempts + 1
    if step.stopping:
        return "to be stopped: " + (going.format(number) if step.status == "going" else "to be heard of")
    again = "" if step.again is None else f", from {short_time(step.again)} on"
    return f"{going.format(number)}{again}{_why(step)}"


def _why(found: StepView | CompensationView) -> str:
    return "" if found.waits_for is None else f"; {found.waits_for}"


def _outside(found: StepView | CompensationView) -> str:
    until = "" if found.until is None else f", until {short_time(found.until)}"
    return f"goes on outside: token {shortened(found.token or '', TOKEN_CHARACTERS)!r}{until}"


def _failed(step: StepView) -> str:
    return "failed: lost with its engine" if step.outcome == "lost" else "failed"


def compensation_words(found: CompensationView) -> str:
    """How far a step is undone, as in ``refund: undone (row 6)``."""
    name = f"{found.name}: " if found.name else ""
    row = "" if found.ended is None else f" (row {found.ended.sequence})"
    error = f"; {shortened(found.error, ERROR_CHARACTERS)}" if found.error else ""
    by = "" if found.by is None else f" by {found.by}"
    match found.status:
        case "none":
            return f"{name}not owed"
        case "unknown":
            return f"{name}to be undone if the run is: what was done is not known"
        case "undone":
            return f"{name}resolved{by}{row}: undone" if by else f"{name}undone{row}"
        case "skipped":
            return f"{name}skipped{by}{row}: not undone{error}"
        case "settled":
            return f"{name}settled{row}"
        case "failed":
            return f"{name}given up{row}{error}"
        case "going":
            return f"{name}attempt {found.attempts} goes on{error}"
        case "later":
            return f"{name}attempt {found.attempts} {_outside(found)}{error}"
        case "waiting":
            again = "" if found.again is None else f", from {short_time(found.again)} on"
            return f"{name}waits for attempt {found.attempts + 1}{again}{_why(found)}{error}"
        case _:
            return f"{name}owed"


def result_words(step: StepView) -> str:
    """What a step returned, on one short line."""
    if step.outcome != "done":
        return ""
    return shortened(_json(step.result), RESULT_CHARACTERS)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def shortened(text: str, characters: int) -> str:
    """A text on one line of so many characters at most."""
    line = " ".join(text.split())
    return line if len(line) <= characters else f"{line[: characters - 1]}…"
