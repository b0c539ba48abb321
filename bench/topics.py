"""Topics that hold a benchmark's data set, filled once and used again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.codec import schema_id
from schemas.events import avro_schema
from transforms.io.registry import Registry

__all__ = ["Message", "end_offsets", "fill"]

PARTITIONS: Final = 4
_TOLD_EVERY: Final = 200_000

Message = tuple[bytes, bytes, int]
"""key, payload, timestamp in ms"""


def fill(
    kafka: str,
    registry: str,
    topic: str,
    record: str,
    records: int,
    messages: Callable[[int], Iterator[Message]],
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """Makes sure that a topic holds exactly these messages; returns its name. A topic that already does is kept.

    Args:
      record: name of the Avro schema.
      messages: schema id → the messages, of which there are `records`.
    """
    writer_id = Registry(registry).register(f"{topic}-value", avro_schema(record))
    if _holds(kafka, topic, records, writer_id):
        say(f"topic {topic} already holds the {records:,} records")
        return topic
    _recreate(kafka, topic)
    started = time.monotonic()
    producer = Producer(
        {
            "bootstrap.servers": kafka,
            "linger.ms": 50,
            "batch.size": 1_000_000,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "queue.buffering.max.messages": 200_000,
        }
    )
    failed: list[str] = []

    def delivered(error: KafkaError | None, _: object) -> None:
        if error is not None:
            failed.append(str(error))

    for sent, (key, payload, timestamp) in enumerate(messages(writer_id), 1):
        while True:
            try:
                producer.produce(topic, payload, key, timestamp=timestamp, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.05)
        if sent % 10_000 == 0:
            producer.poll(0)
            if failed:
                break
        if sent % _TOLD_EVERY == 0:
            say(f"{sent:,} of {records:,} records, {sent / (time.monotonic() - started):,.0f}/s")
    left = producer.flush(60)
    if failed or left:
        raise RuntimeError(
            f"topic {topic} could not be filled: {failed[0] if failed else f'{left} records undelivered'}"
        )
    say(f"topic {topic} filled with {records:,} records, {records / (time.monotonic() - started):,.0f}/s")
    return topic


def end_offsets(kafka: str, topic: str) -> list[tuple[int, int]]:
    """(begin, end) offsets of each partition; empty when the topic does not exist."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "bench-offsets"})
    try:
        found = consumer.list_topics(topic, timeout=30).topics[topic]
        if found.error is not None:
            return []
        return [consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=30) for p in sorted(found.partitions)]
    finally:
        consumer.close()


def _holds(kafka: str, topic: str, records: int, writer_id: int) -> bool:
    offsets = end_offsets(kafka, topic)
    if len(offsets) != PARTITIONS or sum(end - begin for begin, end in offsets) != records:
        return False
    # The registry may have been started afresh: then the topic's schema id means nothing, or something else.
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "bench-probe", "enable.auto.commit": False})
    try:
        partition = next(i for i, (begin, end) in enumerate(offsets) if end > begin)
        consumer.assign([TopicPartition(topic, partition, offsets[partition][0])])
        message = consumer.poll(30)
        return message is not None and message.error() is None and schema_id(message.value()) == writer_id
    finally:
        consumer.close()


def _recreate(kafka: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka})
    deadline = time.monotonic() + 60
    if end_offsets(kafka, topic):
        admin.delete_topics([topic])[topic].result(30)
    # The broker deletes in the background and refuses the name for a moment.
    # retention.ms: the event times are older than the default retention of seven days.
    new = NewTopic(topic, PARTITIONS, 1, config={"retention.ms": "-1", "message.timestamp.type": "CreateTime"})
    while True:
        try:
            admin.create_topics([new])[topic].result(30)
        except KafkaException as e:
            if e.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
