"""Columns against fastavro, one record at a time: what columns call ok must be a record, and the same one."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from typing import Any

import fastavro
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.columns import Columns, UnsupportedSchemaError, decode_columns, plan
from schemas.events import avro_schema
from tests import strategies
from tests.build import click, item, order

ORDER, CLICK = (codec.parse_schema(avro_schema(name)) for name in ("OrderEvent", "ClickstreamEvent"))


def written(fields: Any, schema: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(
        out, schema, msgspec.to_builtins(fields) if hasattr(fields, "__struct_fields__") else fields
    )
    return out.getvalue()


def decode(data: Sequence[bytes], schema: Any, before: bytes = b"") -> Columns:
    """Columns of the records, each with some bytes in front, as a frame on Kafka."""
    ends = np.cumsum([len(before) + len(d) for d in data]).astype(np.int64)
    starts = ends - np.array([len(d) for d in data], np.int64)
    return decode_columns(b"".join(before + d for d in data), starts, ends, plan(schema))


def reference(datum: bytes, schema: Any) -> Any:
    """The record that fastavro reads; None when it refuses the bytes or leaves some."""
    stream = io.BytesIO(datum)
    try:
        fields = fastavro.schemaless_reader(stream, schema, None)
    except Exception:  # noqa: BLE001 - whatever it says, it refuses
        return None
    return fields if stream.tell() == len(datum) else None


def row(columns: Columns, i: int, schema: Any, prefix: str = "") -> dict[str, Any]:
    """Record i as fastavro returns it; null comes as 0 or "", floats and bytes are left out."""
    return {
        f["name"]: value
        for f in schema["fields"]
        if (value := _value(columns, np.array([i]), f["type"], prefix + f["name"])) is not None
    }


def _value(columns: Columns, at: Any, schema: Any, path: str) -> Any:
    kind = schema["type"] if isinstance(schema, dict) else schema
    if isinstance(schema, list):
        return _value(columns, at, next(branch for branch in schema if branch != "null"), path)
    if kind == "string":
        return columns.texts(path, at)[0]
    if kind in ("int", "long"):
        return int(columns.ints[path][at[0]])
    if kind == "boolean":
        return bool(columns.ints[path][at[0]])
    if kind == "enum":
        return schema["symbols"][columns.ints[path][at[0]]]
    if kind == "array":
        items = np.nonzero(columns.rows[path] == at[0])[0]
        return [row(columns, k, schema["items"], f"{path}.") for k in items]
    return row(columns, at[0], schema, f"{path}.") if kind == "record" else None


def plain(fields: Any, schema: Any) -> Any:
    """fastavro's record as `row` shows it."""
    kind = schema["type"] if isinstance(schema, dict) else schema
    if isinstance(schema, list):
        inner = next(branch for branch in schema if branch != "null")
        if fields is None:
            return {"string": "", "int": 0, "long": 0}.get(inner)
        return plain(fields, inner)
    if kind == "record":
        each = {f["name"]: plain(fields[f["name"]], f["type"]) for f in schema["fields"]}
        return {name: value for name, value in each.items() if value is not None}
    if kind == "array":
        return [plain(each, schema["items"]) for each in fields]
    return fields if kind in ("string", "int", "long", "boolean", "enum") else None


def check(data: Sequence[bytes], schema: Any, before: bytes = b"") -> list[bool]:
    """Compares all records that columns call ok with fastavro's; returns which those are."""
    columns = decode(data, schema, before)
    for i in np.nonzero(columns.ok)[0].tolist():
        expected = reference(data[i], schema)
        assert expected is not None, f"columns take what fastavro refuses: {data[i]!r}"
        assert row(columns, i, schema) == plain(expected, schema)
    return columns.ok.tolist()


# Valid records


@given(st.lists(strategies.orders, min_size=1, max_size=12), st.sampled_from([b"", b"\0\0\0\0\1"]))
def test_any_orders_are_read_as_fastavro_reads_them(orders: list[Any], before: bytes) -> None:
    assert all(check([written(o, ORDER) for o in orders], ORDER, before))


@given(st.lists(strategies.clicks, min_size=1, max_size=12))
def test_any_clicks_are_read_as_fastavro_reads_them_optional_fields_too(clicks: list[Any]) -> None:
    assert all(check([written(c, CLICK) for c in clicks], CLICK))


