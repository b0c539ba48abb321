"""What a record is: the typed events of the shop, one class per Avro schema in `schemas/avro/`.

Field names and order are those of the Avro schemas (a test compares them). Amounts are integers in minor units
of the currency (`schemas.currencies`), times are integers in milliseconds since the Unix epoch, UTC.
"""

from __future__ import annotations

import json
from importlib.resources import files  # not paths: Spark imports us from a zip
from typing import Annotated, Any, Literal

import msgspec

from schemas import currencies

__all__ = [
    "CdcChange",
    "ClickstreamEvent",
    "FraudAlert",
    "InventoryEvent",
    "LowStockAlert",
    "OrderEvent",
    "OrderItem",
    "RevenueWindow",
    "UserSession",
    "avro_history",
    "avro_schema",
]

# Avro's two widths: what JSON says beyond them is refused like any other wrong type.
Int = Annotated[int, msgspec.Meta(ge=-(1 << 31), le=(1 << 31) - 1)]
Long = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]

OrderStatus = Literal["CREATED", "CONFIRMED", "SHIPPED", "DELIVERED", "CANCELLED", "REFUNDED"]
EventType = Literal[
    "PAGE_VIEW", "PRODUCT_VIEW", "SEARCH", "ADD_TO_CART", "REMOVE_FROM_CART", "CHECKOUT_START", "PURCHASE"
]
Pane = Literal["EARLY", "ON_TIME", "LATE"]
Dimension = Literal["total", "category", "region"]
Movement = Literal["SALE", "RESTOCK", "RETURN", "ADJUSTMENT"]

# gc=False, of what is made by the million: texts and numbers, in which no cycle can be.


class OrderItem(msgspec.Struct, frozen=True, gc=False):
    product_id: str
    product_name: str
    category: str
    quantity: Int
    unit_price_minor: Long
    total_price_minor: Long


class OrderEvent(msgspec.Struct, frozen=True, gc=False):
    """An order entered a status."""

    order_id: str
    user_id: str
    session_id: str
    order_status: OrderStatus
    items: list[OrderItem]
    subtotal_minor: Long
    discount_minor: Long
    shipping_minor: Long
    total_amount_minor: Long
    currency: str
    payment_method: str
    shipping_region: str
    event_time: Long
    is_first_order: bool


class ClickstreamEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One action of a user on the site."""

    event_id: str
    user_id: str
    session_id: str
    event_type: EventType
    product_id: str | None = None
    category: str | None = None
    price_minor: Long | None = None
    quantity: Int | None = None
    event_time: Long
    device_type: str
    geo_region: str
    page_url: str | None = None
    referrer: str | None = None


class InventoryEvent(msgspec.Struct, frozen=True):
    """A product's stock moved."""

    event_id: str
    product_id: str
    warehouse_id: str
    movement: Movement
    quantity_change: Int
    stock_after: Int
    event_time: Long
    order_id: str | None = None


class LowStockAlert(msgspec.Struct, frozen=True):
    """A product's stock fell to its threshold or below; `alert_id` is that of the product and the change."""

    alert_id: str
    product_id: str
    product_name: str
    category: str
    stock: Int
    low_stock_threshold: Int
    event_time: Long
    version: str


class CdcChange(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the shop's database as it was read or changed; a greater `version` of (table_name, key) replaces an
    older one, and one of op t all of the table_name.

    Attributes:
      key: the primary key's columns as a JSON object, sorted by name.
      before, after: the row as JSON, without personal data.
      event_time: when the change was committed.
      version: see `transforms.domain.cdc`; compared as text.
    """

    table_name: str
    key: str
    op: str
    before: str | None = None
    after: str | None = None
    event_time: Long
    lsn: Long
    tx_id: Long | None = None
    snapshot: str
    version: str
    deleted: bool = False


class FraudAlert(msgspec.Struct, frozen=True):
    """An order completed a fraud pattern."""

    alert_id: str
    user_id: str
    order_id: str
    alert_type: str
    risk_score: float
    description: str
    amount_minor: Long
    event_time: Long
    detected_at: Long
    related_events: list[str]
    currency: str = currencies.DEFAULT


class UserSession(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one visit of a user; a newer `version` of a session_id replaces an older one.

    Attributes:
      session_id: user_id:session_start in ms.
      session_end: event time of its last click.
      duration_seconds: whole seconds from the first click to the last.
      revenue_minor: of its purchases, price × quantity. Clicks name no currency: it is the shop's.
      device_type, geo_region, primary_category: seen most; the smallest string of several.
      deleted: it was merged into another session; it never comes back.
    """

    session_id: str
    user_id: str
    session_start: Long
    session_end: Long
    duration_seconds: Long
    page_views: Long
    product_views: Long
    add_to_carts: Long
    purchases: Long
    revenue_minor: Long
    device_type: str
    geo_region: str
    primary_category: str | None = None
    pane: Pane
    version: Long
    deleted: bool = False


class RevenueWindow(msgspec.Struct, frozen=True, kw_only=True):
    """Revenue of one minute in one currency, in all (`value` is `*`) or of one category or region.

    A newer `version` of (window_start, currency, dimension, value) replaces an older one.
    """

    window_start: Long
    window_end: Long
    dimension: Dimension
    value: str
    gmv_minor: Long
    order_count: Long
    unique_users: Long
    first_time_orders: Long
    pane: Pane
    version: Long
    currency: str = currencies.DEFAULT


# msgspec learns a type's fields when it first decodes one; another thread that decodes one meanwhile ends the process
# with a segmentation fault (0.22). So types that threads decode are learned when their module is imported.
for _record in (OrderEvent, ClickstreamEvent):
    msgspec.json.Decoder(_record)


def avro_history(name: str) -> list[dict[str, Any]]:
    """Every version of a record type's schema, oldest first; the last is the current one."""
    versions = sorted(
        files("schemas").joinpath("avro", "history", name).iterdir(), key=lambda file: int(file.name.partition(".")[0])
    )
    return [json.loads(file.read_text(encoding="utf-8")) for file in versions]


def avro_schema(name: str) -> dict[str, Any]:
    """The current Avro schema of a record type, as parsed JSON."""
    schema: dict[str, Any] = json.loads(files("schemas").joinpath("avro", f"{name}.avsc").read_text(encoding="utf-8"))
    return schema
