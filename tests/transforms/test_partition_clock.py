"""A partition's clock, by what the partition holds: against a plain rendering of its rule, and in stories."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.build import HOUR, MINUTE, SECOND, T0
from tests.oracle_clock import Record, plain_clock
from transforms.blocks import NO_WATERMARK_MS
from transforms.partition_clock import Clock, Judged, advance, judge, key_numbers

DISORDER = 10 * SECOND
AHEAD = HOUR
YEAR = 365 * 24 * HOUR
Y2035 = 2_051_222_400_000


def columns(records: list[Record], first_offset: int = 0) -> tuple[Any, Any]:
    times = np.array([t for t, _ in records], np.int64)
    offsets = np.arange(first_offset, first_offset + len(records))
    return times, key_numbers([None if k is None else k.encode() for _, k in records], offsets)


def judged(
    records: list[Record], clock: Clock | None = None, *, wall_ms: int = T0, at_end: bool = True, first_offset: int = 0
) -> Judged:
    times, keys = columns(records, first_offset)
    return judge(clock or Clock(), times, keys, DISORDER, AHEAD, wall_ms=wall_ms, at_end=at_end)


def refused(records: list[Record], wall_ms: int = T0) -> list[int]:
    """Numbers of those whose event, at the record's own time, is from the future."""
    found = judged(records, wall_ms=wall_ms)
    return [i for i, (t, _) in enumerate(records) if t > found.limits_ms[i]]


