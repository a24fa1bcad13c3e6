"""Traces: the W3C ``traceparent`` that an event carries."""

from __future__ import annotations

import re

_matches = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII).fullmatch


def is_traceparent(value: object) -> bool:
    """Whether this is a traceparent of the version of today."""
    return isinstance(value, str) and _matches(value) is not None


def trace_of(header: bytes | None) -> str | None:
    """The traceparent in a header; one that is none is as good as none, as W3C has it."""
    if header is None:
        return None
    text = header.decode("ascii", "replace")
    return text if is_traceparent(text) else None
