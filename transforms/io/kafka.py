"""Kafka: a source of blocks and a sink of records. librdkafka inside, no Java, no cross-language step.

The source is a splittable DoFn. A few readers own the partitions between them; each emits blocks (up to a few thousand
messages of one partition), keeps a watermark per partition, and puts its offsets into the runner's checkpoint. Offsets
are committed to the group only so that lag can be seen; no restart reads them.

It is not built on Beam's `UnboundedSource` wrapper (ADR 2): that asks for finalization of every bundle, which keeps the
SDK from reusing what runs a bundle and with it the wrapper's cache of readers, so that on Flink every bundle opened a
consumer of its own and fetched again what the last one had fetched.
"""

from __future__ import annotations

import collections
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam import coders
from apache_beam.io.iobase import RestrictionProgress, RestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP, Duration, Timestamp
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.progress import commit_metadata
from transforms.blocks import NO_WATERMARK_MS, Block
from transforms.watermarks import PartitionWatermarks

__all__ = ["KafkaRecord", "KafkaTopic", "ReadBlocksFromKafka", "WriteToKafka"]

_LOG = logging.getLogger(__name__)

_LINGER_S = 0.02  # how long a block waits for more messages
_IDLE_WAIT_S = 1.0  # how long an idle reader waits for the first one before it gives the bundle back
# Length of a busy reader's bundle: what it reads leaves the worker at its end, and a checkpoint waits for it. (Beam's
# data_buffer_time_limit_ms would let it leave earlier, but flushes from a thread of its own, without a lock, and tears
# timers and elements apart.)
_READ_S = 0.3
_IDLE_MS = 10_000


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


class ReadBlocksFromKafka(beam.PTransform):
    """Blocks of a topic's messages, at the block's smallest record timestamp.

    Output: Block; watermark = smallest of the partitions'.

    Args:
      topic: partitions are divided among the readers once, at the first start of a job; a savepoint keeps them.
      group: consumer group that offsets are committed to, for lag displays.
      readers: how many read side by side. Each is a source of its own, as a runner would run the elements of one
        source on one thread.
      until_end: stop at the end offsets of `topic` instead of going on for ever.
    """

    def __init__(
        self,
        topic: KafkaTopic,
        group: str,
        readers: int,
        out_of_orderness_ms: int,
        until_end: bool,
        block_messages: int = 4_000,
    ):
        super().__init__()
        self._assignments = [
            _Assignment(
                uuid.uuid4().hex,
                topic.servers,
                topic.name,
                {p: end if until_end else None for p, end in topic.ends.items() if p % readers == i},
                group,
                out_of_orderness_ms,
                block_messages,
            )
            for i in range(min(readers, len(topic.ends)))
        ]

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[Block]:
        blocks = [
            begin.pipeline | f"Assign{i}" >> beam.Create([assignment]) | f"Read{i}" >> beam.ParDo(_ReadBlocksFn())
            for i, assignment in enumerate(self._assignments)
        ]
        merged = blocks | beam.Flatten()
        merged.element_type = Block
        return merged


class _Assignment(NamedTuple):
    """Some partitions of a topic.

    Attributes:
      id: of this reader, unique in the world.
      partitions: each with the offset to stop at, or None.
    """

    id: str
    servers: str
    topic: str
    partitions: dict[int, int | None]
    group: str
    out_of_orderness_ms: int
    block_messages: int


class _Position(NamedTuple):
    """How far a reader has come: next offset and watermark (ms) of each partition still being read."""

    partitions: dict[int, tuple[int, int]]

    def watermark(self) -> Timestamp:
        if not self.partitions:
            return MAX_TIMESTAMP
        watermark_ms = min(watermark_ms for _, watermark_ms in self.partitions.values())
        return MIN_TIMESTAMP if watermark_ms == NO_WATERMARK_MS else Timestamp(micros=watermark_ms * 1000)


class _PositionCoder(coders.Coder):
    """Explicit and versioned, as positions live in savepoints."""

    def encode(self, position: _Position) -> bytes:
        return json.dumps({"v": 1, "partitions": sorted((p, *at) for p, at in position.partitions.items())}).encode()

    def decode(self, encoded: bytes) -> _Position:
        fields = json.loads(encoded)
        if fields["v"] != 1:
            raise ValueError(f"Kafka position of version {fields['v']}: written by a newer release")
        return _Position({p: (offset, watermark_ms) for p, offset, watermark_ms in fields["partitions"]})

    def is_deterministic(self) -> bool:
        return True


class _PositionTracker(RestrictionTracker):
    """The restriction is the position to go on from. A claim moves it; a split hands all that is left to the residual,
    after which nothing more can be claimed. No position left: all partitions are read to where they were to be."""

    def __init__(self, position: _Position):
        self._position = position
        self._given_away = False

    def current_restriction(self) -> _Position:
        return self._position

    def try_claim(self, position: _Position) -> bool:
        if self._given_away:
            return False
        self._position = position
        return True

    def try_split(self, fraction_of_remainder: float) -> tuple[_Position, _Position] | None:
        if fraction_of_remainder != 0 or self._given_away or not self._position.partitions:
            return None
        residual, self._position, self._given_away = self._position, _Position({}), True
        return self._position, residual

    def check_done(self) -> bool:
        if self._position.partitions:
            raise ValueError("a reader returned without giving back what it has not read")
        return True

    def current_progress(self) -> RestrictionProgress:
        done = not self._position.partitions
        return RestrictionProgress(completed=float(done), remaining=float(not done))

    def is_bounded(self) -> bool:
        return False


