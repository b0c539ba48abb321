"""What is sent besides good records, and in which order."""

import random
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.arrival import arrivals, partition_of, shuffled
from simulator.config import CLICKS, INVENTORY, ORDERS, TOPICS, Config, Event
from simulator.shop import events
from simulator.ticks import Ticks
from simulator.wire import Framed, JsonLines, Records, Wire
from transforms.partition_clock import Clock, advance, key_numbers

IDS = {topic: 11 + i for i, topic in enumerate(TOPICS)}
MINUTE = 60_000
MIXED = Config(
    events=40_000,
    bad_share=0.1,
    late_share=0.05,
    duplicate_share=0.08,
    out_of_orderness_ms=5_000,
    partitions=dict.fromkeys(TOPICS, 4),
)


def sent_bytes(config: Config, wire: Wire) -> list[tuple]:
    return [
        (e.topic, e.key, e.timestamp_ms, e.payload if e.record is None else wire.encode(e.topic, e.record), e.truth)
        for e in arrivals(config, wire)
    ]


@pytest.mark.parametrize("wire", [Framed(IDS), JsonLines(), Records()], ids=["framed", "jsonl", "avro"])
def test_the_same_config_sends_the_same_bytes(wire: Wire) -> None:
    sent = sent_bytes(MIXED, wire)

    assert sent == sent_bytes(MIXED, wire)
    assert len(sent) == MIXED.events


def test_the_shares_are_about_what_was_asked() -> None:
    counts = {topic: Counter() for topic in TOPICS}
    for event in arrivals(MIXED, Framed(IDS)):
        counts[event.topic][event.kind] += 1

    assert set(counts[INVENTORY]) == {"good"}
    for topic in (CLICKS, ORDERS):
        of_topic = counts[topic]
        for kind, share in (("bad", 0.1), ("late", 0.05), ("duplicate", 0.08)):
            assert of_topic[kind] / of_topic.total() == pytest.approx(share, abs=0.02)


@settings(deadline=None, max_examples=40)
@given(st.integers(), st.integers(0, 60_000), st.floats(1, 1_000))
def test_no_event_comes_later_than_the_out_of_orderness_allows(seed: int, bound_ms: int, rate: float) -> None:
    config = Config(seed=seed, events=400, rate=rate)
    in_order = list(events(config))

    arrived = list(shuffled(in_order, bound_ms, random.Random(seed)))

    assert sorted(e.timestamp_ms for e in arrived) == [e.timestamp_ms for e in in_order]
    newest = 0
    for event in arrived:
        newest = max(newest, event.timestamp_ms)
        assert newest - event.timestamp_ms <= bound_ms
    if bound_ms == 0:
        assert arrived == in_order


def test_out_of_orderness_really_swaps_events() -> None:
    times = [e.timestamp_ms for e in arrivals(Config(events=1_000, out_of_orderness_ms=5_000), JsonLines())]

    assert sum(later < earlier for earlier, later in pairwise(times)) > 300


def test_late_records_are_late_in_their_partition_and_of_users_of_their_own() -> None:
    newest: dict[tuple[str, int], int] = {}
    before = Counter()
    late_users, others = [], set()
    for event in arrivals(MIXED, Framed(IDS)):
        partition = (event.topic, partition_of(event.key, 4))
        if event.kind == "late":
            (fact,) = event.truth
            assert event.timestamp_ms == event.record.event_time == fact["event_time"]
            assert newest[partition] - event.timestamp_ms == fact["behind_ms"] >= 15 * MINUTE
            assert (fact["partition"], fact["records_before"]) == (partition[1], before[partition])
            late_users.append(event.record.user_id)
        else:
            others.add(event.key)
            newest[partition] = max(newest.get(partition, 0), event.timestamp_ms)
        before[partition] += 1

    assert len(late_users) == len(set(late_users)) > 500
    assert not set(late_users) & others


@pytest.mark.parametrize("seed", range(20))
def test_late_records_are_late_by_the_clock_of_the_jobs_from_the_first_record_on(seed: int) -> None:
    config = Config(seed=seed, events=300, topics=(ORDERS,), late_share=0.4, partitions={ORDERS: 4})
    clocks: dict[int, Clock] = {}
    late = 0
    for event in arrivals(config, JsonLines()):
        partition = partition_of(event.key, 4)
        clock = clocks.get(partition, Clock())
        if event.kind == "late":
            late += 1
            assert event.timestamp_ms < clock.watermark_ms(10_000) - 10 * MINUTE
        times, keys = np.array([event.timestamp_ms]), key_numbers([event.key.encode()], np.zeros(1, np.int64))
        clocks[partition] = advance(clock, times, keys, 10_000)[1]
    assert late > 50


def test_duplicates_repeat_an_earlier_good_record_exactly_and_soon() -> None:
    wire = Framed(IDS)
    first: dict[bytes, Event] = {}
    newest = repeats = 0
    for event in arrivals(MIXED, wire):
        newest = max(newest, event.timestamp_ms)
        if event.kind == "good":
            first[wire.encode(event.topic, event.record)] = event
        elif event.kind == "duplicate":
            repeats += 1
            original = first[wire.encode(event.topic, event.record)]
            assert (event.topic, event.key, event.timestamp_ms) == (original.topic, original.key, original.timestamp_ms)
            assert newest - event.timestamp_ms < MINUTE

    assert repeats > 1_000


def test_good_events_of_one_config_are_those_of_the_shop_only_spaced() -> None:
    bare = Config(events=2_000)

    assert list(arrivals(bare, JsonLines())) == list(events(bare))


def test_a_stop_still_sends_what_was_held_back() -> None:
    config = Config(out_of_orderness_ms=10_000, bad_share=0.2)
    ticks = Ticks(config)
    sent = []
    for event in arrivals(config, JsonLines(), ticks):
        sent.append(event)
        if len(sent) == 1_000:
            ticks.stop()

    assert 1_000 < len(sent) == ticks.count


def test_planting_leaves_the_span_of_time_and_the_rate_as_asked() -> None:
    config = Config(duration_ms=10 * MINUTE, rate=20, bad_share=0.3, late_share=0.1, duplicate_share=0.1)

    sent = list(arrivals(config, JsonLines()))

    assert len(sent) == 20 * 600
    kinds = defaultdict(list)
    for event in sent:
        kinds[event.kind].append(event.timestamp_ms - config.start_ms)
    assert 0 <= min(kinds["good"]) < max(kinds["good"]) < 10 * MINUTE
    assert max(kinds["good"]) > 9.9 * MINUTE