@pytest.mark.parametrize("given_to", ["none", "one", "all"])
def test_optional_fields_have_a_column_whoever_has_them(given_to: str) -> None:
    some = {"price_minor": 5, "quantity": 2, "page_url": "/ü", "category": "toys"}
    clicks = [
        click(f"c-{i}", **(some if given_to == "all" or (given_to == "one" and i == 1) else {})) for i in range(3)
    ]
    assert check([written(c, CLICK) for c in clicks], CLICK) == [True] * 3


@pytest.mark.parametrize("count", [0, 1, 7, 60])
def test_many_records_with_many_items_are_read(count: int) -> None:
    orders = [order(f"o-{i}", items=[item(product_id=f"p-{i}-{k}") for k in range(count)]) for i in range(40)]
    assert all(check([written(o, ORDER) for o in orders], ORDER))


def test_records_with_different_numbers_of_items_keep_their_own() -> None:
    orders = [
        order(f"o-{i}", items=[item(product_id=f"p-{i}-{k}", quantity=k + 1) for k in range(i)]) for i in range(9)
    ]
    assert all(check([written(o, ORDER) for o in orders], ORDER))


def test_one_very_long_order_among_short_ones_is_left_to_the_reader_of_single_records() -> None:
    orders = [order(f"o-{i}", items=[item()] * (500 if i == 3 else 1)) for i in range(20)]
    ok = check([written(o, ORDER) for o in orders], ORDER)
    assert ok == [i != 3 for i in range(20)]


def test_no_records_are_no_rows() -> None:
    assert decode([], ORDER).ok.tolist() == []


@pytest.mark.parametrize("number", [0, -1, 1, 63, -64, 64, -65, (1 << 31), -(1 << 62), (1 << 63) - 1, -(1 << 63)])
def test_numbers_of_every_length_are_exact(number: int) -> None:
    columns = decode([written(order(total_amount_minor=number), ORDER)], ORDER)
    assert columns.ok.all()
    assert columns.ints["total_amount_minor"].tolist() == [number]


def test_a_number_too_long_in_one_record_changes_none_in_another() -> None:
    wide = [order(total_amount_minor=n) for n in (-(1 << 63), (1 << 63) - 1, 1 << 62, 7)]
    data = [written(o, ORDER) for o in wide]
    before, after = written(order(subtotal_minor=1, total_amount_minor=77_777), ORDER).split(written(77_777, "long"))
    spoilt = before + b"\x80" * 10 + b"\x01" + after
    assert check([*data, spoilt, *data], ORDER) == [True] * 4 + [False] + [True] * 4


def test_texts_and_equality_are_by_bytes() -> None:
    orders = [order(user="İnci"), order(user="Inci"), order(user=""), order(user="İnciX")]
    columns = decode([written(o, ORDER) for o in orders], ORDER)
    every = np.arange(4)
    assert columns.texts("user_id", every) == ["İnci", "Inci", "", "İnciX"]
    assert columns.equals("user_id", every, "İnci").tolist() == [True, False, False, False]
    assert columns.equals("user_id", every, "").tolist() == [False, False, True, False]
    assert columns.equals("shipping_region", every, "Istanbul").all()


def test_equality_looks_past_no_records_end() -> None:
    columns = decode([written({"a": "ab"}, TEXT), written({"a": "a"}, TEXT)], TEXT)
    assert columns.equals("a", np.arange(2), "ab").tolist() == [True, False]
    assert columns.equals("a", np.arange(2), "a much longer text than there are bytes").tolist() == [False, False]


TEXT = codec.parse_schema({"type": "record", "name": "Text", "fields": [{"name": "a", "type": "string"}]})


# Broken records


@st.composite
def broken(draw: Any, records: Any, schema: Any) -> bytes:
    """A record's bytes, most likely spoilt: cut, lengthened, bits flipped, bytes put in, two records spliced."""
    datum = bytearray(written(draw(records), schema))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(datum)))
        match draw(st.sampled_from(["cut", "flip", "flip", "insert", "splice", "number"])):
            case "cut":
                del datum[at:]
            case "flip":
                if at < len(datum):
                    datum[at] ^= 1 << draw(st.integers(0, 7))
            case "insert":
                datum[at:at] = draw(st.binary(min_size=1, max_size=4))
            case "splice":
                datum[at:] = written(draw(records), schema)[at:]
            case "number":
                datum[at : at + 1] = draw(st.sampled_from(NUMBERS))
    return bytes(datum)


