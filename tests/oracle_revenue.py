"""The revenue that a set of orders must give, written from the semantics and sharing no code with `transforms`.

Plain and slow on purpose: all orders of a minute are looked at together, once for each figure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from schemas.events import OrderEvent

LARGEST = 9_223_372_036_854_775_807


class Revenue(NamedTuple):
    gmv_minor: int
    order_count: int
    unique_users: int
    first_time_orders: int


Key = tuple[int, str, str, str]
"""Beginning of the minute in ms, currency, dimension, value."""


def expected_revenue(orders: Iterable[OrderEvent]) -> dict[Key, Revenue]:
    """The final figures of valid orders that are not late; an order_id counts once."""
    once: dict[str, OrderEvent] = {}
    for order in sorted(orders, key=lambda o: (o.event_time, o.order_id)):
        if order.order_status == "CREATED":
            once.setdefault(order.order_id, order)
    minutes: dict[tuple[int, str], list[OrderEvent]] = defaultdict(list)
    for order in once.values():
        minutes[order.event_time - order.event_time % 60_000, order.currency].append(order)
    figures: dict[Key, Revenue] = {}
    for (start, currency), every in minutes.items():
        figures[start, currency, "total", "*"] = _revenue([(o, o.total_amount_minor) for o in every])
        for region in {o.shipping_region for o in every}:
            inside = [(o, o.total_amount_minor) for o in every if o.shipping_region == region]
            figures[start, currency, "region", region] = _revenue(inside)
        for category in {item.category for o in every for item in o.items}:
            inside = [
                (o, sum(item.total_price_minor for item in o.items if item.category == category))
                for o in every
                if category in [item.category for item in o.items]
            ]
            figures[start, currency, "category", category] = _revenue(inside)
    return figures


def _revenue(orders: list[tuple[OrderEvent, int]]) -> Revenue:
    return Revenue(
        gmv_minor=min(sum(amount for _, amount in orders), LARGEST),
        order_count=len(orders),
        unique_users=len({o.user_id for o, _ in orders}),
        first_time_orders=sum(o.is_first_order for o, _ in orders),
    )
