"""Hypothesis strategies for records and for whatever an Avro schema allows."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

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
)

ints = st.integers(-(1 << 31), (1 << 31) - 1)
longs = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-70, 70)
texts = st.text(max_size=12) | st.sampled_from(["", "İstanbul", "u-1", "日本", "\x00", "🛒"])

items = st.builds(OrderItem, texts, texts, texts, ints, longs, longs)
orders = st.builds(
    OrderEvent,
    texts,
    texts,
    texts,
    items=st.lists(items, max_size=4),
    subtotal_minor=longs,
    discount_minor=longs,
    shipping_minor=longs,
    total_amount_minor=longs,
    currency=texts,
    payment_method=texts,
    shipping_region=texts,
    event_time=longs,
    is_first_order=st.booleans(),
)
clicks = st.builds(
    ClickstreamEvent,
    event_id=texts,
    user_id=texts,
    session_id=texts,
    product_id=st.none() | texts,
    category=st.none() | texts,
    price_minor=st.none() | longs,
    quantity=st.none() | ints,
    event_time=longs,
    device_type=texts,
    geo_region=texts,
    page_url=st.none() | texts,
    referrer=st.none() | texts,
)
movements = st.builds(
    InventoryEvent,
    event_id=texts,
    product_id=texts,
    warehouse_id=texts,
    quantity_change=ints,
    stock_after=ints,
    event_time=longs,
    order_id=st.none() | texts,
)
alerts = st.builds(
    FraudAlert,
    texts,
    texts,
    texts,
    texts,
    st.floats(0, 1),
    texts,
    longs,
    longs,
    longs,
    st.lists(texts, max_size=4),
)
sessions = st.builds(
    UserSession,
    session_id=texts,
    user_id=texts,
    session_start=longs,
    session_end=longs,
    duration_seconds=longs,
    page_views=longs,
    product_views=longs,
    add_to_carts=longs,
    purchases=longs,
    revenue_minor=longs,
    device_type=texts,
    geo_region=texts,
    primary_category=st.none() | texts,
    version=longs,
)
revenue = st.builds(
    RevenueWindow,
    window_start=longs,
    window_end=longs,
    value=texts,
    gmv_minor=longs,
    order_count=longs,
    unique_users=longs,
    first_time_orders=longs,
    version=longs,
    currency=texts,
)
low_stock = st.builds(LowStockAlert, texts, texts, texts, texts, ints, ints, longs, texts)
changes = st.builds(
    CdcChange,
    table_name=texts,
    key=texts,
    op=texts,
    before=st.none() | texts,
    after=st.none() | texts,
    event_time=longs,
    lsn=longs,
    tx_id=st.none() | longs,
    snapshot=texts,
    version=texts,
    deleted=st.booleans(),
)
records = st.one_of(orders, clicks, movements, alerts, sessions, revenue, low_stock, changes)


def avro_data(schema: Any) -> st.SearchStrategy[Any]:
    """Everything that can be written with a schema (JSON form, without references to named types)."""
    if isinstance(schema, list):
        return st.one_of([avro_data(branch) for branch in schema])
    if isinstance(schema, str):
        return {
            "null": st.none(),
            "boolean": st.booleans(),
            "int": ints,
            "long": longs,
            "float": st.floats(allow_nan=False, width=32),
            "double": st.floats(allow_nan=False),
            "string": texts,
            "bytes": st.binary(max_size=9),
        }[schema]
    match schema["type"]:
        case "record":
            return st.fixed_dictionaries({f["name"]: avro_data(f["type"]) for f in schema["fields"]})
        case "array":
            return st.lists(avro_data(schema["items"]), max_size=4)
        case "map":
            return st.dictionaries(texts, avro_data(schema["values"]), max_size=3)
        case "enum":
            return st.sampled_from(schema["symbols"])
        case "fixed":
            return st.binary(min_size=schema["size"], max_size=schema["size"])
    return avro_data(schema["type"])
