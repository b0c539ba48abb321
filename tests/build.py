"""Builders: what a test does not care about has a default, what it does is said by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import msgspec
import numpy as np

from schemas import codec
from schemas.events import (
    CdcChange,
    ClickstreamEvent,
    FraudAlert,
    InventoryEvent,
    LowStockAlert,
    OrderEvent,
    OrderItem,
    RevenueWindow,
    UserSession,
    avro_schema,
)
from transforms.blocks import NO_WATERMARK_MS, Block
from transforms.ledger import Counts

T0 = 1_790_000_000_000  # 2026-09-21T14:13:20Z
SECOND = 1_000
MINUTE = 60_000
HOUR = 3_600_000
HIGH = 500_001  # the least amount above 5000 TRY
LOW = 10_000

NOT_VALUES = [
    "!!map [a]",
    "!!set [a]",
    "!!int ''",
    "!!int '-'",
    "!!bool x",
    "!!timestamp x",
    "2026-99-99",
    "0x_",
    "9" * 5_000,
]
"""On which PyYAML fails with errors of Python's, not of its own."""

SCHEMA_IDS: dict[type[msgspec.Struct], int] = {
    OrderEvent: 1,
    ClickstreamEvent: 2,
    InventoryEvent: 3,
    FraudAlert: 4,
    UserSession: 5,
    RevenueWindow: 6,
    LowStockAlert: 7,
    CdcChange: 8,
}
UNKNOWN_ID = 4_040


def item(**changes: Any) -> OrderItem:
    fields = {
        "product_id": "p-1",
        "product_name": "Çay bardağı",
        "category": "kitchen",
        "quantity": 2,
        "unit_price_minor": 5_000,
        "total_price_minor": 10_000,
    }
    return OrderItem(**(fields | changes))


def order(
    order_id: str = "o-1", *, amount: int = LOW, at: int = T0, status: str = "CREATED", **changes: Any
) -> OrderEvent:
    """An OrderEvent: `amount` is its total in minor units, `at` its event time; `user` and `region` are short names."""
    fields = {
        "order_id": order_id,
        "user_id": changes.pop("user", "u-1"),
        "session_id": "s-1",
        "order_status": status,
        "items": [item()],
        "subtotal_minor": amount,
        "discount_minor": 0,
        "shipping_minor": 0,
        "total_amount_minor": amount,
        "currency": "TRY",
        "payment_method": "card",
        "shipping_region": changes.pop("region", "Istanbul"),
        "event_time": at,
        "is_first_order": False,
    }
    return OrderEvent(**(fields | changes))


def click(event_id: str = "c-1", *, at: int = T0, **changes: Any) -> ClickstreamEvent:
    fields = {
        "event_id": event_id,
        "user_id": changes.pop("user", "u-1"),
        "session_id": "s-1",
        "event_type": "PRODUCT_VIEW",
        "product_id": "p-1",
        "event_time": at,
        "device_type": "mobile",
        "geo_region": "Izmir",
    }
    return ClickstreamEvent(**(fields | changes))


def inventory(**changes: Any) -> InventoryEvent:
    fields = {
        "event_id": "i-1",
        "product_id": "p-1",
        "warehouse_id": "w-1",
        "movement": "SALE",
        "quantity_change": -2,
        "stock_after": 40,
        "event_time": T0,
    }
    return InventoryEvent(**(fields | changes))


def alert(**changes: Any) -> FraudAlert:
    fields = {
        "alert_id": "a-1",
        "user_id": "u-1",
        "order_id": "o-3",
        "alert_type": "RAPID_ORDERS",
        "risk_score": 0.85,
        "description": "3 CREATED orders within 5 min",
        "amount_minor": LOW,
        "event_time": T0,
        "detected_at": T0 + 10,
        "related_events": ["o-1", "o-2", "o-3"],
    }
    return FraudAlert(**(fields | changes))


def session(user: str = "u-1", start: int = T0, **changes: Any) -> UserSession:
    """A UserSession of ten minutes, in progress."""
    fields = {
        "session_id": f"{user}:{start}",
        "user_id": user,
        "session_start": start,
        "session_end": start + 10 * MINUTE,
        "duration_seconds": 600,
        "page_views": 2,
        "product_views": 3,
        "add_to_carts": 1,
        "purchases": 1,
        "revenue_minor": 123_450,
        "device_type": "mobile",
        "geo_region": "Izmir",
        "primary_category": "kitchen",
        "pane": "EARLY",
        "version": 1,
    }
    return UserSession(**(fields | changes))


def minute(start: int = T0, dimension: str = "total", value: str = "*", **changes: Any) -> RevenueWindow:
    """A RevenueWindow of one minute."""
    fields = {
        "window_start": start,
        "window_end": start + MINUTE,
        "dimension": dimension,
        "value": value,
        "gmv_minor": 300_000,
        "order_count": 4,
        "unique_users": 3,
        "first_time_orders": 1,
        "pane": "EARLY",
        "version": 1,
    }
    return RevenueWindow(**(fields | changes))


def fetch(writer_id: int) -> dict[str, Any]:
    """The writer schema of an id in SCHEMA_IDS, as a registry would say."""
    for record, known in SCHEMA_IDS.items():
        if known == writer_id:
            return avro_schema(record.__name__)
    raise codec.UnknownSchema(f"no schema with id {writer_id}")


def make_fetch() -> Any:
    return fetch


def payload(record: msgspec.Struct, writer_id: int | None = None) -> bytes:
    """The record as it lies in Kafka."""
    known = SCHEMA_IDS[type(record)] if writer_id is None else writer_id
    return codec.encode(record, known, codec.parse_schema(avro_schema(type(record).__name__)))


def block(
    payloads: Iterable[bytes | msgspec.Struct | None],
    *,
    times_ms: int | Sequence[int] = T0,
    watermarks_ms: int | Sequence[int] = NO_WATERMARK_MS,
    first_offset: int = 0,
    **fields: Any,
) -> Block:
    """A block of payloads, None for a message without one; records are framed as on Kafka."""
    raw = [p if p is None or isinstance(p, bytes) else payload(p) for p in payloads]
    sizes = [len(p or b"") for p in raw]
    return Block(
        topic=fields.pop("topic", "transactions.orders"),
        partition=fields.pop("partition", 0),
        data=b"".join(p or b"" for p in raw),
        bounds=np.concatenate((np.zeros(1, np.int64), np.cumsum(np.array(sizes, np.int64)))),
        offsets=np.arange(first_offset, first_offset + len(raw)),
        times_ms=np.array(np.broadcast_to(times_ms, len(raw)), np.int64),
        watermarks_ms=np.array(np.broadcast_to(watermarks_ms, len(raw)), np.int64),
        nulls=frozenset(i for i, p in enumerate(raw) if p is None),
        **fields,
    )


class TotalOf(beam.PTransform):
    """All counts as one, on the runner that knows TestStream: it fires no timer at the end of time."""

    def expand(self, counts: beam.PCollection[Counts]) -> beam.PCollection[Counts]:
        everywhere = beam.WindowInto(
            beam.window.GlobalWindows(),
            trigger=beam.trigger.AfterWatermark(),
            accumulation_mode=beam.trigger.AccumulationMode.ACCUMULATING,
        )
        total = lambda parts: sum(parts, Counts())  # noqa: E731
        return counts | "AllTime" >> everywhere | "Total" >> beam.CombineGlobally(total).without_defaults()
