"""What Redis holds of the shop's database, against a real Valkey and a model: tables played in plain Python."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import features, inventory
from schemas.events import LowStockAlert
from schemas.store_keys import KEYS, PREFIX, Keys
from stack import Stack
from tests.build import T0
from tests.kept import Kept, plain
from transforms.domain.cdc import Customer, OrderPlace, Product
from transforms.io import redis_cdc
from transforms.io.redis import WriteRowsFn

pytestmark = pytest.mark.stack

WRITERS = {
    Product: redis_cdc._products,
    Customer: redis_cdc._customers,
    OrderPlace: redis_cdc._orders,
    LowStockAlert: redis_cdc._alerts,
}
STATUSES = ["CREATED", "CONFIRMED", "CANCELLED", "REFUNDED", "iki kelime"]


def version(number: int) -> str:
    return f"{number:032x}"


def of_product(number: int, product_id: str, stock: int, exists: bool = True) -> Product:
    text = ("Çay", "mutfak") if exists else ("", "")
    fields = (number * 100, "TRY", stock, 10, T0 + number, T0 + number, None) if exists else (0, "", 0, 0, T0, T0, None)
    return Product(product_id, version(number), exists, *text, *fields)


class Tables:
    """The tables, and each change of them as what the job writes."""

    def __init__(self, seed: int):
        self._random = random.Random(seed)
        self.products: dict[str, Product] = {}
        self.customers: dict[str, str] = {}
        self.orders: dict[str, tuple[str, str, int]] = {}
        self.writes: list[Any] = []

    def play(self, steps: int) -> Tables:
        for number in range(2, 2 * steps, 2):
            kinds = (self._product, self._customer, self._order, self._order, self._order, self._read)
            self._random.choice(kinds)(number)
            if self._random.random() < 0.03:
                self._empty(number + 1)
        return self

    def _product(self, number: int) -> None:
        name = f"p-{self._random.randrange(5)}"
        row = of_product(number, name, self._random.randrange(25), self._random.random() > 0.25)
        self.products[name] = row
        if not row.exists:
            del self.products[name]
        self.writes.append(row)

    def _customer(self, number: int) -> None:
        name = f"k-{self._random.randrange(3)}"
        exists = self._random.random() > 0.2
        self.customers[name] = f"TR-{number}" if exists else ""
        if not exists:
            del self.customers[name]
        self.writes.append(Customer(name, version(number), exists, f"TR-{number}" if exists else "", T0 + number))

    def _order(self, number: int) -> None:
        name = f"o-{self._random.randrange(6)}"
        old = self.orders.pop(name, None)
        if self._random.random() > 0.2:
            new = (f"k-{self._random.randrange(3)}", self._random.choice(STATUSES), self._random.randrange(-5, 1 << 55))
            self.orders[name] = new
            self.writes.append(OrderPlace(new[0], name, version(number), *new[1:], T0))
        if old is not None and old[0] != self.orders.get(name, ("",))[0]:
            self.writes.append(OrderPlace(old[0], name, version(number), "", 0, T0))

    def _read(self, number: int) -> None:
        """A snapshot reads what there is."""
        self.products = {i: p._replace(version=version(number)) for i, p in self.products.items()}
        self.writes += self.products.values()
        self.writes += [Customer(i, version(number), True, region, T0) for i, region in self.customers.items()]
        self.writes += [OrderPlace(o[0], i, version(number), *o[1:], T0) for i, o in self.orders.items()]

    def _empty(self, number: int) -> None:
        table = self._random.choice(("products", "customers", "orders"))
        getattr(self, table).clear()
        self.writes.append((table, version(number)))


def write(url: str, rows: list[Any], prefix: str = PREFIX) -> None:
    """As the job does, each sort through its own writer."""
    for kind, make in WRITERS.items():
        same = [row for row in rows if type(row) is kind]
        if same:
            run(WriteRowsFn(url, make, prefix=prefix), [same] if kind is not LowStockAlert else same)
    emptied = [row for row in rows if type(row) is tuple]
    if emptied:
        run(redis_cdc._WriteEmptiedFn(url, prefix), [emptied])


def run(fn: Any, elements: list[Any]) -> None:
    fn.setup()
    fn.start_bundle()
    for element in elements:
        fn.process(element)
    fn.finish_bundle()
    fn.teardown()


def held(db: redis.Redis, keys: Keys = KEYS) -> dict[str, Any]:
    """What a reader sees; every key must have a TTL."""
    customers = {}
    for key in db.scan_iter(count=1_000):
        assert db.ttl(key) > 0, key
        if plain(key).startswith(KEYS.customer("")):
            customers[plain(key).removeprefix(KEYS.customer(""))] = db.hgetall(key)
    products = {i.decode(): inventory.product_of(v) for i, v in db.hgetall(keys.products).items()}
    return {
        "products": {i: json.loads(v) for i, v in products.items() if v},
        "all": [json.loads(v)["product_id"] for v in db.zrange(keys.all_products, 0, -1)],
        "low": {json.loads(v)["product_id"] for v in db.zrange(keys.low_products, 0, -1)},
        "customers": {i: f[b"region"].decode() for i, f in customers.items() if f.get(b"exists") == b"1"},
        "figures": {i: figures(f) for i, f in customers.items() if figures(f) != (0, 0, 0)},
    }


def figures(fields: dict[bytes, bytes]) -> tuple[int, int, int]:
    orders, cancelled, spent = (int(fields.get(name, 0)) for name in (b"orders", b"cancelled", b"spent_minor"))
    return orders, cancelled, spent


def expected(tables: Tables) -> dict[str, Any]:
    found: dict[str, list[int]] = {}
    for customer, status, total in tables.orders.values():
        counts = found.setdefault(customer, [0, 0, 0])
        counts[0] += 1
        given_back = status in ("CANCELLED", "REFUNDED")
        counts[1] += given_back
        counts[2] += 0 if given_back else total
    rows = sorted(tables.products.values(), key=lambda p: p.product_id)
    return {
        "products": {
            p.product_id: {
                "product_id": p.product_id,
                "name": "Çay",
                "category": "mutfak",
                "price": p.price_minor / 100,
                "currency": "TRY",
                "stock": p.stock,
                "low_stock_threshold": 10,
                "low_stock": p.stock <= 10,
                "updated_at": features.rfc3339(p.updated_ms),
            }
            for p in rows
        },
        "all": [p.product_id for p in rows],
        "low": {p.product_id for p in rows if p.stock <= 10},
        "customers": tables.customers,
        "figures": {i: tuple(f) for i, f in found.items()},
    }


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 30), data=st.data())
def test_whatever_order_and_however_often_rows_are_written_the_store_holds_the_tables(
    kept: Kept, seed: int, data: Any
) -> None:
    kept.db.flushall()
    tables = Tables(seed).play(40)
    writes = tables.writes + data.draw(st.lists(st.sampled_from(tables.writes), max_size=20))
    random.Random(seed).shuffle(writes)
    size = data.draw(st.integers(1, 30))
    for i in range(0, len(writes), size):
        write(kept.url, writes[i : i + size])
    assert held(kept.db, kept.keys) == expected(tables)
    write(kept.url, writes)
    assert held(kept.db, kept.keys) == expected(tables)


def test_a_sum_beyond_64_bits_stands_still_and_stops_nothing(db: redis.Redis, valkey: Stack) -> None:
    huge = (1 << 63) - 1
    write(valkey.redis_url, [OrderPlace("k-1", f"o-{i}", version(1), "CREATED", huge, T0) for i in range(3)])
    assert db.hgetall("sf:customer:k-1") == {b"orders": b"3", b"spent_minor": str(huge).encode()}


def test_a_customer_whose_orders_come_first_has_figures_and_does_not_exist_yet(db: redis.Redis, valkey: Stack) -> None:
    write(valkey.redis_url, [OrderPlace("k-1", "o-1", version(2), "CREATED", 700, T0)])
    assert inventory.customer_figures(db.hgetall("sf:customer:k-1")) is None
    write(valkey.redis_url, [Customer("k-1", version(1), True, "TR-34", T0)])
    found = inventory.customer_figures(db.hgetall("sf:customer:k-1"))
    assert found == {"region": "TR-34", "orders": 1, "cancelled": 0, "spent_minor": 700}


def test_alerts_are_kept_once_each_and_the_oldest_go(
    db: redis.Redis, valkey: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "STOCK_ALERTS_RECENT", 3)
    alerts = [LowStockAlert(f"a-{i}", "p-1", "Çay", "mutfak", i, 10, T0 + i, version(i)) for i in range(5)]
    write(valkey.redis_url, [*alerts[2:], *alerts])
    kept = db.zrange(KEYS.stock_alerts, 0, -1, withscores=True)
    assert kept == [(inventory.stock_alert_json(a), T0 + i) for i, a in enumerate(alerts)][2:]
    assert json.loads(kept[0][0])["timestamp"] == features.rfc3339(T0 + 2)


@pytest.mark.parametrize(
    ("make", "row"),
    [
        (redis_cdc._products, of_product(1, "p-1", 5)),
        (redis_cdc._customers, Customer("k-1", version(1), True, "TR-34", T0 + 1)),
    ],
)
def test_freshness_is_the_newest_event_time(db: redis.Redis, valkey: Stack, make: Callable[[], Any], row: Any) -> None:
    family = {Product: inventory.INVENTORY_FAMILY, Customer: inventory.CUSTOMER_FAMILY}[type(row)]
    write(valkey.redis_url, [row._replace(event_time_ms=T0 + 9, version=version(2)), row])
    assert db.hgetall(KEYS.freshness) == {family.encode(): str(T0 + 9).encode()}
    assert 0 < db.ttl(KEYS.freshness) <= features.USER_TTL_S
    assert make


@pytest.mark.parametrize("table", ["customers", "orders"])
def test_a_table_is_emptied_whatever_ids_there_are_in_other_keys(kept: Kept, table: str) -> None:
    """A user may be called what a customer's key ends with, and what is under that key is of another type."""
    odd = [kept.keys.user_features(f"x}}:{kind}:y") for kind in ("customer", "customer-orders")]
    for key in odd:
        kept.db.set(key, "{}")
    write(kept.url, [Customer("k-1", version(1), True, "TR", T0)])
    write(kept.url, [(table, version(2))])
    assert all(kept.db.get(key) == b"{}" for key in odd)
