"""Contract: what the jobs' writers store is what clients get."""

import json
import time

import pytest

from schemas import features
from serving import Config, create_app
from tests.build import HOUR, MINUTE, T0, alert, minute, session
from tests.store import order, write


@pytest.fixture
def stored(valkey, db):
    return lambda *rows: write(valkey.redis_url, rows)


def follow(client, path, **query):
    """All rows of a list, and how many pages it took."""
    rows, pages, cursor = [], 0, None
    while pages == 0 or cursor is not None:
        answer = client.get(f"/api/v1/{path}", query_string=query | ({"cursor": cursor} if cursor else {})).json
        rows += answer["data"]
        assert answer["count"] == len(answer["data"])
        cursor, pages = answer["next_cursor"], pages + 1
    return rows, pages


def test_a_users_sessions_are_the_writers_bytes_newest_first(client, stored):
    first, second = session("ada", T0, pane="ON_TIME"), session("ada", T0 + HOUR)
    stored(first, second, session("bob", T0))
    answer = client.get("/api/v1/sessions/ada")
    assert answer.data == (
        b'{"success":true,"data":['
        + features.session_json(second)
        + b","
        + features.session_json(first)
        + b'],"count":2,"next_cursor":null}'
    )
    assert client.get("/api/v1/sessions").json["count"] == 3
    assert client.get("/api/v1/sessions/nobody").json["data"] == []


def test_open_sessions_can_be_listed(client, stored):
    stored(session("ada", T0), session("bob", T0, pane="ON_TIME"), session("eve", T0, deleted=True))
    assert [s["user_id"] for s in client.get("/api/v1/sessions?open=true").json["data"]] == ["ada"]
    assert client.get("/api/v1/health").json["data"]["open_sessions"] == 1
    stored(session("ada", T0, pane="ON_TIME", version=2))
    assert client.get("/api/v1/sessions?open=true").json["data"] == []
    assert client.get("/api/v1/health").json["data"]["open_sessions"] == 0


