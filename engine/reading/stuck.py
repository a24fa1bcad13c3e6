"""On what a run is stuck, and what an operator can do about it: as ``runs`` and ``show`` tell it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.commands.stuck import failure_in, would_stay
from engine.commands.words import shell_word
from engine.log import HOLDS
from statemachines.run import Run

WAYS = {
    "retry": ("", "it is mended"),
    "skip": ("", "it is not needed"),
    "resolve": (" --result JSON", "it was done by hand"),
}
"""What may become of it, and what such a command is to say."""


@dataclass(frozen=True, slots=True)
class StuckView:
    """The failure that holds a run."""

    step: str
    """The step, or the compensation."""
    undoes: str | None
    """Of a compensation: the step that it was to undo."""
    attempts: int
    error: str
    """How the last one failed, as in ``Class: message``."""
    commands: dict[str, str]
    """What decides of it, by what they do: each a command that can be given as it is, but for a result. No
    ``skip`` where the run would stay in its state."""

    @property
    def name(self) -> str:
        """As in ``refund, which undoes charge``."""
        return self.step if self.undoes is None else f"{self.step}, which undoes {self.undoes}"

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "step": self.step,
            "undoes": self.undoes,
            "attempts": self.attempts,
            "error": self.error,
            "commands": self.commands,
        }


def stuck_view(
    namespace: str,
    pipeline: str,
    run: Run,
    kind: int,
    event_type: str,
    payload: bytes | None,
    structure: bytes,
) -> StuckView | None:
    """By the row that holds a run, of an event from inside; None where that is no failure of a step.

    ``structure`` is that of the definition that the run follows.
    """
    failure = failure_in(run, event_type, payload) if kind in HOLDS else None
    if failure is None:
        return None
    said, is_compensation = failure.said, bool(failure.execution.of)
    ways = [what for what in WAYS if what != "skip" or not would_stay(structure, failure.execution)]
    return StuckView(
        step=failure.execution.step,
        undoes=failure.undoes if is_compensation else None,
        attempts=int(said.get("attempts", failure.execution.attempt)),
        error=f"{said.get('error')}: {said.get('message')}",
        commands={what: _command(namespace, pipeline, run.key, what, is_compensation) for what in ways},
    )


def _command(namespace: str, pipeline: str, key: str, what: str, is_compensation: bool) -> str:
    more, why = WAYS[what]
    if is_compensation:
        more = ""
    elsewhere = "" if namespace == "default" else f" --namespace {shell_word(namespace)}"
    # A key that begins with a dash would be taken for an option.
    dashes = " --" if key.startswith("-") else ""
    run = f"{shell_word(pipeline)} {shell_word(key)}"
    return f"pointsman {what}{more} --reason {shell_word(why)}{elsewhere}{dashes} {run}"
