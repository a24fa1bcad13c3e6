"""What is wrong with arguments is said before anybody is connected to."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import typer

from engine.errors import UsageError
from statemachines.suggest import did_you_mean

INT_MAX = 2**31 - 1
"""Of partitions, generations and sequence numbers."""
BIGINT_MAX = 2**63 - 1
"""Of offsets, of the numbers of dead letters, and of limits."""
TEXT_CHARACTERS_MAX = 1_000
RUN_WORDS_MAX = 2

Number = TypeVar("Number", int, int | None, list[int] | None)


def up_to(maximum: int) -> Callable[[Number], Number]:
    """Lets no number through that the store could not have; help has no use for such a limit."""

    def check(given: Number) -> Number:
        for number in given if isinstance(given, list) else [given]:
            if number is not None and number > maximum:
                raise typer.BadParameter(f"{number} is more than {maximum}.")
        return given

    return check


def check_run(words: Sequence[str]) -> None:
    """Refuse what names no run. Raises UsageError."""
    if not 1 <= len(words) <= RUN_WORDS_MAX:
        raise UsageError(f"Name one run, as KEY or PIPELINE KEY; these are {len(words)} words.")


def check_one_of(what: str, word: str | None, known: Iterable[str]) -> None:
    """Refuse a word that is none of these; None is not given. Raises UsageError."""
    words = list(known)
    if word is not None and word not in words:
        raise UsageError(f"There is no {what} {word!r}. {did_you_mean(word, words)}")


def check_conditions(given: Iterable[str]) -> list[tuple[str, str]]:
    """Names and values of what is given as ``NAME=VALUE``. Raises UsageError."""
    found = []
    for one in given:
        name, equals, value = one.partition("=")
        if not name or not equals:
            raise UsageError(f"--where takes NAME=VALUE, such as tenant=acme; {one!r} is none.")
        found.append((name, value))
    return found


def check_fields(given: Iterable[str]) -> dict[str, Any]:
    """Fields with their values, which are JSON or else text, of what is given as ``FIELD=VALUE``. Raises UsageError."""
    found: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not name or not equals:
            raise UsageError(f"--set takes FIELD=VALUE, such as amount=5; {one!r} is none.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def read_data(given: str) -> bytes:
    """Data as it is given, or from standard input where that is ``-``."""
    return sys.stdin.buffer.read() if given == "-" else given.encode("utf-8", "replace")


def check_text(option: str, text: str | None) -> None:
    """Refuse a text that cannot be kept, or would not stay in its line; None is not given. Raises UsageError."""
    if text is None:
        return
    # Neither ends of lines and what else moves a cursor, nor what is no Unicode.
    is_line = not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text)
    if not text.strip() or len(text) > TEXT_CHARACTERS_MAX or not is_line:
        raise UsageError(
            f"{option} takes a line of at most {TEXT_CHARACTERS_MAX} characters, and not an empty one: it is kept."
        )


def check_event(event_id: str | None, topic: str | None, partition: int | None, offset: int | None) -> None:
    """Refuse what names neither an event nor a record. Raises UsageError."""
    if offset is None and event_id is None:
        raise UsageError("Give an event's id, or a record's place: --topic T --partition P --offset O.")
    if offset is not None and (topic is None or partition is None):
        raise UsageError("An offset is one of a partition: give --topic and --partition with --offset.")


def check_generation(generation: int | None, *, named: bool) -> None:
    """Refuse a generation where no run is named that could have it. Raises UsageError."""
    if generation is not None and not named:
        raise UsageError("A generation is one of a run's: name the run whose it is.")