def test_pages_of_sessions_leave_out_the_retracted_and_nothing_else(client, stored):
    rows = [session(f"u-{i}", T0 + i // 4, deleted=i % 3 == 0) for i in range(20)]
    stored(*rows)
    listed, pages = follow(client, "sessions", limit=3)
    assert pages == 7
    assert [s["session_id"] for s in listed] == [
        s.session_id for s in sorted(rows, key=lambda s: (s.session_start, s.session_id), reverse=True) if not s.deleted
    ]


def test_since_and_until_bound_the_start_of_sessions_and_minutes(client, stored):
    stored(*(session("ada", T0 + i * MINUTE) for i in range(5)))
    stored(*(minute(T0 + i * MINUTE) for i in range(5)))
    window = {"since": features.rfc3339(T0 + MINUTE), "until": features.rfc3339(T0 + 3 * MINUTE)}
    wanted = [features.rfc3339(T0 + i * MINUTE) for i in (3, 2, 1)]
    assert [s["start_time"] for s in follow(client, "sessions/ada", limit=2, **window)[0]] == wanted
    assert [m["window_start"] for m in follow(client, "revenue", limit=2, **window)[0]] == wanted


def test_a_newer_pane_of_a_minute_replaces_the_older_one_whichever_comes_last(client, stored):
    stored(minute(version=3, gmv_minor=900), minute(T0, "region", "Izmir", version=3, gmv_minor=900))
    stored(minute(version=1, gmv_minor=100), minute(T0, "region", "Izmir", version=1, gmv_minor=100))
    [row] = client.get("/api/v1/revenue").json["data"]
    assert (row["total_gmv"], row["by_region"]) == (9.0, {"Izmir": 9.0})


def test_following_the_cursor_reads_every_minute_once(client, stored):
    stored(*(minute(T0 + i * MINUTE) for i in range(10)))
    stored(minute(T0 + 4 * MINUTE + HOUR, "region", "Izmir"))  # its total has not come
    rows, _ = follow(client, "revenue", limit=3)
    assert [row["window_start"] for row in rows] == [features.rfc3339(T0 + i * MINUTE) for i in reversed(range(10))]


def test_realtime_is_the_newest_minute_that_has_begun_and_has_a_total(client, stored):
    assert client.get("/api/v1/revenue/realtime").json == {"success": True, "data": None, "count": 0}
    now = int(time.time() * 1000) // MINUTE * MINUTE
    stored(minute(now - MINUTE, gmv_minor=100), minute(now + 2 * HOUR, gmv_minor=300))
    stored(minute(now, "region", "Izmir", gmv_minor=200))
    assert client.get("/api/v1/revenue/realtime").json["data"]["total_gmv"] == 1.0
    stored(minute(now, gmv_minor=200))
    answer = client.get("/api/v1/revenue/realtime").json
    assert (answer["count"], answer["data"]["total_gmv"], answer["data"]["by_region"]) == (1, 2.0, {"Izmir": 2.0})


def test_revenue_is_of_one_currency_the_shops_or_another_and_never_of_several(client, stored):
    now = int(time.time() * 1000) // MINUTE * MINUTE
    assert client.get("/api/v1/revenue/currencies").json == {"success": True, "data": [], "count": 0}
    stored(minute(now, gmv_minor=12_345), minute(now - MINUTE, gmv_minor=9_000, order_count=2, currency="JPY"))
    stored(minute(now, "region", "Izmir", gmv_minor=12_345), minute(now - HOUR, gmv_minor=1_234, currency="KWD"))
    assert client.get("/api/v1/revenue/currencies").json["data"] == ["JPY", "KWD", "TRY"]
    [lira] = client.get("/api/v1/revenue").json["data"]
    assert (lira["currency"], lira["total_gmv"], lira["by_region"]) == ("TRY", 123.45, {"Izmir": 123.45})
    [yen] = client.get("/api/v1/revenue?currency=JPY").json["data"]
    assert (yen["currency"], yen["total_gmv"], yen["avg_order_value"], yen["by_region"]) == ("JPY", 9000, 4500, {})
    dinar = client.get("/api/v1/revenue/realtime?currency=KWD")
    assert b'"currency":"KWD","total_gmv":1.234' in dinar.data
    assert client.get("/api/v1/revenue/realtime").json["data"] == lira
    assert client.get("/api/v1/revenue/realtime?currency=EUR").json["data"] is None
    for wrong in ("eur", "EURO", "", "E%55R%0A"):
        assert client.get(f"/api/v1/revenue?currency={wrong}").status_code == 400


def test_the_servers_currency_and_time_zone_are_the_defaults_and_told(valkey, db):
    app = create_app(Config(redis_url=valkey.redis_url, currency="EUR", time_zone="America/New_York"))
    client = app.test_client()
    told = client.get("/api/v1/info").json["data"]
    assert (told["currency"], told["time_zone"]) == ("EUR", "America/New_York")
    begins = 1_793_505_600_000  # 1 November 2026 there, a day of 25 hours
    for at in (begins - MINUTE, begins, begins + 25 * HOUR - MINUTE, begins + 25 * HOUR):
        write(valkey.redis_url, [minute(at, currency="EUR", gmv_minor=at // MINUTE)])
    rows = client.get("/api/v1/revenue?day=2026-11-01").json["data"]
    assert [row["window_start"] for row in rows] == ["2026-11-02T04:59:00.000Z", "2026-11-01T04:00:00.000Z"]
    rows = client.get("/api/v1/revenue?day=2026-11-01&since=2026-11-01T05:00:00Z").json["data"]
    assert [row["window_start"] for row in rows] == ["2026-11-02T04:59:00.000Z"]
    assert client.get("/api/v1/revenue?day=2026-11-01&until=2026-10-01T05:00:00Z").json["data"] == []
    for far in ("0001-01-01", "1970-01-01", "9999-12-31"):
        assert client.get(f"/api/v1/sessions?day={far}").json["data"] == []
    for wrong in ("today", "2026-11-31", "2026-1-1", "20261101", "10000-01-01"):
        assert client.get(f"/api/v1/sessions?day={wrong}").status_code == 400


def test_a_users_features_come_from_all_writers(client, stored):
    stored(order("o-1", T0 - 2 * HOUR, 100_000), order("o-2", T0, 50), order("o-3", T0 - HOUR, 25))
    stored(order("o-4", T0 - 3 * HOUR, 9_000, currency="JPY"))
    stored(session("u-1", T0))
    stored(alert(event_time=T0 + 1), alert(alert_id="a-2", event_time=T0 + HOUR, alert_type="HIGH_VALUE_BURST"))
    answer = client.get("/api/v1/features/u-1")
    assert answer.json == {
        "success": True,
        "count": 1,
        "data": {
            "user_id": "u-1",
            "last_seen": features.rfc3339(T0 + HOUR),
            "orders_1h": 2,
            "spend_1h": 0.75,
            "orders_24h": 4,
            "spend_24h": 1000.75,
            "currency": "TRY",
            "spend_by_currency": {
                "JPY": {"spend_1h": 0, "spend_24h": 9000},
                "TRY": {"spend_1h": 0.75, "spend_24h": 1000.75},
            },
            "last_order_at": features.rfc3339(T0),
            "last_session": json.loads(features.session_json(session("u-1", T0))),
            "alerts": 2,
            "last_alert_type": "HIGH_VALUE_BURST",
            "last_alert_at": features.rfc3339(T0 + HOUR),
        },
    }


def test_a_user_nobody_knows_is_a_404_in_the_envelope(client):
    answer = client.get("/api/v1/features/nobody")
    assert (answer.status_code, answer.json["success"]) == (404, False)


def test_every_family_has_its_freshness(client, stored):
    now = int(time.time() * 1000)
    stored(order("o-1", now - 1_000))
    stored(session("u-1", now - 20 * MINUTE, session_end=now - 2_000))
    stored(minute(now - 3_000))
    stored(alert(event_time=now - 4_000))
    metrics = client.get("/metrics").text
    for family in ("orders", "sessions", "revenue", "fraud_alerts"):
        [line] = [line for line in metrics.splitlines() if f'freshness_seconds{{family="{family}"}}' in line]
        assert 0 < float(line.split()[-1]) < 60
