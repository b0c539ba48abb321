"""What passes validation can be written: every time and amount column of every table, at its ends, to every sink."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import redis

from schemas.codec import encode_datum, parse_schema
from schemas.events import avro_schema
from schemas.tables import TABLES, to_bigquery
from schemas.times import END_MS, LAST_MS, clamp_ms, ms_of_text
from stack import Stack
from tests import build, store
from tests.changes import product, record
from tests.transforms.io import test_redis_cdc
from transforms.domain.cdc import Product, alert_of, history_row, parse, product_of
from transforms.domain.revenue import revenue_rows
from transforms.domain.validity import wrong_with_time
from transforms.domain.versions import MAX_LONG

CHANGE = parse(*record("u", "products", product(stock=50), product(stock=1)))
assert CHANGE is not None
ROWS = {
    "fraud_alerts": build.alert(),
    "user_sessions": build.session(),
    "real_time_revenue": build.minute(),
    "orders": build.order(),
    "clickstream": build.click(),
    "cdc_changes": history_row(CHANGE, None),
    "low_stock_alerts": alert_of(product_of(CHANGE)),
}
# Versions are counts, or times, and compared as doubles in the store: below 2^53 by their making.
ENDS = {"TIMESTAMP": (1, LAST_MS), "INT64": (0, 1, MAX_LONG), "int": (0, 1, (1 << 31) - 1)}


def columns() -> list[tuple[str, str, int]]:
    found = []
    for name, table in TABLES.items():
        fields = {field["name"]: field["type"] for field in avro_schema(type(ROWS[name]).__name__)["fields"]}
        for column in table.columns:
            narrow = column.type == "INT64" and "int" in str(fields.get(column.name))
            kind = "int" if narrow else column.type
            if column.name != "version":
                found += [(name, column.name, end) for end in ENDS.get(kind, ())]
    return found


@pytest.mark.stack
@pytest.mark.parametrize(("table", "column", "end"), columns())
def test_every_column_can_be_written_to_every_sink(
    valkey: Stack, db: redis.Redis, table: str, column: str, end: int
) -> None:
    row = msgspec.structs.replace(ROWS[table], **{column: end})
    line = msgspec.json.encode(row)
    folder_row: dict[str, Any] = msgspec.json.decode(line)
    assert folder_row[column] == end
    if "version" not in folder_row:
        folder_row["version"] = 1
    assert to_bigquery(TABLES[table], folder_row)
    assert encode_datum(row, parse_schema(avro_schema(type(row).__name__)))
    if table == "low_stock_alerts":
        test_redis_cdc.write(valkey.redis_url, [row])
    elif type(row) in store._TABLES:
        store.write(valkey.redis_url, [row])
    elif table == "orders":
        store.write(valkey.redis_url, [store.order("o-1", row.event_time, row.total_amount_minor)])
    else:
        return
    assert db.dbsize() > 0


@pytest.mark.stack
@pytest.mark.parametrize("column", ["price_minor", "stock", "low_stock_threshold", "updated_ms", "event_time_ms"])
def test_every_column_of_a_product_can_be_written_to_the_store(valkey: Stack, db: redis.Redis, column: str) -> None:
    kind = {"price_minor": "INT64", "updated_ms": "TIMESTAMP", "event_time_ms": "TIMESTAMP"}.get(column, "int")
    for i, end in enumerate(ENDS[kind]):
        each: Product = product_of(CHANGE)._replace(product_id=f"p-{i}", **{column: end})  # type: ignore[arg-type]
        test_redis_cdc.write(valkey.redis_url, [each])
        assert f"p-{i}" in test_redis_cdc.held(db)["products"]


def test_the_last_minute_of_all_ends_when_it_can_be_written() -> None:
    (row,) = revenue_rows([("total", "*", 1, 1, 1, 1)], END_MS - 60_000, "TRY", "ON_TIME")
    assert row.window_end == LAST_MS
    assert to_bigquery(TABLES["real_time_revenue"], msgspec.to_builtins(row))


def test_one_instant_is_the_last_for_validation_and_for_every_sink() -> None:
    assert wrong_with_time(LAST_MS, LAST_MS) is None
    assert wrong_with_time(END_MS, END_MS) is not None
    assert (clamp_ms(END_MS), clamp_ms(-1), clamp_ms(7)) == (LAST_MS, 0, 7)
    assert ms_of_text("9999-12-31T23:59:59.999999Z") == LAST_MS
