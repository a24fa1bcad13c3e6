"""The sentences of what comes from inside of runs, and of events that a run does not take yet. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from engine.commands.words import resume_command, until_taken
from engine.reading.asked import Deferral
from engine.reading.due import DueView
from engine.reading.explain.answers import Origin, Sender, Tried
from engine.reading.explain.found import FoundRow, LogRowBrief
from engine.reading.explain.step_words import asked_for
from engine.reading.explain.words import considered, decided, moved, run_name, sentence, shown, states
from statemachines.events import Envelope

_FATES = {"dead_letter": "it becomes a dead letter", "ignore": "it is ignored"}


def origin(found: Origin) -> str:
    """Which row of which run asked for an event, as a sentence."""
    run = run_name(found.pipeline, found.key, found.generation)
    due = "" if found.due is None else f", due at {found.due}"
    match found.what:
        case "timer":
            said = f"a timer of {run}, set in row {found.sequence} ({shown(found.at)}){due}"
            return f"It is {said}."
        case "step":
            said = f"it is what became of {asked_for(found)}"
        case "publish":
            said = f"{run} asked in row {found.sequence} ({shown(found.at)}) to publish it to {found.to_topic}{due}"
        case _:
            to = "itself" if found.to_key is None else _other(found)
            said = f"{run} sent it to {to} in row {found.sequence} ({shown(found.at)}){due}"
    return sentence(f"{said}.")


def _other(found: Origin) -> str:
    return run_name(found.to_pipeline or found.pipeline, found.to_key, None)


def fired(row: FoundRow, pipeline: str, found: Origin | None) -> str:
    """What a row says of something that fell due, or that a run sent to itself."""
    if found is None or (found.to_key is None and found.to_topic is None):
        return moved(row, pipeline, None)
    where = found.to_topic if found.to_topic is not None else _other(found)
    how = "was published to" if found.to_topic is not None else "was sent to"
    run = run_name(pipeline, row.key, row.generation)
    return f"It fell due and {how} {where} (row {row.sequence} of {run}); it has another id there, which history tells."


def passed(row: FoundRow, pipeline: str) -> str:
    """What a row says of such an event that nothing took."""
    run = run_name(pipeline, row.key, row.generation)
    where = f" in {states(row.configuration)}" if row.configuration else ""
    return f"Nothing took it: {run} had no transition for it{where}, so it is noted and gone (row {row.sequence})."


def deferred(
    row: FoundRow,
    pipeline: str,
    found: Deferral | None,
    tried: Sequence[Tried],
    *,
    still: bool,
    for_pipeline: bool,
) -> str:
    """What a row says of an event that waits, or waited, for its run to take it, or first for its pipeline to go on."""
    run = run_name(pipeline, row.key, row.generation)
    if found is None:
        return f"It was deferred (row {row.sequence} of {run})."
    said = f"It was deferred (row {row.sequence} of {run}, {found.reason}): {found.why}."
    if tried:
        said += f" {considered(tried)}"
    if for_pipeline:
        said += f" To let it go on: {resume_command(pipeline)}."
    elif still:
        fate = _FATES.get(found.then, found.then)
        said += f" It waits until the run takes it; if that is not by {shown(found.until)}, {fate}."
    return f"{said} {decided(found.policy)}".rstrip()


def taken_later(row: FoundRow, pipeline: str, since: int | None, after: LogRowBrief | None) -> str:
    """What a row says of an event that was deferred and is taken now."""
    run = run_name(pipeline, row.key, row.generation)
    waited = "it had been deferred" if since is None else f"it had been deferred since row {since}"
    cause = ""
    if after is not None:
        cause = f" and {after.type} {after.event_id!r} (row {row.sequence - 1}) had made way for it"
    taken = moved(row, pipeline, None)
    taken = taken[:1].lower() + taken[1:] if not taken.startswith(run) else taken
    return f"After {waited}{cause}, {taken}"


def started_after(said: str, since: int) -> str:
    """The same of an event that began the run that it waited for."""
    return f"After it had been deferred since row {since}, {said[:1].lower()}{said[1:]}"


def left_for_next(row: FoundRow, pipeline: str) -> str:
    """What a row says of an event whose run has ended, and that is for the key's next one."""
    run = run_name(pipeline, row.key, row.generation)
    return f"It waits no longer for {run}, which has ended (row {row.sequence}), and goes on to the key's next run."


def left_deferral(row: FoundRow, pipeline: str) -> str:
    """What a row says of an event that was deferred and changed nothing, where nothing else tells why."""
    run = run_name(pipeline, row.key, row.generation)
    return f"It was deferred, and then changed nothing in {run} (row {row.sequence})."


def to_come(found: Origin, due: DueView, held: int) -> str:
    """Of what a run has asked for and that has not come."""
    when = "it waits for its turn" if due.at_once else f"it has not come yet: it is due at {shown(due.due)}"
    hold = (
        f" The run is held since row {held}, and nothing of it comes before that is lifted." if held else ""
    )
    return f"{origin(found)} {sentence(when)}.{hold}"


def called_off(found: Origin) -> str:
    """Of what a run had asked for, and that does not come any more."""
    return (
        f"{origin(found)} It never came and never will: it was called off, or what it belonged to was left."
    )


def in_inbox(
    pipeline: str, key: str, envelope: Envelope, found: Origin | None, at: datetime, *, is_paused: bool
) -> str:
    """Of an event that a run has sent to another one, which has not taken it."""
    who = f"It was sent by {envelope.source} for {envelope.subject!r}." if found is None else origin(found)
    return (
        f"{who} It waits in the inbox since {shown(at)} for {run_name(pipeline, key, None)}, "
        f"{until_taken(pipeline, is_paused=is_paused)}."
    )


def sent_and_waits(who: str, why: str, at: datetime, pipeline: str, key: str, *, is_paused: bool) -> str:
    """Of an event that an operator has sent, and no engine has taken up."""
    return (
        f"{Sender(who, why, at).sentence} It waits in the inbox for {run_name(pipeline, key, None)}, "
        f"{until_taken(pipeline, is_paused=is_paused)}."
    )
