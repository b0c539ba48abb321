"""The source: a splittable DoFn over librdkafka.

A few readers own the partitions between them; each emits blocks (up to a few thousand messages of one partition), keeps
a watermark per partition, and puts its offsets into the runner's checkpoint. Offsets are committed to the group only so
that lag can be seen; no restart reads them.

It is not built on Beam's `UnboundedSource` wrapper (ADR 2): that asks for finalization of every bundle, which keeps the
SDK from reusing what runs a bundle and with it the wrapper's cache of readers, so that on Flink every bundle opened a
consumer of its own and fetched again what the last one had fetched.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam import coders
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Duration, Timestamp

from transforms.blocks import Block
from transforms.io.kafka.position import Position, PositionCoder, PositionTracker
from transforms.io.kafka.reader import Assignment, Reader
from transforms.io.kafka.topic import KafkaTopic
from transforms.io.kafka.waiting import Waiting
from transforms.partition_clock import Clock

__all__ = ["ReadBlocksFromKafka"]

# Length of a busy reader's bundle: what it reads leaves the worker at its end, and a checkpoint waits for it. (Beam's
# data_buffer_time_limit_ms would let it leave earlier, but flushes from a thread of its own, without a lock, and tears
# timers and elements apart.)
_READ_S = 0.3


class ReadBlocksFromKafka(beam.PTransform):
    """Blocks of a topic's messages, at the block's smallest record timestamp.

    Output: Block; watermark: see `transforms.watermarks`.

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
        max_ahead_ms: int,
        until_end: bool,
        block_messages: int = 4_000,
    ):
        super().__init__()
        self._assignments = [
            Assignment(
                i,
                topic.servers,
                topic.name,
                {p: end if until_end else None for p, end in topic.ends.items() if p % readers == i},
                group,
                out_of_orderness_ms,
                max_ahead_ms,
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


class _Positions(beam.transforms.core.RestrictionProvider):
    def initial_restriction(self, assignment: Assignment) -> Position:
        return Position(dict.fromkeys(assignment.partitions, (0, Clock())))

    def create_tracker(self, restriction: Position) -> PositionTracker:
        return PositionTracker(restriction)

    def restriction_size(self, assignment: Assignment, restriction: Position) -> int:  # noqa: ARG002
        return 1

    def restriction_coder(self) -> coders.Coder:
        return PositionCoder()

    def truncate(self, assignment: Assignment, restriction: Position) -> None:
        """On drain: stop reading."""


class _ReadBlocksFn(beam.DoFn):
    def __init__(self) -> None:
        self._shared = Shared()

    def setup(self) -> None:
        # Of all instances in this process, as a runner gives a reader's bundles to any of them.
        self._waiting: Waiting[Reader] = self._shared.acquire(Waiting)

    def _take(self, assignment: Assignment, position: Position, watermark: Timestamp) -> Reader:
        """The connection that waits at this position, else a new one."""
        waiting = self._waiting.take(assignment.index)
        if waiting is not None:
            if waiting.position() == position:
                return waiting
            waiting.close()  # the job went back to an earlier checkpoint
        return Reader(assignment, position, watermark)

    @beam.DoFn.unbounded_per_element()
    def process(
        self,
        assignment: Assignment,
        tracker: Any = beam.DoFn.RestrictionParam(_Positions()),
        estimator: Any = beam.DoFn.WatermarkEstimatorParam(ManualWatermarkEstimator.default_provider()),
    ) -> Iterator[Any]:
        reached = estimator.current_watermark() or MIN_TIMESTAMP
        read = self._take(assignment, tracker.current_restriction(), reached)
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
                if read.watermark() > reached:
                    reached = read.watermark()
                    estimator.set_watermark(reached)
                if not position.partitions:
                    read.close()
                    return
                if block is None or time.monotonic() >= until:
                    read.commit()
                    self._waiting.put(assignment.index, read)
                    # Whole seconds: Flink cuts a shorter delay to none.
                    tracker.defer_remainder(Duration(seconds=1) if block is None else None)
                    return
        except BaseException:
            read.close()
            raise


def _block_time(block: Block) -> Timestamp:
    """Its smallest record timestamp; if all are from the future, what none may be after."""
    time_ms = int(block.times_ms.min())
    if block.limits_ms is not None:
        time_ms = min(time_ms, int(block.limits_ms.max()))
    return Timestamp(micros=time_ms * 1000)
