"""What version 2 of the rules file reads as, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.build import NOT_VALUES, order
from tests.transforms.domain.test_fraud_finding import Run
from transforms.domain.conditions import All, AnyItem, AnyOf, Compared, Not, OneOf
from transforms.domain.fraud_orders import CREATED, STATUSES, bits_of
from transforms.domain.fraud_patterns import Change, Count, Distinct, First, Sequence, Sum
from transforms.domain.fraud_rules import Burst, Decisions, RuleError, Rules, default_rules, parse_rules

ONLY_CREATED = OneOf("order_status", ("CREATED",))
CARD = OneOf("payment_method", ("card",))


def file_of(rules: Any = None, **top: Any) -> str:
    return yaml.safe_dump({"version": 2, "currency": "TRY", "rules": {"R": rules or GOOD}, **top})


GOOD = {"kind": "count", "at_least": 2, "within": "5m", "risk_score": 0.5}


def rule(**said: Any) -> Any:
    (read,) = parse_rules(file_of({"risk_score": 0.5, **said})).rules
    return read


def test_each_kind_is_read_as_it_says() -> None:
    created_cards = All((ONLY_CREATED, CARD))
    where = {"payment_method": "card"}
    assert rule(**GOOD) == Count("R", 0.5, ONLY_CREATED, 2, 300_000)
    assert rule(kind="count", at_least=1, where=where, by="user_id") == Count("R", 0.5, created_cards, 1, 0)
    in_euros = All((OneOf("currency", ("EUR",)), created_cards))
    assert rule(kind="sum", above={"EUR": 10}, within="1h", where=where, by=["user_id"]) == Sum(
        "R", 0.5, in_euros, "total_amount", "EUR", 1_000, 3_600_000
    )
    assert rule(kind="distinct", of="items.category", at_least=3, within="1d") == Distinct(
        "R", 0.5, ONLY_CREATED, "items.category", 3, 86_400_000
    )
    assert rule(kind="change", of="session_id", within="10m") == Change("R", 0.5, ONLY_CREATED, "session_id", 600_000)
    first = All((OneOf("is_first_order", (True,)), ONLY_CREATED))
    assert rule(kind="first") == First("R", 0.5, first)
    cancelled = {"order_status": ["CREATED", "CANCELLED"]}
    assert rule(kind="sequence", steps=[where, cancelled], within="1m") == Sequence(
        "R", 0.5, (created_cards, OneOf("order_status", ("CANCELLED", "CREATED"))), 60_000
    )


def test_conditions_are_read_as_they_say() -> None:
    said = {
        "order_status": "CREATED",
        "any": [
            {"total_amount": {"above": 10, "at_most": {"JPY": 70, "EUR": 0.5}}},
            {"not": {"hour": {"below": 6}}},
            {"all": [{"hour": [3, 1, 3]}, {"is_first_order": False}]},
        ],
        "items": {"product_id": ["b", "a"], "quantity": 2, "unit_price": {"at_least": 1}},
    }
    read = rule(kind="count", at_least=1, where=said).where
    above = Compared("total_amount", "above", (("TRY", 1_000),))
    at_most = Compared("total_amount", "at_most", (("EUR", 50), ("JPY", 70)))
    assert {*read.parts} == {
        ONLY_CREATED,
        AnyOf(
            (
                All((above, at_most)),
                Not(Compared("hour in UTC", "below", 6)),
                All((OneOf("hour in UTC", (1, 3)), OneOf("is_first_order", (False,)))),
            )
        ),
        AnyItem(
            All(
                (
                    OneOf("items.product_id", ("a", "b")),
                    OneOf("items.quantity", (2,)),
                    Compared("items.unit_price", "at_least", (("TRY", 100),)),
                )
            )
        ),
    }


@pytest.mark.parametrize("where", [{"not": {"order_status": "SHIPPED"}}, {"any": [{"order_status": "SHIPPED"}]}])
def test_a_condition_that_says_a_status_anywhere_is_not_only_about_created_orders(where: Any) -> None:
    read = parse_rules(file_of({"kind": "count", "at_least": 1, "where": where, "risk_score": 0.5}))
    touched = [name for status, name in enumerate(STATUSES) if read.span_ms(status) is not None]
    assert touched == (["SHIPPED"] if "any" in where else [name for name in STATUSES if name != "SHIPPED"])


def test_a_file_of_version_2_has_decisions_a_zone_and_the_kinds_of_version_1() -> None:
    older = {"kind": "burst", "orders": 3, "within": "5m", "risk_score": 0.5}
    text = file_of(older, decisions={"review": 0.6, "block": 0.9}, time_zone="Europe/Istanbul")
    assert parse_rules(text) == Rules("TRY", (Burst("R", 0.5, 3, 300_000),), Decisions(0.6, 0.9))
    assert parse_rules(file_of()).decisions == Decisions()
    assert parse_rules(file_of(decisions={"review": 0, "block": 0})).decisions == Decisions(0.0, 0.0)


def test_decisions_are_no_part_of_what_the_daily_batch_knows_rules_by() -> None:
    assert repr(parse_rules(file_of(decisions={"review": 0.6, "block": 0.9}))) == repr(parse_rules(file_of()))
    assert repr(default_rules()).endswith("above_minor=None)))")
    assert "decisions" not in repr(default_rules())


def test_orders_are_kept_with_the_fields_that_rules_need_and_no_others() -> None:
    assert default_rules().bits == parse_rules(file_of()).bits == 0
    needs = {
        "items.category": {"kind": "distinct", "of": "items.category", "at_least": 2, "within": "1m"},
        "payment_method": {"kind": "change", "of": "payment_method", "within": "1m"},
        "discount": {"kind": "sum", "of": "discount", "above": 1, "within": "1m"},
        "session_id": {"kind": "sequence", "steps": [{"session_id": "a"}, {"currency": "EUR"}], "within": "1m"},
        "items.quantity": {"kind": "first", "where": {"not": {"items": {"any": [{"quantity": 2}]}}}},
        "subtotal": {**GOOD, "where": {"subtotal": {"above": 1}, "shipping_region": "Izmir"}},
    }
    for field, said in needs.items():
        assert parse_rules(file_of({"risk_score": 0.5, **said})).bits == bits_of([field])


def test_how_long_and_from_which_amount_an_order_matters() -> None:
    steps = [{"order_status": "CANCELLED"}, {"total_amount": {"above": 50}, "currency": "TRY"}]
    read = parse_rules(
        yaml.safe_dump(
            {
                "version": 2,
                "currency": "TRY",
                "rules": {
                    "A": {"kind": "sequence", "steps": steps, "within": "1h", "risk_score": 0.5},
                    "B": {**GOOD, "where": {"total_amount": {"at_least": {"EUR": 20}}}},
                },
            }
        )
    )
    cancelled, shipped = STATUSES.index("CANCELLED"), STATUSES.index("SHIPPED")
    assert [read.span_ms(s) for s in (CREATED, cancelled, shipped)] == [3_600_000, 3_600_000, None]
    assert [read.least_minor(s) for s in (CREATED, cancelled, shipped)] == [{"TRY": 5_000, "EUR": 1_999}, None, {}]


def where(**said: Any) -> str:
    return file_of({**GOOD, "where": said})


def without(*names: str, **said: Any) -> str:
    return file_of({**{k: v for k, v in GOOD.items() if k not in names}, **said})


MONOTONE = "rules are monotone"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            file_of(zone="UTC"),
            "the file: unknown field 'zone'; known are currency, decisions, rules, time_zone, version",
        ),
        (file_of(time_zone="Istanbul"), "time_zone: 'Istanbul' is not a time zone such as UTC or Europe/Istanbul"),
        (file_of(time_zone=3), "time_zone: 3 is not a time zone"),
        (file_of(decisions=[0.5]), "decisions: a mapping with review and block is needed"),
        (file_of(decisions={"review": 0.5, "block": 1.1}), "decisions: block 1.1 is not a number from 0 to 1"),
        (file_of(decisions={"review": 0.9, "block": 0.6}), "decisions: review 0.9 is above block 0.6"),
        (file_of(decisions={"review": 0.1, "block": 1, "allow": 0}), "decisions: unknown field 'allow'"),
        (without(kind="counts"), "R: kind 'counts' is not one of burst, first_order, location_change, count, sum"),
        (without(kind="average"), f"R: average cannot be a rule: another order can move it either way, and {MONOTONE}"),
        (without(kind="absence"), f"R: absence cannot be a rule: another order would undo the alert, and {MONOTONE}"),
        (without(risk_score=2), "R: risk_score 2 is not a number from 0 to 1"),
        (without(at_most=3), f"R: at_most: another order would undo the alert; {MONOTONE}"),
        (without("at_least", fewer_than=3), f"R: fewer_than: another order would undo the alert; {MONOTONE}"),
        (without(without={"order_status": "CANCELLED"}), f"R: without: another order would undo .*; {MONOTONE}"),
        (without(span="5m"), "R: unknown field 'span'; known are at_least, by, kind, risk_score, where, within"),
        (
            without(by="session_id"),
            "R: by 'session_id': orders are kept by user, so that a rule can only be by user_id",
        ),
        (without(by=["user_id", "currency"]), r"R: by \['user_id', 'currency'\]: orders are kept by user"),
        (without("at_least"), "R: at_least None is not a whole number from 1 to 1000"),
        (without(at_least=0), "R: at_least 0 is not a whole number from 1 to 1000"),
        (without(at_least=1_001), "R: at_least 1001 is not a whole number from 1 to 1000"),
        (without(at_least=True), "R: at_least True is not a whole number"),
        (without(at_least=1), "R: within says nothing where at_least is 1"),
        (without("within"), "R: within 'None' is not a duration"),
        (without(within="0s"), "R: within must be above 0"),
        (without("at_least", kind="sum", above={"TRY": 1, "EUR": 1}), "R: above names EUR, TRY; a sum is in one curr"),
        (without("at_least", kind="sum"), "R: above None is not an amount of money in TRY"),
        (
            without("at_least", kind="sum", above=1, of="quantity"),
            "R: of 'quantity' is not one of total_amount, subtotal",
        ),
        (
            without(kind="distinct"),
            "R: of None is not one of session_id, payment_method, shipping_region, currency, it",
        ),
        (without(kind="distinct", of="session_id", at_least=1), "R: at_least 1 is not a whole number from 2 to 1000"),
        (without("at_least", kind="change", of="items.category"), "R: of 'items.category' is not one of session_id"),
        (without("at_least", kind="change", of=["currency"]), r"R: of \['currency'\] is not one of session_id"),
        (without("at_least", kind="first"), "R: unknown field 'within'; known are by, kind, risk_score, where"),
        (without("at_least", kind="sequence"), "R: steps: a list of 2 to 10 conditions is needed"),
        (without("at_least", kind="sequence", steps=[{"hour": 1}]), "R: steps: a list of 2 to 10 conditions"),
        (without("at_least", kind="sequence", steps=[{"hour": 1}] * 11), "R: steps: a list of 2 to 10 conditions"),
        (without("at_least", kind="sequence", steps=[{"hour": 1}, None]), "R: where {} is not a mapping from fields"),
        (without(where=[]), r"R: where \[\] is not a mapping from fields to what they must be"),
        (where(), "R: where {} is not a mapping from fields to what they must be"),
        (
            where(amount=3),
            "R: unknown field 'amount' in a condition; known are currency, discount, hour, is_first_order",
        ),
        (where(event_time=3), "R: unknown field 'event_time' in a condition"),
        (where(category="a"), "R: unknown field 'category' in a condition"),
        (
            where(items={"currency": "EUR"}),
            "R: unknown field 'items.currency' in a condition; known are category, produ",
        ),
        (where(items={"items": {}}), "R: unknown field 'items.items' in a condition"),
        (where(items="gifts"), "R: items.'gifts' is not a mapping from fields"),
        (where(count={"at_least": 3}), f"R: count: a condition is about one order; .*{MONOTONE}"),
        (where(**{"not": {"count": {"at_least": 3}}}), f"R: count: a condition is about one order; .*{MONOTONE}"),
        (where(any=[{"average": 3}]), f"R: average: a condition is about one order; .*{MONOTONE}"),
        (where(**{"not": []}), r"R: where \[\] is not a mapping"),
        (where(any=[]), "R: any: a list of conditions is needed"),
        (where(all={"hour": 1}), "R: all: a list of conditions is needed"),
        (where(payment_method=[]), "R: payment_method: the list is empty; no order would meet it"),
        (where(payment_method=1), "R: payment_method 1 is not text; quote it if it is one"),
        (where(payment_method=["card", None]), "R: payment_method None is not text"),
        (where(payment_method={"above": 1}), "R: payment_method {'above': 1} is not text"),
        (where(items={"category": [True]}), "R: items.category True is not text"),
        (where(order_status="LOST"), "R: order_status 'LOST' is not one of CREATED, CONFIRMED"),
        (where(currency="try"), "R: currency 'try' is not three capital letters"),
        (where(currency=["QQQ"]), "R: currency 'QQQ' is not a currency of ISO 4217"),
        (where(is_first_order="yes"), "R: is_first_order 'yes' is neither true nor false"),
        (where(is_first_order=1), "R: is_first_order 1 is neither true nor false"),
        (where(total_amount=100), r"R: total_amount 100 is not a comparison such as \{above: 500.00\}, or at_least"),
        (where(total_amount={"over": 100}), "R: total_amount {'over': 100} is not a comparison"),
        (where(total_amount={}), "R: total_amount {} is not a comparison"),
        (where(total_amount={"above": 0.001}), "R: total_amount above 0.001 is not an amount of money in TRY"),
        (where(total_amount={"above": {"QQQ": 1}}), "R: total_amount above 'QQQ' is not a currency"),
        (where(total_amount={"above": {}}), "R: total_amount above names no currency"),
        (where(items={"unit_price": {"below": -1}}), "R: unit_price below -1 is not an amount of money"),
        (where(hour=24), "R: hour 24 is not a whole number from 0 to 23"),
        (where(hour=[]), "R: hour: the list is empty"),
        (where(hour="3"), "R: hour '3' is not a whole number from 0 to 23"),
        (where(hour={"at_least": 24}), "R: hour at_least 24 is not a whole number from 0 to 23"),
        (where(hour={"above": True}), "R: hour above True is not a whole number from 0 to 23"),
        (where(items={"quantity": 0}), "R: quantity 0 is not a whole number from 1 to 2147483647"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_rule_and_reason(text: str, why: str) -> None:
    with pytest.raises(RuleError, match=f"^{why}") as refused:
        parse_rules(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("said", NOT_VALUES)
def test_what_yaml_itself_fails_on_is_refused_in_one_line(said: str) -> None:
    for text in (said, f"version: {said}", f"version: 2\ncurrency: TRY\nrules:\n  R: {said}"):
        with pytest.raises(RuleError, match=r"not YAML|not known|a mapping") as refused:
            parse_rules(text)
        assert "\n" not in str(refused.value)


def test_a_file_that_is_longer_than_anybody_writes_is_not_read() -> None:
    with pytest.raises(RuleError, match="longer than"):
        parse_rules("a: 1\n" * 60_000)


def test_version_1_has_none_of_this() -> None:
    one = {"version": 1, "currency": "TRY"}
    with pytest.raises(RuleError, match=r"^R: kind 'count' is not one of burst, first_order, location_change$"):
        parse_rules(yaml.safe_dump({**one, "rules": {"R": GOOD}}))
    with pytest.raises(
        RuleError, match=r"^the file: unknown field 'time_zone'; known are currency, decisions, rules, "
    ):
        parse_rules(yaml.safe_dump({**one, "rules": {"R": GOOD}, "time_zone": "UTC"}))


def test_a_file_is_bounded_however_its_values_refer_to_each_other() -> None:
    deep: Any = {"hour": 1}
    for _ in range(35):
        deep = {"not": deep}
    assert len(Run(where(**deep)).arrive([order("o-1"), order("o-2")]).alerts) == 1  # so much compiles, too
    with pytest.raises(RuleError, match=r"^values are nested more than 40 deep$"):
        parse_rules(where(**{"not": {"not": {"not": deep}}}))
    nine = ", ".join(f"&x{i} {{any: [{', '.join([f'*x{i - 1}'] * 9)}]}}" for i in range(1, 9))
    head = "version: 2\ncurrency: TRY\nrules: {R: {kind: count, at_least: 1, risk_score: 0, where: "
    for text in (f"{head}{{any: [&x0 {{hour: 1}}, {nine}]}}}}}}", f"{head}{{hour: [&x0 [1], {nine}]}}}}}}"):
        with pytest.raises(RuleError, match=r"^has more than 20000 values$"):
            parse_rules(text)
    with pytest.raises(RuleError, match=r"^values are nested more than 40 deep$"):
        parse_rules(f"{head}&w {{not: *w}}}}}}")
