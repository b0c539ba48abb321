from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import features
from schemas.features import alert_json, rfc3339
from tests.build import alert


def test_an_alert_is_stored_as_the_api_returns_it() -> None:
    stored = alert(alert_id="a-1", amount_minor=750_050, event_time=1_790_000_000_123, related_events=["o-1", "o-3"])
    assert json.loads(alert_json(stored)) == {
        "alert_id": "a-1",
        "user_id": "u-1",
        "alert_type": "RAPID_ORDERS",
        "risk_score": 0.85,
        "order_id": "o-3",
        "amount": 7500.50,
        "timestamp": "2026-09-21T14:13:20.123Z",
        "description": "3 CREATED orders within 5 min",
        "related_events": ["o-1", "o-3"],
    }


@given(st.integers(0, 1 << 50))
def test_when_an_alert_was_found_changes_no_byte_of_what_is_stored(detected_at: int) -> None:
    assert alert_json(alert(detected_at=detected_at)) == alert_json(alert())


@given(st.integers(0, 10**13))
def test_amounts_have_two_decimals_at_most(amount_minor: int) -> None:
    amount = json.loads(alert_json(alert(amount_minor=amount_minor)))["amount"]
    assert round(amount * 100) == amount_minor


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


def test_keys_begin_with_our_prefix_and_no_two_families_share_one() -> None:
    keys = [
        features.user_alerts_key("u"),
        features.user_alert_ids_key("u"),
        features.ledger_key("u"),
        features.RECENT_ALERTS_KEY,
        features.FRESHNESS_KEY,
    ]
    assert all(key.startswith("sf:") for key in keys)
    assert len(set(keys)) == len(keys)


def test_no_user_can_be_named_so_that_the_key_is_another_ones() -> None:
    assert features.user_alerts_key("recent") != features.RECENT_ALERTS_KEY
    assert features.user_alerts_key("a:b") != features.user_alerts_key("a") + "b"


def test_every_family_expires() -> None:
    assert features.ALERT_TTL_S == 7 * 24 * 3600
    assert features.LEDGER_TTL_S == 24 * 3600
    assert 0 < features.ALERTS_PER_USER < features.ALERTS_RECENT
