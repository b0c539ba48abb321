"""Sessions of clicks: whatever their order, and however they are cut into bursts, the oracle's."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.events import ClickstreamEvent
from schemas.features import TOMBSTONE_VERSION
from tests.build import click
from tests.oracle_sessions import Session, expected_sessions
from transforms.domain.sessions import (
    KINDS,
    MAX_LONG,
    Burst,
    Click,
    PackedBurst,
    add_click,
    decode_burst,
    encode_burst,
    former_starts,
    retraction,
    session_of,
)

GAP_MS = 10

of_a_user = st.builds(
    click,
    at=st.integers(1, 90) | st.sampled_from([10, 20, 30, 40, 50]),  # many exactly on the gap
    event_type=st.sampled_from(["PAGE_VIEW", "PRODUCT_VIEW", "SEARCH", "ADD_TO_CART", "CHECKOUT_START", "PURCHASE"]),
    device_type=st.sampled_from(["", "mobile", "desktop"]),
    geo_region=st.sampled_from(["Izmir", "Ünye", "Zonguldak"]),
    category=st.sampled_from([None, None, "", "kitchen", "çay"]),
    price_minor=st.sampled_from([None, 0, 5, MAX_LONG]),
    quantity=st.sampled_from([None, 1, 3]),
)
arrivals = st.lists(st.lists(of_a_user, min_size=1, max_size=6), min_size=1, max_size=5)
"""A user's clicks as they come; each list is handed on together."""


def row(each: ClickstreamEvent) -> Click:
    kind = KINDS.get(each.event_type, 4)
    revenue = min((each.price_minor or 0) * (each.quantity or 1), MAX_LONG) if each.event_type == "PURCHASE" else 0
    return ("u-1", each.event_id, each.event_time, kind, each.device_type, each.geo_region, each.category, revenue)


def bursts_of(batches: list[list[ClickstreamEvent]]) -> list[PackedBurst]:
    packed = []
    for epoch, batch in enumerate(batches):
        bursts: list[Burst] = []
        for each in batch:
            add_click(bursts, row(each), GAP_MS)
        packed += [decode_burst(encode_burst(epoch, burst)) for burst in bursts]
    return packed


def joined(bursts: list[PackedBurst]) -> list[list[PackedBurst]]:
    """Bursts by session, as a runner puts them together: windows from the start to the gap after the end, merged."""
    sessions: list[list[PackedBurst]] = []
    for burst in sorted(bursts, key=lambda b: b[1]):
        if sessions and burst[1] < max(b[2] for b in sessions[-1]) + GAP_MS:
            sessions[-1].append(burst)
        else:
            sessions.append([burst])
    return sessions


def numbered(batches: list[list[ClickstreamEvent]]) -> list[list[ClickstreamEvent]]:
    """Every click with an event_id of its own."""
    numbers = iter(range(1_000))
    return [[msgspec.structs.replace(each, event_id=f"c-{next(numbers)}") for each in batch] for batch in batches]


