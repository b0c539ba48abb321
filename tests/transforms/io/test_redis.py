"""The writers of the online store against a real Valkey, and against a model of what it must hold."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schemas import features
from schemas.events import FraudAlert, RevenueWindow, UserSession
from schemas.store_keys import KEYS
from stack import Stack
from tests.build import HOUR, MINUTE, T0, alert, minute, session
from tests.kept import Kept, plain
from tests.live import eventually
from tests.store import Order, Write, order, write
from transforms.io.redis import _revenue, _WriteLedgerFn, _WriteRevenueFn
from transforms.ledger import Counts

pytestmark = pytest.mark.stack

DAY = 24 * HOUR
HUGE = (1 << 63) - 1
SMALL = {
    "ALERTS_PER_USER": 2,
    "ALERTS_RECENT": 3,
    "SESSIONS_PER_USER": 3,
    "SESSIONS_RECENT": 4,
    "ORDERS_PER_USER": 4,
    "REVENUE_MINUTES": 3,
}


def dump(db: redis.Redis) -> dict[str, Any]:
    """Every key's contents; each must have a TTL. Not those of the log of alerts, which are as the order of writes, and
    not what a cluster keeps beside a list, which must be of its members."""
    found: dict[str, Any] = {}
    for key in db.scan_iter(count=1_000):
        name = plain(key)
        assert 0 < db.ttl(key) <= 7 * 24 * 3600, f"{name} has no TTL"
        if db.type(key) == b"string":
            found[name] = db.get(key)
        elif db.type(key) == b"zset":
            found[name] = [(member.decode(), int(score)) for member, score in db.zrange(key, 0, -1, withscores=True)]
        elif db.type(key) == b"stream":
            assert name == KEYS.alert_log
        elif name in (KEYS.alert_versions, KEYS.session_versions):
            members = {value.partition(b" ")[2] for value in db.hgetall(key).values()}
            assert members == set(db.zrange(key.replace(b":versions", b":recent"), 0, -1))
        else:
            found[name] = {field.decode(): value.decode() for field, value in db.hgetall(key).items()}
    return found


def model(writes: Iterable[Write], *, cluster: bool = False) -> dict[str, Any]:
    """What the store must hold after these writes, however they came.

    Args:
      cluster: lists of all users keep what a user's own list has pushed out.
    """
    of: dict[type, list[Any]] = {kind: [] for kind in (FraudAlert, UserSession, RevenueWindow, tuple)}
    for each in writes:
        of[type(each)].append(each)
    keys: dict[str, Any] = {}
    users: dict[str, dict[str, str]] = {}
    seen: dict[str, int] = {}

    def saw(user: str, at: int) -> None:
        seen[user] = max(seen.get(user, 0), at)

    recent: list[tuple[int, str]] = []
    for user in {a.user_id for a in of[FraudAlert]}:
        newest: dict[str, FraudAlert] = {}
        for a in of[FraudAlert]:
            if a.user_id == user:
                saw(user, a.event_time)
                if a.alert_id not in newest or newest[a.alert_id].event_time < a.event_time:
                    newest[a.alert_id] = a
        every = sorted((a.event_time, features.alert_json(a).decode(), a) for a in newest.values())
        kept = every[-features.ALERTS_PER_USER :]
        keys[KEYS.user_alerts(user)] = [(text, at) for at, text, _ in kept]
        keys[KEYS.user_alert_ids(user)] = {a.alert_id: str(at) for at, _, a in kept}
        recent += [(at, text) for at, text, _ in (every if cluster else kept)]
        users.setdefault(user, {}).update(
            alerts=str(len(kept)), last_alert_type=kept[-1][2].alert_type, last_alert_at=str(kept[-1][0])
        )
    if recent:
        keys["sf:alerts:recent"] = [(text, at) for at, text in sorted(recent)[-features.ALERTS_RECENT :]]

    all_kept: list[tuple[int, str, UserSession]] = []
    for user in {s.user_id for s in of[UserSession]}:
        best: dict[str, UserSession] = {}
        for s in of[UserSession]:
            if s.user_id == user:
                if not s.deleted:
                    saw(user, s.session_end)
                old = best.get(s.session_id)
                if old is None or (s.deleted, s.version) > (old.deleted, old.version):
                    best[s.session_id] = s
        every_session = sorted((s.session_start, features.session_json(s).decode(), s) for s in best.values())
        sessions = every_session[-features.SESSIONS_PER_USER :]
        keys[KEYS.user_sessions(user)] = [(text, at) for at, text, _ in sessions]
        keys[KEYS.user_session_ids(user)] = {
            s.session_id: str((1 << 53) - 1 if s.deleted else s.version) for _, _, s in sessions
        }
        all_kept += every_session if cluster else sessions
        visible = [text for _, text, s in sessions if not s.deleted]
        if visible:
            users.setdefault(user, {})["last_session"] = visible[-1]
    if all_kept:
        newest_sessions = sorted((at, text, s.pane, s.deleted) for at, text, s in all_kept)[-features.SESSIONS_RECENT :]
        keys["sf:sessions:recent"] = [(text, at) for at, text, *_ in newest_sessions]
        in_progress = [(text, at) for at, text, pane, gone in newest_sessions if pane == "EARLY" and not gone]
        if in_progress:
            keys["sf:sessions:open"] = in_progress

    for user in {o[0] for o in of[tuple]}:
        last = max(o[2] for o in of[tuple] if o[0] == user)
        saw(user, last)
        times: dict[str, int] = {}
        for _, order_id, at, amount, region, *_, currency in (o for o in of[tuple] if o[0] == user):
            member = f"{amount}|{currency}|{order_id}\0{region}"
            times[member] = max(at, times.get(member, 0))
        day = sorted((at, member) for member, at in times.items() if at >= last - DAY)[-features.ORDERS_PER_USER :]
        keys[KEYS.user_orders(user)] = [(member, at) for at, member in day]
        newest_of = {member.split("|")[2].split("\0")[0]: (at, *member.split("|")[:2]) for at, member in day}
        hour = [(amount, code) for at, amount, code in newest_of.values() if at >= last - HOUR]
        spend = [
            f"{code} {spent(code, hour)} {spent(code, [each[1:] for each in newest_of.values()])}"
            for code in sorted({code for _, _, code in newest_of.values()})
        ]
        users.setdefault(user, {}).update(
            orders_1h=str(len(hour)),
            orders_24h=str(len(newest_of)),
            spend_minor=";".join(spend),
            last_order_at=str(last),
        )

    by_currency: list[tuple[str, int]] = []
    for currency in {r.currency for r in of[RevenueWindow]}:
        rows = sorted((r for r in of[RevenueWindow] if r.currency == currency), key=lambda r: r.version)
        minutes = sorted({r.window_start for r in rows})[-features.REVENUE_MINUTES :]
        for start in minutes:
            keys[KEYS.revenue_minute(currency, start)] = {
                f"{r.dimension}:{r.value}": (
                    f"{r.version} {r.gmv_minor} {r.order_count} {r.unique_users} {r.first_time_orders} {r.window_end}"
                )
                for r in rows
                if r.window_start == start
            }
        keys[KEYS.revenue_minutes(currency)] = [(str(start), start) for start in minutes]
        by_currency.append((currency, minutes[-1]))
    if by_currency:
        keys["sf:revenue:currencies"] = sorted(by_currency, key=lambda each: (each[1], each[0]))

    for user, at in seen.items():
        users.setdefault(user, {})["last_seen"] = str(at)
    for user, fields in users.items():
        keys[KEYS.user(user)] = fields
        stored = {name.encode(): value.encode() for name, value in fields.items()}
        keys[KEYS.user_features(user)] = features.user_features_json(user, stored)
    fresh = {
        "fraud_alerts": max((a.event_time for a in of[FraudAlert]), default=0),
        "sessions": max((s.session_end for s in of[UserSession] if not s.deleted), default=0),
        "orders": max((o[2] for o in of[tuple]), default=0),
        "revenue": max((r.window_start for r in of[RevenueWindow]), default=0),
    }
    if any(fresh.values()):
        keys["sf:freshness"] = {family: str(at) for family, at in fresh.items() if at}
    return keys


def spent(currency: str, orders: Iterable[tuple[str, str]]) -> int:
    return min(HUGE, sum(int(amount) for amount, code in orders if code == currency))


CURRENCIES = st.sampled_from(["TRY", "EUR", "JPY", "QQQ"])
REGIONS = st.sampled_from(["Izmir", "", "a\0b|c\n", "ü" * 256])
user_ids = st.sampled_from(["u-1", "u-2", 'ü:{"'])
steps = st.integers(0, 7)


@st.composite
def alerts(draw: st.DrawFn) -> FraudAlert:
    number, at = draw(steps), draw(st.integers(0, 2))
    kind = ("RAPID_ORDERS", "LOCATION_ANOMALY")[number % 2]
    return alert(alert_id=f"a-{number}", user_id=draw(user_ids), alert_type=kind, event_time=T0 + 3 * number + at)


@st.composite
def sessions(draw: st.DrawFn) -> UserSession:
    """A version stands for one content."""
    user, start, version = draw(user_ids), T0 + draw(steps) * MINUTE, draw(st.integers(1, 4))
    return session(
        user,
        start,
        version=version,
        session_end=start + 7 * version,
        page_views=version,
        revenue_minor=HUGE if version == 3 else version,
        pane=("EARLY", "EARLY", "ON_TIME", "LATE")[version - 1],
        deleted=draw(st.integers(0, 5)) == 0,
    )


@st.composite
def orders(draw: st.DrawFn) -> Order:
    at = T0 + draw(st.sampled_from([0, 1, HOUR, HOUR + 1, DAY, DAY + 1, DAY + HOUR]))
    amount = draw(st.sampled_from([5, 999_999_999, 10**18 + 1, HUGE]))
    return order(f"o-{draw(st.integers(0, 1))}", at, amount, draw(user_ids), draw(CURRENCIES), draw(REGIONS))


@st.composite
def revenue(draw: st.DrawFn) -> RevenueWindow:
    dimension, value = draw(st.sampled_from([("total", "*"), ("category", "ev: 1"), ("region", "*")]))
    version = draw(st.integers(1, 3))
    figures = {"version": version, "gmv_minor": version * 1_000, "currency": draw(CURRENCIES)}
    return minute(T0 + draw(steps) * MINUTE, dimension, value, **figures)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(st.lists(alerts() | sessions() | orders() | revenue(), min_size=1, max_size=30), st.data())
def test_any_order_repetition_and_split_of_the_writes_leaves_what_the_model_says(
    kept: Kept, writes: list[Write], data: st.DataObject
) -> None:
    kept.db.flushall()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(features, name, value)
        deliver(kept.url, writes, data)
        assert dump(kept.db) == model(writes, cluster=kept.keys is not KEYS)


def deliver(url: str, writes: Sequence[Write], data: st.DataObject) -> None:
    """Writes all of them, some more than once, in some order, in batches that a bundle of some writer could be."""
    repeats = data.draw(st.lists(st.sampled_from(range(len(writes))), max_size=10))
    sequence = data.draw(st.permutations([*range(len(writes)), *repeats]))
    batch: list[Write] = []
    for i in sequence:
        if batch and (type(batch[0]) is not type(writes[i]) or data.draw(st.booleans())):
            write(url, batch)
            batch = []
        batch.append(writes[i])
    write(url, batch)


def test_the_bounds_are_those_of_the_layout_and_a_replay_of_everything_changes_nothing(
    kept: Kept,
) -> None:
    """One user does more than is kept, in bundles larger than one run of a script takes."""
    url, db = kept.url, kept.db
    writes: list[list[Write]] = [
        [alert(alert_id=f"a-{i}", event_time=T0 + i) for i in range(1_200)],
        [session("u-1", T0 + i * MINUTE, version=1) for i in range(1_200)],
        [order(f"o-{i}", T0 + i) for i in range(1_200)],
        [minute(T0 + i * MINUTE) for i in range(3_000)],
    ]
    for batch in writes:
        write(url, batch)
    first = dump(db)
    assert first == model([row for batch in writes for row in batch], cluster=kept.keys is not KEYS)
    sizes = {name: len(contents) for name, contents in first.items()}
    collections = [prefix + "u-1" for prefix in KEYS.of_user(KEYS.shared) if prefix != "sf:features:"]
    assert {sizes[name] for name in collections} == {9, 1_000, 100}
    assert sizes[KEYS.revenue_minutes("TRY")] == sum("sf:revenue:minute:" in name for name in first) == 2_880
    for batch in reversed(writes):
        write(url, batch[::-1])
    assert dump(db) == first


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(alerts(), min_size=1, max_size=20), st.data())
def test_the_log_tells_every_alert_that_gets_in_once_and_ends_with_what_is_stored(
    kept: Kept, writes: list[FraudAlert], data: st.DataObject
) -> None:
    kept.db.flushall()
    deliver(kept.url, writes, data)
    told = [entry[b"alert"] for _, entry in kept.db.xrange(kept.keys.alert_log)]
    assert len(told) == len(set(told))
    last_of = {(alert["user_id"], alert["alert_id"]): text for text in told for alert in [json.loads(text)]}
    assert sorted(last_of.values()) == sorted(kept.db.zrange(kept.keys.recent_alerts, 0, -1))


def test_a_replay_is_no_news_also_of_alerts_that_newer_ones_pushed_out(kept: Kept) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "ALERTS_PER_USER" if kept.keys is KEYS else "ALERTS_RECENT", 2)
        writes = [alert(alert_id=f"a-{i}", event_time=T0 + i) for i in range(5)]
        for _ in range(2):
            write(kept.url, writes)
    assert [entry[b"alert"] for _, entry in kept.db.xrange(kept.keys.alert_log)] == [
        features.alert_json(each) for each in writes
    ]


def test_a_retracted_session_stays_away_and_the_one_before_is_the_users_last_again(
    valkey: Stack, db: redis.Redis
) -> None:
    first, swallowed = session("u-1", T0, version=1), session("u-1", T0 + HOUR, version=1, page_views=9)
    gone = session("u-1", T0 + HOUR, version=1, deleted=True)
    write(valkey.redis_url, [first, swallowed])
    assert b'"page_views":9' in db.hget("sf:user:u-1", "last_session")
    write(valkey.redis_url, [gone])
    write(valkey.redis_url, [session("u-1", T0 + HOUR, version=1 << 50, page_views=9)])
    assert db.hget("sf:user:u-1", "last_session") == features.session_json(first)
    listed = [json.loads(member) for member in db.zrange("sf:sessions:recent", 0, -1)]
    assert [s.get("deleted", False) for s in listed] == [False, True]
    assert db.zrange("sf:sessions:open", 0, -1) == [features.session_json(first)]


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
def test_an_older_version_of_a_minute_replaces_nothing(valkey: Stack, db: redis.Redis, together: bool) -> None:
    rows = [minute(T0, version=version, gmv_minor=version) for version in (2, 3, 1)]
    for batch in [rows] if together else [[row] for row in rows]:
        write(valkey.redis_url, batch)
    assert db.hget(KEYS.revenue_minute("TRY", T0), "total:*") == features.revenue_value(rows[1]).encode()


def test_an_order_id_that_came_with_two_amounts_counts_once_with_the_newest(valkey: Stack, db: redis.Redis) -> None:
    write(valkey.redis_url, [order("o-1", T0 + 1, 7), order("o-1", T0, 500), order("o-2", T0, 30)])
    assert db.hmget("sf:user:u-1", "orders_1h", "orders_24h", "spend_minor") == [b"2", b"2", b"TRY 37 37"]


def test_an_order_that_a_release_without_regions_wrote_too_counts_once(kept: Kept) -> None:
    orders = [order("o-1", T0 - 1, 700), order("o:2|x", T0, 30, region="a\0b")]
    key = kept.keys.user_orders("u-1")
    kept.db.zadd(key, {f"{amount}|TRY|{order_id}": at for _, order_id, at, amount, *_ in orders})
    for _ in range(2):
        write(kept.url, orders)
        assert kept.db.hmget(kept.keys.user("u-1"), "orders_24h", "spend_minor") == [b"2", b"TRY 730 730"]
    read = {features.kept_order(member) for member in kept.db.zrange(key, 0, -1)}
    assert read == {(700, "TRY", "o-1", r) for r in (None, "Izmir")} | {(30, "TRY", "o:2|x", r) for r in (None, "a\0b")}


def test_a_region_is_kept_up_to_a_length_so_that_none_keeps_an_order_out(kept: Kept) -> None:
    write(kept.url, [order("o-1", T0, region="x" * (2 << 20))])
    [member] = kept.db.zrange(kept.keys.user_orders("u-1"), 0, -1)
    assert features.kept_order(member) == (100, "TRY", "o-1", features.kept_region("x" * 257))


def test_what_a_release_without_currencies_left_is_lira_and_goes_on(valkey: Stack, db: redis.Redis) -> None:
    db.zadd("sf:revenue:minutes", {str(T0): T0, str(T0 + MINUTE): T0 + MINUTE})
    old = features.revenue_value(minute(T0, version=8)).encode()
    for start in (T0, T0 + MINUTE):
        db.hset(f"sf:revenue:minute:{start}", "total:*", old)
    db.expire("sf:revenue:minutes", 3_600)
    db.zadd("sf:orders:user:u-1", {"700:o-1": T0 - 1, "40:o:2": T0 - 2})
    db.hset("sf:user:u-2", mapping={"last_order_at": T0, "orders_24h": 1, "spend_1h_minor": 5, "spend_24h_minor": 995})
    newer = minute(T0 + MINUTE, version=12, gmv_minor=9)
    fn = _WriteRevenueFn(valkey.redis_url, _revenue)
    write(valkey.redis_url, [newer, minute(T0, currency="EUR")])
    for _ in range(2):  # also where it is done again
        fn.setup()
        fn.teardown()
    assert not db.exists("sf:revenue:minutes")
    assert db.zrange(KEYS.revenue_minutes("TRY"), 0, -1) == [str(T0).encode(), str(T0 + MINUTE).encode()]
    assert db.hget(KEYS.revenue_minute("TRY", T0), "total:*") == old
    assert db.hget(KEYS.revenue_minute("TRY", T0 + MINUTE), "total:*") == features.revenue_value(newer).encode()
    assert db.ttl(KEYS.revenue_minutes("TRY")) > 0
    write(valkey.redis_url, [order("o-1", T0 - 1, 700), order("o-3", T0, 300, currency="EUR")])
    assert db.hmget("sf:user:u-1", "orders_24h", "spend_minor") == [b"3", b"EUR 300 300;TRY 740 740"]
    write(valkey.redis_url, [alert(user_id="u-2")])
    told = json.loads(db.get(KEYS.user_features("u-2")))
    assert told["spend_by_currency"] == {"TRY": {"spend_1h": 0.05, "spend_24h": 9.95}}


def test_a_ledger_is_that_of_the_latest_run_as_far_as_it_has_come(valkey: Stack, db: redis.Redis) -> None:
    def show(run_ms: int, records_in: int, ignored: int = 0) -> tuple[int, int]:
        fn = _WriteLedgerFn(valkey.redis_url, "fraud-detector", run_ms)
        fn.setup()
        fn.process(Counts(records_in=records_in, good=records_in, ignored=ignored))
        fn.teardown()
        run, total = db.hmget(KEYS.ledger("fraud-detector"), "run_ms", "in")
        return int(run), int(total)

    assert show(T0, 10) == (T0, 10)
    assert show(T0, 9) == (T0, 10), "an earlier ledger of the same run, that came late"
    assert show(T0 + 1, 3) == (T0 + 1, 3), "a new run begins anew"
    assert show(T0, 50) == (T0 + 1, 3), "one of a run before"
    assert show(T0 + 1, 4) == (T0 + 1, 4)
    assert show(T0 + 1, 4, ignored=2) == (T0 + 1, 4), "what is ignored is not in `in`, and is shown nevertheless"
    assert db.hget(KEYS.ledger("fraud-detector"), "ignored") == b"2"
    assert show(T0 + 2, 1) == (T0 + 2, 1)
    assert db.hget(KEYS.ledger("fraud-detector"), "ignored") is None, "of a run before, with a mapping"


@pytest.mark.parametrize("amount", [0, 1, 999_999_999, 10**9, 123_456_789_012_345_678, HUGE])
def test_sums_are_exact_up_to_the_largest_amount(valkey: Stack, db: redis.Redis, amount: int) -> None:
    write(valkey.redis_url, [order("o-1", T0, amount), order("o-2", T0, 1)])
    assert db.hget("sf:user:u-1", "spend_minor") == b"TRY %d %d" % (2 * (min(amount + 1, HUGE),))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    user=st.text(min_size=1, max_size=20),
    kind=st.text(max_size=20),
    at=st.integers(1, (1 << 53) - 1) | st.integers(1, 4_102_444_800_000),
    amount=st.integers(0, HUGE) | st.integers(0, 1_000),
    currency=CURRENCIES,
)
@example(
    user='"/\x00\x1f\x7f\\\u2028', kind="\b\f\n\r\t", at=951_782_400_000 - 1, amount=7, currency="TRY"
)  # the end of 28 February 2000
@example(user="u", kind="k", at=951_868_799_999, amount=10, currency="JPY")  # and of the 29th
@example(
    user="u", kind="k", at=253_402_300_800_000, amount=HUGE, currency="CLF"
)  # beyond the last year that can be written
def test_the_json_that_the_scripts_make_is_the_contracts_byte_for_byte(
    valkey: Stack, db: redis.Redis, user: str, kind: str, at: int, amount: int, currency: str
) -> None:
    db.flushall()
    orders = [order("o-1", at, amount, user, currency), order("o-2", at, 5, user, "KWD")]
    for rows in (orders, [alert(user_id=user, alert_type=kind)], [session(user)]):
        write(valkey.redis_url, rows)
        made = db.get(KEYS.user_features(user))
        assert made == features.user_features_json(user, db.hgetall(KEYS.user(user)))
    known = json.loads(made)
    assert (known["user_id"], known["last_alert_type"], known["orders_1h"]) == (user, kind, 2)


@pytest.mark.parametrize(
    ("family", "rows_at"),
    [
        ("orders", lambda at: [order("o-1", at)]),
        ("fraud_alerts", lambda at: [alert(event_time=at)]),
        ("sessions", lambda at: [session("u-1", at, session_end=at)]),
        ("revenue", lambda at: [minute(at)]),
    ],
)
def test_an_event_from_the_future_is_as_fresh_as_now_and_not_for_good(
    valkey: Stack, db: redis.Redis, family: str, rows_at: Callable[[int], list[Any]]
) -> None:
    before_ms = time.time_ns() // 1_000_000
    write(valkey.redis_url, rows_at(2_051_222_400_000))
    now_ms = int(db.hget("sf:freshness", family))
    assert before_ms <= now_ms <= time.time_ns() // 1_000_000
    write(valkey.redis_url, rows_at(T0))
    assert int(db.hget("sf:freshness", family)) == now_ms


def test_a_freshness_that_an_older_release_has_poisoned_is_healed_by_the_next_write(
    valkey: Stack, db: redis.Redis
) -> None:
    db.hset("sf:freshness", "orders", 2_051_222_400_000)
    write(valkey.redis_url, [order("o-1", T0)])
    assert db.hget("sf:freshness", "orders") == str(T0).encode()


def test_features_that_an_older_release_has_poisoned_are_healed_by_the_users_next_order(
    valkey: Stack, db: redis.Redis
) -> None:
    write(valkey.redis_url, [order("o-2035", 2_051_222_400_000)])
    write(valkey.redis_url, [order("o-1", T0), order("o-2", T0 + 1)])
    found = json.loads(db.get(KEYS.user_features("u-1")))
    assert (found["orders_24h"], found["last_order_at"]) == (2, features.rfc3339(T0 + 1))
    assert found["last_seen"] == features.rfc3339(T0 + 1)


def test_a_user_whose_only_session_is_retracted_has_no_features(valkey: Stack, db: redis.Redis) -> None:
    write(valkey.redis_url, [session("u-1", T0, deleted=True)])
    assert not db.exists(KEYS.user_features("u-1"), KEYS.user("u-1"))
    write(valkey.redis_url, [session("u-1", T0 + HOUR)])
    assert db.exists(KEYS.user_features("u-1"), KEYS.user("u-1")) == 2


def test_all_keys_of_a_user_expire_together_whoever_wrote_last(valkey: Stack, db: redis.Redis) -> None:
    write(valkey.redis_url, [alert()])
    write(valkey.redis_url, [session("u-1", T0)])
    keys = [prefix + "u-1" for prefix in KEYS.of_user(KEYS.shared)]
    for key in keys:
        db.expire(key, 10)
    write(valkey.redis_url, [order("o-1", T0)])
    assert min(db.ttl(key) for key in keys) > 1_000


def test_a_store_that_is_away_for_a_while_gets_everything_in_the_end(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with Stack(tmp_path, ["valkey"], ports="free") as stack:
        stack.stop()
        writer = threading.Thread(target=write, args=(stack.redis_url, [order("o-1", T0)]))
        writer.start()
        eventually(lambda: "cannot write to" in caplog.text, "a first try that fails")
        stack.start()
        writer.join(60)
        with redis.Redis.from_url(stack.redis_url) as db:
            assert db.hget("sf:user:u-1", "orders_1h") == b"1"
