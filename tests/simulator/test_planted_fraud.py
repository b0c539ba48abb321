"""The truth about planted fraud against an evaluation of the fraud semantics, written here from their text.

The evaluation looks at every pair and triple of a user's orders; it shares nothing with the simulator or the pipeline.
"""

from collections import defaultdict
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import OrderEvent
from simulator.arrival import arrivals
from simulator.config import ORDERS, TOPICS, Config, Event
from simulator.fraud import PATTERNS
from simulator.shop import events
from simulator.wire import JsonLines

MINUTE = 60_000


def alerts_of(orders: Iterable[OrderEvent]) -> set[tuple[str, str, str]]:
    """(rule, user, completing order) of every alert."""
    by_user = defaultdict(dict)
    for order in orders:
        by_user[order.user_id][order.order_id, order.order_status] = order
    found = set()
    for user, of_user in by_user.items():
        created = sorted(
            (o for o in of_user.values() if o.order_status == "CREATED"), key=lambda o: (o.event_time, o.order_id)
        )
        cancelled = sorted(
            (o for o in of_user.values() if o.order_status == "CANCELLED"), key=lambda o: (o.event_time, o.order_id)
        )
        high = [o for o in created if o.total_amount_minor > 500_000]
        found |= {("HIGH_VALUE_BURST", user, o.order_id) for o in completing_three(high, 5 * MINUTE)}
        found |= {("RAPID_ORDERS", user, o.order_id) for o in completing_three(created, 5 * MINUTE)}
        found |= {("SUSPICIOUS_PATTERN", user, o.order_id) for o in completing_three(cancelled, 30 * MINUTE)}
        found |= {("HIGH_VALUE_FIRST_ORDER", user, o.order_id) for o in high if o.is_first_order}
        for i, order in enumerate(created):
            before = [e for e in created[:i] if order.event_time - e.event_time <= 10 * MINUTE]
            if any(e.shipping_region != order.shipping_region for e in before):
                found.add(("LOCATION_ANOMALY", user, order.order_id))
    return found


def completing_three(orders: list[OrderEvent], span_ms: int) -> list[OrderEvent]:
    return [
        third
        for first, third in zip(orders, orders[2:], strict=False)
        if third.event_time - first.event_time <= span_ms
    ]


def planted(sent: Iterable[Event]) -> tuple[list[OrderEvent], list[dict]]:
    """Orders of planted users, and the truth about them."""
    orders, truth = [], []
    for event in sent:
        truth += [fact for fact in event.truth if fact["kind"] in ("fraud", "near_miss")]
        if event.topic == ORDERS and event.key.startswith("fraud-") and event.record is not None:
            orders.append(event.record)
    return orders, truth


def as_set(truth: list[dict]) -> set[tuple[str, str, str]]:
    return {(fact["rule"], fact["user_id"], fact["order_id"]) for fact in truth if fact["kind"] == "fraud"}


def test_every_pattern_is_planted_and_gives_exactly_the_alerts_it_says() -> None:
    # Long enough that every pattern is complete.
    orders, truth = planted(events(Config(events=40_000, rate=5, fraud_share=0.3, topics=(ORDERS,))))

    assert as_set(truth) == alerts_of(orders)
    assert len(as_set(truth)) == sum(fact["kind"] == "fraud" for fact in truth)
    assert {fact["pattern"] for fact in truth} == {pattern.name for pattern in PATTERNS}
    assert {rule for rule, _, _ in as_set(truth)} == {pattern.rule for pattern in PATTERNS}


def test_near_misses_give_no_alert_and_are_of_every_rule() -> None:
    orders, truth = planted(events(Config(events=40_000, rate=5, fraud_share=0.3, topics=(ORDERS,))))

    missed = {fact["user_id"] for fact in truth if fact["kind"] == "near_miss"}
    assert not missed & {user for _, user, _ in alerts_of(orders)}
    assert {fact["rule"] for fact in truth if fact["kind"] == "near_miss"} == {pattern.rule for pattern in PATTERNS}


@settings(deadline=None, max_examples=25)
@given(st.integers(), st.integers(1, 4_000), st.floats(0.5, 50), st.integers(0, 10_000))
def test_the_truth_holds_wherever_the_stream_is_cut(seed: int, count: int, rate: float, out_of_orderness: int) -> None:
    config = Config(
        seed=seed,
        events=count,
        rate=rate,
        fraud_share=0.5,
        bad_share=0.1,
        late_share=0.05,
        duplicate_share=0.1,
        out_of_orderness_ms=out_of_orderness,
    )

    orders, truth = planted(arrivals(config, JsonLines()))

    assert as_set(truth) == alerts_of(orders)


@pytest.mark.parametrize("seed", range(8))
def test_a_minute_of_live_traffic_shows_every_rule(seed: int) -> None:
    _, truth = planted(events(Config(seed=seed, duration_ms=MINUTE, topics=TOPICS)))

    assert len({rule for rule, _, _ in as_set(truth)}) == 5


def test_users_beside_the_planted_ones_hardly_alert() -> None:
    orders = [e.record for e in events(Config(events=150_000, rate=100, fraud_share=0)) if e.topic == ORDERS]

    assert {rule for rule, _, _ in alerts_of(orders)} <= {"HIGH_VALUE_FIRST_ORDER"}
