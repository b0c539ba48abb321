from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.build import HOUR, MINUTE, SECOND, T0
from transforms.blocks import NO_WATERMARK_MS, watermarks_before
from transforms.watermarks import PartitionWatermarks

BEHIND_MS = 10 * SECOND
IDLE_MS = 10 * SECOND
FAR = T0 + 1_000 * HOUR  # a wall clock that no timestamp of a test is ahead of


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def fresh(*partitions: int, now_ms: int = 0) -> PartitionWatermarks:
    return PartitionWatermarks(dict.fromkeys(partitions, NO_WATERMARK_MS), BEHIND_MS, IDLE_MS, now_ms)


# Within a block


def test_before_a_partitions_first_record_there_is_no_watermark_and_then_it_is_the_largest_time_so_far() -> None:
    before = watermarks_before(ints(T0, T0 - 5, T0 + 7, T0), NO_WATERMARK_MS, BEHIND_MS)
    assert before.tolist() == [NO_WATERMARK_MS, T0 - BEHIND_MS, T0 - BEHIND_MS, T0 + 7 - BEHIND_MS]


def test_a_block_never_takes_the_watermark_back() -> None:
    assert watermarks_before(ints(T0 - HOUR, T0 - HOUR), T0, BEHIND_MS).tolist() == [T0, T0]


@given(st.lists(st.integers(0, 1 << 45), min_size=1, max_size=40), st.integers(0, 1 << 45), st.data())
def test_the_watermarks_of_two_blocks_are_those_of_one(times: list[int], start: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(times)))
    at_once = fresh(0)
    in_two = fresh(0)
    expected = at_once.read(0, ints(*times), FAR << 10, 0).tolist()
    found = [w for part in (times[:cut], times[cut:]) if part for w in in_two.read(0, ints(*part), FAR << 10, 0)]
    assert found == expected
    assert in_two.of == at_once.of
    assert expected == sorted(expected)


# Several partitions


def test_each_partition_has_a_watermark_of_its_own() -> None:
    marks = fresh(0, 1)
    marks.read(0, ints(T0, T0 - 5), FAR, 0)
    assert marks.of == {0: T0 - BEHIND_MS, 1: NO_WATERMARK_MS}
    marks.read(1, ints(T0 - MINUTE), FAR, 0)
    assert marks.of == {0: T0 - BEHIND_MS, 1: T0 - MINUTE - BEHIND_MS}


def test_a_timestamp_ahead_of_the_wall_clock_counts_as_the_wall_clock() -> None:
    marks = fresh(0)
    before = marks.read(0, ints(T0 + 100 * HOUR, T0), T0, 0)
    assert before.tolist() == [NO_WATERMARK_MS, T0 - BEHIND_MS]
    assert marks.of == {0: T0 - BEHIND_MS}


def test_a_timestamp_ahead_of_the_wall_clock_does_not_pull_idle_partitions_into_the_future() -> None:
    marks = fresh(0, 1)
    marks.read(0, ints(T0 + 100 * HOUR), T0, 0)
    marks.follow([1], T0 + 100 * HOUR, T0, IDLE_MS)
    assert marks.of[1] == T0 - BEHIND_MS


def test_a_partition_is_idle_after_ten_seconds_without_a_message_and_not_a_moment_earlier() -> None:
    marks = fresh(0, 1, now_ms=100)
    marks.read(0, ints(T0), FAR, 5_000)
    assert marks.idle(100 + IDLE_MS - 1) == []
    assert marks.idle(100 + IDLE_MS) == [1]
    assert sorted(marks.idle(5_000 + IDLE_MS)) == [0, 1]


def test_an_idle_partition_follows_the_newest_record_of_the_topic_at_the_same_distance() -> None:
    marks = fresh(0, 1)
    marks.read(0, ints(T0), FAR, IDLE_MS)
    marks.follow([1], T0, FAR, IDLE_MS)
    assert marks.of == {0: T0 - BEHIND_MS, 1: T0 - BEHIND_MS}


