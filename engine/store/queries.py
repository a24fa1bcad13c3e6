"""SQL lives in ``.sql`` files, in blocks that open with ``-- name: the_name``."""

from __future__ import annotations

from pathlib import Path

_MARK = "-- name: "


def load(file: str) -> dict[str, str]:
    """The named blocks of ``sql/<file>.sql``."""
    found: dict[str, str] = {}
    text = (Path(__file__).parent / "sql" / f"{file}.sql").read_text("utf-8")
    for block in text.split(_MARK)[1:]:
        name, _, sql = block.partition("\n")
        assert name.strip() not in found, f"two blocks named {name.strip()} in {file}.sql"
        found[name.strip()] = sql.strip()
    return found
