import time

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_flask_exporter import PrometheusMetrics

from schemas.events import RevenueWindow
from schemas.store_keys import KEYS
from serving import Config, create_app
from tests.store import write


def families(client):
    answer = client.get("/metrics")
    assert answer.status_code == 200
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def value(family, name, **labels):
    return sum(s.value for s in family.samples if s.name == name and labels.items() <= s.labels.items())


def test_names_types_and_labels_are_the_promised_ones(client, db):
    db.hset(KEYS.freshness, "fraud_alerts", int(time.time() * 1000) - 5000)
    found = families(client)
    assert {name: family.type for name, family in found.items()} == {
        "streamforge_http_requests": "counter",
        "streamforge_http_request_duration_seconds": "histogram",
        "streamforge_http_requests_in_flight": "gauge",
        "streamforge_redis_errors": "counter",
        "streamforge_rate_limit_failures": "counter",
        "streamforge_redis_connections": "gauge",
        "streamforge_fraud_alerts_served": "counter",
        "streamforge_feature_freshness_seconds": "gauge",
        "streamforge_ledger_records": "gauge",
        "streamforge_ledger_age_seconds": "gauge",
        "streamforge_ledger_lost_records": "gauge",
        "streamforge_ledger_ignored_messages": "gauge",
        "streamforge_sessions_open": "gauge",
        "streamforge_fraud_alerts_recent": "gauge",
        "streamforge_revenue_minute_gmv": "gauge",
        "streamforge_revenue_minute_orders": "gauge",
        "streamforge_revenue_minute_users": "gauge",
        "streamforge_pipeline_lag_records": "gauge",
        "streamforge_pipeline_watermark_delay_seconds": "gauge",
        "streamforge_pipeline_partitions": "gauge",
        "streamforge_pipeline_empty_partitions": "gauge",
        "streamforge_pipeline_truncated_partitions": "gauge",
    }
    assert {sample.name for sample in found["streamforge_http_requests"].samples} == {"streamforge_http_requests_total"}
    for name in ("streamforge_http_requests", "streamforge_http_request_duration_seconds"):
        assert all({"method", "endpoint", "status"} <= sample.labels.keys() for sample in found[name].samples)
    [fresh] = found["streamforge_feature_freshness_seconds"].samples
    assert fresh.labels == {"family": "fraud_alerts"}
    assert fresh.value == pytest.approx(5, abs=2)


def test_the_address_is_prometheus_flask_exporter_s_and_holds_none_of_its_own_series(client):
    view = client.application.view_functions["prometheus_metrics"]
    assert view.operation.free
    assert isinstance(client.application.extensions["streamforge.metrics"], PrometheusMetrics)
    client.get("/nowhere")
    found = families(client)
    assert not [name for name in found if not name.startswith("streamforge_") or "exporter" in name]
    assert value(found["streamforge_http_requests"], "streamforge_http_requests_total", endpoint="unmatched") == 1


def test_ledgers_are_told_by_job_and_outcome_with_their_age(client, db):
    counts = {"in": 10, "good": 6, "dead_letters": 2, "late": 1, "duplicates": 1}
    written_ms = int(time.time() * 1000) - 30_000
    db.hset(KEYS.ledger("archiver"), mapping=counts | {"updated_ms": written_ms, "run_ms": 1})
    db.hset(KEYS.ledger("cdc-processor"), mapping={"in": "many", "late": 3, "updated_ms": "9" * 40})
    found = families(client)
    told = {(s.labels["job"], s.labels["outcome"]): s.value for s in found["streamforge_ledger_records"].samples}
    assert told == {("archiver", name): number for name, number in counts.items()} | {("cdc-processor", "late"): 3}
    [age] = found["streamforge_ledger_age_seconds"].samples
    assert age.labels == {"job": "archiver"}
    assert age.value == pytest.approx(30, abs=5)


@pytest.mark.parametrize(("name", "metric"), [("lost", "lost_records"), ("ignored", "ignored_messages")])
def test_what_is_no_part_of_in_is_told_apart_and_only_of_jobs_that_say_so(client, db, name, metric):
    counts = {"in": 5, "good": 5, "updated_ms": 1}
    db.hset(KEYS.ledger("archiver"), mapping=counts | {name: 7})
    db.hset(KEYS.ledger("fraud-detector"), mapping=counts)
    found = families(client)
    told = {sample.labels["job"]: sample.value for sample in found[f"streamforge_ledger_{metric}"].samples}
    assert told == {"archiver": 7}
    assert name not in {sample.labels["outcome"] for sample in found["streamforge_ledger_records"].samples}
    ledgers = client.get("/api/v1/health").json["data"]["ledgers"]
    assert ledgers["archiver"][name] == 7
    assert name not in ledgers["fraud-detector"]


