import contextlib
import os
import signal
import threading
import time
from datetime import datetime

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schemas import features
from schemas.store_keys import KEYS
from serving import Config
from serving.store import JOBS, Position, Store, StoreUnavailable, epoch_ms

KEEP_FIXTURES = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
T0 = 1_790_000_000_123


class Errors:
    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1


@pytest.fixture
def errors():
    return Errors()


@pytest.fixture
def store(valkey, db, errors):
    return Store(Config(redis_url=valkey.redis_url), errors)


def read_all(store, limit, **bounds):
    alerts, end = store.alerts(None, limit, **bounds)
    while end:
        assert len(alerts) % limit == 0, "only the last page may be short"
        more, end = store.alerts(None, limit, after=end, **bounds)
        assert more, "a page that was announced is not empty"
        alerts += more
    return alerts


@KEEP_FIXTURES
@given(
    instants=st.lists(st.integers(0, 3), max_size=40),
    limit=st.integers(1, 12),
    since=st.none() | st.integers(-1, 4),
    until=st.none() | st.integers(-1, 4),
)
@example(instants=[0] * 30, limit=7, since=None, until=None)
def test_pages_have_no_gap_and_no_repeat_also_among_equal_times(
    store, db, stored, make_alert, instants, limit, since, until
):
    db.flushall()
    alerts = [make_alert(i, time_ms=T0 + instant) for i, instant in enumerate(instants)]
    stored(*alerts)
    bounds = {"since_ms": None if since is None else T0 + since, "until_ms": None if until is None else T0 + until}

    wanted = [
        a
        for a in alerts
        if (since is None or a.event_time >= T0 + since) and (until is None or a.event_time <= T0 + until)
    ]
    wanted.sort(key=lambda a: (a.event_time, a.alert_id), reverse=True)
    assert read_all(store, limit, **bounds) == [features.alert_json(a) for a in wanted]


@KEEP_FIXTURES
@given(
    first=st.lists(st.integers(0, 3), min_size=1, max_size=20),
    arriving=st.lists(st.integers(-1, 4), max_size=20),
    limit=st.integers(1, 5),
)
def test_alerts_that_arrive_while_a_reader_pages_neither_hide_nor_repeat_others(
    store, db, stored, make_alert, first, arriving, limit
):
    db.flushall()
    stored(*(make_alert(2 * i, time_ms=T0 + instant) for i, instant in enumerate(first)))
    seen, end = store.alerts(None, limit)
    late = iter([make_alert(2 * i + 1, time_ms=T0 + instant) for i, instant in enumerate(arriving)])
    while end:
        for new in (next(late, None), next(late, None)):
            if new:
                stored(new)
        more, end = store.alerts(None, limit, after=end)
        seen += more
    assert len(seen) == len(set(seen))
    assert {features.alert_json(make_alert(2 * i, time_ms=T0 + t)) for i, t in enumerate(first)} <= set(seen)


@KEEP_FIXTURES
@given(alert_id=st.text(min_size=1, max_size=20))
def test_any_alert_id_marks_a_place(store, db, stored, make_alert, alert_id):
    db.flushall()
    stored(make_alert(1, alert_id=alert_id), make_alert(2, alert_id=alert_id + "!"))
    alerts = read_all(store, 1)
    assert len(alerts) == len(set(alerts)) == 2


# Beyond 2**32 seconds (the year 2106) `rfc3339` loses a millisecond to floating point.
@given(time_ms=st.integers(0, 2**32 * 1000))
def test_the_time_in_an_alert_is_its_score_to_the_millisecond(time_ms):
    assert epoch_ms(datetime.fromisoformat(features.rfc3339(time_ms))) == time_ms


def test_a_page_after_the_window_is_empty(store, stored, make_alert):
    stored(make_alert(1), make_alert(2))
    assert store.alerts(None, 10, after=Position(T0, "zzz"), since_ms=T0 + 1).rows == []


def test_health_shows_the_ledgers_that_jobs_have_written(store, db):
    counts = {"in": 10, "good": 6, "dead_letters": 2, "late": 1, "duplicates": 1}
    db.hset(KEYS.ledger("fraud-detector"), mapping=counts | {"updated_ms": T0, "run_ms": T0})
    assert store.health().ledgers == {"fraud-detector": counts | {"updated_at": features.rfc3339(T0)}}
    assert store.health().latency_ms > 0
    assert "fraud-detector" in JOBS


