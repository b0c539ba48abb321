from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given

from schemas.events import OrderEvent
from schemas.times import END_MS
from tests.build import T0, item, order
from tests.rules_made import conditions, orders
from tests.rules_oracle import meets as oracle_meets
from tests.transforms.domain.test_fraud_finding import as_order
from transforms.domain.condition_text import Conditions
from transforms.domain.conditions import All, AnyOf, Compared, Not, OneOf, fields, floors, matcher, meets
from transforms.domain.fraud_orders import CREATED, STATUSES, bits_of, fitted

SHIPPED = STATUSES.index("SHIPPED")
FILE = {"currency": "TRY", "time_zone": "Europe/Istanbul"}


def read(where: Any) -> Any:
    return Conditions("R", FILE["currency"], FILE["time_zone"]).where(where)


def does_meet(where: Any, event: OrderEvent) -> bool:
    condition = read(where)
    bits = bits_of(fields(condition))
    return matcher(condition, bits)(as_order(event, bits))


@given(conditions, orders)
def test_a_condition_is_met_as_the_oracle_says(where: Any, event: OrderEvent) -> None:
    assert does_meet(where, event) == oracle_meets(where, event, FILE)


@given(conditions, orders)
def test_what_is_told_of_a_condition_before_any_order_comes_holds_for_every_order(
    where: Any, event: OrderEvent
) -> None:
    """An order that is dropped by its status, currency and amount would not have met it."""
    condition, status = read(where), STATUSES.index(event.order_status)
    met = does_meet(where, event)
    assert meets(condition, status) in (None, met)
    least = floors(condition, status)
    if met and least is not None:
        assert event.total_amount_minor > least[event.currency]


@given(conditions, orders)
def test_fields_that_other_rules_need_change_nothing(where: Any, event: OrderEvent) -> None:
    condition = read(where)
    more = bits_of(fields(condition)) | bits_of(["session_id", "items.quantity", "items.total_price"])
    assert matcher(condition, more)(as_order(event, more)) == does_meet(where, event)


HIGH = Compared("total_amount", "above", (("EUR", 400), ("TRY", 9_000)))
HIGHER = Compared("total_amount", "at_least", (("TRY", 9_500),))
LOW = Compared("total_amount", "below", (("JPY", 70),))
YEN, CARD = OneOf("currency", ("JPY",)), OneOf("payment_method", ("card",))
ONLY_SHIPPED = OneOf("order_status", ("SHIPPED",))


@pytest.mark.parametrize(
    ("condition", "least"),
    [
        (HIGH, {"EUR": 400, "TRY": 9_000}),
        (HIGHER, {"TRY": 9_499}),
        (LOW, {"JPY": -1}),
        (YEN, {"JPY": -1}),
        (CARD, None),
        (Not(HIGH), None),
        (All((HIGH, HIGHER, CARD)), {"TRY": 9_499}),
        (All((HIGH, YEN)), {}),
        (All((CARD, CARD)), None),
        (AnyOf((HIGH, HIGHER)), {"EUR": 400, "TRY": 9_000}),
        (AnyOf((HIGH, CARD)), None),
        (AnyOf((HIGHER, All((ONLY_SHIPPED, CARD)))), {"TRY": 9_499}),
        (ONLY_SHIPPED, {}),
        (Not(ONLY_SHIPPED), None),
    ],
)
def test_the_least_amount_that_can_meet_a_condition(condition: Any, least: dict[str, int] | None) -> None:
    assert floors(condition, CREATED) == least


@pytest.mark.parametrize(
    ("condition", "created", "shipped"),
    [
        (CARD, None, None),
        (ONLY_SHIPPED, False, True),
        (Not(ONLY_SHIPPED), True, False),
        (Not(CARD), None, None),
        (All((ONLY_SHIPPED, CARD)), False, None),
        (AnyOf((ONLY_SHIPPED, CARD)), None, True),
        (AnyOf((ONLY_SHIPPED, ONLY_SHIPPED)), False, True),
    ],
)
def test_which_statuses_can_meet_a_condition(condition: Any, created: Any, shipped: Any) -> None:
    assert (meets(condition, CREATED), meets(condition, SHIPPED)) == (created, shipped)


def test_the_hour_is_of_the_shops_clock_also_when_that_changes() -> None:
    zone = ZoneInfo("Europe/Berlin")
    before = int(datetime(2026, 10, 25, 2, 59, 59, 999_000, tzinfo=zone).timestamp() * 1_000)
    where = Conditions("R", "EUR", "Europe/Berlin").where({"hour": 2})
    at_two = matcher(where, 0)
    hours = [at_two(as_order(order(at=before + hour * 3_600_000), 0)) for hour in (-1, 0, 1, 2)]
    assert hours == [False, True, True, False]
    assert [at_two(as_order(order(at=before + 3_600_000 + ms), 0)) for ms in (0, 1)] == [True, False]


def test_the_last_hour_that_there_is_has_an_hour_in_every_zone() -> None:
    for zone, hour in (("UTC", 23), ("Pacific/Kiritimati", 13), ("Pacific/Niue", 12)):
        condition = Conditions("R", "TRY", zone).where({"hour": hour})
        assert matcher(condition, 0)(as_order(order(at=END_MS - 1), 0))


def test_one_item_must_meet_all_that_is_said_of_it() -> None:
    where = {"items": {"category": "gifts", "quantity": {"at_least": 2}}}
    two_gifts, one_gift, two_cups = item(category="gifts"), item(category="gifts", quantity=1), item(quantity=2)
    assert does_meet(where, order(items=[one_gift, two_gifts]))
    assert not does_meet(where, order(items=[one_gift, two_cups]))
    assert not does_meet(where, order(items=[]))
    assert does_meet({"items": {"unit_price": {"above": {"JPY": 4_999}}}}, order(currency="JPY", items=[item()]))
    assert not does_meet({"items": {"unit_price": {"above": {"JPY": 4_999}}}}, order(currency="TRY", items=[item()]))


def test_an_order_that_was_kept_without_a_field_meets_no_condition_on_it_not_even_a_negated_one() -> None:
    bits = bits_of(["payment_method", "session_id"])
    older = fitted(as_order(order(), 0), bits)
    for where in ({"payment_method": "card"}, {"not": {"payment_method": "wallet"}}):
        condition = read(where)
        assert matcher(condition, bits)(as_order(order(), bits))
        assert not matcher(condition, bits)(older)
    assert matcher(read({"shipping_region": "Istanbul"}), bits)(older)
    assert not matcher(read({"shipping_region": "Istanbul"}), bits, "session_id")(older)


def test_text_of_a_file_is_never_code() -> None:
    hostile = "') or __import__('os').abort() or ('"
    assert not does_meet({"payment_method": hostile}, order())
    assert does_meet({"items": {"category": [hostile, "b"]}}, order(at=T0, items=[item(category=hostile)]))
