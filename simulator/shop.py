"""The shop: users browse, buy, and their orders and stock move on, all in event time.

Pure: the events follow from the config alone. Whatever is going to happen waits in one queue ordered by time; each tick
takes what is due, and when nothing is due a new visit begins. So the rate is exact, event times never go back, and the
number of visits under way finds its own balance.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import msgspec

from schemas.events import ClickstreamEvent, EventType, InventoryEvent, Movement, OrderEvent, OrderItem, OrderStatus
from simulator.catalogue import (
    DEVICES,
    PAYMENT_METHODS,
    PRODUCTS,
    QUERIES,
    REFERRERS,
    REGIONS,
    Product,
    priced,
)
from simulator.config import CLICKS, INVENTORY, ORDERS, Config, Event
from simulator.fraud import Pattern, Patterns
from simulator.ticks import HOUR_MS, Ticks

__all__ = ["Shop", "events"]

_MINUTE: Final = 60_000
# Two orders of an ordinary user are further apart than any fraud rule looks at two or three CREATED orders.
_ORDER_GAP: Final = 11 * _MINUTE
_WAREHOUSES: Final = ("IST-1", "ANK-1", "IZM-1")
_LOW_STOCK: Final = 30
_FREE_SHIPPING_FROM: Final = 50_000
# Hardly a visit is longer; so long after the start it does not matter any more that the shop was open before.
_WARM_UP: Final = 20 * _MINUTE
_LEAVES: Final = 0.12  # a visit's chance to end at a click, roughly
_MOST_WAITING: Final = 300_000


def events(config: Config) -> Iterator[Event]:
    """The shop's traffic in the order of event time: ordinary users and planted fraud, every record valid.

    Poison, late records, duplicates and a shuffled arrival order are added by `simulator.arrival.arrivals`, not here.
    Ends after `config.events` or `config.duration_ms`; endless when both are None.

        config = Config(seed=7, start_ms=1_767_225_600_000, rate=50, events=10_000, topics=("clickstream.events",))
        clicks = [event.record for event in events(config)]

    Users of planted fraud are called `fraud-…`; what the fraud rules say about their orders stands in `event.truth`.
    """
    yield from Shop(config).traffic(Ticks(config))


class _User:
    __slots__ = ("device", "has_ordered", "is_here", "last_order_ms", "region", "user_id")

    def __init__(self, user_id: str, rng: random.Random):
        self.user_id = user_id
        self.region = REGIONS.choose(rng)
        self.device = DEVICES.choose(rng)
        self.has_ordered = rng.random() < 0.8
        self.last_order_ms = -_ORDER_GAP
        self.is_here = False


class Shop:
    """One shop, from opening; see `events`."""

    def __init__(self, config: Config):
        self.random = random.Random(f"{config.seed}/shop")
        self.run = config.run
        self._start = config.start_ms
        self._clicks = CLICKS in config.topics
        self._orders = ORDERS in config.topics
        self._inventory = INVENTORY in config.topics
        self._user_count = config.users
        self._users: dict[int, _User] = {}
        self._due: list[tuple[int, int, Callable[[int], Event]]] = []
        self._sequence = 0
        self._numbers = {"c": 0, "s": 0, "o": 0, "i": 0, "fraud": 0, "late": 0}
        self._stock: dict[tuple[str, str], int] = {}
        self._restocking: set[tuple[str, str]] = set()
        patterns = config.fraud_share > 0 and self._orders
        self._patterns = Patterns(config.fraud_share, random.Random(f"{config.seed}/fraud")) if patterns else None

    def traffic(self, ticks: Ticks) -> Iterator[Event]:
        due = self._due
        while (now := ticks.next()) is not None:
            if due and due[0][0] <= now:
                when, _, happen = heapq.heappop(due)
                event = happen(when)
            else:
                event = self._begin(now)
            if event.topic == ORDERS and self._patterns and not event.key.startswith("fraud"):
                pattern = self._patterns.after_order()
                if pattern:
                    self._plant(pattern, event.timestamp_ms)
            yield event

    def at(self, when: int, happen: Callable[[int], Event]) -> None:
        """Lets something happen at a time not before the current one."""
        self._sequence += 1
        heapq.heappush(self._due, (when, self._sequence, happen))

    def identifier(self, kind: str) -> str:
        """A new id. Zero-padded: ids of a kind sort as they were made."""
        number = self._numbers[kind] = self._numbers[kind] + 1
        return f"{kind}-{self.run}-{number:09d}"

    def some_user(self) -> _User:
        """A user of the shop; a few come much more often than most."""
        number = int(self._user_count * self.random.random() ** 1.2)
        user = self._users.get(number)
        if user is None:
            user = self._users[number] = _User(f"user-{number + 1:06d}", self.random)
        return user

    def random_order(self, when: int, user_id: str, region: str) -> OrderEvent:
        """A valid order, worth less than the high-value bound of the fraud rules and not a first one."""
        line = PRODUCTS.choose(self.random)
        while line.price_minor > 400_000:
            line = PRODUCTS.choose(self.random)
        return self._order(user_id, region, [line.line(1)], self.identifier("s"), when, is_first=False)

    def random_click(self, when: int, user_id: str, region: str) -> ClickstreamEvent:
        """A valid product view."""
        product = PRODUCTS.choose(self.random)
        return ClickstreamEvent(
            event_id=self.identifier("c"),
            user_id=user_id,
            session_id=self.identifier("s"),
            event_type="PRODUCT_VIEW",
            product_id=product.product_id,
            category=product.category,
            price_minor=product.price_minor,
            event_time=when,
            device_type=DEVICES.choose(self.random),
            geo_region=region,
            page_url=f"/p/{product.product_id}",
        )

    def _begin(self, now: int) -> Event:
        if self._clicks:
            return self._begin_visit(now)
        lines = [PRODUCTS.choose(self.random).line(1 + int(self.random.random() ** 4 * 4))]
        if not self._orders:
            return self._sell(self.identifier("o"), lines[0], now)
        for _ in range(8):
            user = self.some_user()
            if now - user.last_order_ms >= _ORDER_GAP:
                user.last_order_ms = now
                return self._create(user, lines, self.identifier("s"), now)
        # Too few users for this rate: rather orders from before than users who seem to be fraudulent.
        return self._earlier_order("SHIPPED", now)

    def _begin_visit(self, now: int) -> Event:
        if now - self._start < _WARM_UP:
            visit = self._visit_under_way(now)
            if visit:
                return visit(now)
        return _Visit(self, self._visitor())(now)

    def _visit_under_way(self, now: int) -> _Visit | None:
        """A visit that began before the start, so that the first minute already has purchases; else None."""
        user = self._visitor()
        visit = _Visit(self, user)
        then = now
        for _ in range(int(math.log(1.0 - self.random.random()) / math.log(1 - _LEAVES))):
            if visit.next == "PURCHASE":
                break
            visit.click(then)
            after = visit.plan(then)
            if after is None:
                return None
            then = after
        if then - now > now - self._start:
            return visit
        user.is_here = False
        return None

    def _visitor(self) -> _User:
        user = self.some_user()
        for _ in range(3):
            if not user.is_here:
                break
            user = self.some_user()
        user.is_here = True
        return user

    def checkout(self, user: _User, lines: list[OrderItem], session_id: str, when: int) -> None:
        if self._orders:
            self.at(when, partial(self._create, user, lines, session_id))
        elif self._inventory:
            order_id = self.identifier("o")
            for line in lines:
                self.at(when + 300, partial(self._sell, order_id, line))

    def _create(self, user: _User, lines: list[OrderItem], session_id: str, when: int) -> Event:
        order = self._order(user.user_id, user.region, lines, session_id, when, is_first=not user.has_ordered)
        user.has_ordered = True
        if self._inventory:
            for line in lines:
                self.at(when + 200 + int(self.random.random() * 700), partial(self._sell, order.order_id, line))
        for status, delay in self._fate():
            # In the long run as many orders reach a status as are created. At the beginning those are orders from
            # before the start: one of the same age as this one will have. And where too many orders are under way to
            # remember them all, it is another than this one.
            forgotten = delay > HOUR_MS and len(self._due) > _MOST_WAITING
            if not forgotten:
                self.at(when + delay, partial(self._proceed, order, status))
            if forgotten or when - delay < self._start:
                self.at(when + int(self.random.random() * _MINUTE), partial(self._earlier_order, status))
        return Event(ORDERS, user.user_id, when, order)

    def _fate(self) -> list[tuple[OrderStatus, int]]:
        """What becomes of an order: later statuses and how long after its creation."""
        rng = self.random
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
        if self._inventory and status in ("CANCELLED", "REFUNDED"):
            for line in order.items:
                self.at(when + 2_000, partial(self._move, line.product_id, "RETURN", line.quantity, order.order_id))
        later = msgspec.structs.replace(order, order_status=status, event_time=when)
        return Event(ORDERS, order.user_id, when, later)

    def _earlier_order(self, status: OrderStatus, when: int) -> Event:
        user = self.some_user()
        order = self.random_order(when, user.user_id, user.region)
        return Event(ORDERS, user.user_id, when, msgspec.structs.replace(order, order_status=status))

    def _order(
        self, user_id: str, region: str, lines: list[OrderItem], session_id: str, when: int, *, is_first: bool
    ) -> OrderEvent:
        rng = self.random
        subtotal = 0
        for line in lines:
            subtotal += line.total_price_minor
        discount = subtotal * rng.choice((5, 10, 15, 20)) // 100 if rng.random() < 0.2 else 0
        shipping = 0 if subtotal - discount >= _FREE_SHIPPING_FROM else 3_990
        return OrderEvent(
            order_id=self.identifier("o"),
            user_id=user_id,
            session_id=session_id,
            order_status="CREATED",
            items=lines,
            subtotal_minor=subtotal,
            discount_minor=discount,
            shipping_minor=shipping,
            total_amount_minor=subtotal - discount + shipping,
            currency="TRY",
            payment_method=PAYMENT_METHODS.choose(rng),
            shipping_region=region,
            event_time=when,
            is_first_order=is_first,
        )

    def _sell(self, order_id: str, line: OrderItem, when: int) -> Event:
        return self._move(line.product_id, "SALE", -line.quantity, order_id, when)

    def _move(self, product_id: str, movement: Movement, change: int, order_id: str | None, when: int) -> Event:
        warehouse = _WAREHOUSES[int(self.random.random() ** 2 * 3)]
        shelf = (product_id, warehouse)
        stock = self._stock.get(shelf)
        if stock is None:
            stock = self.random.randrange(35, 160)
        if stock + change < 0:
            # Sold faster than restocked: goods come first, the sale follows at once.
            self.at(when, partial(self._move, product_id, movement, change, order_id))
            return self._restock(shelf, when)
        self._stock[shelf] = stock = stock + change
        if stock < _LOW_STOCK and shelf not in self._restocking:
            self._restocking.add(shelf)
            self.at(when + self.random.randrange(10, 60) * _MINUTE, partial(self._restock, shelf))
        if self.random.random() < 0.002:
            self.at(
                when + _MINUTE, partial(self._move, product_id, "ADJUSTMENT", self.random.choice((-2, -1, 1)), None)
            )
        return self._moved(shelf, movement, change, order_id, when)

    def _restock(self, shelf: tuple[str, str], when: int) -> Event:
        self._restocking.discard(shelf)
        self._stock[shelf] = self._stock.get(shelf, 0) + 300
        return self._moved(shelf, "RESTOCK", 300, None, when)

    def _moved(self, shelf: tuple[str, str], movement: Movement, change: int, order_id: str | None, when: int) -> Event:
        product_id, warehouse = shelf
        record = InventoryEvent(
            self.identifier("i"), product_id, warehouse, movement, change, self._stock[shelf], when, order_id
        )
        return Event(INVENTORY, product_id, when, record)

    def _plant(self, pattern: Pattern, now: int) -> None:
        """Lays out a pattern's orders from now on, on a user made for it."""
        user_id = self.identifier("fraud")
        home = REGIONS.choose(self.random)
        away = REGIONS.choose(self.random)
        while away == home:
            away = REGIONS.choose(self.random)
        orders: dict[int, OrderEvent] = {}
        start = now + 1 + int(self.random.random() * 2_000)
        for i, step in enumerate(pattern.steps):
            when = start + step.at_ms
            if step.order is None:
                order = self._fraud_order(user_id, away if step.away else home, step.amount_minor, when, step.first)
            else:
                order = orders[step.order]
            orders[i] = msgspec.structs.replace(order, order_status=step.status, event_time=when)
            self.at(when, partial(_deliver, orders[i], self._truth(pattern, i, orders[i])))

    def _fraud_order(self, user_id: str, region: str, amount: int, when: int, is_first: bool) -> OrderEvent:
        """An order of an exact amount: one thing bought with a voucher for the difference."""
        line = priced(amount).line(1)
        order = self._order(user_id, region, [line], self.identifier("s"), when, is_first=is_first)
        return msgspec.structs.replace(
            order, discount_minor=line.total_price_minor - amount, shipping_minor=0, total_amount_minor=amount
        )

    def _truth(self, pattern: Pattern, i: int, order: OrderEvent) -> tuple[dict[str, Any], ...]:
        about = {
            "user_id": order.user_id,
            "order_id": order.order_id,
            "event_time": order.event_time,
            "pattern": pattern.name,
        }
        if pattern.is_near_miss and i == len(pattern.steps) - 1:
            return ({"kind": "near_miss", "rule": pattern.rule} | about,)
        return tuple({"kind": "fraud", "rule": rule} | about for rule in pattern.steps[i].alerts)


