from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
import yaml
from hypothesis import event, given
from hypothesis import strategies as st

from schemas.currencies import number_of
from schemas.events import FraudAlert, OrderEvent
from tests.build import MINUTE, T0, item, order
from tests.rules_made import RULES, files, files_of, histories
from tests.rules_oracle import expected_of
from transforms.domain.conditions import matcher
from transforms.domain.fraud import Detector
from transforms.domain.fraud_orders import STATUSES, Order, UserOrders, extra_of, order_flags, prune
from transforms.domain.fraud_patterns import KINDS
from transforms.domain.fraud_rules import Rules, parse_rules

LATENESS_MS = 10 * MINUTE


def as_order(o: OrderEvent, bits: int) -> Order:
    flags = order_flags(STATUSES.index(o.order_status), o.is_first_order, number_of(o.currency))
    core = (o.event_time, o.order_id, flags, o.total_amount_minor, o.shipping_region)
    return (*core, extra_of(bits)(o)) if bits else core


class Run:
    """Orders arriving one after another, in the state of their users; those that touch no rule are not kept."""

    def __init__(self, rules: str | Rules, max_orders_per_user: int = 1_000):
        self.rules = parse_rules(rules) if isinstance(rules, str) else rules
        self.detector = Detector(self.rules, max_orders_per_user)
        self.users: dict[str, UserOrders] = {}
        self.alerts: list[FraudAlert] = []
        self.repeats = 0
        self._touches = self.rules.exact and matcher(self.rules.exact, self.rules.bits)

    def arrive(self, events: Iterable[OrderEvent]) -> Run:
        for arrival in events:
            new = as_order(arrival, self.rules.bits)
            if self._touches and not self._touches(new):
                continue
            orders = self.users.setdefault(arrival.user_id, [])
            if self.detector.add(orders, new):
                self.alerts += self.detector.completed(arrival.user_id, orders, new, 0)
            else:
                self.repeats += 1
        return self

    @property
    def found(self) -> list[tuple[str, str, str, int]]:
        return sorted((a.alert_type, a.user_id, a.order_id, a.event_time) for a in self.alerts)


def file_of(**rule: Any) -> str:
    """A rules file with one rule, R."""
    return yaml.safe_dump({"version": 2, "currency": "TRY", "rules": {"R": {"risk_score": 0.5, **rule}}})


def found(*events: OrderEvent, **rule: Any) -> list[str]:
    """The orders that complete a pattern of the rule, of one user's in the order of arrival."""
    run = Run(file_of(**rule)).arrive(events)
    assert run.found == expected_of(file_of(**rule), events)
    return [order_id for _, _, order_id, _ in run.found]


# What holds for any rules and any orders


@given(files, histories.flatmap(st.permutations))
def test_in_whatever_order_they_arrive_the_alerts_are_the_oracles_each_exactly_once(
    text: str, arrivals: list[OrderEvent]
) -> None:
    expected = expected_of(text, arrivals)
    event(f"{min(len(expected), 3)} alerts")
    assert Run(text).arrive(arrivals).found == expected


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), arrivals=histories.flatmap(st.permutations))
def test_each_kind_finds_what_the_oracle_finds(kind: str, data: st.DataObject, arrivals: list[OrderEvent]) -> None:
    text = data.draw(files_of(RULES[kind], 1))
    assert Run(text).arrive(arrivals).found == expected_of(text, arrivals)


@given(files, histories)
def test_an_alert_is_out_as_soon_as_its_pattern_is_complete_in_what_has_arrived(
    text: str, arrivals: list[OrderEvent]
) -> None:
    run = Run(text)
    for i, arrival in enumerate(arrivals):
        run.arrive([arrival])
        assert run.found == expected_of(text, arrivals[: i + 1])


@given(files, histories, st.data())
def test_repeats_change_nothing_whenever_they_come(text: str, arrivals: list[OrderEvent], data: st.DataObject) -> None:
    repeated = list(arrivals)
    for again in data.draw(st.lists(st.sampled_from(arrivals), max_size=8)) if arrivals else []:
        repeated.insert(data.draw(st.integers(repeated.index(again) + 1, len(repeated))), again)
    once, twice = Run(text).arrive(arrivals), Run(text).arrive(repeated)
    assert twice.found == once.found
    assert twice.users == once.users


