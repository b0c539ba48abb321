"""A connection to some partitions of a topic: their blocks, their clocks, and how far both have come."""

from __future__ import annotations

import collections
import logging
import time
from typing import NamedTuple

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.progress import commit_metadata
from transforms.blocks import Block
from transforms.errors import UNREADABLE_HEADERS
from transforms.io.kafka.position import Position
from transforms.watermarks import PartitionWatermarks

__all__ = ["Assignment", "Reader"]

_LOG = logging.getLogger(__name__)

_LINGER_S = 0.02  # how long a block waits for more messages
_IDLE_WAIT_S = 1.0  # how long an idle reader waits for the first one before it gives the bundle back
_IDLE_MS = 10_000


class Assignment(NamedTuple):
    """What a reader reads, and how.

    Attributes:
      index: of this reader among those of the topic.
      partitions: each with the offset to stop at, or None.
    """

    index: int
    servers: str
    topic: str
    partitions: dict[int, int | None]
    group: str
    out_of_orderness_ms: int
    block_messages: int


class Reader:
    """A consumer of some partitions, and how far it has come."""

    def __init__(self, source: Assignment, position: Position):
        self._source = source
        self._at = dict(position.partitions)
        # partition, its messages (perhaps none), the offset after them
        self._pending: collections.deque[tuple[int, list[Message], int]] = collections.deque()
        self._admin: AdminClient | None = None
        self._at_end: set[int] = set()
        self._newest_asked_ms = 0
        self._watermarks = PartitionWatermarks(
            {p: watermark_ms for p, (_, watermark_ms) in self._at.items()},
            source.out_of_orderness_ms,
            _IDLE_MS,
            _monotonic_ms(),
        )
        for partition, (offset, _) in list(self._at.items()):
            self._finish_if_done(partition, offset)
        self._consumer = Consumer(
            {
                "bootstrap.servers": source.servers,
                "group.id": source.group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "log_level": 2,  # a broker that is away would be reported several times a second
                # librdkafka's default of 1 s halves a Python consumer's rate (docs/performance.md).
                "fetch.queue.backoff.ms": 5,
                "fetch.wait.max.ms": 100,
                "queued.max.messages.kbytes": 32_768,
            }
        )
        self._consumer.assign([TopicPartition(source.topic, p, offset) for p, (offset, _) in self._at.items()])

    def commit(self) -> None:
        """Shows the group how far this one came."""
        at = [
            TopicPartition(self._source.topic, p, offset, commit_metadata(self._watermarks.of[p]))
            for p, (offset, _) in self._at.items()
            if offset
        ]
        if at:
            self._consumer.commit(offsets=at, asynchronous=True)

    def close(self) -> None:
        self._consumer.close()

    def position(self) -> Position:
        return Position({p: (offset, self._watermarks.of[p]) for p, (offset, _) in self._at.items()})

    def next_block(self) -> Block | None:
        """The next block; None when nothing came in a while, or all is read."""
        while self._pending or self._fetch():
            partition, messages, after = self._pending.popleft()
            stop = self._source.partitions[partition]
            if stop is not None and after > stop:
                messages = [m for m in messages if m.offset() < stop]
            block = self._make_block(partition, messages) if messages else None
            self._at[partition] = (after, self._watermarks.of[partition])
            self._finish_if_done(partition, after)
            if block is not None:
                return block
        return None

    def _fetch(self) -> bool:
        """Fills `pending` with one batch per partition; False when nothing came in time."""
        deadline = time.monotonic() + _IDLE_WAIT_S
        while self._at:
            batches: dict[int, list[Message]] = {}
            after: dict[int, int] = {}
            for message in self._consumer.consume(self._source.block_messages, _LINGER_S):
                error, partition = message.error(), message.partition()
                if error is None:
                    batches.setdefault(partition, []).append(message)
                    after[partition] = message.offset() + 1
                    self._at_end.discard(partition)
                elif error.code() == KafkaError._PARTITION_EOF:
                    after[partition] = message.offset()
                    self._at_end.add(partition)
                elif error.fatal() or not error.retriable():
                    raise KafkaException(error)
            self._pending.extend((p, batches.get(p, []), offset) for p, offset in after.items() if p in self._at)
            if self._pending:
                return True
            self._move_idle_on()
            if time.monotonic() >= deadline:
                return False
        return False

    def _finish_if_done(self, partition: int, offset: int) -> None:
        stop = self._source.partitions[partition]
        if stop is not None and offset >= stop and partition in self._at:
            del self._at[partition]
            self._watermarks.drop(partition)

    def _move_idle_on(self) -> None:
        now_ms = _monotonic_ms()
        idle = [p for p in self._watermarks.idle(now_ms) if p in self._at_end]
        if not idle or now_ms - self._newest_asked_ms < 1_000:
            return
        self._newest_asked_ms = now_ms
        newest_ms = self._topic_newest_ms()
        if newest_ms is not None:
            self._watermarks.follow(idle, newest_ms, time.time_ns() // 1_000_000, now_ms)

    def _topic_newest_ms(self) -> int | None:
        """The newest record timestamp in the whole topic; None when it is empty or cannot be had now."""
        source = self._source
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": source.servers})
        try:
            partitions = self._admin.list_topics(source.topic, timeout=5).topics[source.topic].partitions
            asked = {TopicPartition(source.topic, p): OffsetSpec.max_timestamp() for p in partitions}
            found = [f.result(timeout=5).timestamp for f in self._admin.list_offsets(asked, request_timeout=5).values()]
        except (KafkaException, TimeoutError) as e:
            _LOG.warning("cannot ask for the newest timestamp of %s: %s", source.topic, e)
            return None
        return max((t for t in found if t >= 0), default=None)

    def _make_block(self, partition: int, messages: list[Message]) -> Block:
        values = [m.value() for m in messages]
        headers = headers_of(messages)
        nulls = frozenset(i for i, v in enumerate(values) if v is None)
        if nulls:
            values = [v or b"" for v in values]
        sizes = np.fromiter(map(len, values), np.int64, len(values))
        times_ms = np.fromiter((m.timestamp()[1] for m in messages), np.int64, len(values))
        before = self._watermarks.read(partition, times_ms, time.time_ns() // 1_000_000, _monotonic_ms())
        return Block(
            topic=self._source.topic,
            partition=partition,
            data=b"".join(values),
            bounds=np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes))),
            offsets=np.fromiter((m.offset() for m in messages), np.int64, len(values)),
            times_ms=times_ms,
            watermarks_ms=before,
            keys=[m.key() for m in messages],
            headers=headers,
            nulls=nulls,
        )


def headers_of(messages: list[Message]) -> dict[int, list[tuple[str, bytes | None]]]:
    """Number → headers, of the messages that have any.

    When a name is not UTF-8, the client gives none of that message's, and a header of ours says so; the record may be
    good.
    """
    try:
        return {i: list(m.headers()) for i, m in enumerate(messages) if m.headers()}
    except (SystemError, UnicodeDecodeError):
        if len(messages) == 1:
            return {0: [(UNREADABLE_HEADERS, None)]}
        each = (headers_of([m]) for m in messages)
        return {i: found[0] for i, found in enumerate(each) if found}


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
