"""Debezium's records of the shop's tables, made by hand: what a test says of a row, and all that goes with it."""

from __future__ import annotations

import json
from typing import Any

from tests.build import T0
from transforms.domain.cdc_places import version

PRODUCT = {
    "product_id": "p-1",
    "name": "Çay bardağı",
    "category": "mutfak",
    "price_minor": 12_990,
    "currency": "TRY",
    "stock": 50,
    "low_stock_threshold": 10,
    "updated_at": "2026-09-21T14:13:20.123456Z",
}
CUSTOMER = {
    "customer_id": "k-1",
    "email": "ayse@example.com",
    "full_name": "Ayşe Yılmaz",
    "phone": "+90 555 000 00 00",
    "region": "TR-34",
    "created_at": "2026-09-21T14:13:20Z",
    "updated_at": "2026-09-21T14:13:20Z",
}
ORDER = {
    "order_id": "o-1",
    "customer_id": "k-1",
    "status": "CREATED",
    "total_minor": 25_980,
    "currency": "TRY",
    "created_at": None,
    "updated_at": None,
}
ITEM = {"order_id": "o-1", "line_no": 1, "product_id": "p-1", "quantity": 2, "unit_price_minor": 12_990}
MOVEMENT = {
    "movement_id": 1,
    "product_id": "p-1",
    "delta": -2,
    "reason": "SALE",
    "order_id": "o-1",
    "created_at": "2026-09-21T14:13:20Z",
}
PRIMARY_KEYS = {
    "products": ("product_id",),
    "customers": ("customer_id",),
    "orders": ("order_id",),
    "order_items": ("order_id", "line_no"),
    "inventory_movements": ("movement_id",),
}


def product(**changes: Any) -> dict[str, Any]:
    return PRODUCT | changes


def version_at(lsn: int, at: int = T0) -> str:
    """Of a change that names no server, before Debezium has seen a commit."""
    return version(None, at, lsn, lsn)


def envelope(
    op: str,
    table: str,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    *,
    lsn: int | None = 100,
    commit: int | None = None,
    at: int = T0,
    **source: Any,
) -> dict[str, Any]:
    """`commit`: the last commit before; without one, as before Debezium has seen one."""
    own = source.pop("own", lsn)
    said = [None if each is None else str(each) for each in (commit, own)]
    return {
        "before": before,
        "after": after,
        "source": {
            "version": "3.6.3.Final",
            "connector": "postgresql",
            "name": "cdc",
            "ts_ms": at,
            "snapshot": "false",
            "db": "shop",
            "sequence": json.dumps(said),
            "schema": "public",
            "table": table,
            "txId": 742,
            "lsn": lsn,
            "xmin": None,
        }
        | source,
        "transaction": None,
        "op": op,
        "ts_ms": at + 50,
    }


def key_of(table: str, row: dict[str, Any]) -> bytes:
    return json.dumps({name: row[name] for name in PRIMARY_KEYS[table]}, separators=(",", ":")).encode()


def record(op: str, table: str, before: Any = None, after: Any = None, **how: Any) -> tuple[bytes | None, bytes]:
    """Key and value as they are in Kafka."""
    row = after or before
    key = key_of(table, row) if row else None
    return key, json.dumps(envelope(op, table, before, after, **how), ensure_ascii=False).encode()
