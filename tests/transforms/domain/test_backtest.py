"""What rules find in the past and what is counted of it: by hand, by the oracle, and however users are divided."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st

from schemas.currencies import number_of
from schemas.events import FraudAlert, OrderEvent, OrderStatus
from tests.build import HIGH, LOW, MINUTE, T0, alert, order
from tests.oracle import expected_alerts
from transforms.domain.backtest import NEW, OLD, SAMPLES, Fraud, Tally, alerts_of, reach_ms, tally
from transforms.domain.backtest_report import About, Input, report_of
from transforms.domain.fraud import Order, UserOrders, order_flags
from transforms.domain.fraud_rules import default_rules

RULES = default_rules()
A, B = "A_RULE", "B_RULE"


def row(o: OrderEvent) -> Order:
    flags = order_flags(get_args(OrderStatus).index(o.order_status), int(o.is_first_order), number_of(o.currency))
    return o.event_time, o.order_id, flags, o.total_amount_minor, o.shipping_region


def by_user(orders: list[OrderEvent]) -> dict[str, UserOrders]:
    found: dict[str, UserOrders] = {}
    for o in orders:
        found.setdefault(o.user_id, []).append(row(o))
    return found


def traffic(seed: int, count: int = 120) -> list[OrderEvent]:
    rng = random.Random(seed)
    return [
        order(
            f"o-{i}",
            user=f"u-{rng.randrange(6)}",
            at=T0 + rng.randrange(40 * MINUTE),
            amount=rng.choice((LOW, HIGH, HIGH - 1)),
            status=rng.choice(("CREATED", "CREATED", "CREATED", "CANCELLED", "SHIPPED")),
            region=rng.choice(("Istanbul", "Istanbul", "Istanbul", "Izmir")),
            currency=rng.choice(("TRY", "TRY", "EUR")),
            is_first_order=rng.random() < 0.1,
        )
        for i in range(count)
    ]


@given(st.integers(0, 1 << 30), st.integers(0, 30))
def test_alerts_of_the_past_are_those_of_the_oracle_in_any_order_and_with_repeats(seed: int, repeats: int) -> None:
    orders = traffic(seed)
    rng = random.Random(seed)
    again = [*orders, *rng.choices(orders, k=repeats)]
    rng.shuffle(again)
    found = list(alerts_of(by_user(again), RULES, 1_000, 0))
    assert len({a.alert_id for a in found}) == len(found)
    assert {(a.alert_type, a.user_id, a.order_id) for a in found} == expected_alerts(orders)


def test_alerts_from_a_time_on_look_back_as_far_as_the_rules_do() -> None:
    orders = traffic(5)
    start = T0 + 20 * MINUTE
    every = {a.alert_id for a in alerts_of(by_user(orders), RULES, 1_000, 0) if a.event_time >= start}
    seen = [o for o in orders if o.event_time >= start - reach_ms(RULES)]
    assert {a.alert_id for a in alerts_of(by_user(seen), RULES, 1_000, start)} == every != set()
    assert reach_ms(RULES) == 30 * MINUTE


def test_a_user_beyond_the_bound_loses_the_oldest_orders() -> None:
    orders = [order(f"o-{i}", at=T0 + i) for i in range(3)]
    assert [a.order_id for a in alerts_of(by_user(orders), RULES, 3, 0)] == ["o-2"]
    assert list(alerts_of(by_user(orders), RULES, 2, 0)) == []


def made(rule: str, order_id: str, user: str, **changes: Any) -> FraudAlert:
    fields = {"alert_id": f"{rule}-{order_id}", "alert_type": rule, "user_id": user, "order_id": order_id}
    return alert(**fields, **changes)


NEW_ALERTS = [
    made(A, "o-1", "u-1", amount_minor=100),
    made(B, "o-1", "u-1", amount_minor=100),
    made(A, "o-2", "u-1", amount_minor=200, currency="EUR", event_time=T0 + 1),
    made(A, "o-3", "u-2", amount_minor=300),
]
OLD_ALERTS = [
    made(A, "o-1", "u-1", amount_minor=100),
    made(B, "o-3", "u-2", amount_minor=300),
    made(B, "o-4", "u-2", amount_minor=400),
]
FRAUDS = {"o-1": Fraud("o-1", T0, 99, "TRY"), "o-4": Fraud("o-4", T0, 399, "EUR"), "o-5": Fraud("o-5", T0, 5, "TRY")}


def day_of(time_ms: int) -> str:
    return f"day-{time_ms - T0}"


def test_everything_is_counted_as_by_hand() -> None:
    counts = Counter(tally(NEW_ALERTS, OLD_ALERTS, FRAUDS, day_of).counts)
    counts["shop", "orders"] = 500
    counts["labels", "known"] = 3
    counts["labels", "amount", "TRY"], counts["labels", "amount", "EUR"] = 104, 399
    read = Input(1, 500, 500, 0, 0, 0, [], {})
    result = tally(NEW_ALERTS, OLD_ALERTS, FRAUDS, day_of)
    report = report_of(
        Tally(counts, result.samples), read, ("n", "o"), ([A, B], [B, A]), 7, About("x", None, None, "UTC")
    )

    new, old = report.rules, report.against
    assert old
    assert (new.alerts, new.orders, new.users) == (4, 3, 2)
    assert new.amounts_minor == {"EUR": 200, "TRY": 400}
    assert [(r.name, r.alerts, r.orders, r.users, r.alone) for r in new.rules] == [(A, 3, 3, 2, 2), (B, 1, 1, 1, 0)]
    assert [(r.name, r.alerts, r.orders, r.users, r.alone) for r in old.rules] == [(B, 2, 2, 1, 2), (A, 1, 1, 1, 1)]
    assert [(o.rules, o.orders) for o in new.overlaps] == [((A, B), 1)]
    assert old.overlaps == []
    assert [r.changes for r in new.rules] == [{"added": 2, "kept": 1}, {"added": 1, "removed": 2}]
    assert report.alert_changes == {"added": 3, "removed": 2, "kept": 1}

    hits = new.hits
    assert hits
    assert (hits.frauds, hits.false_alarms, hits.precision, hits.recall) == (1, 2, 0.3333, 0.3333)
    assert (hits.false_alarms_per_1000_orders, hits.caught_minor) == (4.0, {"TRY": 99})
    assert old.hits
    assert (old.hits.frauds, old.hits.recall, old.hits.caught_minor) == (2, 0.6667, {"EUR": 399, "TRY": 99})
    assert report.labels
    assert (report.labels.given, report.labels.known, report.labels.amounts_minor) == (7, 3, {"EUR": 399, "TRY": 104})

    assert report.changes
    changed = {c.change: (c.orders, c.amounts_minor, c.hits.frauds) for c in report.changes if c.hits}
    assert changed == {"added": (1, {"EUR": 200}, 0), "removed": (1, {"TRY": 400}, 1), "kept": (2, {"TRY": 400}, 1)}
    days = {day.day: (day.orders, day.frauds, day.alerts, day.changes) for day in report.days}
    assert days == {
        "day-0": (2, 1, {A: 2, B: 1}, {"removed": 1, "kept": 2}),
        "day-1": (1, 0, {A: 1}, {"added": 1}),
    }
    assert {kind: [s.order_id for s in of] for kind, of in report.samples.items()} == {
        "added": ["o-2"],
        "removed": ["o-4"],
        "missed": ["o-4", "o-5"],
    }
    assert report.samples["removed"][0].fraud is True


def test_nothing_found_divides_by_nothing() -> None:
    result = tally([], None, {}, day_of)
    read = Input(1, 0, 0, 0, 0, 0, [], {})
    report = report_of(result, read, ["n"], [[A]], 3, About("x", None, None, "UTC"))
    assert report.rules.hits
    assert (report.rules.hits.precision, report.rules.hits.recall) == (None, None)
    assert (report.against, report.changes, report.alert_changes, report.days) == (None, None, None, [])


@given(st.integers(0, 1 << 30), st.integers(1, 5))
def test_sums_do_not_depend_on_how_users_are_divided(seed: int, parts: int) -> None:
    orders = traffic(seed)
    rng = random.Random(seed)
    frauds = {o.order_id: Fraud(o.order_id, o.event_time, 1, "TRY") for o in rng.sample(orders, 30)}
    part = {f"u-{i}": rng.randrange(parts) for i in range(6)}

    def judged(of: list[OrderEvent]) -> Tally:
        ids = {o.order_id for o in of}
        new = list(alerts_of(by_user(of), RULES, 1_000, 0))
        old = [a for a in new if a.alert_id < "8"]
        return tally(new, old, {id_: fraud for id_, fraud in frauds.items() if id_ in ids}, day_of)

    total = Tally()
    for number in rng.sample(range(parts), parts):
        total.add(judged([o for o in orders if part[o.user_id] == number]))
    whole = judged(orders)
    assert +total.counts == +whole.counts
    assert total.samples == whole.samples
    assert total.counts[NEW, "alerts"] >= total.counts[OLD, "alerts"]
    assert all(len(samples) <= SAMPLES for samples in total.samples.values())
