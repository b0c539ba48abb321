from __future__ import annotations

import copy
import io
import json
import struct
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.codec import NotFramed, NotThisRecord, Undecodable, UnknownSchema
from schemas.events import ClickstreamEvent, OrderEvent, avro_schema
from tests import strategies
from tests.build import HIGH, SCHEMA_IDS, T0, UNKNOWN_ID, alert, click, fetch, inventory, item, order, payload


def decoder(record: Any = OrderEvent, schema: Any = None) -> codec.Decoder[Any]:
    return codec.Decoder(record, fetch if schema is None else lambda _: schema)


def changed(record: str, change: Any) -> dict[str, Any]:
    schema = copy.deepcopy(avro_schema(record))
    change({f["name"]: f for f in schema["fields"]}, schema)
    return schema


# The wire format


@given(strategies.records)
def test_every_record_comes_back_from_the_wire_as_it_was(record: Any) -> None:
    assert decoder(type(record)).decode(payload(record)) == record


@given(strategies.orders, st.integers(0, (1 << 31) - 1))
def test_a_payload_begins_with_a_zero_and_the_schema_id_in_network_order(record: OrderEvent, writer_id: int) -> None:
    framed = payload(record, writer_id)
    assert framed[:5] == b"\0" + writer_id.to_bytes(4, "big")
    assert codec.schema_id(framed) == writer_id


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (None, "empty payload"),
        (b"", "empty payload"),
        (b"\0", "1 bytes are too short"),
        (b"\0\0\0\1", "4 bytes are too short"),
        (b"\1\0\0\0\1x", "6 bytes are too short for the 17-byte header"),
        (b"\x9f\0\0\0\1x", "magic byte is 159, it begins with 9f 00 00 00 01 78"),
    ],
)
def test_what_is_not_framed_is_refused_as_such(raw: bytes | None, why: str) -> None:
    with pytest.raises(NotFramed, match=why):
        decoder().decode(raw)


def test_an_unknown_schema_id_is_refused_as_such_and_asked_for_again_the_next_time() -> None:
    asked = []

    def registered_in_between(writer_id: int) -> dict[str, Any]:
        asked.append(writer_id)
        if len(asked) == 1:
            raise UnknownSchema("not yet")
        return avro_schema("OrderEvent")

    later = codec.Decoder(OrderEvent, registered_in_between)
    framed = payload(order(), UNKNOWN_ID)
    with pytest.raises(UnknownSchema):
        later.decode(framed)
    assert later.decode(framed) == order()
    assert later.decode(framed) == order()
    assert asked == [UNKNOWN_ID, UNKNOWN_ID]


def test_an_unreachable_registry_is_not_taken_for_a_bad_record() -> None:
    def unreachable(_: int) -> dict[str, Any]:
        raise ConnectionRefusedError

    with pytest.raises(codec.SchemaUnavailable, match="ConnectionRefusedError"):
        codec.Decoder(OrderEvent, unreachable).decode(payload(order()))


@given(strategies.orders, st.data())
def test_a_payload_cut_short_anywhere_is_undecodable(record: OrderEvent, data: st.DataObject) -> None:
    framed = payload(record)
    kept = data.draw(st.integers(5, len(framed) - 1))
    with pytest.raises(Undecodable):
        decoder().decode(framed[:kept])


def test_bytes_after_the_record_are_undecodable_and_counted() -> None:
    with pytest.raises(Undecodable, match="2 bytes left"):
        decoder().decode(payload(order()) + b"xy")


def test_text_that_is_not_utf8_is_undecodable() -> None:
    with pytest.raises(Undecodable, match="UnicodeDecodeError"):
        decoder().decode(payload(order("o-1")).replace(b"o-1", b"o-\xff"))


def status_byte(framed: bytes, index: int) -> bytes:
    """An order's payload with another number where its status, CANCELLED, is."""
    before, found, after = framed.partition(b"\x06s-1\x08")
    assert found
    return before + b"\x06s-1" + struct.pack("b", index << 1 ^ index >> 7) + after


@pytest.mark.parametrize("index", [6, 63, -1, -6, -7, -64])
def test_an_enum_index_that_the_writer_does_not_have_is_undecodable(index: int) -> None:
    framed = payload(order(status="CANCELLED"))
    assert decoder().decode(status_byte(framed, 5)).order_status == "REFUNDED"
    with pytest.raises(Undecodable):
        decoder().decode(status_byte(framed, index))


@pytest.mark.parametrize("branch", [2, -1, -2, -3])
def test_a_union_branch_that_the_writer_does_not_have_is_undecodable(branch: int) -> None:
    framed = payload(click(product_id=None))  # category, price and quantity are null too
    before, found, after = framed.partition(b"\x06s-1\x02\0\0\0\0")
    assert found
    index = struct.pack("b", branch << 1 ^ branch >> 7)
    with pytest.raises(Undecodable):
        decoder(ClickstreamEvent).decode(before + b"\x06s-1\x02\0\0\0" + index + after)


