"""A reader of some partitions of a topic: their blocks, their clocks, lost records, and its position.

Long, as position, clock and loss of a partition change together.
"""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Mapping
from typing import NamedTuple

from apache_beam.utils.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP, Timestamp
from confluent_kafka import KafkaException, Message
from confluent_kafka.admin import AdminClient

from connections.kafka import Connection
from schemas.progress import Commit, commit_metadata
from transforms.blocks import NO_WATERMARK_MS, Block
from transforms.errors import sent_back
from transforms.io.kafka.blocks import columns_of, lost_block, make_block
from transforms.io.kafka.consumer import Fetched, PartitionsConsumer
from transforms.io.kafka.gaps import (
    Gap,
    OnLost,
    RecordsLostError,
    cut_back,
    made_anew,
    offsets_begin_again,
    older_copy,
    swept_away,
)
from transforms.io.kafka.position import BEGINNING, UNKNOWN_EPOCH, At, Position
from transforms.io.kafka.topic import TopicNow, TopicWatch, with_cause
from transforms.partition_clock import key_numbers
from transforms.watermarks import PartitionClocks

__all__ = ["Reader", "Source"]

_LOG = logging.getLogger(__name__)
_QUIET_S = 0.5


class Source(NamedTuple):
    """What is read and how, as the flags of this start say.

    Attributes:
      stops: partition → the offset to stop at; None to go on for ever, also with partitions that are added.
      discover_every_s: how often the topic is looked at.
      idle_after_ms: for so long a partition that was read to its end is waited for.
      topics: how many the job reads, this one included.
      by_offset: whether the job accounts for its records by offset. A topic that was recreated has them once more.
    """

    servers: str
    topic: str
    group: str
    out_of_orderness_ms: int
    max_ahead_ms: int
    stops: Mapping[int, int] | None = None
    discover_every_s: float = 20.0
    idle_after_ms: int = 10_000
    on_lost: OnLost = "continue"
    block_messages: int = 4_000
    topics: int = 1
    by_offset: bool = False

    def stop(self, partition: int) -> int | None:
        return None if self.stops is None else self.stops.get(partition, 0)


class _Pending(NamedTuple):
    """Of one partition: its next messages and where it stands after them, or what the log lost there."""

    partition: int
    messages: list[Message]
    after: int
    gap: Gap | None = None


