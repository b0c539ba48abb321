"""librdkafka's consumer: some partitions of a topic, each from a given offset. It repairs nothing on its own: whatever
happens to the log is reported to the reader, which decides."""

from __future__ import annotations

import re
from typing import NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from connections.kafka import Connection
from transforms.io.kafka.position import BEGINNING, UNKNOWN_EPOCH, At

__all__ = ["Fetched", "PartitionsConsumer"]

_LINGER_S = 0.02  # how long a block waits for more messages
# Deleted, perhaps to be made anew: `TopicWatch` finds out.
_NO_TOPIC = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_TOPIC_ID,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
)
# Kafka says where the log branched off from what was read; librdkafka says so in words alone.
_BRANCHED_OFF = re.compile(r"truncation detected .* broker end offset is (\d+)")


class Fetched(NamedTuple):
    """
    Attributes:
      messages: by partition.
      after: partition → the offset to go on from.
      at_end: partitions that hold nothing more that may be read.
      gone: partition → the end of what the log has in common with what was read, where Kafka knows; of partitions that
        do not hold what was to be read. They are not read any more until they are assigned anew.
    """

    messages: dict[int, list[Message]]
    after: dict[int, int]
    at_end: set[int]
    gone: dict[int, int | None]


class PartitionsConsumer:
    def __init__(self, connection: Connection, topic: str, group: str, most: int):
        """
        Args:
          most: messages of one fetch.
        """
        self._topic, self._most = topic, most
        self._assigned: set[int] = set()
        self._consumer = Consumer(
            {
                **connection.settings,
                "group.id": group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "log_level": 2,  # a broker that is away would be reported several times a second
                # librdkafka's default of 1 s halves a Python consumer's rate (docs/performance.md).
                "fetch.queue.backoff.ms": 5,
                "fetch.wait.max.ms": 100,
                "queued.max.messages.kbytes": 32_768,
            }
        )

    def assign(self, partitions: dict[int, At]) -> None:
        """Reads these too, or from another offset."""
        again = [TopicPartition(self._topic, p) for p in partitions.keys() & self._assigned]
        if again:
            self._consumer.incremental_unassign(again)
        self._consumer.incremental_assign([self._place(p, at) for p, at in partitions.items()])
        self._assigned |= partitions.keys()

    def unassign(self, partition: int) -> None:
        self._assigned.discard(partition)
        self._consumer.incremental_unassign([TopicPartition(self._topic, partition)])

    def _place(self, partition: int, at: At) -> TopicPartition:
        offset = OFFSET_BEGINNING if at.offset == BEGINNING else at.offset
        if at.epoch == UNKNOWN_EPOCH:
            return TopicPartition(self._topic, partition, offset)
        return TopicPartition(self._topic, partition, offset, leader_epoch=at.epoch)

    def fetch(self) -> Fetched:
        """What has come, perhaps nothing.

        Raises: KafkaException.
        """
        fetched = Fetched({}, {}, set(), {})
        for message in self._consumer.consume(self._most, _LINGER_S):
            error, partition = message.error(), message.partition()
            if partition not in self._assigned:  # on its way when that ended
                continue
            if error is None:
                fetched.messages.setdefault(partition, []).append(message)
                fetched.after[partition] = message.offset() + 1
                fetched.at_end.discard(partition)
            elif error.code() == KafkaError._PARTITION_EOF:
                fetched.after[partition] = message.offset()
                fetched.at_end.add(partition)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                found = _BRANCHED_OFF.search(error.str())
                fetched.gone[partition] = int(found[1]) if found else None
            elif error.code() not in _NO_TOPIC and (error.fatal() or not error.retriable()):
                raise KafkaException(error)
        return fetched

    def high_watermark(self, partition: int) -> int:
        """The end of a partition's log when something was fetched from it last; −1 before that. What lies between the
        offset that can be read and this belongs to transactions that are open."""
        _, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
        return int(high)

    def commit(self, reached: dict[int, tuple[int, str]]) -> None:
        """Shows the group how far each partition is: offset and metadata."""
        places = [TopicPartition(self._topic, p, offset, metadata) for p, (offset, metadata) in reached.items()]
        if places:
            self._consumer.commit(offsets=places, asynchronous=True)

    def close(self) -> None:
        self._consumer.close()
