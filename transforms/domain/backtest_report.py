"""The figures of a backtest, as people and programs read them: what was counted, under names, with its ratios. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import msgspec

from transforms.domain.backtest import ADDED, KEPT, NEW, OLD, REMOVED, Counts, Sample, Tally

__all__ = [
    "About",
    "Bad",
    "Change",
    "Day",
    "Figures",
    "Hits",
    "Input",
    "Labels",
    "Overlap",
    "Report",
    "RuleFigures",
    "report_of",
]

Money = dict[str, int]
"""Minor units by currency. Nothing adds or converts those of several."""


class About(msgspec.Struct, frozen=True):
    """What was asked for."""

    archive: str
    first_day: str | None
    last_day: str | None
    time_zone: str


class Bad(msgspec.Struct, frozen=True):
    """Records that are not valid orders, for the same reason.

    Attributes:
      example: the message and the place of one of them.
    """

    error_class: str
    count: int
    example: str


class Input(msgspec.Struct):
    """What was read: records = counted + repeats + outside + bad.

    Attributes:
      outside: records of other days, read because the rules look back to them or their files hold both.
      unreadable: path and reason of each file.
    """

    files: int
    records: int
    counted: int
    repeats: int
    outside: int
    bad: int
    reasons: list[Bad]
    unreadable: dict[str, str]


class Labels(msgspec.Struct):
    """
    Attributes:
      given: order ids in the file; known: those of them that the archive has.
    """

    given: int
    known: int
    amounts_minor: Money


class Hits(msgspec.Struct):
    """How good alerted orders are, by the labels.

    Attributes:
      precision: of the alerted orders, the share that was fraud; recall: of the frauds, the share that was alerted on.
        None where there is nothing to divide by.
    """

    frauds: int
    false_alarms: int
    precision: float | None
    recall: float | None
    false_alarms_per_1000_orders: float | None
    caught_minor: Money


class Change(msgspec.Struct):
    """Of orders: those that only the new set alerts on, those that only the other does, and those of both."""

    change: str
    orders: int
    amounts_minor: Money
    hits: Hits | None


class RuleFigures(msgspec.Struct):
    """
    Attributes:
      alone: orders that no other rule of the set alerts on.
      changes: alerts added, removed and kept by the new set; empty when there is no other.
    """

    name: str
    alerts: int
    orders: int
    users: int
    amounts_minor: Money
    alone: int
    hits: Hits | None
    changes: dict[str, int]


class Overlap(msgspec.Struct):
    """Orders that both rules alert on."""

    rules: tuple[str, str]
    orders: int


class Day(msgspec.Struct):
    """A day: orders of the shop, and what the new set alerts on, an order on the day of its first alert."""

    day: str
    shop_orders: int
    shop_amounts_minor: Money
    orders: int
    amounts_minor: Money
    frauds: int | None
    alerts: dict[str, int]
    changes: dict[str, int]


class Figures(msgspec.Struct):
    """Of a set of rules. An order that several rules alert on counts once in all but `alerts`."""

    name: str
    alerts: int
    orders: int
    users: int
    amounts_minor: Money
    hits: Hits | None
    rules: list[RuleFigures]
    overlaps: list[Overlap]


class Report(msgspec.Struct):
    """
    Attributes:
      changes: None when there is nothing to compare with; `alert_changes` has the same of alerts.
      samples: orders to look at: flagged; or added and removed; and frauds that were missed.
    """

    archive: str
    first_day: str | None
    last_day: str | None
    time_zone: str
    read: Input
    shop_orders: int
    shop_users: int
    shop_amounts_minor: Money
    labels: Labels | None
    rules: Figures
    against: Figures | None
    changes: list[Change] | None
    alert_changes: dict[str, int] | None
    days: list[Day]
    samples: dict[str, list[Sample]]


def report_of(
    tally: Tally, read: Input, names: Sequence[str], rules: Sequence[Sequence[str]], labels: int | None, about: About
) -> Report:
    """
    Args:
      names: of the new set, and of the one that it is compared with if there is one.
      rules: the names of their rules.
      labels: how many there are; None: none were given.
    """
    counts = _Counts(tally.counts, labels is not None)
    sets = [_figures(counts, key, name, of_set) for key, name, of_set in zip((NEW, OLD), names, rules, strict=False)]
    compared = len(sets) > 1
    every_rule = [name for of_set in rules for name in of_set]
    return Report(
        about.archive,
        about.first_day,
        about.last_day,
        about.time_zone,
        read,
        counts.n("shop", "orders"),
        counts.n("shop", "users"),
        counts.money("shop", "amount"),
        None if labels is None else Labels(labels, counts.n("labels", "known"), counts.money("labels", "amount")),
        sets[0],
        sets[1] if compared else None,
        [_change(counts, change) for change in (ADDED, REMOVED, KEPT)] if compared else None,
        {change: counts.n("change", "alerts", change) for change in (ADDED, REMOVED, KEPT)} if compared else None,
        _days(counts, every_rule, compared),
        tally.samples,
    )


class _Counts:
    """
    Args:
      labelled: whether there are labels to judge by.
    """

    def __init__(self, counts: Counts, labelled: bool):
        self._counts, self._labelled = counts, labelled
        self.days = sorted({key[2] for key in counts if key[1:2] == ("day",)})
        self._codes = sorted({key[-1] for key in counts if key[-2:-1] in (("amount",), ("caught",))})

    def n(self, *key: str) -> int:
        return self._counts.get(key, 0)

    def money(self, *key: str) -> Money:
        return {code: amount for code in self._codes if (amount := self._counts.get((*key, code))) is not None}

    def several(self, names: Iterable[str], *key: str) -> dict[str, int]:
        return {name: n for name in names if (n := self.n(*key, name))}

    def hits(self, *key: str) -> Hits | None:
        if not self._labelled:
            return None
        orders, frauds = self.n(*key, "orders"), self.n(*key, "frauds")
        return Hits(
            frauds,
            orders - frauds,
            _ratio(frauds, orders),
            _ratio(frauds, self.n("labels", "known")),
            _ratio(1_000 * (orders - frauds), self.n("shop", "orders")),
            self.money(*key, "caught"),
        )


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _figures(counts: _Counts, key: str, name: str, rules: Sequence[str]) -> Figures:
    found = [
        RuleFigures(
            rule,
            counts.n(key, "rule", rule, "alerts"),
            counts.n(key, "rule", rule, "orders"),
            counts.n(key, "rule", rule, "users"),
            counts.money(key, "rule", rule, "amount"),
            counts.n(key, "rule", rule, "alone"),
            counts.hits(key, "rule", rule),
            counts.several((ADDED, REMOVED, KEPT), "change", "rule", rule),
        )
        for rule in rules
    ]
    both = [Overlap((a, b), n) for a, b in combinations(sorted(rules), 2) if (n := counts.n(key, "both", a, b))]
    return Figures(
        name,
        counts.n(key, "alerts"),
        counts.n(key, "orders"),
        counts.n(key, "users"),
        counts.money(key, "amount"),
        counts.hits(key),
        found,
        sorted(both, key=lambda overlap: (-overlap.orders, overlap.rules)),
    )


def _change(counts: _Counts, change: str) -> Change:
    key = ("change", change)
    return Change(change, counts.n(*key, "orders"), counts.money(*key, "amount"), counts.hits(*key))


def _days(counts: _Counts, rules: Sequence[str], compared: bool) -> list[Day]:
    return [
        Day(
            day,
            counts.n("shop", "day", day, "orders"),
            counts.money("shop", "day", day, "amount"),
            counts.n(NEW, "day", day, "orders"),
            counts.money(NEW, "day", day, "amount"),
            None if (hits := counts.hits(NEW, "day", day)) is None else hits.frauds,
            counts.several(sorted(set(rules)), NEW, "day", day, "rule"),
            counts.several((ADDED, REMOVED, KEPT), "change", "day", day) if compared else {},
        )
        for day in counts.days
    ]
