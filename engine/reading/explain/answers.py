"""The form of an explanation: for each event and pipeline one answer, with all that it went through.

Where events of one id were sent to several runs of a pipeline, each of these has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engine.reading.heard import Named
from engine.reading.values import shown_time
from statemachines.durations import told_time


@dataclass(frozen=True, slots=True)
class Tried:
    """A transition that was considered, and the condition that did not hold."""

    source: str | None
    """None: of the whole pipeline, in any state."""
    target: str | None
    """None: stays where it is."""
    guard: str | None

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {"source": self.source, "target": self.target, "guard": self.guard}


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that became of an event."""

    disposition: str
    """As in ``engine.dispositions``."""
    at: datetime
    sentence: str
    sequence: int | None = None
    """The log row of the run that tells it, where there is one."""
    reason: str | None = None
    dead_letter: int | None = None
    policy: str = ""
    """Which policy decided, in words."""
    until: datetime | None = None
    """Of a deferred event: when it waits no longer."""
    tried: tuple[Tried, ...] = ()
    generation: int | None = None
    """The run's, where a row tells it."""
    configuration: tuple[str, ...] = ()
    """The active states after that row."""

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "disposition": self.disposition,
            "at": shown_time(self.at),
            "sentence": self.sentence,
            "sequence": self.sequence,
            "reason": self.reason,
            "dead_letter": self.dead_letter,
            "policy": self.policy,
            "until": shown_time(self.until),
            "tried": [one.as_json() for one in self.tried],
        }


@dataclass(frozen=True, slots=True)
class Origin:
    """The row of a run that asked for an event."""

    what: str
    """timer, send, publish or step."""
    pipeline: str
    key: str
    generation: int
    sequence: int
    at: datetime
    due: str | None
    """When it was to come; None: at once."""
    to_pipeline: str | None
    """Of a run of another pipeline."""
    to_key: str | None
    """Of another run, or of the record."""
    to_topic: str | None
    step: Named | None = None
    """Of what became of an attempt: the step or compensation that was asked for."""
    undoes: Named | None = None
    """Of a compensation: what it undoes."""
    sentence: str = ""

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "sentence": self.sentence,
            "what": self.what,
            "pipeline": self.pipeline,
            "key": self.key,
            "generation": self.generation,
            "sequence": self.sequence,
            "at": shown_time(self.at),
            "due": self.due,
            "step": None if self.step is None else self.step.as_json(),
            "undoes": None if self.undoes is None else self.undoes.as_json(),
        }


@dataclass(frozen=True, slots=True)
class Sender:
    """The operator who has sent an event."""

    who: str
    why: str
    at: datetime

    @property
    def sentence(self) -> str:
        """The same in words."""
        why = self.why if self.why.endswith((".", "!", "?")) else f"{self.why}."
        return f"{self.who} sent it at {told_time(self.at)}: {why}"

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {"who": self.who, "reason": self.why, "at": shown_time(self.at)}


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one event of one record for one pipeline."""

    pipeline: str | None
    """None: the same for all pipelines that read the topic."""
    key: str | None
    generation: int | None
    event_id: str | None
    type: str | None
    source: str | None
    """None where it is not kept: of duplicates and ignored events."""
    topic: str | None
    partition: int | None
    offset: int | None
    group: str | None
    """The consumer group that read the record."""
    origin: Origin | None
    """Where it comes from, where no topic had it."""
    sender: Sender | None
    """Who has sent it, where that was an operator."""
    current: Change
    earlier: tuple[Change, ...]
    """What it was before, oldest first; and what was noted of it later without changing it."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """All that there is to say, in order."""
        begin = [one.sentence for one in (self.origin, self.sender) if one is not None]
        return (*begin, *(one.sentence for one in (*self.earlier, self.current)))

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "pipeline": self.pipeline,
            "key": self.key,
            "generation": self.generation,
            "event_id": self.event_id,
            "type": self.type,
            "source": self.source,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "group": self.group,
            "origin": None if self.origin is None else self.origin.as_json(),
            "sent_by": None if self.sender is None else self.sender.as_json(),
            **self.current.as_json(),
            "earlier": [one.as_json() for one in self.earlier],
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of what was asked for."""

    namespace: str
    event_id: str | None
    source: str | None
    topic: str | None
    partition: int | None
    offset: int | None
    known: bool
    """Whether anything can be said; else ``notes`` says why not."""
    notes: tuple[str, ...]
    """Sentences beside the answers."""
    answers: tuple[Answer, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """All that there is to say, in order."""
        said = [one for answer in self.answers for one in answer.sentences]
        return (*said, *self.notes)

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "namespace": self.namespace,
            "asked": {
                "event_id": self.event_id,
                "source": self.source,
                "topic": self.topic,
                "partition": self.partition,
                "offset": self.offset,
            },
            "known": self.known,
            "notes": list(self.notes),
            "answers": [answer.as_json() for answer in self.answers],
        }
