"""What Kafka does not let this user do, as sentences that name the right and what it is for.

Who may do what on a Kafka is a list of rights (ACLs), each an operation on a topic, a consumer group, a transactional
id or the cluster. READ and WRITE bring DESCRIBE along.
"""

from __future__ import annotations

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)

FORBIDDEN = (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)


def may_not(bootstrap: str, what: str, operation: str, resource: str) -> str:
    """``what`` goes on after "does not let this user"; ``resource`` is of a kind and a name, such as "topic orders"."""
    return f"Kafka at {bootstrap} does not let this user {what}. Allow {operation} on the {resource}."


def may_not_see(bootstrap: str, topic: str, operation: str = "READ or WRITE") -> str:
    """A topic that one may do nothing with, or that is not there: Kafka tells neither from the other."""
    return (
        f"Kafka at {bootstrap} does not let this user see the topic {topic}, or there is none. "
        f"Allow {operation} on the topic {topic}."
    )


def may_not_join(bootstrap: str, group: str) -> str:
    """A consumer group."""
    return may_not(bootstrap, f"into the consumer group {group}", "READ", f"group {group}")


def may_not_transact(bootstrap: str, transactional_id: str) -> str:
    """What the relay publishes by."""
    what = f"use the transactional id {transactional_id}"
    return may_not(bootstrap, what, "WRITE", f"transactional id {transactional_id}")