NUMBERS = [b"\xff" * k + b"\x01" for k in range(1, 12)] + [b"\x80" * 9 + b"\x01", b"\x80\x00", b"\xfe" * 9 + b"\x01"]


@given(st.lists(broken(strategies.orders, ORDER), min_size=1, max_size=12))
def test_broken_orders_are_never_called_ok(data: list[bytes]) -> None:
    check(data, ORDER)


@given(st.lists(broken(strategies.clicks, CLICK), min_size=1, max_size=12))
def test_broken_clicks_are_never_called_ok(data: list[bytes]) -> None:
    check(data, CLICK)


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=20))
def test_arbitrary_bytes_are_never_called_ok_unless_they_are_an_order(data: list[bytes]) -> None:
    check(data, ORDER)


@given(st.lists(broken(strategies.orders, ORDER), max_size=6), st.integers(0, 6))
def test_a_broken_record_spoils_no_other(data: list[bytes], place: int) -> None:
    good = order("o-good", user="Gül", items=[item(product_name="Ä"), item(quantity=7)])
    data.insert(min(place, len(data)), written(good, ORDER))
    assert check(data, ORDER)[min(place, len(data) - 1)]


@pytest.mark.parametrize(
    ("record", "schema"),
    [(order(user="Gül"), ORDER), (click(referrer=""), CLICK), (click(quantity=1, referrer="/a"), CLICK)],
)
def test_every_cut_of_a_record_is_refused_wherever_in_the_data_it_lies(record: Any, schema: Any) -> None:
    whole = written(record, schema)
    cuts = [whole[:n] for n in range(len(whole))]
    assert check(cuts, schema) == [False] * len(cuts)
    for cut in cuts:
        assert check([cut], schema) == [False]
        assert check([whole, cut], schema) == [True, False]


@pytest.mark.parametrize("index", [6, 100, -1, -6])
def test_an_enum_index_that_does_not_exist_is_refused(index: int) -> None:
    number = written(index, "long")
    assert check([written(order(), ORDER).replace(b"\x06s-1\0", b"\x06s-1" + number)], ORDER) == [False]


@pytest.mark.parametrize("branch", [2, -1, -2])
def test_a_union_branch_that_does_not_exist_is_refused(branch: int) -> None:
    datum = written(click(product_id=None), CLICK)
    assert check([datum.replace(b"\x06s-1\x02\0", b"\x06s-1\x02" + written(branch, "long"))], CLICK) == [False]


def test_text_that_is_not_utf8_is_refused() -> None:
    for wrong in (b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xc0\x80"):
        name = "x" * len(wrong)
        datum = written(order(user=name, region="İzmir"), ORDER)
        assert datum.count(name.encode()) == 1
        assert check([datum.replace(name.encode(), wrong)], ORDER) == [False]


def test_a_character_may_not_be_divided_between_two_texts() -> None:
    datum = written(order("ab", user="cd"), ORDER)
    spoilt = datum.replace(b"\x04ab\x04cd", b"\x04a\xc3\x04\xbcd")
    assert spoilt != datum
    assert check([spoilt], ORDER) == [False]


def test_an_item_count_below_zero_carries_the_size_in_bytes_and_the_least_one_is_refused() -> None:
    whole = written(order(items=[item()]), ORDER)
    one = written(item(), next(f["type"]["items"] for f in ORDER["fields"] if f["name"] == "items"))
    before, after = whole.split(b"\x02" + one)
    sized = written(-1, "long") + written(len(one), "long")
    assert check([before + sized + one + after], ORDER) == [True]
    least = b"\xff" * 9 + b"\x01"
    assert check([before + least + b"\x02" + after[1:]], ORDER) == [False]


# Writers of other versions


def changed(change: Any) -> Any:
    schema = copy.deepcopy(avro_schema("OrderEvent"))
    change(schema, {f["name"]: f for f in schema["fields"]})
    return codec.parse_schema(schema)


EXTRA = [
    {"name": "gift", "type": "boolean"},
    {"name": "weight", "type": ["null", "double"], "default": None},
    {"name": "note", "type": ["string", "null"], "default": ""},
    {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 3}},
    {"name": "raw", "type": "bytes"},
    {"name": "nothing", "type": "null"},
    {"name": "ratio", "type": "float"},
    {"name": "first", "type": {"type": "enum", "name": "Channel", "symbols": ["WEB", "APP"]}},
    {"name": "second", "type": ["null", "Channel"], "default": None},
    {"name": "tags", "type": {"type": "array", "items": {"type": "record", "name": "Tag", "fields": [
        {"name": "key", "type": "string"},
        {"name": "value", "type": ["null", "string"], "default": None},
        {"name": "rank", "type": ["null", "long"], "default": None},
    ]}}},
    {"name": "address", "type": {"type": "record", "name": "Address", "fields": [
        {"name": "city", "type": "string"},
        {"name": "lines", "type": "int"},
    ]}},
]  # fmt: skip


