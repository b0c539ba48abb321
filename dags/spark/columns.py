"""The tables' columns in Spark's and Arrow's words, and rows as folders hold them ↔ rows with timestamps."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from schemas.tables import Column, Table

__all__ = ["arrow_schema", "ddl", "spark_type", "with_timestamps"]

_SPARK = {"STRING": "string", "INT64": "bigint", "FLOAT64": "double", "BOOL": "boolean", "TIMESTAMP": "timestamp"}
_ARROW = {"STRING": pa.string(), "INT64": pa.int64(), "FLOAT64": pa.float64(), "BOOL": pa.bool_()}
_ARROW["TIMESTAMP"] = pa.int64()


def spark_type(column: Column) -> str:
    kind = _SPARK[column.type]
    return f"array<{kind}>" if column.mode == "REPEATED" else kind


def ddl(columns: Sequence[Column]) -> str:
    """Of rows as folders hold them, with times as epoch milliseconds."""
    return ", ".join(f"{column.name} {spark_type(column).replace('timestamp', 'bigint')}" for column in columns)


def arrow_schema(columns: Sequence[Column]) -> pa.Schema:
    """The same."""
    kinds = [(column, _ARROW[column.type]) for column in columns]
    return pa.schema([(c.name, pa.list_(kind) if c.mode == "REPEATED" else kind) for c, kind in kinds])


def with_timestamps(rows: DataFrame, table: Table) -> DataFrame:
    """Rows as folders hold them → rows as tables do."""

    def value(column: Column) -> SparkColumn:
        found = F.col(column.name)
        return F.timestamp_millis(found).alias(column.name) if column.type == "TIMESTAMP" else found

    return rows.select([value(column) for column in table.columns])
