"""A datum stepped over before fastavro sees it: it ends where it was written to, and nothing runs away."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.events import avro_schema
from schemas.walk import MAX_DEPTH, Walk, WalkError, takes_bytes
from tests import strategies
from tests.build import click, payload


def walk(schema: Any) -> Walk:
    return Walk(codec.parse_schema(schema))


def written(value: Any, schema: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, codec.parse_schema(schema), value)
    return out.getvalue()


EVERYTHING = {
    "type": "record",
    "name": "Everything",
    "fields": [
        {"name": f"f{i}", "type": kind}
        for i, kind in enumerate(
            [
                "null",
                "boolean",
                "int",
                "long",
                "float",
                "double",
                "string",
                "bytes",
                ["null", "long", "string"],
                {"type": "array", "items": ["null", "string"]},
                {"type": "map", "values": {"type": "array", "items": "int"}},
                {"type": "enum", "name": "Letter", "symbols": ["A", "B", "C"]},
                {"type": "fixed", "name": "Three", "size": 3},
                {"type": "record", "name": "Inner", "fields": [{"name": "x", "type": "bytes"}]},
            ]
        )
    ],
}


@given(strategies.avro_data(EVERYTHING), st.binary(max_size=3))
def test_a_datum_ends_where_it_was_written_to(value: Any, behind: bytes) -> None:
    datum = written(value, EVERYTHING)
    assert walk(EVERYTHING).end(datum + behind) == len(datum)
    assert walk(EVERYTHING).end(memoryview(behind + datum), len(behind)) == len(behind) + len(datum)


@given(strategies.avro_data(EVERYTHING), st.data())
def test_a_datum_that_is_cut_does_not_end(value: Any, data: st.DataObject) -> None:
    datum = written(value, EVERYTHING)
    with pytest.raises(WalkError):
        walk(EVERYTHING).end(datum[: data.draw(st.integers(0, len(datum) - 1))])


def test_a_type_is_found_by_its_name_also_within_itself() -> None:
    schema = {
        "type": "record",
        "name": "a.Tree",
        "fields": [
            {"name": "letter", "type": {"type": "enum", "name": "Letter", "symbols": ["A", "B"]}},
            {"name": "again", "type": "Letter"},
            {"name": "children", "type": {"type": "array", "items": "Tree"}},
        ],
    }
    leaf = {"letter": "B", "again": "A", "children": []}
    datum = written({"letter": "A", "again": "B", "children": [leaf, leaf]}, schema)
    assert walk(schema).end(datum) == len(datum)


CLAIM = b"\x80\xa0\x94\xa5\x8d\x1d"  # ten billion and some, as a count
RUNAWAYS: dict[str, tuple[Any, bytes]] = {
    "ten billion nulls": ({"type": "array", "items": "null"}, CLAIM),
    "ten billion empty records": ({"type": "array", "items": {"type": "record", "name": "E", "fields": []}}, CLAIM),
    "ten billion strings": ({"type": "array", "items": "string"}, CLAIM),
    "ten billion entries of a map": ({"type": "map", "values": "null"}, CLAIM),
    "nulls in small blocks without end": ({"type": "array", "items": "null"}, b"\xd0\x0f" * 10_000),
    "a string of 2^62 bytes": ("string", b"\xfe" + b"\xff" * 8 + b"\x01"),
    "a string of less than no bytes": ("string", b"\x01"),
    "a number without end": ("long", b"\xff" * 1_000_000),
    "a block of another size": ({"type": "array", "items": "long"}, b"\x03\x02\x02\x02\x00"),
    "an enum index below zero": ({"type": "enum", "name": "L", "symbols": ["A"]}, b"\x01"),
    "a union index above": (["null", "long"], b"\x04\x02"),
}


@pytest.mark.parametrize("name", RUNAWAYS)
def test_bytes_that_claim_what_they_do_not_hold_are_refused_at_once(name: str) -> None:
    schema, datum = RUNAWAYS[name]
    with pytest.raises(WalkError):
        walk(schema).end(datum)


def test_a_value_may_be_nested_64_deep_and_no_deeper() -> None:
    node = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
    fits = MAX_DEPTH // 2 - 1  # a record and a union each
    assert walk(node).end(b"\2" * fits + b"\0") == fits + 1
    with pytest.raises(WalkError, match="deep"):
        walk(node).end(b"\2" * (fits + 1) + b"\0")


def test_a_sized_block_that_keeps_to_its_size_is_stepped_over() -> None:
    assert walk({"type": "array", "items": "long"}).end(b"\x03\x04\x02\x02\x00") == 5


def test_what_takes_bytes() -> None:
    for schema in ("int", "string", ["null"], {"type": "map", "values": "null"}, avro_schema("OrderEvent")):
        assert takes_bytes(schema, {}), schema
    empty = {"type": "record", "name": "E", "fields": [{"name": "a", "type": "null"}]}
    for schema in ("null", {"type": "null"}, empty, {"type": "fixed", "name": "F", "size": 0}, "Unknown"):
        assert not takes_bytes(schema, {}), schema


def test_a_click_costs_few_values() -> None:
    datum = payload(click())[codec.FRAME_BYTES :]
    assert walk(avro_schema("ClickstreamEvent")).end(datum) == len(datum)
