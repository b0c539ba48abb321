from __future__ import annotations

import itertools
import string
import subprocess
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import currencies
from tests.build import order
from tests.schemas.test_columns import ORDER, decode, written

_JDK = """
import java.util.Currency;
public class Currencies {
  public static void main(String[] a) {
    for (Currency c : Currency.getAvailableCurrencies())
      System.out.println(c.getCurrencyCode() + " " + c.getDefaultFractionDigits());
  }
}
"""
_NEWER = {"UYW", "XCG", "ZWG"}
"""Than some JDK 17."""


def test_exponents_are_those_that_the_jdk_knows(tmp_path: Path) -> None:
    source = tmp_path / "Currencies.java"
    source.write_text(_JDK)
    told = subprocess.run(["java", str(source)], check=True, capture_output=True, text=True).stdout
    known = {code: int(digits) for code, digits in (line.split() for line in told.splitlines())}
    assert currencies.EXPONENTS.keys() - known.keys() <= _NEWER
    ours = {code: digits for code, digits in currencies.EXPONENTS.items() if code in known}
    assert ours == {code: known[code] for code in ours}
    others = {code for code, digits in known.items() if digits not in (-1, 2)}
    withdrawn = {"ADP", "BEF", "BYB", "BYR", "ESP", "GRD", "ITL", "LUF", "MGF", "PTE", "ROL", "TPE", "TRL"}
    assert others - currencies.EXPONENTS.keys() == withdrawn, "a currency with other decimals is missing"


@pytest.mark.parametrize(
    ("minor_units", "code", "text"),
    [
        (9_000, "TRY", "90.00"),
        (9_000, "JPY", "9000"),
        (9_000, "KWD", "9.000"),
        (9_000, "CLF", "0.9000"),
        (7, "TRY", "0.07"),
        (0, "KWD", "0.000"),
        (-5, "EUR", "-0.05"),
        (9_000, "QQQ", "90.00"),
    ],
)
def test_an_amount_is_shown_with_the_decimals_of_its_currency(minor_units: int, code: str, text: str) -> None:
    assert currencies.decimal(minor_units, code) == text


@given(st.integers(0, (1 << 62) - 1), st.sampled_from(sorted(currencies.EXPONENTS)))
def test_what_is_shown_is_read_as_the_same_amount(minor_units: int, code: str) -> None:
    assert currencies.minor(currencies.decimal(minor_units, code), code) == minor_units


@pytest.mark.parametrize(
    ("amount", "code"),
    [
        *((amount, "TRY") for amount in ("", "1,5", "-1", "١", "1e999", "nan", "inf", True, None, 0.001, 1 << 62)),
        *((1.5, "JPY"), ("1.2345", "KWD"), (1, "QQQ"), (1, "XAU"), (1, "try")),
    ],
)
def test_what_is_no_amount_in_the_currency_is_refused(amount: object, code: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        currencies.minor(amount, code)


def test_a_round_amount_may_have_decimals_that_are_zero() -> None:
    assert currencies.minor(5000.00, "JPY") == 5_000
    assert currencies.minor(Decimal("5E3"), "TRY") == 500_000


def test_every_three_letters_have_a_number_of_their_own_also_in_columns() -> None:
    codes = ["".join(letters) for letters in itertools.product(string.ascii_uppercase, repeat=3)]
    numbers = list(map(currencies.number_of, codes))
    assert sorted(numbers) == list(range(1, currencies.NUMBERS))
    assert list(map(currencies.code_of, numbers)) == codes
    some = codes[:: len(codes) // 50]
    columns = decode([written(order(currency=code), ORDER) for code in some], ORDER)
    found = columns.currencies("currency", np.arange(len(some)))
    assert found.tolist() == list(map(currencies.number_of, some))
