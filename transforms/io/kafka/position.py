"""How far a reader has come: what the runner's checkpoint holds of the source, and how it moves."""

from __future__ import annotations

import json
from typing import NamedTuple

from apache_beam import coders
from apache_beam.io.iobase import RestrictionProgress, RestrictionTracker

from transforms.partition_clock import Clock

__all__ = ["Position", "PositionCoder", "PositionTracker"]


class Position(NamedTuple):
    """How far a reader has come: next offset and clock of each partition still being read."""

    partitions: dict[int, tuple[int, Clock]]


class PositionCoder(coders.Coder):
    """Explicit and versioned, as positions live in savepoints."""

    def encode(self, position: Position) -> bytes:
        partitions = sorted((p, offset, clock.encode()) for p, (offset, clock) in position.partitions.items())
        return json.dumps({"v": 2, "partitions": partitions}).encode()

    def decode(self, encoded: bytes) -> Position:
        fields = json.loads(encoded)
        if fields["v"] == 1:  # with a watermark instead of a clock
            return Position({p: (offset, Clock.at(watermark_ms)) for p, offset, watermark_ms in fields["partitions"]})
        if fields["v"] != 2:
            raise ValueError(f"Kafka position of version {fields['v']}: written by a newer release")
        return Position({p: (offset, Clock.decode(clock)) for p, offset, clock in fields["partitions"]})

    def is_deterministic(self) -> bool:
        return True


class PositionTracker(RestrictionTracker):
    """The restriction is the position to go on from. A claim moves it; a split hands all that is left to the residual,
    after which nothing more can be claimed. No position left: all partitions are read to where they were to be."""

    def __init__(self, position: Position):
        self._position = position
        self._given_away = False

    def current_restriction(self) -> Position:
        return self._position

    def try_claim(self, position: Position) -> bool:
        if self._given_away:
            return False
        self._position = position
        return True

    def try_split(self, fraction_of_remainder: float) -> tuple[Position, Position] | None:
        if fraction_of_remainder != 0 or self._given_away or not self._position.partitions:
            return None
        residual, self._position, self._given_away = self._position, Position({}), True
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
