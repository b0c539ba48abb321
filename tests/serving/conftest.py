"""The API on a real Valkey, emptied between tests; tests that stop it get one of their own."""

from collections.abc import Callable, Iterable, Iterator

import pytest
import redis
from flask.testing import FlaskClient

from schemas import features
from schemas.events import FraudAlert
from schemas.store_keys import KEYS
from serving import Config, create_app
from stack import Stack
from tests.described import hold_to_its_document

T0 = 1_790_000_000_123  # 2026-09-21T14:13:20.123Z


@pytest.fixture
def own_valkey(tmp_path) -> Iterator[Stack]:
    with Stack(tmp_path, ["valkey"], ports="free") as stack:
        yield stack


@pytest.fixture
def client(valkey: Stack, db: redis.Redis) -> FlaskClient:
    """Every answer it gets is checked against the OpenAPI document."""
    app = create_app(Config(redis_url=valkey.redis_url))
    hold_to_its_document(app)
    return app.test_client()


def alert(number: int = 1, user_id: str = "user-1", time_ms: int = T0, **fields) -> FraudAlert:
    values = {
        "alert_id": f"alert-{number:05}",
        "user_id": user_id,
        "order_id": f"order-{number:05}",
        "alert_type": "RAPID_ORDERS",
        "risk_score": 0.85,
        "description": "3 orders within 5 minutes",
        "amount_minor": 123_456,
        "event_time": time_ms,
        "detected_at": time_ms + 400,
        "related_events": ["order-00000"],
    }
    return FraudAlert(**(values | fields))


def store_alerts(db: redis.Redis, alerts: Iterable[FraudAlert]) -> None:
    """Puts alerts where the layout says they are."""
    with db.pipeline() as commands:
        for each in alerts:
            for key in (KEYS.recent_alerts, KEYS.user_alerts(each.user_id)):
                commands.zadd(key, {features.alert_json(each): each.event_time})
        commands.execute()


@pytest.fixture
def stored(db: redis.Redis) -> Callable[..., None]:
    return lambda *alerts: store_alerts(db, alerts)


@pytest.fixture
def make_alert() -> Callable[..., FraudAlert]:
    return alert
