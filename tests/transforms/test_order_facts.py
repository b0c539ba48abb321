"""Facts of orders: by columns as one by one, each once, and their totals."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.events import OrderEvent
from tests.build import MINUTE, T0, block, make_fetch, order
from transforms.decode import ORDERS, BlockDecoder
from transforms.domain.days import Days
from transforms.keyed_state import shard_of
from transforms.order_facts import Facts, facts_of, fingerprints, once, totals

ids = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=256)
DAY = 86_400_000


def facts(orders: list[OrderEvent], by_columns: bool = True) -> Facts:
    decoder = BlockDecoder(ORDERS, "backtest", make_fetch(), 1 << 50)
    decoded = decoder.decode(block(orders, times_ms=T0 + 2 * DAY))
    assert decoded.good == len(orders)
    if by_columns:
        assert not decoded.records
    else:
        decoded = decoded._replace(parts=[], records=orders)
    return facts_of(decoded, 16)


@given(st.lists(st.tuples(ids, ids, st.integers(0, (1 << 63) - 1), st.sampled_from(("TRY", "XYZ"))), max_size=5))
def test_columns_and_records_have_the_same_facts(given_: list[tuple[str, str, int, str]]) -> None:
    orders = [
        order(order_id, user=user, total_amount_minor=amount, currency=currency, status="CANCELLED")
        for order_id, user, amount, currency in given_
    ]
    found = facts(orders)
    assert found.tolist() == facts(orders, by_columns=False).tolist()
    assert found["order"].tolist() == fingerprints(o.order_id for o in orders).tolist()
    assert found["shard"].tolist() == [shard_of(o.user_id.encode(), 16) for o in orders]


def test_ids_that_differ_have_fingerprints_that_differ() -> None:
    texts = {f"o-{i:09}" for i in range(50_000)} | {"a" * i for i in range(1, 257)} | {"ab", "ba", "\x80", "\u0100"}
    assert len(np.unique(fingerprints(texts))) == len(texts)


@given(st.integers(0, 1 << 30))
def test_of_repeats_the_earliest_counts_in_whatever_order_they_are_read(seed: int) -> None:
    rng = random.Random(seed)
    orders = [
        order(
            f"o-{rng.randrange(3)}",
            user=f"u-{rng.randrange(3)}",
            status=rng.choice(("CREATED", "SHIPPED")),
            at=T0 + rng.randrange(3),
            amount=rng.randrange(3),
        )
        for _ in range(rng.randrange(1, 30))
    ]
    first: dict[tuple[str, str, str], tuple[int, int]] = {}
    for o in sorted(orders, key=lambda o: (o.event_time, o.total_amount_minor)):
        first.setdefault((o.user_id, o.order_id, o.order_status), (o.event_time, o.total_amount_minor))
    kept = once(facts(orders))
    assert sorted(zip(kept["at_ms"].tolist(), kept["amount"].tolist(), strict=True)) == sorted(first.values())


def test_totals_are_of_orders_that_were_created_by_day_and_currency() -> None:
    orders = [
        order("o-1", user="u-1", amount=10),
        order("o-1", user="u-1", amount=11, status="SHIPPED", at=T0 + MINUTE),
        order("o-2", user="u-2", amount=20, at=T0 + DAY),
        order("o-3", user="u-2", amount=(1 << 63) - 1, currency="EUR", at=T0 + DAY),
        order("o-4", user="u-3", amount=1, currency="EUR", at=T0 + DAY),
        order("o-5", user="u-4", amount=7, status="CANCELLED"),
    ]
    labels = dict(zip(fingerprints(["o-1", "o-5", "o-9"]).tolist(), ["o-1", "o-5", "o-9"], strict=True))
    counts, frauds = totals(facts(orders), labels, Days("UTC"))
    assert counts == {
        ("shop", "records"): 6,
        ("shop", "users"): 3,
        ("shop", "orders"): 4,
        ("shop", "amount", "TRY"): 30,
        ("shop", "amount", "EUR"): 1 << 63,
        ("shop", "day", "2026-09-21", "orders"): 1,
        ("shop", "day", "2026-09-21", "amount", "TRY"): 10,
        ("shop", "day", "2026-09-22", "orders"): 3,
        ("shop", "day", "2026-09-22", "amount", "TRY"): 20,
        ("shop", "day", "2026-09-22", "amount", "EUR"): 1 << 63,
        ("labels", "known"): 2,
        ("labels", "amount", "TRY"): 17,
    }
    assert [(f.order_id, f.at_ms, f.amount_minor) for f in frauds.values()] == [("o-5", T0, 7), ("o-1", T0, 10)]


def test_nothing_has_no_totals() -> None:
    counts, frauds = totals(once(facts([])), {1: "o-1"}, Days("Europe/Istanbul"))
    assert (+counts, frauds) == ({}, {})


def test_an_order_of_another_schema_is_read_one_by_one() -> None:
    json_orders = [codec.to_json(order(f"o-{i}")) for i in range(3)]
    decoded = BlockDecoder(ORDERS, "backtest", make_fetch(), 1 << 50).decode(block(json_orders))
    assert len(decoded.records) == 3
    assert facts_of(decoded, 16).tolist() == facts([order(f"o-{i}") for i in range(3)]).tolist()
