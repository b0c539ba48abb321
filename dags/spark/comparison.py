"""The result of comparing stream and batch, and whether a day's tables may be published. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from schemas.currencies import DEFAULT

__all__ = ["DIFFERENT", "KINDS", "NO_PART", "Comparison", "Part", "Tolerance", "parts_of"]

KINDS = ("match", "differ", "missing", "extra", "late", "open")
DIFFERENT = ("differ", "missing", "extra")
# A day may have no alert. One on which neither side has a session, or a minute of revenue, was not compared.
_MAY_BE_EMPTY = {"fraud_alerts"}


@dataclass(frozen=True)
class Tolerance:
    """What a table may have and still be published.

    Attributes:
      rows: that differ, are missing or extra.
      amount_minor: Σ |batch − stream| of those rows, in each currency.
    """

    rows: int = 0
    amount_minor: int = 0


@dataclass(frozen=True)
class Part:
    """Rows and amounts of a part of a table in one currency, by kind. The amount of rows that differ is
    Σ |batch − stream|."""

    name: str
    currency: str
    rows: dict[str, int]
    amounts: dict[str, int]
    batch_amount: int
    stream_amount: int


NO_PART = Part("*", DEFAULT, dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0), 0, 0)


@dataclass(frozen=True)
class Comparison:
    """Of a table.

    Attributes:
      landed: records that replay sent back too late for the stream, as many as there were when the batch was computed.
      samples: of the rows that do not match: kind, key, and batch's and stream's values of the columns that differ.
      may_be_empty: whether somebody understands that there is nothing to compare.
    """

    table: str
    snapshot: int
    parts: list[Part]
    tolerance: Tolerance
    landed: int = 0
    samples: list[dict[str, Any]] = field(default_factory=list)
    may_be_empty: bool = False

    def rows(self, kind: str) -> int:
        return sum(part.rows[kind] for part in self.parts)

    def amounts(self, kind: str) -> dict[str, int]:
        """By currency."""
        found: dict[str, int] = {}
        for part in self.parts:
            found[part.currency] = found.get(part.currency, 0) + part.amounts[kind]
        return found

    @property
    def different_rows(self) -> int:
        return sum(map(self.rows, DIFFERENT))

    @property
    def different_amounts(self) -> dict[str, int]:
        """By currency."""
        found: Counter[str] = Counter()
        for kind in DIFFERENT:
            found.update(self.amounts(kind))
        return dict(found)

    @property
    def nothing_compared(self) -> bool:
        return self.rows("match") + self.rows("late") + self.different_rows == 0

    @property
    def passed(self) -> bool:
        if self.nothing_compared and not (self.may_be_empty or self.table in _MAY_BE_EMPTY):
            return False
        amounts = self.different_amounts.values()
        return self.different_rows <= self.tolerance.rows and max(amounts, default=0) <= self.tolerance.amount_minor

    def table_rows(self, day: Any) -> Iterator[tuple[Any, ...]]:
        """For the table `reconciliation`."""
        for part in self.parts or [NO_PART]:
            yield (
                *(day, self.table, part.name, self.snapshot, *(part.rows[kind] for kind in KINDS)),
                *(Decimal(n) for n in (part.batch_amount, part.stream_amount, *(part.amounts[k] for k in KINDS))),
                *(self.passed, self.landed, part.currency),
            )


def parts_of(sums: Sequence[Any]) -> list[Part]:
    """From rows of part, currency, kind, how many `rows`, and what the sides sum up to and are `apart`."""
    parts: dict[tuple[str, str], Part] = {}
    for row in sums:
        name, currency = row["part"] or "", row["currency"] or ""
        known = parts.get((name, currency), NO_PART)
        kind = row["kind"]
        parts[name, currency] = Part(
            name,
            currency,
            {**known.rows, kind: row["rows"]},
            {**known.amounts, kind: int(row["batch"] if kind == "match" else row["apart"])},
            known.batch_amount + int(row["batch"]),
            known.stream_amount + int(row["stream"]),
        )
    return [parts[name] for name in sorted(parts)]
