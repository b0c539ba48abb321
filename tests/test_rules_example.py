"""docs/rules-example.yaml: the orders that its comments speak of raise its alerts, and their neighbours do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.events import OrderEvent
from tests.build import HOUR, MINUTE, T0, item, order
from tests.rules_oracle import expected_of
from tests.transforms.domain.test_fraud_finding import Run
from transforms.domain.fraud_rules import Decisions, parse_rules

TEXT = (Path(__file__).parents[1] / "docs" / "rules-example.yaml").read_text(encoding="utf-8")
NIGHT = T0 - 12 * HOUR  # 05:13 in Istanbul
VOUCHERS = [item(category="vouchers", quantity=3)]


def pattern(name: str) -> list[OrderEvent]:
    match name:
        case "CARD_TESTING":
            return [order(f"o-{i}", at=T0 + i * MINUTE, amount=4_999) for i in (0, 3, 6, 10)]
        case "GIFT_CARDS_AT_NIGHT":
            return [order(at=NIGHT, items=VOUCHERS)]
        case "SPENDING_SPREE":
            return [order(f"o-{i}", at=T0 + i * 30 * MINUTE, amount=1_500_000) for i in (0, 1, 2)]
        case "MANY_CARDS":
            return [order(f"o-{i}", at=T0 + i * 12 * HOUR, payment_method=f"card {i}") for i in (0, 1, 2)]
        case "MOVED":
            regions = enumerate(["Istanbul", "Izmir"])
            return [order(f"o-{i}", at=T0 + i * 30 * MINUTE, amount=100_000, region=region) for i, region in regions]
        case "LARGE_FIRST_ORDER":
            return [order(is_first_order=True, items=[item(unit_price_minor=300_001)])]
        case "TRIAL_THEN_PRIZE":
            small, large = order("o-1", amount=9_999), order("o-2", at=T0 + 2 * HOUR, amount=500_001)
            return [small, order("o-1", at=T0 + MINUTE, amount=9_999, status="CANCELLED"), large]
    raise AssertionError(name)


NAMES = [rule.name for rule in parse_rules(TEXT).rules]


@pytest.mark.parametrize("name", NAMES)
def test_the_pattern_of_a_rule_raises_its_alert_and_no_other_and_is_not_complete_without_any_of_its_orders(
    name: str,
) -> None:
    orders = pattern(name)
    assert [rule for rule, *_ in Run(TEXT).arrive(reversed(orders)).found] == [name]
    assert [rule for rule, *_ in expected_of(TEXT, orders)] == [name]
    for missing in orders:
        assert Run(TEXT).arrive(o for o in orders if o is not missing).found == []


def test_the_file_that_the_semantics_show_is_one() -> None:
    page = (Path(__file__).parents[1] / "docs" / "semantics.md").read_text(encoding="utf-8")
    shown = page.split("### Rules of your own")[1].split("```yaml\n")[1].split("```")[0]
    steps = pattern("TRIAL_THEN_PRIZE")
    assert [rule for rule, *_ in Run(shown).arrive(steps).found] == ["TRIAL_THEN_PRIZE"]
    assert (
        Run(shown).arrive([*steps[:2], order("o-2", at=T0 + HOUR, amount=500_001, items=[item(category="toys")])]).found
        == []
    )


def test_it_has_a_rule_of_each_kind_and_decisions() -> None:
    rules = parse_rules(TEXT)
    assert {type(rule).__name__ for rule in rules.rules} == {"Count", "Sum", "Distinct", "Change", "First", "Sequence"}
    assert rules.decisions == Decisions(0.6, 0.9)


@pytest.mark.parametrize(
    "missed",
    [
        order(at=NIGHT + HOUR, items=VOUCHERS),  # 06:13
        order(at=NIGHT, items=[item(category="vouchers", quantity=2), item(quantity=3)]),
        order(amount=4_000_001, user="staff-purchases"),
        order(is_first_order=True, amount=500_000, items=[item(unit_price_minor=300_000)]),
    ],
)
def test_one_order_just_beside_a_rule_raises_nothing(missed: OrderEvent) -> None:
    assert Run(TEXT).arrive([missed]).found == []
