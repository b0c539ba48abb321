"""The analytics tables in BigQuery: names, columns, keys, partitions and views, for pipelines, Terraform and tests.

A table's columns are the fields of its record's Avro schema, with their docs, and `version`. A row in a folder (JSON
lines) has the same names; only times differ: epoch milliseconds there, TIMESTAMP in BigQuery (`to_bigquery`).

Tables are append-only. A row is one version of its key, and may occur more than once. Readers use `<table>_current`,
which has the newest version of each key, once, without keys whose newest version is `deleted`. A version is a number
or, for database changes, text.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import msgspec

from schemas import jobs
from schemas.avro_of import schema_of
from schemas.features import rfc3339
from schemas.jobs import Rows
from schemas.times import clamp_ms

__all__ = [
    "TABLES",
    "Column",
    "RowError",
    "Table",
    "as_field",
    "columns_of",
    "current_view",
    "from_bigquery",
    "resources",
    "table",
    "to_bigquery",
]

Type = Literal["STRING", "INT64", "FLOAT64", "BOOL", "TIMESTAMP", "RECORD"]
Mode = Literal["REQUIRED", "NULLABLE", "REPEATED"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class RowError(ValueError):
    """A row is not one of its table."""


class Column(msgspec.Struct, frozen=True):
    """
    Attributes:
      default: text that rows mean which were written before there was such a column.
    """

    name: str
    type: Type
    mode: Mode = "REQUIRED"
    description: str = ""
    fields: tuple[Column, ...] = ()
    default: str | None = None


class Table(msgspec.Struct, frozen=True):
    """A table and its view `<name>_current`.

    Attributes:
      key: one row of these columns is current: the one with the greatest `version`.
      partition_by: TIMESTAMP column; a partition per day.
      day_of_key: all versions of a key have the same `partition_by`. Then a reader of the view who asks for some days
        pays for those; else the view must look for newer versions everywhere.
      cluster_by: at most four columns.
      emptied_by: columns; a row with `op` t takes away all older rows that have the same values there.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition_by: str
    day_of_key: bool
    cluster_by: tuple[str, ...]
    emptied_by: tuple[str, ...] = ()

    @property
    def view(self) -> str:
        return f"{self.name}_current"

    @property
    def deletes(self) -> bool:
        """Whether a newer version can take a key away."""
        return any(column.name == "deleted" for column in self.columns)


_TYPES: Final[dict[str, Type]] = {
    "string": "STRING",
    "int": "INT64",
    "long": "INT64",
    "double": "FLOAT64",
    "boolean": "BOOL",
}
_VERSION = Column("version", "INT64", description="The greatest of a key counts.")


def columns_of(record: dict[str, Any]) -> tuple[Column, ...]:
    """The columns of a table of such records, by their Avro schema."""
    columns = _columns(record)
    return columns if any(column.name == "version" for column in columns) else (*columns, _VERSION)


def _columns(record: dict[str, Any]) -> tuple[Column, ...]:
    return tuple(_column(field) for field in record["fields"])


def _column(field: dict[str, Any]) -> Column:
    """The column of an Avro field. One with a default may be null, as it is in rows written before there was such."""
    name, kind = field["name"], field["type"]
    mode: Mode = "NULLABLE" if "default" in field else "REQUIRED"
    if isinstance(kind, list):
        kind = next(branch for branch in kind if branch != "null")
    if isinstance(kind, dict) and kind["type"] == "array":
        kind, mode = kind["items"], "REPEATED"
    doc = field.get("doc", "")
    if isinstance(kind, str):
        default = field.get("default")
        return Column(name, _TYPES[kind], mode, doc, default=default if isinstance(default, str) else None)
    if kind["type"] == "record":
        return Column(name, "RECORD", mode, doc, _columns(kind))
    if kind["type"] == "enum":
        return Column(name, "STRING", mode, doc or f"{', '.join(kind['symbols'])}.")
    timestamp = kind.get("logicalType") == "timestamp-millis"
    return Column(name, "TIMESTAMP" if timestamp else _TYPES[kind["type"]], mode, doc)


def table(rows: Rows) -> Table:
    return Table(
        rows.name,
        columns_of(schema_of(rows.record)),
        rows.key,
        rows.day,
        rows.day_of_key,
        rows.cluster_by,
        rows.emptied_by,
    )


TABLES: Final[dict[str, Table]] = {name: table(rows) for name, rows in jobs.TABLES.items()}


