"""Invalid orders and clicks of every kind in the validity rules."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from schemas.events import ClickstreamEvent, OrderEvent
from simulator.config import CLICKS, ORDERS, Event
from simulator.shop import Shop
from simulator.ticks import HOUR_MS
from simulator.wire import PLACEHOLDER, Wire

__all__ = ["Poison"]

_YEAR_2100: Final = 4_102_444_800_000
_CURRENCIES: Final = ("", "TL", "try", "TRYX", "₺", "T1Y")

_Change = Callable[[Any, random.Random], dict[str, Any]]


def _negative_order(order: OrderEvent, rng: random.Random) -> dict[str, Any]:
    field = rng.choice(("subtotal_minor", "discount_minor", "shipping_minor", "total_amount_minor", "items"))
    if field == "items":
        item = order.items[0]
        broken = msgspec.structs.replace(item, total_price_minor=-item.total_price_minor)
        return {"items": [broken, *order.items[1:]]}
    return {field: -1 - rng.randrange(100_000)}


def _no_quantity(order: OrderEvent, rng: random.Random) -> dict[str, Any]:
    broken = msgspec.structs.replace(order.items[0], quantity=rng.choice((0, 0, -1)))
    return {"items": [broken, *order.items[1:]]}


def _not_positive(_: Any, rng: random.Random) -> dict[str, Any]:
    return {"event_time": rng.choice((0, -1, -1_700_000_000_000))}


_CHANGES: Final[dict[str, dict[str, _Change]]] = {
    ORDERS: {
        "negative_amount": _negative_order,
        "quantity_below_1": _no_quantity,
        "empty_user_id": lambda _order, _rng: {"user_id": ""},
        "empty_order_id": lambda _order, _rng: {"order_id": ""},
        "bad_currency": lambda _order, rng: {"currency": rng.choice(_CURRENCIES)},
        "time_not_positive": _not_positive,
    },
    CLICKS: {
        "negative_amount": lambda click, _rng: {"price_minor": -1 - click.price_minor},
        "quantity_below_1": lambda _click, rng: {"event_type": "ADD_TO_CART", "quantity": rng.choice((0, 0, -1))},
        "empty_user_id": lambda _click, _rng: {"user_id": ""},
        "empty_event_id": lambda _click, _rng: {"event_id": ""},
        "time_not_positive": _not_positive,
    },
}


class Poison:
    """Makes bad records; every kind comes up once before any comes up again.

    Their Kafka timestamp stays sane (brokers refuse others), and their key is that of a user, so that they spread over
    the partitions.
    """

    def __init__(self, shop: Shop, wire: Wire, rng: random.Random):
        self._shop = shop
        self._wire = wire
        self._rng = rng
        self._reasons = {
            topic: self._in_rounds([*_CHANGES[topic], "time_in_future", *wire.faults]) for topic in _CHANGES
        }

    def next(self, topic: str, timestamp_ms: int) -> Event:
        reason = next(self._reasons[topic])
        user = self._shop.users.some()
        made = self._shop.random_record(topic, timestamp_ms, user.user_id, user.region)
        good = msgspec.structs.replace(made, session_id=PLACEHOLDER)
        truth = {"kind": "bad", "reason": reason, "topic": topic, "key": user.user_id, "timestamp": timestamp_ms}
        fault = self._wire.faults.get(reason)
        if fault:
            payload = fault(topic, good, self._rng)
            return Event(topic, user.user_id, timestamp_ms, None, "bad", payload, (truth,))
        bad = msgspec.structs.replace(good, **self._change(topic, reason, good))
        truth["id"] = bad.event_id if isinstance(bad, ClickstreamEvent) else bad.order_id
        return Event(topic, user.user_id, timestamp_ms, bad, "bad", truth=(truth,))

    def _change(self, topic: str, reason: str, good: ClickstreamEvent | OrderEvent) -> dict[str, Any]:
        if reason != "time_in_future":
            return _CHANGES[topic][reason](good, self._rng)
        if self._wire.has_timestamps:
            return {"event_time": good.event_time + HOUR_MS + self._rng.choice((1, 60_000, 30 * 24 * HOUR_MS))}
        # Files are judged by the clock of whoever reads them.
        return {"event_time": _YEAR_2100 + self._rng.randrange(24 * HOUR_MS)}

    def _in_rounds(self, reasons: list[str]) -> Iterator[str]:
        while True:
            self._rng.shuffle(reasons)
            yield from list(reasons)