@given(files, histories, st.data())
def test_more_orders_never_take_an_alert_back(text: str, arrivals: list[OrderEvent], data: st.DataObject) -> None:
    fewer = [o for o in arrivals if data.draw(st.booleans())]
    assert Counter(Run(text).arrive(fewer).found) <= Counter(Run(text).arrive(arrivals).found)


@given(files, histories, st.data())
def test_what_the_keep_rule_forgets_never_changes_a_later_alert(
    text: str, arrivals: list[OrderEvent], data: st.DataObject
) -> None:
    run, kept = Run(text), []
    keep = [(run.rules.span_ms(status) or 0) + LATENESS_MS for status in range(len(STATUSES))]
    watermark = 0
    for arrival in arrivals:
        if arrival.event_time < watermark - LATENESS_MS:
            continue
        if data.draw(st.booleans()):
            for orders in run.users.values():
                prune(orders, [watermark - ms for ms in keep])
        run.arrive([arrival])
        kept.append(arrival)
        watermark = max(watermark, arrival.event_time)
    assert run.found == expected_of(text, kept)


@given(files, histories)
def test_the_orders_of_an_alert_are_a_pattern_by_themselves_that_the_last_completes(
    text: str, arrivals: list[OrderEvent]
) -> None:
    by_time = sorted(arrivals, key=lambda o: (o.event_time, o.order_id))
    rules = yaml.safe_load(text)["rules"]
    for alert in Run(text).arrive(by_time).alerts:
        mine = [o for o in by_time if o.user_id == alert.user_id]
        if len({o.order_id for o in mine}) < len(mine):
            continue  # an id does not say which of its statuses it stands for
        pattern = [o for o in mine if o.order_id in alert.related_events]
        assert [o.order_id for o in pattern] == alert.related_events
        key = (alert.alert_type, alert.user_id, alert.order_id, alert.event_time)
        assert pattern[-1].order_id == alert.order_id
        assert key in expected_of(text, pattern)
        if rules[alert.alert_type]["kind"] == "count":
            assert len(pattern) == rules[alert.alert_type]["at_least"]


@given(files, histories, st.integers(1, 4))
def test_a_user_never_has_more_orders_than_the_bound_and_no_alert_is_made_up(
    text: str, arrivals: list[OrderEvent], bound: int
) -> None:
    run = Run(text, max_orders_per_user=bound).arrive(arrivals)
    assert all(len(orders) <= bound and orders == sorted(orders) for orders in run.users.values())
    assert {*run.found} <= {*expected_of(text, arrivals)}


# Exact bounds


def at(*offsets_ms: int, **fields: Any) -> list[OrderEvent]:
    """Orders o-1, o-2, … so long after T0; a list is a value for each."""
    return [
        order(
            f"o-{i + 1}",
            at=T0 + ms,
            **{k: v[i] if isinstance(v, list) and k != "items" else v for k, v in fields.items()},
        )
        for i, ms in enumerate(offsets_ms)
    ]


COUNT = {"kind": "count", "at_least": 3, "within": "5m"}


def test_three_orders_exactly_the_span_apart_count_and_a_millisecond_more_does_not() -> None:
    assert found(*at(0, 1, 5 * MINUTE), **COUNT) == ["o-3"]
    assert found(*at(0, 1, 5 * MINUTE + 1), **COUNT) == []
    assert found(*at(0, 1), **COUNT) == []
    assert found(*at(0, 1, 2, 3), **COUNT) == ["o-3", "o-4"]


def test_an_order_that_arrives_last_completes_the_patterns_of_later_ones() -> None:
    one, two, three, four = at(0, MINUTE, 5 * MINUTE, 6 * MINUTE)
    assert found(two, three, four, one, **COUNT) == ["o-3", "o-4"]
    assert found(three, four, one, **COUNT) == []


def test_one_order_can_be_a_pattern() -> None:
    rule = {"kind": "count", "at_least": 1, "where": {"total_amount": {"above": 100}}}
    assert found(*at(0, 9_000_000, amount=[10_001, 10_000]), **rule) == ["o-1"]


@pytest.mark.parametrize(
    ("sign", "those"),
    [("above", ["o-3"]), ("at_least", ["o-2", "o-3"]), ("below", ["o-1"]), ("at_most", ["o-1", "o-2"])],
)
def test_amounts_are_compared_to_the_minor_unit(sign: str, those: list[str]) -> None:
    rule = {"kind": "count", "at_least": 1, "where": {"total_amount": {sign: 100}}}
    assert found(*at(0, 1, 2, amount=[9_999, 10_000, 10_001]), **rule) == those
    assert found(*at(0, 1, 2, amount=[9_999, 10_000, 10_001], currency="EUR"), **rule) == []


