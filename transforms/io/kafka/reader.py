"""A connection to some partitions of a topic: their blocks, their clocks, and how far both have come."""

from __future__ import annotations

import collections
import logging
import time
from typing import NamedTuple

import numpy as np
from apache_beam.utils.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP, Timestamp
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.progress import commit_metadata
from transforms.blocks import NO_WATERMARK_MS, Block
from transforms.errors import UNREADABLE_HEADERS
from transforms.io.kafka.position import Position
from transforms.partition_clock import key_numbers
from transforms.watermarks import PartitionClocks

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
    max_ahead_ms: int
    block_messages: int


class Reader:
    """A consumer of some partitions, and how far it has come.

    Args:
      watermark: what Beam was told last.
    """

    def __init__(self, source: Assignment, position: Position, watermark: Timestamp):
        self._source = source
        self._at = dict(position.partitions)
        # partition, its messages (perhaps none), the offset after them
        self._pending: collections.deque[tuple[int, list[Message], int]] = collections.deque()
        # By partition; what cannot be judged before more is known of what follows it.
        self._held: dict[int, list[Message]] = {}
        self._admin: AdminClient | None = None
        self._at_end: set[int] = set()
        self._newest_asked_ms = 0
        self._clocks = PartitionClocks(
            {p: clock for p, (_, clock) in self._at.items()},
            source.out_of_orderness_ms,
            source.max_ahead_ms,
            _IDLE_MS,
            _monotonic_ms(),
            watermark.micros // 1000 if watermark > MIN_TIMESTAMP else NO_WATERMARK_MS,
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
            TopicPartition(self._source.topic, p, offset, self._reached(p))
            for p, (offset, _) in self._at.items()
            if offset
        ]
        if at:
            self._consumer.commit(offsets=at, asynchronous=True)

    def _reached(self, partition: int) -> str:
        watermark_ms = self._clocks.watermark_of(partition)
        return "" if watermark_ms == NO_WATERMARK_MS else commit_metadata(watermark_ms)

    def close(self) -> None:
        self._consumer.close()

    def position(self) -> Position:
        return Position(dict(self._at))

    def watermark(self) -> Timestamp:
        if not self._at:
            return MAX_TIMESTAMP
        watermark_ms = self._clocks.watermark_ms
        return MIN_TIMESTAMP if watermark_ms == NO_WATERMARK_MS else Timestamp(micros=watermark_ms * 1000)

    def next_block(self) -> Block | None:
        """The next block; None when nothing came in a while, or all is read."""
        while self._pending or self._fetch():
            partition, messages, after = self._pending.popleft()
            stop = self._source.partitions[partition]
            at_end = partition in self._at_end
            if stop is not None and after >= stop:
                messages, at_end = [m for m in messages if m.offset() < stop], True
            messages = self._held.pop(partition, []) + messages
            block = self._make_block(partition, messages, at_end) if messages else None
            if partition in self._held:
                after = self._held[partition][0].offset()
            self._at[partition] = (after, self._clocks.of[partition])
            self._finish_if_done(partition, after)
            self._settle()
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
            self._settle()
            if time.monotonic() >= deadline:
                return False
        return False

    def _finish_if_done(self, partition: int, offset: int) -> None:
        stop = self._source.partitions[partition]
        if stop is not None and offset >= stop and partition in self._at:
            del self._at[partition]
            self._clocks.drop(partition)

    def _settle(self) -> None:
        now_ms = _monotonic_ms()
        if self._clocks.settle(self._at_end, now_ms) and now_ms - self._newest_asked_ms >= 1_000:
            self._newest_asked_ms = now_ms
            newest_ms = self._topic_newest_ms()
            if newest_ms is not None:
                self._clocks.follow(newest_ms, _wall_ms(), now_ms)

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

    def _make_block(self, partition: int, messages: list[Message], at_end: bool) -> Block | None:
        """As many of the messages as can be judged; the others are held."""
        offsets, times_ms = (
            np.fromiter(column, np.int64, len(messages))
            for column in ((m.offset() for m in messages), (m.timestamp()[1] for m in messages))
        )
        keys = [m.key() for m in messages]
        judged = self._clocks.read(
            partition,
            times_ms,
            key_numbers(keys, offsets),
            at_end=at_end,
            wall_ms=_wall_ms(),
            now_ms=_monotonic_ms(),
        )
        if judged.taken < len(messages):
            self._held[partition] = messages[judged.taken :]
            messages = messages[: judged.taken]
        if not messages:
            return None
        values = [m.value() for m in messages]
        headers = headers_of(messages)
        nulls = frozenset(i for i, v in enumerate(values) if v is None)
        if nulls:
            values = [v or b"" for v in values]
        sizes = np.fromiter(map(len, values), np.int64, len(values))
        return Block(
            topic=self._source.topic,
            partition=partition,
            data=b"".join(values),
            bounds=np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes))),
            offsets=offsets[: len(messages)],
            times_ms=times_ms[: len(messages)],
            watermarks_ms=judged.watermarks_ms,
            keys=keys[: len(messages)],
            headers=headers,
            nulls=nulls,
            limits_ms=judged.limits_ms,
            passed_ms=self._clocks.watermark_ms,
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


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
