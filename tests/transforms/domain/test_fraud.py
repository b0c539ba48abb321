from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.currencies import number_of
from schemas.events import FraudAlert, OrderEvent
from tests.build import HIGH, LOW, MINUTE, SECOND, T0, order
from tests.oracle import expected_alerts
from transforms.domain.fraud import Detector, Order, UserOrders, alert_id, order_flags, prune, renewed
from transforms.domain.fraud_rules import STATUSES, default_rules, parse_rules

RULES = default_rules()
LATENESS_MS = 10 * MINUTE


def as_order(event: OrderEvent) -> Order:
    flags = order_flags(STATUSES.index(event.order_status), event.is_first_order, number_of(event.currency))
    return (event.event_time, event.order_id, flags, event.total_amount_minor, event.shipping_region)


class Run:
    """Orders arriving one after another, in the state of their users."""

    def __init__(self, detector: Detector | None = None):
        self.detector = detector or Detector(RULES)
        self.users: dict[str, UserOrders] = {}
        self.alerts: list[FraudAlert] = []
        self.repeats = 0

    def arrive(self, events: Iterable[OrderEvent]) -> Run:
        for event in events:
            orders, new = self.users.setdefault(event.user_id, []), as_order(event)
            if self.detector.add(orders, new):
                self.alerts += self.detector.completed(event.user_id, orders, new, 0)
            else:
                self.repeats += 1
        return self

    @property
    def found(self) -> list[tuple[str, str, str]]:
        return sorted((a.alert_type, a.user_id, a.order_id) for a in self.alerts)


def found(*events: OrderEvent) -> list[tuple[str, str]]:
    """Rule and completing order, for one user's orders in the order of arrival."""
    return [(rule, order_id) for rule, _, order_id in Run().arrive(events).found]


# Times that lie on both sides of every rule's span, seen from each other.
times = st.builds(
    lambda minutes, offset: T0 + minutes * MINUTE + offset,
    st.sampled_from([0, 1, 2, 4, 5, 6, 9, 10, 11, 15, 20, 29, 30, 31]),
    st.sampled_from([0, 0, 0, 1, -1, 30 * SECOND]),
)
events = st.builds(
    order,
    st.integers(1, 20).map("o-{}".format),
    at=times,
    status=st.sampled_from(["CREATED", "CREATED", "CREATED", "CANCELLED", "CANCELLED", "CONFIRMED"]),
    amount=st.sampled_from([LOW, HIGH, HIGH, HIGH - 1]),
    currency=st.sampled_from(["TRY", "TRY", "TRY", "EUR"]),
    region=st.sampled_from(["Istanbul", "Istanbul", "Izmir"]),
    user=st.sampled_from(["u-1", "u-1", "u-2"]),
    is_first_order=st.booleans(),
)
histories = st.lists(events, max_size=14, unique_by=lambda o: (o.order_id, o.order_status))


# What holds for any orders


@given(histories.flatmap(st.permutations))
def test_in_whatever_order_they_arrive_the_alerts_are_the_oracles_each_exactly_once(arrivals: list[OrderEvent]) -> None:
    assert Run().arrive(arrivals).found == sorted(expected_alerts(arrivals))


@given(histories, st.data())
def test_repeats_change_nothing_whenever_they_come(arrivals: list[OrderEvent], data: st.DataObject) -> None:
    repeated = list(arrivals)
    for again in data.draw(st.lists(st.sampled_from(arrivals), max_size=8)) if arrivals else []:
        first = repeated.index(again)
        repeated.insert(data.draw(st.integers(first + 1, len(repeated))), again)
    once, twice = Run().arrive(arrivals), Run().arrive(repeated)
    assert twice.found == once.found
    assert twice.users == once.users
    assert twice.repeats == len(repeated) - len(arrivals)


@given(histories, st.data())
def test_more_orders_never_take_an_alert_back(arrivals: list[OrderEvent], data: st.DataObject) -> None:
    fewer = [o for o in arrivals if data.draw(st.booleans())]
    assert set(Run().arrive(fewer).found) <= set(Run().arrive(arrivals).found)


@given(histories)
def test_an_alert_is_out_as_soon_as_its_pattern_is_complete_in_what_has_arrived(arrivals: list[OrderEvent]) -> None:
    run = Run()
    for i, arrival in enumerate(arrivals):
        run.arrive([arrival])
        assert run.found == sorted(expected_alerts(arrivals[: i + 1]))


