"""The part of the online store that follows the shop's database, with the rules of `schemas.features`: the one layout
that writers (`transforms/io/redis_cdc.py`) and readers (`serving/store.py`) share.

    sf:inventory:products            HASH  product_id → version, a space, the product as JSON; no JSON: it is deleted
    sf:inventory:all                 ZSET  the same JSON of those that exist, score 0: by product_id, its first field
    sf:inventory:low                 ZSET  those of `all` whose stock is at the threshold or below
    sf:inventory:alerts              ZSET  low-stock alerts as JSON, score = event time in ms; newest 10,000
    sf:customer:{customer_id}        HASH  version, exists (1 or 0), region; orders, cancelled, spent_minor, see below
    sf:customer-orders:{customer_id} HASH  order_id → version, total in minor units, status; no status: it is not theirs
    sf:cdc:emptied                   HASH  table → version of the last time that it was truncated

Products are listed by their id, which does not move: by time, one that is sold while somebody reads page after page
would be on none of them, or on two.

Versions are hexadecimal text, compared as such. A deleted row stays as its version, so that an older one cannot bring
it back, and nothing older than a table's truncation gets in. A customer's figures are of the orders in their other
hash: how many, how many of those are CANCELLED or REFUNDED, and what the others come to; they change only when an order
there does. Both hashes expire together. All products expire together, a month after the last change of any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from schemas.events import LowStockAlert
from schemas.features import rfc3339

__all__ = [
    "CUSTOMER_FAMILY",
    "CUSTOMER_TTL_S",
    "INVENTORY_FAMILY",
    "INVENTORY_TTL_S",
    "STOCK_ALERTS_RECENT",
    "customer_figures",
    "product_json",
    "product_of",
    "stock_alert_json",
]

INVENTORY_TTL_S: Final = 30 * 24 * 3600
CUSTOMER_TTL_S: Final = 400 * 24 * 3600
STOCK_ALERTS_RECENT: Final = 10_000

INVENTORY_FAMILY: Final = "inventory"
CUSTOMER_FAMILY: Final = "customers"


def product_json(
    product_id: str,
    name: str,
    category: str,
    price_minor: int,
    currency: str,
    stock: int,
    low_stock_threshold: int,
    updated_ms: int,
) -> bytes:
    """A product as the API returns it; `price` in major units."""
    return msgspec.json.encode(
        {
            "product_id": product_id,
            "name": name,
            "category": category,
            "price": price_minor / 100,
            "currency": currency,
            "stock": stock,
            "low_stock_threshold": low_stock_threshold,
            "low_stock": stock <= low_stock_threshold,
            "updated_at": rfc3339(updated_ms),
        }
    )


def product_of(stored: bytes | None) -> bytes | None:
    """The JSON in a field of `Keys.products`; None for a product that is not there, or no more."""
    return stored.partition(b" ")[2] or None if stored else None


def stock_alert_json(alert: LowStockAlert) -> bytes:
    """An alert as it is stored. The API adds what the product is now."""
    return msgspec.json.encode(
        {
            "alert_id": alert.alert_id,
            "product_id": alert.product_id,
            "product_name": alert.product_name,
            "category": alert.category,
            "stock": alert.stock,
            "low_stock_threshold": alert.low_stock_threshold,
            "timestamp": rfc3339(alert.event_time),
        }
    )


def customer_figures(fields: Mapping[bytes, bytes]) -> dict[str, Any] | None:
    """What a customer's hash says; None for one that does not exist (or not yet: orders may come first)."""
    if fields.get(b"exists") != b"1":
        return None
    return {
        "region": fields.get(b"region", b"").decode(),
        "orders": int(fields.get(b"orders", 0)),
        "cancelled": int(fields.get(b"cancelled", 0)),
        "spent_minor": int(fields.get(b"spent_minor", 0)),
    }
