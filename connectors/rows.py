"""Rows of files: JSON lines and CSV, each with the line where it begins; what is wrong with one is said of it.

Files are UTF-8, with or without a byte order mark. Empty lines count as lines and are no rows.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Any, BinaryIO, Final, Literal, NamedTuple

import orjson

from connectors.content import read_json
from connectors.identity import FlawError, kind

LINE_BYTES_MAX: Final = 16_000_000
"""Of one line, and of one field of CSV in characters; no event of that size would be taken by a broker."""
DELIMITERS: Final = ",;\t|"
Form = Literal["jsonl", "csv"]
_BOM: Final = b"\xef\xbb\xbf"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_FORMS: Final[dict[str, Form]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_NAMES_SHOWN_MAX: Final = 20
_TOO_LONG: Final = f"the line is longer than {LINE_BYTES_MAX:,} bytes"


class FileError(Exception):
    """A file that cannot be read as rows at all; nothing of it was published."""


class Row(NamedTuple):
    """A row that could be read."""

    line: int
    """Where it begins, from 1."""
    data: bytes
    """The row as a JSON object; of JSON lines the line as it is."""
    fields: dict[str, Any]
    """The same as values; those of CSV are all strings."""
    form: Form


class BadRow(NamedTuple):
    """A row that could not."""

    line: int
    error: str


def read_rows(
    stream: BinaryIO,
    name: str,
    *,
    form: Form | None = None,
    delimiter: str | None = None,
    columns: Collection[str] = (),
) -> Iterator[Row | BadRow]:
    """The rows of a file, read as they are asked for.

    Args:
        stream: the file's bytes.
        name: its name, for sentences and for its form.
        form: None: by the end of the name, else JSON lines if the first line begins with ``{``, or there is none.
        delimiter: of CSV; None: the one of ``DELIMITERS`` that makes most columns of the first line.
        columns: those that CSV must have.

    Raises:
        FileError: it cannot be read as rows at all.
        OSError: it cannot be read.
    """
    lines = _Lines(stream)
    first = lines.first()
    if first.startswith(_UTF_16):
        raise FileError(f"{name} is in UTF-16, not UTF-8. Convert it: iconv -f UTF-16 -t UTF-8")
    if form is None:
        form = _FORMS.get(name[name.rfind(".") :].lower()) if "." in name else None
        # What has no beginning has no rows, and lacks no header, unless it is known to be CSV.
        is_jsonl = first.lstrip().startswith((b"{", b"[")) or (not first and delimiter is None)
        form = form or ("jsonl" if is_jsonl else "csv")
    if form == "csv":
        return _csv_rows(lines, first, name, delimiter, columns)
    if first.lstrip().startswith(b"["):
        raise FileError(f"{name} is one JSON array, not an object on each line. Convert it: jq -c '.[]'")
    return _json_rows(lines)


class _Lines:
    """The lines of a stream; one that is too long is skipped and marked."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._first: bytes | None = None
        self.number = 0
        """Of the line read last."""
        self.too_long = False
        """Whether a line was skipped since this was set to False."""

    def first(self) -> bytes:
        """The first line, which is read again by iterating."""
        self._first = self._read().removeprefix(_BOM)
        return self._first

    def __iter__(self) -> Iterator[bytes]:
        """All lines with their ends."""
        line = self._read() if self._first is None else self._first
        while line:
            self.number += 1
            yield line
            line = self._read()

    def _read(self) -> bytes:
        line = self._stream.readline(LINE_BYTES_MAX)
        if len(line) < LINE_BYTES_MAX or line.endswith(b"\n"):
            return line
        self.too_long = True
        while line and not line.endswith(b"\n"):
            line = self._stream.readline(LINE_BYTES_MAX)
        return b"\n"


def _json_rows(lines: _Lines) -> Iterator[Row | BadRow]:
    for line in lines:
        number = lines.number
        if lines.too_long:
            lines.too_long = False
            yield BadRow(number, _TOO_LONG)
            continue
        data = line.strip()
        if not data:
            continue
        try:
            fields = read_json(data, "the line")
        except FlawError as flaw:
            yield BadRow(number, str(flaw))
            continue
        if isinstance(fields, dict):
            yield Row(number, data, fields, "jsonl")
        else:
            yield BadRow(number, f"the line is {kind(fields)}, not a JSON object")


def _csv_rows(
    lines: _Lines, first: bytes, name: str, delimiter: str | None, needed: Collection[str]
) -> Iterator[Row | BadRow]:
    # The limit is one of the whole process, so it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), LINE_BYTES_MAX))
    # What is not UTF-8 becomes lone surrogates, so that it can be told of its row.
    texts = (line.decode("utf-8", "surrogateescape") for line in lines)
    reader = csv.reader(texts, delimiter=delimiter or _delimiter(first), strict=True)
    try:
        columns = _columns(name, next(reader, []), needed)
    except csv.Error as error:
        raise FileError(f"the header of {name} cannot be read as CSV: {error}") from error
    return _csv_body(lines, reader, columns)


def _csv_body(lines: _Lines, reader: Iterator[list[str]], columns: list[str]) -> Iterator[Row | BadRow]:
    while True:
        begin = lines.number + 1
        lines.too_long = False
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(begin, f"{_lines(begin, lines.number)} cannot be read as CSV: {error}")
            continue
        if lines.too_long:
            yield BadRow(begin, _TOO_LONG)
        elif len(cells) == len(columns):
            yield _row(begin, dict(zip(columns, cells, strict=True)))
        elif cells:
            yield BadRow(begin, f"the row has {len(cells)} fields, and the header has {len(columns)}")


def _row(line: int, fields: dict[str, Any]) -> Row | BadRow:
    try:
        return Row(line, orjson.dumps(fields), fields, "csv")
    except TypeError:
        return BadRow(line, "the row is not UTF-8")


def _lines(first: int, last: int) -> str:
    return "the row" if last <= first else f"the row that ends in line {last:,}"


def _delimiter(header: bytes) -> str:
    text = header.decode("utf-8", "replace")

    def columns(delimiter: str) -> int:
        return len(next(csv.reader([text], delimiter=delimiter), []))

    try:
        return max(DELIMITERS, key=columns)
    except csv.Error:
        # It is told when the header is read.
        return DELIMITERS[0]


def _columns(name: str, cells: list[str], needed: Collection[str]) -> list[str]:
    if not cells:
        raise FileError(f"{name} is empty: CSV begins with a line of column names.")
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        raise FileError(f"{name} is not UTF-8. Convert it: iconv -f ... -t UTF-8") from None
    # Tables that were written with their index have a column without a name.
    columns = [cell or f"column_{number}" for number, cell in enumerate(cells, 1)]
    doubled = sorted({column for column in columns if columns.count(column) > 1})
    if doubled:
        raise FileError(f"{name} has more than one column {doubled[0]!r}. Give each a name of its own.")
    for column in needed:
        if column not in columns:
            raise FileError(_no_column(name, column, columns))
    return columns


def _no_column(name: str, column: str, columns: list[str]) -> str:
    guess = get_close_matches(column, columns, n=1)
    mean = f" Did you mean {guess[0]!r}?" if guess else ""
    shown = ", ".join(repr(one) for one in columns[:_NAMES_SHOWN_MAX])
    more = ", ..." if len(columns) > _NAMES_SHOWN_MAX else ""
    return f"{name} has no column {column!r}.{mean} Its columns are {shown}{more}."
