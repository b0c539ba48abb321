"""Kafka through Beam's own Java KafkaIO, packed into blocks: `--kafka_read=native`.

Slower than `transforms.io.kafka`, as every message crosses from Java into Python by itself, but it needs no splittable
DoFn: on Flink it is a native source. Differences:

- Beam's watermark is the newest record timestamp of each partition, without the out-of-orderness, and the clock where
  a partition has been read to its end; a partition in which there never was a record holds it back. So it suits event
  times near the clock, or a topic that is already whole; and what waits for the watermark (state, windows) must keep
  out-of-orderness longer.
- Which records are late or from the future is told by a clock per partition in the worker's memory. It is not in the
  checkpoint: after a restart it begins anew, and its first records are never late. What would have been late may then
  be good, never the other way round. A block cannot wait for what follows it: of its last records, the wall clock
  decides which are from the future.
- What the log lost is not noticed: Java's consumer goes on at the log's start without a word.
- No offset is committed to a group. KafkaIO would start a new job there, and not at the topic's beginning.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.io.kafka import ReadFromKafka
from apache_beam.transforms.window import GlobalWindow, TimestampedValue
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from connections.java import java
from transforms.blocks import Block
from transforms.errors import sent_back
from transforms.io.kafka import KafkaTopic
from transforms.partition_clock import Clock, Judged, judge, key_numbers

__all__ = ["ReadBlocksFromKafkaNative"]


class ReadBlocksFromKafkaNative(beam.PTransform):
    """Blocks of a topic's messages, at the block's smallest record timestamp.

    Output: Block; none spans two bundles.

    Args:
      topic: must be stamped by producers (CreateTime).
      expansion_service: host:port, or a context manager that gives a stub; used while the pipeline is made. None:
        Beam's own, which it downloads.
    """

    def __init__(
        self,
        topic: KafkaTopic,
        expansion_service: Any,
        out_of_orderness_ms: int,
        max_ahead_ms: int,
        block_messages: int = 4_000,
    ):
        super().__init__()
        self._topic, self._expansion_service = topic, expansion_service
        self._fn = _PackFn(out_of_orderness_ms, max_ahead_ms, block_messages)

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[Block]:
        config = getattr(self._topic.servers, "config", None)
        messages = begin.pipeline | "KafkaIO" >> ReadFromKafka(
            {
                **(java(config) if config else {}),
                "bootstrap.servers": str(self._topic.servers),
                "auto.offset.reset": "earliest",
            },
            [self._topic.name],
            with_metadata=True,  # the bare key and value would also fail on a tombstone
            timestamp_policy=ReadFromKafka.create_time_policy,
            expansion_service=self._expansion_service,
        )
        blocks = messages | "Pack" >> beam.ParDo(self._fn)
        blocks.element_type = Block
        return blocks


class _Reached(dict[int, tuple[int, Clock]]):
    """Of each partition the next offset and the clock. Shared by all instances of the DoFn in a process, as a runner
    gives the bundles of a partition to any of them, one after another."""


class _PackFn(beam.DoFn):
    def __init__(self, out_of_orderness_ms: int, max_ahead_ms: int, block_messages: int):
        self._shared = Shared()
        self._out_of_orderness_ms, self._max_ahead_ms = out_of_orderness_ms, max_ahead_ms
        self._block_messages = block_messages

    def setup(self) -> None:
        self._reached = self._shared.acquire(_Reached)

    def start_bundle(self) -> None:
        self._messages: dict[int, list[Any]] = {}

    def process(self, message: Any) -> Iterator[TimestampedValue]:
        of_partition = self._messages.setdefault(message.partition, [])
        of_partition.append(message)
        if len(of_partition) >= self._block_messages:
            del self._messages[message.partition]
            block = self._make_block(of_partition)
            yield TimestampedValue(block, _timestamp(block))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for messages in self._messages.values():
            block = self._make_block(messages)
            yield WindowedValue(block, _timestamp(block), [GlobalWindow()])

    def _make_block(self, messages: list[Any]) -> Block:
        values = [m.value for m in messages]
        nulls = frozenset(i for i, value in enumerate(values) if value is None)
        if nulls:
            values = [value or b"" for value in values]
        sizes = np.fromiter(map(len, values), np.int64, len(values))
        offsets = np.fromiter((m.offset for m in messages), np.int64, len(values))
        times_ms = np.fromiter((m.timestamp for m in messages), np.int64, len(values))
        keys = [m.key for m in messages]
        headers = {i: [(h.key, h.value) for h in m.headers] for i, m in enumerate(messages) if m.headers}
        judged = self._judge(messages[0].partition, offsets, times_ms, key_numbers(keys, offsets), sent_back(headers))
        return Block(
            topic=messages[0].topic,
            partition=messages[0].partition,
            data=b"".join(values),
            bounds=np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes))),
            offsets=offsets,
            times_ms=times_ms,
            watermarks_ms=judged.watermarks_ms,
            keys=keys,
            headers=headers,
            nulls=nulls,
            limits_ms=judged.limits_ms,
        )

    def _judge(self, partition: int, offsets: Any, times_ms: Any, keys: Any, sent_back: list[int]) -> Judged:
        next_offset, clock = self._reached.get(partition, (0, Clock()))
        if offsets[0] < next_offset:  # a bundle is tried again: what it had seen is yet to come
            clock = Clock()
        wall_ms = time.time_ns() // 1_000_000
        judged = judge(
            clock,
            times_ms,
            keys,
            self._out_of_orderness_ms,
            self._max_ahead_ms,
            wall_ms=wall_ms,
            at_end=True,
            sent_back=sent_back,
        )
        self._reached[partition] = int(offsets[-1]) + 1, judged.clock
        return judged


def _timestamp(block: Block) -> Timestamp:
    return Timestamp(micros=int(block.times_ms.min()) * 1000)
