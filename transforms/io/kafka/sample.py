"""A few messages of a topic, to see what it holds before anything starts."""

from __future__ import annotations

import time

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from connections.kafka import Connection

__all__ = ["newest"]

_WAIT_S = 5.0


def newest(servers: str, topic: str, count: int = 20) -> list[Message]:
    """Up to so many of the newest messages of all partitions together; fewer when the broker is slow to answer."""
    consumer = Consumer(
        {**Connection(servers).settings, "group.id": "streamforge-look-up", "log_level": 0, "enable.auto.commit": False}
    )
    found: list[Message] = []
    until = time.monotonic() + _WAIT_S
    try:
        partitions = sorted(consumer.list_topics(topic, timeout=_WAIT_S).topics[topic].partitions)
        each = max(1, count // max(1, len(partitions)))
        places, wanted = [], 0
        for partition in partitions[:count]:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_WAIT_S)
            if high > low:
                places.append(TopicPartition(topic, partition, max(low, high - each)))
                wanted += min(high - low, each)
        consumer.assign(places)
        while len(found) < wanted and time.monotonic() < until:
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                found.append(message)
    except KafkaException:
        pass  # whoever reads the topic says what is wrong with it
    finally:
        consumer.close()
    return found
