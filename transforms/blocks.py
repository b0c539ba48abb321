"""Blocks: the elements that sources emit, each up to a few thousand raw messages of a partition or lines of a file.

Blocks make Python fast on Beam: the cost of an element (a coder, a call into each step, a trip through the runner) is
paid once per thousands of records.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from schemas.columns import Ints

__all__ = ["NO_WATERMARK_MS", "Block", "Encoding"]

NO_WATERMARK_MS = -(1 << 62)
"""Watermark before any record was seen: nothing is late."""

Encoding = Literal["confluent", "avro", "json"]


class Block(NamedTuple):
    """n messages of one partition, in order.

    Attributes:
      topic: topic, or path of the file.
      data: the payloads, one after another.
      bounds: [n+1] payload i is `data[bounds[i]:bounds[i + 1]]`.
      offsets: [n] offset in the partition, or number of the record in the file.
      times_ms: [n] record timestamps; for files the clock when the job started.
      watermarks_ms: [n] the partition's watermark just before each record.
      limits_ms: [n] an event with a later time is from the future; None: the record's timestamp decides.
      passed_ms: Beam's watermark before the block, which may have passed the partition over.
      keys: [n] message keys, or None when no message has one.
      headers: message number → headers, for those that have any.
      nulls: numbers of the messages without a payload.
      encoding: how payloads are written; `avro` is a bare datum of `schema`.
      lost: records before these that Kafka had deleted; a block may report only a loss, without messages.
      broken: record number → why the source could not extract the record; its payload holds the bytes there are.
    """

    topic: str
    partition: int
    data: bytes
    bounds: Ints
    offsets: Ints
    times_ms: Ints
    watermarks_ms: Ints
    keys: list[bytes | None] | None = None
    headers: dict[int, list[tuple[str, bytes | None]]] = {}  # noqa: RUF012 - never mutated
    nulls: frozenset[int] = frozenset()
    encoding: Encoding = "confluent"
    schema: dict[str, Any] | None = None
    lost: int = 0
    broken: dict[int, str] = {}  # noqa: RUF012 - never mutated
    limits_ms: Ints | None = None
    passed_ms: int = NO_WATERMARK_MS

    def payload(self, i: int) -> bytes | None:
        return None if i in self.nulls else self.data[self.bounds[i] : self.bounds[i + 1]]

    def __len__(self) -> int:
        return len(self.offsets)

    def part(self, start: int, stop: int) -> Block:
        """Messages `start` up to `stop`, as a block."""

        def numbers(found: Iterable[int]) -> list[int]:
            return [i for i in found if start <= i < stop]

        taken = {
            "data": self.data[self.bounds[start] : self.bounds[stop]],
            "bounds": self.bounds[start : stop + 1] - self.bounds[start],
            "offsets": self.offsets[start:stop],
            "times_ms": self.times_ms[start:stop],
            "watermarks_ms": self.watermarks_ms[start:stop],
            "limits_ms": None if self.limits_ms is None else self.limits_ms[start:stop],
            "keys": self.keys[start:stop] if self.keys else None,
            "headers": {i - start: self.headers[i] for i in numbers(self.headers)},
            "nulls": frozenset(i - start for i in numbers(self.nulls)),
            "lost": 0 if start else self.lost,
            "broken": {i - start: self.broken[i] for i in numbers(self.broken)},
        }
        return Block(**self._asdict() | taken)  # _replace would count the fields by __len__