@pytest.mark.parametrize("found", [click(), alert(), inventory()])
def test_a_record_of_another_kind_is_undecodable(found: Any) -> None:
    with pytest.raises(Undecodable):
        decoder().decode(payload(found))


@pytest.mark.parametrize(
    "schema",
    ["string", {"type": "string"}, ["null", "string"], [], {"type": "object", "properties": {}}, {"type": "map"}, {}],
)
def test_an_id_whose_schema_is_no_avro_record_makes_the_payload_undecodable(schema: Any) -> None:
    with pytest.raises(Undecodable):
        decoder(schema=schema).decode(payload(order()))


@given(st.binary(max_size=120))
def test_arbitrary_bytes_are_refused_by_name_or_decoded_never_anything_else(raw: bytes) -> None:
    for record, writer_id in SCHEMA_IDS.items():
        try:
            decoder(record).decode(b"\0" + writer_id.to_bytes(4, "big") + raw)
        except codec.CodecError:
            continue


# Writers of other versions


def test_a_field_that_the_reader_does_not_know_is_ignored() -> None:
    schema = changed("OrderEvent", lambda _, s: s["fields"].insert(3, {"name": "gift", "type": "boolean"}))
    raw = io.BytesIO()
    fastavro.schemaless_writer(raw, codec.parse_schema(schema), {**msgspec.to_builtins(order()), "gift": True})
    assert decoder(schema=schema).decode(b"\0\0\0\0\1" + raw.getvalue()) == order()


def test_a_field_that_the_writer_lacks_gets_its_default_and_without_one_the_record_is_undecodable() -> None:
    without_url = changed("ClickstreamEvent", lambda f, s: s["fields"].remove(f["page_url"]))
    without_user = changed("ClickstreamEvent", lambda f, s: s["fields"].remove(f["user_id"]))
    for schema in (without_url, without_user):
        raw = io.BytesIO()
        fastavro.schemaless_writer(raw, codec.parse_schema(schema), msgspec.to_builtins(click(page_url="/x")))
        framed = b"\0\0\0\0\1" + raw.getvalue()
        if schema is without_url:
            assert decoder(ClickstreamEvent, schema).decode(framed) == click(page_url=None)
        else:
            with pytest.raises(Undecodable, match="user_id"):
                decoder(ClickstreamEvent, schema).decode(framed)


def test_an_int_of_the_writer_is_read_as_our_long() -> None:
    schema = changed("OrderEvent", lambda f, _: f["total_amount_minor"].update(type="int"))
    raw = io.BytesIO()
    fastavro.schemaless_writer(raw, codec.parse_schema(schema), msgspec.to_builtins(order(amount=HIGH)))
    assert decoder(schema=schema).decode(b"\0\0\0\0\1" + raw.getvalue()).total_amount_minor == HIGH


def test_a_writer_schema_is_fetched_once() -> None:
    asked = []

    def counted(writer_id: int) -> dict[str, Any]:
        asked.append(writer_id)
        return fetch(writer_id)

    one = codec.Decoder(OrderEvent, counted)
    assert [one.decode(payload(order())) for _ in range(3)] == [order()] * 3
    assert asked == [1]


# JSON lines


@given(strategies.records)
def test_every_record_comes_back_from_a_json_line_as_it_was(record: Any) -> None:
    line = codec.to_json(record)
    assert b"\n" not in line
    assert codec.from_json(line, type(record)) == record


def test_a_json_line_has_the_field_names_of_the_schema_and_times_as_numbers() -> None:
    fields = json.loads(codec.to_json(order()))
    assert list(fields) == [f["name"] for f in avro_schema("OrderEvent")["fields"]]
    assert fields["event_time"] == T0


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"nothing", b'{"order_id":"\xff"}', b'{"order_id":"\\ud800"}', b'{"x":' + b"[" * 100_000, b"\x00"],
    ids=["empty", "cut short", "text", "not UTF-8", "half a surrogate", "nested without end", "binary"],
)
def test_a_line_that_is_not_json_is_undecodable(line: bytes) -> None:
    with pytest.raises(Undecodable):
        codec.from_json(line, OrderEvent)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user_id", 7),
        ("user_id", None),
        ("order_status", "LOST"),
        ("total_amount_minor", "100"),
        ("total_amount_minor", 99.5),
        ("total_amount_minor", 1 << 63),
        ("event_time", -(1 << 63) - 1),
        ("event_time", "2026-11-22T10:00:00Z"),
        ("is_first_order", 1),
        ("items", {}),
        ("items", [{}]),
    ],
)
def test_a_field_of_another_type_is_named(field: str, value: Any) -> None:
    fields = json.loads(codec.to_json(order())) | {field: value}
    with pytest.raises(NotThisRecord, match=field):
        codec.from_json(json.dumps(fields).encode(), OrderEvent)


