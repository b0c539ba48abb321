"""What should have come of a run, from what was sent: written from the semantics, sharing no code with `transforms`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

from simulation.log import BAD, Record, Topic
from tests.oracle_clock import NOT_YET_MS, plain_clock

__all__ = ["DISORDER_MS", "Judged", "judge", "letters", "serials_of", "source"]

DISORDER_MS = 10_000
_ALONE = 1_000


class Judged(NamedTuple):
    """
    Attributes:
      good: events, in the order in which they were read; without repeats.
      bad, late: serials.
      repeats: how many.
      partitions: serial → partition of the good ones.
    """

    good: list[Record]
    bad: set[int]
    late: set[int]
    repeats: int

    def ledger(self, lost: int) -> dict[str, int]:
        good = len(self.good)
        counts = {"good": good, "dead_letters": len(self.bad), "late": len(self.late), "duplicates": self.repeats}
        return {"in": sum(counts.values()), **counts, "lost": lost}


def judge(
    read: list[Record], lateness_ms: int, overtaken: set[int], identity: Callable[[Record], Hashable | None]
) -> Judged:
    """What became of the records that a job has read.

    Args:
      overtaken: serials of those that the job said were overtaken: when that happens depends on when it reads.
      identity: by which the job recognises repeats; None: it does not.
    """
    by_partition: dict[tuple[int, int], list[Record]] = {}
    for record in read:
        by_partition.setdefault((record.life, record.partition), []).append(record)
    bad = {record.serial for record in read if record.what is BAD}
    late = set(overtaken)
    for records in by_partition.values():
        stamped = [(r.time_ms, None if r.key is None else r.key.decode()) for r in records]
        clocks = [NOT_YET_MS, *plain_clock(stamped, DISORDER_MS, _ALONE)]
        late |= {
            r.serial
            for r, clock in zip(records, clocks, strict=False)
            if r.serial not in bad and clock != NOT_YET_MS and _event_ms(r) < clock - DISORDER_MS - lateness_ms
        }
    good, known, repeats = [], set(), 0
    for record in read:
        if record.serial in bad or record.serial in late:
            continue
        its = identity(record)
        if its is not None and its in known:
            repeats += 1
            continue
        known.add(its)
        good.append(record)
    return Judged(good, bad, late - bad, repeats)


def _event_ms(record: Record) -> int:
    what: Any = record.what
    return int(what.event_time)


def source(topic: Topic, read: list[int], lost: int) -> Iterable[str]:
    """What is wrong with what was read, as serials, and with how many were said to be lost."""
    twice = [serial for serial, times in Counter(read).items() if times > 1]
    if twice:
        yield f"records were read twice: {_these(topic, twice)}"
    known = set(read)
    unread = [r for r in topic.every if r.serial not in known and r.state == "committed" and not r.hidden]
    if here := [r.serial for r in unread if not r.gone]:
        yield f"records are in the log and were never read: {_these(topic, here)}"
    first: dict[tuple[int, int], int] = {}
    for serial in read:
        record = topic.every[serial]
        place = record.life, record.partition
        first[place] = min(first.get(place, record.offset), record.offset)
    must = [
        r for r in unread if r.swept and r.life == topic.life and r.offset > first.get((r.life, r.partition), r.offset)
    ]
    may = [r for r in topic.every if r.gone]
    if not len(must) <= lost <= len(may):
        yield f"{lost} records are said to be lost; {len(must)} were before they were read, {len(may)} are gone"


def _these(topic: Topic, serials: list[int]) -> str:
    places = (topic.every[serial] for serial in sorted(serials)[:5])
    return ", ".join(f"#{r.serial} at {r.life}/{r.partition}/{r.offset}" for r in places) + f" ({len(serials)})"


def letters(topic: Topic, found: list[int], expected: set[int], excused: set[int], name: str) -> Iterable[str]:
    """Whether a folder has each of the letters once, and no others.

    Args:
      excused: records that an attempt which was given up has read, and that the log has lost since: their letters may
        be there, as nobody comes to replace them.
    """
    counts = Counter(found)
    if twice := [serial for serial, times in counts.items() if times > 1]:
        yield f"{name} has records more than once: {_these(topic, twice)}"
    if missing := expected - counts.keys():
        yield f"{name} lacks records: {_these(topic, [*missing])}"
    if more := counts.keys() - expected - excused:
        yield f"{name} has records that do not belong there: {_these(topic, [*more])}"


def serials_of(topic: Topic, rows: Iterable[dict[str, Any]]) -> list[int]:
    """The records that letters are about; those of an offset that was written twice are told apart by their bytes.

    Raises: LookupError: there is no such record.
    """
    places = {(r.partition, r.offset, r.time_ms, r.value): r.serial for r in topic.every}
    return [places[row["partition"], row["offset"], row["timestamp"], row["payload"]] for row in rows]
