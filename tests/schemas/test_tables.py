"""Tables, records and Avro schemas hold together; a row goes to BigQuery and back, or is refused by name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import (
    CdcChange,
    ClickstreamEvent,
    FraudAlert,
    LowStockAlert,
    OrderEvent,
    RevenueWindow,
    UserSession,
    avro_history,
    avro_schema,
)
from schemas.tables import TABLES, Column, RowError, columns_of, current_view, from_bigquery, resources, to_bigquery
from tests.build import T0, alert, order
from tests.strategies import clicks, orders

RECORDS = {
    "fraud_alerts": FraudAlert,
    "user_sessions": UserSession,
    "real_time_revenue": RevenueWindow,
    "orders": OrderEvent,
    "clickstream": ClickstreamEvent,
    "cdc_changes": CdcChange,
    "low_stock_alerts": LowStockAlert,
}

# Of the first version of each record, which never changes, written down by hand.
COLUMNS = {
    "fraud_alerts": "alert_id user_id order_id alert_type risk_score:FLOAT64 description amount_minor:INT64 "
    "event_time:TIMESTAMP detected_at:TIMESTAMP related_events* version:INT64",
    "user_sessions": "session_id user_id session_start:TIMESTAMP session_end:TIMESTAMP duration_seconds:INT64 "
    "page_views:INT64 product_views:INT64 add_to_carts:INT64 purchases:INT64 revenue_minor:INT64 device_type "
    "geo_region primary_category? pane version:INT64 deleted:BOOL?",
    "real_time_revenue": "window_start:TIMESTAMP window_end:TIMESTAMP dimension value gmv_minor:INT64 "
    "order_count:INT64 unique_users:INT64 first_time_orders:INT64 pane version:INT64",
    "orders": "order_id user_id session_id order_status items:RECORD* subtotal_minor:INT64 discount_minor:INT64 "
    "shipping_minor:INT64 total_amount_minor:INT64 currency payment_method shipping_region event_time:TIMESTAMP "
    "is_first_order:BOOL version:INT64",
    "clickstream": "event_id user_id session_id event_type product_id? category? price_minor:INT64? quantity:INT64? "
    "event_time:TIMESTAMP device_type geo_region page_url? referrer? version:INT64",
    "cdc_changes": "table_name key op before? after? event_time:TIMESTAMP lsn:INT64 tx_id:INT64? snapshot version "
    "deleted:BOOL?",
    "low_stock_alerts": "alert_id product_id product_name category stock:INT64 low_stock_threshold:INT64 "
    "event_time:TIMESTAMP version",
}
ITEM = "product_id product_name category quantity:INT64 unit_price_minor:INT64 total_price_minor:INT64"


def said(columns: tuple[Column, ...]) -> str:
    marks = {"REQUIRED": "", "NULLABLE": "?", "REPEATED": "*"}
    return " ".join(c.name + ("" if c.type == "STRING" else f":{c.type}") + marks[c.mode] for c in columns)


def row(record: Any) -> dict[str, Any]:
    return {**msgspec.to_builtins(record), "version": record.event_time}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_first_version_has_these_columns(name: str) -> None:
    assert said(columns_of(avro_history(RECORDS[name].__name__)[0])) == COLUMNS[name]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_an_older_version_lacks_no_more_than_columns_that_may_be_null(name: str) -> None:
    newest = {column.name: (column.type, column.mode) for column in TABLES[name].columns}
    for version in avro_history(RECORDS[name].__name__):
        older = {column.name: (column.type, column.mode) for column in columns_of(version)}
        assert older.items() <= newest.items()
        assert all(newest[more][1] != "REQUIRED" for more in newest.keys() - older.keys())


def test_the_lines_of_an_order_are_a_repeated_record() -> None:
    (items,) = [column for column in columns_of(avro_history("OrderEvent")[0]) if column.fields]
    assert said(items.fields) == ITEM


@pytest.mark.parametrize("name", TABLES)
def test_columns_are_the_fields_of_the_record_and_of_its_avro_schema_and_a_version(name: str) -> None:
    record = RECORDS[name]
    names = [column.name for column in TABLES[name].columns]
    for fields in (
        [field.name for field in msgspec.structs.fields(record)],
        [field["name"] for field in avro_schema(record.__name__)["fields"]],
    ):
        assert names == [*fields, *(["version"] if "version" not in fields else [])]


@pytest.mark.parametrize("name", TABLES)
def test_a_column_may_be_null_exactly_where_the_record_may_lack_it(name: str) -> None:
    fields = {field.name: field for field in msgspec.structs.fields(RECORDS[name])}
    for column in TABLES[name].columns:
        if column.name in fields and column.name != "primary_category":  # always there in a row, and may be null
            assert (column.mode == "NULLABLE") is not fields[column.name].required


@pytest.mark.parametrize("name", TABLES)
def test_key_partition_and_clusters_are_columns_of_the_right_kind(name: str) -> None:
    table = TABLES[name]
    types = {column.name: column for column in table.columns}
    assert types[table.partition_by].type == "TIMESTAMP"
    needed = (*table.key, table.partition_by, *table.cluster_by)
    assert all(types[column].mode == "REQUIRED" or types[column].default is not None for column in needed)
    assert len(table.cluster_by) <= 4
    assert types["version"].type in ("INT64", "STRING")  # text of one width


def test_resources_are_what_terraform_needs() -> None:
    made, view = resources(TABLES["orders"], "shop-1.live")
    assert made["tableReference"] == {"projectId": "shop-1", "datasetId": "live", "tableId": "orders"}
    assert made["timePartitioning"] == {"type": "DAY", "field": "event_time"}
    assert made["clustering"] == {"fields": ["user_id", "order_id"]}
    items = made["schema"]["fields"][4]
    assert (items["name"], items["type"], items["mode"]) == ("items", "RECORD", "REPEATED")
    assert items["fields"][3] == {
        "name": "quantity",
        "type": "INT64",
        "mode": "REQUIRED",
        "description": "At least 1.",
    }
    assert view["tableReference"]["tableId"] == "orders_current"
    assert view["view"] == {"query": current_view(TABLES["orders"], "shop-1.live"), "useLegacySql": False}


@given(orders, st.integers(0, 253_402_300_799_999))
def test_an_order_goes_to_bigquery_and_back(record: OrderEvent, time_ms: int) -> None:
    line = row(msgspec.structs.replace(record, event_time=time_ms))
    assert from_bigquery(TABLES["orders"], to_bigquery(TABLES["orders"], line)) == line


@given(clicks, st.integers(0, 253_402_300_799_999))
def test_a_click_goes_to_bigquery_and_back(record: ClickstreamEvent, time_ms: int) -> None:
    line = row(msgspec.structs.replace(record, event_time=time_ms))
    assert from_bigquery(TABLES["clickstream"], to_bigquery(TABLES["clickstream"], line)) == line


def test_times_are_rfc_3339_with_milliseconds_and_all_else_is_as_it_was() -> None:
    line = row(alert(event_time=1_790_000_000_007))
    there = to_bigquery(TABLES["fraud_alerts"], line)
    assert there["event_time"] == "2026-09-21T14:13:20.007Z"
    assert {k: v for k, v in there.items() if k not in ("event_time", "detected_at")} == {
        k: v for k, v in line.items() if k not in ("event_time", "detected_at")
    }


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"order_id": None}, "order_id is missing"),
        ({"order_id": 1}, "order_id is int, not STRING"),
        ({"version": True}, "version is bool, not INT64"),
        ({"version": 1 << 63}, "version is out of range: 9223372036854775808"),
        ({"version": -(1 << 63) - 1}, "version is out of range"),
        ({"event_time": 1.5}, "event_time is float, not TIMESTAMP"),
        ({"event_time": -1}, "event_time is out of range: -1"),
        ({"event_time": 253_402_300_800_000}, "event_time is out of range"),
        ({"is_first_order": 0}, "is_first_order is int, not BOOL"),
        ({"items": None}, "items is NoneType, not an array"),
        ({"items": ["x"]}, "items is str, not an object"),
        ({"items": [{"product_id": "p"}]}, "items.product_name is missing"),
        ({"extra": None}, "extra is not a column"),
    ],
)
def test_what_is_no_row_of_the_table_is_refused_by_name(change: dict[str, Any], why: str) -> None:
    with pytest.raises(RowError, match=f"^{why}"):
        to_bigquery(TABLES["orders"], row(order(at=T0)) | change)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1 << 63, "0.5", None])
def test_a_score_is_a_finite_number(value: Any) -> None:
    line = row(alert()) | {"risk_score": value}
    if value == 1 << 63:
        assert to_bigquery(TABLES["fraud_alerts"], line)["risk_score"] == value
    else:
        with pytest.raises(RowError, match=r"^risk_score is "):
            to_bigquery(TABLES["fraud_alerts"], line)


@pytest.mark.parametrize("line", [None, [], "x", 1])
def test_a_row_is_an_object(line: Any) -> None:
    with pytest.raises(RowError, match=r"^the row is "):
        to_bigquery(TABLES["orders"], line)
