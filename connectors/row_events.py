"""Rows of a file as the records to be published."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import orjson

from connectors import identity
from connectors.cloudevents import NO_KEY
from connectors.content import written
from connectors.decode import Decoded, decode
from connectors.encode import STRUCTURED_HEADERS, encode_structured
from connectors.identity import FlawError, kind, shown, text_flaw
from connectors.lookup import as_text
from connectors.publishing import Outgoing
from connectors.rows import Form, Row
from connectors.source import RawRecord
from connectors.times import moment_of
from statemachines.fields import field_of
from statemachines.topic import Topic

ROWS_REMEMBERED_MAX: Final = 1_000_000
"""How many different rows are told apart by how often they came; later ones by their line."""
STANDARD_INPUT: Final = "-"
_OPEN_ALREADY: Final = re.compile(r"/dev/(stdin|fd/\d+)|/proc/(self|thread-self|\d+)/fd/\d+")
"""Names of what somebody else has opened, whatever it is: they are the same each time."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A field of each row, or one value for all; exactly one of the two is not None."""

    field: str | None = None
    value: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """``=value`` gives the value; all else names a field.

        Raises:
            ValueError: neither a field nor a value is given.
        """
        if text in {"", "="}:
            raise ValueError("give the name of a field, or =VALUE for one value in all rows")
        return cls(value=text[1:]) if text.startswith("=") else cls(field=text)

    def of(self, fields: dict[str, Any]) -> Any:
        """The value for a row with these fields; None where it has none."""
        return self.value if self.field is None else field_of(self.field, fields)


@dataclass(frozen=True, slots=True)
class FileOptions:
    """How the rows of a file become events."""

    type: Choice | None = None
    key: Choice | None = None
    id: Choice | None = None
    time: Choice | None = None
    source: str | None = None
    """CloudEvents ``source``; None: ``file:<name>``, or a new one each time for what has no name."""
    form: Form | None = None
    """None: by the name of the file, else by how it begins."""
    delimiter: str | None = None
    """Of CSV; None: the one that makes most columns of the first line."""
    raw: bool = False
    """Whether each row says what record it is, rather than which event; nothing else is chosen then."""

    def columns(self) -> list[str]:
        """The columns that CSV must have for these choices."""
        if self.raw:
            return []
        chosen = [self.type or TYPE_BY_DEFAULT, self.key, self.id, self.time]
        return [choice.field for choice in chosen if choice is not None and choice.field is not None]


TYPE_BY_DEFAULT: Final = Choice(field="type")


def has_name(path: str) -> bool:
    """Whether rows are known by the name that they are read under: not those of standard input, and of pipes."""
    if path == STANDARD_INPUT or _OPEN_ALREADY.fullmatch(os.path.abspath(path)):  # noqa: PTH100 - no link is followed
        return False
    file = Path(path)
    return file.is_file() or not file.exists()


