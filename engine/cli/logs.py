"""What a running engine says: lines on a terminal, JSON lines elsewhere; never the data of an event."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from engine.raised import Trace

FIELDS = (
    "reason",
    "namespace",
    "pipeline",
    "run",
    "key",
    "step",
    "attempt",
    "idempotency_key",
    "error",
    "event",
    "topic",
    "partition",
    "offset",
    "handler",
)
"""What a line may carry beside its message: names and places, by ``extra=``."""

_QUIET = {"aiokafka": logging.CRITICAL, "asyncio": logging.WARNING, "aiohttp.access": logging.WARNING}
"""aiokafka logs each attempt at a broker that is away; the engine says so itself, once a minute."""


def configure(format: str, level: str, *, with_messages: bool = False) -> None:
    """Log to standard error from now on; ``format`` is text, json, or auto.

    ``with_messages``: also what exceptions of user code say, which may quote the data of an event.
    """
    as_json = format == "json" or (format == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter((JsonLines if as_json else Lines)(with_messages=with_messages))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("pointsman", "connectors"):
        logging.getLogger(name).setLevel(level.upper())
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(least if level != "debug" else logging.INFO)


def is_json() -> bool:
    """Whether the log is written as JSON lines."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)


class _Formatter(logging.Formatter):
    """What both have in common."""

    def __init__(self, *, with_messages: bool = False) -> None:
        super().__init__()
        self._with_messages = with_messages

    def traceback_of(self, record: logging.LogRecord) -> str:
        """Of our own exception, or the calls that led to one of user code; empty where there is none."""
        if record.exc_info:
            return self.formatException(record.exc_info)
        trace = getattr(record, "trace", None)
        return trace.text(with_messages=self._with_messages) if isinstance(trace, Trace) else ""


class JsonLines(_Formatter):
    """One object a line: time, level, logger, message, and what is known of FIELDS."""

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: getattr(record, name) for name in FIELDS if hasattr(record, name)},
        }
        if traceback := self.traceback_of(record):
            line["traceback"] = traceback
        return json.dumps(line, default=str)


class Lines(_Formatter):
    """For a person: time, level unless it is ordinary, message, and what is known of FIELDS."""

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%SZ")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        known = "".join(
            f" {name}={_shown(getattr(record, name))}" for name in FIELDS if hasattr(record, name)
        )
        line = f"{at} {level}{record.getMessage()}{known}"
        return "\n".join(filter(None, (line, self.traceback_of(record))))


def _shown(value: object) -> str:
    """Keys and ids come from outside: quoted, with escapes, where a line could be taken for another one."""
    text = str(value)
    return text if text.isprintable() and text and " " not in text else json.dumps(text)