def test_a_replay_of_last_month_moves_no_watermark_to_now() -> None:
    marks = fresh(0, 1)
    for now_ms in range(0, 20 * IDLE_MS, IDLE_MS // 2):
        newest = T0 - 700 * HOUR + now_ms
        marks.read(0, ints(newest), T0, now_ms)
        marks.follow([1], newest, T0, now_ms)
        assert marks.of[1] <= newest - BEHIND_MS


def test_when_the_whole_topic_is_silent_time_goes_on_by_itself() -> None:
    marks = fresh(0)
    marks.read(0, ints(T0), FAR, 0)
    marks.follow([0], T0, FAR, 0)
    marks.follow([0], T0, FAR, IDLE_MS - 1)
    assert marks.of == {0: T0 - BEHIND_MS}
    marks.follow([0], T0, FAR, IDLE_MS)
    assert marks.of == {0: T0 + IDLE_MS - BEHIND_MS}
    marks.follow([0], T0, FAR, HOUR)
    assert marks.of == {0: T0 + HOUR - BEHIND_MS}


def test_a_silent_topic_never_gets_ahead_of_the_wall_clock() -> None:
    marks = fresh(0)
    marks.read(0, ints(T0), T0, 0)
    marks.follow([0], T0, T0, 0)
    marks.follow([0], T0, T0 + MINUTE, HOUR)  # the wall clock was set back
    assert marks.of == {0: T0 + MINUTE - BEHIND_MS}


def test_a_message_after_a_silence_is_measured_by_the_time_that_has_passed() -> None:
    marks = fresh(0)
    marks.read(0, ints(T0), FAR, 0)
    marks.follow([0], T0, FAR, 0)
    marks.follow([0], T0, FAR, HOUR)
    assert marks.read(0, ints(T0 + HOUR), FAR, HOUR).tolist() == [T0 + HOUR - BEHIND_MS]


def test_a_restored_reader_goes_on_from_its_watermarks() -> None:
    marks = PartitionWatermarks({0: T0, 1: NO_WATERMARK_MS}, BEHIND_MS, IDLE_MS, 77)
    assert marks.idle(77 + IDLE_MS - 1) == []
    assert marks.read(0, ints(T0 - HOUR), FAR, 78).tolist() == [T0]
    assert marks.of == {0: T0, 1: NO_WATERMARK_MS}


def test_a_finished_partition_holds_nothing_back() -> None:
    marks = fresh(0, 1)
    marks.read(0, ints(T0), FAR, 0)
    marks.drop(1)
    assert marks.of == {0: T0 - BEHIND_MS}
    assert marks.idle(IDLE_MS) == [0]


class Topic(RuleBasedStateMachine):
    """Three partitions read live or as a replay, with pauses and restarts, and a few timestamps from the future."""

    @initialize(lag=st.sampled_from([0, MINUTE, 700 * HOUR]))
    def begin(self, lag: int) -> None:
        self.now_ms, self.wall_ms = 0, T0
        self.event_ms, self.newest_ms = T0 - lag, NO_WATERMARK_MS
        self.moved_ms, self.reached_ms = 0, NO_WATERMARK_MS
        self.marks = fresh(0, 1, 2)
        self.last = dict(self.marks.of)

    @rule(ms=st.sampled_from([1, SECOND, IDLE_MS, MINUTE]))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms
        self.wall_ms += ms
        self.event_ms += ms

    @rule(partition=st.integers(0, 2), times=st.lists(st.integers(-HOUR, HOUR), min_size=1, max_size=5))
    def reads(self, partition: int, times: list[int]) -> None:
        stamps = [self.event_ms + t for t in times]
        before = self.marks.read(partition, ints(*stamps), self.wall_ms, self.now_ms)
        assert before.tolist() == sorted(before.tolist())
        assert before[0] == self.last[partition]
        newest = min(max(stamps), self.wall_ms)
        if newest > self.newest_ms:
            self.newest_ms, self.moved_ms = newest, self.now_ms
        assert partition not in self.marks.idle(self.now_ms)

    @precondition(lambda self: self.newest_ms != NO_WATERMARK_MS)
    @rule()
    def follows(self) -> None:
        idle = self.marks.idle(self.now_ms)
        self.marks.follow(idle, self.newest_ms, self.wall_ms, self.now_ms)
        for partition in idle:
            assert self.marks.of[partition] >= self.newest_ms - BEHIND_MS

    @rule()
    def restarts(self) -> None:
        self.marks = PartitionWatermarks(dict(self.marks.of), BEHIND_MS, IDLE_MS, self.now_ms)

    @invariant()
    def no_watermark_goes_back(self) -> None:
        assert all(self.marks.of[p] >= self.last[p] for p in self.last)
        self.last = dict(self.marks.of)

    @invariant()
    def none_is_ahead_of_what_the_topic_has_reached_but_for_the_time_that_it_is_silent(self) -> None:
        self.reached_ms = max(self.reached_ms, self.newest_ms + (self.now_ms - self.moved_ms) - BEHIND_MS)
        assert all(mark == NO_WATERMARK_MS or mark <= self.reached_ms for mark in self.marks.of.values())

    @invariant()
    def none_is_ahead_of_the_wall_clock(self) -> None:
        assert all(mark <= self.wall_ms - BEHIND_MS for mark in self.marks.of.values())


TestTopic = Topic.TestCase
