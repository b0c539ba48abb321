"""The source: a splittable DoFn over librdkafka.

A few readers own the partitions between them; each emits blocks (up to a few thousand messages of one partition), keeps
a clock per partition, and puts its position into the runner's checkpoint. All else comes from the flags of the current
start: a job that is restored elsewhere follows its broker. Offsets are committed to the group only so that lag can be
seen; no restart reads them.

It is not built on Beam's `UnboundedSource` wrapper (ADR 2): that asks for finalization of every bundle, which keeps the
SDK from reusing what runs a bundle and with it the wrapper's cache of readers, so that on Flink every bundle opened a
consumer of its own and fetched again what the last one had fetched.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam import coders
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Duration, Timestamp

from transforms.blocks import Block
from transforms.io.kafka.gaps import OnLost
from transforms.io.kafka.placement import keeps_watermarks, keys_of_readers, threads
from transforms.io.kafka.position import Position, PositionCoder, PositionTracker
from transforms.io.kafka.reader import Reader, Source
from transforms.io.kafka.topic import KafkaTopic
from transforms.io.kafka.waiting import Waiting
from transforms.key_groups import MAX_PARALLELISM

__all__ = ["ReadBlocksFromKafka"]

# Length of a busy reader's bundle: what it reads leaves the worker at its end, and a checkpoint waits for it. (Beam's
# data_buffer_time_limit_ms would let it leave earlier, but flushes from a thread of its own, without a lock, and tears
# timers and elements apart.)
_READ_S = 0.3
_IDLE_WAIT_S = 1.0  # how long an idle reader waits for the first message before it gives the bundle back


class ReadBlocksFromKafka(beam.PTransform):
    """Blocks of a topic's messages, at the block's smallest record timestamp.

    Output: Block; watermark = smallest of the partitions'. A block may have no messages, and say what the log lost.

    Args:
      group: consumer group that offsets are committed to, for lag displays.
      readers: how many share the partitions; None: as many as the runner runs side by side, if there are partitions for
        them. Part of a savepoint: a restored job keeps the number that it began with.
      until_end: stop at the end offsets of `topic` instead of going on for ever.
      discover_every_s: how often to look whether the topic has new partitions, or was made anew.
      idle_after_ms: for so long a partition that was read to its end holds the watermark.
      on_lost: what to do when the log does not hold any more what was to be read.
      by_offset: whether the job accounts for its records by offset: then a topic that was recreated is not read.
      place: which of how many topics of the job this is.
      max_parallelism: of the runner.
      bundle_s: length of a busy reader's bundle, when it shares its thread with no other; None: as suits the runner.
    """

    def __init__(
        self,
        topic: KafkaTopic,
        group: str,
        readers: int | None,
        out_of_orderness_ms: int,
        max_ahead_ms: int,
        until_end: bool,
        discover_every_s: float = 20.0,
        idle_after_ms: int = 10_000,
        on_lost: OnLost = "continue",
        by_offset: bool = False,
        block_messages: int = 4_000,
        place: tuple[int, int] = (0, 1),
        max_parallelism: int = MAX_PARALLELISM,
        bundle_s: float | None = None,
    ):
        super().__init__()
        self._bundle_s = bundle_s
        self._topic, self._readers, self._place, self._max_parallelism = topic, readers, place, max_parallelism
        self._source = Source(
            topic.servers,
            topic.name,
            group,
            out_of_orderness_ms,
            max_ahead_ms,
            topic.ends if until_end else None,
            discover_every_s,
            idle_after_ms,
            on_lost,
            block_messages,
            place[1],
            by_offset,
        )

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[Block]:
        side_by_side = threads(begin.pipeline.options)
        bundle_s = self._bundle_s
        if bundle_s is None:
            in_one_go = self._source.stops is not None and not keeps_watermarks(begin.pipeline.options)
            bundle_s = math.inf if in_one_go else _READ_S
        readers = self._readers or min(side_by_side, max(1, len(self._topic.ends)))
        keys = keys_of_readers(readers, *self._place, self._max_parallelism)
        names = begin.pipeline | "Readers" >> beam.Create(keys, reshuffle=False).with_output_types(int)
        blocks = names | "Read" >> beam.ParDo(
            _ReadBlocksFn(self._source, keys, side_by_side, self._topic.ends, bundle_s)
        )
        blocks.element_type = Block
        return blocks


class _ReadBlocksFn(beam.DoFn, RestrictionProvider):
    """An element is the name of a reader, and nothing more.

    Flink runs all elements of a subtask on one thread, one after the other; readers that share one take shorter turns.
    """

    def __init__(
        self, source: Source, keys: tuple[int, ...], threads: int, ends: dict[int, int], bundle_s: float = _READ_S
    ):
        self._source, self._keys, self._threads, self._ends, self._bundle_s = source, keys, threads, ends, bundle_s
        self._shared = Shared()

    def setup(self) -> None:
        # Of all instances in this process, as a runner gives a reader's bundles to any of them.
        self._waiting: Waiting[Reader] = self._shared.acquire(Waiting)

    def initial_restriction(self, key: int) -> Position:
        position = Position(self._keys.index(key), len(self._keys))
        return position._replace(backlog=sum(end for p, end in self._ends.items() if position.owns(p)))

    def create_tracker(self, restriction: Position) -> PositionTracker:
        return PositionTracker(restriction)

    def restriction_size(self, key: int, restriction: Position) -> int:  # noqa: ARG002
        return restriction.backlog

    def restriction_coder(self) -> coders.Coder:
        return PositionCoder()

    def truncate(self, key: int, restriction: Position) -> None:
        """On drain: stop reading."""

    def _take(self, position: Position, watermark: Timestamp) -> Reader:
        """The connection that waits at this position, else a new one."""
        waiting = self._waiting.take(position.reader)
        if waiting is not None:
            if waiting.stands_at(position) and not waiting.outdated():
                return waiting
            waiting.close()  # the job went back to an earlier checkpoint, or a password or certificate is another one
        return Reader(self._source, position, watermark)

    @beam.DoFn.unbounded_per_element()
    def process(
        self,
        key: int,  # noqa: ARG002
        tracker: Any = beam.DoFn.RestrictionParam(),
        estimator: Any = beam.DoFn.WatermarkEstimatorParam(ManualWatermarkEstimator.default_provider()),
    ) -> Iterator[Any]:
        start = tracker.current_restriction()
        reached = estimator.current_watermark() or MIN_TIMESTAMP
        read = self._take(start, reached)
        share = -(-start.readers // self._threads)
        until = time.monotonic() + self._bundle_s / share
        try:
            while True:
                block = read.next_block(_IDLE_WAIT_S / share)
                position = read.position()
                if not tracker.try_claim(position):
                    read.close()  # it is ahead of what the residual will go on from
                    return
                if block is not None:
                    yield TimestampedValue(block, _block_time(block))
                if read.watermark() > reached:
                    reached = read.watermark()
                    estimator.set_watermark(reached)
                if position.ended:
                    read.close()
                    return
                if time.monotonic() >= until or (block is None and until < math.inf):
                    read.commit()
                    self._waiting.put(position.reader, read)
                    # Whole seconds: Flink cuts a shorter delay to none.
                    tracker.defer_remainder(Duration(seconds=1) if block is None else None)
                    return
        except BaseException:
            read.close()
            raise


def _block_time(block: Block) -> Timestamp:
    """Its smallest record timestamp; if all are from the future, what none may be after."""
    if not len(block):
        return Timestamp(micros=time.time_ns() // 1000)
    time_ms = int(block.times_ms.min())
    if block.limits_ms is not None:
        time_ms = min(time_ms, int(block.limits_ms.max()))
    return Timestamp(micros=time_ms * 1000)
