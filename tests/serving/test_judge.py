"""Judging an order by stored ones: the same patterns as the fraud job's, exact thresholds, and what may be missing."""

from __future__ import annotations

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from schemas.events import OrderEvent
from schemas.features import ORDERS_PER_USER, kept_region
from serving.decisions.judge import Judge, decision
from serving.decisions.ruleset import read_rules, rule_set
from tests import rules_made
from tests.build import HIGH, HOUR, LOW, MINUTE, SECOND, T0, item, order
from tests.oracle import Alert, expected_alerts
from tests.rules_oracle import expected_of
from transforms.domain.fraud_rules import Decisions

DAY = 24 * HOUR
FAR = """
version: 1
currency: TRY
rules:
  A_DAY: {kind: burst, orders: 3, within: 24h, risk_score: 0.6}
  LONGER: {kind: burst, orders: 3, within: 25h, risk_score: 0.7}
  MOVED: {kind: location_change, within: 48h, risk_score: 0.8}
  FIRST: {kind: first_order, above: 5000, risk_score: 0.9}
  CANCELLED: {kind: burst, status: CANCELLED, orders: 3, within: 48h, risk_score: 0.9}
"""


def stored(*orders: OrderEvent, without_region: bool = False) -> list[tuple[bytes, float]]:
    """What the store holds of them."""

    def member(each: OrderEvent) -> bytes:
        region = "" if without_region else f"\0{kept_region(each.shipping_region)}"
        return f"{each.total_amount_minor}|{each.currency}|{each.order_id}{region}".encode()

    return sorted(((member(o), float(o.event_time)) for o in orders), key=lambda each: (each[1], each[0]))


def found(judge: Judge, new: OrderEvent, *orders: OrderEvent) -> set[Alert]:
    return {(a.alert_type, a.user_id, a.order_id) for a in judge.judge(new, stored(*orders)).alerts}


@pytest.mark.parametrize(
    ("score", "outcome"),
    [(0, "allow"), (0.59999, "allow"), (0.6, "review"), (0.89999, "review"), (0.9, "block"), (1, "block")],
)
def test_a_score_that_is_a_threshold_has_reached_it(score: float, outcome: str) -> None:
    assert decision(score, Decisions(0.6, 0.9)) == outcome


def test_equal_thresholds_leave_nothing_to_review() -> None:
    assert [decision(s, Decisions(0.7, 0.7)) for s in (0.69, 0.7)] == ["allow", "block"]
    assert decision(0, Decisions(0, 1)) == "review", "a shop that looks at every order"


@pytest.mark.parametrize(("apart", "outcome", "score"), [(5 * MINUTE, "review", 0.85), (5 * MINUTE + 1, "allow", 0.0)])
def test_the_riskiest_pattern_is_the_score(apart: int, outcome: str, score: float) -> None:
    before = [order("o-1", at=T0), order("o-2", at=T0 + SECOND)]
    verdict = Judge(read_rules(None)).judge(order("o-3", at=T0 + apart), stored(*before))
    assert (verdict.decision, verdict.score, verdict.unsure) == (outcome, score, [])
    assert [a.related_events for a in verdict.alerts] == [["o-1", "o-2", "o-3"]] * (outcome == "review")


TIMES = st.sampled_from([0, 1, *(m * MINUTE + d for m in (1, 4, 5, 10, 11) for d in (-1, 0, 1))])
AMOUNTS = st.sampled_from([LOW, HIGH - 1, HIGH])


@st.composite
def orders(draw: st.DrawFn, order_id: str, statuses: tuple[str, ...] = ("CREATED",)) -> OrderEvent:
    return order(
        order_id,
        amount=draw(AMOUNTS),
        at=T0 + draw(TIMES),
        status=draw(st.sampled_from(statuses)),
        region=draw(st.sampled_from(["Izmir", "İzmir", "a\0b"])),
        currency=draw(st.sampled_from(["TRY", "TRY", "EUR"])),
        is_first_order=draw(st.booleans()),
    )


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[OrderEvent], OrderEvent]:
    """A user's orders in any order, cancelled ones among them, and one that is not placed yet."""
    numbers = draw(st.permutations(range(draw(st.integers(1, 8)))))
    new, *before = (f"o-{number}" for number in numbers)
    return [draw(orders(each, ("CREATED", "CREATED", "CANCELLED"))) for each in before], draw(orders(new))


