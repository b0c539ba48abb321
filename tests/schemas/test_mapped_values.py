"""Values of foreign messages: the quick way to an amount is the exact one."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.currencies import EXPONENTS
from schemas.mapped_values import Fault, money, text, time_ms


@given(
    st.decimals(min_value=-(10**14), max_value=10**14, places=5)
    | st.decimals(min_value=0, max_value=10**4, places=2)
    | st.decimals(min_value=0, max_value=10**4, places=0),
    st.sampled_from(["JPY", "EUR", "KWD", "CLF"]),
)
def test_an_amount_is_what_decimal_arithmetic_says(amount: Decimal, currency: str) -> None:
    for given_as, exact in ((f"{amount:f}", amount), (float(amount), Decimal(repr(float(amount))))):
        wanted = exact.scaleb(EXPONENTS[currency]).to_integral_value(ROUND_HALF_UP)
        assert money(given_as, currency) == wanted


@pytest.mark.parametrize("value", ["", ".5", "5.", "1,5", "1e3", " 1", "+1", "1_0", "٣", "NaN", float("inf"), "9" * 40])  # type: ignore[misc]
def test_what_is_no_plain_amount_is_refused(value: Any) -> None:
    with pytest.raises(Fault):
        money(value, "EUR")


@pytest.mark.parametrize(
    "value",
    ["2026-11-29", "29/11/2026", "Sun, 29 Nov 2026 10:00:00 GMT", "2026-11-29T10:00:00+25:00", True, [], "soon"],
)
def test_what_is_no_time_is_refused_as_a_time(value: Any) -> None:
    with pytest.raises(Fault, match="is neither a time of ISO 8601, with the clock, nor a number since 1970"):
        time_ms(value, "auto", None)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 1e300, 0.5, True, None, []])
def test_what_is_no_text_is_refused_as_such(value: Any) -> None:
    """An infinite id made our code fail; JSON has none, but Avro and Protobuf do."""
    with pytest.raises(Fault, match="is not text"):
        text(value)
