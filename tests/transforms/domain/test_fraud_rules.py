from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from transforms.domain.fraud_rules import (
    STATUSES,
    Burst,
    Decisions,
    FirstOrder,
    LocationChange,
    RuleError,
    Rules,
    default_rules,
    parse_rules,
)

CREATED, CANCELLED, SHIPPED = (STATUSES.index(s) for s in ("CREATED", "CANCELLED", "SHIPPED"))

RULES: dict[str, Any] = {
    "version": 1,
    "currency": "TRY",
    "rules": {
        "BURST": {"kind": "burst", "orders": 3, "within": "5m", "above": 5000, "risk_score": 0.95},
        "FIRST": {"kind": "first_order", "above": 5000, "risk_score": 0.75},
        "MOVED": {"kind": "location_change", "within": "10m", "risk_score": 0.7},
    },
}


def with_field(path: str, value: Any) -> str:
    """RULES with one field changed; `path` is dotted."""
    document = copy.deepcopy(RULES)
    *parents, last = path.split(".")
    into = document
    for name in parents:
        into = into[name]
    into[last] = value
    return yaml.safe_dump(document)


def without(path: str) -> str:
    document = copy.deepcopy(RULES)
    *parents, last = path.split(".")
    into = document
    for name in parents:
        into = into[name]
    del into[last]
    return yaml.safe_dump(document)


def test_the_rules_that_are_shipped_are_those_of_the_semantics() -> None:
    rules = default_rules()
    assert rules.currency == "TRY"
    assert {r.name: r for r in rules.rules} == {
        "HIGH_VALUE_BURST": Burst("HIGH_VALUE_BURST", 0.95, 3, 300_000, CREATED, (("TRY", 500_000),)),
        "RAPID_ORDERS": Burst("RAPID_ORDERS", 0.85, 3, 300_000, CREATED, None),
        "HIGH_VALUE_FIRST_ORDER": FirstOrder("HIGH_VALUE_FIRST_ORDER", 0.75, (("TRY", 500_000),)),
        "LOCATION_ANOMALY": LocationChange("LOCATION_ANOMALY", 0.70, 600_000),
        "SUSPICIOUS_PATTERN": Burst("SUSPICIOUS_PATTERN", 0.60, 3, 1_800_000, CANCELLED, None),
    }


def test_a_file_is_read_as_it_says() -> None:
    assert parse_rules(yaml.safe_dump(RULES)).rules == (
        Burst("BURST", 0.95, 3, 300_000, CREATED, (("TRY", 500_000),)),
        FirstOrder("FIRST", 0.75, (("TRY", 500_000),)),
        LocationChange("MOVED", 0.7, 600_000),
    )


@pytest.mark.parametrize(
    ("fields", "thresholds"),
    [
        ({}, (0.6, 0.9)),
        ({"review": 0.9}, (0.9, 0.9)),
        ({"block": 0.7}, (0.6, 0.7)),
        ({"review": 0, "block": 1}, (0, 1)),
    ],
)
def test_thresholds_of_decisions_are_as_the_file_says_or_the_usual_ones(
    fields: dict[str, float], thresholds: tuple[float, float]
) -> None:
    assert parse_rules(with_field("decisions", fields)).decisions == Decisions(*thresholds)
    assert parse_rules(yaml.safe_dump(RULES)).decisions == default_rules().decisions == Decisions(0.6, 0.9)


@pytest.mark.parametrize(
    ("amount", "minor"), [(0, 0), (10.5, 1_050), ("0.01", 1), (4999.99, 499_999), ("1e3", 100_000)]
)
def test_amounts_are_exact_in_minor_units(amount: Any, minor: int) -> None:
    rule = parse_rules(with_field("rules.FIRST.above", amount)).rules[1]
    assert rule == FirstOrder("FIRST", 0.75, (("TRY", minor),))