@given(histories())
def test_an_order_completes_what_it_would_complete_in_the_stream(history: tuple[list[OrderEvent], OrderEvent]) -> None:
    before, new = history
    created = [each for each in before if each.order_status == "CREATED"]
    judge = Judge(read_rules(None))
    expected = expected_alerts([*before, new]) - expected_alerts(before)
    assert found(judge, new, *created) == expected
    assert found(judge, new, *created, new) == expected, "also once it has been placed"
    assert judge.judge(new, stored(*created)).unsure == []


@given(histories())
def test_an_order_without_region_completes_nothing_by_place_and_everything_else(
    history: tuple[list[OrderEvent], OrderEvent],
) -> None:
    before, new = history
    before = [each for each in before if each.order_status == "CREATED"]
    verdict = Judge(read_rules(None)).judge(new, stored(*before, without_region=True))
    expected = expected_alerts([*before, new]) - expected_alerts(before)
    by_place = {each for each in expected if each[0] == "LOCATION_ANOMALY"}
    assert {(a.alert_type, a.user_id, a.order_id) for a in verdict.alerts} == expected - by_place
    near = [each for each in before if abs(each.event_time - new.event_time) <= 10 * MINUTE]
    assert [each.rule for each in verdict.unsure] == ["LOCATION_ANOMALY"] * bool(near)


@given(rules_made.files, rules_made.histories, st.data())
def test_rules_of_version_2_find_nothing_that_the_stream_would_not_and_name_those_that_may_lack_something(
    text: str, history: list[OrderEvent], data: st.DataObject
) -> None:
    mine = [each for each in history if each.user_id == "u-1"]
    ids = [each.order_id for each in mine]
    new_ones = [each for each in mine if each.order_status == "CREATED" and ids.count(each.order_id) == 1]
    assume(new_ones)
    new = data.draw(st.sampled_from(new_ones))
    before = [each for each in mine if each is not new]
    verdict = Judge(rule_set(text)).judge(new, stored(*(o for o in before if o.order_status == "CREATED")))

    def expected(orders: list[OrderEvent]) -> set[Alert]:
        return {(rule, user, order_id) for rule, user, order_id, _ in expected_of(text, orders)}

    after = expected([*before, new])
    by_new = {(a.alert_type, a.user_id, a.order_id) for a in verdict.alerts}
    assert by_new <= after
    unsure = {each.rule for each in verdict.unsure}
    assert {rule for rule, *_ in after - expected(before)} <= unsure | {rule for rule, *_ in by_new}
    event(f"{len(by_new)} found, {'some' if unsure else 'none'} unsure")


V2 = """
version: 2
currency: TRY
rules:
  TWO_CARDS: {kind: distinct, of: payment_method, at_least: 2, within: 1h, risk_score: 0.5}
  NOT_FIRST: {kind: count, where: {is_first_order: false}, at_least: 2, within: 1h, risk_score: 0.5}
  TEST_THEN_BUY: {kind: sequence, steps: [{order_status: CANCELLED}, {hour: {at_least: 0}}], within: 1h, risk_score: 1}
  THERE: {kind: count, where: {shipping_region: Izmir}, at_least: 2, within: 1h, risk_score: 0.5}
  MUCH: {kind: sum, above: 150, within: 1h, risk_score: 0.5}
  GIFTS: {kind: count, where: {items: {category: gifts}}, at_least: 1, risk_score: 0.4}
"""


def test_of_version_2_what_the_store_has_no_field_of_is_said_and_a_region_that_is_not_known_is_no_region() -> None:
    judge = Judge(rule_set(V2))
    gifts = [item(category="gifts")]
    new = order("o-2", at=T0 + MINUTE, amount=100_00, region="Izmir", items=gifts)
    before = order("o-1", at=T0, amount=100_00, region="Izmir")
    verdict = judge.judge(new, stored(before))
    assert [each.alert_type for each in verdict.alerts] == ["MUCH", "THERE", "GIFTS"]
    assert dict(verdict.unsure) == {
        "TWO_CARDS": "the store keeps no payment_method of orders",
        "NOT_FIRST": "the store keeps no is_first_order of orders",
        "TEST_THEN_BUY": "the store keeps orders that are CREATED, and no others",
    }
    verdict = judge.judge(new, stored(before, without_region=True))
    assert [each.alert_type for each in verdict.alerts] == ["MUCH", "GIFTS"]
    assert dict(verdict.unsure)["THERE"] == "an earlier release stored orders without their regions"


