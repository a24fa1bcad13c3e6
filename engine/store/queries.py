"""SQL lives in ``.sql`` files, in blocks that open with ``-- name: the_name``.

A line ``-- shared: the_name`` stands for the block of that name in ``shared.sql``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_MARK = "-- name: "
SHARED = re.compile(r"^ *-- shared: (\w+)$", re.MULTILINE)


def load(file: str) -> dict[str, str]:
    """The named blocks of ``sql/<file>.sql``."""
    found = _blocks(file)
    shared = _blocks("shared")
    return {name: SHARED.sub(lambda line: shared[line[1]], sql) for name, sql in found.items()}


def columns_of(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """Rows as the arrays that a statement unnests; of no rows there are none."""
    return [list(column) for column in zip(*rows, strict=True)]


def _blocks(file: str) -> dict[str, str]:
    found: dict[str, str] = {}
    text = (Path(__file__).parent / "sql" / f"{file}.sql").read_text("utf-8")
    for block in text.split(_MARK)[1:]:
        name, _, sql = block.partition("\n")
        assert name.strip() not in found, f"two blocks named {name.strip()} in {file}.sql"
        found[name.strip()] = sql.strip()
    return found
