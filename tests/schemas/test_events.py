from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from schemas import events
from schemas.avro_of import avro_of
from schemas.events import Long, avro_schema
from schemas.jobs import TABLES
from tests.schemas.test_evolution import NAMES

OF_TABLES = {rows.record.__name__: rows.record for rows in TABLES.values()}


def record_of(name: str) -> Any:
    return OF_TABLES.get(name) or getattr(events, name)


def without_docs(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {name: without_docs(part) for name, part in schema.items() if name != "doc"}
    return [without_docs(part) for part in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("name", NAMES)
def test_a_record_is_what_its_avro_schema_says(name: str) -> None:
    """Its fields in the schema's order, their types, which may be left out, and which are instants."""
    assert without_docs(avro_of(record_of(name))) == without_docs(avro_schema(name))


@pytest.mark.parametrize("name", NAMES)
def test_amounts_are_long(name: str) -> None:
    fields = {field["name"]: field["type"] for field in avro_schema(name)["fields"]}
    assert all("long" in kind for field, kind in fields.items() if field.endswith("_minor"))


def test_the_schema_of_a_new_record_is_made_of_its_class() -> None:
    class Coupon(msgspec.Struct, frozen=True):
        """A coupon\n    was used."""

        coupon_id: str
        used_time: Long
        kind: Literal["GIFT", "SALE"]
        shares: list[float]
        amount_minor: Long | None = None

    assert avro_of(Coupon) == {
        "type": "record",
        "name": "Coupon",
        "namespace": "streamforge",
        "doc": "A coupon was used.",
        "fields": [
            {"name": "coupon_id", "type": "string"},
            {"name": "used_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["GIFT", "SALE"]}},
            {"name": "shares", "type": {"type": "array", "items": "double"}},
            {"name": "amount_minor", "type": ["null", "long"], "default": None},
        ],
    }


def test_a_type_that_avro_does_not_have_is_refused() -> None:
    class Odd(msgspec.Struct):
        at: complex

    with pytest.raises(TypeError, match=r"at: .*complex.* by hand"):
        avro_of(Odd)
