"""Revenue by properties: however orders are ordered, divided and taken, the sums are the oracle's."""

from __future__ import annotations

import random
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from schemas.events import OrderEvent, Pane
from tests.build import MINUTE, T0, item, order
from tests.oracle_revenue import Key, Revenue, expected_revenue
from transforms.domain.revenue import (
    MAX_LONG,
    MINUTE_MS,
    Figures,
    Minute,
    Order,
    add_up,
    category_totals,
    revenue_rows,
    version,
)

START = T0 - T0 % MINUTE
AMOUNTS = st.sampled_from([0, 1, 10_000, MAX_LONG - 1, MAX_LONG])


@st.composite
def order_events(draw: st.DrawFn) -> list[OrderEvent]:
    """Orders of a few users, figures and minutes, so that they meet; some amounts are absurd."""
    items = st.builds(item, category=st.sampled_from(["books", "Çay", "*"]), total_price_minor=AMOUNTS)
    fields = st.fixed_dictionaries(
        {
            "user": st.sampled_from(["u-1", "u-2", "Gül"]),
            "at": st.sampled_from([START, START + 59_999, START + 60_000, START + 61_000, START - 1]),
            "amount": AMOUNTS,
            "region": st.sampled_from(["Izmir", "Muğla", "total", ""]),
            "is_first_order": st.booleans(),
            "currency": st.sampled_from(["TRY", "EUR", "JPY"]),
            "items": st.lists(items, max_size=4),
        }
    )
    return [order(f"o-{i}", **each) for i, each in enumerate(draw(st.lists(fields, max_size=25)))]


def row(event: OrderEvent) -> Order:
    return (
        event.user_id,
        event.order_id,
        event.event_time,
        event.total_amount_minor,
        event.shipping_region,
        event.is_first_order,
        category_totals((each.category, each.total_price_minor) for each in event.items),
        event.currency,
    )


def revenue(parts: dict[tuple[int, str], list[list[Figures]]]) -> dict[Key, Revenue]:
    return {
        (number * MINUTE_MS, currency, dimension, value): Revenue(*numbers)
        for (number, currency), lists in parts.items()
        for dimension, value, *numbers in add_up(lists)
    }


@given(order_events(), st.randoms(use_true_random=False))
def test_any_order_of_arrival_division_by_user_and_moment_of_taking_gives_the_oracles_sums(
    events: list[OrderEvent], chance: random.Random
) -> None:
    expected = expected_revenue(events)
    chance.shuffle(events)
    minutes: dict[tuple[tuple[int, str], bool], Minute] = defaultdict(Minute)
    parts: dict[tuple[int, str], list[list[Figures]]] = defaultdict(list)
    for event in events:
        number = event.event_time // MINUTE_MS, event.currency
        minute = minutes[number, event.user_id == "u-1"]
        minute.add(row(event))
        match chance.randrange(4):
            case 0:
                parts[number].append(minute.take())
            case 1:  # and what is kept in a snapshot is all that later ones need
                parts[number].append(minute.take())
                minutes[number, event.user_id == "u-1"] = Minute.of(minute.state())
    for (number, _), minute in minutes.items():
        parts[number].append(minute.take())
        assert minute.take() == []
    assert revenue(parts) == expected


def test_a_minute_ends_with_its_last_millisecond() -> None:
    expected = expected_revenue([order("o-1", at=START + 59_999), order("o-2", at=START + 60_000)])
    assert {start for start, *_ in expected} == {START, START + MINUTE}
    (first,) = revenue_rows([("total", "*", 5, 1, 1, 0)], START, "JPY", "EARLY")
    assert (first.window_start, first.window_end, first.currency) == (START, START + 60_000, "JPY")


def test_a_user_counts_once_in_each_figure_that_has_an_order_of_theirs() -> None:
    minute = Minute()
    minute.add(("u-1", "o-1", START, 10, "Izmir", True, [("books", 6), ("tea", 4)], "TRY"))
    minute.add(("u-1", "o-2", START, 20, "Muğla", False, [("tea", 20)], "TRY"))
    assert sorted(minute.take()) == [
        ("category", "books", 6, 1, 1, 1),
        ("category", "tea", 24, 2, 1, 1),
        ("region", "Izmir", 10, 1, 1, 1),
        ("region", "Muğla", 20, 1, 1, 0),
        ("total", "*", 30, 2, 1, 1),
    ]
    minute.add(("u-1", "o-3", START, 1, "Izmir", False, [], "TRY"))
    minute.add(("u-2", "o-4", START, 2, "Izmir", False, [("toys", 2)], "TRY"))
    assert sorted(minute.take()) == [
        ("category", "toys", 2, 1, 1, 0),
        ("region", "Izmir", 3, 2, 1, 0),
        ("total", "*", 3, 2, 1, 0),
    ]


def test_a_user_of_very_many_figures_is_remembered_in_all_of_them_also_by_a_snapshot() -> None:
    def new_users(minute: Minute) -> int:
        for i in range(50):
            minute.add(("bot", f"o-{i}", START, 1, f"r-{i}", False, [], "TRY"))
        return sum(users for *_, users, _ in minute.take())

    minute = Minute()
    assert new_users(minute) == 51
    assert new_users(minute) == 0
    assert new_users(Minute.of(minute.state())) == 0


@given(st.lists(st.tuples(st.sampled_from(["b", "a", "Ç"]), AMOUNTS)))
def test_category_totals_are_sums_that_end_at_64_bits(items: list[tuple[str, int]]) -> None:
    found = category_totals(items)
    assert found == sorted(found)
    assert dict(found) == {c: min(sum(m for d, m in items if d == c), MAX_LONG) for c, _ in items}


def test_a_newer_version_knows_more_orders_or_is_of_a_later_pane() -> None:
    assert version(0, "EARLY") < version(0, "ON_TIME") < version(0, "LATE") < version(1, "EARLY")
    panes: tuple[Pane, ...] = ("EARLY", "ON_TIME", "LATE")
    versions = [version(n, pane) for n in (3, 4, 1_000) for pane in panes]
    assert versions == sorted(set(versions))