@given(histories)
def test_an_alert_tells_of_its_completing_order_and_names_the_pattern_up_to_it(arrivals: list[OrderEvent]) -> None:
    known = {(o.order_id, o.user_id, o.order_status): o for o in arrivals}
    for alert in Run().arrive(arrivals).alerts:
        status = "CANCELLED" if alert.alert_type == "SUSPICIOUS_PATTERN" else "CREATED"
        completing = known[alert.order_id, alert.user_id, status]
        assert (alert.event_time, alert.amount_minor) == (completing.event_time, completing.total_amount_minor)
        related = [known[name, alert.user_id, status] for name in alert.related_events]
        assert related[-1] == completing
        assert related == sorted(related, key=lambda o: (o.event_time, o.order_id))
        assert (alert.alert_type, alert.user_id, alert.order_id) in expected_alerts(related)


@given(histories)
def test_a_users_orders_stay_sorted(arrivals: list[OrderEvent]) -> None:
    for orders in Run().arrive(arrivals).users.values():
        assert orders == sorted(orders)


def in_time(arrivals: Sequence[OrderEvent]) -> Iterator[tuple[OrderEvent, int]]:
    """The orders that are not late, each with the watermark that it came after."""
    watermark = arrivals[0].event_time if arrivals else 0
    for arrival in arrivals:
        if arrival.event_time >= watermark - LATENESS_MS:
            yield arrival, watermark
        watermark = max(watermark, arrival.event_time)


@given(histories, st.data())
def test_what_the_keep_rule_forgets_never_changes_a_later_alert(
    arrivals: list[OrderEvent], data: st.DataObject
) -> None:
    keep = [(RULES.span_ms(status) or 0) + LATENESS_MS for status in range(len(STATUSES))]
    run, kept = Run(), []
    for arrival, watermark in in_time(arrivals):
        if data.draw(st.booleans()):
            for orders in run.users.values():
                prune(orders, [watermark - ms for ms in keep])
        run.arrive([arrival])
        kept.append(arrival)
    assert run.found == sorted(expected_alerts(kept))


@given(st.lists(events, min_size=6, max_size=30, unique_by=lambda o: o.order_id), st.integers(1, 5))
def test_a_user_never_has_more_orders_than_the_bound_and_loses_the_oldest(
    arrivals: list[OrderEvent], bound: int
) -> None:
    run = Run(Detector(RULES, max_orders_per_user=bound)).arrive(arrivals)
    for user, orders in run.users.items():
        mine = sorted(as_order(o) for o in arrivals if o.user_id == user)
        assert orders == mine[-bound:]
    assert set(run.found) <= expected_alerts(arrivals)


# Exact boundaries