@given(arrivals, st.randoms())
def test_sessions_are_the_oracles_whatever_the_order_of_clicks_and_the_cut_into_bursts(
    batches: list[list[ClickstreamEvent]], chance: object
) -> None:
    batches = numbered(batches)
    bursts = bursts_of(batches)
    chance.shuffle(bursts)  # type: ignore[attr-defined]
    found = {}
    for of_session in joined(bursts):
        session = session_of("u-1", of_session, "ON_TIME")
        assert (session.user_id, session.pane, session.deleted) == ("u-1", "ON_TIME", False)
        values = [getattr(session, name) for name in Session._fields[:-1]]
        found[session.session_id] = Session(*values, clicks=(session.version - 1) // 4)
    assert found == expected_sessions([each for batch in batches for each in batch], GAP_MS)


def starts_on_the_way(times_ms: list[int]) -> set[int]:
    """Every start that a session had, as the clicks came one by one."""
    starts = set()
    for n in range(1, len(times_ms) + 1):
        known = sorted(times_ms[:n])
        starts |= {at for i, at in enumerate(known) if i == 0 or at - known[i - 1] >= GAP_MS}
    return starts


@given(arrivals)
@example([[click(at=50)], [click(at=30)], [click(at=40)]])
@example([[click(at=50), click(at=30), click(at=40)]])
@example([[click(at=20), click(at=40)], [click(at=30), click(at=15)], [click(at=24), click(at=35)]])
def test_all_starts_that_a_session_had_while_its_clicks_came_are_known_and_no_others(
    batches: list[list[ClickstreamEvent]],
) -> None:
    times = [each.event_time for batch in batches for each in batch]
    sessions = joined(bursts_of(batches))
    former = [at for bursts in sessions for at in former_starts(bursts, GAP_MS)]
    assert len(former) == len(set(former))
    final = {min(burst[1] for burst in bursts) for bursts in sessions}
    assert set(former) == starts_on_the_way(times) - final


@given(arrivals, st.integers(0, 30))
def test_a_run_that_was_lost_gave_out_no_start_that_the_next_one_does_not_take_back(
    batches: list[list[ClickstreamEvent]], seen: int
) -> None:
    """The lost run had seen some of the clicks, in the same order, and had cut them into bursts in its own way."""
    clicks = [each for batch in batches for each in batch]
    lost = {min(b[1] for b in bursts) for bursts in joined(bursts_of([[each] for each in clicks[:seen]]))}
    sessions = joined(bursts_of(batches))
    final = {min(burst[1] for burst in bursts) for bursts in sessions}
    assert lost <= final | {at for bursts in sessions for at in former_starts(bursts, GAP_MS)}


def test_a_click_exactly_the_gap_later_begins_a_new_session_and_one_a_millisecond_sooner_does_not() -> None:
    for apart_ms, sessions in ((GAP_MS - 1, 1), (GAP_MS, 2)):
        for times in ((100, 100 + apart_ms), (100 + apart_ms, 100)):
            assert len(bursts_of([[click(at=at) for at in times]])) == sessions
            assert len(joined(bursts_of([[click(at=at)] for at in times]))) == sessions


def test_one_click_can_join_three_sessions() -> None:
    bursts = bursts_of([[click(at=at) for at in (100, 110, 120, 109, 111)]])
    (session,) = joined(bursts)
    assert former_starts(session, GAP_MS) == [110, 120] or sorted(former_starts(session, GAP_MS)) == [110, 120]
    assert session_of("u-1", session, "LATE").version == 4 * 5 + 2


@pytest.mark.parametrize(("pane", "rank"), [("EARLY", 0), ("ON_TIME", 1), ("LATE", 2)])
def test_a_later_pane_has_a_newer_version_and_one_more_click_a_newer_one_still(pane: object, rank: int) -> None:
    bursts = bursts_of([[click(at=100), click(at=101)]])
    assert session_of("u-1", bursts, pane).version == 8 + rank  # type: ignore[arg-type]


def test_a_retraction_is_newer_than_any_session_can_be() -> None:
    row = retraction("u-1", 100, "EARLY")
    assert (row.session_id, row.user_id, row.session_start, row.deleted) == ("u-1:100", "u-1", 100, True)
    assert row.version == TOMBSTONE_VERSION == 2**53 - 1


def test_revenue_beyond_64_bits_is_the_largest_there_is() -> None:
    rich = [click(at=100 + i, event_type="PURCHASE", price_minor=MAX_LONG, quantity=2**31 - 1) for i in range(3)]
    assert session_of("u-1", bursts_of([rich]), "EARLY").revenue_minor == MAX_LONG
    assert session_of("u-1", bursts_of([[each] for each in rich]), "EARLY").revenue_minor == MAX_LONG


def test_of_what_was_seen_equally_often_the_smallest_counts_and_no_category_is_none() -> None:
    both = [click(at=100, device_type="tv", category="b"), click(at=101, device_type="pc", category="a")]
    session = session_of("u-1", bursts_of([both]), "EARLY")
    assert (session.device_type, session.primary_category) == ("pc", "a")
    assert session_of("u-1", bursts_of([[click(at=1)]]), "EARLY").primary_category is None
    assert session_of("u-1", bursts_of([[click(at=1, category="")]]), "EARLY").primary_category == ""
