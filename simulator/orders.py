"""Orders: what is bought, and the statuses that follow."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import msgspec

from schemas.currencies import DEFAULT
from schemas.events import OrderEvent, OrderItem, OrderStatus
from simulator.catalogue import PAYMENT_METHODS, PRODUCTS, REGIONS, priced
from simulator.config import ORDERS, Event
from simulator.fraud import Pattern
from simulator.prices import Prices
from simulator.stock import Stock
from simulator.ticks import HOUR_MS
from simulator.timeline import Timeline
from simulator.users import User, Users

__all__ = ["Orders"]

_MINUTE: Final = 60_000
_FREE_SHIPPING_FROM: Final = 50_000
_MOST_WAITING: Final = 300_000


class Orders:
    """Creates orders and lets them go their way.

    Args:
      stock: None: nobody asks for stock movements.
    """

    def __init__(self, timeline: Timeline, users: Users, stock: Stock | None, prices: Prices):
        self._timeline = timeline
        self._prices = prices
        self._users = users
        self._stock = stock

    def create(self, user: User, lines: list[OrderItem], session_id: str, when: int) -> Event:
        order = self._order(user.user_id, user.region, lines, session_id, when, is_first=not user.has_ordered)
        user.has_ordered = True
        timeline = self._timeline
        if self._stock:
            self._stock.sold(order.order_id, lines, when)
        for status, delay in self._fate():
            # In the long run as many orders reach a status as are created. At the beginning those are orders from
            # before the start: one of the same age as this one will have. And where too many orders are under way to
            # remember them all, it is another than this one.
            forgotten = delay > HOUR_MS and timeline.waiting > _MOST_WAITING
            if not forgotten:
                timeline.at(when + delay, partial(self._proceed, order, status))
            if forgotten or when - delay < timeline.start_ms:
                timeline.at(when + int(timeline.random.random() * _MINUTE), partial(self.earlier, status))
        return Event(ORDERS, user.user_id, when, order)

    def earlier(self, status: OrderStatus, when: int) -> Event:
        """An order created before the start enters a status."""
        user = self._users.some()
        user.has_ordered = True
        order = self.random(when, user.user_id, user.region)
        return Event(ORDERS, user.user_id, when, msgspec.structs.replace(order, order_status=status))

    def random(self, when: int, user_id: str, region: str) -> OrderEvent:
        """A valid order, worth less than the high-value bound of the fraud rules and not a first one."""
        product = PRODUCTS.choose(self._timeline.random)
        while product.price_minor > 400_000:
            product = PRODUCTS.choose(self._timeline.random)
        session_id = self._timeline.identifier("s")
        return self._order(user_id, region, [product.line(1)], session_id, when, is_first=False)

    def plant(self, pattern: Pattern, now: int) -> None:
        """Lays out a pattern's orders from now on, on a user made for it."""
        timeline, rng = self._timeline, self._timeline.random
        user_id = timeline.identifier("fraud")
        home = REGIONS.choose(rng)
        away = REGIONS.choose(rng)
        while away == home:
            away = REGIONS.choose(rng)
        orders: list[OrderEvent] = []
        start = now + 1 + int(rng.random() * 2_000)
        for i, step in enumerate(pattern.steps):
            when = start + step.at_ms
            if step.order is None:
                order = self._of_amount(user_id, away if step.away else home, step.amount_minor, when, step.first)
            else:
                order = orders[step.order]
            orders.append(msgspec.structs.replace(order, order_status=step.status, event_time=when))
            timeline.at(when, partial(_place, orders[i], _truth(pattern, i, orders[i])))

    def _fate(self) -> list[tuple[OrderStatus, int]]:
        """What becomes of an order: later statuses and how long after its creation."""
        rng = self._timeline.random
        confirmed = 20_000 + int(rng.expovariate(1 / (2 * _MINUTE)))
        u = rng.random()
        if u < 0.05:
            return [("CANCELLED", confirmed + int(rng.expovariate(1 / (40 * _MINUTE))))]
        shipped = confirmed + int(rng.uniform(3, 30) * HOUR_MS)
        delivered = shipped + int(rng.uniform(18, 80) * HOUR_MS)
        fate: list[tuple[OrderStatus, int]] = [("CONFIRMED", confirmed), ("SHIPPED", shipped), ("DELIVERED", delivered)]
        if u < 0.08:
            fate.append(("REFUNDED", delivered + int(rng.uniform(20, 120) * HOUR_MS)))
        return fate

    def _proceed(self, order: OrderEvent, status: OrderStatus, when: int) -> Event:
        if self._stock and status in ("CANCELLED", "REFUNDED"):
            self._stock.returned(order.order_id, order.items, when)
        later = msgspec.structs.replace(order, order_status=status, event_time=when)
        return Event(ORDERS, order.user_id, when, later)

    def _order(
        self,
        user_id: str,
        region: str,
        lines: list[OrderItem],
        session_id: str,
        when: int,
        *,
        is_first: bool,
        currency: str | None = None,
    ) -> OrderEvent:
        """In the user's currency, or another one."""
        rng, prices = self._timeline.random, self._prices
        currency = currency or prices.currency_of(user_id)
        lines = prices.lines(lines, currency)
        subtotal = 0
        for line in lines:
            subtotal += line.total_price_minor
        discount = subtotal * rng.choice((5, 10, 15, 20)) // 100 if rng.random() < 0.2 else 0
        free_from, fee = prices.amount(_FREE_SHIPPING_FROM, currency), prices.amount(3_990, currency)
        shipping = 0 if subtotal - discount >= free_from else fee
        return OrderEvent(
            order_id=self._timeline.identifier("o"),
            user_id=user_id,
            session_id=session_id,
            order_status="CREATED",
            items=lines,
            subtotal_minor=subtotal,
            discount_minor=discount,
            shipping_minor=shipping,
            total_amount_minor=subtotal - discount + shipping,
            currency=currency,
            payment_method=PAYMENT_METHODS.choose(rng),
            shipping_region=region,
            event_time=when,
            is_first_order=is_first,
        )

    def _of_amount(self, user_id: str, region: str, amount: int, when: int, is_first: bool) -> OrderEvent:
        """An order of an exact amount, in lira as the fraud rules that are shipped: one thing bought with a voucher for
        the difference."""
        line = priced(amount).line(1)
        order = self._order(
            user_id, region, [line], self._timeline.identifier("s"), when, is_first=is_first, currency=DEFAULT
        )
        return msgspec.structs.replace(
            order, discount_minor=line.total_price_minor - amount, shipping_minor=0, total_amount_minor=amount
        )


def _place(order: OrderEvent, truth: tuple[dict[str, Any], ...], when: int) -> Event:
    return Event(ORDERS, order.user_id, when, order, truth=truth)


def _truth(pattern: Pattern, i: int, order: OrderEvent) -> tuple[dict[str, Any], ...]:
    about = {
        "user_id": order.user_id,
        "order_id": order.order_id,
        "event_time": order.event_time,
        "pattern": pattern.name,
    }
    if pattern.is_near_miss and i == len(pattern.steps) - 1:
        return ({"kind": "near_miss", "rule": pattern.rule} | about,)
    return tuple({"kind": "fraud", "rule": rule} | about for rule in pattern.steps[i].alerts)
