"""Records that were deleted before a reader got to them. Pure: the log's current state is passed in.

Offsets that are missing between two records are none: compaction and the markers of transactions leave them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from transforms.io.kafka.position import BEGINNING

__all__ = [
    "Gap",
    "OnLost",
    "RecordsLostError",
    "cut_back",
    "made_anew",
    "offsets_begin_again",
    "older_copy",
    "swept_away",
]

OnLost = Literal["continue", "stop"]


class RecordsLostError(Exception):
    """Records were lost, and the job is to stop then."""


class Gap(NamedTuple):
    """
    Attributes:
      offset: what was to be read next.
      goes_on_at: where reading goes on.
      lost: how many records are not there any more.
    """

    topic: str
    partition: int
    offset: int
    goes_on_at: int
    lost: int
    why: str

    def __str__(self) -> str:
        where = "its beginning" if self.goes_on_at == BEGINNING else f"offset {self.goes_on_at}"
        return (
            f"records lost: topic {self.topic}, partition {self.partition}, at offset {self.offset}: {self.why}; "
            f"{self.lost} lost, reading goes on at {where}"
        )


def swept_away(topic: str, partition: int, offset: int, start: int, stop: int | None) -> Gap:
    """The log begins only after what was to be read: retention was faster. Of a compacted topic, `lost` is the most
    that it can be, as compaction may have taken some of them before.

    Args:
      stop: where reading was to stop.
    """
    last = start if stop is None else min(start, stop)
    why = f"offsets {offset} to {last - 1} were deleted before they were read"
    return Gap(topic, partition, offset, start, max(0, last - offset), why)


def cut_back(topic: str, partition: int, offset: int, end: int) -> Gap:
    """The log ends, or another one branches off, before what was to be read. What was cut off has been read, but not by
    whoever comes later.

    Args:
      end: of what the log still has in common with what was read.
    """
    why = f"the log was truncated: offsets {end} to {offset - 1} were read, and are gone"
    return Gap(topic, partition, offset, end, offset - end, why)


def older_copy(topic: str, partition: int, offset: int) -> Gap:
    """The leader does not know the epoch of the last record that was read, but has an offset like that of the next one.
    Where the two logs branched off cannot be asked for."""
    why = "the log is an older copy that has grown since; what it took before this offset is not read, nor counted"
    return Gap(topic, partition, offset, offset, 0, why)


def made_anew(topic: str, partition: int, offset: int, unread: int) -> Gap:
    """The topic was deleted and another one of the same name made.

    Args:
      unread: how many records the old one is known to have held after `offset`.
    """
    why = "the topic was deleted and recreated; only the unread records that this reader knew of are counted"
    return Gap(topic, partition, offset, BEGINNING, unread, why)


def offsets_begin_again(topic: str) -> str:
    """Why a job that accounts for its records by offset does not read a topic that was recreated."""
    return (
        f"topic {topic} was deleted and recreated, so its offsets begin again, and this job accounts for its records "
        "by offset: it would subtract the new ones from the old ones; start it without a savepoint and with another "
        "--output, as in the old one it would replace files"
    )
