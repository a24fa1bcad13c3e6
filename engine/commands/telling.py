"""What the log says of dead letters: whose they are and why, never what was in them.

The text of an error is left out: what a handler raised may quote the event. It stands in the table.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from engine.commands.words import resume_command
from engine.raised import Seldom, Trace
from engine.store.contract import StoreError
from engine.store.values import DeadLetter, Pause
from statemachines.outcome import Reason

log = logging.getLogger("pointsman.engine")

TOLD_MAX = 10
"""Dead letters of one commit that get a line each; the others are counted by reason."""


def tell_dead_letters(letters: Sequence[DeadLetter], traced: Seldom) -> None:
    """Warn of each of the first dead letters of a commit, and of how many there are beside them.

    Where user code has raised, the calls that led there are told, if they were not a moment ago (``traced``).
    """
    for letter in islice(letters, TOLD_MAX):
        log.warning("%s", _sentence(letter), extra=_fields(letter) | _trace(letter, traced))
    rest = Counter(letter.reason for letter in islice(letters, TOLD_MAX, None))
    if rest:
        reasons = ", ".join(f"{number} {reason}" for reason, number in rest.most_common())
        log.warning("%s more dead letters in the same commit: %s", rest.total(), reasons)


def tell_pause(pipeline: str, pause: Pause | None) -> None:
    """Say that a pipeline is paused, or goes on."""
    if pause is None:
        log.warning("%s goes on: it is paused no more", pipeline)
        return
    log.warning(
        "%s is paused by %s (%s): what comes for it waits, until %s",
        pipeline,
        pause.who,
        pause.why,
        resume_command(pipeline),
    )


def _sentence(letter: DeadLetter) -> str:
    return "dead letter" if letter.sequence is None else "dead letter; its run is held"


def _fields(letter: DeadLetter) -> dict[str, object]:
    told = _told(letter)
    known = {
        "reason": letter.reason,
        "pipeline": None if letter.pipeline is None else told.get("pointsman-pipeline"),
        "run" if letter.pipeline is not None and letter.reason != Reason.NO_KEY else "key": letter.key,
        "event": letter.event_id,
        "topic": told.get("pointsman-topic"),
        "partition": told.get("pointsman-partition"),
        "offset": letter.offset,
    }
    return {name: value for name, value in known.items() if value is not None}


def _trace(letter: DeadLetter, traced: Seldom) -> dict[str, object]:
    traced.forget()
    if letter.raised is None or not traced.may((letter.pipeline, letter.raised)):
        return {}
    return {"error": letter.raised.name, "trace": Trace((letter.raised, letter.error))}


def _told(letter: DeadLetter) -> dict[str, str]:
    """What the dead letter's own topic is told; what we wrote stands behind what the sender may have written."""
    if letter.out is None:
        return {}
    headers = letter.out.headers
    return {name: text.decode("utf-8", "replace") for name, text in headers if text and name in _OURS}


_OURS = frozenset({"pointsman-pipeline", "pointsman-topic", "pointsman-partition"})


def kind_of(error: StoreError) -> str:
    """What a log may say of it: the sentence of Postgres may quote the data that it refuses."""
    return type(error.__cause__ or error).__name__
