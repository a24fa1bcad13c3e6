"""What is said where a topic has another id than the one that a position is of."""

from __future__ import annotations

from connectors.source import Partition


def other_topic(partition: Partition, position: int, was: str, now: str, command: str) -> str:
    """A sentence, with what there is to do by this command: a cluster may have lost the id of the same topic."""
    return (
        f"{partition.topic} has another id than when {partition} was read up to {position} ({was} then, {now} now): "
        f"it was deleted and made anew, or Kafka has lost its id. Decide where to go on, at {position} where the "
        "records before that are still the same, at 0 where they are others: "
        f"{command}, or all instead of {partition.number} for every partition"
    )
