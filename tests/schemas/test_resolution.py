"""Columns of another version of the schema against fastavro's schema resolution."""

from __future__ import annotations

import copy
import io
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.events import avro_schema
from schemas.resolution import resolve
from tests.schemas.test_columns import plain, row, written
from tests.strategies import avro_data

DEFAULTED = [
    {"name": "x_coupon", "type": ["null", "string"], "default": None},
    {"name": "x_count", "type": ["null", "long"], "default": None},
    {"name": "x_some", "type": ["string", "null"], "default": "sömething"},
    {"name": "x_text", "type": "string", "default": "ç"},
    {"name": "x_long", "type": {"type": "long", "logicalType": "timestamp-millis"}, "default": -5},
    {"name": "x_flag", "type": "boolean", "default": True},
    {"name": "x_ratio", "type": "double", "default": 0.5},
]
TAG = {"type": "record", "name": "XTag", "fields": [{"name": "tag", "type": "string"}]}
AT_THE_TOP = [
    {"name": "x_kind", "type": {"type": "enum", "name": "XKind", "symbols": ["A", "B"]}, "default": "B"},
    {"name": "x_list", "type": {"type": "array", "items": TAG}, "default": []},
]


def items_of(schema: Any) -> Any:
    return next(f for f in schema["fields"] if f["name"] == "items")["type"]["items"]


@st.composite
def versions(draw: st.DrawFn) -> tuple[Any, Any]:
    """Two versions of an order: fields with defaults that only one of them has, in any order, of items too."""
    writer, reader = copy.deepcopy(avro_schema("OrderEvent")), copy.deepcopy(avro_schema("OrderEvent"))
    for of, more in ((lambda s: s, DEFAULTED + AT_THE_TOP), (items_of, DEFAULTED)):
        for schema in (writer, reader):
            fields = of(schema)["fields"]
            fields += draw(st.lists(st.sampled_from(more), unique_by=lambda f: f["name"], max_size=4))
        if draw(st.booleans()):
            of(writer)["fields"] = draw(st.permutations(of(writer)["fields"]))
    return codec.parse_schema(writer), codec.parse_schema(reader)


@given(versions(), st.data())
def test_records_of_another_version_are_read_by_columns_as_fastavro_resolves_them(
    both: tuple[Any, Any], data: st.DataObject
) -> None:
    writer, reader = both
    datums = [written(each, writer) for each in data.draw(st.lists(avro_data(writer), min_size=1, max_size=4))]
    resolution = resolve(writer, reader)
    assert resolution is not None
    ends = np.cumsum([len(d) for d in datums]).astype(np.int64)
    columns = resolution.decode(b"".join(datums), ends - [len(d) for d in datums], ends)
    for i, datum in enumerate(datums):
        expected = fastavro.schemaless_reader(io.BytesIO(datum), writer, reader)
        assert columns.ok[i]
        named = {**reader, "fields": [_by_writers_symbols(f, resolution.symbols) for f in reader["fields"]]}
        assert row(columns, i, named) == plain(expected, reader)
        for field in reader["fields"]:
            if isinstance(field["type"], list):
                assert columns.ints[f"{field['name']}?"][i] == (expected[field["name"]] is not None)
        if resolution.suffix is not None:
            assert datum + resolution.suffix == written(expected, reader)


def _by_writers_symbols(field: Any, symbols: dict[str, list[str]]) -> Any:
    """Enum columns hold the writer's indexes."""
    if field["name"] not in symbols:
        return field
    return {**field, "type": {**field["type"], "symbols": symbols[field["name"]]}}


def evolved(change: Any = lambda _: None) -> Any:
    schema = copy.deepcopy(avro_schema("OrderEvent"))
    change(schema)
    return codec.parse_schema(schema)


def test_a_datum_becomes_ours_by_what_follows_it_where_all_that_is_new_is_at_the_end() -> None:
    old, new = evolved(), evolved(lambda s: s["fields"].extend([DEFAULTED[0], DEFAULTED[4]]))
    found = [resolve(old, new), resolve(old, old), resolve(new, old)]
    assert [each and each.suffix for each in found] == [b"\x00\x09", b"", None]
    moved = evolved(lambda s: s["fields"].insert(3, DEFAULTED[0]))
    ahead = resolve(old, moved)
    assert ahead is not None
    assert ahead.suffix is None


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["fields"].append({"name": "channel", "type": "string"}),
        lambda s: s["fields"].append({"name": "place", "type": "string", "default": "", "aliases": ["currency"]}),
        lambda s: s["fields"][0].update(type="bytes"),
        lambda s: s["fields"][0].update(type=["null", "string"]),
        lambda s: items_of(s).update(name="Line"),
        lambda s: s["fields"].append(
            {
                "name": "at",
                "type": {"type": "record", "name": "At", "fields": [{"name": "x", "type": "int"}]},
                "default": {"x": 1},
            }
        ),
    ],
    ids=["no default", "alias", "other type", "now optional", "other name", "a record by default"],
)
def test_what_takes_more_is_left_to_the_reader_of_single_records(change: Any) -> None:
    assert resolve(evolved(), evolved(change)) is None
