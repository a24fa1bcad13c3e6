"""What bounds a step beside its own timeout: its silence, all of its attempts, their number, and what it depends on.

None of it is part of a definition's identity: it is asked when a step is done, and never again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

from pydantic_core import from_json, to_json

from statemachines.fields import field_of
from statemachines.search import fit

BURST_SECONDS = 0.25
"""What was not begun in so long may be made up for; longer than an engine takes to look again."""
Errors = type[BaseException] | tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True)
class Breaker:
    """Spares what steps depend on while it is out of order, in each engine.

        payments = Breaker("payments", failures=5, within=timedelta(seconds=30), open_for=timedelta(minutes=1))

    It opens where so many attempts in a row have failed, all of them within so long. While it is open no attempt of its
    steps begins: they wait, and lose none. Then one is tried: if it succeeds the breaker closes, if it fails it is open
    for as long again. Steps share it by its name, also those of several pipelines.
    """

    name: str
    failures: int = 5
    within: timedelta = timedelta(seconds=30)
    open_for: timedelta = timedelta(seconds=30)
    on: Errors | None = None
    """The exceptions that count; None: all but those after which a step is not tried again (``Retry.unless``).

    An attempt that takes too long fails with ``TimeoutError``. What raises another exception has been answered, and
    counts as a success does.
    """

    def counts(self, error: BaseException, unless: Errors) -> bool:
        """Whether an attempt that raised this speaks of what is out of order; ``unless`` is of the step."""
        return not isinstance(error, unless) if self.on is None else isinstance(error, self.on)


@dataclass(frozen=True, slots=True)
class Limit:
    """How many attempts of a step may go on at once, and begin in a second, in all engines together.

        Limit("tenant", at_once=2)      # two of each tenant
        Limit(rate=10)                  # ten in a second

    ``by`` is a field of the context, or a field within one (``customer.tenant``): each of its values has the limit for
    itself, and those without a value have it together. None: it is one for the whole step.
    """

    by: str | None = None
    at_once: int | None = None
    """How many go on at once."""
    rate: float | None = None
    """How many begin in a second, on an average; at once never more than those of a quarter of it, rounded up."""

    def key_of(self, context: bytes) -> str:
        """Which limit of the step counts for a run with this context."""
        value = None if self.by is None else field_of(self.by, from_json(context))
        if value is None:
            return ""
        return fit(value if isinstance(value, str) else to_json(value).decode())

    @property
    def interval(self) -> timedelta | None:
        """From the beginning of one attempt to that of the next, on an average; None: it does not matter."""
        return None if self.rate is None else timedelta(microseconds=math.ceil(1_000_000 / self.rate))

    @property
    def burst(self) -> int:
        """So many may begin at a time, where none has for long."""
        return 1 if self.rate is None else math.ceil(self.rate * BURST_SECONDS)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one step or compensation."""

    heartbeat: timedelta | None = None
    """How long an attempt may be silent; None: as long as it likes."""
    within: timedelta | None = None
    """How long all attempts may take together, from the beginning of the first; None: as long as they do."""
    breaker: Breaker | None = None
    limit: Limit | None = None
