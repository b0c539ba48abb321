"""A simulated Kafka topic: partitions with transactions, retention, leader changes, truncation; and made anew.

It remembers every record that ever was in it, so that the truth can be computed after the log itself has lost some.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["BAD", "PartitionLog", "Record", "Topic"]

BAD = "bad"

State = Literal["committed", "open", "aborted", "marker"]


@dataclass
class Record:
    """A record, wherever it is now.

    Attributes:
      serial: of all records of a run, in the order in which they were written.
      what: the event; BAD for a payload that no job can use; None for the marker of a transaction.
      life: of the topic: 0, and 1 after it was made anew, and so on.
      gone: whether the log has lost it; swept: by retention.
      hidden: whether a job may miss it: it was written to an older copy of the log (ADR 27), or to one that was cut
        back twice (docs/proof.md).
    """

    serial: int
    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes | None
    what: object
    epoch: int
    life: int
    state: State = "committed"
    transaction: int = 0
    gone: bool = False
    swept: bool = False
    hidden: bool = False


@dataclass
class PartitionLog:
    """One partition. Its records have successive offsets from `start`.

    Attributes:
      cuts: how often it was cut back.
      is_doubtful: what is written to it now, a job may miss.
    """

    records: list[Record] = field(default_factory=list)
    start: int = 0
    epoch: int = 0
    cuts: int = 0
    is_doubtful: bool = False

    @property
    def end(self) -> int:
        return self.start + len(self.records)

    @property
    def stable_end(self) -> int:
        """What lies after it belongs to open transactions, or waits for them."""
        return next((r.offset for r in self.records if r.state == "open"), self.end)

    def append(self, record: Record) -> None:
        record.hidden = self.is_doubtful
        self.records.append(record)

    def read(self, offset: int, most: int) -> tuple[list[Record], int]:
        """Records that may be read from an offset on, and the offset after them."""
        found: list[Record] = []
        stable = self.stable_end
        while offset < stable and len(found) < most:
            record = self.records[offset - self.start]
            offset += 1
            if record.state == "committed":
                found.append(record)
        while offset < stable and self.records[offset - self.start].state != "committed":
            offset += 1
        return found, offset

    def sweep(self, start: int) -> None:
        """Retention: the log begins there now."""
        for record in self.records[: start - self.start]:
            record.gone = record.swept = True
        self.records = self.records[start - self.start :]
        self.start = start

    def cut(self, end: int) -> None:
        """The log ends there now: a leader took over that had no more."""
        for record in self.records[end - self.start :]:
            record.gone = True
        self.records = self.records[: end - self.start]

    def end_of_epoch(self, epoch: int) -> int:
        """Where the records end that leaders up to this epoch have written."""
        return self.start + bisect.bisect_right([r.epoch for r in self.records], epoch)


class Topic:
    """
    Attributes:
      every: all records that were ever written, by serial.
    """

    def __init__(self, name: str, partitions: int):
        self.name, self.life = name, 0
        self.partitions = [PartitionLog() for _ in range(partitions)]
        self.every: list[Record] = []
        self._transactions = 0

    @property
    def id(self) -> str:
        return f"topic-{self.life}"

    def write(
        self, partition: int, time_ms: int, key: bytes | None, value: bytes | None, what: object, transaction: int = 0
    ) -> None:
        log = self.partitions[partition]
        state: State = "open" if transaction else "committed"
        record = Record(
            *(len(self.every), partition, log.end, time_ms, key, value, what, log.epoch, self.life, state, transaction)
        )
        self.every.append(record)
        log.append(record)

    def begin(self) -> int:
        self._transactions += 1
        return self._transactions

    def open_transactions(self) -> list[int]:
        return sorted({r.transaction for log in self.partitions for r in log.records if r.state == "open"})

    def end_transaction(self, transaction: int, *, commits: bool) -> None:
        for partition, log in enumerate(self.partitions):
            mine = [r for r in log.records if r.transaction == transaction and r.state == "open"]
            for record in mine:
                record.state = "committed" if commits else "aborted"
            if mine:
                self.write(partition, mine[-1].time_ms, None, None, None)
                log.records[-1].state = "marker"

    def make_anew(self) -> None:
        for log in self.partitions:
            log.cut(log.start)
        self.life += 1
        self.partitions = [PartitionLog() for _ in self.partitions]
