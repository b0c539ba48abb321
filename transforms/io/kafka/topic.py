"""What a topic is: its partitions, as they are now."""

from __future__ import annotations

from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition

__all__ = ["KafkaTopic"]


class KafkaTopic(NamedTuple):
    """A topic as it is now.

    Attributes:
      servers: host:port[,host:port].
      ends: partition → the offset after its last record.
    """

    servers: str
    name: str
    ends: dict[int, int]

    @staticmethod
    def look_up(servers: str, name: str, timeout_s: float = 10) -> KafkaTopic:
        """Raises: KafkaException when the broker cannot be reached or has no such topic."""
        consumer = Consumer({"bootstrap.servers": servers, "group.id": "streamforge-look-up", "log_level": 0})
        try:
            topic = consumer.list_topics(name, timeout=timeout_s).topics[name]
            if topic.error is not None:
                raise KafkaException(topic.error)
            ends = {}
            for partition in sorted(topic.partitions):
                _, ends[partition] = consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=timeout_s)
            return KafkaTopic(servers, name, ends)
        finally:
            consumer.close()
