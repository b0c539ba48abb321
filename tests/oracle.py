"""Which alerts a set of orders must give, written from the semantics and sharing no code with `transforms`.

An alert belongs to the order that completes a pattern when a user's orders are sorted by (event_time, order_id). Plain
and slow on purpose: every rule looks at every order with all orders before it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from schemas.events import OrderEvent

ABOVE_MINOR = 5_000_00
MINUTE_MS = 60 * 1_000

Alert = tuple[str, str, str]
"""Rule, user, completing order."""


def expected_alerts(orders: Iterable[OrderEvent]) -> set[Alert]:
    """The alerts of valid orders that are not late; repeats of an order in the same status count once."""
    once = {(o.user_id, o.order_id, o.order_status): o for o in orders}
    of_user: dict[str, list[OrderEvent]] = defaultdict(list)
    for order in sorted(once.values(), key=lambda o: (o.event_time, o.order_id)):
        of_user[order.user_id].append(order)
    return {
        (rule, user, mine[i].order_id)
        for user, mine in of_user.items()
        for i in range(len(mine))
        for rule in _completed(mine[i], mine[:i])
    }


def _completed(order: OrderEvent, before: list[OrderEvent]) -> set[str]:
    """The rules whose pattern the order completes, given the user's orders that sort before it."""

    def recent(minutes: int, status: str) -> list[OrderEvent]:
        since = order.event_time - minutes * MINUTE_MS
        return [o for o in before if o.order_status == status and o.event_time >= since]

    rules = set()
    if order.order_status == "CANCELLED" and len(recent(30, "CANCELLED")) + 1 >= 3:
        rules.add("SUSPICIOUS_PATTERN")
    if order.order_status == "CREATED":
        if len(recent(5, "CREATED")) + 1 >= 3:
            rules.add("RAPID_ORDERS")
        if _is_high(order) and len([o for o in recent(5, "CREATED") if _is_high(o)]) + 1 >= 3:
            rules.add("HIGH_VALUE_BURST")
        if _is_high(order) and order.is_first_order:
            rules.add("HIGH_VALUE_FIRST_ORDER")
        if any(o.shipping_region != order.shipping_region for o in recent(10, "CREATED")):
            rules.add("LOCATION_ANOMALY")
    return rules


def _is_high(order: OrderEvent) -> bool:
    return order.currency == "TRY" and order.total_amount_minor > ABOVE_MINOR
