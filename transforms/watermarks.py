"""How far a reader of several partitions has come in event time: Beam's watermark. Pure: the clocks are passed in.

It is the smallest of its partitions' watermarks, and a partition's is its clock − out-of-orderness. A partition whose
clock stands still must not hold the others back: read to its end, it is passed over. When all stand still, the reader
follows the topic: the newest timestamp in any partition, and, once the whole topic is silent, that plus the time that
has passed since, but never past the wall clock. So a silent night still closes the day's last windows. A timestamp that
nobody can have yet is of a wrong clock, and says nothing of one of its own partitions, whose clocks the reader knows.

None of this moves a partition's clock: which records are late is for the partition's content to say. What comes from a
partition that was passed over may be far behind Beam's watermark, without being late; each block says where that is.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from schemas.columns import Ints
from transforms.blocks import NO_WATERMARK_MS
from transforms.partition_clock import Clock, Judged, judge

__all__ = ["PartitionClocks"]


class PartitionClocks:
    """Clocks of the partitions that one reader owns, and the reader's watermark.

    Args:
      restored: from a checkpoint; new partitions start with `Clock()`.
      idle_ms: for so long a clock stands still before its partition is passed over.
      now_ms: monotonic clock, ms.
      watermark_ms: what Beam was told last.
    """

    def __init__(
        self,
        restored: dict[int, Clock],
        out_of_orderness_ms: int,
        max_ahead_ms: int,
        idle_ms: int,
        now_ms: int,
        watermark_ms: int = NO_WATERMARK_MS,
    ):
        self._behind_ms, self._max_ahead_ms, self._idle_ms = out_of_orderness_ms, max_ahead_ms, idle_ms
        self.of = dict(restored)
        self.watermark_ms = watermark_ms
        self._moved_ms = dict.fromkeys(restored, now_ms)
        self._topic_newest_ms = NO_WATERMARK_MS
        self._heard_ms = now_ms

    def read(
        self,
        partition: int,
        times_ms: Ints,
        keys: Ints,
        *,
        at_end: bool,
        wall_ms: int,
        now_ms: int,
        sent_back: Sequence[int] = (),
    ) -> Judged:
        """Judges a partition's next records, and takes note of those that it could; see `partition_clock.judge`."""
        before = self.of[partition]
        judged = judge(
            before,
            times_ms,
            keys,
            self._behind_ms,
            self._max_ahead_ms,
            wall_ms=wall_ms,
            at_end=at_end,
            sent_back=sent_back,
        )
        self.of[partition] = judged.clock
        self._heard_ms = now_ms
        if judged.clock.reached_ms > before.reached_ms:
            self._moved_ms[partition] = now_ms
        return judged

    def watermark_of(self, partition: int) -> int:
        """Its own watermark, or the reader's, if that has passed it over."""
        return max(self.of[partition].watermark_ms(self._behind_ms), self.watermark_ms)

    def settle(self, at_end: Container[int], now_ms: int) -> bool:
        """Moves the watermark as far as the partitions that are not passed over have come.

        Args:
          at_end: partitions that are read to their end.

        Returns: whether all stand still: then the reader may `follow` the topic.
        """
        going = [
            self.of[p].watermark_ms(self._behind_ms)
            for p, moved_ms in self._moved_ms.items()
            if p not in at_end or now_ms - moved_ms < self._idle_ms
        ]
        if going:
            self.watermark_ms = max(self.watermark_ms, min(going))
        return not going

    def follow(self, newest_ms: Mapping[int, int], wall_ms: int, now_ms: int) -> None:
        """Moves the watermark on with the topic.

        Args:
          newest_ms: of each partition of the topic that is not empty, its newest record timestamp.
        """
        latest_ms = wall_ms + self._max_ahead_ms
        going = {p: clock.reached_ms for p, clock in self.of.items() if clock.reached_ms != NO_WATERMARK_MS}
        topic_newest_ms = max(at_ms if at_ms <= latest_ms else going.get(p, at_ms) for p, at_ms in newest_ms.items())
        if topic_newest_ms > self._topic_newest_ms:
            self._topic_newest_ms, self._heard_ms = topic_newest_ms, now_ms
        silent_ms = now_ms - self._heard_ms
        reached_ms = min(self._topic_newest_ms + (silent_ms if silent_ms >= self._idle_ms else 0), wall_ms)
        self.watermark_ms = max(self.watermark_ms, reached_ms - self._behind_ms)

    def add(self, partition: int, now_ms: int) -> None:
        """A partition that is new to the topic."""
        self.of[partition], self._moved_ms[partition] = Clock(), now_ms

    def drop(self, partition: int) -> None:
        """The partition is read to where it was to be read: it holds nothing back any more."""
        del self.of[partition], self._moved_ms[partition]
