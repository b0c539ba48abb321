"""The benchmark's orders: a deterministic set of OrderEvents, and the Kafka topic that holds it.

The same `Spec` gives the same records in the same order on every machine: a million orders of 100,000 users with every
fraud pattern in them, just inside and just outside each bound. Event times lie in the past and advance by 100 orders a
second: 1,000 a second would give each user ten orders in 17 minutes, and then three quarters of all orders would be
RAPID_ORDERS alerts and writing alerts the thing measured.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import topics
from schemas.codec import encode, parse_schema
from schemas.events import OrderEvent, OrderItem, avro_schema

__all__ = ["FIRST_EVENT_MS", "HIGH_VALUE_MINOR", "Encoder", "Orders", "Spec", "fill", "generate"]

FIRST_EVENT_MS: Final = 1_748_768_400_000  # 2025-06-01T09:00:00Z
HIGH_VALUE_MINOR: Final = 500_000
ARRIVAL_SPREAD_MS: Final = 2_000

_STATUSES: Final = ("CREATED", "CONFIRMED", "SHIPPED", "DELIVERED", "CANCELLED", "REFUNDED")
_CREATED: Final = _STATUSES.index("CREATED")
_CANCELLED: Final = _STATUSES.index("CANCELLED")
_REGIONS: Final = ("TR-34", "TR-06", "TR-35", "TR-16", "TR-07")
_PAYMENTS: Final = ("CREDIT_CARD", "DEBIT_CARD", "WALLET")
_CATEGORIES: Final = ("electronics", "fashion", "home", "books", "toys", "sports", "beauty", "grocery")
_ADJECTIVES: Final = ("Organic", "Wireless", "Handmade", "Compact", "Classic", "Foldable", "Waterproof")
_MINUTE_MS: Final = 60_000

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Spec:
    """What to generate.

    Attributes:
      orders: number of records, without `duplicates`.
      users: number of users; user_ids are `u-000000` and so on.
      rate: orders per second of event time.
      seed: another seed, another data set.
      duplicates: how many records arrive a second time, within two seconds of their first arrival.
    """

    orders: int = 1_000_000
    users: int = 100_000
    rate: int = 100
    seed: int = 1
    duplicates: int = 0

    def __post_init__(self) -> None:
        if min(self.orders, self.users, self.rate) < 1 or self.duplicates < 0:
            raise ValueError("orders, users and rate must be positive, duplicates not negative")

    @property
    def records(self) -> int:
        return self.orders + self.duplicates

    @property
    def topic(self) -> str:
        """A topic name of its own, so that a topic can be reused exactly when it holds this data set."""
        parts = (self.orders, self.users, self.rate, self.seed, self.duplicates)
        return "bench.orders." + ".".join(map(str, parts))


class Basket(NamedTuple):
    """What was bought, and what it cost."""

    items: list[OrderItem]
    subtotal_minor: int
    discount_minor: int
    shipping_minor: int
    total_amount_minor: int


@dataclass(frozen=True)
class Orders:
    """The data set by columns, in order of arrival."""

    spec: Spec
    order: Ints
    user: Ints
    status: Ints
    basket: Ints
    payment: Ints
    region: Ints
    event_time_ms: Ints
    is_first: Ints
    baskets: list[Basket]

    def events(self, start: int = 0, end: int | None = None) -> Iterator[OrderEvent]:
        """The typed records."""
        columns = (self.order, self.user, self.status, self.basket, self.payment, self.region)
        columns += (self.event_time_ms, self.is_first)
        rows = zip(*(column[start:end].tolist() for column in columns), strict=True)
        for order, user, status, basket, payment, region, event_time, first in rows:
            bought = self.baskets[basket]
            yield OrderEvent(
                order_id=f"o-{order:09d}",
                user_id=f"u-{user:06d}",
                session_id=_session_id(user),
                order_status=_STATUSES[status],
                items=bought.items,
                subtotal_minor=bought.subtotal_minor,
                discount_minor=bought.discount_minor,
                shipping_minor=bought.shipping_minor,
                total_amount_minor=bought.total_amount_minor,
                currency="TRY",
                payment_method=_PAYMENTS[payment],
                shipping_region=_REGIONS[region],
                event_time=event_time,
                is_first_order=bool(first),
            )


@functools.cache
def _session_id(user: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(user)))


def generate(spec: Spec) -> Orders:
    """The data set of a spec."""
    rng = np.random.default_rng(spec.seed)
    n = spec.orders
    baskets, normal, high, exact = _baskets(rng)

    event_time = FIRST_EVENT_MS + np.arange(n, dtype=np.int64) * 1000 // spec.rate
    user = rng.integers(0, spec.users, n)
    status = rng.choice(len(_STATUSES), n, p=[0.88, 0.04, 0.02, 0.02, 0.03, 0.01])
    basket = np.where(rng.random(n) < 0.05, rng.choice(high, n), rng.choice(normal, n))
    payment = rng.integers(0, len(_PAYMENTS), n)
    away = rng.random(n) < 0.005
    region = (user + np.where(away, rng.integers(1, len(_REGIONS), n), 0)) % len(_REGIONS)
    planted = np.zeros(n, dtype=bool)

    def plant(size: int, span_ms: int) -> tuple[Ints, Ints]:
        """Gives some users `size` orders within about `span_ms`; their first rows and all their rows."""
        first = rng.integers(0, max(1, n - span_ms * spec.rate // 1000), max(1, n // 2000))
        # A third just inside the bound, a third just outside, the rest anywhere.
        span = rng.choice(
            [span_ms, span_ms + 1, span_ms // 2, span_ms // 3, 0], len(first), p=[0.3, 0.3, 0.2, 0.1, 0.1]
        )
        offsets = np.sort(rng.random((size, len(first))), axis=0) * span
        offsets[0], offsets[-1] = 0, span
        times = event_time[first] + offsets.astype(np.int64)
        rows = np.minimum(first + (times - event_time[first]) * spec.rate // 1000, n - 1)
        buyer = user[first]
        for k in range(size):
            user[rows[k]], event_time[rows[k]], status[rows[k]] = buyer, times[k], _CREATED
            region[rows[k]] = buyer % len(_REGIONS)
            planted[rows[k]] = True
        return first, rows

    _, rows = plant(4, 5 * _MINUTE_MS)
    basket[rows] = np.where(rng.random(rows.shape) < 0.1, exact, rng.choice(high, rows.shape))
    plant(3, 5 * _MINUTE_MS)
    _, rows = plant(4, 30 * _MINUTE_MS)
    status[rows] = _CANCELLED
    _, rows = plant(2, 10 * _MINUTE_MS)
    region[rows[-1]] = (region[rows[-1]] + 1) % len(_REGIONS)

    order = _follow_up(rng, status, planted, event_time, user, basket, payment, region)
    is_first = _first_orders(order, user, status, event_time)

    again = rng.choice(n, spec.duplicates, replace=False) if spec.duplicates else np.zeros(0, dtype=np.int64)
    arrival = event_time + rng.random(n) * ARRIVAL_SPREAD_MS
    rows = np.concatenate([np.arange(n), again])
    arrival = np.concatenate([arrival, arrival[again] + rng.random(len(again)) * ARRIVAL_SPREAD_MS])
    rows = rows[np.argsort(arrival, kind="stable")]
    return Orders(
        spec=spec,
        order=order[rows],
        user=user[rows],
        status=status[rows],
        basket=basket[rows],
        payment=payment[rows],
        region=region[rows],
        event_time_ms=event_time[rows],
        is_first=is_first[rows],
        baskets=baskets,
    )


def _follow_up(
    rng: np.random.Generator, status: Ints, planted: NDArray[np.bool_], event_time: Ints, *copied: Ints
) -> Ints:
    """Makes most records that are not CREATED the later status of an earlier order; returns the order of each row."""
    order = np.arange(len(status))
    rows = np.flatnonzero((status != _CREATED) & ~planted)
    source = rows - 1 - (rng.random(len(rows)) * np.minimum(rows, 50_000)).astype(np.int64)
    good = (source >= 0) & (status[source] == _CREATED) & (event_time[source] < event_time[rows])
    rows, source = rows[good], source[good]
    source, only = np.unique(source, return_index=True)  # an order enters a status once
    rows = rows[only]
    order[rows] = source
    for column in copied:
        column[rows] = column[source]
    return order


def _first_orders(order: Ints, user: Ints, status: Ints, event_time: Ints) -> Ints:
    """Marks the first order of every tenth user; the others are old customers."""
    is_first = np.zeros(len(order), dtype=np.int64)
    created = np.flatnonzero((status == _CREATED) & (user % 10 == 0))
    by_user = created[np.lexsort((order[created], event_time[created], user[created]))]
    _, first = np.unique(user[by_user], return_index=True)
    is_first[by_user[first]] = 1
    return is_first


def _baskets(rng: np.random.Generator) -> tuple[list[Basket], Ints, Ints, int]:
    """All baskets, and the indexes of those up to 5000 TRY, of those above, and of one of exactly 5000.00 TRY."""
    baskets = [_basket(rng, int(rng.integers(1, 4)), 1_900, 79_900) for _ in range(2_000)]
    baskets += [_basket(rng, int(rng.integers(1, 4)), 600_000, 2_999_900) for _ in range(400)]
    exact = OrderItem("p-0500", "Product 500", _CATEGORIES[0], 2, 250_000, 500_000)
    baskets.append(Basket([exact], 500_000, 0, 0, HIGH_VALUE_MINOR))
    total = np.array([b.total_amount_minor for b in baskets])
    return baskets, np.flatnonzero(total <= HIGH_VALUE_MINOR), np.flatnonzero(total > HIGH_VALUE_MINOR), len(total) - 1


def _basket(rng: np.random.Generator, size: int, least_minor: int, most_minor: int) -> Basket:
    items = []
    for _ in range(size):
        product = int(rng.integers(0, 500))
        quantity, price = int(rng.integers(1, 3)), int(rng.integers(least_minor, most_minor))
        category = _CATEGORIES[product % len(_CATEGORIES)]
        items.append(
            OrderItem(
                f"p-{product:04d}",
                f"{_ADJECTIVES[product % 7]} {category} product {product}",
                category,
                quantity,
                price,
                quantity * price,
            )
        )
    subtotal = sum(item.total_price_minor for item in items)
    discount = subtotal // 20 if rng.random() < 0.2 else 0
    shipping = 4_990 if rng.random() < 0.5 else 0
    return Basket(items, subtotal, discount, shipping, subtotal - discount + shipping)


class Encoder:
    """The data set as Kafka payloads in the Confluent wire format."""

    def __init__(self, orders: Orders, writer_id: int):
        self._orders, self._writer_id = orders, writer_id
        self._schema = parse_schema(avro_schema("OrderEvent"))

    def messages(self, start: int = 0, end: int | None = None) -> Iterator[topics.Message]:
        """(key, payload, timestamp) of records start to end in order of arrival."""
        for order in self._orders.events(start, end):
            yield order.user_id.encode(), encode(order, self._writer_id, self._schema), order.event_time


def fill(
    kafka: str, registry: str, spec: Spec, *, topic: str | None = None, say: Callable[[str], None] = lambda _: None
) -> str:
    """Makes sure that a topic holds exactly the data set; returns its name. A topic that already does is kept."""

    def messages(writer_id: int) -> Iterator[topics.Message]:
        return Encoder(generate(spec), writer_id).messages()

    return topics.fill(kafka, registry, topic or spec.topic, "OrderEvent", spec.records, messages, say)