def test_an_amount_is_in_minor_units_of_the_default_currency_or_of_those_that_are_named() -> None:
    in_yen = yaml.safe_load(with_field("currency", "JPY"))
    assert parse_rules(yaml.safe_dump(in_yen)).rules[1] == FirstOrder("FIRST", 0.75, (("JPY", 5_000),))
    several = with_field("rules.FIRST.above", {"TRY": 5000.00, "KWD": 1.234, "JPY": 20000, "EUR": "150.5"})
    amounts = (("EUR", 15_050), ("JPY", 20_000), ("KWD", 1_234), ("TRY", 500_000))
    assert parse_rules(several).rules[1] == FirstOrder("FIRST", 0.75, amounts)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not YAML"),
        ("a: b: c", "not YAML"),
        ("? [a]\n: b", "not YAML"),
        ("", "a mapping with version, currency and rules is needed"),
        ("- 1", "a mapping with version, currency and rules is needed"),
        ("just text", "a mapping with version, currency and rules is needed"),
        (with_field("extra", 1), "the file: unknown field 'extra'; known are currency, decisions, rules, version"),
        (without("version"), "version: None is not known; this release reads versions 1 and 2"),
        (with_field("version", 3), "version: 3 is not known; this release reads versions 1 and 2"),
        (with_field("version", True), "version: True is not known; this release reads versions 1 and 2"),
        (with_field("version", [1]), r"version: \[1\] is not known; this release reads versions 1 and 2"),
        (with_field("decisions", [0.6, 0.9]), "decisions: a mapping with review and block is needed"),
        (with_field("decisions", None), "decisions: a mapping with review and block is needed"),
        (with_field("decisions", {"blok": 1}), "decisions: unknown field 'blok'; known are block, review"),
        (with_field("decisions", {"block": 1.01}), "decisions: block 1.01 is not a number from 0 to 1"),
        (with_field("decisions", {"review": -0.01}), "decisions: review -0.01 is not a number from 0 to 1"),
        (with_field("decisions", {"review": True}), "decisions: review True is not a number from 0 to 1"),
        (with_field("decisions", {"review": float("nan")}), "decisions: review nan is not a number from 0 to 1"),
        (with_field("decisions", {"review": "0.6"}), "decisions: review '0.6' is not a number from 0 to 1"),
        (with_field("decisions", {"block": 0.5}), "decisions: review 0.6 is above block 0.5"),
        (with_field("version", "1"), "version: '1' is not known"),
        (without("currency"), "currency: None is not three capital letters"),
        (with_field("currency", "try"), "currency: 'try' is not three capital letters"),
        (with_field("currency", "TRYY"), "currency: 'TRYY' is not three capital letters"),
        (with_field("currency", "T1Y"), "currency: 'T1Y' is not three capital letters"),
        (with_field("currency", "TRİ"), "currency: 'TRİ' is not three capital letters"),
        (with_field("currency", "QQQ"), "currency: 'QQQ' is not a currency of ISO 4217"),
        (without("rules"), "rules: a mapping from rule name to rule is needed"),
        (with_field("rules", ["BURST"]), "rules: a mapping from rule name to rule is needed"),
        (with_field("rules", {}), "rules: at least one rule is needed"),
        (with_field("rules.BURST", "burst"), "BURST: a mapping is needed"),
        (without("rules.BURST.kind"), "BURST: kind None is not one of burst, first_order, location_change"),
        (with_field("rules.BURST.kind", "Burst"), "BURST: kind 'Burst' is not one of"),
        (with_field("rules.BURST.kind", ["burst"]), r"BURST: kind \['burst'\] is not one of"),
        (with_field("rules.BURST.span", "5m"), "BURST: unknown field 'span'; known are above, kind, orders"),
        (with_field("rules.FIRST.within", "5m"), "FIRST: unknown field 'within'; known are above, kind, risk_score"),
        (with_field("rules.MOVED.above", 1), "MOVED: unknown field 'above'; known are kind, risk_score, within"),
        (without("rules.BURST.risk_score"), "BURST: risk_score None is not a number from 0 to 1"),
        (with_field("rules.BURST.risk_score", 1.01), "BURST: risk_score 1.01 is not a number from 0 to 1"),
        (with_field("rules.BURST.risk_score", -0.1), "BURST: risk_score -0.1 is not a number from 0 to 1"),
        (with_field("rules.BURST.risk_score", True), "BURST: risk_score True is not a number from 0 to 1"),
        (with_field("rules.BURST.risk_score", float("nan")), "BURST: risk_score nan is not a number from 0 to 1"),
        (without("rules.BURST.orders"), "BURST: orders None is not a whole number of at least 2"),
        (with_field("rules.BURST.orders", 1), "BURST: orders 1 is not a whole number of at least 2"),
        (with_field("rules.BURST.orders", 2.5), "BURST: orders 2.5 is not a whole number of at least 2"),
        (with_field("rules.BURST.orders", True), "BURST: orders True is not a whole number of at least 2"),
        (with_field("rules.BURST.status", "LOST"), "BURST: status 'LOST' is not one of CREATED, CONFIRMED"),
        (with_field("rules.BURST.status", ["CREATED"]), r"BURST: status \['CREATED'\] is not one of"),
        (without("rules.BURST.within"), "BURST: within 'None' is not a duration"),
        (with_field("rules.BURST.within", 5), "BURST: within '5' is not a duration"),
        (with_field("rules.BURST.within", "0s"), "BURST: within must be above 0"),
        (with_field("rules.MOVED.within", "soon"), "MOVED: within 'soon' is not a duration"),
        (without("rules.FIRST.above"), "FIRST: above None is not an amount of money in TRY, which has at most 2 dec"),
        (with_field("rules.FIRST.above", {"JPY": 1.5}), "FIRST: above 1.5 is not .* in JPY, which has no decimals"),
        (with_field("rules.FIRST.above", {"KWD": 1.2345}), "FIRST: above 1.2345 is not .* at most 3 decimals"),
        (with_field("rules.FIRST.above", {"eur": 1}), "FIRST: above 'eur' is not three capital letters"),
        (with_field("rules.FIRST.above", {7: 1}), "FIRST: above 7 is not three capital letters"),
        (with_field("rules.FIRST.above", {"QQQ": 1}), "FIRST: above 'QQQ' is not a currency of ISO 4217"),
        (with_field("rules.FIRST.above", {"EUR": None}), "FIRST: above None is not an amount of money in EUR"),
        (with_field("rules.FIRST.above", {}), "FIRST: above names no currency"),
        (with_field("rules.FIRST.above", "much"), "FIRST: above 'much' is not an amount of money"),
        (with_field("rules.FIRST.above", -1), "FIRST: above -1 is not an amount of money"),
        (with_field("rules.FIRST.above", 0.001), "FIRST: above 0.001 is not an amount of money"),
        (with_field("rules.FIRST.above", float("inf")), "FIRST: above inf is not an amount of money"),
        (with_field("rules.FIRST.above", float("nan")), "FIRST: above nan is not an amount of money"),
        (with_field("rules.FIRST.above", True), "FIRST: above True is not an amount of money"),
        (with_field("rules.FIRST.above", 10**19), "FIRST: above 10000000000000000000 is not an amount of money"),
        (with_field("rules.BURST.above", None), "BURST: above None is not an amount of money"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_rule_and_reason(text: str, why: str) -> None:
    with pytest.raises(RuleError, match=f"^{why}") as refused:
        parse_rules(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("status", "span_ms", "least_minor"),
    [("CREATED", 600_000, None), ("CANCELLED", 1_800_000, None), ("SHIPPED", None, {}), ("REFUNDED", None, {})],
)
def test_how_long_and_from_which_amount_an_order_matters(status: str, span_ms: Any, least_minor: Any) -> None:
    rules = default_rules()
    assert rules.span_ms(STATUSES.index(status)) == span_ms
    assert rules.least_minor(STATUSES.index(status)) == least_minor


def test_with_rules_about_high_amounts_only_a_low_order_matters_to_none() -> None:
    high = Burst("B", 0.5, 3, 60_000, SHIPPED, (("EUR", 400), ("TRY", 9_000)))
    higher = Burst("C", 0.5, 3, 60_000, SHIPPED, (("TRY", 9_500),))
    rules = Rules("TRY", (high, higher, FirstOrder("F", 0.5, (("TRY", 5_000),))))
    assert (rules.least_minor(SHIPPED), rules.span_ms(SHIPPED)) == ({"EUR": 400, "TRY": 9_000}, 60_000)
    assert (rules.least_minor(CREATED), rules.span_ms(CREATED)) == ({"TRY": 5_000}, 0)
    assert rules.least_minor(CANCELLED) == {}


def test_a_rule_that_is_there_twice_is_refused() -> None:
    rule = "{kind: first_order, above: 1.00, risk_score: 0.5}"
    with pytest.raises(RuleError, match="TWICE: is defined twice"):
        parse_rules(f"version: 1\ncurrency: TRY\nrules:\n  TWICE: {rule}\n  TWICE: {rule}\n")