def shop(minutes: int, start_ms: int = T0, customers: int = 7, every_ms: int = SECOND) -> list[Record]:
    """Customers, one after the other, a record each second."""
    return [(start_ms + i * every_ms, f"u-{i % customers}") for i in range(minutes * MINUTE // every_ms)]


def clock_after(records: list[Record]) -> int:
    return judged(records, wall_ms=T0 + YEAR).clock.reached_ms


# The rule


partitions = st.lists(
    st.tuples(
        st.one_of(st.integers(T0, T0 + MINUTE), st.sampled_from([T0 - HOUR, T0 + HOUR, T0 + 9 * HOUR, Y2035])),
        st.sampled_from(["a", "b", "b", "c", "d", None]),
    ),
    max_size=40,
)


@given(partitions, st.sampled_from([2, 5, 1_000]))
def test_whole_columns_go_by_the_rule_as_single_records_do(records: list[Record], alone_after: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transforms.partition_clock._ALONE", alone_after)
        before, after = advance(Clock(alone=alone_after), *columns(records), DISORDER)
    expected = [NO_WATERMARK_MS, *plain_clock(records, DISORDER, alone_after)]
    assert [*before.tolist(), after.reached_ms] == expected


@given(partitions, st.data())
def test_any_split_into_reads_with_restarts_at_any_time_gives_the_same_watermarks_and_limits(
    records: list[Record], data: st.DataObject
) -> None:
    """And the same records from the future, but for the last ones, which the wall clock judges."""
    most = len(records)
    at_once = judged(records, wall_ms=T0 + YEAR)
    watermarks: list[int] = []
    limits: list[int] = []
    clock, at, seen = Clock(), 0, 0
    while at < most:
        seen = data.draw(st.integers(min(seen + 1, most), most))
        part = judged(
            records[at:seen], clock, wall_ms=data.draw(st.sampled_from([T0, T0 + YEAR])), at_end=False, first_offset=at
        )
        watermarks += part.watermarks_ms.tolist()
        limits += part.limits_ms.tolist()
        clock, at = Clock.decode(part.clock.encode()), at + part.taken
        if seen == most:
            break
    assert watermarks == at_once.watermarks_ms[:at].tolist()
    assert limits == at_once.limits_ms[:at].tolist()
    rest = judged(records[at:], clock, wall_ms=T0 + YEAR, first_offset=at)
    assert rest.watermarks_ms.tolist() == at_once.watermarks_ms[at:].tolist()
    assert rest.clock == at_once.clock


@given(partitions, st.integers(0, 40), st.lists(st.tuples(st.integers(T0 - YEAR, Y2035), st.just("x")), max_size=9))
def test_watermarks_never_go_back_and_what_comes_later_changes_none(
    records: list[Record], at: int, more: list[Record]
) -> None:
    found = judged(records).watermarks_ms.tolist()
    assert found == sorted(found)
    assert judged(records[:at] + more).watermarks_ms.tolist()[: min(at, len(records))] == found[:at]


@given(partitions, st.lists(st.sampled_from([T0 + HOUR, T0 + 2 * HOUR, Y2035]), max_size=6), st.data())
def test_once_three_keys_were_heard_a_single_wrong_clock_never_moves_the_partition_past_what_another_said(
    records: list[Record], wrong: list[int], data: st.DataObject
) -> None:
    honest: list[Record] = [(T0, k) for k in "abc"] + [(t, k) for t, k in records if t <= T0 + MINUTE]
    mixed = list(honest)
    for time in wrong:
        mixed.insert(data.draw(st.integers(3, len(mixed))), (time, "wrong"))
    assert clock_after(mixed) <= max(t for t, _ in honest)


# Late records


def late(records: list[Record]) -> int:
    found = judged(records, wall_ms=T0 + YEAR)
    return sum(t < w - 10 * MINUTE for (t, _), w in zip(records, found.watermarks_ms.tolist(), strict=True))


def test_the_clock_of_a_busy_partition_is_its_newest_time() -> None:
    records = shop(5)
    found = judged(records).watermarks_ms.tolist()
    assert found[3:] == [t - DISORDER for t, _ in records[2:-1]]


def test_one_record_stamped_an_hour_ahead_makes_none_of_3_601_late() -> None:
    records = shop(60)
    records.insert(611, (records[611][0] + HOUR, "u-fast"))
    assert len(records) == 3_601
    assert late(records) == 0


def test_one_stamped_2035_makes_none_late_and_is_the_only_one_from_the_future_whenever_it_is_read() -> None:
    records = shop(60)
    records.insert(611, (Y2035, "u-2035"))
    assert late(records) == 0
    for wall_ms in (T0, T0 + HOUR, Y2035, Y2035 + YEAR):
        assert refused(records, wall_ms) == [611]


def test_a_device_with_a_wrong_clock_moves_nothing_however_much_it_sends() -> None:
    records = [
        record
        for i, (time, key) in enumerate(shop(60))
        for record in [(time, key), *[(time + HOUR - j * MINUTE, "u-fast") for j in range(i % 50)]]
    ]
    assert late(records) == 0


def test_two_devices_with_wrong_clocks_move_nothing_while_others_come_between() -> None:
    records = [
        (time + (50 * MINUTE if i % 3 == 1 else 40 * MINUTE if i % 7 == 2 else 0), "ab"[i % 2] if i % 3 == 1 else key)
        for i, (time, key) in enumerate(shop(60))
    ]
    assert late(records) == 0


def test_in_the_morning_three_customers_move_the_clock_over_the_night_and_none_is_refused() -> None:
    records = shop(5) + shop(5, T0 + 8 * HOUR)
    found = judged(records, wall_ms=T0 + 9 * HOUR).watermarks_ms.tolist()
    evening, morning = T0 + 299 * SECOND, T0 + 8 * HOUR
    assert found[299:304] == [
        evening - SECOND - DISORDER,
        evening - DISORDER,
        evening - DISORDER,  # one customer moves nothing, nor do two
        evening - DISORDER,
        morning + 2 * SECOND - DISORDER,
    ]
    for wall_ms in (T0 + 8 * HOUR, T0 + YEAR):
        assert refused(records, wall_ms) == []


@pytest.mark.parametrize("keys", ["abcdefg", "ab", "a"])
@pytest.mark.parametrize("gap_ms", [MINUTE, 2 * HOUR, 60 * 24 * HOUR])
def test_a_sparse_partition_loses_nothing_and_its_clock_goes_two_records_behind(keys: str, gap_ms: int) -> None:
    records: list[Record] = [(T0 + i * gap_ms, keys[i % len(keys)]) for i in range(50)]
    for wall_ms in (records[-1][0], T0 + 100 * YEAR):
        assert refused(records, wall_ms) == []
    assert clock_after(records) == records[-3][0]
    assert late([*records, (T0, "z")]) == 1


def test_without_keys_each_record_is_believed_as_a_key_is() -> None:
    records: list[Record] = [(time, None) for time, _ in shop(10)]
    records.insert(300, (Y2035, None))
    assert late(records) == 0
    assert refused(records) == [300]
    assert clock_after(records) == T0 + 599 * SECOND
    assert late([*records, (T0 - HOUR, None)]) == 1


def test_where_only_one_customer_is_left_a_thousand_of_its_records_are_believed() -> None:
    alone: list[Record] = [(T0 + HOUR + i * SECOND, "u-0") for i in range(1_200)]
    found = judged(shop(1) + alone).watermarks_ms.tolist()
    assert found[60 + 990] == T0 + 59 * SECOND - DISORDER
    assert found[60 + 1_010] == T0 + HOUR + 1_009 * SECOND - DISORDER


# From the future


def test_a_record_exactly_max_ahead_of_its_place_is_good_and_one_more_millisecond_is_not() -> None:
    """Its place is no later than the next record's."""
    records = shop(5)
    for wall_ms in (T0 - YEAR, T0, T0 + YEAR):
        for more_ms, wrong in ((0, []), (1, [120])):
            place_ms = records[120][0]
            found = [*records[:120], (place_ms + AHEAD + more_ms, "x"), *records[120:]]
            assert refused(found, wall_ms) == wrong


def test_a_customer_whose_clock_is_a_little_ahead_may_be_the_first_after_a_silence() -> None:
    after = shop(1, T0 + 2 * MINUTE + 58 * MINUTE)
    assert refused([*shop(2), (T0 + 2 * MINUTE + 80 * MINUTE, "x"), *after]) == []


def test_an_event_may_be_max_ahead_of_the_clock_or_of_a_record_within_the_disorder() -> None:
    found = judged([*shop(1), (T0 + MINUTE + 5 * SECOND, "x"), (T0 + MINUTE + 30 * SECOND, "y")])
    newest_ms = T0 + 59 * SECOND
    assert found.limits_ms[60:].tolist() == [
        T0 + MINUTE + 5 * SECOND + AHEAD,
        newest_ms + 6 * SECOND + DISORDER + AHEAD,
    ]


def test_a_record_two_hours_ahead_in_an_old_topic_is_refused_whenever_it_is_read() -> None:
    records = shop(10, T0 - YEAR)
    records.insert(200, (records[200][0] + 2 * HOUR, "u-fast"))
    for wall_ms in (T0 - YEAR, T0, T0 + YEAR):
        assert refused(records, wall_ms) == [200]


def test_a_wrong_device_does_not_vouch_for_itself() -> None:
    burst: list[Record] = [(T0 + 2 * HOUR + i, "u-fast") for i in range(50)]
    for wall_ms in (T0, T0 + YEAR):
        assert refused([*shop(5), *burst, *shop(5, T0 + 5 * MINUTE)], wall_ms) == list(range(300, 350))


def test_the_first_record_of_a_partition_is_refused_when_those_that_follow_are_not_where_it_is() -> None:
    for wall_ms in (T0, T0 + 20 * YEAR):
        assert refused([(Y2035, "a"), *shop(1)], wall_ms) == [0]
        assert refused(shop(1), wall_ms) == []


@pytest.mark.parametrize("before", [[], shop(1), shop(1, T0 - YEAR)])
def test_at_the_end_of_a_partition_the_wall_clock_decides(before: list[Record]) -> None:
    wall_ms = T0 + 3 * HOUR
    at = len(before)
    for time_ms, wrong in ((wall_ms, []), (wall_ms + AHEAD, []), (wall_ms + AHEAD + 1, [at]), (T0 + 2 * HOUR, [])):
        assert refused([*before, (time_ms, "x")], wall_ms) == wrong


def test_what_could_not_be_judged_waits_for_what_follows() -> None:
    morning: Record = (T0 + 8 * HOUR, "x")
    found = judged([*shop(1), morning, (T0 + 8 * HOUR, "y")], at_end=False)
    assert found.taken == len(found.watermarks_ms) == len(found.limits_ms) == 60
    assert found.clock == judged(shop(1)).clock
    more = judged([morning, *shop(1, T0 + 8 * HOUR)], found.clock, at_end=False)
    assert more.taken == 61
    assert more.limits_ms[0] >= morning[0]


# What a savepoint holds


@given(partitions)
def test_a_clock_is_a_few_numbers(records: list[Record]) -> None:
    clock = judged(records).clock
    assert Clock.decode(clock.encode()) == clock
    assert len(clock.encode()) == 9
    assert all(type(number) is int for number in clock.encode())


def test_a_position_of_an_older_release_knows_only_the_time() -> None:
    assert Clock.at(T0).watermark_ms(DISORDER) == T0 - DISORDER
    assert Clock().watermark_ms(DISORDER) == NO_WATERMARK_MS
    assert judged(shop(1, T0 + MINUTE), Clock.at(T0)).watermarks_ms[0] == T0 - DISORDER


def test_keys_have_the_same_numbers_in_every_process_and_records_without_one_have_none_in_common() -> None:
    offsets = np.arange(7, 11)
    assert key_numbers([b"u-1", None, b"u-1", None], offsets).tolist() == [3_700_369_788, -9, 3_700_369_788, -11]
    assert key_numbers([b"u-1", b""], offsets[:2]).tolist() == [3_700_369_788, 0]
    assert len({*itertools.chain(key_numbers([None] * 4, offsets).tolist())}) == 4


# What replay sent back


@given(partitions, st.sets(st.integers(0, 40)), st.booleans(), st.integers(0, 40))
def test_what_replay_sent_back_says_nothing_of_the_others_time(
    records: list[Record], replayed: set[int], at_end: bool, until: int
) -> None:
    """However many of which time there are, and wherever between the others."""
    times, keys = columns(records)
    sent_back = sorted(i for i in replayed if i < len(records))
    others = np.array([i for i in range(len(records)) if i not in sent_back], np.int64)
    settings: Any = (DISORDER, AHEAD)
    found = judge(Clock(), times, keys, *settings, wall_ms=T0, at_end=at_end, sent_back=sent_back)
    alone = judge(Clock(), times[others], keys[others], *settings, wall_ms=T0, at_end=at_end)
    assert found.clock == alone.clock
    taken = [i for i in others.tolist() if i < found.taken]
    assert len(taken) == alone.taken
    assert len(found.watermarks_ms) == len(found.limits_ms) == found.taken
    assert found.watermarks_ms[taken].tolist() == alone.watermarks_ms.tolist()
    assert found.limits_ms[taken].tolist() == alone.limits_ms.tolist()
    for i in sent_back[:until]:
        if i < found.taken:
            earlier = np.array([j for j in taken if j < i], np.int64)
            _, clock = advance(Clock(), times[earlier], keys[earlier], DISORDER)
            assert found.watermarks_ms[i] == clock.watermark_ms(DISORDER)


def test_a_replay_of_last_week_does_not_make_the_newest_records_come_from_the_future() -> None:
    """As it did: those voted against what came before them, once they were there, so live and batch disagreed."""
    live = shop(3, T0 + 7 * 24 * HOUR)
    replayed = shop(1)
    times, keys = columns(live + replayed)
    numbers = range(len(live), len(times))
    found = judge(Clock(), times, keys, DISORDER, AHEAD, wall_ms=T0, at_end=True, sent_back=numbers)
    assert (times <= found.limits_ms).all()
    assert found.clock.reached_ms == live[-1][0]
    assert (found.watermarks_ms[len(live) :] == live[-1][0] - DISORDER).all(), "and they are late, all of them"
