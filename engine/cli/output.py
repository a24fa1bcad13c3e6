"""What commands print: one JSON document, or tables and sentences for people.

Standard output has the answer and nothing else; what is said about it goes to standard error. What draws tables is
loaded by who prints one: it takes as long as a good part of all else that a command loads.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH_MAX = 100
TABLE_WIDTH_MIN = 60
"""On a narrower terminal a table would show a few letters of each column."""
WIDTH_ELSEWHERE = 10_000
"""In a file or a pipe nothing is cut off: programs read it, too."""
FOLDED_WIDTH_ELSEWHERE = 80
"""There, columns that are broken into lines are this wide."""


@runtime_checkable
class HasJson(Protocol):
    """What knows how it looks as JSON."""

    def as_json(self) -> Any:
        """Objects, lists, texts and numbers."""
        ...


def console(*, stderr: bool = False) -> Console:
    """Where people read; colours on a terminal only, and no wider than is comfortable."""
    from rich.console import Console  # noqa: PLC0415 - loaded only when needed

    stream = sys.stderr if stderr else sys.stdout
    made = Console(file=stream, highlight=False, soft_wrap=False)
    width = min(made.width, WIDTH_MAX) if made.is_terminal else WIDTH_ELSEWHERE
    return Console(file=stream, highlight=False, width=width)


def print_json(value: Any) -> None:
    """One document on standard output.

    Not by orjson: a context may hold numbers of 300 digits and lone surrogates.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, default=_plain)
        data = text.encode()
    except UnicodeEncodeError:
        data = json.dumps(value, indent=2, default=_plain).encode()
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.flush()


def say(text: str = "") -> None:
    """A line of the answer, as it is: no markup, no wrapping."""
    print(_printable(text))


def note(text: str) -> None:
    """A sentence beside the answer."""
    print(_printable(text), file=sys.stderr)


def _make_table(columns: Iterable[str], rights: Collection[str], folds: Collection[str]) -> Table:
    """An empty table with these columns: some aligned right, some broken into lines, others cut."""
    from rich.table import Table  # noqa: PLC0415 - loaded only when needed

    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(
            name,
            justify="right" if name in rights else "left",
            overflow="fold" if name in folds else "ellipsis",
            no_wrap=name not in folds,
            max_width=None if name not in folds or console().is_terminal else FOLDED_WIDTH_ELSEWHERE,
        )
    return table


def print_rows(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    optional: Iterable[str] = (),
    right: Collection[str] = (),
    fold: Collection[str] = (),
) -> None:
    """A whole table, of which what was in an event is never taken for markup.

    Optional columns are left out where they have nothing to say. On a terminal too narrow for a table each row is told
    by itself.
    """
    from rich.text import Text  # noqa: PLC0415 - loaded only when needed

    found = list(rows)
    shown = [
        index
        for index, name in enumerate(columns)
        if name not in optional or any(row[index] for row in found)
    ]
    screen = console()
    if screen.is_terminal and screen.width < TABLE_WIDTH_MIN:
        for row in found:
            told = {columns[at]: _in_table(row[at], folds=columns[at] in fold) for at in shown}
            print_facts({name: text for name, text in told.items() if text})
            say()
        return
    table = _make_table([columns[index] for index in shown], right, fold)
    for row in found:
        cells = ((row[index], columns[index] in fold) for index in shown)
        table.add_row(
            *(one if isinstance(one, Text) else Text(_in_table(one, folds=folds)) for one, folds in cells)
        )
    if screen.is_terminal:
        screen.print(table)
        return
    # In a file, no blanks behind the last column.
    with screen.capture() as captured:
        screen.print(table)
    say("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_facts(facts: Mapping[str, object]) -> None:
    """Names and values, one below the other."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        say(f"{name:<{width}}  {_cell(value)}")


def counted(number: int, what: str) -> str:
    """As in ``1 row`` and ``2,000 rows``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def short_time(at: datetime | None) -> str:
    """A moment in UTC, to the second, as in ``2026-03-01 12:00:00Z``."""
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _in_table(value: object, *, folds: bool) -> str:
    """As it is in a cell: on one line, where its column is not broken into lines."""
    text = _cell(value)
    return text if folds else text.replace("\n", "\\n").replace("\t", "\\t")


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case datetime():
            return short_time(value)
        case list() | tuple():
            return _printable(", ".join(map(str, value)))
        case _:
            return _printable(str(value))


def _printable(text: str) -> str:
    """Without what would move the cursor, or cannot be written."""
    clean = "".join(
        letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1] for letter in text
    )
    encoding = sys.stdout.encoding or "utf-8"
    return clean.encode(encoding, "backslashreplace").decode(encoding)


def _plain(value: object) -> Any:
    match value:
        case HasJson():
            return value.as_json()
        case datetime():
            return value.isoformat()
        case Path():
            return str(value)
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case Enum():
            return value.value
        case set() | frozenset():
            return sorted(value, key=str)
        case _:
            raise TypeError(f"{type(value).__name__} has no form in JSON")
