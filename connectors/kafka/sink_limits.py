"""The limits of the Kafka sink, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SinkLimits:
    """Every limit, with its unit in its name."""

    batch_bytes_max: int = 900_000
    """Of one record batch; below the broker's default, 1,048,588. A topic's smaller limit is learnt."""
    request_bytes_max: int = 8_000_000
    """Of one request to a broker, and so of one record: larger ones are refused without being sent."""
    publish_seconds: float = 12.0
    """For one call of publish; then the sink counts as unavailable."""
    transaction_timeout_seconds: float = 15.0
    """Longer than ``publish_seconds``. For so long a killed sink may keep readers of committed records
    waiting, if no successor starts before that."""
    start_seconds: float = 20.0
    """For a start, in which the predecessor's transaction ends."""
    progress_seconds: float = 10.0
    """For reading the progress."""
    close_seconds: float = 2.0
    topic_wait_seconds: float = 10.0
    """A topic that does not exist for so long, without a break, refuses its records: before that it may be being
    made. One that exists and has partitions without a leader refuses nothing, and for so long is asked again
    before the sink counts as unavailable."""
    topic_forbidden_seconds: float = 300.0
    """A topic that may not be written to for so long, without a break, refuses its records. Until then the sink
    counts as unavailable, so that a right that is taken away and given back costs neither records nor their order.
    It does not wait for ever: a topic that was never meant, or a dead-letter topic without the right, would stop
    everything else."""
    topic_poll_seconds: float = 0.2
    metadata_age_seconds: float = 300.0
    """How long what is known of a topic's partitions is believed."""
    backoff_seconds_min: float = 0.002
    backoff_seconds_max: float = 0.05
    """Between two questions whether the transaction before has ended."""
