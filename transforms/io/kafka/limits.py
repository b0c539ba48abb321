"""A topic's limits, as far as its broker reports them."""

from __future__ import annotations

import concurrent.futures

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from connections.kafka import Connection
from transforms.io.kafka.patience import patiently

__all__ = ["message_limit", "topic_settings"]

_ANSWER_S = 20.0
_NOT_ALLOWED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)


def topic_settings(servers: str, topic: str) -> dict[str, str] | None:
    """The topic's settings, those of the broker where it has none of its own; None when one may not ask for them.

    Raises: RuntimeError: no answer, or no such topic.
    """
    connection = Connection(servers)
    admin = AdminClient({**connection.settings, "log_level": 2})
    asked = ConfigResource(ResourceType.TOPIC, topic)
    try:
        found = patiently(
            lambda: admin.describe_configs([asked], request_timeout=_ANSWER_S)[asked].result(_ANSWER_S), not_yet=()
        )
    except KafkaException as e:
        if e.args[0].code() in _NOT_ALLOWED:
            return None
        raise RuntimeError(f"topic {topic} at {servers}: {connection.why(e, admin)}") from e
    except concurrent.futures.TimeoutError as e:
        raise RuntimeError(f"topic {topic} at {servers}: no answer for {_ANSWER_S:.0f} s") from e
    return {name: entry.value for name, entry in found.items()}


def message_limit(servers: str, topic: str) -> int | None:
    """How many bytes a record may have, with what is around it; None when one may not ask.

    Raises: as `topic_settings`.
    """
    settings = topic_settings(servers, topic) or {}
    return int(settings["max.message.bytes"]) if "max.message.bytes" in settings else None
