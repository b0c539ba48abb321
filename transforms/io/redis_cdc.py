"""The part of the online store that mirrors the shop's database; `schemas.inventory` has the layout.

As everything in `transforms.io.redis`, any repeat of any write, in any order, leaves the same contents: of a row the
newest version stays, deleted ones as their version alone, and figures change only with the rows that they are of.

Long, as each script stands beside the table that fills it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Final

import apache_beam as beam

from connections.store_cluster import Cluster
from schemas import features, inventory
from schemas.addresses import StoreUrl
from schemas.events import LowStockAlert
from schemas.store_keys import PREFIX, Keys
from transforms.domain.cdc import Customer, OrderPlace, Product
from transforms.errors import BadRecord
from transforms.io.redis import RedisFn, StoreTable, WriteRowsFn, freshness, write_rows
from transforms.io.redis_cluster import Split
from transforms.io.redis_scripts import FRESHNESS, WITH_ALL, WITHOUT_ALL

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
if not with_all then return end
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

# KEYS: emptied; where products are, also products, all, low. ARGV: TTL in s, then table and version of truncations.
_EMPTIED: Final = (
    _VERSIONED
    + """
for i = 2, #ARGV, 2 do
  local name, version = ARGV[i], ARGV[i+1]
  local stored = redis.call('HGET', KEYS[1], name)
  if not stored or stored < version then redis.call('HSET', KEYS[1], name, version) end
  if name == 'products' and KEYS[2] then
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
local changed = 0
for _, key in ipairs(KEYS) do
  local version = redis.call('HGET', key, 'version')
  if version and version < ARGV[1] then
    redis.call('HSET', key, 'version', ARGV[1], 'exists', '0', 'region', '')
    changed = changed + 1
  end
end
return changed
"""

# KEYS: of customers' orders, and perhaps of the customers. ARGV: TTL in s, prefixes, version.
_EMPTY_ORDERS: Final = (
    _CUSTOMER
    + _COUNT
    + """
local changed = 0
for _, key in ipairs(KEYS) do
  local is_theirs = string.sub(key, 1, #orders_of) == orders_of
  local customer, orders = string.sub(key, #orders_of + 1), is_theirs and redis.call('HGETALL', key) or {}
  for i = 1, #orders, 2 do
    local version, total, status = string.match(orders[i+1], '^(%x+) (%-?%d+) (.*)$')
    if version < ARGV[4] then
      count(customer, status, total, '-')
      redis.call('HSET', key, orders[i], ARGV[4] .. ' 0 ')
      changed = changed + 1
    end
  end
end
return changed
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


def _of_customers(keys: Keys, part: str) -> tuple[Any, ...]:
    return inventory.CUSTOMER_TTL_S, *keys.of_customer(part)


def _products(keys: Keys) -> StoreTable:
    return StoreTable(
        _PRODUCTS,
        (
            keys.products,
            keys.all_products,
            keys.low_products,
            keys.emptied(keys.shared),
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
    def first(part: str) -> tuple[Any, ...]:
        return *_of_customers(keys, part), inventory.CUSTOMER_FAMILY, features.USER_TTL_S

    def emptied(part: str) -> tuple[str, ...]:
        return (keys.emptied(part),)

    fresh = partial(freshness, keys, inventory.CUSTOMER_FAMILY, 4)
    return StoreTable(
        WITH_ALL + _CUSTOMERS,
        (keys.emptied(keys.shared), keys.freshness),
        first(keys.shared),
        _customer_arguments,
        lambda customers: customers,
        split=Split(WITHOUT_ALL + _CUSTOMERS, first, keys.of_customer, emptied, of_all=fresh),
    )


def _customer_arguments(each: Customer) -> tuple[Any, ...]:
    customer_id, version, exists, region, event_time_ms = each
    return (customer_id, version, int(exists), region, event_time_ms)


def _orders(keys: Keys) -> StoreTable:
    first = partial(_of_customers, keys)

    def emptied(part: str) -> tuple[str, ...]:
        return (keys.emptied(part),)

    return StoreTable(
        _ORDERS,
        emptied(keys.shared),
        first(keys.shared),
        _order_arguments,
        lambda orders: orders,
        split=Split(_ORDERS, first, keys.of_customer, emptied),
    )


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
        words = (inventory.CUSTOMER_TTL_S, *(word for each in emptied for word in each))
        self._run(_EMPTIED, (keys.emptied(keys.shared), keys.products, keys.all_products, keys.low_products), words)
        client = self._client
        if isinstance(client, Cluster):
            parts = [("EVAL", _EMPTIED, 1, keys.emptied(part), *words) for part in keys.parts]
            self._ask(lambda: client.ask(*parts))
        for table, version in emptied:
            if table in ("customers", "orders"):
                # What a cluster moves meanwhile, one look may miss.
                while self._empty(table, version) and isinstance(client, Cluster):
                    pass
        return ()

    def _empty(self, table: str, version: str) -> int:
        """How much it changed."""
        changed = 0
        for part, found in self._found(table == "orders").items():
            customers, orders = self._keys.of_customer(part)
            for i in range(0, len(found), _SCAN):
                some = found[i : i + _SCAN]
                if table == "orders":
                    names = [*some, *(customers + key.removeprefix(orders) for key in some)]
                    changed += self._run(_EMPTY_ORDERS, names, (*_of_customers(self._keys, part), version))
                else:
                    changed += self._run(_EMPTY_CUSTOMERS, some, (version,))
        return changed

    def _found(self, of_orders: bool) -> dict[str, list[str]]:
        """The keys of customers, or of their orders, by part."""
        client, keys = self._client, self._keys
        pattern = f"{keys.of_customer(keys.any_part)[of_orders]}*"
        if not isinstance(client, Cluster):
            return {keys.shared: self._ask(lambda: [key.decode() for key in client.scan_iter(pattern, count=_SCAN)])}
        parts: dict[str, list[str]] = {}
        for key in self._ask(lambda: client.keys(pattern, _SCAN)):
            part = key[: key.index("}") + 2]
            if key.startswith(keys.of_customer(part)[of_orders]):  # no other key whose id looks like that
                parts.setdefault(part, []).append(key)
        return parts
