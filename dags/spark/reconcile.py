"""Compares stream and batch row by row: rows that match, differ, or are missing from or extra in the stream.

A session that was going on when the batch read it, and of which the stream knows more by now, is `open`: no difference,
unless the stream knows less in anything.

A row that replay explains is none of these. Records that it sent back too late for the stream are in the archive, and
so in the batch alone. `late` is a row that such a record is about, and that the stream has just as the batch would have
it without those records.

Not compared is what says how a result came about and not what it is: panes and versions, when an alert was detected,
and which of a user's earlier orders it names (the stream names those that had come by then).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from dags.spark.comparison import KINDS, Comparison, Tolerance, parts_of
from schemas.currencies import DEFAULT
from schemas.tables import Table

__all__ = ["DDL", "TABLE", "Replayed", "compare"]

TABLE = "reconciliation"
DDL = ", ".join(
    [
        *("day DATE", "table_name STRING", "part STRING", "snapshot_id BIGINT COMMENT 'What was compared.'"),
        *(f"{kind}_rows BIGINT" for kind in KINDS),
        *("batch_amount_minor DECIMAL(38,0)", "stream_amount_minor DECIMAL(38,0)"),
        *(f"{kind}_amount_minor DECIMAL(38,0)" for kind in KINDS),
        "passed BOOLEAN COMMENT 'Of the table.'",
        "landed BIGINT COMMENT 'Records that replay sent back too late for the stream, as the batch knew them.'",
        "currency STRING COMMENT 'Of the amounts; null in rows of releases that called every amount lira.'",
    ]
)

_NOT_COMPARED = {"pane", "version", "deleted", "detected_at", "description", "related_events"}
# The amount of a row, and what rows of a table are told apart by in the account: sums over all three dimensions of
# revenue would say nothing.
_AMOUNT = {"fraud_alerts": "amount_minor", "user_sessions": "revenue_minor", "real_time_revenue": "gmv_minor"}
_PART = {"fraud_alerts": "alert_type", "real_time_revenue": "dimension"}
_SAMPLE = 10
# What only grows while a session goes on.
_GROW = ("session_end", "duration_seconds", "page_views", "product_views", "add_to_carts", "purchases", "revenue_minor")


class Replayed(NamedTuple):
    """What explains a row that the stream could not have as the batch has it.

    Attributes:
      count: records that replay sent back too late for the stream.
      about: values of one column of the table, in which such a record may have changed rows.
      without: the batch's rows without those records.
    """

    count: int
    about: DataFrame
    without: DataFrame


def compare(
    batch: DataFrame,
    stream: DataFrame,
    table: Table,
    snapshot: int,
    tolerance: Tolerance,
    replayed: Replayed | None = None,
    currency: str = DEFAULT,
) -> Comparison:
    """
    Args:
      currency: the shop's: of the amounts of sessions, as clicks name none.
      batch, stream: rows of the table, of each key one.
      snapshot: where the batch's rows are from.
      replayed: None when replay sent nothing back too late.
    """
    keys = list(table.key)
    names = [column.name for column in table.columns]
    compared = [c.name for c in table.columns if c.name not in _NOT_COMPARED and c.name not in keys]
    amount, part = _AMOUNT[table.name], _PART.get(table.name)

    def side(rows: DataFrame, name: str) -> DataFrame:
        how = [F.struct("pane", "version").alias(f"{name}_is")] if table.name == "user_sessions" else []
        return rows.select(F.struct(keys).alias("key"), F.struct(compared).alias(name), *how)

    kind = (
        F.when(F.col("batch").eqNullSafe(F.col("stream")), "match")
        .when(F.col("explained"), "late")
        .when(F.col("stream").isNull(), "missing")
        .when(F.col("batch").isNull(), "extra")
        .when(_went_on() if table.name == "user_sessions" else F.lit(False), "open")
        .otherwise("differ")
    )
    of_batch, of_stream = (
        F.coalesce(F.col(f"{name}.{amount}"), F.lit(0)).cast("decimal(38,0)") for name in ("batch", "stream")
    )

    def of_row(name: str) -> Column:
        return F.col(f"key.{name}") if name in keys else F.coalesce(f"batch.{name}", f"stream.{name}")

    label = F.lit("*") if part is None else of_row(part)
    money = of_row("currency") if "currency" in names else F.lit(currency)
    pairs = side(batch, "batch").join(side(stream, "stream"), "key", "full")
    if replayed is None:
        pairs = pairs.withColumn("explained", F.lit(False))
    else:
        pairs = _explained(pairs, side(replayed.without, "without"), replayed.about, keys)
    joined = (
        pairs.select("key", "batch", "stream", kind.alias("kind"), label.alias("part"), money.alias("currency"))
        .select("*", of_batch.alias("batch_amount"), of_stream.alias("stream_amount"))
        .persist(StorageLevel.MEMORY_AND_DISK)
    )
    try:
        sums = joined.groupBy("part", "currency", "kind").agg(
            F.count("*").alias("rows"),
            F.sum(F.abs(F.col("batch_amount") - F.col("stream_amount"))).alias("apart"),
            F.sum("batch_amount").alias("batch"),
            F.sum("stream_amount").alias("stream"),
        )
        found = Comparison(table.name, snapshot, parts_of(sums.collect()), tolerance, replayed.count if replayed else 0)
        return replace(found, samples=_samples(joined, found, compared))
    finally:
        joined.unpersist()


def _went_on() -> Column:
    """Whether the session was going on for the batch, and has only grown since."""
    went_on = (F.col("batch_is.pane") == "EARLY") & (F.col("stream_is.version") >= F.col("batch_is.version"))
    for column in _GROW:
        went_on &= F.col(f"stream.{column}") >= F.col(f"batch.{column}")
    return went_on


def _explained(pairs: DataFrame, without: DataFrame, about: DataFrame, keys: list[str]) -> DataFrame:
    """The pairs, each with whether the stream has the row just as the batch would without what came too late."""
    (column,) = about.columns
    value = F.col(f"key.{column}") if column in keys else F.coalesce(f"batch.{column}", f"stream.{column}")
    known = about.select(F.col(column).alias("about"), F.lit(True).alias("is_about"))
    return (
        pairs.join(without, "key", "left")
        .withColumn("about", value)
        .join(known, "about", "left")
        .withColumn("explained", F.col("is_about").isNotNull() & F.col("stream").eqNullSafe(F.col("without")))
    )


def _samples(joined: DataFrame, found: Comparison, compared: list[str]) -> list[dict[str, Any]]:
    samples = []
    for kind in KINDS[1:]:
        if found.rows(kind):
            rows = joined.where(F.col("kind") == kind).orderBy("key").limit(_SAMPLE).collect()
            for row in rows:
                batch, stream = (row[side].asDict() if row[side] else {} for side in ("batch", "stream"))
                apart = [c for c in compared if batch.get(c) != stream.get(c)]
                samples.append(
                    {
                        "kind": kind,
                        "key": row["key"].asDict(),
                        "batch": {c: batch[c] for c in apart if c in batch},
                        "stream": {c: stream[c] for c in apart if c in stream},
                    }
                )
    return samples
