from __future__ import annotations

import typing
from typing import Any, Literal

import msgspec
import pytest

from schemas import events
from schemas.events import (
    CdcChange,
    ClickstreamEvent,
    FraudAlert,
    InventoryEvent,
    LowStockAlert,
    OrderEvent,
    OrderItem,
    avro_schema,
)

RECORDS = [OrderEvent, ClickstreamEvent, InventoryEvent, FraudAlert, CdcChange, LowStockAlert]


def _python_type(schema: Any) -> Any:
    """The type that a record's field must have for an Avro type."""
    primitives = {"string": str, "boolean": bool, "double": float, "int": events.Int, "long": events.Long}
    if isinstance(schema, str):
        return primitives[schema]
    if isinstance(schema, list):
        assert schema[0] == "null"
        return _python_type(schema[1]) | None
    match schema["type"]:
        case "enum":
            return Literal[tuple(schema["symbols"])]
        case "array":
            return list[_python_type(schema["items"])]  # type: ignore[misc]
        case "record":
            return getattr(events, schema["name"])
    return _python_type(schema["type"])


def _fields(record: Any) -> list[tuple[str, Any]]:
    hints = typing.get_type_hints(record, include_extras=True)
    return [(f.name, hints[f.name]) for f in msgspec.structs.fields(record)]


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_has_the_fields_of_its_avro_schema_in_its_order_with_its_types(record: Any) -> None:
    schema = avro_schema(record.__name__)
    assert _fields(record) == [(f["name"], _python_type(f["type"])) for f in schema["fields"]]


def test_the_lines_of_an_order_are_those_of_its_avro_schema() -> None:
    schema = next(f["type"]["items"] for f in avro_schema("OrderEvent")["fields"] if f["name"] == "items")
    assert _fields(OrderItem) == [(f["name"], _python_type(f["type"])) for f in schema["fields"]]


@pytest.mark.parametrize("record", RECORDS)
def test_a_field_may_be_left_out_exactly_where_the_avro_schema_has_a_default(record: Any) -> None:
    optional = [f["name"] for f in avro_schema(record.__name__)["fields"] if "default" in f]
    assert [f.name for f in msgspec.structs.fields(record) if not f.required] == optional


@pytest.mark.parametrize("record", RECORDS)
def test_times_are_milliseconds_and_amounts_are_minor_units(record: Any) -> None:
    for field in avro_schema(record.__name__)["fields"]:
        if field["name"].endswith("_minor"):
            assert "long" in field["type"]
        if field["name"] in ("event_time", "detected_at"):
            assert field["type"] == {"type": "long", "logicalType": "timestamp-millis"}


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_is_named_as_its_file_and_lies_in_our_namespace(record: Any) -> None:
    schema = avro_schema(record.__name__)
    assert (schema["name"], schema["namespace"]) == (record.__name__, "streamforge")