class _Positions(beam.transforms.core.RestrictionProvider):
    def initial_restriction(self, assignment: _Assignment) -> _Position:
        return _Position(dict.fromkeys(assignment.partitions, (0, NO_WATERMARK_MS)))

    def create_tracker(self, restriction: _Position) -> _PositionTracker:
        return _PositionTracker(restriction)

    def restriction_size(self, assignment: _Assignment, restriction: _Position) -> int:  # noqa: ARG002
        return 1

    def restriction_coder(self) -> coders.Coder:
        return _PositionCoder()

    def truncate(self, assignment: _Assignment, restriction: _Position) -> None:
        """On drain: stop reading."""


class _ReadBlocksFn(beam.DoFn):
    @beam.DoFn.unbounded_per_element()
    def process(
        self,
        assignment: _Assignment,
        tracker: Any = beam.DoFn.RestrictionParam(_Positions()),
        estimator: Any = beam.DoFn.WatermarkEstimatorParam(ManualWatermarkEstimator.default_provider()),
    ) -> Iterator[Any]:
        read = _Partitions.take(assignment, tracker.current_restriction())
        until = time.monotonic() + _READ_S
        try:
            while True:
                block = read.next_block()
                position = read.position()
                if not tracker.try_claim(position):
                    read.close()  # it is ahead of what the residual will go on from
                    return
                if block is not None:
                    yield TimestampedValue(block, _block_time(block))
                watermark = position.watermark()
                if watermark > (estimator.current_watermark() or MIN_TIMESTAMP):
                    estimator.set_watermark(watermark)
                if not position.partitions:
                    read.close()
                    return
                if block is None or time.monotonic() >= until:
                    read.wait()
                    # Whole seconds: Flink cuts a shorter delay to none.
                    tracker.defer_remainder(Duration(seconds=1) if block is None else None)
                    return
        except BaseException:
            read.close()
            raise


def _block_time(block: Block) -> Timestamp:
    """Its smallest record timestamp; not beyond the clock, as no date can say what a broken producer may."""
    return Timestamp(micros=min(int(block.times_ms.min()), time.time_ns() // 1_000_000) * 1000)


class _Partitions:
    """A consumer of some partitions, and how far it has come."""

    def __init__(self, source: _Assignment, position: _Position):
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

    @staticmethod
    def take(source: _Assignment, position: _Position) -> _Partitions:
        """The connection that waits at this position, else a new one."""
        waiting = _WAITING.pop(source.id, None)
        if waiting is not None:
            if waiting.position() == position:
                return waiting
            waiting.close()  # the job went back to an earlier checkpoint
        return _Partitions(source, position)

    def wait(self) -> None:
        """Lets the next bundle go on from here, and shows the group how far this one came."""
        at = [
            TopicPartition(self._source.topic, p, offset, commit_metadata(self._watermarks.of[p]))
            for p, (offset, _) in self._at.items()
            if offset
        ]
        if at:
            self._consumer.commit(offsets=at, asynchronous=True)
        _WAITING[self._source.id] = self

    def close(self) -> None:
        self._consumer.close()

    def position(self) -> _Position:
        return _Position({p: (offset, self._watermarks.of[p]) for p, (offset, _) in self._at.items()})

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
        headers = {i: list(m.headers()) for i, m in enumerate(messages) if m.headers()}
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


# Source id → the connection that waits for its next bundle.
_WAITING: dict[str, _Partitions] = {}


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class KafkaRecord(NamedTuple):
    """What is written: key, value, record timestamp (ms) and headers."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: list[tuple[str, bytes | None]] = []  # noqa: RUF012 - never mutated


class WriteToKafka(beam.PTransform):
    """Writes records; a bundle ends only when the broker has all of them.

    A bundle that is retried writes again: readers tell repeats by the record's own id.

    Args:
      make_encode: called once in the worker; returns the function from element to KafkaRecord.
    """

    def __init__(self, servers: str, topic: str, make_encode: Callable[[], Callable[[Any], KafkaRecord]]):
        super().__init__()
        self._fn = _WriteToKafkaFn(servers, topic, make_encode)

    def expand(self, elements: beam.PCollection[Any]) -> beam.PCollection[None]:
        return elements | "Produce" >> beam.ParDo(self._fn)


class _WriteToKafkaFn(beam.DoFn):
    _FLUSH_S = 120

    def __init__(self, servers: str, topic: str, make_encode: Callable[[], Callable[[Any], KafkaRecord]]):
        self._servers, self._topic, self._make_encode = servers, topic, make_encode

    def setup(self) -> None:
        self._encode = self._make_encode()
        self._producer = Producer(
            {
                "bootstrap.servers": self._servers,
                "enable.idempotence": True,
                "log_level": 2,
                "linger.ms": 5,
                "compression.type": "lz4",
                # A dead letter is a third larger than its record; what fits a topic is for the topic to say.
                "message.max.bytes": 10_000_000,
            }
        )

    def start_bundle(self) -> None:
        self._failed: list[KafkaError] = []

    def process(self, element: Any) -> Iterable[None]:
        record = self._encode(element)
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    key=record.key,
                    value=record.value,
                    timestamp=record.timestamp_ms,
                    headers=record.headers or None,
                    on_delivery=self._delivered,
                )
                return ()
            except BufferError:  # the local queue is full: wait for deliveries
                self._producer.poll(0.1)

    def finish_bundle(self) -> None:
        waiting = self._producer.flush(self._FLUSH_S)
        if self._failed or waiting:
            reason = self._failed[0].str() if self._failed else "no answer"
            raise RuntimeError(
                f"{waiting + len(self._failed)} records were not written to {self._topic} at {self._servers}: {reason}"
            )

    def _delivered(self, error: KafkaError | None, message: Message) -> None:  # noqa: ARG002
        if error is not None:
            self._failed.append(error)
