"""Currencies: the codes of ISO 4217, and how many decimals a minor unit stands for.

An amount is an integer of minor units, so it is right in any currency; exponents matter where it is shown as a decimal,
or read from one. Source: ISO 4217, list one, November 2026, and codes withdrawn since 2020, which archives still hold.
A test compares it with the JDK's. Codes without a minor unit (XAU, XXX) are not currencies here.

An order in three capital letters that ISO does not know is valid: its amounts are summed exactly, apart from all
others, and shown with two decimals. What is configured or converted from a decimal must be a known currency: there, a
wrong exponent would change the amount.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Final

__all__ = ["DEFAULT", "EXPONENTS", "NUMBERS", "code_of", "currency", "decimal", "exponent", "minor", "number_of"]

DEFAULT: Final = "TRY"
"""The shop's, unless a flag says otherwise; and that of rows and state of releases that knew no currencies: they called
every amount lira. So it must never change."""

_USUAL: Final = 2
_OTHERS: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
_WITH_TWO: Final = """
AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW CNY COP COU
CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES
KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR
NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP
TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG
ANG BGN CUC HRK SLL ZWL
"""
EXPONENTS: Final[dict[str, int]] = {
    **dict.fromkeys(_WITH_TWO.split(), _USUAL),
    **{code: digits for digits, codes in _OTHERS.items() for code in codes.split()},
}

_MOST_MINOR = 1 << 62
_A, _LETTERS = ord("A"), 26
NUMBERS: Final = _LETTERS**3 + 1
"""Every three capital letters have a number below this and above 0."""


def currency(text: object) -> str:
    """A known code. Raises: ValueError."""
    if not (isinstance(text, str) and re.fullmatch("[A-Z]{3}", text)):
        raise ValueError(f"{text!r} is not three capital letters")
    if text not in EXPONENTS:
        raise ValueError(f"{text!r} is not a currency of ISO 4217, such as {DEFAULT}, EUR or JPY")
    return text


def exponent(code: str) -> int:
    """Decimals of the minor unit; two for a code that ISO does not know."""
    return EXPONENTS.get(code, _USUAL)


def decimal(minor_units: int, code: str) -> str:
    """An amount in main units, with all its decimals: 9000 minor units are 90.00 in TRY, 9000 in JPY, 9.000 in KWD."""
    digits = exponent(code)
    if not digits:
        return str(minor_units)
    sign, whole = ("-", -minor_units) if minor_units < 0 else ("", minor_units)
    main, rest = divmod(whole, 10**digits)
    return f"{sign}{main}.{rest:0{digits}}"


def minor(amount: object, code: object) -> int:
    """Minor units of an amount in main units, which is not negative and has no more decimals than the currency.

    Raises: ValueError.
    """
    digits = EXPONENTS[currency(code)]
    try:
        if isinstance(amount, bool) or not re.fullmatch(r"\d+(\.\d*)?([eE][+-]?\d{1,3})?", str(amount), re.ASCII):
            raise InvalidOperation
        units = Decimal(str(amount)).scaleb(digits)
        if units != int(units) or units >= _MOST_MINOR:
            raise InvalidOperation
    except InvalidOperation:
        most = f"at most {digits} decimals" if digits else "no decimals"
        raise ValueError(f"{amount!r} is not an amount of money in {code}, which has {most}") from None
    return int(units)


def number_of(code: str) -> int:
    """Three capital letters as a number, for where texts would take too much room or time."""
    first, second, third = (ord(letter) - _A for letter in code)
    return (first * _LETTERS + second) * _LETTERS + third + 1


def code_of(number: int) -> str:
    """The inverse of `number_of`."""
    rest, third = divmod(number - 1, _LETTERS)
    first, second = divmod(rest, _LETTERS)
    return "".join(chr(_A + letter) for letter in (first, second, third))