def test_the_shop_s_numbers_are_told(client, db, valkey, stored, make_alert):
    before_ms = int(time.time() * 1000)
    minutes = [before_ms - before_ms % 60_000 + n * 60_000 for n in range(-3, 2)]
    write(valkey.redis_url, [revenue(start, orders=100 + n) for n, start in enumerate(minutes)])
    write(valkey.redis_url, [revenue(start, orders=9, currency="JPY") for start in minutes])
    db.zadd(KEYS.open_sessions, {"a": 1, "b": 2})
    stored(
        make_alert(1, time_ms=before_ms),
        make_alert(2, time_ms=before_ms - 200_000),
        make_alert(3, time_ms=before_ms, alert_type="HIGH_VALUE_BURST"),
        make_alert(4, time_ms=before_ms - 400_000, alert_type="HIGH_VALUE_BURST"),
    )
    found = families(client)
    over = {
        int(at - 120_000) // 60_000 * 60_000 for at in (before_ms, time.time() * 1000)
    }  # the clock goes on meanwhile
    minute = {
        (s.name.removeprefix("streamforge_revenue_minute_"), s.labels["currency"]): s.value
        for name, family in found.items()
        for s in family.samples
        if name.startswith("streamforge_revenue_minute_")
    }
    lira = [{"gmv": 1234.5, "orders": 100 + minutes.index(start), "users": 5} for start in over]
    yen = {("gmv", "JPY"): 123_450, ("orders", "JPY"): 9, ("users", "JPY"): 5}
    assert minute in [{**{(name, "TRY"): n for name, n in each.items()}, **yen} for each in lira]
    assert value(found["streamforge_sessions_open"], "streamforge_sessions_open") == 2
    recent = {s.labels["alert_type"]: s.value for s in found["streamforge_fraud_alerts_recent"].samples}
    assert recent == {"RAPID_ORDERS": 2, "HIGH_VALUE_BURST": 1}


def revenue(start_ms, orders, currency="TRY"):
    return RevenueWindow(
        window_start=start_ms,
        window_end=start_ms + 60_000,
        dimension="total",
        value="*",
        gmv_minor=123_450,
        order_count=orders,
        unique_users=5,
        first_time_orders=1,
        pane="ON_TIME",
        version=1,
        currency=currency,
    )


def test_a_minute_without_orders_and_an_empty_store_tell_nothing_that_looks_like_a_number(client):
    found = families(client)
    for name in ("revenue_minute_gmv", "fraud_alerts_recent", "ledger_records", "ledger_age_seconds"):
        assert found[f"streamforge_{name}"].samples == []


def test_requests_are_counted_by_route_and_never_by_path(client, stored, make_alert):
    stored(make_alert(1, "ada"), make_alert(2, "ada"))
    for path in ("/api/v1/fraud-alerts/ada", "/api/v1/fraud-alerts/bob", "/api/v1/fraud-alerts?limit=0", "/no/such"):
        client.get(path)
    client.post("/api/v1/health")
    client.open("/api/v1/health", method="INVENTED")
    found = families(client)
    requests = found["streamforge_http_requests"]

    def count(**labels):
        return value(requests, "streamforge_http_requests_total", **labels)

    assert count(method="GET", endpoint="/api/v1/fraud-alerts/<user_id>", status="200") == 2
    assert count(method="GET", endpoint="/api/v1/fraud-alerts", status="400") == 1
    assert count(method="GET", endpoint="unmatched", status="404") == 1
    assert count(method="POST", endpoint="unmatched", status="405") == 1
    assert count(method="other", endpoint="unmatched", status="405") == 1
    assert not any("ada" in str(sample.labels) or "such" in str(sample.labels) for sample in requests.samples)
    duration = found["streamforge_http_request_duration_seconds"]
    name = "streamforge_http_request_duration_seconds"
    assert value(duration, f"{name}_count", endpoint="/api/v1/fraud-alerts/<user_id>") == 2
    assert 0 < value(duration, f"{name}_sum", endpoint="/api/v1/fraud-alerts/<user_id>") < 5
    served = found["streamforge_fraud_alerts_served"]
    assert value(served, "streamforge_fraud_alerts_served_total") == 2


def test_every_route_is_there_from_zero(client):
    samples = families(client)["streamforge_http_requests"].samples
    assert {"/", "/metrics", "/api/v1/fraud-alerts"} <= {s.labels["endpoint"] for s in samples if s.value == 0}


def test_a_request_is_in_flight_while_it_is_answered_and_not_after(client):
    for _ in range(2):
        in_flight = families(client)["streamforge_http_requests_in_flight"]
        assert value(in_flight, "streamforge_http_requests_in_flight") == 1  # the scrape itself


def test_open_connections_to_the_store_are_counted_while_they_are_open(own_valkey):
    client = create_app(Config(redis_url=own_valkey.redis_url)).test_client()

    def opened():
        return value(families(client)["streamforge_redis_connections"], "streamforge_redis_connections")

    assert opened() == 1  # the scrape's own
    client.get("/api/v1/fraud-alerts")
    assert opened() == 1
    own_valkey.stop()
    assert opened() == 0
    own_valkey.start()
    assert opened() == 1


def test_a_failing_view_leaves_nothing_in_flight(valkey):
    app = create_app(Config(redis_url=valkey.redis_url))

    @app.get("/broken")
    def broken():
        raise RuntimeError("boom")

    client = app.test_client()
    client.get("/broken")
    found = families(client)
    assert value(found["streamforge_http_requests_in_flight"], "streamforge_http_requests_in_flight") == 1
    assert value(found["streamforge_http_requests"], "streamforge_http_requests_total", status="500") == 1


def test_openmetrics_is_spoken_when_asked_for(valkey):
    client = create_app(Config(redis_url=valkey.redis_url)).test_client()  # the document names text/plain only
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.content_type.startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
