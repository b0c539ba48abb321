from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import currencies, features
from schemas.events import RevenueWindow
from schemas.features import (
    alert_json,
    revenue_field,
    revenue_json,
    revenue_value,
    rfc3339,
    session_json,
    user_features_json,
)
from schemas.store_keys import KEYS
from tests.build import MINUTE, T0, alert, minute, session


def test_an_alert_is_stored_as_the_api_returns_it() -> None:
    stored = alert(alert_id="a-1", amount_minor=750_050, event_time=1_790_000_000_123, related_events=["o-1", "o-3"])
    assert json.loads(alert_json(stored)) == {
        "alert_id": "a-1",
        "user_id": "u-1",
        "alert_type": "RAPID_ORDERS",
        "risk_score": 0.85,
        "order_id": "o-3",
        "amount": 7500.50,
        "currency": "TRY",
        "timestamp": "2026-09-21T14:13:20.123Z",
        "description": "3 CREATED orders within 5 min",
        "related_events": ["o-1", "o-3"],
    }


@given(st.integers(0, 1 << 50))
def test_when_an_alert_was_found_changes_no_byte_of_what_is_stored(detected_at: int) -> None:
    assert alert_json(alert(detected_at=detected_at)) == alert_json(alert())


@given(st.integers(0, (1 << 63) - 1), st.sampled_from(["TRY", "JPY", "KWD", "CLF", "QQQ"]))
def test_amounts_are_exact_in_the_decimals_of_their_currency(amount_minor: int, currency: str) -> None:
    text = alert_json(alert(amount_minor=amount_minor, currency=currency))
    amount = json.loads(text, parse_float=Decimal)["amount"]
    assert Decimal(amount).scaleb(currencies.exponent(currency)) == amount_minor
    assert f'"amount":{currencies.decimal(amount_minor, currency)},"currency":"{currency}"' in text.decode()


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (999, "1970-01-01T00:00:00.999Z"),
        (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
        (1_767_225_600_000, "2026-01-01T00:00:00.000Z"),
        (4_102_444_800_007, "2100-01-01T00:00:00.007Z"),
    ],
)
def test_times_are_utc_with_milliseconds(time_ms: int, text: str) -> None:
    assert rfc3339(time_ms) == text


@given(st.integers(0, 253_402_300_799_999))
def test_no_millisecond_is_rounded_away(time_ms: int) -> None:
    assert int(rfc3339(time_ms)[-4:-1]) == time_ms % 1_000


@given(st.integers(0, 253_402_300_799_998))
def test_texts_sort_as_their_times(time_ms: int) -> None:
    assert rfc3339(time_ms) < rfc3339(time_ms + 1)


def test_a_session_is_stored_as_the_api_returns_it() -> None:
    stored = session("u-1", 1_790_000_000_123, session_end=1_790_000_060_000, revenue_minor=750_050)
    assert json.loads(session_json(stored)) == {
        "session_id": "u-1:1790000000123",
        "start_time": "2026-09-21T14:13:20.123Z",
        "user_id": "u-1",
        "end_time": "2026-09-21T14:14:20.000Z",
        "duration_seconds": 600,
        "page_views": 2,
        "product_views": 3,
        "add_to_carts": 1,
        "purchases": 1,
        "revenue": 7500.50,
        "currency": "TRY",
        "device_type": "mobile",
        "geo_region": "Izmir",
        "primary_category": "kitchen",
        "open": True,
    }


@pytest.mark.parametrize(("pane", "is_open"), [("EARLY", True), ("ON_TIME", False), ("LATE", False)])
def test_a_session_is_open_until_its_final_pane(pane: str, is_open: bool) -> None:
    assert json.loads(session_json(session(pane=pane)))["open"] is is_open


def test_only_a_retracted_session_bears_the_mark() -> None:
    assert session_json(session(deleted=True)).endswith(features.TOMBSTONE_MARK)
    disguised = session(user='","deleted":true}', geo_region='"deleted":true}')
    assert not session_json(disguised).endswith(features.TOMBSTONE_MARK)


def hash_of(*rows: RevenueWindow) -> dict[bytes, bytes]:
    return {revenue_field(row).encode(): revenue_value(row).encode() for row in rows}


