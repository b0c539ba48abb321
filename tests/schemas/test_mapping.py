"""Mappings: each form, each fault of a file with its place, and the shipped ones against orders made independently."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import ClickstreamEvent, OrderEvent, OrderItem
from schemas.mapping import SHIPPED, Envelope, MappingError, NotMappable, parse_mapping, shipped
from tests.build import NOT_VALUES, T0
from tests.foreign import SOURCES, iso, stream

COUNT = 20_000
REQUIRED = {
    "order_id": "id",
    "user_id": "user",
    "order_status": {"const": "CREATED"},
    "currency": "currency",
    "total_amount_minor": {"money": "total"},
    "event_time": {"time": "at"},
}
MESSAGE = {"id": "o-1", "user": "u-1", "currency": "EUR", "total": "19.99", "at": T0}


def mapping(fields: dict[str, Any] | None = None, **more: Any) -> str:
    return json.dumps({"version": 1, "orders": {"fields": REQUIRED | (fields or {}), **more}})


def mapped(message: Any, fields: dict[str, Any] | None = None, envelope: Envelope = Envelope(), **more: Any) -> Any:
    return parse_mapping(mapping(fields, **more)).of(OrderEvent)(message, envelope)


def value(expression: Any, message: dict[str, Any], name: str = "payment_method", **envelope: Any) -> Any:
    return getattr(mapped(MESSAGE | message, {name: expression}, Envelope(**envelope)), name)


@pytest.mark.parametrize("name", SOURCES)
def test_a_shipped_mapping_finds_every_order_again_and_refuses_or_ignores_the_rest(name: str) -> None:
    order_of = parse_mapping(shipped(name)).of(OrderEvent)
    orders = ignored = refused = 0
    for foreign in stream(name, COUNT):
        message = msgspec.json.decode(json.dumps(foreign.message))
        headers = {key.lower(): text for key, text in foreign.headers.items()}
        if foreign.fault:
            with pytest.raises(NotMappable, match=foreign.fault):
                order_of(message, Envelope(headers))
            refused += 1
        else:
            assert order_of(message, Envelope(headers)) == foreign.order
            orders, ignored = orders + (foreign.order is not None), ignored + (foreign.order is None)
    assert orders + ignored + refused == COUNT
    assert min(orders, ignored, refused) > COUNT // 20


def test_what_is_shipped_is_what_is_declared_and_tested() -> None:
    from importlib.resources import files

    there = sorted(file.name for file in files("schemas").joinpath("mappings").iterdir())
    assert there == [f"{name}.yaml" for name in SHIPPED]
    assert sorted(SOURCES) == list(SHIPPED)


CLICKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ga4": (
        {
            "event_name": "add_to_cart",
            "event_timestamp": T0 * 1_000,
            "user_id": None,
            "user_pseudo_id": "u-1",
            "event_bundle_sequence_id": 4,
            "event_params": [
                {"key": "currency", "value": {"string_value": "JPY"}},
                {"key": "page_location", "value": {"string_value": "https://a.example/p"}},
            ],
            "items": [{"item_id": "p-1", "item_category": "mugs", "price": 900, "quantity": 2}],
            "device": {"category": "mobile"},
            "geo": {"region": "Tokyo"},
        },
        {"user_id": "anon:u-1", "event_type": "ADD_TO_CART", "price_minor": 900, "quantity": 2, "category": "mugs"}
        | {"device_type": "mobile", "geo_region": "Tokyo", "page_url": "https://a.example/p", "product_id": "p-1"},
    ),
    "segment": (
        {
            "type": "track",
            "event": "Order Completed",
            "messageId": "m-1",
            "anonymousId": "a-1",
            "originalTimestamp": iso(T0),
            "properties": {"currency": "kwd", "total": 1.5, "products": [{"product_id": "p-1"}, {"product_id": "p-2"}]},
        },
        {"event_id": "m-1", "user_id": "anon:a-1", "event_type": "PURCHASE", "price_minor": 1_500, "product_id": None},
    ),
    "snowplow": (
        {
            "event": "page_view",
            "event_id": "e-1",
            "domain_userid": "d-1",
            "domain_sessionid": "s-1",
            "collector_tstamp": iso(T0).replace("+00:00", "Z"),
            "dvce_type": "Computer",
            "page_url": "https://a.example",
        },
        {"event_id": "e-1", "user_id": "anon:d-1", "event_type": "PAGE_VIEW", "session_id": "s-1"},
    ),
}


@pytest.mark.parametrize("name", CLICKS)
def test_a_shipped_mapping_makes_clicks(name: str) -> None:
    message, wanted = CLICKS[name]
    click = parse_mapping(shipped(name)).of(ClickstreamEvent)(message, Envelope())
    assert isinstance(click, ClickstreamEvent)
    assert {field: getattr(click, field) for field in wanted} == wanted
    assert click.event_time == T0


@pytest.mark.parametrize(
    ("expression", "message", "wanted"),
    [
        ("a.b", {"a": {"b": "x"}}, "x"),
        ("a.b", {"a": 7}, ""),
        ("a[1].b", {"a": [{}, {"b": "x"}]}, "x"),
        ("a[-1]", {"a": ["x", "y"]}, "y"),
        ("a[5]", {"a": []}, ""),
        ("a[k=b].v", {"a": [7, {"k": "a"}, {"k": "b", "v": "x"}]}, "x"),
        ("a.*", {"a": {"s": None, "i": 7}}, "7"),
        ({"const": "x"}, {}, "x"),
        ({"first": ["a", "b"]}, {"a": "", "b": "x"}, "x"),
        ({"first": ["a", {"const": "x"}]}, {}, "x"),
        ({"join": ["a", "b"], "with": "-"}, {"a": 1, "b": "x"}, "1-x"),
        ({"join": ["a", "b"], "with": "-"}, {"a": 1}, ""),
        ({"prefix": "a", "with": "anon:"}, {"a": 1}, "anon:1"),
        ({"upper": "a"}, {"a": " eur"}, "EUR"),
        ({"lower": "a"}, {"a": "A"}, "a"),
        ({"enum": "a", "values": {True: "yes", "7": "seven"}}, {"a": True}, "yes"),
        ({"enum": "a", "values": {"7": "seven"}}, {"a": 7}, "seven"),
        ({"enum": "a", "values": {"7": "seven"}, "else": "other"}, {"a": 8}, "other"),
        ({"path": "a", "when": {"b": [1, 2]}}, {"a": "x", "b": 2}, "x"),
        ({"path": "a", "when": {"b": True}}, {"a": "x", "b": 1}, ""),
        ({"path": "a", "unless": {"b": {"exists": True}}}, {"a": "x", "b": ""}, "x"),
        ({"path": "a", "when": {"b": {"exists": False}}}, {"a": "x", "b": None}, "x"),
    ],
)
def test_an_expression_finds_its_value(expression: Any, message: dict[str, Any], wanted: str) -> None:
    assert value(expression, message) == wanted


def test_headers_key_topic_and_time_can_be_paths() -> None:
    envelope = {"headers": {"x-a": "h"}, "key": "k", "topic": "t", "time_ms": T0 + 5}
    assert value("$header.X-A", {}, **envelope) == "h"
    assert value("$key", {}, **envelope) == "k"
    assert value("$topic", {}, **envelope) == "t"
    assert value({"time": "$time"}, {}, "event_time", **envelope) == T0 + 5


def test_a_hash_is_the_same_for_the_same_values_and_no_other() -> None:
    one = value({"hash": ["a", "b"]}, {"a": "x", "b": "y"})
    assert one == value({"hash": ["a", "b"]}, {"a": "x", "b": "y"})
    assert one != value({"hash": ["a", "b"]}, {"a": "xy", "b": ""})


@pytest.mark.parametrize(
    ("given_", "currency", "wanted"),
    [
        ("19.99", "EUR", 1999),
        (19.99, "EUR", 1999),
        (0.1 + 0.2, "EUR", 30),
        (1.005, "EUR", 101),
        ("1.0049999", "EUR", 100),
        ("9000", "JPY", 9000),
        (9000.5, "JPY", 9001),
        ("1.234", "KWD", 1234),
        (7, "TRY", 700),
        ("-0.01", "TRY", -1),
    ],
)
def test_money_is_exact_in_the_exponent_of_its_currency(given_: Any, currency: str, wanted: int) -> None:
    assert mapped(MESSAGE | {"total": given_, "currency": currency}).total_amount_minor == wanted


@pytest.mark.parametrize(
    "wrong",
    ["", None, "NaN", "1e999", "1,99", "١٢", "1_000", "0x1", True, [], {}, float("inf"), float("nan"), 1 << 70, " 1"],
)
def test_what_is_no_amount_is_refused(wrong: Any) -> None:
    with pytest.raises(NotMappable, match="total_amount_minor"):
        mapped(MESSAGE | {"total": wrong})


def test_minor_units_are_taken_as_they_are_and_sums_need_their_first() -> None:
    assert value({"minor": "a"}, {"a": "1999"}, "shipping_minor") == 1999
    total = {"sum": [{"money": "a"}, {"money": "b"}], "minus": [{"minor": "c"}]}
    assert value(total, {"a": 1, "b": "0.50", "c": 20}, "shipping_minor") == 130
    assert value(total, {"b": 1}, "shipping_minor") == 0
    with pytest.raises(NotMappable, match="whole number of minor units"):
        value({"minor": "a"}, {"a": "19.99"}, "shipping_minor")


@pytest.mark.parametrize(
    ("given_", "options", "wanted"),
    [
        (T0, {}, T0),
        (T0 // 1000, {}, T0 // 1000 * 1000),
        (str(T0 * 1000), {}, T0),
        (T0 * 1_000_000, {}, T0),
        (str(T0 * 1_000_000), {}, T0),
        (T0 / 1000, {"unit": "s"}, T0),
        ("2026-11-29T10:00:00Z", {}, 1_795_946_400_000),
        ("2026-11-29 10:00:00 UTC", {}, 1_795_946_400_000),
        ("2026-11-29T13:00:00.123456789+0300", {}, 1_795_946_400_123),
        ("2026-11-29T13:00:00", {"zone": "Europe/Istanbul"}, 1_795_946_400_000),
        ("2026-11-29T13:00", {"zone": "Europe/Istanbul"}, 1_795_946_400_000),
    ],
)
def test_a_time_is_read_in_its_usual_forms(given_: Any, options: dict[str, Any], wanted: int) -> None:
    assert value({"time": "t", **options}, {"t": given_}, "event_time") == wanted


@pytest.mark.parametrize(
    ("given_", "options", "why"),
    [
        ("2026-11-29T13:00:00", {}, "no time zone"),
        ("2026-13-29T13:00:00Z", {}, "is not a time"),
        ("yesterday", {"unit": "iso"}, "ISO 8601"),
        ("yesterday", {}, "is neither a time"),
        (7, {}, "no time of this century"),
        (None, {}, "event_time is missing"),
        (10**30, {"unit": "s"}, "neither a time"),
    ],
)
def test_what_is_no_time_is_refused(given_: Any, options: dict[str, Any], why: str) -> None:
    with pytest.raises(NotMappable, match=why):
        value({"time": "t", **options}, {"t": given_}, "event_time")


def test_items_are_mapped_one_by_one_and_those_of_nothing_left_out() -> None:
    items = {
        "each": "lines",
        "unless": {"gift": True},
        "fields": {"product_id": "sku", "quantity": "n", "category": "$.shop", "unit_price_minor": {"money": "p"}},
    }
    lines = [{"sku": 7, "n": "2", "p": 1.5}, {"sku": "x", "n": 0}, {"sku": "y", "gift": True}, {"sku": "z"}]
    order = mapped(MESSAGE | {"lines": lines, "shop": "A"}, {"items": items})
    assert order.items == [OrderItem("7", "", "A", 2, 150, 300), OrderItem("z", "", "A", 1, 0, 0)]
    with pytest.raises(
        NotMappable, match=r"items: one is not an object; items[.]unit_price_minor: 'x' is not an amount"
    ):
        mapped(MESSAGE | {"lines": [7, {"p": "x"}]}, {"items": items})
    with pytest.raises(NotMappable, match="items: more than 10000"):
        mapped(MESSAGE | {"lines": [{}] * 10_001}, {"items": items})


def test_all_faults_of_a_message_are_named_at_once() -> None:
    with pytest.raises(NotMappable) as refusal:
        mapped({"id": {"a": 1}, "currency": "EUR", "total": "x", "at": "?"})
    assert str(refusal.value) == (
        "order_id: {'a': 1} is not text; user_id is missing; total_amount_minor: 'x' is not an amount; "
        "event_time: '?' is neither a time of ISO 8601, with the clock, nor a number since 1970"
    )


def test_conditions_say_what_is_ignored() -> None:
    assert mapped(MESSAGE | {"kind": "ping"}, when={"kind": "order"}) is None
    assert mapped(MESSAGE | {"test": True}, unless={"test": True}) is None
    assert mapped(MESSAGE | {"kind": "order"}, when={"kind": ["order"]}, unless={"test": True}).order_id == "o-1"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a mapping with version"),
        ("a: [", "not YAML"),
        ("version: 2", "version: 2 is not known"),
        ("version: 1", "orders or clicks is needed"),
        ("version: 1\nversion: 1", "line 2: version is there twice"),
        ("version: 1\nblank: &a [x]\norders: *a", "line 3: aliases are not read"),
        ("version: 1\norder: {}", "the file: unknown 'order'"),
        ("version: 1\norders: {}", "orders.fields: a mapping from our fields"),
        ("version: 1\norders: {fields: {order_id: id}}", "orders.fields: user_id, order_status, currency"),
        (mapping({"order": "id"}), "orders.fields: unknown 'order'"),
        (mapping({"order_id": ""}), "orders.fields.order_id: an empty path"),
        (mapping({"order_id": "a..b"}), "orders.fields.order_id: 'a..b' is not a path"),
        (mapping({"order_id": "a[x]"}), "orders.fields.order_id: .x. is neither a number"),
        (mapping({"order_id": "$id"}), "orders.fields.order_id: '.id': known are"),
        (mapping({"order_id": 7}), "orders.fields.order_id: a path or one of"),
        (mapping({"order_id": {"const": 1, "path": "a"}}), "orders.fields.order_id: exactly one of"),
        (mapping({"order_id": {"path": "a", "unit": "s"}}), "orders.fields.order_id: unknown 'unit'"),
        (mapping({"order_id": {"first": []}}), "orders.fields.order_id.first: a list is needed"),
        (mapping({"total_amount_minor": "total"}), "orders.fields.total_amount_minor: say .money: path"),
        (mapping({"event_time": "at"}), "orders.fields.event_time: say .time: path"),
        (mapping({"event_time": {"time": "at", "zone": "Mars/X"}}), "orders.fields.event_time.time: zone 'Mars/X'"),
        (mapping({"event_time": {"time": "at", "unit": "h"}}), "orders.fields.event_time.time: unit 'h'"),
        (mapping({"order_status": {"const": "NEW"}}), "orders.fields.order_status: 'NEW' is not one of CREATED"),
        (mapping({"order_status": {"enum": "s", "values": {"a": "NEW"}}}), "orders.fields.order_status: 'NEW'"),
        (mapping({"items": "lines"}), "orders.fields.items: say .each"),
        (mapping(when=7), "orders.when: a mapping from path"),
        (mapping(when={"a": {"is": 1}}), "orders.when.a: say a value"),
        (mapping(when={"a": []}), "orders.when.a: say a value"),
        ("x" * (1 << 19), "longer than"),
        ("[" * 3_000, "not YAML"),
        *((f"version: {said}", "not YAML") for said in NOT_VALUES),
    ],
)  # fmt: skip
def test_a_fault_of_a_file_is_named_with_its_place_in_one_line(text: str, why: str) -> None:
    with pytest.raises(MappingError, match=why) as refusal:
        parse_mapping(text)
    assert "\n" not in str(refusal.value)


def test_nesting_without_end_is_refused_when_the_file_is_read() -> None:
    deep: Any = "a"
    for _ in range(40):
        deep = {"first": [deep]}
    with pytest.raises(MappingError, match="nested"):
        parse_mapping(mapping({"order_id": deep}))


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*MESSAGE, "a", "items", "line_items", "properties"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(anything)
def test_any_message_is_mapped_ignored_or_refused(message: Any) -> None:
    for name in SHIPPED:
        for compiled in parse_mapping(shipped(name)).sections.values():
            with contextlib.suppress(NotMappable):
                compiled(message, Envelope())


@given(st.text(max_size=12))
def test_what_a_user_writes_is_never_run_as_python(text: str) -> None:
    for path in (text, f"a[{text}]", f"a[k={text}].b", f"$header.{text}"):
        try:
            found = value(path, {})
        except MappingError:
            continue
        assert found == "" or path in MESSAGE
