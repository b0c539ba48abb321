"""The part of the online store that mirrors the shop's database; `schemas.inventory` has the layout.

As everything in `transforms.io.redis`, any repeat of any write, in any order, leaves the same contents: of a row the
newest version stays, deleted ones as their version alone, and figures change only with the rows that they are of.

Long, as each script stands beside the table that fills it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import apache_beam as beam

from schemas import features, inventory
from schemas.addresses import StoreUrl
from schemas.events import LowStockAlert
from schemas.store_keys import PREFIX, Keys
from transforms.domain.cdc import Customer, OrderPlace, Product
from transforms.errors import BadRecord
from transforms.io.redis import RedisFn, StoreTable, WriteRowsFn, write_rows
from transforms.io.redis_scripts import FRESHNESS

__all__ = [
    "WriteCustomersToRedis",
    "WriteEmptiedToRedis",
    "WriteOrderPlacesToRedis",
    "WriteProductsToRedis",
    "WriteStockAlertsToRedis",
]

_SCAN = 500  # keys looked at in one go when a table was truncated

# A version and what it is of, both empty where nothing is stored.
_VERSIONED: Final = """
local function parts(stored)
  local space = stored and string.find(stored, ' ', 1, true)
  if not space then return '', '' end
  return string.sub(stored, 1, space - 1), string.sub(stored, space + 1)
end
"""

# KEYS: products, all, low, emptied, freshness. ARGV: TTL in s, family, TTL of freshness, then per product: id, version,
# '1' when low, JSON (empty: deleted), event time in ms. An earlier release ordered `all` and `low` by time.
_PRODUCTS: Final = (
    FRESHNESS
    + _VERSIONED
    + """
local ttl, family = ARGV[1], ARGV[2]
local floor = redis.call('HGET', KEYS[4], 'products') or ''
local newest = 0
for i = 2, 3 do
  local last = redis.call('ZRANGE', KEYS[i], -1, -1, 'WITHSCORES')[2]
  if last and last ~= '0' then
    for _, json in ipairs(redis.call('ZRANGE', KEYS[i], 0, -1)) do redis.call('ZADD', KEYS[i], 0, json) end
  end
end
for i = 4, #ARGV, 5 do
  local id, version, low, json = unpack(ARGV, i, i + 3)
  if version <= floor then version, json = floor, '' end
  local stored = redis.call('HGET', KEYS[1], id)
  local old_version, old = parts(stored)
  if old_version < version then
    if old ~= '' then
      redis.call('ZREM', KEYS[2], old)
      redis.call('ZREM', KEYS[3], old)
    end
    redis.call('HSET', KEYS[1], id, version .. ' ' .. json)
    if json ~= '' then
      redis.call('ZADD', KEYS[2], 0, json)
      if low == '1' then redis.call('ZADD', KEYS[3], 0, json) end
    end
  end
  newest = math.max(newest, tonumber(ARGV[i+4]))
end
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ttl) end
fresh(KEYS[5], family, newest)
redis.call('EXPIRE', KEYS[5], ARGV[3])
"""
)

# KEYS: alerts. ARGV: TTL in s, how many, then per alert: event time in ms, JSON. An alert is the same bytes always.
_ALERTS: Final = """
for i = 3, #ARGV, 2 do redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i+1]) end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[2] - 1)
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""

_CUSTOMER: Final = """
local ttl, customer_of, orders_of = ARGV[1], ARGV[2], ARGV[3]
local function keep(customer)
  redis.call('EXPIRE', customer_of .. customer, ttl)
  redis.call('EXPIRE', orders_of .. customer, ttl)
end
"""

# KEYS: emptied, freshness. ARGV: TTL in s, prefixes, family, TTL of freshness, then per customer: id, version, '1' when
# there is one, region, event time in ms.
_CUSTOMERS: Final = (
    FRESHNESS
    + _CUSTOMER
    + """
local floor = redis.call('HGET', KEYS[1], 'customers') or ''
local newest = 0
for i = 6, #ARGV, 5 do
  local customer, version, exists, region = unpack(ARGV, i, i + 3)
  if version <= floor then version, exists, region = floor, '0', '' end
  local stored = redis.call('HGET', customer_of .. customer, 'version')
  if not stored or stored < version then
    redis.call('HSET', customer_of .. customer, 'version', version, 'exists', exists, 'region', region)
  end
  keep(customer)
  newest = math.max(newest, tonumber(ARGV[i+4]))
end
fresh(KEYS[2], ARGV[4], newest)
redis.call('EXPIRE', KEYS[2], ARGV[5])
"""
)