def test_a_minute_is_put_together_from_its_dimensions() -> None:
    stored = hash_of(
        minute(T0, gmv_minor=100_001, order_count=3, unique_users=2, first_time_orders=1),
        minute(T0, "category", "toys", gmv_minor=50_000),
        minute(T0, "category", "books", gmv_minor=50_000),
        minute(T0, "category", "a:b *", gmv_minor=1),
        minute(T0, "region", "İzmir", gmv_minor=100_001),
    )
    assert json.loads(revenue_json("TRY", T0, stored) or b"") == {
        "window_start": "2026-09-21T14:13:20.000Z",
        "window_end": "2026-09-21T14:14:20.000Z",
        "currency": "TRY",
        "total_gmv": 1000.01,
        "order_count": 3,
        "avg_order_value": 333.34,
        "unique_users": 2,
        "first_time_orders": 1,
        "top_category": "books",
        "by_category": {"a:b *": 0.01, "books": 500.0, "toys": 500.0},
        "by_region": {"İzmir": 1000.01},
    }


def test_a_minute_whose_total_has_not_come_is_none() -> None:
    assert revenue_json("TRY", T0, hash_of(minute(T0, "region", "İzmir"))) is None
    assert revenue_json("TRY", T0, {}) is None


def test_a_minute_without_orders_and_the_last_one_there_is_can_be_shown() -> None:
    last = 253_402_300_800_000 - MINUTE
    shown = json.loads(revenue_json("JPY", last, hash_of(minute(last, gmv_minor=(1 << 63) - 1, order_count=0))) or b"")
    assert (shown["window_end"], shown["avg_order_value"]) == ("9999-12-31T23:59:59.999Z", 0.0)
    assert shown["top_category"] is None


def test_a_users_features_are_null_or_zero_until_an_event_tells_them() -> None:
    assert user_features_json("u-1", {}) is None
    alone = user_features_json("u-1", {b"last_seen": str(T0).encode(), b"last_session": session_json(session())})
    assert json.loads(alone or b"") == {
        "user_id": "u-1",
        "last_seen": rfc3339(T0),
        "orders_1h": 0,
        "spend_1h": 0.0,
        "orders_24h": 0,
        "spend_24h": 0.0,
        "currency": "TRY",
        "spend_by_currency": {},
        "last_order_at": None,
        "last_session": json.loads(session_json(session())),
        "alerts": 0,
        "last_alert_type": None,
        "last_alert_at": None,
    }


def test_spend_is_by_currency_and_that_of_the_shop_stands_alone() -> None:
    fields = {b"last_order_at": b"1", b"orders_24h": b"3", b"spend_minor": b"JPY 0 9000;KWD 1234 5678"}
    known = json.loads(user_features_json("u-1", fields, "KWD") or b"")
    assert (known["currency"], known["spend_1h"], known["spend_24h"]) == ("KWD", 1.234, 5.678)
    assert known["spend_by_currency"] == {
        "JPY": {"spend_1h": 0, "spend_24h": 9000},
        "KWD": {"spend_1h": 1.234, "spend_24h": 5.678},
    }


def test_keys_begin_with_our_prefix_and_no_two_families_share_one() -> None:
    keys = [
        KEYS.user_alerts("u"),
        KEYS.user_alert_ids("u"),
        KEYS.user("u"),
        KEYS.user_sessions("u"),
        KEYS.user_session_ids("u"),
        KEYS.user_orders("u"),
        KEYS.user_features("u"),
        KEYS.revenue_minute("TRY", 0),
        KEYS.revenue_minutes("TRY"),
        KEYS.minutes_without_currency,
        KEYS.currencies,
        KEYS.recent_sessions,
        KEYS.open_sessions,
        KEYS.ledger("u"),
        KEYS.recent_alerts,
        KEYS.freshness,
    ]
    assert all(key.startswith("sf:") for key in keys)
    assert len(set(keys)) == len(keys)


def test_no_user_can_be_named_so_that_the_key_is_another_ones() -> None:
    assert KEYS.user_alerts("recent") != KEYS.recent_alerts
    assert KEYS.user_alerts("a:b") != KEYS.user_alerts("a") + "b"


def test_the_prefixes_are_those_of_all_keys_of_a_user() -> None:
    keys = {
        KEYS.user("u"),
        KEYS.user_alerts("u"),
        KEYS.user_alert_ids("u"),
        KEYS.user_sessions("u"),
        KEYS.user_session_ids("u"),
        KEYS.user_orders("u"),
        KEYS.user_features("u"),
    }
    assert {prefix + "u" for prefix in KEYS.of_user(KEYS.shared)} == keys
