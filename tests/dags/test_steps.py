"""The batch job's steps, fed as Spark feeds them, against the oracles. All of it is about midnight and about order."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dags.spark.day import Day
from dags.spark.steps import add_minutes, aggregate_sessions, detect_fraud, spans_ms, sum_up_minutes
from schemas.events import ClickstreamEvent, OrderEvent
from schemas.tables import TABLES
from tests.build import HIGH, HOUR, LOW, MINUTE, SECOND, click, order
from tests.oracle import expected_alerts
from tests.oracle_revenue import Revenue, expected_revenue
from tests.oracle_sessions import expected_sessions
from tests.rules_made import files, histories
from tests.rules_oracle import expected_of
from transforms.domain.fraud_orders import record_fields
from transforms.domain.fraud_rules import Rules, default_rules, parse_rules

GAP_MS, MAX_MS = 30 * MINUTE, 12 * HOUR
TODAY = Day.of("2026-11-19")
MIDNIGHT_MS = TODAY.end_ms
RULES = default_rules()
USERS = st.sampled_from(["u-1", "u-2", "Gül"])
# Instants around midnight, many of them exactly a gap or a span apart.
TIMES = st.integers(-8, 8).map(lambda n: MIDNIGHT_MS + n * 5 * MINUTE) | st.integers(
    MIDNIGHT_MS - 2 * HOUR, MIDNIGHT_MS + 2 * HOUR
)


def clicks_of(day: Day, clicks: Iterable[ClickstreamEvent]) -> Iterator[tuple[Any, ...]]:
    """As `recompute.user_sessions` reads them, of users who are there around both midnights."""
    first_ms = day.start_ms - GAP_MS - 2 * MAX_MS
    read = [c for c in clicks if first_ms <= c.event_time < day.end_ms + MAX_MS]
    for c in sorted(read, key=lambda c: (c.user_id, c.event_time, c.event_id)):
        yield (
            *(c.user_id, c.event_time, c.event_id, c.event_type, c.device_type, c.geo_region, c.category),
            *(c.price_minor, c.quantity),
        )


def sessions_of(day: Day, clicks: Iterable[ClickstreamEvent], over_ms: int = 1 << 50) -> list[tuple[Any, ...]]:
    return list(aggregate_sessions(clicks_of(day, clicks), GAP_MS, MAX_MS, day.start_ms, day.end_ms, over_ms))


@given(st.lists(st.tuples(USERS, TIMES, st.sampled_from(["PAGE_VIEW", "PURCHASE"])), max_size=30), st.data())
def test_each_session_belongs_to_one_day_that_of_its_first_click(
    drawn: list[tuple[str, int, str]], data: st.DataObject
) -> None:
    clicks = [
        click(f"c-{i}", user=user, at=at, event_type=kind, price_minor=i, quantity=2)
        for i, (user, at, kind) in enumerate(drawn)
    ]
    repeats = data.draw(st.lists(st.sampled_from(clicks), max_size=5)) if clicks else []
    found = {day: sessions_of(day, clicks + repeats) for day in (TODAY, TODAY.before(-1))}
    wanted = expected_sessions(clicks, GAP_MS)
    by_id = {row[0]: row for rows in found.values() for row in rows}
    assert len(by_id) == sum(map(len, found.values())) == len(wanted)
    for id_, session in wanted.items():
        assert by_id[id_][2:13] == session[:11]
        assert by_id[id_][14] // 4 == session.clicks
        assert by_id[id_] in found[TODAY if session.session_start < MIDNIGHT_MS else TODAY.before(-1)]


@given(st.integers(0, 60 * HOUR), st.lists(st.integers(1, GAP_MS - 1), min_size=1, max_size=9))
def test_a_crawler_that_never_pauses_is_cut_alike_whichever_day_is_computed(
    before_ms: int, pauses_ms: list[int]
) -> None:
    times, pauses = [TODAY.start_ms - before_ms], itertools.cycle([*pauses_ms, 20 * MINUTE])
    while times[-1] < TODAY.end_ms + 13 * HOUR:
        times.append(times[-1] + (next(pauses) if len(times) < 3_000 else 20 * MINUTE))
    clicks = [click(f"c-{i}", user="u-1", at=at) for i, at in enumerate(times)]
    found = sessions_of(TODAY, clicks)
    wanted = {i: s for i, s in expected_sessions(clicks).items() if TODAY.start_ms <= s.session_start < TODAY.end_ms}
    assert {row[0]: (*row[2:13], row[14] // 4) for row in found} == {i: tuple(s) for i, s in wanted.items()}
    assert wanted
    assert all(s.session_end - s.session_start < MAX_MS for s in wanted.values())


def test_a_session_that_may_go_on_says_so_and_one_that_is_over_does_not() -> None:
    last = MIDNIGHT_MS + 5 * MINUTE
    clicks = [click("c-0", at=MIDNIGHT_MS - MINUTE), click("c-1", at=last)]
    pane = [column.name for column in TABLES["user_sessions"].columns].index("pane")
    assert [row[pane] for row in sessions_of(TODAY, clicks, over_ms=last)] == ["EARLY"]
    assert [row[pane] for row in sessions_of(TODAY, clicks, over_ms=last + 1)] == ["ON_TIME"]


def orders_of(day: Day, orders: Iterable[OrderEvent]) -> Iterator[tuple[Any, ...]]:
    """As `recompute.fraud_alerts` reads them."""
    read = [o for o in orders if day.start_ms - max(spans_ms(RULES)) <= o.event_time < day.end_ms]
    for o in sorted(read, key=lambda o: (o.user_id, o.event_time, o.order_id, o.order_status)):
        yield (
            *(o.user_id, o.event_time, o.order_id, o.order_status, o.is_first_order, o.currency),
            *(o.total_amount_minor, o.shipping_region),
        )


def everything_of(orders: Iterable[OrderEvent], rules: Rules) -> Iterator[tuple[Any, ...]]:
    """As `recompute.fraud_alerts` reads them for rules that need more: to Spark, a record is a dict."""
    for o in sorted(orders, key=lambda o: (o.user_id, o.event_time, o.order_id, o.order_status)):
        record = msgspec.to_builtins(o)
        yield (
            *(o.user_id, o.event_time, o.order_id, o.order_status, o.is_first_order, o.currency),
            *(o.total_amount_minor, o.shipping_region),
            *(record[name] for name in record_fields(rules.bits)),
        )


@given(files, histories)
def test_the_batch_finds_what_rules_of_version_2_say(text: str, orders: list[OrderEvent]) -> None:
    rules = parse_rules(text)
    rows = detect_fraud(everything_of(orders, rules), rules, 0)
    assert sorted((row[3], row[1], row[2], row[7]) for row in rows) == expected_of(text, orders)


made_orders = st.builds(
    order,
    st.integers(0, 30).map("o-{}".format),
    user=USERS,
    at=TIMES,
    status=st.sampled_from(["CREATED", "CANCELLED", "SHIPPED"]),
    amount=st.sampled_from([LOW, HIGH - 1, HIGH]),
    region=st.sampled_from(["Istanbul", "Ankara"]),
    is_first_order=st.booleans(),
)


def once(orders: list[OrderEvent]) -> list[OrderEvent]:
    return list({(o.order_id, o.order_status): o for o in orders}.values())


@given(st.lists(made_orders, max_size=30).map(once))
def test_each_alert_belongs_to_the_day_of_the_order_that_completes_it_and_may_begin_before_midnight(
    orders: list[OrderEvent],
) -> None:
    found = {
        day: {
            (row[3], row[1], row[2]) for row in detect_fraud(orders_of(day, orders + orders[:3]), RULES, day.start_ms)
        }
        for day in (TODAY, TODAY.before(-1))
    }
    times = {(o.order_id, status): o.event_time for o in orders for status in (o.order_status,)}
    wanted = expected_alerts(orders)
    status = {"SUSPICIOUS_PATTERN": "CANCELLED"}
    today = {a for a in wanted if times[a[2], status.get(a[0], "CREATED")] < MIDNIGHT_MS}
    assert found == {TODAY: today, TODAY.before(-1): wanted - today}


@given(st.lists(made_orders, max_size=30).map(once), st.integers(1, 3))
def test_revenue_is_the_same_however_users_are_divided(orders: list[OrderEvent], parts: int) -> None:
    created = [o for o in orders + orders[:3] if o.order_status == "CREATED"]
    figures: list[tuple[Any, ...]] = []
    for part in range(parts):
        mine = [o for o in created if hash(o.user_id) % parts == part]
        rows = [
            (
                *(o.user_id, o.event_time, o.order_id, o.total_amount_minor, o.shipping_region, o.is_first_order),
                *(o.currency, [i.category for i in o.items], [i.total_price_minor for i in o.items]),
            )
            for o in sorted(mine, key=lambda o: (o.event_time, o.order_id, o.user_id))
        ]
        figures += sum_up_minutes(iter(rows))
    rows = list(add_minutes(iter(sorted(figures))))
    found = {(row[0], row[-1], row[2], row[3]): Revenue(*row[4:8]) for row in rows}
    assert found == expected_revenue(orders)
    assert len(rows) == len(found)


def test_a_bots_endless_session_takes_no_memory() -> None:
    def bot() -> Iterator[tuple[Any, ...]]:
        for i in range(50_000):
            at_ms = TODAY.start_ms + i * SECOND
            yield "bot", at_ms, f"c-{i:06}", "PAGE_VIEW", "desktop", "Ankara", "home", None, None

    tracemalloc.start()
    try:
        morning, afternoon = aggregate_sessions(bot(), GAP_MS, MAX_MS, TODAY.start_ms, TODAY.end_ms, 1 << 50)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (morning[5], afternoon[5]) == (12 * 3_600, 50_000 - 12 * 3_600)
    assert most < 1_000_000, "the ids of ten minutes, not those of a day"


def test_days_are_said_in_utc() -> None:
    assert TODAY.start_ms % (24 * HOUR) == 0
    assert TODAY.end_ms == TODAY.before(-1).start_ms
    assert (str(TODAY), TODAY.branch) == ("2026-11-19", "audit_20261119")
    assert TODAY.holds("at") == "at >= timestamp '2026-11-19 00:00:00Z' AND at < timestamp '2026-11-20 00:00:00Z'"