# A sum that would leave 64 bits stands still.
_COUNT: Final = """
local function add(customer, name, number)
  if number ~= '0' then redis.pcall('HINCRBY', customer_of .. customer, name, number) end
end
local function negative(number)
  if string.sub(number, 1, 1) == '-' then return string.sub(number, 2) end
  return number == '0' and number or '-' .. number
end
local function count(customer, status, total, sign)
  if status == '' then return end
  add(customer, 'orders', sign .. '1')
  if status == 'CANCELLED' or status == 'REFUNDED' then
    add(customer, 'cancelled', sign .. '1')
  else
    add(customer, 'spent_minor', sign == '-' and negative(total) or total)
  end
end
"""

# KEYS: emptied. ARGV: TTL in s, prefixes, then per order: customer, id, version, status (empty: not theirs), total.
_ORDERS: Final = (
    _CUSTOMER
    + _COUNT
    + """
local floor = redis.call('HGET', KEYS[1], 'orders') or ''
for i = 4, #ARGV, 5 do
  local customer, id, version, status, total = unpack(ARGV, i, i + 4)
  if version <= floor then version, status, total = floor, '', '0' end
  local stored = redis.call('HGET', orders_of .. customer, id)
  local old_version, old_total, old_status = string.match(stored or '', '^(%x+) (%-?%d+) (.*)$')
  if not old_version or old_version < version then
    if old_version then count(customer, old_status, old_total, '-') end
    count(customer, status, total, '')
    redis.call('HSET', orders_of .. customer, id, version .. ' ' .. total .. ' ' .. status)
  end
  keep(customer)
end
"""
)

