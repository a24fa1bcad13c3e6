"""What decoding a record answers: an event, or a sentence that says why there is none."""

from __future__ import annotations

from typing import Any, NamedTuple

from statemachines.events import Envelope


class Decoded(NamedTuple):
    """An event as it was found in a record."""

    envelope: Envelope
    data: Any
    """The data as JSON values; None where the event has none."""
    key_error: str | None = None
    """Why ``envelope.key`` is None. It does not matter to an event class that names its own key field."""


class Unreadable(NamedTuple):
    """A record that is no event."""

    error: str
    """A sentence: what is wrong, and where in the record. Printable, and free of data but for what user code said."""
    event_id: str | None = None
    """This, the type and the key as far as they could be read and are fit to be stored."""
    type: str | None = None
    key: str | None = None
    ignored: bool = False
    """Whether the topic's settings say to ignore such a record."""
