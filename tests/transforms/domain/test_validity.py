"""The rules of a valid order, and that the two forms of them agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.columns import decode_columns, plan
from schemas.events import ClickstreamEvent, OrderEvent, avro_schema
from schemas.times import START_MS
from tests import strategies
from tests.build import HOUR, T0, click, item, order, payload
from transforms.decode import CLICKS, ORDERS, RecordKind
from transforms.domain.validity import InvalidRecordError, check_click, check_order

STEPS = {kind: plan(codec.parse_schema(avro_schema(kind.record.__name__))) for kind in (ORDERS, CLICKS)}


def good_by_columns(kind: RecordKind[Any], records: list[Any], times_ms: list[int]) -> list[bool]:
    data = [payload(o)[codec.FRAME_BYTES :] for o in records]
    ends = np.cumsum([len(d) for d in data]).astype(np.int64)
    starts = ends - np.array([len(d) for d in data], np.int64)
    columns = decode_columns(b"".join(data), starts, ends, STEPS[kind])
    assert columns.ok.all()
    return kind.good(columns, np.array(times_ms, np.int64)).tolist()


def is_good(kind: RecordKind[Any], record: Any, time_ms: int) -> bool:
    try:
        kind.check(record, time_ms)
    except InvalidRecordError:
        return False
    return True


ids = st.sampled_from(
    ["o-1", "ü", "", " ", "x" * 256, "x" * 257, "ü" * 256, "ü" * 257, "a\n", "\x7f", "\x85", "£", "\xa0"]
)
amounts = st.sampled_from([0, 1, -1, 1 << 40, -(1 << 63), (1 << 63) - 1])
almost_valid = st.builds(
    order,
    st.just("o-1") | ids,
    user=st.just("u-1") | ids,
    items=st.lists(
        st.builds(
            item,
            quantity=st.sampled_from([1, 1, 1, 2, 0, -1]),
            unit_price_minor=amounts | st.just(5),
            total_price_minor=st.sampled_from([0, 5, 5, -1]),
        ),
        max_size=3,
    ),
    subtotal_minor=st.just(5) | amounts,
    discount_minor=st.sampled_from([0, 0, 0, -1]),
    shipping_minor=st.sampled_from([0, 0, 0, -1]),
    total_amount_minor=st.just(5) | amounts,
    currency=st.sampled_from(["TRY", "TRY", "EUR", "try", "TR", "TRYY", "", "T1Y", "TRİ", "T\x00Y", "ＴRY", "@[Z"]),
    at=st.sampled_from(
        [T0, T0, T0, START_MS, START_MS - 1, 1, 0, -1, T0 + HOUR, T0 + HOUR + 1, (1 << 63) - 1, -(1 << 63)]
    ),
)


@given(st.lists(st.tuples(almost_valid | strategies.orders, st.sampled_from([T0, T0, 0, -1])), min_size=1, max_size=8))
def test_the_columns_form_agrees_with_the_form_for_one_record(records: list[tuple[OrderEvent, int]]) -> None:
    orders, times_ms = [o for o, _ in records], [t for _, t in records]
    assert good_by_columns(ORDERS, orders, times_ms) == [is_good(ORDERS, o, t) for o, t in records]


almost_valid_click = st.builds(
    click,
    st.just("c-1") | ids,
    user=st.just("u-1") | ids,
    price_minor=st.none() | amounts,
    quantity=st.sampled_from([None, None, 1, 2, (1 << 31) - 1, 0, -1]),
    category=st.sampled_from([None, "", "kitchen"]),
    at=st.sampled_from(
        [T0, T0, T0, START_MS, START_MS - 1, 1, 0, -1, T0 + HOUR, T0 + HOUR + 1, (1 << 63) - 1, -(1 << 63)]
    ),
)


@given(
    st.lists(
        st.tuples(almost_valid_click | strategies.clicks, st.sampled_from([T0, T0, 0, -1])), min_size=1, max_size=8
    )
)
def test_the_two_forms_agree_for_clicks_too(records: list[tuple[ClickstreamEvent, int]]) -> None:
    clicks, times_ms = [c for c, _ in records], [t for _, t in records]
    assert good_by_columns(CLICKS, clicks, times_ms) == [is_good(CLICKS, c, t) for c, t in records]


VALID: list[dict[str, Any]] = [
    {},
    {"items": []},
    {"items": [item(quantity=1, unit_price_minor=0, total_price_minor=0)] * 3},
    {"amount": 0, "discount_minor": 0},
    {"currency": "AAA"},
    {"currency": "ZZZ"},
    {"at": START_MS},
    {"at": T0 + HOUR},
    {"status": "REFUNDED"},
    {"order_id": "o" * 256, "user": "😀" * 256},
    {"order_id": "q1w/2e+3r==", "user": "https://id.example/u/7?a=b#c"},
    {"order_id": "£\xa0", "user": "Ürün-1"},
    {"user": " ", "session_id": "", "payment_method": "", "region": ""},
]
INVALID: list[tuple[dict[str, Any], str]] = [
    ({"order_id": ""}, "order_id is empty"),
    ({"user": ""}, "user_id is empty"),
    ({"order_id": "o" * 257}, "order_id is longer than 256 characters: 257"),
    ({"user": "😀" * 257}, "user_id is longer than 256 characters: 257"),
    ({"order_id": "o\n"}, r"order_id has a control character: 'o\\n'"),
    ({"user": "\x7f"}, r"user_id has a control character: '\\x7f'"),
    ({"user": "a\x85b"}, r"user_id has a control character: 'a\\x85b'"),
    ({"subtotal_minor": -1}, "subtotal_minor is negative: -1"),
    ({"discount_minor": -1}, "discount_minor is negative: -1"),
    ({"shipping_minor": -1}, "shipping_minor is negative: -1"),
    ({"total_amount_minor": -1}, "total_amount_minor is negative: -1"),
    ({"currency": ""}, "currency is not three capital letters: ''"),
    ({"currency": "try"}, "currency is not three capital letters: 'try'"),
    ({"currency": "TL"}, "currency is not three capital letters: 'TL'"),
    ({"currency": "TRYX"}, "currency is not three capital letters: 'TRYX'"),
    ({"currency": "TRY\n"}, "currency is not three capital letters"),
    ({"currency": "Ç"}, "currency is not three capital letters: 'Ç'"),
    ({"currency": "€"}, "currency is not three capital letters: '€'"),
    ({"items": [item(), item(quantity=0)]}, "quantity is below 1: 0"),
    ({"items": [item(quantity=-3)]}, "quantity is below 1: -3"),
    ({"items": [item(product_id="p-7", unit_price_minor=-1)]}, "price of p-7 is negative"),
    ({"items": [item(product_id="p-7", total_price_minor=-1)]}, "price of p-7 is negative"),
    ({"at": 0}, "event_time 0 is before the year 2000"),
    ({"at": -1}, "event_time -1 is before the year 2000"),
    ({"at": START_MS - 1}, f"event_time {START_MS - 1} is before the year 2000$"),
    ({"at": T0 // 1_000}, f"event_time {T0 // 1_000} is before the year 2000: seconds[?]"),
    ({"at": T0 * 1_000}, f"event_time {T0 * 1_000} is after the year 9999: microseconds[?]"),
    ({"at": T0 * 1_000_000}, f"event_time {T0 * 1_000_000} is after the year 9999: nanoseconds[?]"),
    (
        {"order_id": "", "amount": -1, "currency": "try", "items": [item(quantity=0)], "at": 0},
        "order_id is empty; subtotal_minor is negative: -1; total_amount_minor is negative: -1; currency is not three "
        "capital letters: 'try'; quantity is below 1: 0; event_time 0 is before the year 2000$",
    ),
    ({"at": T0 + HOUR + 1}, f"event_time {T0 + HOUR + 1} is more than 1 h after its record's {T0}"),
]


@pytest.mark.parametrize("changes", VALID, ids=str)
def test_a_valid_order_is_good_in_both_forms(changes: dict[str, Any]) -> None:
    check_order(order(**changes), T0)
    assert good_by_columns(ORDERS, [order(**changes)], [T0]) == [True]


@pytest.mark.parametrize(("changes", "why"), INVALID, ids=[why for _, why in INVALID])
def test_an_invalid_order_is_refused_in_both_forms_with_field_and_value(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRecordError, match=f"^{why}"):
        check_order(order(**changes), T0)
    assert good_by_columns(ORDERS, [order(), order(**changes), order()], [T0] * 3) == [True, False, True]


def test_an_event_time_that_no_date_can_say_is_refused_whatever_its_record_says() -> None:
    last = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
    check_order(order(at=last), last)
    with pytest.raises(InvalidRecordError, match="is after the year 9999"):
        check_order(order(at=last + 1), last + 1)
    assert good_by_columns(ORDERS, [order(at=last), order(at=last + 1)], [last + 1] * 2) == [True, False]
    assert good_by_columns(ORDERS, [order(at=(1 << 63) - 1)], [(1 << 63) - 1]) == [False]


CLICK_WRONG: list[tuple[dict[str, Any], str]] = [
    ({"event_id": ""}, "event_id is empty"),
    ({"user": ""}, "user_id is empty"),
    ({"price_minor": -1}, "price_minor is negative: -1"),
    ({"quantity": 0}, "quantity is below 1: 0"),
    ({"quantity": -2}, "quantity is below 1: -2"),
    ({"at": 0}, "event_time 0 is before the year 2000"),
    ({"at": START_MS - 1}, f"event_time {START_MS - 1} is before the year 2000$"),
    ({"at": T0 // 1_000}, f"event_time {T0 // 1_000} is before the year 2000: seconds[?]"),
    ({"at": T0 * 1_000}, f"event_time {T0 * 1_000} is after the year 9999: microseconds[?]"),
    ({"at": T0 * 1_000_000}, f"event_time {T0 * 1_000_000} is after the year 9999: nanoseconds[?]"),
    ({"at": T0 + HOUR + 1}, f"event_time {T0 + HOUR + 1} is more than 1 h after its record's {T0}"),
]


@pytest.mark.parametrize(("changes", "why"), CLICK_WRONG, ids=[why for _, why in CLICK_WRONG])
def test_an_invalid_click_is_refused_in_both_forms_with_field_and_value(changes: dict[str, Any], why: str) -> None:
    wrong = click(**({"event_id": "c-1"} | changes))
    with pytest.raises(InvalidRecordError, match=f"^{why}"):
        check_click(wrong, T0)
    free = click(price_minor=0, quantity=None, category=None, product_id=None)
    check_click(free, T0)
    assert good_by_columns(CLICKS, [free, wrong, click(quantity=1)], [T0] * 3) == [True, False, True]
