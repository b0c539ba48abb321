"""The archiver's accounts of every offset of the topics on a day, and whether its files agree with them.

Stream and batch both come from the topics: a record that both missed is in neither, and no comparison of the two shows
it. The archiver's accounts (`transforms.domain.account`) leave no offset out, so what is missing there is a number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from dags.spark.day import Day
from transforms.domain.account import DAY_MS, OUTCOMES, Account

__all__ = ["TopicDay", "of_day", "trouble", "wanted"]

_NAME = re.compile(r"[\w.-]+-\d{5,}-\d{20}\.json", re.ASCII)
_ENDS = ".ends.json"


@dataclass
class TopicDay:
    """A topic on a day, by record timestamp. Accounts are by days of UTC: it is all of those that the day touches.

    Attributes:
      table: of the archive.
      counts: records, by `OUTCOMES`.
      lost: records that the log no longer held when they were to be read.
      missing: other offsets that hold no record, between records of this day or of days around it.
      unread: offsets that a partition has and nobody has read, while its last known record is not of a later day.
      ends_asked_ms: when the topic was asked for its ends; None: never.
      archived: records of the day, by event time, that the accounts say are in files.
      in_files: that files hold.
    """

    table: str
    topic: str
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    lost: int = 0
    missing: int = 0
    unread: int = 0
    ends_asked_ms: int | None = None
    archived: int = 0
    in_files: int = 0


def wanted(found: Iterable[tuple[str, int]], day: Day) -> list[str]:
    """Of paths and when they were written (ms), those that can know of the day.

    Accounts that were written since it began, by a clock that may be a day off; of each partition the last one before,
    which the next goes on from; and where the topics end.
    """
    by_partition: dict[str, list[tuple[str, int]]] = {}
    ends = []
    for path, written_ms in sorted(found):
        name = path.rpartition("/")[2]
        if name.startswith("."):
            continue  # being written
        if name.endswith(_ENDS):
            ends.append(path)
        elif _NAME.fullmatch(name):
            by_partition.setdefault(name.rpartition("-")[0], []).append((path, written_ms))
    chosen = []
    for of_partition in by_partition.values():
        times = (i for i, (_, written_ms) in enumerate(of_partition) if written_ms >= day.start_ms - DAY_MS)
        chosen += of_partition[max(0, next(times, len(of_partition)) - 1) :]
    return [*(path for path, _ in chosen), *ends]


def of_day(texts: Iterable[str], table: str, day: Day) -> list[TopicDay]:
    """Of each topic.

    Args:
      texts: of the files that are `wanted`.
    """
    partitions: dict[str, dict[int, list[Account]]] = {}
    ends: dict[str, Any] = {}
    for text in texts:
        told = json.loads(text)
        if "ends" in told:
            ends[told["topic"]] = told
        else:
            of_topic = partitions.setdefault(told["topic"], {})
            of_topic.setdefault(told["partition"], []).append(Account.from_json(text.encode()))
    return [
        _topic_day(table, topic, partitions.get(topic, {}), ends.get(topic), day)
        for topic in sorted({*partitions, *ends})
    ]


def _topic_day(table: str, topic: str, partitions: dict[int, list[Account]], ends: Any, day: Day) -> TopicDay:
    numbers = day.utc_days
    # Where the day ends within one of UTC, a record of that one may be of the next day: it tells that this is read.
    last = numbers[-1] if day.end_ms % DAY_MS == 0 else numbers[-1] - 1
    found = TopicDay(table, topic, ends_asked_ms=ends and ends["asked_at"])
    for accounts in partitions.values():
        accounts.sort(key=lambda account: account.first)
        for account in accounts:
            for number in numbers:
                for name, n in zip(OUTCOMES, account.days.get(number, [0] * len(OUTCOMES)), strict=True):
                    found.counts[name] += n
                found.archived += account.archived.get(number, 0)
            for (after, before), (offsets, lost) in account.missing.items():
                if (after is None or after <= numbers[-1]) and numbers[0] <= before:
                    found.missing += offsets - lost
                    found.lost += lost
        for one, following in pairwise(accounts):
            if (one.last is None or one.last <= numbers[-1]) and numbers[0] <= min(following.days, default=numbers[0]):
                found.missing += following.first - one.next
    for partition, end in ends["ends"] if ends else ():
        newest = max(partitions.get(partition, ()), key=lambda account: account.next, default=None)
        if newest is None or newest.last is None or newest.last <= last:
            found.unread += max(0, end - (newest.next if newest else 0))
    return found


def trouble(found: Sequence[TopicDay], day: Day, now_ms: int, freshness_ms: int) -> Iterator[tuple[str, str, int, str]]:
    """Of the topics of a table: rule, the name that it is borne by, how many records are against it, and in words."""
    if not found:
        yield "the archiver accounts for its topics", "no_accounts", 1, "the archive has no accounts of this table"
        return
    for rule, name, count in (
        ("no record was lost by the log", "lost_records", lambda topic: topic.lost),
        ("every offset holds a record", "missing_offsets", lambda topic: abs(topic.missing)),
        ("every partition is read to the day's end", "unread_records", lambda topic: topic.unread),
        ("files hold the records of the accounts", "file_count", lambda topic: abs(topic.archived - topic.in_files)),
        (
            "the topic was asked where it ends",
            "unread_records",
            lambda topic: int((topic.ends_asked_ms or 0) < min(day.end_ms, now_ms) - freshness_ms),
        ),
    ):
        counts = {topic.topic: count(topic) for topic in found}
        yield rule, name, sum(counts.values()), ", ".join(f"{topic} {n:,}" for topic, n in counts.items() if n)
    read = sum(topic.counts["in"] for topic in found)
    yield "the topics have records of the day", "empty_day", int(read == 0), f"{read:,} read"
