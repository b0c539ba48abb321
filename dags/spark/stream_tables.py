"""The stream's results for a day: its rows in a folder or in BigQuery, the newest version of each key."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dags.spark import files
from dags.spark.columns import ddl, with_timestamps
from dags.spark.day import Day
from schemas.tables import Table

__all__ = ["current", "is_source", "rows"]

_BIGQUERY = re.compile(r"bigquery://([a-z][a-z0-9-]{4,28}[a-z0-9])\.(\w{1,1024})", re.ASCII)


def is_source(text: str) -> bool:
    return bool(_BIGQUERY.fullmatch(text)) or urlsplit(text).scheme in ("", "file", "gs")


def rows(spark: SparkSession, source: str, table: Table, day: Day) -> DataFrame:
    """Every row that the stream wrote of the day's keys. All versions of a key have the same time."""
    if bigquery := _BIGQUERY.fullmatch(source):
        # The connector that Dataproc's images have. Versions are compared here, for both sources alike, and not by the
        # view: reading a view needs a dataset for its results.
        read = spark.read.format("bigquery").option("filter", day.holds(table.partition_by))
        found = read.load(f"{bigquery[1]}.{bigquery[2]}.{table.name}").select([c.name for c in table.columns])
    else:
        # A stream that had nothing to say of a table has no folder for it.
        parts = files.match(spark, f"{source.rstrip('/')}/{table.name}/*.jsonl")
        read = spark.read.schema(ddl(table.columns)).option("mode", "FAILFAST")
        found = with_timestamps(read.json(parts), table)
    # Rows of a release that did not have such a column.
    renewed = {c.name: F.coalesce(c.name, F.lit(c.default)) for c in table.columns if c.default is not None}
    return found.where(day.holds(table.partition_by)).withColumns(renewed)


def current(rows: DataFrame, table: Table) -> DataFrame:
    """Of each key the newest version, and none whose newest says `deleted`.

    Versions that are equal say the same, or the largest of them is taken: the same one whatever the order.
    """
    newest = F.max(F.struct("version", *(c.name for c in table.columns if c.name != "version"))).alias("newest")
    found = rows.groupBy(*table.key).agg(newest).select("newest.*").select([c.name for c in table.columns])
    return found.where("deleted IS NOT TRUE") if table.deletes else found