def test_a_sum_is_strict_inclusive_in_time_and_of_its_currency() -> None:
    rule = {"kind": "sum", "above": 100, "within": "5m"}
    assert found(*at(0, 5 * MINUTE, amount=[4_000, 6_000]), **rule) == []
    assert found(*at(0, 5 * MINUTE, amount=[4_000, 6_001]), **rule) == ["o-2"]
    assert found(*at(0, 5 * MINUTE + 1, amount=[4_000, 6_001]), **rule) == []
    assert found(*at(0, 1, amount=6_000, currency=["TRY", "EUR"]), **rule) == []
    assert found(*at(0, amount=10_001), **rule) == ["o-1"]
    late, early = at(5 * MINUTE, 0, amount=[6_001, 4_000])
    assert found(late, early, **rule) == ["o-1"]
    assert found(*at(0, 1, discount_minor=[50, 51]), **{**rule, "of": "discount", "above": 1}) == ["o-2"]


def test_values_are_distinct_within_the_span() -> None:
    rule = {"kind": "distinct", "of": "payment_method", "at_least": 2, "within": "5m"}
    assert found(*at(0, 5 * MINUTE, payment_method=["card", "wallet"]), **rule) == ["o-2"]
    assert found(*at(0, 5 * MINUTE + 1, payment_method=["card", "wallet"]), **rule) == []
    assert found(*at(0, 1, 2, payment_method="card"), **rule) == []


def test_the_values_of_items_are_those_of_all_items_of_all_orders() -> None:
    rule = {"kind": "distinct", "of": "items.category", "at_least": 3, "within": "5m"}
    two, third = [item(category="a"), item(category="b")], [item(category="c")]
    assert found(order("o-1", at=T0, items=[*two, *third]), **rule) == ["o-1"]
    assert found(order("o-1", at=T0, items=two), order("o-2", at=T0 + 5 * MINUTE, items=third), **rule) == ["o-2"]
    assert found(order("o-1", at=T0, items=two), order("o-2", at=T0 + 1, items=[]), **rule) == []


def test_another_value_exactly_the_span_later_is_a_change_and_a_millisecond_more_is_none() -> None:
    rule = {"kind": "change", "of": "shipping_region", "within": "10m"}
    assert found(*at(0, 10 * MINUTE, region=["Istanbul", "Izmir"]), **rule) == ["o-2"]
    assert found(*at(0, 10 * MINUTE + 1, region=["Istanbul", "Izmir"]), **rule) == []
    assert found(*at(0, MINUTE, 2 * MINUTE, region=["Istanbul", "Izmir", "Istanbul"]), **rule) == ["o-2", "o-3"]


def test_a_change_is_what_version_1_calls_a_location_change() -> None:
    events = at(0, MINUTE, 3 * MINUTE, 13 * MINUTE, 14 * MINUTE, region=["a", "a", "b", "a", "c"])
    older = Run(file_of(kind="location_change", within="10m")).arrive(events)
    assert older.found == Run(file_of(kind="change", of="shipping_region", within="10m")).arrive(events).found != []


def test_the_steps_of_a_sequence_are_one_after_the_other_within_the_span() -> None:
    small, big = {"total_amount": {"below": 50}}, {"total_amount": {"above": 5000}}
    rule = {"kind": "sequence", "steps": [small, small, big], "within": "1h"}
    amounts = [100, 100, 600_000]
    assert found(*at(0, 1, 60 * MINUTE, amount=amounts), **rule) == ["o-3"]
    assert found(*at(0, 1, 60 * MINUTE + 1, amount=amounts), **rule) == []
    assert found(*at(0, 60 * MINUTE, 1, amount=amounts), **rule) == []
    assert found(*at(0, 60 * MINUTE, amount=amounts[1:]), **rule) == []


def test_one_order_is_not_two_steps_and_those_at_one_instant_follow_by_their_ids() -> None:
    any_ = {"total_amount": {"at_least": 0}}
    rule = {"kind": "sequence", "steps": [any_, any_], "within": "1m"}
    assert found(*at(0), **rule) == []
    assert found(*at(0, 0), **rule) == ["o-2"]


