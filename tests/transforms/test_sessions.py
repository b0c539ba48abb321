"""The steps of the session job, run by Beam. Pipelines tell whole stories: starting one takes longer than running."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing import test_pipeline, test_stream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import codec
from schemas.events import ClickstreamEvent, UserSession
from schemas.features import TOMBSTONE_VERSION
from schemas.times import START_MS
from tests.build import HOUR, MINUTE, T0, TotalOf, block, click, make_fetch
from tests.oracle_sessions import Session, expected_sessions
from transforms.blocks import Block
from transforms.decode import CLICKS, BlockDecoder
from transforms.domain.sessions import MAX_LONG, decode_burst
from transforms.keyed_state import shard_of
from transforms.ledger import Counts
from transforms.sessions import AggregateSessions, ClickGathering, ClickRows, decode_rows
from transforms.sharded_rows import DecodeRows, Decoding, encode_rows

GAP_MS, LATENESS_MS, SHARDS = 30 * MINUTE, 10 * MINUTE, 4


# ClickRows


valid_clicks = st.builds(
    click,
    st.sampled_from(["c-1", "c-2", "ç"]),
    user=st.sampled_from(["u-1", "u-2", "Gül"]),
    at=st.integers(START_MS, T0),
    event_type=st.sampled_from(["PAGE_VIEW", "PRODUCT_VIEW", "SEARCH", "ADD_TO_CART", "REMOVE_FROM_CART", "PURCHASE"]),
    device_type=st.sampled_from(["", "mobile"]),
    geo_region=st.sampled_from(["", "İzmir"]),
    category=st.sampled_from([None, "", "çay"]),
    price_minor=st.sampled_from([None, 0, 5, 1 << 62, MAX_LONG]),
    quantity=st.sampled_from([None, 1, 2, (1 << 31) - 1]),
)


@given(st.lists(valid_clicks, min_size=1, max_size=12))
@example([click(event_type="PURCHASE", price_minor=7)])
@example([click(event_type="PURCHASE", quantity=7)])
def test_both_ways_of_reading_a_click_give_the_same_row(clicks: list[ClickstreamEvent]) -> None:
    decoder = BlockDecoder(CLICKS, "session-aggregator", make_fetch(), LATENESS_MS)
    framed = decoder.decode(block(clicks))
    lines = decoder.decode(block(map(codec.to_json, clicks), encoding="json"))
    assert (framed.records, lines.parts) == ([], [])
    rows = ClickRows()(framed, SHARDS)
    assert rows == ClickRows()(lines, SHARDS)
    assert sum(map(len, rows.values())) == len(clicks)
    assert all(shard_of(row[0].encode(), SHARDS) == shard for shard in rows for row in rows[shard])
    assert {shard: decode_rows(encode_rows(of_shard)) for shard, of_shard in rows.items()} == rows


def test_a_row_has_what_a_session_needs() -> None:
    bought = {"event_type": "PURCHASE", "device_type": "tv", "geo_region": "Van", "category": "çay"}
    clicks = [
        click("c-1", price_minor=500, quantity=2, **bought),
        click("c-2", price_minor=500, **bought),
        click("c-3", quantity=2, **bought),
        click("c-4", price_minor=500),
    ]
    decoded = BlockDecoder(CLICKS, "session-aggregator", make_fetch(), LATENESS_MS).decode(block(clicks))
    assert ClickRows()(decoded, 1) == {
        0: [
            ("u-1", "c-1", T0, 3, "tv", "Van", "çay", 1_000),
            ("u-1", "c-2", T0, 3, "tv", "Van", "çay", 500),
            ("u-1", "c-3", T0, 3, "tv", "Van", "çay", 0),
            ("u-1", "c-4", T0, 1, "mobile", "Izmir", None, 0),
        ]
    }


# ClickGathering


def row(each: ClickstreamEvent) -> tuple[Any, ...]:
    return (each.user_id, each.event_id, each.event_time, 1, each.device_type, each.geo_region, each.category, 0)


def batch(*clicks: ClickstreamEvent) -> bytes:
    return encode_rows([row(each) for each in clicks])


def test_hand_overs_are_numbered_also_when_nothing_else_is_left_to_remember() -> None:
    """A session outlives what is kept of its clicks, and its bursts must stay in order."""
    gathering = ClickGathering(GAP_MS, LATENESS_MS)
    state = gathering.new()
    assert not state
    gathering.add(state, batch(click("c-1", at=T0)))
    ((_, first), at_ms), *rest = gathering.take(state, None)
    assert (decode_burst(first)[0], at_ms, rest) == (0, T0, [])
    gathering.expire(state, T0 + HOUR)
    assert gathering.expires_ms(state) is None
    restored = gathering.new()
    gathering.restore(restored, gathering.snapshot(state))
    for each in (state, restored):
        assert each
        gathering.add(each, batch(click("c-2", at=T0)))
        ((_, second), _), *rest = gathering.take(each, None)
        assert (decode_burst(second)[0], rest) == (1, [])


def test_a_users_event_id_is_known_again_and_another_users_is_not() -> None:
    gathering = ClickGathering(GAP_MS, LATENESS_MS)
    state = gathering.new()
    first = gathering.add(state, batch(click("c", user="1"), click("c", user="1"), click("c", user="11"), click("c")))
    assert (first.new, first.repeats, first.earliest_ms) == (3, 1, T0)
    assert first.entry == batch(click("c", user="1"), click("c", user="11"), click("c"))
    again = gathering.add(state, batch(click("c", user="1", at=T0 + 1)))
    assert (again.entry, again.new, again.repeats) == (None, 0, 1)
    assert [user for (user, _), _ in gathering.take(state, None)] == ["1", "11", "u-1"]


@pytest.mark.parametrize("keep_ms", [0, MINUTE, LATENESS_MS, HOUR])
def test_a_click_is_handed_on_before_beam_can_have_forgotten_a_session_that_it_belongs_to(keep_ms: int) -> None:
    longest_ago_ms = T0 - GAP_MS + 1  # the earliest end of a session that a click at T0 prolongs
    forgotten_ms = longest_ago_ms + GAP_MS - 1 + keep_ms
    assert ClickGathering(GAP_MS, keep_ms).due_ms(T0) <= forgotten_ms


Taken = list[tuple[tuple[str, bytes], int]]


@given(st.integers(0, 2**32), st.booleans())
def test_a_log_replayed_or_a_snapshot_in_between_hands_on_the_same_bursts(seed: int, snapshots: bool) -> None:
    """What is due goes with all of its user, in time; what is not stays; nothing goes twice."""
    chance = random.Random(seed)
    gathering = ClickGathering(GAP_MS, LATENESS_MS)
    state, other = gathering.new(), gathering.new()
    taken: Taken = []
    at_ms = T0
    rows = [row(each) for each in story(seed)]
    while rows:
        size = chance.randint(1, 9)
        added = gathering.add(state, encode_rows(rows[:size]))
        rows = rows[size:]
        if added.entry is not None:
            gathering.add(other, added.entry)
        at_ms += chance.randrange(20 * MINUTE)
        pending = set(state.pending)
        due = {user for user in pending if gathering.due_ms(state.pending[user][0].start_ms) <= at_ms}
        if snapshots:
            copied = gathering.new()
            gathering.restore(copied, gathering.snapshot(other))
            other = copied
        until = chance.choice([at_ms, at_ms, at_ms, None])
        once, again = gathering.take(state, until), gathering.take(other, until)
        assert once == again
        users = {user for (user, _), _ in once}
        assert (due <= users) if until else (pending == users)
        assert users.isdisjoint(state.pending)
        assert gathering.earliest_ms(state) == gathering.earliest_ms(other)
        taken += once
    taken += gathering.take(state, None)
    assert state.pending == {}
    assert sum(sum(decode_burst(burst)[3]) for (_, burst), _ in taken) == len(state.seen)


# AggregateSessions


def pipeline() -> beam.Pipeline:
    return test_pipeline.TestPipeline(runner=FnApiRunner())


def story(seed: int) -> list[ClickstreamEvent]:
    """Clicks of a few users, many of them exactly the gap or a millisecond less apart, in any order."""
    chance = random.Random(seed)
    return [
        click(
            f"c-{i}",
            user=f"u-{chance.randrange(40)}",
            at=T0 + chance.randrange(24) * 15 * MINUTE - chance.choice([0, 0, 1]),
            event_type=chance.choice(["PAGE_VIEW", "PRODUCT_VIEW", "SEARCH", "ADD_TO_CART", "PURCHASE"]),
            device_type=chance.choice(["mobile", "mobile", "desktop"]),
            geo_region=chance.choice(["Izmir", "Van"]),
            category=chance.choice([None, None, "çay", "kitchen"]),
            price_minor=chance.choice([None, 500, MAX_LONG]),
            quantity=chance.choice([None, 1, 3]),
        )
        for i in range(400)
    ]


def blocks_of(clicks: list[ClickstreamEvent], size: int) -> list[Block]:
    pieces = [(i, clicks[i : i + size]) for i in range(0, len(clicks), size)]
    return [block(piece, first_offset=i, times_ms=[c.event_time for c in piece]) for i, piece in pieces]


def current(sessions: Iterable[UserSession]) -> dict[str, Session]:
    """What a reader sees: of each session the newest version, unless it is deleted."""
    newest: dict[str, UserSession] = {}
    for each in sessions:
        if each.session_id not in newest or newest[each.session_id].version < each.version:
            newest[each.session_id] = each
    return {
        each.session_id: Session(*(getattr(each, name) for name in Session._fields[:-1]), clicks=each.version // 4)
        for each in newest.values()
        if not each.deleted
    }


def total(counts: Iterable[Counts]) -> Counts:
    return Counts(*(sum(column) for column in zip(*counts, strict=True)))


@pytest.mark.parametrize("early_every_ms", [None, HOUR])  # not shorter: this runner fires no timer that was put off
def test_the_sessions_of_shuffled_blocks_with_repeats_are_the_oracles(early_every_ms: int | None) -> None:
    clicks = story(1)
    chance = random.Random(1)
    delivered = clicks + chance.sample(clicks, 60)
    chance.shuffle(delivered)
    decoding = Decoding("session-aggregator", SHARDS, LATENESS_MS, make_fetch)
    with pipeline() as p:
        decoded = p | beam.Create(blocks_of(delivered, 40)) | DecodeRows(CLICKS, ClickRows(), decoding)
        sessions, counts = decoded.good | AggregateSessions(
            GAP_MS, LATENESS_MS, early_every_ms, only_once=early_every_ms is None
        )
        rows = sessions | beam.combiners.ToList()
        expected = expected_sessions(clicks)
        assert len(expected) > 100
        assert_that(rows | "Current" >> beam.Map(current), equal_to([expected]), "sessions")
        if early_every_ms is None:
            assert_that(rows | "Rows" >> beam.Map(len), equal_to([len(expected)]), "one row for each")
        else:
            assert_that(rows | "Panes" >> beam.Map(lambda r: {s.pane for s in r}), equal_to([{"EARLY", "ON_TIME"}]))
        sums = (decoded.counts, counts) | beam.Flatten() | "List" >> beam.combiners.ToList() | "Sum" >> beam.Map(total)
        assert_that(sums, equal_to([Counts(460, 400, 0, 0, 60)]), "counts")


# Panes, corrections and lateness, on a stream. FnApiRunner knows no TestStream, Beam's other runner in the SDK does.


Event = Callable[[test_stream.TestStream], test_stream.TestStream]
Seen = tuple[int, int, str, int, bool]
"""Start and end of a session in minutes, pane, version, deleted."""


def arrives(*minutes: float) -> Event:
    """Clicks of one user, so many minutes after T0; each is another one."""
    clicks = [click(f"c-{at}", at=T0 + int(at * MINUTE)) for at in minutes]
    at = Timestamp(micros=min(each.event_time for each in clicks) * 1000)
    return lambda stream: stream.add_elements([TimestampedValue((0, batch(*clicks)), at)])


def watermark(*minutes: float) -> Event:
    """Advances by several steps where timers fire on the way: this runner would let the watermark overtake what they
    hand on."""

    def advance(stream: test_stream.TestStream) -> test_stream.TestStream:
        for minute in minutes:
            stream = stream.advance_watermark_to(Timestamp(micros=(T0 + int(minute * MINUTE)) * 1000))
        return stream

    return advance


def flush() -> Event:
    return lambda stream: stream.advance_processing_time(10_000_000_000)


def seen(session: UserSession) -> Seen:
    start, end = ((ms - T0) // MINUTE for ms in (session.session_start, session.session_end))
    return (start, end, session.pane, session.version, session.deleted)


def check_stream(
    events: list[Event], rows: list[Seen], *, clicks: int, lateness_ms: int = LATENESS_MS, gap_ms: int = GAP_MS
) -> None:
    stream = test_stream.TestStream()
    for event in events:
        stream = event(stream)
    options = PipelineOptions(streaming=True)
    with test_pipeline.TestPipeline(runner=BundleBasedDirectRunner(), options=options) as p:
        keyed = (
            p | stream.advance_watermark_to_infinity() | beam.Map(lambda kv: kv).with_output_types(tuple[int, bytes])
        )
        sessions, counts = keyed | AggregateSessions(gap_ms, lateness_ms, 1_000)
        assert_that(sessions | beam.Map(seen), equal_to(rows), "sessions")
        assert_that(counts | TotalOf(), equal_to([Counts(clicks, clicks)]), "counts")


def test_a_session_is_given_out_while_it_lasts_and_when_it_is_over() -> None:
    check_stream(
        [arrives(0), flush(), arrives(5, 6), flush(), watermark(36)],
        [(0, 0, "EARLY", 4, False), (0, 6, "EARLY", 12, False), (0, 6, "ON_TIME", 13, False)],
        clicks=3,
    )


def test_a_click_before_the_first_takes_back_the_later_start() -> None:
    check_stream(
        [arrives(10), flush(), arrives(0), flush(), watermark(60)],
        [
            (10, 10, "EARLY", 4, False),
            (0, 10, "EARLY", 8, False),
            (10, 10, "EARLY", TOMBSTONE_VERSION, True),
            (0, 10, "ON_TIME", 9, False),
            (10, 10, "ON_TIME", TOMBSTONE_VERSION, True),
        ],
        clicks=2,
    )


def test_clicks_that_waited_together_take_back_the_start_that_a_lost_run_may_have_given_out() -> None:
    check_stream(
        [arrives(10), arrives(0), watermark(10, 60)],
        [
            (0, 10, "EARLY", 8, False),
            (10, 10, "EARLY", TOMBSTONE_VERSION, True),
            (0, 10, "ON_TIME", 9, False),
            (10, 10, "ON_TIME", TOMBSTONE_VERSION, True),
        ],
        clicks=2,
    )


def test_a_click_between_two_sessions_joins_them_also_when_they_are_over() -> None:
    check_stream(
        [arrives(0), arrives(34), flush(), watermark(66), arrives(29), flush()],
        [
            (0, 0, "EARLY", 4, False),
            (34, 34, "EARLY", 4, False),
            (0, 0, "ON_TIME", 5, False),
            (34, 34, "ON_TIME", 5, False),
            (0, 34, "LATE", 14, False),
            (34, 34, "LATE", TOMBSTONE_VERSION, True),
        ],
        clicks=3,
        lateness_ms=HOUR,
    )


def test_a_click_exactly_the_gap_later_belongs_to_another_session_and_is_no_correction() -> None:
    check_stream(
        [arrives(0), flush(), arrives(30), flush(), watermark(59.9), watermark(60)],
        [
            (0, 0, "EARLY", 4, False),
            (30, 30, "EARLY", 4, False),
            (0, 0, "ON_TIME", 5, False),
            (30, 30, "ON_TIME", 5, False),
        ],
        clicks=2,
    )


def test_a_click_within_the_allowed_lateness_corrects_a_session_that_is_over() -> None:
    # That such a click makes it longer, and so open again, is shown on Flink: this runner stalls on it.
    check_stream(
        [arrives(0, 2), watermark(3), arrives(1), watermark(17, 32, 40), arrives(1.5), watermark(60, 110)],
        [(0, 2, "EARLY", 12, False), (0, 2, "ON_TIME", 13, False), (0, 2, "LATE", 18, False)],
        clicks=4,
        lateness_ms=HOUR,
    )


def test_without_allowed_lateness_no_click_is_dropped_for_having_waited() -> None:
    """A click just in time at the source waits in its shard; what it waits for is its own session's end."""
    check_stream(
        [arrives(0), watermark(0, 29), arrives(29), watermark(29.5, 40), arrives(40, 41), watermark(41, 58, 60, 200)],
        [
            (0, 0, "EARLY", 4, False),
            (0, 29, "EARLY", 8, False),
            (0, 41, "EARLY", 16, False),
            (0, 41, "ON_TIME", 17, False),
        ],
        clicks=4,
        lateness_ms=0,
    )


def test_a_gap_shorter_than_the_allowed_lateness_loses_nothing_either() -> None:
    check_stream(
        [arrives(100), watermark(100.5), arrives(91), watermark(300)],
        [
            (100, 100, "EARLY", 4, False),
            (91, 91, "LATE", 6, False),
            (100, 100, "ON_TIME", 5, False),
        ],
        clicks=2,
        gap_ms=MINUTE,
    )
