"""A reader's watermark: what its partitions' clocks, silence and the topic make of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.build import HOUR, MINUTE, SECOND, T0
from transforms.blocks import NO_WATERMARK_MS
from transforms.partition_clock import Clock, Judged
from transforms.watermarks import PartitionClocks

BEHIND_MS = 10 * SECOND
IDLE_MS = 10 * SECOND
FAR = T0 + 1_000 * HOUR  # a wall clock that no timestamp of a test is ahead of


def fresh(*partitions: int, now_ms: int = 0) -> PartitionClocks:
    return PartitionClocks(dict.fromkeys(partitions, Clock()), BEHIND_MS, HOUR, IDLE_MS, now_ms)


def read(clocks: PartitionClocks, partition: int, *times: int, now_ms: int = 0) -> Judged:
    """Records of different keys."""
    keys = np.arange(len(times)) + 7 * now_ms
    return clocks.read(partition, np.array(times, np.int64), keys, at_end=True, wall_ms=FAR, now_ms=now_ms)


def agreed(clocks: PartitionClocks, partition: int, time_ms: int, now_ms: int = 0) -> Judged:
    """Three records of one time: the partition's clock shows it."""
    return read(clocks, partition, time_ms, time_ms, time_ms, now_ms=now_ms)


def test_the_watermark_is_that_of_the_slowest_partition() -> None:
    clocks = fresh(0, 1)
    agreed(clocks, 0, T0)
    assert not clocks.settle({0, 1}, 0)
    assert clocks.watermark_ms == NO_WATERMARK_MS
    agreed(clocks, 1, T0 - MINUTE)
    clocks.settle({0, 1}, 0)
    assert clocks.watermark_ms == T0 - MINUTE - BEHIND_MS


def test_an_empty_partition_is_passed_over_while_the_other_is_busy() -> None:
    clocks = fresh(0, 1)
    for now_ms in range(0, 3 * IDLE_MS, 100):
        agreed(clocks, 0, T0 + now_ms, now_ms)
        assert not clocks.settle({1}, now_ms)
        assert clocks.watermark_ms == (T0 + now_ms - BEHIND_MS if now_ms >= IDLE_MS else NO_WATERMARK_MS)


def test_a_partition_that_is_not_read_to_its_end_is_not_passed_over_however_long_it_takes() -> None:
    clocks = fresh(0, 1)
    agreed(clocks, 0, T0, HOUR)
    assert not clocks.settle({0}, HOUR)
    assert clocks.watermark_ms == NO_WATERMARK_MS


def test_a_partition_in_which_one_device_talks_to_itself_is_passed_over() -> None:
    """Its clock stands still, as nobody agrees; the job must not stand still with it."""
    clocks = fresh(0, 1)
    agreed(clocks, 1, T0)
    agreed(clocks, 0, T0)
    alone = np.array([T0 + MINUTE], np.int64)
    for now_ms in range(1, 2 * IDLE_MS, SECOND):
        clocks.read(1, alone, np.array([5]), at_end=True, wall_ms=FAR, now_ms=now_ms)
        agreed(clocks, 0, T0 + now_ms, now_ms)
        clocks.settle({0, 1}, now_ms)
    assert clocks.watermark_ms == T0 + 19 * SECOND + 1 - BEHIND_MS


def test_what_comes_from_a_partition_that_was_passed_over_is_late_by_its_own_clock_alone() -> None:
    clocks = fresh(0, 1)
    agreed(clocks, 1, T0 - HOUR)
    agreed(clocks, 0, T0, IDLE_MS)
    clocks.settle({0, 1}, IDLE_MS)
    assert clocks.watermark_ms == T0 - BEHIND_MS
    assert read(clocks, 1, T0 - HOUR).watermarks_ms.tolist() == [T0 - HOUR - BEHIND_MS]
    clocks.settle({0, 1}, IDLE_MS + 1)
    assert clocks.watermark_ms == T0 - BEHIND_MS


def test_a_reader_is_all_idle_after_ten_seconds_without_a_message_and_not_a_moment_earlier() -> None:
    clocks = fresh(0, 1, now_ms=100)
    agreed(clocks, 0, T0, 5_000)
    assert not clocks.settle({0, 1}, 5_000 + IDLE_MS - 1)
    assert clocks.settle({0, 1}, 5_000 + IDLE_MS)
    assert not clocks.settle({0}, 5_000 + IDLE_MS)


def test_an_idle_reader_follows_the_newest_record_of_the_topic_at_the_same_distance() -> None:
    clocks = fresh(0)
    clocks.follow({1: T0}, FAR, IDLE_MS)
    assert clocks.watermark_ms == T0 - BEHIND_MS
    assert clocks.of == {0: Clock()}


def test_when_the_whole_topic_is_silent_time_goes_on_by_itself() -> None:
    clocks = fresh(0)
    for now_ms, reached in ((0, 0), (IDLE_MS - 1, 0), (IDLE_MS, IDLE_MS), (HOUR, HOUR)):
        clocks.follow({1: T0}, FAR, now_ms)
        assert clocks.watermark_ms == T0 + reached - BEHIND_MS


def test_a_topic_is_not_silent_while_old_records_come() -> None:
    clocks = fresh(0)
    clocks.follow({1: T0}, FAR, 0)
    read(clocks, 0, T0 - MINUTE, now_ms=SECOND)
    clocks.follow({1: T0}, FAR, IDLE_MS)
    assert clocks.watermark_ms == T0 - BEHIND_MS
    clocks.follow({1: T0}, FAR, IDLE_MS + SECOND)
    assert clocks.watermark_ms == T0 + IDLE_MS - BEHIND_MS


