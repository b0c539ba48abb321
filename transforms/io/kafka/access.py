"""What a cluster lets whoever asks do: found out before a job starts, so that it does not fail minutes later."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AclOperation, AdminClient

from connections.kafka import Connection
from transforms.io.kafka.patience import patiently

__all__ = ["may_commit", "missing"]

_ANSWER_S = 20.0


def missing(servers: str, topic: str, wanted: AclOperation) -> str | None:
    """Why an operation on a topic will be refused; None when it will not, or nobody says.

    Raises: RuntimeError: no answer.
    """
    connection = Connection(servers)
    admin = AdminClient({**connection.settings, "log_level": 0})

    def ask() -> Any:
        asked = TopicCollection([topic])
        described = admin.describe_topics(asked, include_authorized_operations=True, request_timeout=_ANSWER_S)
        return described[topic].result(_ANSWER_S)

    try:
        allowed = patiently(ask, not_yet=()).authorized_operations
    except (KafkaException, TimeoutError) as e:
        raise RuntimeError(f"topic {topic} at {servers}: {connection.why(e, admin)}") from None
    if not allowed or wanted in allowed or AclOperation.ALL in allowed:
        return None
    given = ", ".join(sorted(each.name for each in allowed))
    return f"topic {topic} at {servers}: {wanted.name} is not allowed, only {given}"


def may_commit(servers: str, topic: str, group: str) -> str | None:
    """Why a group may not be read, without which nobody sees how far its job is; None when it may.

    By a consumer: an AdminClient that is asked for a group without offsets can crash.
    """
    consumer = Consumer({**Connection(servers).settings, "group.id": group, "log_level": 0})
    try:
        (found,) = consumer.committed([TopicPartition(topic, 0)], timeout=_ANSWER_S)
        error = found.error
    except KafkaException as e:
        error = e.args[0]
    finally:
        consumer.close()
    if error is not None and error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
        return f"group {group} at {servers}: READ is not allowed"
    return None
