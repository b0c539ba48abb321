"""Random rules files of version 2, and orders close to all their bounds."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import strategies as st

from schemas.events import OrderEvent
from tests.build import MINUTE, SECOND, T0, item, order

# Few values of everything, so that conditions are met, patterns completed and bounds hit.
SPANS = st.sampled_from(["1ms", "1m", "5m", "10m", "10m", "46m"])
AMOUNTS = st.sampled_from([0, 100, 100.01, 250])  # TRY
SIGNS = st.sampled_from(["above", "at_least", "below", "at_most"])
CURRENCIES = ["TRY", "TRY", "TRY", "JPY"]
REGIONS, CARDS, SESSIONS = ["Istanbul", "Izmir", ""], ["card", "wallet"], ["s-1", "s-2"]
CATEGORIES, PRODUCTS = ["gifts", "kitchen", "garden"], ["p-1", "p-2"]


def some(values: list[str]) -> st.SearchStrategy[Any]:
    return st.sampled_from(values) | st.lists(st.sampled_from(values), min_size=1, max_size=3)


def compared(bounds: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(SIGNS, bounds, min_size=1, max_size=2)


money = compared(
    AMOUNTS | st.fixed_dictionaries({}, optional={"TRY": AMOUNTS, "JPY": st.sampled_from([0, 100])}).filter(bool)
)
item_tests = st.fixed_dictionaries(
    {},
    optional={
        "category": some(CATEGORIES),
        "product_id": some(PRODUCTS),
        "product_name": some(["Çay", "Tea"]),
        "quantity": st.integers(1, 3) | compared(st.integers(1, 3)),
        "unit_price": money,
        "total_price": money,
    },
).filter(bool)
order_tests = st.fixed_dictionaries(
    {},
    optional={
        "order_status": some(["CREATED", "CANCELLED", "SHIPPED"]),
        "currency": some(["TRY", "JPY"]),
        "is_first_order": st.booleans(),
        "payment_method": some(CARDS),
        "shipping_region": some(REGIONS),
        "session_id": some(SESSIONS),
        "user_id": some(["u-1", "u-2"]),
        "order_id": some(["o-1", "o-2", "o-3"]),
        "total_amount": money,
        "subtotal": money,
        "discount": money,
        "shipping": money,
        "hour": some([14, 15, 16, 17]) | compared(st.integers(14, 17)),  # type: ignore[arg-type]
        "items": item_tests.flatmap(lambda test: joined(st.just(test))),
    },
).filter(lambda tests: 0 < len(tests) <= 3)


def joined(tests: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Tests, and what `all`, `any` and `not` make of them."""
    return st.recursive(
        tests,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=2).map(lambda parts: {"all": parts}),
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
            inner.map(lambda part: {"not": part}),
        ),
        max_leaves=4,
    )


conditions = joined(order_tests)
# What many orders meet, so that patterns of several are there.
usual = st.sampled_from(
    [
        {"order_status": "CREATED"},
        {"order_status": ["CREATED", "CANCELLED"]},
        {"not": {"shipping_region": "Izmir"}},
        {"total_amount": {"at_least": 100}},
        {"any": [{"payment_method": "card"}, {"items": {"category": "gifts"}}]},
    ]
)
steps = st.one_of(usual, usual, usual, conditions)
wheres = st.one_of(st.none(), usual, usual, conditions)


def rule(kind: str, **said: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fixed = {"kind": st.just(kind), "risk_score": st.just(0.5), **said}
    return st.fixed_dictionaries(fixed).map(lambda r: {k: v for k, v in r.items() if v is not None})


ONE_VALUE = ["session_id", "payment_method", "shipping_region", "currency"]
RULES = {
    "count": st.one_of(
        rule("count", where=wheres, at_least=st.integers(2, 3), within=SPANS),
        rule("count", where=wheres, at_least=st.integers(2, 3), within=SPANS),
        rule("count", where=wheres, at_least=st.just(1)),
    ),
    "sum": rule(
        "sum",
        where=wheres,
        of=st.sampled_from([None, "total_amount", "subtotal", "discount", "shipping"]),
        above=st.sampled_from([0, 100, 250, {"JPY": 150}]),
        within=SPANS,
    ),
    "distinct": rule(
        "distinct",
        where=wheres,
        of=st.sampled_from([*ONE_VALUE, "items.product_id", "items.category"]),
        at_least=st.integers(2, 3),
        within=SPANS,
    ),
    "change": rule("change", where=wheres, of=st.sampled_from(ONE_VALUE), within=SPANS),
    "first": rule("first", where=wheres),
    "sequence": rule("sequence", steps=st.lists(steps, min_size=2, max_size=4), within=SPANS),
    "burst": rule("burst", orders=st.integers(2, 3), within=SPANS, above=st.sampled_from([None, 100])),
    "first_order": rule("first_order", above=AMOUNTS),
    "location_change": rule("location_change", within=SPANS),
}


def files_of(rules: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[str]:
    return st.builds(
        lambda made, zone: yaml.safe_dump(
            {"version": 2, "currency": "TRY", "time_zone": zone, "rules": {f"R{i}": r for i, r in enumerate(made)}}
        ),
        st.lists(rules, min_size=1, max_size=most),
        st.sampled_from(["UTC", "Europe/Istanbul", "Asia/Kolkata"]),
    )


files = files_of(st.one_of(*RULES.values()), 3)

minor = st.sampled_from([0, 100, 9_999, 10_000, 10_001, 25_000])
orders = st.builds(
    order,
    st.integers(1, 20).map("o-{}".format),
    at=st.builds(
        lambda minutes, offset: T0 + minutes * MINUTE + offset,
        st.sampled_from([0, 1, 2, 4, 5, 6, 9, 10, 11, 15, 46, 47]),  # T0 is 14:13:20 UTC
        st.sampled_from([0, 0, 0, 1, -1, -20 * SECOND]),
    ),
    status=st.sampled_from(["CREATED", "CREATED", "CREATED", "CREATED", "CANCELLED", "SHIPPED"]),
    amount=minor,
    subtotal_minor=minor,
    discount_minor=minor,
    shipping_minor=minor,
    currency=st.sampled_from(CURRENCIES),
    region=st.sampled_from(REGIONS),
    payment_method=st.sampled_from(CARDS),
    session_id=st.sampled_from(SESSIONS),
    user=st.sampled_from(["u-1", "u-1", "u-1", "u-1", "u-2"]),
    is_first_order=st.booleans(),
    items=st.lists(
        st.builds(
            item,
            product_id=st.sampled_from(PRODUCTS),
            product_name=st.sampled_from(["Çay", "Tea"]),
            category=st.sampled_from(CATEGORIES),
            quantity=st.integers(1, 3),
            unit_price_minor=minor,
            total_price_minor=minor,
        ),
        max_size=3,
    ),
)
of_one = {"unique_by": lambda o: (o.order_id, o.order_status)}
# Hypothesis prefers short lists, in which few patterns are.
histories: st.SearchStrategy[list[OrderEvent]] = st.one_of(
    st.lists(orders, max_size=4, **of_one),  # type: ignore[arg-type]
    st.lists(orders, min_size=7, max_size=14, **of_one),  # type: ignore[arg-type]
    st.lists(orders, min_size=9, max_size=14, **of_one),  # type: ignore[arg-type]
)
