"""Checks whether the topics accept what the connector may send."""

from __future__ import annotations

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource

from cdc.connect import settings
from cdc.database import TABLES
from cdc.errors import CdcError
from connections.kafka import Connection

__all__ = ["too_small"]

_TIMEOUT_S = 10


def too_small(servers: str) -> list[str]:
    """A line for each topic of changes that takes less than the connector may send, with the command that raises its
    `max.message.bytes`. Topics that are not there yet are made right.

    Raises: CdcError.
    """
    said = settings()
    least = int(said["producer.override.max.request.size"])
    connection = Connection(servers)
    admin = AdminClient({**connection.settings, "log_level": 0})
    try:
        there = admin.list_topics(timeout=_TIMEOUT_S).topics
        names = [name for table in TABLES if (name := f"{said['topic.prefix']}.public.{table}") in there]
        asked = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, name) for name in names])
        limits = {
            each.name: int(answer.result(_TIMEOUT_S)["max.message.bytes"].value) for each, answer in asked.items()
        }
    except KafkaException as error:
        raise CdcError(f"{servers}: {connection.why(error, admin)}") from None
    return [
        f"{name} takes {limit} bytes, and a change may have {least}: "
        f"kafka-configs --alter --topic {name} --add-config max.message.bytes={least}"
        for name, limit in sorted(limits.items())
        if limit < least
    ]
