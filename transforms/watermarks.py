"""Where a reader of several partitions stands in event time. Pure: the clock is passed in.

A partition's watermark is the largest record timestamp read − out-of-orderness, and the reader's is the smallest of its
partitions'. A partition in which nothing happens must not hold the others back, so after `idle_ms` without a message it
follows the topic: the newest timestamp in any partition, and, once the whole topic is silent, that plus the time that
has passed since. So a watermark never runs ahead of what the topic itself has reached, whether the topic holds live
traffic or a replay of last month, and a silent night still closes the day's last windows.
"""

from __future__ import annotations

from schemas.columns import Ints
from transforms.blocks import NO_WATERMARK_MS, watermarks_before

__all__ = ["PartitionWatermarks"]


class PartitionWatermarks:
    """Watermarks of the partitions that one reader owns.

    Args:
      restored: partition → watermark in ms, from a checkpoint; new partitions start with `NO_WATERMARK_MS`.
      now_ms: monotonic clock, ms.
    """

    def __init__(self, restored: dict[int, int], out_of_orderness_ms: int, idle_ms: int, now_ms: int):
        self._behind_ms, self._idle_ms = out_of_orderness_ms, idle_ms
        self.of = dict(restored)
        self._heard_ms = dict.fromkeys(restored, now_ms)
        self._topic_newest_ms = NO_WATERMARK_MS
        self._topic_moved_ms = now_ms

    def read(self, partition: int, times_ms: Ints, wall_ms: int, now_ms: int) -> Ints:
        """Takes note of a block; returns the watermark before each of its records.

        A timestamp ahead of the wall clock counts as the wall clock: one producer with a fast clock must not make
        everybody else's records late.
        """
        times_ms = times_ms.clip(max=wall_ms)
        before = watermarks_before(times_ms, self.of[partition], self._behind_ms)
        self.of[partition] = max(self.of[partition], int(times_ms.max()) - self._behind_ms)
        self._heard_ms[partition] = now_ms
        return before

    def idle(self, now_ms: int) -> list[int]:
        """The partitions without a message for `idle_ms`."""
        return [p for p, heard_ms in self._heard_ms.items() if now_ms - heard_ms >= self._idle_ms]

    def follow(self, partitions: list[int], topic_newest_ms: int, wall_ms: int, now_ms: int) -> None:
        """Moves idle partitions on, but not past the wall clock. Call it only for partitions read to their end.

        Args:
          topic_newest_ms: newest record timestamp in any partition of the topic.
        """
        if topic_newest_ms > self._topic_newest_ms:
            self._topic_newest_ms, self._topic_moved_ms = topic_newest_ms, now_ms
        silent_ms = now_ms - self._topic_moved_ms
        newest_ms = min(self._topic_newest_ms + (silent_ms if silent_ms >= self._idle_ms else 0), wall_ms)
        for partition in partitions:
            self.of[partition] = max(self.of[partition], newest_ms - self._behind_ms)

    def drop(self, partition: int) -> None:
        """The partition is read to where it was to be read: it holds nothing back any more."""
        del self.of[partition], self._heard_ms[partition]