class RowEvents:
    """Makes the records of one file; rows are to be given in their order."""

    def __init__(self, topic: str, name: str, options: FileOptions) -> None:
        self._topic = topic
        self._options = options
        self._source = options.source or (
            f"file:{quote(os.fsencode(Path(name).name))}" if has_name(name) else f"stdin:{uuid.uuid4()}"
        )
        flaw = text_flaw("source", self._source, identity.SOURCE_BYTES_MAX)
        if flaw is not None:
            raise ValueError(f"the source of the events cannot be used: {flaw}")
        self._seen: dict[bytes, int] = {}
        self.source_given: str | None = None
        """The source that events were given; None as long as all of them had their own."""
        self.has_cloudevents = False

    def outgoing(self, row: Row) -> Outgoing:
        """The record for a row.

        Raises:
            FlawError: the row is no event; the sentence says why.
        """
        if self._options.raw:
            return self._raw(row)
        if row.form == "jsonl" and "specversion" in row.fields:
            return self._as_it_is(row)
        return self._made(row)

    def _raw(self, row: Row) -> Outgoing:
        unknown = row.fields.keys() - {"value", "key", "headers"}
        if unknown:
            raise FlawError(
                f"a record has value, key and headers, and no {', '.join(map(shown, sorted(unknown)))}"
            )
        headers = row.fields.get("headers")
        headers = {} if headers is None else headers
        if not isinstance(headers, dict):
            raise FlawError(f"headers is {kind(headers)}, not an object")
        try:
            pairs = [(name, written(one)) for name, one in headers.items()]
            key, value = written(row.fields.get("key")), written(row.fields.get("value"))
        except TypeError:
            raise FlawError("the record is nested too deep to be written") from None
        if key is None and value is None:
            raise FlawError(
                "the record has neither a key nor a value, and Kafka's clients send no such record"
            )
        return Outgoing(self._topic, key, value, pairs, f"of line {row.line}")

    def _made(self, row: Row) -> Outgoing:
        options, fields = self._options, row.fields
        event_type = _required("type", options.type or TYPE_BY_DEFAULT, fields, identity.TYPE_BYTES_MAX)
        key = None
        if options.key is not None:
            key = _required("key", options.key, fields, identity.KEY_BYTES_MAX)
        time = None if options.time is None else _time(options.time, fields)
        if options.id is None:
            event_id = self._id_of_content(row, event_type, key, time)
        else:
            event_id = _required("id", options.id, fields, identity.ID_BYTES_MAX)
        self.source_given = self._source
        value = encode_structured(id=event_id, source=self._source, type=event_type, data=row.data, time=time)
        return self._record(key, value, event_id)

    def _as_it_is(self, row: Row) -> Outgoing:
        self.has_cloudevents = True
        options, event, value = self._options, dict(row.fields), row.data
        changes: dict[str, Any] = {}
        if options.type is not None:
            changes["type"] = _required("type", options.type, event, identity.TYPE_BYTES_MAX)
        if options.id is not None:
            changes["id"] = _required("id", options.id, event, identity.ID_BYTES_MAX)
        if options.time is not None:
            changes["time"] = _time(options.time, event)
        if options.source is not None:
            changes["source"] = options.source
        if changes:
            value = orjson.dumps(event | changes, option=orjson.OPT_UTC_Z)
        chosen = None
        if options.key is not None:
            chosen = _required("key", options.key, event, identity.KEY_BYTES_MAX)
        raw = None if chosen is None else chosen.encode()
        as_read = RawRecord(self._topic, 0, 0, 0, raw, value, STRUCTURED_HEADERS)
        found = decode(as_read, Topic(self._topic), "")
        if not isinstance(found, Decoded):
            raise FlawError(found.error)
        if found.envelope.key is None and found.key_error != NO_KEY:
            raise FlawError(str(found.key_error))
        return self._record(found.envelope.key, value, found.envelope.id)

    def _record(self, key: str | None, value: bytes, event_id: str) -> Outgoing:
        return Outgoing(
            self._topic, None if key is None else key.encode(), value, STRUCTURED_HEADERS, event_id
        )

    def _id_of_content(self, row: Row, event_type: str, key: str | None, time: datetime | None) -> str:
        about = orjson.dumps([event_type, key, time])
        content = hashlib.sha256(b"%d %b%b" % (len(about), about, row.data)).hexdigest()[:32]
        digest = bytes.fromhex(content)[:8]
        times = self._seen.get(digest, 0) + 1
        if times == 1 and len(self._seen) >= ROWS_REMEMBERED_MAX:
            return f"{content}-line-{row.line}"
        self._seen[digest] = times
        return content if times == 1 else f"{content}-{times}"


def _required(name: str, choice: Choice, fields: dict[str, Any], bytes_max: int) -> str:
    value = choice.of(fields)
    if value is None:
        raise FlawError(f"the row has no {shown(choice.field)}, which is to be the {name}")
    text = as_text(name, value)
    flaw = text_flaw(name, text, bytes_max)
    if flaw is not None:
        raise FlawError(flaw)
    return text


def _time(choice: Choice, fields: dict[str, Any]) -> datetime | None:
    value = choice.of(fields)
    if value is None or value == "":
        return None
    moment = moment_of(value)
    if moment is None:
        raise FlawError(
            f"the time is {shown(value)}, which is not of the kind 2024-05-01T12:00:00Z{_but(value)}"
        )
    return moment


def _but(value: Any) -> str:
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return ""
    return ": it has no zone, or lacks its seconds"