def spread(count: int, gap_ms: int, **fields: object) -> list[OrderEvent]:
    """Orders o-1, o-2, … whose first and last lie `gap_ms` apart."""
    times = [T0, *(T0 + gap_ms // 2 for _ in range(count - 2)), T0 + gap_ms]
    return [order(f"o-{i + 1}", at=at, **fields) for i, at in enumerate(times)]  # type: ignore[arg-type]


def test_three_orders_exactly_five_minutes_apart_are_rapid() -> None:
    assert found(*spread(3, 5 * MINUTE)) == [("RAPID_ORDERS", "o-3")]


def test_three_orders_a_millisecond_more_than_five_minutes_apart_are_not() -> None:
    assert found(*spread(3, 5 * MINUTE + 1)) == []


def test_two_orders_are_not_rapid() -> None:
    assert found(*spread(2, 0)) == []


def test_the_fourth_order_completes_a_pattern_of_its_own() -> None:
    assert found(*spread(4, MINUTE)) == [("RAPID_ORDERS", "o-3"), ("RAPID_ORDERS", "o-4")]


def test_an_amount_of_exactly_5000_is_not_above_it() -> None:
    assert found(*spread(3, MINUTE, amount=500_000)) == [("RAPID_ORDERS", "o-3")]
    assert found(order(amount=500_000, is_first_order=True)) == []


def test_an_amount_of_5000_01_is_above_it() -> None:
    assert found(*spread(3, MINUTE, amount=500_001)) == [("HIGH_VALUE_BURST", "o-3"), ("RAPID_ORDERS", "o-3")]
    assert found(order(amount=500_001, is_first_order=True)) == [("HIGH_VALUE_FIRST_ORDER", "o-1")]


def test_three_high_orders_exactly_five_minutes_apart_are_a_burst_and_a_millisecond_more_is_none() -> None:
    assert ("HIGH_VALUE_BURST", "o-3") in found(*spread(3, 5 * MINUTE, amount=HIGH))
    assert found(*spread(3, 5 * MINUTE + 1, amount=HIGH)) == []


def test_a_low_order_between_high_ones_is_not_part_of_the_burst() -> None:
    one, two, three, four = spread(4, MINUTE, amount=HIGH)
    low = order("o-2", at=two.event_time, amount=LOW)
    assert [a for a in found(one, low, three, four) if a[0] == "HIGH_VALUE_BURST"] == [("HIGH_VALUE_BURST", "o-4")]


def test_amounts_in_another_currency_are_not_compared() -> None:
    assert found(*spread(3, MINUTE, amount=HIGH, currency="EUR")) == [("RAPID_ORDERS", "o-3")]
    assert found(order(amount=HIGH, currency="EUR", is_first_order=True)) == []


def test_each_currency_has_its_own_amount_in_its_own_minor_units() -> None:
    text = """
    version: 1
    currency: TRY
    rules:
      TWO: {kind: burst, orders: 2, within: 5m, above: {TRY: 5000.00, JPY: 20000, KWD: 10.500}, risk_score: 0.5}
      FIRST: {kind: first_order, above: {JPY: 20000}, risk_score: 0.1}
    """
    amounts = {"TRY": 500_000, "JPY": 20_000, "KWD": 10_500, "EUR": 1 << 60}
    exactly = [order(f"e-{c}", at=T0, amount=n, currency=c, is_first_order=True) for c, n in amounts.items()]
    above = [order(f"o-{c}", at=T0, amount=n + 1, currency=c, is_first_order=True) for c, n in amounts.items()]
    assert Run(Detector(parse_rules(text))).arrive(exactly).alerts == []
    alerts = Run(Detector(parse_rules(text))).arrive(sorted(above, key=lambda o: o.order_id)).alerts
    assert {(a.alert_type, a.order_id, a.currency, a.description) for a in alerts} == {
        ("FIRST", "o-JPY", "JPY", "first order of 20001 JPY, above 20000 JPY"),
        ("TWO", "o-KWD", "KWD", "2 CREATED orders above 20000 JPY or 10.500 KWD within 5 min"),
        ("TWO", "o-TRY", "TRY", "2 CREATED orders above 10.500 KWD or 5000.00 TRY within 5 min"),
    }


def test_an_order_of_a_checkpoint_without_currencies_is_compared_if_it_was() -> None:
    comparable, other, new = 0 | 8 | 16, 4, order_flags(0, True, number_of("EUR"))
    lira = (T0, "o-1", order_flags(0, True, number_of("TRY")), HIGH, "Izmir")
    assert renewed((T0, "o-1", comparable, HIGH, "Izmir"), "TRY") == lira
    assert renewed((T0, "o-1", other, HIGH, "Izmir"), "TRY")[2] == order_flags(4, False, number_of("XXX"))
    assert renewed((T0, "o-1", new, HIGH, "Izmir"), "TRY")[2] == new


def test_another_region_exactly_ten_minutes_later_is_an_anomaly_and_a_millisecond_more_is_none() -> None:
    first = order("o-1", at=T0, region="Istanbul")
    assert found(first, order("o-2", at=T0 + 10 * MINUTE, region="Izmir")) == [("LOCATION_ANOMALY", "o-2")]
    assert found(first, order("o-2", at=T0 + 10 * MINUTE + 1, region="Izmir")) == []


def test_the_same_region_is_no_anomaly_and_coming_back_is_one_more() -> None:
    there = order("o-1", at=T0, region="Istanbul")
    away = order("o-2", at=T0 + 6 * MINUTE, region="Izmir")
    back = order("o-3", at=T0 + 12 * MINUTE, region="Istanbul")
    assert found(there, away, back) == [("LOCATION_ANOMALY", "o-2"), ("LOCATION_ANOMALY", "o-3")]
    assert found(there, back) == []


def test_three_cancelled_orders_exactly_thirty_minutes_apart_are_suspicious_and_a_millisecond_more_is_none() -> None:
    assert found(*spread(3, 30 * MINUTE, status="CANCELLED")) == [("SUSPICIOUS_PATTERN", "o-3")]
    assert found(*spread(3, 30 * MINUTE + 1, status="CANCELLED")) == []


@pytest.mark.parametrize("status", ["CONFIRMED", "SHIPPED", "DELIVERED", "REFUNDED"])
def test_other_statuses_take_part_in_no_rule(status: str) -> None:
    assert found(*spread(5, MINUTE, status=status, amount=HIGH, is_first_order=True)) == []


def test_cancelled_orders_are_neither_rapid_nor_high_nor_first_nor_elsewhere() -> None:
    cancelled = spread(2, MINUTE, status="CANCELLED", amount=HIGH, is_first_order=True)
    assert found(*cancelled, order("o-9", at=T0 + MINUTE, region="Izmir", amount=HIGH)) == []


def test_an_order_and_its_cancellation_are_two_orders_with_one_id() -> None:
    created = spread(3, MINUTE)
    cancelled = [order(o.order_id, at=o.event_time, status="CANCELLED") for o in created]
    assert found(*created, *cancelled) == [("RAPID_ORDERS", "o-3"), ("SUSPICIOUS_PATTERN", "o-3")]


def test_orders_at_the_same_time_are_sorted_by_their_id() -> None:
    same = [order(f"o-{name}", at=T0) for name in "bca"]
    assert found(*same) == [("RAPID_ORDERS", "o-c")]
    regions = [order("o-2", at=T0, region="Istanbul"), order("o-1", at=T0, region="Izmir")]
    assert found(*regions) == [("LOCATION_ANOMALY", "o-2")]


def test_an_order_that_arrives_last_but_lies_first_completes_the_patterns_after_it() -> None:
    first, *rest = spread(5, 5 * MINUTE)
    assert found(*rest, first) == [(r, o) for r, o in found(first, *rest)]
    assert found(rest[0], rest[3], first) == [("RAPID_ORDERS", "o-5")]


def test_users_have_nothing_to_do_with_each_other() -> None:
    mixed = [order(f"o-{i}", at=T0 + i, user=f"u-{i % 2}", region=("Istanbul", "Izmir")[i % 2]) for i in range(4)]
    assert Run().arrive(mixed).found == []


def test_the_score_and_the_text_are_the_rules() -> None:
    burst = next(a for a in Run().arrive(spread(3, MINUTE, amount=HIGH)).alerts if a.alert_type == "HIGH_VALUE_BURST")
    assert burst.risk_score == 0.95
    assert burst.description == "3 CREATED orders above 5000.00 TRY within 5 min"
    assert burst.related_events == ["o-1", "o-2", "o-3"]
    (first,) = Run().arrive([order(amount=650_000, is_first_order=True)]).alerts
    assert (first.risk_score, first.description) == (0.75, "first order of 6500.00 TRY, above 5000.00 TRY")
    (anomaly,) = Run().arrive([order("o-1"), order("o-2", region="Izmir")]).alerts
    assert (anomaly.risk_score, anomaly.description) == (0.70, "order from Izmir within 10 min of one from Istanbul")
    (cancelled,) = Run().arrive(spread(3, MINUTE, status="CANCELLED")).alerts
    assert (cancelled.risk_score, cancelled.description) == (0.60, "3 CANCELLED orders within 30 min")


def test_the_id_of_an_alert_is_made_of_rule_user_and_order_alone() -> None:
    assert alert_id("R", "u", "o") == hashlib.sha256(b"R\0u\0o").hexdigest()[:32]
    assert (
        len({alert_id(*parts) for parts in [("R", "u", "o"), ("S", "u", "o"), ("R", "v", "o"), ("R", "u", "p")]}) == 4
    )
    one, two = Run().arrive(spread(3, MINUTE)).alerts[0], Run().arrive(reversed(spread(3, MINUTE))).alerts[0]
    assert one.alert_id == two.alert_id


def test_rules_of_another_file_are_followed() -> None:
    text = """
    version: 1
    currency: EUR
    rules:
      TWO: {kind: burst, orders: 2, within: 1500ms, risk_score: 0.5, status: SHIPPED}
      FIRST: {kind: first_order, above: 10.5, risk_score: 0.1}
    """
    run = Run(Detector(parse_rules(text)))
    shipped = [order(f"o-{i}", at=T0 + i * 1_500, status="SHIPPED") for i in range(2)]
    for event in [*shipped, order("o-9", amount=1_051, currency="EUR", is_first_order=True)]:
        orders, new = run.users.setdefault("u-1", []), as_order(event)
        assert run.detector.add(orders, new)
        run.alerts += run.detector.completed("u-1", orders, new, 0)
    assert run.found == [("FIRST", "u-1", "o-9"), ("TWO", "u-1", "o-1")]
    assert "within 1.5 s" in run.alerts[0].description


def test_pruning_keeps_what_lies_on_the_floor_and_floors_are_per_status() -> None:
    orders = sorted(
        as_order(order(f"o-{s}-{i}", at=T0 + i, status=s)) for s in ("CREATED", "CANCELLED") for i in (0, 1)
    )
    prune(orders, [T0 + 1] * 4 + [T0] * 2)
    assert [o[1] for o in orders] == ["o-CANCELLED-0", "o-CANCELLED-1", "o-CREATED-1"]


def test_a_repeat_is_the_same_order_in_the_same_status_even_at_another_time() -> None:
    run = Run().arrive([order("o-1", at=T0), order("o-1", at=T0 + 1), order("o-1", status="CANCELLED")])
    assert run.repeats == 1
    assert len(run.users["u-1"]) == 2