def test_a_ledger_with_foreign_values_does_not_break_health(store, db):
    db.hset(KEYS.ledger("archiver"), mapping={"in": "many", "good": "-1", "late": 3, "updated_ms": "9" * 40})
    assert store.health().ledgers == {"archiver": {"late": 3}}


def test_all_that_a_scrape_tells_is_two_round_trips_however_much_there_is(store, db, monkeypatch):
    asked = []
    ask = store._connections.ask
    monkeypatch.setattr(store._connections, "ask", lambda *commands, **how: asked.append(1) or ask(*commands, **how))
    db.hset(KEYS.ledger(JOBS[0]), mapping={"in": 3, "good": 3, "updated_ms": int(time.time() * 1000)})
    readings = store.readings()
    assert readings.ledgers == {JOBS[0]: {"in": 3, "good": 3}}
    assert readings.ledger_age_s == {JOBS[0]: pytest.approx(0, abs=5)}
    assert len(asked) == 2


def test_features_of_many_come_in_the_order_asked_with_none_for_the_unknown(store, db):
    for user in ("ada", "bob"):
        db.set(KEYS.user_features(user), f"features of {user}")
    ada, bob = b"features of ada", b"features of bob"
    assert store.features_of_many(["bob", "nobody", "ada", "bob"]) == [bob, None, ada, bob]
    assert (store.features_of("ada"), store.features_of("nobody")) == (ada, None)


def test_freshness_is_the_age_of_the_newest_event(store, db):
    db.hset(KEYS.freshness, mapping={"fraud_alerts": int(time.time() * 1000) - 60_000, "odd": "x"})
    assert store.freshness_s() == {"fraud_alerts": pytest.approx(60, abs=5)}


def test_a_store_that_is_gone_fails_at_once_and_is_used_again_when_it_is_back(own_valkey, errors):
    store = Store(Config(redis_url=own_valkey.redis_url), errors)
    store.health()
    own_valkey.stop()
    begin = time.monotonic()
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            store.alerts(None, 10)
    assert time.monotonic() - begin < 2
    assert errors.count == 5
    own_valkey.start()
    assert store.alerts(None, 10).rows == []  # the first call, without a wait
    assert errors.count == 5


def test_a_restart_between_two_requests_goes_unnoticed(own_valkey, errors):
    store = Store(Config(redis_url=own_valkey.redis_url), errors)
    store.health()
    own_valkey.stop()
    own_valkey.start()
    store.health()
    store.alerts(None, 10, after=Position(T0, "a"))
    assert errors.count == 0


def test_connections_are_as_many_as_threads_ask_at_once_and_are_kept(store, db):
    store.health()
    before = db.info("clients")["connected_clients"]
    for _ in range(20):
        store.alerts(None, 10)
    assert db.info("clients")["connected_clients"] == before


def test_a_frozen_store_holds_threads_for_one_time_out_only_and_recovers_by_itself(own_valkey, errors):
    config = Config(redis_url=own_valkey.redis_url, redis_timeout_s=0.3, retry_after_s=0.5)
    store = Store(config, errors)
    store.health()
    pid = own_valkey.pid("valkey")
    os.kill(pid, signal.SIGSTOP)
    try:
        waits = []

        def ask():
            for _ in range(20):
                begin = time.monotonic()
                with contextlib.suppress(StoreUnavailable):
                    store.alerts(None, 10)
                waits.append(time.monotonic() - begin)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert errors.count == 80
        assert max(waits) < 3 * config.redis_timeout_s
        assert sum(wait > 0.1 for wait in waits) <= 8, "calls after a time-out must not wait again"
    finally:
        os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + 5
    while True:
        try:
            assert store.alerts(None, 10).rows == []
            break
        except StoreUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_an_answer_that_is_an_error_is_a_failure_of_the_store(store, db, errors):
    db.set(KEYS.recent_alerts, "not a sorted set")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        store.alerts(None, 10)
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        store.alerts(None, 10, after=Position(T0, "a"))  # within a transaction
    assert errors.count == 2


def test_an_error_among_answers_leaves_none_of_them_to_the_next_question(store, db, stored, make_alert):
    stored(make_alert())
    db.set(KEYS.ledger(JOBS[0]), "not a hash")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        store.health()
    assert store.alerts(None, 10).rows == [features.alert_json(make_alert())]