def _deliver(order: OrderEvent, truth: tuple[dict[str, Any], ...], when: int) -> Event:
    return Event(ORDERS, order.user_id, when, order, truth=truth)


class _Visit:
    """One user's way through the site. Calling it makes the next click and plans the one after."""

    __slots__ = ("cart", "clicks", "next", "paid", "product", "session_id", "shop", "user")

    def __init__(self, shop: Shop, user: _User):
        self.shop = shop
        self.user = user
        self.session_id = shop.identifier("s")
        self.product: Product | None = None
        self.cart: list[tuple[Product, int]] = []
        self.paid = False
        self.clicks = 0
        u = shop.random.random()
        self.next: EventType = "PAGE_VIEW" if u < 0.55 else "PRODUCT_VIEW" if u < 0.85 else "SEARCH"

    def __call__(self, when: int) -> Event:
        if self.next == "PURCHASE" and not self.paid:
            self._pay(when)
        click = self.click(when)
        after = self.plan(when)
        if after is not None:
            self.shop.at(after, self)
        return Event(CLICKS, self.user.user_id, when, click)

    def click(self, when: int) -> ClickstreamEvent:
        """The click that is next."""
        shop, user = self.shop, self.user
        rng = shop.random
        kind = self.next
        quantity = None
        product: Product | None
        if kind == "PRODUCT_VIEW":
            self.product = product = PRODUCTS.choose(rng)
            url = "/p/" + product.product_id
        elif kind == "PAGE_VIEW":
            product = None if rng.random() < 0.4 else PRODUCTS.choose(rng)
            url = "/c/" + product.page if product else "/"
        elif kind == "SEARCH":
            product = None
            url = "/search?q=" + QUERIES.choose(rng)
        elif kind == "ADD_TO_CART":
            product = self.product
            quantity = 1 + int(rng.random() ** 4 * 4)
            self.cart.append((product, quantity))  # type: ignore[arg-type]
            url = "/cart"
        elif kind == "REMOVE_FROM_CART":
            product, quantity = self.cart.pop()
            url = "/cart"
        elif kind == "PURCHASE":
            product, quantity = self.cart.pop(0)
            url = "/thanks"
        else:
            product = None
            url = "/checkout"
        is_page = kind == "PAGE_VIEW" or product is None
        click = ClickstreamEvent(
            event_id=shop.identifier("c"),
            user_id=user.user_id,
            session_id=self.session_id,
            event_type=kind,
            product_id=None if is_page else product.product_id,  # type: ignore[union-attr]
            category=product.category if product else None,
            price_minor=None if is_page else product.price_minor,  # type: ignore[union-attr]
            quantity=quantity,
            event_time=when,
            device_type=user.device,
            geo_region=user.region,
            page_url=url,
            referrer=REFERRERS.choose(rng) if self.clicks == 0 else None,
        )
        self.clicks += 1
        return click

    def plan(self, when: int) -> int | None:
        """Chooses the click after the one just made, and when it comes; None: the user leaves."""
        after = self._choose(self.next, when)
        if after is None:
            self.user.is_here = False
        return after

    def _choose(self, kind: EventType, when: int) -> int | None:
        rng = self.shop.random
        u = rng.random()
        # Seconds until the next click; mostly 5 to 40, now and then the user does something else for some minutes.
        pause = 3_000 - math.log(1.0 - rng.random()) * (15_000 if rng.random() < 0.97 else 300_000)
        if kind == "CHECKOUT_START":
            if u > 0.75 or when - self.user.last_order_ms < _ORDER_GAP:
                return None
            self.next = "PURCHASE"
            self.paid = False
        elif kind == "PURCHASE":
            if self.cart:
                return when
            if u < 0.8:
                return None
            self.next = "PAGE_VIEW"
        elif kind == "PRODUCT_VIEW" and u < 0.24 and len(self.cart) < 8:
            self.next = "ADD_TO_CART"
        elif self.cart and u < 0.45:
            self.next = "REMOVE_FROM_CART" if u < 0.27 else "CHECKOUT_START"
        elif u > 0.87:
            return None
        else:
            self.next = "PRODUCT_VIEW" if u < 0.55 else "PAGE_VIEW" if u < 0.75 else "SEARCH"
        return when + int(pause)

    def _pay(self, when: int) -> None:
        """One PURCHASE click per line of the cart comes now; right after them the order."""
        if when - self.user.last_order_ms < _ORDER_GAP:  # has paid in another window meanwhile
            self.cart.clear()
            self.next = "PAGE_VIEW"
            return
        self.paid = True
        created = when + 80 + int(self.shop.random.random() * 300)
        self.user.last_order_ms = created
        self.shop.checkout(self.user, [product.line(n) for product, n in self.cart], self.session_id, created)