class Reader:
    """
    Args:
      watermark: what Beam was told last.

    Raises: KafkaException or TimeoutError: it is not known what the topic is.
    """

    def __init__(self, source: Source, position: Position, watermark: Timestamp):
        self._source = source
        self._position = position
        self._at = dict(position.partitions)
        self._pending: collections.deque[_Pending | Block] = collections.deque()
        # By partition; what cannot be judged before more is known of what follows it.
        self._held: dict[int, list[Message]] = {}
        self._at_end: set[int] = set()
        self._opened_s = time.monotonic()
        self._heard_s: dict[int, float] = {}
        self._known_ends: dict[int, int] = {}
        self._clocks = PartitionClocks(
            {p: at.clock for p, at in self._at.items()},
            source.out_of_orderness_ms,
            source.max_ahead_ms,
            source.idle_after_ms,
            _monotonic_ms(),
            watermark.micros // 1000 if watermark > MIN_TIMESTAMP else NO_WATERMARK_MS,
        )
        self._connection = Connection(source.servers, lasting=True)
        admin = AdminClient({**self._connection.settings, "log_level": 0})
        self._watch = TopicWatch(admin, source.topic, source.discover_every_s, self._reached)
        self._is_cut_back = False
        self._consumer = PartitionsConsumer(self._connection, source.topic, source.group, source.block_messages)
        try:
            self._consumer.assign(self._at)
            self._meet(self._watch.look())
        except (KafkaException, TimeoutError) as e:
            self.close()
            raise with_cause(e, self._connection, admin) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._consumer.close()

    def position(self) -> Position:
        ended = self._source.stops is not None and not self._at
        return self._position._replace(partitions=dict(self._at), ended=ended, backlog=self._backlog())

    def stands_at(self, position: Position) -> bool:
        """Whether it can go on from there; backlogs are but estimates."""
        return self.position()._replace(backlog=0) == position._replace(backlog=0)

    def outdated(self) -> bool:
        """Whether another reader should go on from here: the file that says how to connect says otherwise by now, or
        the log is no longer what was read, of which a connection that has seen it may never speak."""
        return self._is_cut_back or self._connection.changed()

    def _reached(self) -> dict[int, int]:
        return {p: at.offset for p, at in self._at.items() if at.offset > 0}

    def watermark(self) -> Timestamp:
        if self._source.stops is not None and not self._at:
            return MAX_TIMESTAMP
        watermark_ms = self._clocks.watermark_ms
        return MIN_TIMESTAMP if watermark_ms == NO_WATERMARK_MS else Timestamp(micros=watermark_ms * 1000)

    def commit(self) -> None:
        """Shows the group how far it has come."""
        places = {p: (at.offset, self._metadata(p)) for p, at in self._at.items() if at.offset != BEGINNING}
        self._consumer.commit(places)

    def _metadata(self, partition: int) -> str:
        watermark_ms = self._clocks.watermark_of(partition)
        known_ms = None if watermark_ms == NO_WATERMARK_MS else watermark_ms
        return commit_metadata(Commit(known_ms, _wall_ms(), self._source.topics))

    def _backlog(self) -> int:
        ends = ((at, self._source.stop(p) or self._consumer.high_watermark(p)) for p, at in self._at.items())
        return sum(max(0, end - max(0, at.offset)) for at, end in ends)

    def next_block(self, wait_s: float) -> Block | None:
        """The next block; None when nothing came in that time, or all is read.

        Raises: RecordsLostError, when the job is to stop then; KafkaException.
        """
        while self._pending or self._fetch(wait_s):
            next_ = self._pending.popleft()
            block = next_ if isinstance(next_, Block) else self._take(next_)
            if block is not None:
                return block
        return None

    def _take(self, next_: _Pending) -> Block | None:
        partition, messages, after, gap = next_
        if partition not in self._at:
            return None
        stop = self._source.stop(partition)
        at_end = partition in self._at_end or gap is not None
        if stop is not None and after >= stop:
            messages, at_end = [m for m in messages if m.offset() < stop], True
        messages = self._held.pop(partition, []) + messages
        block = self._make_block(partition, messages, at_end, gap.lost if gap else 0)
        if partition in self._held:
            after = self._held[partition][0].offset()
        epoch, read = self._at[partition].epoch, self._at[partition].read
        if gap is not None:
            epoch, read = UNKNOWN_EPOCH, after
        if messages and messages[-1].leader_epoch() is not None:
            epoch, read = messages[-1].leader_epoch(), messages[-1].offset() + 1
        self._at[partition] = At(after, epoch, self._clocks.of[partition], read)
        if stop is not None and after >= stop:
            self._drop(partition)
        return block

    def _fetch(self, wait_s: float) -> bool:
        """Fills `pending`; False when nothing came in time."""
        deadline = time.monotonic() + wait_s
        while self._source.stops is None or self._at:
            fetched = self._consumer.fetch()
            news = self._look() if self._was_quiet(fetched) else self._watch.news()
            if news is not None and self._meet(news):
                continue  # what was fetched may be of either topic
            self._note(fetched)
            self._settle()
            if self._pending:
                return True
            if time.monotonic() >= deadline:
                return False
        return False

    def _was_quiet(self, fetched: Fetched) -> bool:
        """Whether a partition speaks again after a pause, which is as long as it takes to make its topic anew."""
        now_s = time.monotonic()
        quiet = any(now_s - self._heard_s.get(p, self._opened_s) > _QUIET_S for p in fetched.messages)
        self._heard_s.update(dict.fromkeys(fetched.messages, now_s))
        return quiet

    def _look(self) -> TopicNow | None:
        try:
            return self._watch.look()
        except (KafkaException, TimeoutError):  # what was fetched is of the topic that was there
            return None

    def _note(self, fetched: Fetched) -> None:
        for partition, after in fetched.after.items():
            if partition in fetched.at_end:
                self._at_end.add(partition)
            else:
                self._at_end.discard(partition)
            self._known_ends[partition] = self._consumer.high_watermark(partition)
            self._pending.append(_Pending(partition, fetched.messages.get(partition, []), after))
        for partition, branched_off in fetched.gone.items():
            now = self._watch.look()
            if now.id != self._position.topic_id:
                self._meet(now)
                return
            self._look_into_gap(partition, fetched.after.get(partition), branched_off)

    def _ended_partitions(self) -> set[int]:
        """Those read to their end. One in which a transaction holds back what comes next is not."""
        return {p for p in self._at_end & self._at.keys() if self._consumer.high_watermark(p) <= self._at[p].offset}

    def _settle(self) -> None:
        self._is_cut_back |= self._watch.cut_back()
        at_end = self._ended_partitions()
        now_ms = _monotonic_ms()
        if self._clocks.settle(at_end, now_ms):
            newest_ms = self._watch.newest_ms()
            if newest_ms:
                self._clocks.follow(newest_ms, _wall_ms(), now_ms)

    def _make_block(self, partition: int, messages: list[Message], at_end: bool, lost: int) -> Block | None:
        """As many of the messages as can be judged; the others are held."""
        columns = columns_of(messages)
        judged = self._clocks.read(
            partition,
            columns.times_ms,
            key_numbers(columns.keys, columns.offsets),
            at_end=at_end,
            wall_ms=_wall_ms(),
            now_ms=_monotonic_ms(),
            sent_back=sent_back(columns.headers),
        )
        if judged.taken < len(messages):
            self._held[partition] = messages[judged.taken :]
        if not judged.taken and not lost:
            return None
        passed_ms = self._clocks.watermark_ms
        return make_block(self._source.topic, partition, messages, columns, judged, passed_ms, lost)

    # What becomes of the topic

    def _meet(self, now: TopicNow) -> bool:
        """Begins with partitions that are new, and all over again with a topic that is: then it returns True."""
        before, stops = self._position.topic_id, self._source.stops
        anew = before not in ("", now.id)
        if anew:
            self._begin_anew(now)
        self._position = self._position._replace(topic_id=now.id)
        mine = {p for p in now.partitions if self._position.owns(p)} - self._at.keys()
        if stops is not None:  # what is added is after the end
            mine = set() if before and not anew else {p for p in mine if self._source.stop(p)}
        if mine and before and not anew:
            _LOG.warning("topic %s: now also reading the new partitions %s", self._source.topic, sorted(mine))
        for partition in mine:
            self._at[partition] = At()
            self._clocks.add(partition, _monotonic_ms())
        self._consumer.assign({p: self._at[p] for p in mine})
        return anew

    def _begin_anew(self, now: TopicNow) -> None:
        """All partitions at once, so that no checkpoint has offsets of one topic and the id of another.

        Raises: RecordsLostError, when the job is to stop then.
        """
        if self._source.by_offset and self._reached():
            raise RecordsLostError(offsets_begin_again(self._source.topic))
        self._pending.clear()
        self._held.clear()
        self._at_end.clear()
        lost = 0
        of_any = 0 if self._known_ends else self._position.backlog  # what the checkpoint knew, of all together
        for partition, at in list(self._at.items()):
            unread = of_any + max(0, self._known_ends.pop(partition, 0) - max(0, at.offset))
            of_any = 0
            lost += unread
            if at.offset > 0 or unread:
                self._report(made_anew(self._source.topic, partition, at.offset, unread))
            self._drop(partition)
        if lost:
            self._pending.append(lost_block(self._source.topic, min(now.partitions, default=0), lost))

    def _look_into_gap(self, partition: int, offset: int | None, branched_off: int | None) -> None:
        topic, stop = self._source.topic, self._source.stop(partition)
        offset = self._at[partition].offset if offset is None else offset
        held = self._held.get(partition)
        if held:
            offset = max(offset, held[-1].offset() + 1)
        start, end = self._watch.bounds(partition)
        if BEGINNING < offset < start:
            self._pass_over(swept_away(topic, partition, offset, start, stop))
        elif branched_off is not None and self._at[partition].read <= branched_off and not held:
            # All that was read is there; only what nobody may read lay behind it, and is of a later epoch.
            self._consumer.assign({partition: At(max(branched_off, start))})
        elif (common := end if branched_off is None else min(branched_off, end)) < offset:
            self._pass_over(cut_back(topic, partition, offset, max(common, start)))
        elif branched_off is None and offset != BEGINNING:
            self._pass_over(older_copy(topic, partition, offset))
        else:  # the log has changed since it was asked
            self._consumer.assign({partition: At(offset)})

    def _pass_over(self, gap: Gap) -> None:
        """Goes on behind a gap."""
        self._report(gap)
        self._at_end.discard(gap.partition)
        self._pending.append(_Pending(gap.partition, [], gap.goes_on_at, gap))
        self._consumer.assign({gap.partition: At(gap.goes_on_at)})

    def _report(self, gap: Gap) -> None:
        """Raises: RecordsLostError, when the job is to stop then."""
        if self._source.on_lost == "stop":
            raise RecordsLostError(f"{gap}; --on_lost=stop")
        _LOG.warning("%s", gap)

    def _drop(self, partition: int) -> None:
        """It is read to where it was to be read, and holds nothing back any more."""
        del self._at[partition]
        self._clocks.drop(partition)
        self._consumer.unassign(partition)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
