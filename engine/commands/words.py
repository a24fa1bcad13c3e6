"""Commands that sentences name, so that they can be given as they stand there, whatever a run's key is."""

from __future__ import annotations

from shlex import quote
from typing import NamedTuple

from statemachines.events import is_result
from statemachines.outcome import Reason


def shell_word(text: str) -> str:
    """As a shell takes it for this one word; what has no letter to show is written as bash, zsh and ksh read it."""
    if text.isprintable():
        return quote(text)
    return f"$'{''.join(map(_escaped, text))}'"


def _escaped(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    if letter.isprintable():
        return letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode(errors="surrogatepass"))


_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", "'": "\\'"}


def run_command(what: str, pipeline: object, key: object) -> str:
    """What an operator asks of one run, as in ``pointsman resume order o-1 --reason TEXT``."""
    names = [str(pipeline), str(key)]
    run = " ".join(map(shell_word, names))
    if any(name.startswith("-") for name in names):
        # It would be taken for an option.
        return f"pointsman {what} --reason TEXT -- {run}"
    return f"pointsman {what} {run} --reason TEXT"


def resume_command(pipeline: str) -> str:
    """What lets a pipeline go on that is paused."""
    return f"pointsman resume --pipeline {shell_word(pipeline)} --reason TEXT"


def until_taken(pipeline: str, *, is_paused: bool) -> str:
    """Until when an event waits in the inbox, as the end of a sentence."""
    if is_paused:
        return f"until {pipeline} goes on, which is paused: {resume_command(pipeline)}"
    return f"until an engine takes it that has {pipeline} loaded"


def not_taken(what: str, pipeline: str | None, *, is_paused: bool) -> str:
    """Why no engine has taken a command up, in sentences; one that is of no pipeline, any engine may take."""
    if pipeline is not None and is_paused:
        return (
            f"{pipeline} is paused, and the {what} waits in the inbox until that goes on: {resume_command(pipeline)}. "
            "Nothing need be done again."
        )
    having = "" if pipeline is None else f" that has {pipeline} loaded"
    return (
        f"No engine took the {what} up yet. It waits in the inbox until one runs{having}; nothing need be done "
        "again."
    )


def map_command(
    pipeline: str, version: int | None = None, to: int | None = None, key: str | None = None
) -> str:
    """What has runs of a version, or the one of a key, follow another one."""
    said = f"--from {'VERSION' if version is None else version} --to {'VERSION' if to is None else to}"
    one = "" if key is None else f" {shell_word(f'--key={key}')}"
    return f"pointsman definitions map {shell_word(pipeline)}{one} {said} --reason TEXT"


def position_command(topic: str, partition: int, *, group: str, cluster: str) -> str:
    """What has a partition go on from where a person says; others of its name may be in other groups and clusters."""
    named = {"group": group, "cluster": cluster}
    which = "".join(f" {shell_word(f'--{name}={value}')}" for name, value in named.items() if value)
    return f"pointsman positions set {shell_word(topic)} {partition} POSITION{which} --reason TEXT"


def goes_on_by(version: object) -> str:
    """Why a run of a version that an engine has loaded is not mapped, as a sentence without its end."""
    return (
        f"version {version}, which it follows, is loaded in an engine, and it goes on by that; from there only a run "
        "that is held or paused is mapped, with nothing renamed"
    )


_OF_HANDLERS = frozenset(
    {Reason.GUARD_FAILED, Reason.ACTION_FAILED, Reason.NEVER_SETTLES, Reason.NEVER_RETURNED}
)


def handler_cure(reason: object, pipeline: str, key: str | None) -> str:
    """What comes before a redrive where a handler has failed over what holds its run, as a sentence; else empty."""
    if reason not in _OF_HANDLERS:
        return ""
    return (
        "Redriven, it fails again as long as the run follows the same version. Load one that is mended, too, and have "
        f"the run follow that first: {map_command(pipeline, key=key)}."
    )


class LetterCure(NamedTuple):
    """What to do to an open dead letter."""

    whats: str
    """In words."""
    command: str
    """The first of it."""
    others: str
    """The rest of it."""


def letter_cure(letter: int, reason: object, event_type: str | None) -> LetterCure:
    """What to do to it: an event that is not valid may be given other data."""
    if reason == Reason.INVALID and not is_result(event_type or ""):
        edit = f"pointsman dead-letters edit {letter} --set FIELD=VALUE --reason TEXT"
        return LetterCure("Edit, redrive or drop", edit, "redrive, or drop")
    return LetterCure("Redrive or drop", f"pointsman dead-letters redrive {letter}", "drop")
