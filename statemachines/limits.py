"""Every limit of definitions and of what handlers leave behind, with its unit in its name."""

from __future__ import annotations

from typing import Final

PIPELINE_NAME_BYTES_MAX: Final = 255
STATE_NAME_BYTES_MAX: Final = 255
EVENT_TYPE_BYTES_MAX: Final = 255

TOPIC_NAME_CHARACTERS_MAX: Final = 249
"""Kafka's own limit."""

STATES_MAX: Final = 10_000

STATE_DEPTH_MAX: Final = 100
"""How many states may be inside one another."""

VERSION_MAX: Final = 2**31 - 1
"""What a Postgres ``integer`` holds."""

EFFECTS_MAX: Final = 1_000
"""How many effects one action may ask for; with more the event is refused."""

MICROSTEPS_MAX: Final = 1_000
"""How many transitions one event may set off, one after the other; with more it is refused."""

TYPES_KEPT_MAX: Final = 10_000
"""Types of events for which what patterns say of them is kept; beyond it all are forgotten, and looked up again."""

RAISED_MAX: Final = 1_000
"""How many raised events may wait to be taken up; with more the event that led to them is refused."""

CONTEXT_BYTES_MAX: Final = 1_000_000
"""How large a context may be as JSON; it is written to the log with each change."""

KEPT_CONTEXTS_MAX: Final = 256
"""How many contexts of a pipeline are kept as they were read back, for the next who reads them; with more, all go."""

KEPT_PAUSE_CONTEXTS: Final = 10_000
"""How many contexts of a pipeline are not kept after hardly any of those that were kept was read again."""

KEPT_BYTES_MAX: Final = 10_000
"""How large the JSON of one that is kept may be."""

ERROR_CHARACTERS_MAX: Final = 2_000
"""How much of an exception's message is kept; the rest is cut off, with a mark."""

KEY_BYTES_MAX: Final = 1_024
"""How long a run's key may be, as UTF-8."""

DELAYED_MAX: Final = 1_000
"""How many timers, delayed events and delayed publications one run may have; what asks for more is refused."""

EXECUTIONS_MAX: Final = 1_000
"""How many steps one run may have going on at once; what asks for more is refused."""

TOKEN_CHARACTERS_MAX: Final = 200
"""How long the token may be by which a step is completed that goes on outside."""

LAST_ERROR_CHARACTERS_MAX: Final = 500
"""How much a run remembers of how the last attempt at a step ended; all of it is in the log."""

PROGRESS_BYTES_MAX: Final = 10_000
"""How large the progress that a heartbeat carries may be as JSON; it is kept in Postgres until the step is over."""

BREAKER_NAME_CHARACTERS_MAX: Final = 100
"""How long the name of a breaker may be; it is a label of a metric."""

RATE_MIN: Final = 1 / 86_400
"""One in a day: fewer attempts than that in a second cannot be asked for."""

RATE_MAX: Final = 100_000
"""Nor can more."""

DEFERRED_MAX: Final = 1_000
"""How many deferred events wait for one run; more of them are dead letters."""

SEEN_MAX: Final = 1_000
"""How many business keys that count for a time only one run remembers; what comes with more is a dead letter."""

STREAMS_MAX: Final = 1_000
"""How many streams of ordered events a run may have; the events of one more are dead letters."""

STREAM_CHARACTERS_MAX: Final = 500
"""How long the name of a stream may be, which is made of the fields of its scope."""

MEMORY_BYTES_MAX: Final = 1_000_000
"""How large a run's memory may be as JSON: what falls due later, with its data, and how far streams have come."""

FOLLOWING_MAX: Final = 100
"""How many deferred events and events to itself a run takes after one event, before those of others have their turn."""

DELAY_DAYS_MAX: Final = 36_525
"""How far away a timer or a delayed event may be: a hundred years."""