def test_a_sequence_begins_as_late_as_it_can_and_its_alert_names_that_one() -> None:
    small, big = {"total_amount": {"below": 50}}, {"total_amount": {"above": 5000}}
    text = file_of(kind="sequence", steps=[small, big], within="1h")
    run = Run(text).arrive(at(0, 30 * MINUTE, 70 * MINUTE, amount=[100, 100, 600_000]))
    assert [a.related_events for a in run.alerts] == [["o-2", "o-3"]]


def test_a_step_may_be_another_status_of_an_order() -> None:
    rule = {"kind": "sequence", "steps": [{"order_status": "CANCELLED"}, {"order_status": "CREATED"}], "within": "1h"}
    assert found(*at(0, 1, status=["CANCELLED", "CREATED"]), **rule) == ["o-2"]
    assert found(*at(0, 1, status=["CREATED", "CANCELLED"]), **rule) == []


def test_the_first_order_is_the_one_that_says_so() -> None:
    rule = {"kind": "first", "where": {"items": {"category": "kitchen"}}}
    first, second = at(0, 1, is_first_order=[True, False])
    assert found(first, second, **rule) == ["o-1"]
    assert found(order(is_first_order=True, items=[]), **rule) == []
    assert found(order(is_first_order=True, status="SHIPPED"), **rule) == []


# What an alert says


@pytest.mark.parametrize(
    ("rule", "text", "related"),
    [
        (
            {"kind": "count", "at_least": 2, "within": "5m", "where": {"payment_method": ["a", "b", "c", "d", "e"]}},
            "2 orders within 5 min: order_status CREATED and payment_method a or b or c or 2 more",
            ["o-2", "o-3"],
        ),
        (
            {"kind": "count", "at_least": 1, "where": {"not": {"is_first_order": False}, "order_id": "o-3"}},
            "order: order_status CREATED and not (not is_first_order) and order_id o-3",
            ["o-3"],
        ),
        (
            {"kind": "sum", "above": 100, "within": "90s", "where": {"any": [{"hour": 14}, {"currency": "EUR"}]}},
            "total_amount of 120.00 TRY, above 100.00, within 90 s: "
            "currency TRY and order_status CREATED and (hour in UTC 14 or currency EUR)",
            ["o-2", "o-3"],
        ),
        (
            {"kind": "distinct", "of": "shipping_region", "at_least": 3, "within": "1h"},
            "3 values of shipping_region within 60 min: order_status CREATED",
            ["o-1", "o-2", "o-3"],
        ),
        (
            {"kind": "change", "of": "shipping_region", "within": "5m"},
            "shipping_region C within 5 min of B: order_status CREATED",
            ["o-2", "o-3"],
        ),
        (
            {"kind": "first", "where": {"items": {"quantity": {"at_least": 2}}}},
            "first order: is_first_order and order_status CREATED and an item with items.quantity at least 2",
            ["o-3"],
        ),
        (
            {
                "kind": "sequence",
                "within": "5m",
                "steps": [{"shipping_region": "A"}, {"total_amount": {"below": {"TRY": 99.5, "JPY": 70}}}],
            },
            "2 orders one after the other within 5 min: order_status CREATED and shipping_region A, then "
            "order_status CREATED and total_amount below 70 JPY or 99.50 TRY",
            ["o-1", "o-3"],
        ),
    ],
)
def test_an_alert_describes_its_pattern_and_names_its_orders(rule: Any, text: str, related: list[str]) -> None:
    events = at(0, 1_000, 2_000, region=["A", "B", "C"], amount=6_000, payment_method="a", is_first_order=[0, 0, 1])
    alert = Run(file_of(**rule)).arrive(events).alerts[-1]
    assert (alert.description, alert.related_events) == (text, related)
    assert (alert.alert_type, alert.risk_score, alert.order_id, alert.event_time) == ("R", 0.5, "o-3", T0 + 2_000)
    assert (alert.amount_minor, alert.currency) == (6_000, "TRY")


def test_a_change_of_currency_is_told_by_its_codes() -> None:
    (alert,) = Run(file_of(kind="change", of="currency", within="5m")).arrive(at(0, 1, currency=["TRY", "EUR"])).alerts
    assert alert.description == "currency EUR within 5 min of TRY: order_status CREATED"
