"""What a log row says beside its event: what it asked the world to do, and why it let an event wait."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engine.log import Kind, LogRow
from engine.reading.due import memory_of
from engine.reading.heard import step_owed
from engine.reading.values import effects_of, shown_time
from statemachines.events import Address
from statemachines.memory import time_of

WHATS = ("publish", "send", "timer", "step", "stop", "settle", "complete", "fail", "cancel")


def shown_effects(
    address: Address, kind: int, effects: bytes, memory: bytes = b""
) -> list[Mapping[str, Any]]:
    """The effects of a row with the documented fields, in order; ``memory`` is what the run remembers after it.

    What is published at once has an id by its number; what comes later, and what is sent, has its own in the log.
    """
    if kind == Kind.DEFERRED:
        return []
    return [_shown(address, index, one, memory) for index, one in enumerate(effects_of(effects))]


def _shown(address: Address, index: int, effect: Mapping[str, Any], memory: bytes) -> dict[str, Any]:
    what = next((one for one in WHATS if one in effect), "publish")
    own = None if what in ("complete", "fail", "cancel") else address.derive_text(index)
    undoes = (
        step_owed(address, effect["name"], memory_of(memory)) if what == "step" and "name" in effect else None
    )
    return {
        "id": effect.get("id", own),
        "what": what,
        "publish": effect.get("publish"),
        "type": effect.get("type"),
        "key": effect.get("key"),
        "data": effect.get("data"),
        "pipeline": effect.get("pipeline"),
        "due": _as_shown(effect.get("due")),
        "name": effect.get("cancel", effect.get("name")),
        "undoes": None if undoes is None else undoes.as_json(),
    }


def _as_shown(due: Any) -> str | None:
    try:
        return None if due is None else shown_time(datetime.fromisoformat(due))
    except (TypeError, ValueError):  # a log that was tampered with is what verify finds
        return str(due)


@dataclass(frozen=True, slots=True)
class Deferral:
    """Why an event waits for its run to take it, as recorded when it came."""

    sequence: int
    """The row that tells it."""
    event_id: str
    type: str
    reason: str
    why: str
    until: datetime
    then: str
    """What becomes of it then: ``dead_letter`` or ``ignore``."""
    policy: str
    """What decided, in words."""
    tried: list[Mapping[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "sequence": self.sequence,
            "event_id": self.event_id,
            "type": self.type,
            "reason": self.reason,
            "why": self.why,
            "until": shown_time(self.until),
            "then": self.then,
            "policy": self.policy,
            "tried": [{name: one.get(name) for name in ("source", "target", "guard")} for one in self.tried],
        }


def deferral_of(sequence: int, event_id: str, event_type: str, effects: bytes) -> Deferral | None:
    """What the row of a deferred event says; None where it cannot be read."""
    try:
        said = effects_of(effects)[0]
        return Deferral(
            sequence,
            event_id,
            event_type,
            str(said["deferred"]),
            str(said["why"]),
            time_of(said["until"]),
            str(said["then"]),
            str(said.get("policy", "")),
            list(said.get("tried", ())),
        )
    except (LookupError, TypeError, AttributeError, OverflowError):
        return None


def deferral_in(row: LogRow) -> Deferral | None:
    """The same of a whole row, of any kind."""
    if row.kind != Kind.DEFERRED:
        return None
    return deferral_of(row.sequence, row.event_id, row.type, row.effects)


LEAVES_DEFERRAL = frozenset({Kind.MOVED_DEFERRED, Kind.HELD_DEFERRED, Kind.LEFT_DEFERRED})


class Deferrals:
    """The deferred events of a run, as its rows come."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, int | None, int | None], LogRow] = {}

    def take(self, row: LogRow) -> None:
        """Go on by a row."""
        event = row.event_id, row.position, row.offset
        if row.kind == Kind.DEFERRED:
            self._rows[event] = row
        elif row.kind in LEAVES_DEFERRAL:
            self._rows.pop(event, None)

    def __iter__(self) -> Iterator[LogRow]:
        """The rows of those that wait now, the oldest first."""
        return iter(self._rows.values())
