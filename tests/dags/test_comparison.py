"""Whether a day is published: what each kind of row, each tolerance and an empty day come to."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from dags.spark.comparison import KINDS, Comparison, Part, Tolerance, parts_of

DAY = datetime.date(2026, 11, 19)


def row(
    part: str | None, kind: str, rows: int, batch: int, stream: int, apart: int | None = None, currency: str = "TRY"
) -> dict[str, Any]:
    """As the job sums up rows of one kind; `apart` is Σ |batch − stream|."""
    of = abs(batch - stream) if apart is None else apart
    about = {"part": part, "currency": currency, "kind": kind}
    return {**about, "rows": rows, "batch": batch, "stream": stream, "apart": of}


def compared(*rows: dict[str, Any], table: str = "user_sessions", **tolerance: int) -> Comparison:
    return Comparison(table, 7, parts_of(rows), Tolerance(**tolerance))


MATCH = row("*", "match", 100, 5_000, 5_000)
WRONG = [
    row("*", "differ", 1, 60, 50),
    row("*", "missing", 1, 10, 0),
    row("*", "extra", 1, 0, 10),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda r: str(r["kind"]))
def test_one_row_of_a_wrong_kind_stops_the_day_unless_rows_and_amount_are_tolerated(wrong: dict[str, Any]) -> None:
    assert compared(MATCH).passed
    assert not compared(MATCH, wrong).passed
    assert not compared(MATCH, wrong, rows=1).passed
    assert not compared(MATCH, wrong, rows=1, amount_minor=9).passed
    assert not compared(MATCH, wrong, amount_minor=10).passed
    assert compared(MATCH, wrong, rows=1, amount_minor=10).passed


@pytest.mark.parametrize("kind", ["late", "open"])
def test_rows_that_are_explained_stop_nothing(kind: str) -> None:
    assert compared(MATCH, row("*", kind, 9, 100, 0)).passed


@pytest.mark.parametrize("rows", [[], [row("*", "open", 3, 1, 1)]], ids=["nothing", "only sessions that go on"])
def test_a_day_on_which_nothing_was_compared_is_not_published(rows: list[dict[str, Any]]) -> None:
    assert not compared(*rows).passed
    assert not compared(*rows, table="real_time_revenue", rows=9, amount_minor=9).passed
    assert compared(*rows, table="fraud_alerts").passed, "a day may have no alert"
    understood = Comparison("user_sessions", 7, parts_of(rows), Tolerance(), may_be_empty=True)
    assert understood.passed


def test_differences_that_cancel_out_are_differences() -> None:
    found = compared(row("*", "differ", 2, 100, 100, apart=20), rows=2, amount_minor=19)
    assert (found.different_rows, found.different_amounts, found.passed) == (2, {"TRY": 20}, False)


def test_amounts_of_each_currency_are_held_against_what_is_tolerated_and_never_added() -> None:
    wrong = [row("*", "differ", 1, 10, 0, currency=currency) for currency in ("EUR", "JPY")]
    wrong.append(row("a", "extra", 1, 0, 5, currency="JPY"))
    assert compared(MATCH, *wrong, rows=3, amount_minor=15).passed
    found = compared(MATCH, *wrong, rows=3, amount_minor=14)
    assert (found.different_amounts, found.passed) == ({"EUR": 10, "JPY": 15, "TRY": 0}, False)


def test_parts_hold_all_rows_and_amounts_once() -> None:
    found = compared(
        row("b", "match", 2, 30, 30),
        row("a", "missing", 1, 7, 0),
        row("b", "extra", 3, 0, 9),
        row(None, "open", 1, 1, 2),
    )
    assert [part.name for part in found.parts] == ["", "a", "b"]
    assert found.parts[2] == Part(
        "b",
        "TRY",
        {**dict.fromkeys(KINDS, 0), "match": 2, "extra": 3},
        {**dict.fromkeys(KINDS, 0), "match": 30, "extra": 9},
        batch_amount=30,
        stream_amount=39,
    )
    assert {kind: found.rows(kind) for kind in KINDS if found.rows(kind)} == {
        "match": 2,
        "missing": 1,
        "extra": 3,
        "open": 1,
    }


def test_the_table_has_a_row_for_each_part_and_one_of_zeros_for_none() -> None:
    (nothing,) = compared().table_rows(DAY)
    assert nothing == (DAY, "user_sessions", "*", 7, *[0] * 6, 0, 0, *[0] * 6, False, 0, "TRY")
    (one,) = compared(MATCH, table="fraud_alerts").table_rows(DAY)
    assert one == (DAY, "fraud_alerts", "*", 7, 100, 0, 0, 0, 0, 0, 5_000, 5_000, 5_000, 0, 0, 0, 0, 0, True, 0, "TRY")