def resources(table: Table, dataset: str) -> list[dict[str, Any]]:
    """The table and its view as BigQuery's REST API wants them; Terraform takes `schema` and `query` from here.

    Args:
      dataset: project.dataset.
    """
    project, _, dataset_id = dataset.rpartition(".")
    where = {"projectId": project, "datasetId": dataset_id}
    return [
        {
            "tableReference": {**where, "tableId": table.name},
            "schema": {"fields": [as_field(column) for column in table.columns]},
            "timePartitioning": {"type": "DAY", "field": table.partition_by},
            "clustering": {"fields": list(table.cluster_by)},
        },
        {
            "tableReference": {**where, "tableId": table.view},
            "view": {"query": current_view(table, dataset), "useLegacySql": False},
        },
    ]


def as_field(column: Column) -> dict[str, Any]:
    """The column as BigQuery's REST API has it."""
    found: dict[str, Any] = {"name": column.name, "type": column.type, "mode": column.mode}
    if column.description:
        found["description"] = column.description
    if column.fields:
        found["fields"] = [as_field(field) for field in column.fields]
    return found


def current_view(table: Table, dataset: str) -> str:
    """The query of `<table>_current`.

    Versions that are equal are told apart by their whole contents, so that every reader gets the same one.

    Args:
      dataset: project.dataset.
    """
    renewed = {c.name: f"IFNULL({c.name}, '{c.default}')" for c in table.columns if c.default is not None}
    one_per = [renewed.get(name, name) for name in table.key]
    if table.day_of_key and table.partition_by not in one_per:
        one_per.append(table.partition_by)  # changes no result; lets BigQuery skip the days that nobody asks for
    query = (
        f"SELECT * FROM `{dataset}.{table.name}` AS row_version WHERE TRUE\n"  # noqa: S608
        f"QUALIFY ROW_NUMBER() OVER (PARTITION BY {', '.join(one_per)} "
        "ORDER BY version DESC, TO_JSON_STRING(row_version)) = 1"
    )
    if table.emptied_by:
        query += (
            "\nAND version >= IFNULL(MAX(IF(op = 't', version, NULL)) "
            f"OVER (PARTITION BY {', '.join(table.emptied_by)}), '')"
        )
    if not (renewed or table.deletes):
        return query
    replace = ", ".join(f"{value} AS {name}" for name, value in renewed.items())
    query = f"SELECT *{f' REPLACE ({replace})' if replace else ''} FROM (\n{query}\n)"  # noqa: S608
    return f"{query} WHERE deleted IS NOT TRUE" if table.deletes else query


def to_bigquery(table: Table, row: Any) -> dict[str, Any]:
    """A folder row as BigQuery takes it in JSON: times as RFC 3339 with milliseconds, everything else as it is.

    Raises:
      RowError: it has a column that the table has not, lacks one, or a value is of another type or out of range.
    """
    return _record(table.columns, row, "")


def _record(columns: tuple[Column, ...], row: Any, path: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise RowError(f"{path.rstrip('.') or 'the row'} is {type(row).__name__}, not an object")
    found: dict[str, Any] = {}
    for column in columns:
        value = row.get(column.name)
        if column.mode == "REPEATED":
            if not isinstance(value, list):
                raise RowError(f"{path}{column.name} is {type(value).__name__}, not an array")
            found[column.name] = [_value(column, each, path) for each in value]
        elif value is not None:
            found[column.name] = _value(column, value, path)
        elif column.mode == "REQUIRED":
            raise RowError(f"{path}{column.name} is missing")
        else:
            found[column.name] = None
    if unknown := row.keys() - found.keys():
        raise RowError(f"{path}{min(unknown)} is not a column")
    return found


def _value(column: Column, value: Any, path: str) -> Any:
    match column.type:
        case "STRING" if isinstance(value, str):
            return value
        case "INT64" if type(value) is int:
            if -(1 << 63) <= value < 1 << 63:
                return value
            raise RowError(f"{path}{column.name} is out of range: {value}")
        case "TIMESTAMP" if type(value) is int:
            if clamp_ms(value) == value:
                return rfc3339(value)
            raise RowError(f"{path}{column.name} is out of range: {value}")
        case "BOOL" if isinstance(value, bool):
            return value
        case "FLOAT64" if isinstance(value, float) or type(value) is int:
            if math.isfinite(value):
                return value
            raise RowError(f"{path}{column.name} is out of range: {value}")
        case "RECORD":
            return _record(column.fields, value, f"{path}{column.name}.")
    raise RowError(f"{path}{column.name} is {type(value).__name__}, not {column.type}")


def from_bigquery(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    """The folder row again: the inverse of `to_bigquery`."""
    return _back(table.columns, row)


def _back(columns: tuple[Column, ...], row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for column in columns:
        value = row[column.name]
        if column.type == "RECORD":
            found[column.name] = [_back(column.fields, each) for each in value]
        elif column.type == "TIMESTAMP" and value is not None:
            found[column.name] = (datetime.fromisoformat(value) - _EPOCH) // timedelta(milliseconds=1)
        else:
            found[column.name] = value
    return found
