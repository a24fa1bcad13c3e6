"""The sentences of an explanation. Pure: everything that a sentence says is in its arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime

import orjson

from engine.commands.words import handler_cure, letter_cure, map_command, resume_command, run_command
from engine.dispositions import Disposition
from engine.log import PIPELINE_PAUSED, Kind
from engine.reading.explain.answers import Tried
from engine.reading.explain.found import (
    FoundLetter,
    FoundNote,
    FoundRange,
    FoundRow,
    Holder,
    LogRowBrief,
    Seen,
)
from engine.reading.values import effects_of, states_of
from statemachines.durations import told_time
from statemachines.events import STEP_FAILED
from statemachines.outcome import STARTS, Reason
from statemachines.run import Status


def run_name(pipeline: str, key: str | None, generation: int | None) -> str:
    """As in ``the run 'o-1' of orders``."""
    which = f", generation {generation}" if generation else ""
    return f"the run {key!r} of {pipeline}{which}"


def states(configuration: str) -> str:
    """The active states."""
    return " ".join(states_of(configuration))


def moved(row: FoundRow, pipeline: str, release: LogRowBrief | None) -> str:
    """What a row says of an event that was taken."""
    run = run_name(pipeline, row.key, row.generation)
    if not row.before:
        said = f"it started {run}, in {states(row.configuration)} (row {row.sequence})."
    elif states(row.before) == states(row.configuration):
        where = states(row.configuration)
        became = f"is in {where} as before" if row.may_reenter else f"stayed in {where}"
        said = f"{run} took it and {became} (row {row.sequence})."
    else:
        said = (
            f"it moved {run} from {states(row.before)} to {states(row.configuration)} (row {row.sequence})."
        )
    if release is not None:
        said = f"after it had waited until {_released(release)}, {said}"
    if row.status == Status.COMPLETED:
        said += " The run is completed."
    return sentence(said + _asked_for(row.effects))


def drains(row: FoundRow, pipeline: str) -> str:
    """What the row of a command says that leaves events to the next one."""
    run = run_name(pipeline, row.key, row.generation)
    return f"More events wait in {run} than go into one commit; the rest is taken in the next (row {row.sequence})."


def released(row: FoundRow, pipeline: str) -> str:
    """What the row of a command says."""
    run = run_name(pipeline, row.key, row.generation)
    what = _released(LogRowBrief(row.kind, row.at, row.type, row.event_id, row.payload))
    return sentence(f"this is {what}; it lifted the hold of {run} (row {row.sequence}).")


def paused(row: FoundRow, pipeline: str) -> str:
    """What the row of a command says that holds its run."""
    run = run_name(pipeline, row.key, row.generation)
    what = _released(LogRowBrief(row.kind, row.at, row.type, row.event_id, row.payload))
    return sentence(f"this is {what}; it holds {run} (row {row.sequence}).")


def mapped(row: FoundRow, pipeline: str) -> str:
    """What the row of a command says that has its run follow another definition."""
    run, said = run_name(pipeline, row.key, row.generation), dict[str, object]()
    with contextlib.suppress(ValueError, TypeError, LookupError):
        said |= orjson.loads(row.payload or b"{}")["mapping"]
    what = _released(LogRowBrief(row.kind, row.at, row.type, row.event_id, row.payload))
    before = f" instead of version {said['from']}" if said.get("from") is not None else ""
    follows = f"{run} follows version {said.get('to')}{before} from there on (row {row.sequence})."
    return sentence(f"this is {what}: {follows}")


def cancelled(row: FoundRow, pipeline: str) -> str:
    """What a row says of the event that cancelled its run."""
    run = run_name(pipeline, row.key, row.generation)
    what = _released(LogRowBrief(row.kind, row.at, row.type, row.event_id, row.payload))
    if row.status == Status.CANCELLED:
        became = f"{run} ended where it was, in {states(row.configuration)} (row {row.sequence})."
        return sentence(f"this is {what}: {became}")
    return sentence(f"this is {what}. {moved(row, pipeline, None)}")


def waits(
    row: FoundRow, pipeline: str, version: int | None, hold: int | None, holder: Holder | None, *, still: bool
) -> str:
    """What a row says of an event that waits, or waited."""
    run = run_name(pipeline, row.key, row.generation)
    wait = "waits" if still else "waited"
    if hold is None:
        which = "the definition" if version is None else f"version {version} of {pipeline}"
        return (
            f"It {wait} (row {row.sequence}): {which}, which {run} follows, was not loaded in the engine "
            "that read it." + (f" {_map_instead(pipeline, version)}" if still else "")
        )
    if holder is None:
        return f"It {wait} (row {row.sequence}) behind row {hold}, which holds {run}."
    behind = f"event {holder.event_id!r}" if holder.event_id is not None else "an event without an id"
    said = (
        f"It {wait} (row {row.sequence}) behind {behind}, which failed ({holder.reason}) and is dead letter "
        f"{holder.id}: it holds {run} since row {hold}."
    )
    if still:
        if holder.reason == Reason.STEP_FAILED:
            return f"{said} {_begin_anew(pipeline, row.key)}"
        cure = letter_cure(holder.id, holder.reason, holder.type)
        return f"{said} {cure.whats} that one to let the run go on: {cure.command}."
    return said.replace("it holds", "it held").replace("since row", "from row")


def waits_for_rest(row: FoundRow, pipeline: str, *, still: bool) -> str:
    """What a row says of an event that waits, or waited, while those before it are taken."""
    run = run_name(pipeline, row.key, row.generation)
    wait, since = ("waits", "is") if still else ("waited", "was")
    return (
        f"It {wait} (row {row.sequence}): the hold of {run} {since} lifted, and those that waited before it are taken "
        "first."
    )


def waits_for_resume(row: FoundRow, pipeline: str, pause: LogRowBrief, *, still: bool) -> str:
    """What a row says of an event that waits, or waited, for its run to be resumed."""
    run = run_name(pipeline, row.key, row.generation)
    behind = f"behind {_released(pause)}, which {'holds' if still else 'held'} {run}"
    if not still:
        return f"It waited (row {row.sequence}) {behind}."
    if pause.type == PIPELINE_PAUSED:
        return f"It waits (row {row.sequence}) {behind}. To let it go on: {resume_command(pipeline)}."
    resume = run_command("resume", pipeline, row.key)
    return f"It waits (row {row.sequence}) {behind}. To let the run go on: {resume}."


def _map_instead(pipeline: str, version: int | None) -> str:
    return f"Load it, or have the run follow another one: {map_command(pipeline, version)}."


def left_waiting(row: FoundRow, pipeline: str) -> str:
    """What a row says of an event that waited and changed nothing, where nothing else tells why."""
    run = run_name(pipeline, row.key, row.generation)
    return f"It waited, and then changed nothing in {run} (row {row.sequence})."


def held_without_letter(row: FoundRow, pipeline: str) -> str:
    """What a row says of an event that holds its run, where its dead letter is gone."""
    run = run_name(pipeline, row.key, row.generation)
    return f"It failed and held {run} in {states(row.configuration)} (row {row.sequence}); its dead letter is gone."


def dead_letter(
    letter: FoundLetter,
    pipeline: str | None,
    readers: Sequence[str],
    tried: Sequence[Tried],
    *,
    waited: str = "",
    policy: str = "",
    to_sender: bool = False,
) -> str:
    """What a dead letter says of its event; ``waited`` is as in ``After it had been deferred``.

    ``to_sender``: whoever has sent it hears this, and has nothing to do to one that holds nothing.
    """
    begin = f"{waited}, it" if waited else "It"
    is_over = to_sender and letter.status == "open" and letter.sequence is None
    what = f"dead letter {letter.id}, {letter.reason}"
    if letter.reason == Reason.REFUSED_BY_BROKER:
        first = f"{begin} was to be published, and the broker refused it ({what}): {_ended(letter.error)}"
    elif letter.disposition == Disposition.LATE:
        first = f"{begin} came late ({what}): {_ended(letter.error)}"
    else:
        first = f"{begin} could not be applied ({what}): {_ended(letter.error)}"
    parts = [
        first,
        considered(tried),
        decided(policy),
        _of_whom(letter, pipeline, readers),
        _published(letter),
        "" if is_over else _end_of(letter, pipeline),
    ]
    return " ".join(part for part in parts if part)


def noted(
    note: FoundNote,
    pipeline: str,
    *,
    tried: Sequence[Tried],
    configuration: str | None,
    seen: Seen | None,
    waited: str = "",
    policy: str = "",
    why: str = "",
    known_by: str = "",
) -> str:
    """What a noted disposition says; ``known_by`` is the business key of a duplicate that has one."""
    run = run_name(pipeline, note.key, note.generation)
    begin = f"{waited}, it" if waited else "It"
    if note.disposition == Disposition.DUPLICATE:
        return " ".join(
            filter(None, (f"{begin} is a duplicate: {_seen(run, seen, known_by)}.", decided(policy)))
        )
    if note.disposition == Disposition.STALE:
        stale = f"{begin} is stale, and was not applied to {run}: {why}."
        return " ".join(filter(None, (stale, decided(policy))))
    if note.disposition == Disposition.VOID:
        because = f", for {why}" if why else ""
        return f"{begin} is void, and changed nothing: {run} did not wait for it any more{because}."
    state = f" in {states(configuration)}" if configuration else ""
    match note.reason:
        case Reason.UNDOING:
            return (
                f"{begin} was ignored ({note.reason}): all of {run} that it would undo was being undone already, and "
                "nothing cuts that short."
            )
        case Reason.NO_EVENTS:
            return (
                f"It was ignored for {pipeline} ({note.reason}): the record holds none. Its list of events is empty, "
                "or is not there, and the topic's settings say to ignore such records."
            )
        case Reason.NO_RUN:
            why = f"{pipeline} has no run with the key {note.key!r}, and this event starts none"
            if tried:
                why = f"{why}, as no condition of its starts held"
        case Reason.CLOSED:
            why = f"{run} had ended{state}"
        case Reason.UNEXPECTED if tried:
            why = f"no condition of the transitions of {run}{state} held"
        case Reason.UNEXPECTED:
            why = f"{run} had no transition for it{state}"
        case Reason.EXPIRED:
            why = f"{run} did not take it in time"
        case other:
            why = other
    said = f"{begin} was ignored ({note.reason}), as {pipeline} says of such events: {why}."
    return " ".join(part for part in (said, considered(tried), decided(policy)) if part)


def _seen(run: str, seen: Seen | None, known_by: str) -> str:
    if seen is None:
        same = f"with the business key {known_by}" if known_by else "of this source and id"
        return f"{run} has an event {same} already"
    since = f"row {seen.sequence} ({shown(seen.at)})"
    if seen.generation is not None:
        since = f"{since} of its generation {seen.generation}"
    if not seen.by_key:
        return f"{run} has an event of this source and id since {since}"
    return f"{run} has {seen.event_id!r}, an event with the same business key {known_by}, since {since}"


def decided(policy: str) -> str:
    """Which policy decided."""
    return f"The policy that decided: {policy}." if policy else ""


def ignored_range(found: FoundRange, topic: str, readers: Sequence[str]) -> str:
    """What is known of a record that is kept as one of a range."""
    which = f" ({', '.join(readers)})" if readers else ""
    unknown = f"no pipeline that reads {topic}{which} knew its type"
    why = "it has no value" if found.reason == Reason.NO_EVENTS else unknown
    return (
        f"It was ignored: {why}, and the topic's settings say "
        "to ignore such records. They are kept as ranges of offsets, without their ids: this one is of "
        f"{found.first} to {found.last}, {_count(found.records, 'record')}."
    )


def sentence(text: str) -> str:
    """With a capital."""
    return text[:1].upper() + text[1:]


def _ended(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def shown(at: datetime | None) -> str:
    """A time."""
    return "an unknown time" if at is None else told_time(at)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def _asked_for(effects: bytes) -> str:
    said = ""
    asked = effects_of(effects)
    for what in ("publish", "send"):
        found = [one for one in asked if what in one]
        if found:
            where = ", ".join(dict.fromkeys(str(one[what]) for one in found))
            told = f"published to {where}" if what == "publish" else f"sent: {where}"
            said += f" It asked for {_count(len(found), 'event')} to be {told}."
    for one in asked:
        if "step" in one:
            what = "compensation" if "name" in one else "step"
            said += f" It asked for the {what} {one['step']}."
        elif "stop" in one:
            said += f" It stopped the step {one['stop']}."
        elif "complete" in one:
            said += f" It said what the step {one['complete']} has made, by its token."
        elif "fail" in one:
            said += f" It said that the step {one['fail']} has failed, by its token."
        elif "settle" in one:
            said += f" It settled the step {one['settle']}, which is not undone any more."
    return said


def _released(release: LogRowBrief) -> str:
    command = "cancellation" if release.kind == Kind.CANCELLED else release.type.removeprefix("pointsman.")
    said = {"command": command, "who": "", "why": ""}
    with contextlib.suppress(ValueError, TypeError):
        said |= orjson.loads(release.payload or b"{}")
    why = f": {said['why']}" if said["why"] else ""
    what = "pause of its pipeline" if release.type == PIPELINE_PAUSED else said["command"]
    return f"a {what} by {said['who'] or 'somebody'} at {shown(release.at)} ({release.event_id}{why})"


def considered(tried: Sequence[Tried]) -> str:
    """Which transitions and starts were tried, and the condition of each that did not hold."""
    if not tried:
        return ""
    told = [f"{_way_of(one)} if {one.guard}, which did not hold" for one in tried]
    return f"Tried in this order: {'; '.join(told)}."


def _way_of(one: Tried) -> str:
    if one.source == STARTS:
        return f"to begin in {one.target}"
    where = f"from {one.source}" if one.source else "from any state"
    return f"{where} to {one.target}" if one.target else f"{where} without leaving it"


def _of_whom(letter: FoundLetter, pipeline: str | None, readers: Sequence[str]) -> str:
    if letter.reason == Reason.REFUSED_BY_BROKER:
        return "" if pipeline is None else f"It came of {run_name(pipeline, letter.key, letter.generation)}."
    if pipeline is None:
        who = ", ".join(readers)
        whom = "It concerns all pipelines that read the topic" + (f" ({who})." if who else ".")
    else:
        whom = ""
    if letter.sequence is not None:
        run = run_name(pipeline or "its pipeline", letter.key, letter.generation)
        if letter.held == letter.sequence:
            waiting = letter.waiting or 0
            behind = f"{_count(waiting, 'event')} {'waits' if waiting == 1 else 'wait'} behind it"
            hold = f"It holds {run} since row {letter.sequence}, and {behind}."
        else:
            until = "the run was cancelled" if letter.status == "open" else shown(letter.ended)
            hold = f"It held {run} from row {letter.sequence} until {until}."
    elif letter.key is None:
        hold = "No key could be read, so there is no order to keep, and it holds no run."
    else:
        hold = "It holds no run: later events go on without it."
    return f"{whom} {hold}".strip()


def _published(letter: FoundLetter) -> str:
    if letter.topic is None:
        return ""
    match letter.publishing:
        case "published":
            return f"It was published to {letter.topic}."
        case "refused":
            why = f"the broker refused it for {letter.topic} ({letter.publishing_error})"
            return sentence(f"{why}, so it is in the table alone.")
        case _:
            return f"It waits to be published to {letter.topic}."


def _begin_anew(pipeline: object, key: object) -> str:
    return f"To have the step begin anew: {run_command('retry', pipeline, key)} (or skip, or resolve)."


def _end_of(letter: FoundLetter, pipeline: str | None) -> str:
    if letter.status != "open":
        why = f": {_ended(letter.why)}" if letter.why else "."
        how = f"{letter.status.capitalize()}{', with other data,' if letter.edited else ''}"
        ended = f"{how} by {letter.who or 'somebody'} at {shown(letter.ended)}{why}"
        return f"{ended} {_published_again(letter)}".strip()
    holds = letter.held is not None and letter.held == letter.sequence
    if holds and letter.position is None and (letter.type or "").startswith(STEP_FAILED):
        return _begin_anew(pipeline, letter.key)
    cure = letter_cure(letter.id, letter.reason, letter.type)
    if holds:
        said = f"To let the run go on: {cure.command} (or {cure.others})."
        return f"{said} {handler_cure(letter.reason, pipeline or '', letter.key)}".rstrip()
    again = ", once the topic takes it" if letter.reason == Reason.REFUSED_BY_BROKER else ""
    return f"It is open: {cure.command}{again} (or {cure.others})."


def _published_again(letter: FoundLetter) -> str:
    if letter.reason != Reason.REFUSED_BY_BROKER or letter.status != "redriven":
        return ""
    match letter.publishing:
        case "published":
            return "It was published then."
        case "refused":
            return f"The broker refused it again: {_ended(letter.publishing_error)}"
        case _:
            return "It waits in the outbox to be published."
