"""The result of comparing stream and batch, and whether a day's tables may be published. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

__all__ = ["DIFFERENT", "KINDS", "Comparison", "Part", "Tolerance", "parts_of"]

KINDS = ("match", "differ", "missing", "extra", "late", "open")
DIFFERENT = ("differ", "missing", "extra")
# A day may have no alert. One on which neither side has a session, or a minute of revenue, was not compared.
_MAY_BE_EMPTY = {"fraud_alerts"}


@dataclass(frozen=True)
class Tolerance:
    """What a table may have and still be published.

    Attributes:
      rows: that differ, are missing or extra.
      amount_minor: Σ |batch − stream| of those rows.
    """

    rows: int = 0
    amount_minor: int = 0


@dataclass(frozen=True)
class Part:
    """Rows and amounts of a part of a table, by kind. The amount of rows that differ is Σ |batch − stream|."""

    name: str
    rows: dict[str, int]
    amounts: dict[str, int]
    batch_amount: int
    stream_amount: int


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

    def amount(self, kind: str) -> int:
        return sum(part.amounts[kind] for part in self.parts)

    @property
    def different_rows(self) -> int:
        return sum(map(self.rows, DIFFERENT))

    @property
    def different_amount(self) -> int:
        return sum(map(self.amount, DIFFERENT))

    @property
    def nothing_compared(self) -> bool:
        return self.rows("match") + self.rows("late") + self.different_rows == 0

    @property
    def passed(self) -> bool:
        if self.nothing_compared and not (self.may_be_empty or self.table in _MAY_BE_EMPTY):
            return False
        return self.different_rows <= self.tolerance.rows and self.different_amount <= self.tolerance.amount_minor

    def table_rows(self, day: Any) -> Iterator[tuple[Any, ...]]:
        """For the table `reconciliation`."""
        for part in self.parts or [Part("*", dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0), 0, 0)]:
            yield (
                *(day, self.table, part.name, self.snapshot, *(part.rows[kind] for kind in KINDS)),
                *(Decimal(n) for n in (part.batch_amount, part.stream_amount, *(part.amounts[k] for k in KINDS))),
                *(self.passed, self.landed),
            )


def parts_of(sums: Sequence[Any]) -> list[Part]:
    """From rows of part, kind, how many `rows`, and what the sides sum up to and are `apart`."""
    parts: dict[str, Part] = {}
    for row in sums:
        name = row["part"] or ""
        known = parts.get(name) or Part(name, dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0), 0, 0)
        kind = row["kind"]
        parts[name] = Part(
            name,
            {**known.rows, kind: row["rows"]},
            {**known.amounts, kind: int(row["batch"] if kind == "match" else row["apart"])},
            known.batch_amount + int(row["batch"]),
            known.stream_amount + int(row["stream"]),
        )
    return [parts[name] for name in sorted(parts)]