# KEYS: emptied, products, all, low. ARGV: TTL in s, then table and version of each truncation.
_EMPTIED: Final = (
    _VERSIONED
    + """
for i = 2, #ARGV, 2 do
  local name, version = ARGV[i], ARGV[i+1]
  local stored = redis.call('HGET', KEYS[1], name)
  if not stored or stored < version then redis.call('HSET', KEYS[1], name, version) end
  if name == 'products' then
    for _, json in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
      local id = cjson.decode(json).product_id
      if parts(redis.call('HGET', KEYS[2], id)) < version then
        redis.call('HSET', KEYS[2], id, version .. ' ')
        redis.call('ZREM', KEYS[3], json)
        redis.call('ZREM', KEYS[4], json)
      end
    end
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""
)

# KEYS: of customers. ARGV: version.
_EMPTY_CUSTOMERS: Final = """
for _, key in ipairs(KEYS) do
  local version = redis.call('HGET', key, 'version')
  if version and version < ARGV[1] then
    redis.call('HSET', key, 'version', ARGV[1], 'exists', '0', 'region', '')
  end
end
"""

# KEYS: of customers' orders. ARGV: TTL in s, prefixes, version.
_EMPTY_ORDERS: Final = (
    _CUSTOMER
    + _COUNT
    + """
for _, key in ipairs(KEYS) do
  local customer, orders = string.sub(key, #orders_of + 1), redis.call('HGETALL', key)
  for i = 1, #orders, 2 do
    local version, total, status = string.match(orders[i+1], '^(%x+) (%-?%d+) (.*)$')
    if version < ARGV[4] then
      count(customer, status, total, '-')
      redis.call('HSET', key, orders[i], ARGV[4] .. ' 0 ')
    end
  end
end
"""
)


class _WriteCdcToRedis(beam.PTransform):
    """Input: lists of rows, or rows, in any order. Output: see `transforms.io.redis.write_rows`."""

    def __init__(self, url: StoreUrl | str, job: str, currency: str = "", prefix: str = PREFIX):  # noqa: ARG002 - rows name theirs
        super().__init__()
        self._url, self._job, self._prefix = url, job, prefix

    def _fn(self) -> beam.DoFn:
        raise NotImplementedError

    def expand(self, rows: beam.PCollection[Any]) -> beam.PCollection[BadRecord]:
        return write_rows(rows, self._fn())


class WriteProductsToRedis(_WriteCdcToRedis):
    """Keeps what is current of each product. Input: lists of Product."""

    def _fn(self) -> beam.DoFn:
        return WriteRowsFn(self._url, _products, self._job, self._prefix)


class WriteCustomersToRedis(_WriteCdcToRedis):
    """Keeps which customers there are. Input: lists of Customer."""

    def _fn(self) -> beam.DoFn:
        return WriteRowsFn(self._url, _customers, self._job, self._prefix)


class WriteOrderPlacesToRedis(_WriteCdcToRedis):
    """Keeps customers' figures. Input: lists of OrderPlace."""

    def _fn(self) -> beam.DoFn:
        return WriteRowsFn(self._url, _orders, self._job, self._prefix)


class WriteStockAlertsToRedis(_WriteCdcToRedis):
    """Stores low-stock alerts for the API. Input: LowStockAlert."""

    def _fn(self) -> beam.DoFn:
        return WriteRowsFn(self._url, _alerts, self._job, self._prefix)


class WriteEmptiedToRedis(_WriteCdcToRedis):
    """Takes away what was in a table when it was truncated. Input: lists of (table, version)."""

    def _fn(self) -> beam.DoFn:
        return _WriteEmptiedFn(self._url, self._prefix)


def _of_customers(keys: Keys) -> tuple[Any, ...]:
    return inventory.CUSTOMER_TTL_S, keys.customers, keys.customer_orders


def _products(keys: Keys) -> StoreTable:
    return StoreTable(
        _PRODUCTS,
        (
            keys.products,
            keys.all_products,
            keys.low_products,
            keys.emptied,
            keys.freshness,
        ),
        (inventory.INVENTORY_TTL_S, inventory.INVENTORY_FAMILY, features.USER_TTL_S),
        _product_arguments,
        lambda products: products,
    )


def _product_arguments(each: Product) -> tuple[Any, ...]:
    product = Product(*each)  # what a coder wrote and read is a plain tuple
    json: bytes | str = ""
    if product.exists:
        json = inventory.product_json(
            product.product_id,
            product.name,
            product.category,
            product.price_minor,
            product.currency,
            product.stock,
            product.low_stock_threshold,
            product.updated_ms,
        )
    return (product.product_id, product.version, int(product.low), json, product.event_time_ms)


def _customers(keys: Keys) -> StoreTable:
    return StoreTable(
        _CUSTOMERS,
        (keys.emptied, keys.freshness),
        (*_of_customers(keys), inventory.CUSTOMER_FAMILY, features.USER_TTL_S),
        _customer_arguments,
        lambda customers: customers,
    )


def _customer_arguments(each: Customer) -> tuple[Any, ...]:
    customer_id, version, exists, region, event_time_ms = each
    return (customer_id, version, int(exists), region, event_time_ms)


def _orders(keys: Keys) -> StoreTable:
    return StoreTable(_ORDERS, (keys.emptied,), _of_customers(keys), _order_arguments, lambda orders: orders)


def _order_arguments(each: OrderPlace) -> tuple[Any, ...]:
    return tuple(each[:5])


def _alerts(keys: Keys) -> StoreTable:
    return StoreTable(
        _ALERTS,
        (keys.stock_alerts,),
        (inventory.INVENTORY_TTL_S, inventory.STOCK_ALERTS_RECENT),
        _alert_arguments,
    )


def _alert_arguments(alert: LowStockAlert) -> tuple[Any, ...]:
    return (alert.event_time, inventory.stock_alert_json(alert))


class _WriteEmptiedFn(RedisFn):
    """First it is noted, so that nothing older gets in any more; then what is there goes, key by key."""

    def process(self, emptied: list[tuple[str, str]]) -> Iterable[None]:
        keys = self._keys
        names = (keys.emptied, keys.products, keys.all_products, keys.low_products)
        self._run(_EMPTIED, names, (inventory.CUSTOMER_TTL_S, *(word for each in emptied for word in each)))
        for table, version in emptied:
            if table in ("customers", "orders"):
                self._empty(table, version)
        return ()

    def _empty(self, table: str, version: str) -> None:
        of_orders = table == "orders"
        first = self._keys.customer_orders if of_orders else self._keys.customers
        found = self._ask(lambda: list(self._client.scan_iter(f"{first}*", count=_SCAN)))
        for i in range(0, len(found), _SCAN):
            if of_orders:
                self._run(_EMPTY_ORDERS, found[i : i + _SCAN], (*_of_customers(self._keys), version))
            else:
                self._run(_EMPTY_CUSTOMERS, found[i : i + _SCAN], (version,))