@pytest.mark.parametrize("field", [f["name"] for f in avro_schema("OrderEvent")["fields"] if "default" not in f])
def test_a_missing_field_is_named(field: str) -> None:
    fields = json.loads(codec.to_json(order()))
    del fields[field]
    with pytest.raises(NotThisRecord, match=field):
        codec.from_json(json.dumps(fields).encode(), OrderEvent)


def test_a_quantity_beyond_an_avro_int_is_refused() -> None:
    line = codec.to_json(order(items=[item(quantity=1 << 31)]))
    with pytest.raises(NotThisRecord, match="quantity"):
        codec.from_json(line, OrderEvent)


@pytest.mark.parametrize("line", [b"[]", b"null", b"7", b'"text"'])
def test_json_of_another_shape_is_not_this_record(line: bytes) -> None:
    with pytest.raises(NotThisRecord):
        codec.from_json(line, OrderEvent)


def test_a_datum_of_another_version_is_resolved() -> None:
    schema = changed("ClickstreamEvent", lambda f, s: s["fields"].remove(f["referrer"]))
    raw = io.BytesIO()
    fastavro.schemaless_writer(raw, codec.parse_schema(schema), msgspec.to_builtins(click()))
    assert decoder(ClickstreamEvent).decode_datum(raw.getvalue(), codec.Writer(schema)) == click()


def test_the_text_that_is_registered_is_the_schema_without_padding() -> None:
    text = codec.canonical(avro_schema("OrderEvent"))
    assert json.loads(text) == avro_schema("OrderEvent")
    assert ", " not in text.replace(avro_schema("OrderEvent")["doc"], "")[:40]
    assert "ş" in text


# Schemas that are too much, or wrong where it does not matter


NODE = {
    "type": "record",
    "name": "Node",
    "fields": [{"name": "next", "type": ["null", "Node"]}],
}
TREE = {"name": "tree", "type": ["null", NODE], "default": None}
NESTED = changed("OrderEvent", lambda _, s: s["fields"].append(TREE))


def nested(levels: int) -> bytes:
    """An order whose extra field is nested so deep."""
    return payload(order("o-9")) + b"\2" * levels + b"\0"


@pytest.mark.parametrize("levels", [0, 1, 30])
def test_a_record_with_a_field_of_a_recursive_type_is_read(levels: int) -> None:
    assert decoder(schema=NESTED).decode(nested(levels)).order_id == "o-9"


@pytest.mark.parametrize("levels", [64, 1_000, 20_000, 1_000_000])
def test_a_record_nested_without_measure_is_undecodable(levels: int) -> None:
    with pytest.raises(Undecodable, match="nested more than 64 deep"):
        decoder(schema=NESTED).decode(nested(levels))


def test_a_writers_default_that_does_not_fit_its_type_does_not_matter() -> None:
    schema = changed("OrderEvent", lambda f, _: f["session_id"].update(default=None))
    assert decoder(schema=schema).decode(payload(order())) == order()


def deep(levels: int) -> Any:
    schema: Any = "null"
    for i in range(levels):
        schema = {"type": "record", "name": f"R{i}", "fields": [{"name": "a", "type": schema}]}
    return schema


def doubling(levels: int) -> Any:
    """A record of no bytes and 2^levels values."""
    schema: Any = {"type": "record", "name": "R0", "fields": [{"name": "a", "type": "null"}]}
    for i in range(1, levels):
        fields = [{"name": "a", "type": schema}, {"name": "b", "type": f"R{i - 1}"}]
        schema = {"type": "record", "name": f"R{i}", "fields": fields}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        deep(40),
        deep(300),
        {"type": "enum", "name": "Many", "symbols": [f"S{i}" for i in range(200_000)]},
        {"__fastavro_parsed__": True, "type": "record", "name": "Fake"},
        {"__fastavro_parsed__": True, "__named_schemas": {"x": 1}, "type": "x"},
        {"type": "record", "name": "OrderEvent", "fields": 7},
        {"type": "record", "name": "OrderEvent", "fields": [{"name": "a", "type": None}]},
        {"type": "record", "name": 7, "fields": []},
        {"type": "fixed", "name": "F", "size": None},
        {"type": "fixed", "name": "F", "size": -1},
        {"type": "fixed", "name": "F", "size": 1 << 62},
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_a_schema_that_is_wrong_or_too_large_makes_its_payloads_undecodable(schema: Any) -> None:
    with pytest.raises(Undecodable):
        decoder(schema=schema).decode(payload(order()))


def test_a_schema_that_doubles_with_each_name_is_undecodable_at_once() -> None:
    with pytest.raises(Undecodable, match="more than 1000 values"):
        decoder(schema=doubling(25)).decode(payload(order()))
