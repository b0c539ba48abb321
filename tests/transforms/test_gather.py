"""Gathering by shard: nothing is handed on twice or too late, whatever is replayed, restored or expired."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from apache_beam.utils.timestamp import Timestamp
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.transforms.test_keyed_state import Cells
from transforms.domain.seen import Seen
from transforms.gather import Added, Gathering, _GatherFn

KEEP_MS, DUE_MS = 100_000, 30_000
Row = tuple[str, int]
"""id, event time in ms."""


class _State:
    def __init__(self) -> None:
        self.seen, self.pending = Seen(), list[Row]()

    def __bool__(self) -> bool:
        return bool(self.seen)


class Rows:
    """The least there is to gather: the rows themselves."""

    keep_ms = KEEP_MS
    expire_every_ms = KEEP_MS // 8

    def new(self) -> _State:
        return _State()

    def add(self, state: _State, rows: bytes) -> Added:
        every = msgspec.msgpack.decode(rows, type=list[Row])
        new = [row for row in every if state.seen.add(*row)]
        state.pending += new
        if not new:
            return Added(None, 0, len(every))
        return Added(msgspec.msgpack.encode(new), len(new), len(every) - len(new), min(at for _, at in new))

    def due_ms(self, event_time_ms: int) -> int:
        return event_time_ms + DUE_MS

    def take(self, state: _State, at_ms: int | None) -> Iterator[tuple[Row, int]]:
        taken = [row for row in state.pending if at_ms is None or row[1] + DUE_MS <= at_ms]
        state.pending = [row for row in state.pending if row not in taken]
        return ((row, row[1]) for row in taken)

    def earliest_ms(self, state: _State) -> int | None:
        return min((at for _, at in state.pending), default=None)

    def expire(self, state: _State, before_ms: int) -> None:
        state.seen.expire(before_ms)

    def expires_ms(self, state: _State) -> int | None:
        return state.seen.expires_ms()

    def snapshot(self, state: _State) -> bytes:
        return msgspec.msgpack.encode((state.seen.items(), state.pending))

    def restore(self, state: _State, snapshot: bytes) -> None:
        seen, state.pending = msgspec.msgpack.decode(snapshot, type=tuple[list[tuple[int, list[str]]], list[Row]])
        state.seen.restore(seen)


class _Timer:
    """A timer as runners keep them: setting it again moves it."""

    def __init__(self, at: Timestamp | None = None):
        self.at = at

    def set(self, at: Timestamp) -> None:
        self.at = at


class Shard:
    """One shard of a gathering step, with the state and the timers that a runner keeps for it."""

    def __init__(self, every_s: float | None = None, gathering: Gathering[Any] | None = None) -> None:
        self.gathering = gathering or Rows()
        self.cells = Cells()
        self.committed: tuple[Timestamp | None, Timestamp | None] = (None, None)
        self.every_s = every_s
        self.handed_on: list[Row] = []
        self.counted = [0, 0]
        self.rollback()
        self.new_worker()

    def new_worker(self) -> None:
        self.fn = _GatherFn(self.gathering, self.every_s)
        self.fn.setup()

    def commit(self) -> None:
        self.cells.commit()
        self.committed = (self.expiry.at, self.flush_timer.at)

    def rollback(self) -> None:
        self.cells.rollback()
        self.expiry, self.flush_timer = (_Timer(at) for at in self.committed)

    def add(self, *rows: Any) -> tuple[int, int]:
        """Returns: how many were new, how many repeats."""
        return self.add_batch(msgspec.msgpack.encode(rows))

    def add_batch(self, batch: bytes) -> tuple[int, int]:
        self.fn.start_bundle()
        self.fn.process((0, batch), self.cells.token, self.cells.log, self.expiry, self.flush_timer)
        return self.fn._new, self.fn._repeats

    def flush(self) -> list[Row]:
        """Fires the timer until there is nothing left to fire: it may have been put off once."""
        taken: list[Row] = []
        while self.flush_timer.at is not None:
            taken += self.fire_flush()
        return taken

    def fire_flush(self) -> list[Row]:
        self.flush_timer.at = None
        fired = self.fn.flush(0, self.cells.token, self.cells.log, self.flush_timer)
        return [timed.value for timed in fired]

    def advance(self, watermark_ms: int) -> list[Row]:
        """Fires the timer until it is after the watermark; returns what was handed on."""
        taken: list[Row] = []
        for _ in range(1_000):
            if self.expiry.at is None or self.expiry.at.micros > watermark_ms * 1000:
                return taken
            at, self.expiry.at = self.expiry.at, None
            fired = self.fn.expire(0, at, self.cells.token, self.cells.log, self.expiry)
            taken += [timed.value for timed in fired]
        raise AssertionError("the timer fires for ever")

    def known(self) -> Any:
        """What is in the state cells, as a new worker reads it."""
        other = _GatherFn(self.gathering, None)
        other.setup()
        return other._shards.open(0, self.cells.token, self.cells.log).state


def test_what_is_flushed_is_handed_on_once() -> None:
    shard = Shard(every_s=1)
    assert shard.add(("a", 1), ("b", 2), ("a", 1)) == (2, 1)
    assert shard.flush() == [("a", 1), ("b", 2)]
    assert shard.flush() == []
    assert shard.add(("b", 2), ("c", 3)) == (1, 1)
    assert shard.flush() == [("c", 3)]
    assert shard.advance(10 * KEEP_MS) == []


def test_a_flush_is_known_to_the_next_worker() -> None:
    shard = Shard(every_s=1)
    shard.add(("a", 1))
    shard.flush()
    shard.add(("b", 2))
    shard.new_worker()
    assert shard.flush() == [("b", 2)]


def test_each_is_handed_on_when_it_is_due_and_not_before() -> None:
    shard = Shard()
    shard.add(("a", 5_000))
    shard.add(("b", 4_000), ("c", 60_000))
    assert shard.advance(4_000 + DUE_MS - 1) == []
    assert shard.advance(5_000 + DUE_MS) == [("b", 4_000), ("a", 5_000)]
    assert shard.advance(60_000 + DUE_MS) == [("c", 60_000)]


def test_what_came_before_a_restart_is_not_handed_on_later_for_what_comes_after_it() -> None:
    shard = Shard()
    shard.add(("a", 5_000))
    shard.new_worker()
    shard.add(("b", 50_000))
    assert shard.advance(5_000 + DUE_MS) == [("a", 5_000)]
    shard.new_worker()
    assert shard.advance(50_000 + DUE_MS) == [("b", 50_000)]


def test_what_is_overdue_when_it_comes_is_handed_on_at_once() -> None:
    shard = Shard()
    shard.add(("a", 200_000))
    shard.advance(200_000)
    shard.add(("b", 110_000))
    assert shard.expiry.at == Timestamp(micros=(110_000 + DUE_MS) * 1000)
    assert shard.advance(200_001) == [("b", 110_000)]


def test_repeats_are_recognised_until_they_are_late_and_then_forgotten_with_all_that_is_stored() -> None:
    shard = Shard()
    shard.add(("a", 1))
    shard.advance(1 + KEEP_MS)
    assert shard.add(("a", 1)) == (0, 1)
    shard.advance(3 * KEEP_MS)
    assert not shard.known()
    assert shard.cells.log.entries == []
    assert shard.add(("a", 1)) == (1, 0)


def test_a_batch_of_repeats_changes_no_state() -> None:
    shard = Shard()
    shard.add(("a", 1))
    before = copy.deepcopy((shard.cells.token.value, shard.cells.log.entries))
    assert shard.add(("a", 1), ("a", 1)) == (0, 2)
    assert (shard.cells.token.value, shard.cells.log.entries) == before


def test_an_entry_of_another_release_is_refused_by_name() -> None:
    shard = Shard()
    shard.add(("a", 1))
    shard.cells.log.entries[0] = b"\x01x"
    with pytest.raises(ValueError, match="state entry of kind b'x': written by a newer release"):
        shard.known()


def test_flushes_are_set_only_where_there_is_something_to_flush_and_no_end() -> None:
    shard, bounded = Shard(every_s=1), Shard()
    shard.add(("a", 1))
    bounded.add(("a", 1))
    assert shard.flush_timer.at is not None
    assert bounded.flush_timer.at is None
    shard.flush()
    shard.add(("a", 1))
    assert shard.flush_timer.at is None


def test_while_a_backlog_is_read_a_flush_waits_until_event_time_is_no_faster_than_the_clock() -> None:
    shard = Shard(every_s=1)
    shard.add(("a", 100_000))
    shard.add(("b", 110_000))
    assert shard.fire_flush() == [("a", 100_000), ("b", 110_000)]
    shard.add(("c", 120_000))
    shard.add(("d", 130_001))  # over ten seconds of events in a second
    assert shard.fire_flush() == []
    shard.add(("e", 130_002))
    assert shard.fire_flush() == [("c", 120_000), ("d", 130_001), ("e", 130_002)]
    assert shard.flush_timer.at is None


IDS = [letter * 30_000 for letter in "abcdef"]  # so long that logs are worth rewriting


class Gathered(RuleBasedStateMachine):
    """Bundles that commit or fail, workers that die, a watermark that advances: each row is handed on once, in time."""

    @initialize(every=st.booleans())
    def begin(self, every: bool) -> None:
        self.shard = Shard(every_s=1 if every else None)
        self.watermark_ms = 0
        self.number = 0
        self.added: list[Row] = []
        self.taken: list[Row] = []

    @rule(ahead_ms=st.lists(st.integers(-KEEP_MS, KEEP_MS), min_size=1, max_size=4), fails=st.booleans())
    def rows_come(self, ahead_ms: list[int], fails: bool) -> None:
        rows = []
        for ahead in ahead_ms:
            rows.append((f"{IDS[self.number % 6]}{self.number}", max(1, self.watermark_ms + ahead)))
            self.number += 1
        assert self.shard.add(*rows, rows[0]) == (len(rows), 1)
        if fails:
            self.shard.rollback()
        else:
            self.shard.commit()
            self.added += rows

    @rule(i=st.integers(0, 100))
    def a_row_comes_again(self, i: int) -> None:
        recent = [row for row in self.added if row[1] > self.watermark_ms - KEEP_MS]
        if recent:
            assert self.shard.add(recent[i % len(recent)]) == (0, 1)
            self.shard.commit()

    @rule(fails=st.booleans())
    def the_flush_timer_fires(self, fails: bool) -> None:
        if self.shard.flush_timer.at is not None:
            self._took(self.shard.flush(), fails)

    @rule(by_ms=st.integers(1, 2 * KEEP_MS), fails=st.booleans())
    def the_watermark_advances(self, by_ms: int, fails: bool) -> None:
        self._took(self.shard.advance(self.watermark_ms + by_ms), fails)
        if not fails:
            self.watermark_ms += by_ms
            overdue = [row for row in self.added if row[1] + DUE_MS <= self.watermark_ms and row not in self.taken]
            assert overdue == []

    def _took(self, rows: list[Row], fails: bool) -> None:
        if fails:
            self.shard.rollback()
        else:
            self.shard.commit()
            self.taken += rows

    @rule()
    def the_worker_dies(self) -> None:
        self.shard.new_worker()

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        if hasattr(self, "shard"):
            pending = self.shard.known().state.pending
            assert sorted(self.taken + pending) == sorted(self.added)


Gathered.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestGathered = Gathered.TestCase