def test_what_looks_back_further_than_the_store_is_said_unless_it_was_found() -> None:
    judge, new = Judge(rule_set(FAR)), order("o-3", at=T0 + DAY)

    def unsure(*before: OrderEvent) -> list[str]:
        return [each.rule for each in judge.judge(new, stored(*before)).unsure]

    assert unsure() == ["LONGER", "MOVED"], "no first order, no cancelled one looks back"
    in_reach = [order("o-1", at=T0), order("o-2", at=T0 + HOUR)]
    assert found(judge, new, *in_reach) == {(rule, "u-1", "o-3") for rule in ("A_DAY", "LONGER")}
    assert unsure(*in_reach) == ["MOVED"]
    elsewhere = order("o-1", at=T0 + HOUR, region="Izmir")
    assert unsure(elsewhere) == ["LONGER"]
    [one, _] = judge.judge(new, stored()).unsure
    assert one.why == "it looks back 25 h, and the store keeps the orders of 24 h before the newest"


def test_an_order_that_is_older_than_the_newest_is_judged_by_less() -> None:
    judge = Judge(rule_set(FAR))
    newest = order("o-2", at=T0 + 1)
    assert [each.rule for each in judge.judge(order("o-1", at=T0), stored(newest)).unsure] == [
        "A_DAY",
        "LONGER",
        "MOVED",
    ]
    assert [each.rule for each in judge.judge(order("o-1", at=T0 + 1), stored(newest)).unsure] == ["LONGER", "MOVED"]


def test_where_a_users_orders_are_more_than_are_kept_that_is_said() -> None:
    judge = Judge(read_rules(None))
    many = [order(f"o-{i:04}", at=T0 + i, status="CREATED") for i in range(ORDERS_PER_USER)]

    def unsure(at: int, number: int = ORDERS_PER_USER) -> list[str]:
        return [each.rule for each in judge.judge(order("new", at=at), stored(*many[:number])).unsure]

    later = T0 + 10 * MINUTE
    assert unsure(later + 1) == [], "all of the ten minutes before it are there"
    assert unsure(later) == ["LOCATION_ANOMALY"], "one of the same millisecond as the oldest may have been let go"
    assert unsure(later, ORDERS_PER_USER - 1) == []


def test_an_order_id_that_was_stored_twice_counts_once_as_the_newest() -> None:
    judge = Judge(read_rules(None))
    twice = [order("o-1", at=T0, amount=HIGH), order("o-1", at=T0 + 1, amount=LOW)]
    assert found(judge, order("o-2", at=T0 + SECOND), *twice) == set()
    both = [
        *stored(order("o-1", at=T0, region="Izmir"), without_region=True),
        *stored(order("o-1", at=T0, region="Izmir")),
    ]
    verdict = judge.judge(order("o-2", at=T0 + SECOND), both)
    assert ([a.alert_type for a in verdict.alerts], verdict.unsure) == (["LOCATION_ANOMALY"], [])


def test_what_is_no_order_of_any_release_is_passed_over() -> None:
    found_ = Judge(read_rules(None)).judge(order("o-1"), [(b"", float(T0)), (b"x|TRY|o", float(T0)), (b"5", float(T0))])
    assert (found_.decision, found_.alerts, found_.unsure) == ("allow", [], [])


def test_the_version_changes_with_what_the_rules_say_and_not_with_how() -> None:
    shipped = read_rules(None)
    same = FAR.replace("rules:", "# as before\nrules:").replace(
        "\n  A_DAY: {kind: burst, orders: 3,", "\n  A_DAY: {orders: 3, kind: burst,"
    )
    assert same != FAR
    assert rule_set(same).version == rule_set(FAR).version != shipped.version
    assert rule_set(FAR.replace("0.7", "0.71")).version != rule_set(FAR).version
    assert rule_set(f"{FAR}decisions: {{review: 0.5}}\n").version != rule_set(FAR).version
    named = FAR.replace("A_DAY", "1").replace("LONGER", "2026-01-01").replace("MOVED", "~")
    assert {rule.name for rule in rule_set(named).rules.rules} >= {"1", "2026-01-01", "None", "FIRST"}
