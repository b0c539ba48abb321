import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import serving
from schemas import features
from schemas.store_keys import KEYS
from serving import Config, create_app

T0 = 1_790_000_000_123
FUZZ = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_the_api_returns_the_bytes_that_the_contract_wrote(client, stored, make_alert):
    """Contract: what `schemas.features` writes is what clients get, byte for byte."""
    first = make_alert(1, description='ünïcode, "quotes" and \\', time_ms=T0)
    second = make_alert(2, time_ms=T0 + 1)
    stored(first, second)
    answer = client.get("/api/v1/fraud-alerts/user-1")
    assert answer.data == (
        b'{"success":true,"data":['
        + features.alert_json(second)
        + b","
        + features.alert_json(first)
        + b'],"count":2,"next_cursor":null}'
    )
    assert answer.json["data"][0] == {
        "alert_id": "alert-00002",
        "user_id": "user-1",
        "alert_type": "RAPID_ORDERS",
        "risk_score": 0.85,
        "order_id": "order-00002",
        "amount": 1234.56,
        "timestamp": "2026-09-21T14:13:20.124Z",
        "description": "3 orders within 5 minutes",
        "related_events": ["order-00000"],
        "currency": "TRY",
    }


def test_a_user_sees_only_their_own_alerts_and_the_list_has_all(client, stored, make_alert):
    stored(make_alert(1, "ada"), make_alert(2, "bob"), make_alert(3, "ada"))
    assert [a["alert_id"] for a in client.get("/api/v1/fraud-alerts/ada").json["data"]] == [
        "alert-00003",
        "alert-00001",
    ]
    assert client.get("/api/v1/fraud-alerts").json["count"] == 3


def test_a_user_without_alerts_has_an_empty_list(client):
    answer = client.get("/api/v1/fraud-alerts/nobody")
    assert answer.status_code == 200
    assert answer.json == {"success": True, "data": [], "count": 0, "next_cursor": None}


