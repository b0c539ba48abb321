"""Ends of records that follow one another, against those that writing them gave."""

from __future__ import annotations

import io
import random
import time
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.events import avro_schema
from schemas.runs import record_ends, skips
from tests.build import item, order
from tests.strategies import avro_data

KINDS = {
    "type": "record",
    "name": "Kinds",
    "fields": [
        {"name": "a", "type": "string"},
        {"name": "b", "type": ["null", "long"]},
        {"name": "c", "type": {"type": "array", "items": ["string", "null"]}},
        {"name": "d", "type": "double"},
        {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["X", "Y"]}},
        {"name": "f", "type": {"type": "array", "items": {"type": "record", "name": "R", "fields": [
            {"name": "g", "type": "int"}, {"name": "h", "type": "E"}, {"name": "i", "type": "boolean"}]}}},
        {"name": "j", "type": ["bytes", "null"]},
        {"name": "k", "type": "float"},
        {"name": "l", "type": "null"},
    ],
}  # fmt: skip
NAMES = ("OrderEvent", "ClickstreamEvent")
SCHEMAS = {"Kinds": KINDS, **{name: avro_schema(name) for name in NAMES}}


def written(schema: dict[str, Any], record: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()


def found_in(schema: dict[str, Any], runs: list[list[bytes]]) -> tuple[list[int], list[bool]]:
    skip = skips(schema)
    assert skip
    ends = np.cumsum([sum(map(len, run)) for run in runs])
    starts = np.concatenate(([0], ends[:-1]))
    counts = np.array([len(run) for run in runs])
    found, right = record_ends(b"".join(b"".join(run) for run in runs), starts, ends, counts, skip)
    return found.tolist(), right.tolist()


def plain(name: str) -> dict[str, Any]:
    return codec.parse_schema(SCHEMAS[name])


@given(st.data(), st.sampled_from(sorted(SCHEMAS)))
def test_the_ends_of_records_of_any_content_are_found(data: st.DataObject, name: str) -> None:
    schema = plain(name)
    records = avro_data(codec.plain_schema(SCHEMAS[name]) if name != "Kinds" else _named(KINDS))
    runs = [[written(schema, r) for r in run] for run in data.draw(st.lists(st.lists(records, max_size=4), min_size=1))]
    found, right = found_in(schema, runs)
    assert all(right)
    assert found == np.cumsum([len(datum) for run in runs for datum in run]).tolist()


def _named(schema: Any) -> Any:
    """With the enum written out where it is named, as the strategy knows no names."""
    if schema == "E":
        return {"type": "enum", "name": "E", "symbols": ["X", "Y"]}
    if isinstance(schema, list):
        return [_named(branch) for branch in schema]
    return {key: _named(value) for key, value in schema.items()} if isinstance(schema, dict) else schema


def test_long_texts_many_items_and_large_numbers_are_stepped_over() -> None:
    schema = plain("OrderEvent")
    orders = [
        order("o" * 200, items=[item(product_name="n" * 70_000)] * 3, amount=1 << 62),
        order(items=[]),
        order(items=[item()] * 200),
    ]
    runs = [[codec.encode_datum(o, schema) for o in orders], [codec.encode_datum(order(), schema)] * 5]
    found, right = found_in(schema, runs)
    assert right == [True, True]
    assert found == np.cumsum([len(datum) for run in runs for datum in run]).tolist()


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=5), st.integers(1, 30))
def test_bytes_that_are_no_records_end_and_spoil_no_other_run(broken: list[bytes], count: int) -> None:
    schema = plain("OrderEvent")
    good = codec.encode_datum(order(), schema)
    skip = skips(schema)
    assert skip
    parts = [*broken, good * 3]
    ends = np.cumsum([len(part) for part in parts])
    starts = np.concatenate(([0], ends[:-1]))
    counts = np.array([count] * len(broken) + [3])
    found, right = record_ends(b"".join(parts), starts, ends, counts, skip)
    assert right.tolist()[-1]
    assert found[-3:].tolist() == [ends[-2] + len(good) * i for i in (1, 2, 3)]


def test_a_run_that_is_cut_or_has_bytes_behind_its_records_is_told() -> None:
    schema = plain("OrderEvent")
    data = [codec.encode_datum(order(f"o-{i}"), schema) for i in range(4)]
    rng = random.Random(1)
    for cut in (b"".join(data)[: -rng.randrange(1, 50)], b"".join(data) + b"\0"):
        skip = skips(schema)
        assert skip
        _, right = record_ends(cut, np.array([0]), np.array([len(cut)]), np.array([4]), skip)
        assert right.tolist() == [False]


def test_claims_of_more_records_than_there_can_be_and_of_endless_arrays_take_no_time() -> None:
    schema = plain("OrderEvent")
    good = codec.encode_datum(order(items=[]), schema)
    endless = codec.encode_datum(order(items=[item()]), schema).replace(b"\x02\x06p-1", b"\xfe\xff\x7f\x06p-1")
    skip = skips(schema)
    assert skip
    data = good + endless + bytes(1 << 20)
    starts, ends = np.array([0, len(good)]), np.array([len(good), len(data)])
    begin = time.process_time()
    _, right = record_ends(data, starts, ends, np.array([1, 1 << 20]), skip)
    assert right.tolist() == [True, False]
    assert time.process_time() - begin < 5


def test_nothing_at_all_is_right() -> None:
    skip = skips(plain("OrderEvent"))
    assert skip
    nothing = np.zeros(2, np.int64)
    found, right = record_ends(b"x", nothing, np.array([0, 1]), nothing, skip)
    assert (found.tolist(), right.tolist()) == ([], [True, False])


@pytest.mark.parametrize(
    "kind",
    [{"type": "map", "values": "int"}, ["int", "string", "null"], "null", {"type": "array", "items": "null"}],
)
def test_a_schema_whose_values_have_to_be_read_is_left_to_who_can(kind: Any) -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "a", "type": kind}]}
    assert skips(codec.parse_schema(schema)) is None
