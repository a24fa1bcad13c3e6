"""The limits of the relay, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Every limit, with its unit in its name."""

    rows_max: int = 256
    """Rows of the outbox read at once."""
    bytes_max: int = 2_000_000
    """Bytes of rows read at once; a single row may have more."""
    records_max: int = 2_000
    """Records in one transaction of Kafka, in whole rows; a single row may have more. They keep the event loop
    busy for some 10 ms, and twice as many cost hardly less each."""
    poll_seconds: float = 1.0
    """How often to look for rows without having been told of any, and whether it is our turn."""
    clean_seconds: float = 2.0
    """How often confirmed rows are deleted."""
    silence_seconds: float = 30.0
    """A relay that asked Postgres nothing for so long has lost its turn. Longer than the sink may take for a
    transaction."""
    halt_seconds: float = 5.0
    """How often a relay that waits for a person's decision looks whether there is one."""
    reconnect_seconds_max: float = 2.0
    """The longest pause between two attempts; what is open in Kafka keeps its readers waiting meanwhile."""
    complain_seconds: float = 60.0
    """How often a service that is away is spoken of."""
    stop_seconds: float = 5.0
    """For finishing what is in flight after being asked to stop; then it is given up, and not published."""
    close_seconds: float = 2.0
    """For saying goodbye to Postgres."""
