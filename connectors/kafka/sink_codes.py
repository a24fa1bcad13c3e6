"""Kafka's error codes as the sink reads them; aiokafka has no names for some, and takes them for unknown."""

from __future__ import annotations

from enum import IntEnum

from aiokafka import errors


class Code(IntEnum):
    """The codes that the sink tells apart."""

    NONE = 0
    UNKNOWN_TOPIC_OR_PARTITION = 3
    LEADER_NOT_AVAILABLE = 5
    NOT_LEADER_OR_FOLLOWER = 6
    REQUEST_TIMED_OUT = 7
    MESSAGE_TOO_LARGE = 10
    COORDINATOR_LOAD_IN_PROGRESS = 14
    COORDINATOR_NOT_AVAILABLE = 15
    NOT_COORDINATOR = 16
    INVALID_TOPIC = 17
    RECORD_LIST_TOO_LARGE = 18
    NOT_ENOUGH_REPLICAS = 19
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
    TOPIC_AUTHORIZATION_FAILED = 29
    CLUSTER_AUTHORIZATION_FAILED = 31
    INVALID_TIMESTAMP = 32
    TOPIC_ALREADY_EXISTS = 36
    INVALID_REPLICATION_FACTOR = 38
    NOT_CONTROLLER = 41
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43
    POLICY_VIOLATION = 44
    DUPLICATE_SEQUENCE_NUMBER = 46
    INVALID_PRODUCER_EPOCH = 47
    INVALID_TRANSACTION_TIMEOUT = 50
    CONCURRENT_TRANSACTIONS = 51
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
    OPERATION_NOT_ATTEMPTED = 55
    INVALID_RECORD = 87
    PRODUCER_FENCED = 90


WRITTEN = {Code.NONE, Code.DUPLICATE_SEQUENCE_NUMBER}
"""The batch is in the log."""
SEND_AGAIN = {
    Code.REQUEST_TIMED_OUT,
    Code.NOT_ENOUGH_REPLICAS,
    Code.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    Code.CONCURRENT_TRANSACTIONS,
}
"""The same bytes may be sent once more; their sequence number keeps them from being written twice."""
MOVED = {Code.UNKNOWN_TOPIC_OR_PARTITION, Code.LEADER_NOT_AVAILABLE, Code.NOT_LEADER_OR_FOLLOWER}
"""Nothing was written; another broker leads the partition, or this one does not know yet that it does."""
TOO_LARGE = {Code.MESSAGE_TOO_LARGE, Code.RECORD_LIST_TOO_LARGE}
NEVER = TOO_LARGE | {
    Code.INVALID_TIMESTAMP,
    Code.UNSUPPORTED_FOR_MESSAGE_FORMAT,
    Code.POLICY_VIOLATION,
    Code.INVALID_RECORD,
}
"""The records themselves are at fault."""
FENCED = {Code.INVALID_PRODUCER_EPOCH, Code.PRODUCER_FENCED}
COORDINATOR_MOVED = {Code.COORDINATOR_NOT_AVAILABLE, Code.NOT_COORDINATOR}
ASK_AGAIN = COORDINATOR_MOVED | {Code.COORDINATOR_LOAD_IN_PROGRESS, Code.CONCURRENT_TRANSACTIONS}
"""The coordinator did nothing of what was asked, and will later."""
NO_TOPIC = {
    Code.UNKNOWN_TOPIC_OR_PARTITION,
    Code.INVALID_TOPIC,
    Code.TOPIC_AUTHORIZATION_FAILED,
    Code.INVALID_REPLICATION_FACTOR,
}
"""There is no such topic for us: the name may be wrong. The last one is a topic that a broker would make as it is
first named, and cannot. A topic that we may not see is answered as forbidden whether it exists or not."""


def words(code: int) -> str:
    """An error code for a person: ``MESSAGE_TOO_LARGE (10)``, with what it means where that is known."""
    try:
        name = Code(code).name
    except ValueError:
        name = f"error {code}"
    known = errors.kafka_errors.get(code)
    description = " ".join(str(getattr(known, "description", "")).split())
    return f"{name} ({code})" + (f": {description}" if description else "")