def test_following_next_cursor_reads_everything_once(client, stored, make_alert):
    stored(*(make_alert(i, time_ms=T0 + i // 10) for i in range(25)))
    seen, cursor = [], ""
    while cursor is not None:
        answer = client.get("/api/v1/fraud-alerts", query_string={"limit": 4} | ({"cursor": cursor} if cursor else {}))
        seen += [alert["alert_id"] for alert in answer.json["data"]]
        cursor = answer.json["next_cursor"]
    assert seen == [f"alert-{i:05}" for i in reversed(range(25))]


def test_since_and_until_include_their_own_instant(client, stored, make_alert):
    stored(*(make_alert(i, time_ms=T0 + i) for i in range(5)))
    window = {"since": features.rfc3339(T0 + 1), "until": features.rfc3339(T0 + 3)}
    answer = client.get("/api/v1/fraud-alerts", query_string=window)
    assert [a["alert_id"] for a in answer.json["data"]] == ["alert-00003", "alert-00002", "alert-00001"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/fraud-alerts?limit=0",
        "/api/v1/fraud-alerts?cursor=x",
        "/api/v1/fraud-alerts?since=yesterday",
        "/api/v1/fraud-alerts/a%0Ab",
        "/api/v1/fraud-alerts/a%00b",
        "/api/v1/sessions?limit=0",
        "/api/v1/sessions?open=1",
        "/api/v1/sessions/%7F",
        "/api/v1/revenue?until=now",
        "/api/v1/features/" + "x" * 257,
    ],
)
def test_wrong_input_is_a_400_with_one_sentence(client, path):
    answer = client.get(path)
    assert answer.status_code == 400
    assert answer.json.keys() == {"success", "error"}
    assert answer.json["success"] is False
    assert "\n" not in answer.json["error"]


@FUZZ
@given(
    user=st.none() | st.text(max_size=150),
    args=st.dictionaries(
        st.sampled_from(["limit", "cursor", "since", "until", "open", "other"]),
        st.text(max_size=40)
        | st.integers().map(str)
        | st.datetimes().map(lambda t: t.isoformat() + "Z")
        | st.text("AQidabcxyz0189-_=", max_size=60),
    ),
)
def test_no_input_makes_the_server_fail(client, user, args):
    of_user = "" if user is None else "/" + quote(user, safe="", errors="replace")
    for path in ("fraud-alerts", "sessions", "revenue", "features"):
        answer = client.get(f"/api/v1/{path}{of_user}", query_string=args)
        assert answer.status_code in (200, 400, 404, *([405] if path == "features" and not of_user else []))
        assert answer.json["success"] is (answer.status_code == 200)


def test_health_names_the_ledgers(client, db):
    db.hset(KEYS.ledger("fraud-detector"), mapping={"in": 5, "good": 5, "updated_ms": T0})
    answer = client.get("/api/v1/health")
    assert answer.status_code == 200
    assert answer.json["data"]["status"] == "ok"
    assert answer.json["data"]["ledgers"]["fraud-detector"] == {
        "in": 5,
        "good": 5,
        "updated_at": "2026-09-21T14:13:20.123Z",
    }


def test_info_lists_every_route_with_a_summary(client):
    data = client.get("/api/v1/info").json["data"]
    assert data["version"]
    paths = [route["path"] for route in data["routes"]]
    assert {"/", "/metrics", "/api/v1/health", "/api/v1/fraud-alerts/<user_id>"} <= set(paths)
    assert all(route["summary"] and route["methods"] in (["GET"], ["POST"], ["PUT"]) for route in data["routes"])


def test_an_unknown_address_is_a_404_in_the_envelope(client):
    for path in ("/nothing", "/api/v1/fraud-alerts/", "//api/v1/health", "/api/v1/fraud-alerts/a/b"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json["success"] is False


def test_another_method_is_a_405_that_names_the_allowed_ones(client):
    answer = client.post("/api/v1/fraud-alerts", json={})
    assert answer.status_code == 405
    assert answer.json["success"] is False
    assert "GET" in answer.headers["Allow"]


def test_a_failure_nobody_foresaw_is_a_500_in_the_envelope(valkey):
    app = create_app(Config(redis_url=valkey.redis_url))

    @app.get("/broken")
    def broken():
        raise RuntimeError("secret detail")

    answer = app.test_client().get("/broken")
    assert answer.status_code == 500
    assert answer.json["success"] is False
    assert b"secret" not in answer.data


def test_without_redis_the_answer_is_503_until_it_is_back(own_valkey):
    client = create_app(Config(redis_url=own_valkey.redis_url)).test_client()
    assert client.get("/api/v1/health").status_code == 200
    own_valkey.stop()
    for path in ("health", "fraud-alerts", "fraud-alerts/u", "sessions", "revenue", "revenue/realtime", "features/u"):
        answer = client.get(f"/api/v1/{path}")
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.json["success"] is False
    assert "Redis" in client.get("/api/v1/health").json["error"]
    assert client.get("/api/v1/info").status_code == 200
    scrape = client.get("/metrics")
    assert scrape.status_code == 200
    assert "streamforge_redis_errors_total 9.0" in scrape.text  # eight answers above, and the scrape's own freshness
    own_valkey.start()
    assert client.get("/api/v1/fraud-alerts").status_code == 200
    assert client.get("/api/v1/health").status_code == 200


def test_answers_are_not_cached(client):
    assert client.get("/api/v1/fraud-alerts").headers["Cache-Control"] == "no-store"


def test_the_api_knows_schemas_but_neither_beam_nor_transforms():
    code = (
        "import sys, serving, serving.__main__, serving.server; serving.create_app(serving.Config());"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'apache_beam','transforms','beam_pipelines'}))"
    )
    root = Path(serving.__file__).parent.parent
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []


def test_a_query_that_is_not_utf_8_is_the_client_s_fault():
    client = create_app(Config(redis_url="redis://127.0.0.1:1")).test_client()
    for query in ("limit=\xff", "\xff", "limit=%FF"):
        answer = client.get("/api/v1/fraud-alerts", environ_overrides={"QUERY_STRING": query})
        assert (answer.status_code, answer.json["success"]) == (400, False), query
