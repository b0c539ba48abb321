"""Quality rules for a day's rows, independent of the stream.

Rules are plain SQL, so that a failed one can show the rows that break it; what a library would add, a profile of each
column, nobody would look at here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dags.spark.day import Day, within
from schemas.tables import Table

__all__ = ["DDL", "NONE", "TABLE", "Finding", "Limits", "check"]

TABLE = "quality"
DDL = (
    "day DATE, table_name STRING, rule STRING, snapshot_id BIGINT COMMENT 'What was looked at.', "
    "failed_rows BIGINT, detail STRING, passed BOOLEAN, accepted STRING COMMENT 'The gap that somebody bears, by name.'"
)

_SAMPLE = 5
_FEW = 1_000
_DAYS_BEFORE = 7
# By rule, what a good row meets. Beside these, columns that are REQUIRED are not null, and keys are unique.
_GOOD = {
    "fraud_alerts": {
        "risk_score from 0 to 1": "risk_score BETWEEN 0 AND 1",
        "amount not negative": "amount_minor >= 0",
        "a currency": "currency RLIKE '^[A-Z]{3}$'",
        "names its order among the related": "array_contains(related_events, order_id)",
    },
    "user_sessions": {
        "ends after it starts": "session_end >= session_start",
        "duration is that of its times": (
            "duration_seconds = (unix_millis(session_end) - unix_millis(session_start)) DIV 1000"
        ),
        "counts not negative": "least(page_views, product_views, add_to_carts, purchases, revenue_minor) >= 0",
        "some revenue only with a purchase": "revenue_minor = 0 OR purchases > 0",
        "id is user and start": "session_id = concat(user_id, ':', unix_millis(session_start))",
    },
    "real_time_revenue": {
        "a whole minute": (
            "unix_millis(window_start) % 60000 = 0 AND unix_millis(window_end) - unix_millis(window_start) = 60000"
        ),
        "revenue not negative": "gmv_minor >= 0",
        "a currency": "currency RLIKE '^[A-Z]{3}$'",
        "at least one order": "order_count >= 1",
        "users from 1 to orders": "unique_users BETWEEN 1 AND order_count",
        "first orders from 0 to orders": "first_time_orders BETWEEN 0 AND order_count",
        "a known dimension": "dimension IN ('total', 'category', 'region')",
    },
}
# Queries for rows that contradict others.
_QUERIES = {
    "real_time_revenue": {
        "the regions' orders are those of the minute": (
            "SELECT window_start, currency, sum(if(dimension = 'total', order_count, 0)) AS total, "
            "sum(if(dimension = 'region', order_count, 0)) AS regions FROM staged_rows "
            "GROUP BY window_start, currency "
            "HAVING total <> regions"
        )
    },
}
# The newest thing that a table knows of; alerts may be rare.
_NEWEST = {"user_sessions": "session_end", "real_time_revenue": "window_end"}

NONE = {
    "fraud_alerts": ("no_orders", "empty_day"),
    "real_time_revenue": ("no_orders", "empty_day"),
    "user_sessions": ("no_clicks", "empty_day"),
}
"""The gaps (`dags.spark.judged.GAPS`) that leave a table without rows."""


@dataclass(frozen=True)
class Limits:
    """What is too much.

    Attributes:
      row_count_factor: a day may have so many times the rows of the days before, or a so-many-th of them.
      freshness_ms: how long before its end, or before now, the day's newest event may lie.
      now_ms: the clock.
    """

    row_count_factor: float
    freshness_ms: int
    now_ms: int


@dataclass(frozen=True)
class Finding:
    """What a rule found.

    Attributes:
      failed: how many rows break it; of a rule about the whole table, 1.
      detail: what was counted, in words.
      samples: some of the rows, as JSON.
      borne_by: names of `dags.spark.judged.GAPS`, with one of which it can be borne.
      accepted: the one that somebody said.
    """

    table: str
    rule: str
    snapshot: int
    failed: int
    detail: str = ""
    samples: tuple[str, ...] = ()
    borne_by: tuple[str, ...] = ()
    accepted: str = ""

    @property
    def passed(self) -> bool:
        return self.failed == 0 or self.accepted != ""

    def borne(self, accepted: Collection[str]) -> Finding:
        """The same; passed, and by which name, when it failed and is accepted."""
        name = next((name for name in self.borne_by if name in accepted), "")
        return replace(self, accepted=name) if self.failed and name else self

    def table_row(self, day: Any) -> tuple[Any, ...]:
        """For the table `quality`."""
        return (day, self.table, self.rule, self.snapshot, self.failed, self.detail, self.passed, self.accepted)

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        if self.failed and not self.accepted and self.borne_by:
            detail += f"; to accept that: --accept={self.borne_by[0]}"
        return f"{self.table}: {self.rule}: {self.failed:,} rows{detail}"


def check(
    spark: SparkSession, rows: DataFrame, published: DataFrame, table: Table, snapshot: int, day: Day, limits: Limits
) -> Iterator[Finding]:
    """
    Args:
      rows: the day's, staged.
      published: all that readers have of the table, for comparison with the days before.
    """
    rows.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        bad = {"no nulls in required columns": _any_null(table)}
        bad |= {rule: f"NOT coalesce({good}, false)" for rule, good in _GOOD[table.name].items()}
        # All in one pass; samples only of what failed.
        counts = rows.agg(F.count("*"), *(F.count_if(F.expr(condition)) for condition in bad.values())).first()
        for (rule, condition), failed in zip(bad.items(), counts[1:], strict=True):
            yield Finding(table.name, rule, snapshot, failed, samples=_samples(rows.where(condition)) if failed else ())
        rows.createOrReplaceTempView("staged_rows")
        for rule, query in _queries(table).items():
            found = spark.sql(query)
            failed = found.count()
            yield Finding(table.name, rule, snapshot, failed, samples=_samples(found) if failed else ())
        yield _row_count(counts[0], published, table, snapshot, day, limits)
        if table.name in _NEWEST:
            yield _freshness(rows, table, snapshot, day, limits)
    finally:
        rows.unpersist()


def _any_null(table: Table) -> str:
    return " OR ".join(f"{column.name} IS NULL" for column in table.columns if column.mode == "REQUIRED")


def _queries(table: Table) -> dict[str, str]:
    keys = ", ".join(table.key)
    query = f"SELECT {keys}, count(*) AS rows FROM staged_rows GROUP BY {keys} HAVING rows > 1"
    return {f"one row for each {keys}": query} | _QUERIES.get(table.name, {})


def _samples(bad: DataFrame) -> tuple[str, ...]:
    return tuple(bad.limit(_SAMPLE).toJSON().collect())


def _row_count(count: int, published: DataFrame, table: Table, snapshot: int, day: Day, limits: Limits) -> Finding:
    """Against the mean of the days before; small numbers say nothing."""
    rule = "as many rows as on the days before"
    column = table.partition_by
    before = within(column, day.before(_DAYS_BEFORE).start_ms, day.start_ms)
    by_day = published.where(before).groupBy(F.to_date(F.from_utc_timestamp(column, day.zone))).count().collect()
    counts = [row["count"] for row in by_day]
    if not counts:
        return Finding(table.name, rule, snapshot, 0, f"{count:,}; no day before to compare with")
    mean = sum(counts) / len(counts)
    detail = f"{count:,}; {mean:,.0f} a day on {len(counts)} days before"
    wrong = max(count, mean) >= _FEW and not mean / limits.row_count_factor <= count <= mean * limits.row_count_factor
    return Finding(
        table.name,
        rule,
        snapshot,
        int(wrong),
        detail,
        borne_by=("row_count", *(() if count else NONE[table.name])),
    )


def _freshness(rows: DataFrame, table: Table, snapshot: int, day: Day, limits: Limits) -> Finding:
    rule = "events up to the end of the day, or now"
    newest_ms = rows.selectExpr(f"max(unix_millis({_NEWEST[table.name]})) AS at").first()["at"]
    if newest_ms is None:
        return Finding(table.name, rule, snapshot, 1, "there are no rows", borne_by=NONE[table.name])
    behind_ms = min(day.end_ms, limits.now_ms) - newest_ms
    detail = f"the newest is {max(0, behind_ms) / 60_000:,.0f} min before that"
    return Finding(table.name, rule, snapshot, int(behind_ms > limits.freshness_ms), detail, borne_by=("freshness",))
