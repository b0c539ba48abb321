"""A reader's position: what the runner's checkpoint holds of the source, and how it advances."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from apache_beam import coders
from apache_beam.io.iobase import RestrictionProgress, RestrictionTracker

from transforms.partition_clock import Clock

__all__ = ["BEGINNING", "UNKNOWN_EPOCH", "At", "Position", "PositionCoder", "PositionTracker"]

BEGINNING = -1
"""The offset of a partition's first record, whatever that is."""

UNKNOWN_EPOCH = -1


class At(NamedTuple):
    """Where a reader stands in a partition.

    Attributes:
      offset: of the next record.
      epoch: the leader's epoch when the last record that was read was written; by it Kafka tells whether the log was
        cut back.
      read: the offset after that record. What lies between it and `offset` nobody may read: aborted records, and the
        markers of transactions, perhaps of a later epoch.
    """

    offset: int = BEGINNING
    epoch: int = UNKNOWN_EPOCH
    clock: Clock = Clock()
    read: int = BEGINNING


class Position(NamedTuple):
    """Where a reader stands in a topic. Nothing of the connection: that is for each start of a job to say.

    Attributes:
      reader, readers: it reads the partitions whose number modulo `readers` is `reader`. Fixed when a job begins.
      topic_id: '' before the topic was looked at. A topic that is made anew has another one.
      partitions: those still being read.
      ended: all is read that was to be read.
      backlog: about how many records there are still to read, for runners that want to know.
    """

    reader: int
    readers: int
    topic_id: str = ""
    partitions: dict[int, At] = {}  # noqa: RUF012 - never mutated
    ended: bool = False
    backlog: int = 0

    def owns(self, partition: int) -> bool:
        return partition % self.readers == self.reader


class PositionCoder(coders.Coder):
    """Explicit and versioned, as positions live in savepoints: a byte for the version, then MessagePack."""

    _V2, _V3 = b"\x02", b"\x03"  # 2 did not know what `read` is

    def encode(self, position: Position) -> bytes:
        ats = sorted(position.partitions.items())
        partitions = [[p, at.offset, at.epoch, at.clock.encode(), at.read] for p, at in ats]
        return self._V3 + msgspec.msgpack.encode((*position._replace(partitions=partitions),))  # type: ignore[arg-type]

    def decode(self, encoded: bytes) -> Position:
        if encoded[:1] == b"{":
            raise ValueError("Kafka position of a release before 0.2: its savepoints cannot be gone on from")
        if encoded[:1] not in (self._V2, self._V3):
            raise ValueError(f"Kafka position of version {encoded[0]}: written by a newer release")
        position = Position(*msgspec.msgpack.decode(encoded[1:]))
        rows: Any = position.partitions
        partitions = {p: At(offset, epoch, Clock.decode(c), *(read or [offset])) for p, offset, epoch, c, *read in rows}
        return position._replace(partitions=partitions)

    def is_deterministic(self) -> bool:
        return True


class PositionTracker(RestrictionTracker):
    """The restriction is the position to go on from. A claim moves it; a split hands all that is left to the residual,
    after which nothing more can be claimed."""

    def __init__(self, position: Position):
        self._start = self._position = position
        self._given_away = False

    def current_restriction(self) -> Position:
        return self._position

    def try_claim(self, position: Position) -> bool:
        if self._given_away:
            return False
        self._position = position
        return True

    def try_split(self, fraction_of_remainder: float) -> tuple[Position, Position] | None:
        if fraction_of_remainder != 0 or self._given_away or self._position.ended:
            return None
        residual, self._given_away = self._position, True
        self._position = residual._replace(partitions={}, ended=True, backlog=0)
        return self._position, residual

    def check_done(self) -> bool:
        if not self._position.ended:
            raise ValueError("a reader returned without giving back what it has not read")
        return True

    def current_progress(self) -> RestrictionProgress:
        """In records; of what the log lost, too."""
        before = self._start.partitions
        pairs = ((at.offset, before.get(p, at).offset) for p, at in self._position.partitions.items())
        completed = sum(max(0, now - then) for now, then in pairs if then != BEGINNING)
        return RestrictionProgress(completed=float(completed), remaining=float(self._position.backlog))

    def is_bounded(self) -> bool:
        return False