@given(st.data())
def test_extra_fields_of_every_kind_are_stepped_over_or_read(data: st.DataObject) -> None:
    schema = changed(lambda s, _: s["fields"].__setitem__(slice(4, 4), EXTRA))
    source = copy.deepcopy(avro_schema("OrderEvent"))
    source["fields"][4:4] = [f for f in EXTRA if f["name"] != "second"]
    drawn = data.draw(st.lists(strategies.avro_data(source), min_size=1, max_size=5))
    second = data.draw(st.sampled_from([None, "WEB", "APP"]))
    assert all(check([written({**fields, "second": second}, schema) for fields in drawn], schema))


@given(st.permutations(range(14)), st.lists(strategies.orders, min_size=1, max_size=3))
def test_fields_in_another_order_are_read(places: list[int], orders: list[Any]) -> None:
    schema = changed(lambda s, _: s.update(fields=[s["fields"][i] for i in places]))
    assert all(check([written(o, schema) for o in orders], schema))


def test_enum_indexes_are_those_of_the_writer() -> None:
    symbols = ["REFUNDED", "CREATED", "CANCELLED", "SHIPPED", "CONFIRMED", "DELIVERED"]
    schema = changed(lambda _, f: f["order_status"]["type"].update(symbols=symbols))
    columns = decode([written(order(status=s), schema) for s in symbols], schema)
    assert columns.ok.all()
    assert columns.ints["order_status"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_type_wrapped_in_another_type_is_seen_through() -> None:
    schema = changed(lambda _, f: f["currency"].update(type={"type": "string", "avro.java.string": "String"}))
    assert check([written(order(), schema)], schema) == [True]


def test_a_type_with_aliases_is_the_same_type() -> None:
    schema = changed(lambda s, f: (s.update(aliases=["Order"]), f["order_status"]["type"].update(aliases=["State"])))
    assert check([written(order(), schema)], schema) == [True]


OPTIONAL_IN_ITEM = codec.parse_schema({"type": "record", "name": "Cart", "fields": [
    {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [
        {"name": "a", "type": ["null", "string"]},
        {"name": "b", "type": ["long", "null"]},
    ]}}},
]})  # fmt: skip


@given(
    st.lists(st.lists(st.tuples(st.none() | strategies.texts, st.none() | strategies.longs), max_size=5), min_size=1)
)
def test_optional_fields_of_items_stay_with_their_item(carts: list[list[tuple[Any, Any]]]) -> None:
    data = [written({"lines": [{"a": a, "b": b} for a, b in lines]}, OPTIONAL_IN_ITEM) for lines in carts]
    columns = decode(data, OPTIONAL_IN_ITEM)
    if len(columns.rows["lines"]):
        assert len(columns.ints["lines.b"]) == len(columns.spans["lines.a"][0]) == len(columns.rows["lines"])
    check(data, OPTIONAL_IN_ITEM)


RECURSIVE = {"type": "record", "name": "Tree", "fields": [{"name": "left", "type": ["null", "Tree"]}]}


@pytest.mark.parametrize(
    "field",
    [
        {"type": "map", "values": "long"},
        ["null", "long", "string"],
        ["long", "string"],
        ["null"],
        {"type": "array", "items": {"type": "array", "items": "long"}},
        RECURSIVE,
    ],
    ids=["map", "union of three", "union without null", "union of one", "array in array", "recursive"],
)
def test_what_columns_cannot_read_is_refused_before_any_data(field: Any) -> None:
    schema = changed(lambda s, _: s["fields"].append({"name": "extra", "type": field}))
    with pytest.raises(UnsupportedSchemaError, match="extra"):
        plan(schema)


@pytest.mark.parametrize("schema", ["string", {"type": "string"}, ["null", "string"]])
def test_a_schema_that_is_no_record_can_be_planned_or_is_refused_by_name(schema: Any) -> None:
    decode([written("x", schema)], codec.parse_schema(schema))
