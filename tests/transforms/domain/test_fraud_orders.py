from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import OrderEvent
from tests.build import item, order
from tests.rules_made import orders
from tests.transforms.domain.test_fraud_finding import as_order
from transforms.domain.fraud_orders import EXTRA, attribute, bits_of, extra_of, fields_of, fitted, renewed

bits = st.integers(0, (1 << len(EXTRA)) - 1)


def test_the_number_of_a_field_never_changes_as_checkpoints_have_it() -> None:
    assert EXTRA[:12] == (
        "user_id",
        "session_id",
        "payment_method",
        "subtotal",
        "discount",
        "shipping",
        "items.product_id",
        "items.product_name",
        "items.category",
        "items.quantity",
        "items.unit_price",
        "items.total_price",
    )


def test_an_order_has_just_the_fields_that_are_needed_those_of_items_as_columns() -> None:
    needed = bits_of(["items.quantity", "session_id", "discount", "total_amount"])
    event = order(discount_minor=7, items=[item(quantity=1), item(quantity=3)])
    assert fields_of(needed) == ["session_id", "discount", "items.quantity"]
    assert extra_of(needed)(event) == (0b10_0001_0010, "s-1", 7, (1, 3))
    assert bits_of(["total_amount", "hour in UTC"]) == 0


@pytest.mark.parametrize(
    ("field", "name"),
    [("subtotal", "subtotal_minor"), ("items.unit_price", "unit_price_minor"), ("user_id", "user_id")],
)
def test_a_field_has_the_records_name_but_for_money(field: str, name: str) -> None:
    assert attribute(field) == name


@given(orders, bits, bits)
def test_an_order_of_other_rules_keeps_what_these_need_and_lacks_what_those_did_not(
    event: OrderEvent, theirs: int, ours: int
) -> None:
    kept = fitted(as_order(event, theirs), ours)
    assert kept[:5] == as_order(event, 0)
    if not ours:
        assert len(kept) == 5
        return
    number, *values = kept[5]  # type: ignore[misc]
    assert number == ours
    full = dict(zip(fields_of(ours), extra_of(ours)(event)[1:], strict=True))
    known = set(fields_of(theirs))
    assert dict(zip(fields_of(ours), values, strict=True)) == {f: full[f] if f in known else None for f in full}


@given(orders, bits)
def test_an_order_of_the_same_rules_is_as_it_was(event: OrderEvent, ours: int) -> None:
    kept = as_order(event, ours)
    assert fitted(kept, ours) is kept
    assert renewed(kept, "TRY") is kept
