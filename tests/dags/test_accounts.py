"""What became of a day's offsets, from the accounts that the archiver writes: each way to miss a record is a number."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from dags.spark.accounts import TopicDay, of_day, trouble, wanted
from dags.spark.day import HOUR_MS, Day
from transforms.domain.account import Account, Accounts, read_of

TODAY = Day.of("2026-11-19")
NOON_MS, TOMORROW_MS = TODAY.start_ms + 12 * HOUR_MS, TODAY.end_ms + HOUR_MS
FRESHNESS_MS = HOUR_MS


def told(partition: int, *parts: tuple[range, int], per_file: int = 1_000, lost: int = 0) -> list[str]:
    """The accounts of a partition whose records of these offsets have these times; one in ten is a dead letter."""
    accounts, finished = Accounts(per_file), list[Account]()
    for offsets, time_ms in parts:
        dead = [offset for offset in offsets if offset % 10 == 0]
        good = [(offset, time_ms) for offset in offsets if offset % 10]
        read = read_of(np.array(offsets), np.full(len(offsets), time_ms), [], dead, [], lost)
        finished += [account for _, account in accounts.add(read, good, [])]
    assert accounts.open is not None
    return [account.to_json("orders", partition).decode() for account in (*finished, accounts.open)]


def ends(asked_ms: int = TODAY.end_ms, **of: int) -> str:
    return json.dumps({"topic": "orders", "asked_at": asked_ms, "ends": [[int(p[1:]), end] for p, end in of.items()]})


WELL = [*told(0, (range(100), NOON_MS), (range(100, 120), TOMORROW_MS)), *told(1, (range(50), NOON_MS))]


def judged(texts: list[str]) -> tuple[TopicDay, dict[str, int]]:
    (found,) = of_day(texts, "orders", TODAY)
    found.in_files = found.archived
    rules = trouble([found], TODAY, TODAY.end_ms + 3 * HOUR_MS, FRESHNESS_MS)
    return found, {rule: count for rule, _, count, _ in rules if count}


def test_a_day_of_which_every_offset_is_accounted_for_has_no_trouble() -> None:
    found, wrong = judged([*WELL, ends(p0=120, p1=50)])
    assert wrong == {}
    assert (found.counts["in"], found.counts["good"], found.counts["dead_letters"]) == (150, 135, 15)
    assert (found.archived, found.lost, found.missing, found.unread) == (135, 0, 0, 0)


@pytest.mark.parametrize(
    ("texts", "number", "rule"),
    [
        pytest.param(
            [*told(0, (range(40), NOON_MS), (range(43, 100), NOON_MS)), ends(p0=100)],
            ("missing", 3),
            "every offset holds a record",
            id="the reader skipped three offsets",
        ),
        pytest.param(
            [*told(0, (range(40), NOON_MS))[:1], *told(0, (range(1_000, 1_040), NOON_MS)), ends(p0=1_040)],
            ("missing", 960),
            "every offset holds a record",
            id="an account is not there",
        ),
        pytest.param(
            [*told(0, (range(40), TODAY.start_ms - 1), (range(49, 60), TOMORROW_MS)), *WELL[-1:], ends(p0=60, p1=50)],
            ("missing", 9),
            "every offset holds a record",
            id="nothing of the day is there, and what is missing may be of it",
        ),
        pytest.param(
            [*told(0, (range(7, 40), NOON_MS), lost=7), ends(p0=40)],
            ("lost", 7),
            "no record was lost by the log",
            id="the log lost its beginning",
        ),
        pytest.param(
            [*WELL, ends(p0=120, p1=61)],
            ("unread", 11),
            "every partition is read to the day's end",
            id="a partition stands still",
        ),
        pytest.param(
            [*WELL, ends(p0=120, p1=50, p2=5)],
            ("unread", 5),
            "every partition is read to the day's end",
            id="a partition that nobody reads",
        ),
        pytest.param(WELL, ("ends_asked_ms", None), "the topic was asked where it ends", id="never asked"),
        pytest.param(
            [*WELL, ends(asked_ms=NOON_MS, p0=100, p1=50)],
            ("ends_asked_ms", NOON_MS),
            "the topic was asked where it ends",
            id="the archiver died at noon",
        ),
        pytest.param(
            [*told(0, (range(40), TODAY.start_ms - 1), (range(40, 60), TOMORROW_MS)), ends(p0=60)],
            ("archived", 0),
            "the topics have records of the day",
            id="there is none of the day",
        ),
    ],
)
def test_what_stream_and_archive_both_missed_is_a_number(texts: list[str], number: tuple[str, Any], rule: str) -> None:
    found, wrong = judged(texts)
    assert getattr(found, number[0]) == number[1]
    assert list(wrong) == [rule]


def test_what_is_missing_on_another_day_is_not_of_this_one() -> None:
    texts = told(0, (range(40), TODAY.start_ms - 1), (range(45, 50), TODAY.start_ms - 1), (range(50, 99), NOON_MS))
    later = told(1, (range(40), NOON_MS), (range(40, 45), TOMORROW_MS), (range(55, 60), TOMORROW_MS))
    assert judged([*texts, *later, ends(p0=99, p1=70)])[1] == {}


def test_files_that_hold_more_or_less_than_the_accounts_say_are_trouble() -> None:
    (found,) = of_day([*WELL, ends(p0=120, p1=50)], "orders", TODAY)
    for in_files in (0, found.archived - 1, found.archived + 1):
        found.in_files = in_files
        wrong = [rule for rule, _, count, _ in trouble([found], TODAY, TOMORROW_MS, FRESHNESS_MS) if count]
        assert wrong == ["files hold the records of the accounts"]


def test_an_archive_without_accounts_is_said_to_have_none() -> None:
    assert of_day([], "orders", TODAY) == []
    assert [name for _, name, count, _ in trouble([], TODAY, TOMORROW_MS, FRESHNESS_MS) if count] == ["no_accounts"]


def test_only_accounts_that_can_know_of_the_day_are_read_and_none_that_is_being_written() -> None:
    days = [TODAY.before(n).start_ms for n in (9, 8, 7, 0, -1)]
    found = [(f"gs://a/accounts/orders/x.orders-00003-{i * 1000:020}.json", at) for i, at in enumerate(days)]
    old = [("/a/x.orders-00004-00000000000000000000.json", days[0])]
    beside = [("/a/x.orders.ends.json", 0), ("/a/.5e1.tmp", days[4]), ("/a/.x.orders.ends.json", 0), ("/a/_x.json", 0)]
    chosen = wanted([*beside, *reversed(found), *old], TODAY)
    assert set(chosen) == {*(path for path, _ in [*old, *found[2:]]), "/a/x.orders.ends.json"}
    assert len(chosen) == 5