def test_a_silent_topic_never_gets_ahead_of_the_wall_clock_nor_does_one_with_a_record_from_the_future() -> None:
    clocks = fresh(0)
    clocks.follow({1: T0}, T0, 0)
    clocks.follow({1: T0}, T0 + MINUTE, HOUR)  # the wall clock was set back
    assert clocks.watermark_ms == T0 + MINUTE - BEHIND_MS
    clocks.follow({1: T0 + 100 * HOUR}, T0 + MINUTE, HOUR)
    assert clocks.watermark_ms == T0 + MINUTE - BEHIND_MS


def test_one_record_from_a_year_to_come_does_not_end_the_pause_of_records_that_come_behind() -> None:
    """Orders of three hours ago, a pause, and more of them: without the wrong clock, none is behind the watermark."""
    clocks = fresh(0)
    agreed(clocks, 0, T0 - 3 * HOUR)
    for silent_ms in (0, IDLE_MS):
        clocks.follow({0: T0 + 100_000 * HOUR}, T0, IDLE_MS + silent_ms)
        assert clocks.watermark_ms == T0 - 3 * HOUR + silent_ms - BEHIND_MS
    clocks.follow({0: T0 + 100_000 * HOUR, 1: T0 - HOUR}, T0, 2 * IDLE_MS)
    assert clocks.watermark_ms == T0 - HOUR - BEHIND_MS, "another partition is further"


def test_a_partition_with_nothing_but_a_wrong_clock_holds_nobody_back() -> None:
    clocks = fresh(0)
    clocks.follow({0: T0 + 100_000 * HOUR}, T0, IDLE_MS)
    assert clocks.watermark_ms == T0 - BEHIND_MS


def test_a_restored_reader_goes_on_from_its_clocks_and_its_watermark() -> None:
    before = fresh(0, 1)
    agreed(before, 0, T0)
    restored = PartitionClocks(before.of, BEHIND_MS, HOUR, IDLE_MS, 77, T0 + HOUR)
    assert read(restored, 0, T0 - HOUR, now_ms=78).watermarks_ms.tolist() == [T0 - BEHIND_MS]
    assert not restored.settle({0, 1}, 77 + IDLE_MS - 1)
    assert restored.watermark_ms == T0 + HOUR


def test_a_finished_partition_holds_nothing_back_and_a_new_one_does() -> None:
    clocks = fresh(0, 1)
    agreed(clocks, 0, T0)
    clocks.drop(1)
    clocks.settle(set(), 0)
    assert clocks.watermark_ms == T0 - BEHIND_MS
    clocks.add(2, 0)
    agreed(clocks, 0, T0 + MINUTE)
    clocks.settle({0, 2}, 0)
    assert clocks.watermark_ms == T0 - BEHIND_MS


class Topic(RuleBasedStateMachine):
    """Three partitions read live or as a replay, with pauses and restarts, and a few timestamps from the future."""

    @initialize(lag=st.sampled_from([0, MINUTE, 700 * HOUR]))
    def begin(self, lag: int) -> None:
        self.now_ms, self.wall_ms, self.event_ms = 0, T0, T0 - lag
        self.newest: dict[int, int] = {}
        self.clocks = fresh(0, 1, 2)
        self.contents: dict[int, list[tuple[int, int]]] = {0: [], 1: [], 2: []}
        self.watermarks: dict[int, list[int]] = {0: [], 1: [], 2: []}
        self.last_ms = NO_WATERMARK_MS

    @rule(ms=st.sampled_from([1, SECOND, IDLE_MS, MINUTE]))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms
        self.wall_ms += ms
        self.event_ms += ms

    @rule(
        partition=st.integers(0, 2),
        records=st.lists(st.tuples(st.integers(-HOUR, HOUR), st.integers(0, 4)), min_size=1, max_size=5),
    )
    def reads(self, partition: int, records: list[tuple[int, int]]) -> None:
        stamped = [(self.event_ms + ahead, key) for ahead, key in records]
        times, keys = (np.array(column, np.int64) for column in zip(*stamped, strict=True))
        judged = self.clocks.read(partition, times, keys, at_end=True, wall_ms=self.wall_ms, now_ms=self.now_ms)
        assert judged.taken == len(records)
        # What is passed over apart, nothing is behind Beam's watermark that is not behind its partition's.
        self.contents[partition] += stamped
        self.watermarks[partition] += judged.watermarks_ms.tolist()
        self.newest[partition] = max(self.newest.get(partition, 0), *times.tolist())

    @rule(at_end=st.sets(st.integers(0, 2)))
    def settles(self, at_end: set[int]) -> None:
        if self.clocks.settle(at_end, self.now_ms) and self.newest:
            assert at_end == {0, 1, 2}
            self.clocks.follow(self.newest, self.wall_ms, self.now_ms)

    @precondition(lambda self: self.newest)
    @rule()
    def restarts(self) -> None:
        of = {p: Clock.decode(clock.encode()) for p, clock in self.clocks.of.items()}
        self.clocks = PartitionClocks(of, BEHIND_MS, HOUR, IDLE_MS, self.now_ms, self.clocks.watermark_ms)

    @invariant()
    def the_watermark_never_goes_back(self) -> None:
        assert self.clocks.watermark_ms >= self.last_ms
        self.last_ms = self.clocks.watermark_ms

    def teardown(self) -> None:
        """Whatever happened, each partition's watermarks are those of its contents read at once."""
        for partition, stamped in getattr(self, "contents", {}).items():
            if stamped:
                clocks = fresh(partition)
                times, keys = (np.array(column, np.int64) for column in zip(*stamped, strict=True))
                found: Any = clocks.read(partition, times, keys, at_end=True, wall_ms=FAR, now_ms=0)
                assert found.watermarks_ms.tolist() == self.watermarks[partition]


TestTopic = Topic.TestCase
