"""The Iceberg tables: a day is staged on a branch and published in one commit.

Each table has a branch per day, `audit_YYYYMMDD`: a day is staged there, in place of what the branch and the table had
of that day, and looked at there by the gates. Publishing moves the table on to the branch; nothing is copied, and what
readers get is what the gates saw. See docs/adr/0020.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Literal

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dags.spark.columns import spark_type
from dags.spark.day import Day
from schemas.tables import Column, Table

__all__ = ["COMPUTED", "Lake", "LakeError"]

COMPUTED = ("fraud_alerts", "user_sessions", "real_time_revenue")
"""The tables that are computed, staged and published; of `schemas.tables`."""

_PROPERTIES = {
    "format-version": 2,
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": 100,
}
# A day that is not published in that time is forgotten, and its files go with the snapshot.
_KEEP_STAGED = "30 DAYS"
_LANDED = "streamforge.landed"


class LakeError(Exception):
    """The tables are not as they must be; the message says which and why."""


class Lake:
    """The tables of one namespace.

    Args:
      catalog: its name in Spark.
    """

    def __init__(self, spark: SparkSession, catalog: str, namespace: str):
        self._spark, self._catalog, self._namespace = spark, catalog, namespace

    def name(self, table: str) -> str:
        return f"{self._catalog}.{self._namespace}.{table}"

    def exists(self, table: str) -> bool:
        return bool(self._spark.catalog.tableExists(self.name(table)))

    def make(self, table: str, columns: str, partition_by: str) -> None:
        """Makes a table if it is not there, or gives it the columns that were added since.

        Args:
          columns, partition_by: as in SQL.
        """
        properties = ", ".join(f"'{key}' = '{value}'" for key, value in _PROPERTIES.items())
        self._spark.sql(f"CREATE NAMESPACE IF NOT EXISTS {self._catalog}.{self._namespace}")
        self._spark.sql(
            f"CREATE TABLE IF NOT EXISTS {self.name(table)} ({columns}) USING iceberg "
            f"PARTITIONED BY ({partition_by}) TBLPROPERTIES ({properties})"
        )
        known = self._spark.table(self.name(table)).columns
        if new := [f for f in self._spark.createDataFrame([], columns).schema if f.name not in known]:
            added = ", ".join(f"{field.name} {field.dataType.simpleString()}" for field in new)
            self._spark.sql(f"ALTER TABLE {self.name(table)} ADD COLUMNS ({added})")

    def prepare(self, table: Table) -> None:
        """Makes a table of `schemas.tables`, or gives it the columns that were added since it was made.

        Raises:
          LakeError: a column has another type than the table's.
        """
        if not self.exists(table.name):
            self.make(table.name, ", ".join(map(_column, table.columns)), f"days({table.partition_by})")
        known = dict(self._spark.table(self.name(table.name)).dtypes)
        for column in table.columns:
            if known.get(column.name, spark_type(column)) != spark_type(column):
                raise LakeError(
                    f"{self.name(table.name)}: column {column.name} is {known[column.name]}, not {spark_type(column)}; "
                    "columns may be added, not changed"
                )
        if new := [_column(column) for column in table.columns if column.name not in known]:
            self._spark.sql(f"ALTER TABLE {self.name(table.name)} ADD COLUMNS ({', '.join(new)})")

    def stage(self, table: Table, day: Day, rows: DataFrame, landed: int) -> None:
        """Puts the day's rows on the day's branch, which begins with the table as it is now.

        Args:
          landed: what `staged_landed` shall say.
        """
        name = self.name(table.name)
        if "main" not in self._heads(
            table.name
        ):  # a branch can be replaced only where there is something to begin with
            self._spark.table(name).where("false").writeTo(name).append()
        self._spark.sql(f"ALTER TABLE {name} CREATE OR REPLACE BRANCH {day.branch} RETAIN {_KEEP_STAGED}")
        self._replace(table, day, rows, f"branch_{day.branch}", {_LANDED: str(landed)})

    def _replace(
        self, table: Table, day: Day, rows: DataFrame, where: str = "", summary: Mapping[str, str] | None = None
    ) -> None:
        """Puts rows in place of what the table, or a branch of it, has of the day.

        Partitions are days of UTC. One that is also of another day of the shop is written whole: Iceberg could not
        delete a part of a file, and maintenance puts the files of a partition together.
        """
        column, name = table.partition_by, f"{table.name}.{where}".rstrip(".")
        if day.holds(column) != day.touches(column):
            others = f"{day.touches(column)} AND NOT ({day.holds(column)})"
            rows = rows.unionByName(self._spark.table(self.name(name)).where(others), allowMissingColumns=True)
        self.overwrite(name, rows, day.touches(column), summary)

    def overwrite(self, table: str, rows: DataFrame, where: str, summary: Mapping[str, str] | None = None) -> None:
        """Replaces, in one commit, what the table has there. Unlike a dynamic overwrite, also by nothing."""
        write = rows.writeTo(self.name(table))
        for key, value in (summary or {}).items():
            write = write.option(f"snapshot-property.{key}", value)
        write.overwrite(F.expr(where))

    def staged(self, table: Table, day: Day) -> DataFrame:
        """The day's rows on its branch.

        Raises:
          LakeError: nothing is staged.
        """
        self.staged_snapshot(table, day)
        return self._spark.sql(
            f"SELECT * FROM {self.name(table.name)} VERSION AS OF '{day.branch}' WHERE {day.holds(table.partition_by)}"
        )

    def staged_snapshot(self, table: Table, day: Day) -> int:
        """Of the branch.

        Raises:
          LakeError: nothing is staged.
        """
        found = self._heads(table.name).get(day.branch) if self.exists(table.name) else None
        if found is None:
            raise LakeError(f"{self.name(table.name)} has no branch {day.branch}: run the step compute for {day} first")
        return found

    def staged_landed(self, table: Table, day: Day) -> int:
        """How many records the staged rows were computed from that replay sent back too late for the stream.

        Raises:
          LakeError: nothing is staged.
        """
        snapshot = self.staged_snapshot(table, day)
        said = f"SELECT summary['{_LANDED}'] AS landed FROM {self.name(table.name)}.snapshots"
        rows = self._spark.sql(f"{said} WHERE snapshot_id = {snapshot}").collect()
        return int(rows[0]["landed"] or 0) if rows else 0

    def publish(self, table: Table, day: Day) -> Literal["published", "was published"]:
        """Shows readers what is staged, in one commit."""
        name, staged = self.name(table.name), self.staged_snapshot(table, day)
        main = self._heads(table.name).get("main")
        if staged in self._line(table.name, main):
            return "was published"
        if main is None or main in self._line(table.name, staged):
            within = f"{self._namespace}.{table.name}"
            self._spark.sql(f"CALL {self._catalog}.system.fast_forward('{within}', 'main', '{day.branch}')")
        else:  # another day was published, or the table compacted, since this one was staged
            self._replace(table, day, self.staged(table, day).select(self._spark.table(name).columns))
        return "published"

    def maintain(self, table: str, before: datetime) -> dict[str, int]:
        """Puts a day's small files together, and forgets snapshots from before, with the files that only they have.

        What is staged and not published stays as long as its branch does.
        """
        within, procedures = f"{self._namespace}.{table}", f"CALL {self._catalog}.system"
        options = "options => map('min-input-files', '2')"
        compacted = self._spark.sql(f"{procedures}.rewrite_data_files(table => '{within}', {options})").first()
        older = f"older_than => TIMESTAMP '{before:%Y-%m-%d %H:%M:%S.%f}Z'"
        expired = self._spark.sql(f"{procedures}.expire_snapshots(table => '{within}', {older})").first()
        return {
            "files put together": compacted["rewritten_data_files_count"],
            "into": compacted["added_data_files_count"],
            "files deleted": expired["deleted_data_files_count"],
        }

    def _heads(self, table: str) -> dict[str, int]:
        refs = self._spark.sql(f"SELECT name, snapshot_id FROM {self.name(table)}.refs").collect()
        return {ref["name"]: ref["snapshot_id"] for ref in refs}

    def _line(self, table: str, snapshot: int | None) -> Iterator[int]:
        """A snapshot and those that it came from."""
        rows = self._spark.sql(f"SELECT snapshot_id, parent_id FROM {self.name(table)}.snapshots").collect()
        parents = {row["snapshot_id"]: row["parent_id"] for row in rows}
        while snapshot is not None:
            yield snapshot
            snapshot = parents.get(snapshot)


def _column(column: Column) -> str:
    comment = column.description.replace("'", "’")
    return f"{column.name} {spark_type(column)}" + (f" COMMENT '{comment}'" if comment else "")
