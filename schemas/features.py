"""The online store's layout: keys, values and times to live. Writers (`transforms/io/redis.py`) and readers
(`serving/store.py`) both use this module and nothing else, so that they cannot disagree.

    sf:alerts:user:{user_id}   ZSET  ready-made alert JSON, score = event time in ms; newest 1,000 per user
    sf:alerts:ids:{user_id}    HASH  alert_id → version (event time in ms) of what the ZSET holds
    sf:alerts:recent           ZSET  the same JSON for all users; newest 10,000
    sf:freshness               HASH  feature family → newest event time in ms
    sf:ledger:{job}            HASH  in, good, dead_letters, late, duplicates of a running job; updated_ms

A value is written only when its version is newer than the stored one, by one script per batch: a replay changes
nothing. Every key has a TTL. JSON values are what the API returns, byte for byte.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from schemas.events import FraudAlert

__all__ = [
    "ALERTS_PER_USER",
    "ALERTS_RECENT",
    "ALERT_TTL_S",
    "FRESHNESS_KEY",
    "LEDGER_TTL_S",
    "RECENT_ALERTS_KEY",
    "alert_json",
    "ledger_key",
    "rfc3339",
    "user_alert_ids_key",
    "user_alerts_key",
]

ALERT_TTL_S: Final = 7 * 24 * 3600
ALERTS_PER_USER: Final = 1_000
ALERTS_RECENT: Final = 10_000
LEDGER_TTL_S: Final = 24 * 3600
RECENT_ALERTS_KEY: Final = "sf:alerts:recent"
FRESHNESS_KEY: Final = "sf:freshness"
ALERT_FAMILY: Final = "fraud_alerts"


def user_alerts_key(user_id: str) -> str:
    return f"sf:alerts:user:{user_id}"


def user_alert_ids_key(user_id: str) -> str:
    return f"sf:alerts:ids:{user_id}"


def ledger_key(job: str) -> str:
    return f"sf:ledger:{job}"


def rfc3339(time_ms: int) -> str:
    """2026-11-22T10:00:00.123Z"""
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def alert_json(alert: FraudAlert) -> bytes:
    """An alert as the API returns it; `amount` in major units (TRY).

    Holds nothing that depends on when the alert was found, so that a replay writes the same bytes.
    """
    return msgspec.json.encode(
        {
            "alert_id": alert.alert_id,
            "user_id": alert.user_id,
            "alert_type": alert.alert_type,
            "risk_score": alert.risk_score,
            "order_id": alert.order_id,
            "amount": alert.amount_minor / 100,
            "timestamp": rfc3339(alert.event_time),
            "description": alert.description,
            "related_events": alert.related_events,
        }
    )
