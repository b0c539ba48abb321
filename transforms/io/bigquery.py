"""BigQuery: appends rows to the tables of `schemas.tables`, and checks those tables before a job starts.

Which of Beam's methods writes, and what that guarantees: docs/adr/0012-bigquery.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import apache_beam as beam
import msgspec
import requests
from apache_beam.io.gcp.bigquery import BigQueryDisposition, WriteToBigQuery
from apache_beam.io.gcp.bigquery_tools import RetryStrategy
from apache_beam.options.pipeline_options import GoogleCloudOptions, StandardOptions
from apache_beam.transforms.window import GlobalWindows
from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery

from schemas.tables import Column, RowError, Table, as_field, from_bigquery, resources, to_bigquery
from transforms.errors import BadRecord, SinkLetters

__all__ = ["BigQueryUnusableError", "WriteToBigQueryTable", "alter_tables", "check_tables", "create_tables"]

_TIMEOUT_S = 20  # of one call before a job starts
_MOST_BYTES = 9 << 20  # of a row; a request to BigQuery may have 10 MB
# Of a whole call, and not for anything in its rows. Beam does not try again then, and gives the rows back as failed.
_NOT_THE_ROWS = frozenset(["Unauthorized", "Forbidden", "Not Found", "Not Implemented"])


class BigQueryUnusableError(Exception):
    """BigQuery cannot be reached or used, or its tables are not those of `schemas.tables`."""


class WriteToBigQueryTable(beam.PTransform):
    """Appends rows to a table.

    Load jobs for input with an end, when the pipeline's `--temp_location` is in `gs://`; else streaming inserts. Either
    way a row may be in the table more than once; `<table>_current` has it once.

    Input:  rows, in any windows.
    Output: BadRecord of stage `bigquery`: rows that are not of the table, that are too large, or that BigQuery refused;
            the payload is the row as JSON.
    Raises: in workers, RuntimeError while the table is not there or may not be written to: the runner tries again.

    Args:
      dataset: project.dataset.
      to_line: row → its JSON line in a folder.
      job: name written into dead letters.
    """

    def __init__(self, dataset: str, table: Table, to_line: Callable[[Any], bytes], job: str):
        super().__init__()
        self._dataset, self._table, self._to_line = dataset, table, to_line
        self._letters = SinkLetters(job, "bigquery", f"bigquery://{dataset}.{table.name}")

    def expand(self, rows: beam.PCollection[Any]) -> beam.PCollection[BadRecord]:
        made = rows | "ToRow" >> beam.ParDo(_ToRowFn(self._table, self._to_line, self._letters)).with_outputs(
            "bad", main="rows"
        )
        project, _, dataset = self._dataset.rpartition(".")
        loads = _can_load(rows.pipeline.options)
        written = (
            made.rows
            | "AllTime" >> beam.WindowInto(GlobalWindows())
            | "Append"
            >> WriteToBigQuery(
                project=project,
                dataset=dataset,
                table=self._table.name,
                method=WriteToBigQuery.Method.FILE_LOADS if loads else WriteToBigQuery.Method.STREAMING_INSERTS,
                create_disposition=BigQueryDisposition.CREATE_NEVER,
                write_disposition=BigQueryDisposition.WRITE_APPEND,
                insert_retry_strategy=RetryStrategy.RETRY_ON_TRANSIENT_ERROR,
            )
        )
        bad = made.bad | "BadAllTime" >> beam.WindowInto(GlobalWindows())
        bad.element_type = BadRecord
        if loads:
            return bad
        refused = written.failed_rows_with_errors | "Refused" >> beam.ParDo(_RefusedFn(self._table, self._letters))
        refused.element_type = BadRecord
        return (bad, refused) | "DeadLetters" >> beam.Flatten()


def _can_load(options: Any) -> bool:
    bounded = not options.view_as(StandardOptions).streaming
    return bounded and (options.view_as(GoogleCloudOptions).temp_location or "").startswith("gs://")


class _ToRowFn(beam.DoFn):
    def __init__(self, table: Table, to_line: Callable[[Any], bytes], letters: SinkLetters):
        self._table, self._to_line, self._letters = table, to_line, letters

    def process(self, element: Any) -> Iterator[Any]:
        line = self._to_line(element)
        try:
            if len(line) > _MOST_BYTES:
                raise RowError(f"the row has {len(line):,} bytes, more than {_MOST_BYTES:,}")
            row = to_bigquery(self._table, msgspec.json.decode(line))
        except RowError as e:
            yield beam.pvalue.TaggedOutput("bad", self._letters.letter(line, "RowError", str(e)))
        else:
            yield row


class _RefusedFn(beam.DoFn):
    def __init__(self, table: Table, letters: SinkLetters):
        self._table, self._letters = table, letters

    def process(self, failed: tuple[str, dict[str, Any], list[dict[str, str]] | str]) -> Iterator[BadRecord]:
        _, row, errors = failed
        if isinstance(errors, str):  # Beam's own, of a row that is too large
            errors = [{"reason": "tooLarge", "message": errors}]
        for error in errors:
            if error.get("reason") in _NOT_THE_ROWS:
                raise RuntimeError(f"{self._letters.where}: {error['reason']}: {error.get('message')}")
        line = msgspec.json.encode(from_bigquery(self._table, row))
        message = "; ".join(": ".join(filter(None, (e.get("location"), e.get("message")))) for e in errors)
        yield self._letters.letter(line, errors[0].get("reason", "unknown"), message)


def check_tables(dataset: str, tables: Iterable[Table]) -> None:
    """Looks whether rows of the tables can be written: they are there, with the columns that they should have.

    Raises:
      BigQueryUnusableError: with the reason in one line, at most some 20 s per table later.
    """
    with _explained(dataset):
        client = _client(dataset)
        for table in tables:
            _require_columns(client, dataset, table)


def create_tables(dataset: str, tables: Iterable[Table]) -> list[str]:
    """Makes tables and views that are not there, and brings the views up to date.

    Returns:
      The names of those it made.

    Raises:
      BigQueryUnusableError: also when a table is there with other columns; it is left as it is.
    """
    made = []
    with _explained(dataset):
        client = _client(dataset)
        there = {item.table_id for item in client.list_tables(dataset, retry=None, timeout=_TIMEOUT_S)}
        for table in tables:
            for name, resource in zip((table.name, table.view), resources(table, dataset), strict=True):
                wanted = bigquery.Table.from_api_repr(resource)
                if name not in there:
                    client.create_table(wanted, exists_ok=True, retry=None, timeout=_TIMEOUT_S)
                    made.append(name)
                elif name == table.view:
                    client.update_table(wanted, ["view_query"], retry=None, timeout=_TIMEOUT_S)
            _require_columns(client, dataset, table)
    return made


def alter_tables(dataset: str, tables: Iterable[Table]) -> list[str]:
    """Adds the columns that tables lack, and brings their views up to date. Jobs may write meanwhile.

    Returns:
      table.column of those it added.

    Raises:
      BigQueryUnusableError: also when a table differs in more than columns that may be null; none is changed then.
    """
    added: list[str] = []
    with _explained(dataset):
        client = _client(dataset)
        changed = []
        for table in tables:
            there = client.get_table(f"{dataset}.{table.name}", retry=None, timeout=_TIMEOUT_S)
            fields, more = _grown(table.columns, [field.to_api_repr() for field in there.schema])
            there.schema = [bigquery.SchemaField.from_api_repr(field) for field in fields]
            _compare(f"{dataset}.{table.name}", "", table.columns, there.schema)
            changed.append((table, there, [f"{table.name}.{path}" for path in more]))
        for table, there, more in changed:
            if more:
                client.update_table(there, ["schema"], retry=None, timeout=_TIMEOUT_S)
                added += more
            view = bigquery.Table.from_api_repr(resources(table, dataset)[1])
            client.update_table(view, ["view_query"], retry=None, timeout=_TIMEOUT_S)
    return added


def _grown(columns: Iterable[Column], found: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """A table's fields with the columns that it lacks and that may be null; and which those are, as paths."""
    there = {field["name"]: field for field in found}
    added = []
    for column in columns:
        field = there.get(column.name)
        if field is None and column.mode != "REQUIRED":
            there[column.name] = as_field(column)
            added.append(column.name)
        elif field is not None and column.fields:
            field["fields"], inner = _grown(column.fields, field.get("fields", []))
            added += [f"{column.name}.{path}" for path in inner]
    return [*there.values()], added


def _client(dataset: str) -> bigquery.Client:
    return bigquery.Client(project=dataset.rpartition(".")[0])


@contextmanager
def _explained(dataset: str) -> Iterator[None]:
    try:
        yield
    except (GoogleAPIError, GoogleAuthError, requests.RequestException) as e:
        message = getattr(e, "message", None) or (str(e.args[0]) if e.args else type(e).__name__)
        raise BigQueryUnusableError(f"{dataset}: {message.splitlines()[0]}") from e


def _require_columns(client: bigquery.Client, dataset: str, table: Table) -> None:
    found = client.get_table(f"{dataset}.{table.name}", retry=None, timeout=_TIMEOUT_S)
    _compare(f"{dataset}.{table.name}", "", table.columns, found.schema)


# BigQuery answers with the older names.
_TYPE_NAMES = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "STRUCT": "RECORD"}


def _compare(table: str, path: str, columns: Iterable[Column], found: Iterable[bigquery.SchemaField]) -> None:
    there = {field.name: field for field in found}

    def differs(name: str, what: str) -> NoReturn:
        raise BigQueryUnusableError(f"table {table}: column {path}{name} {what}")

    for column in columns:
        field = there.pop(column.name, None)
        if field is None:
            remedy = "and REQUIRED" if column.mode == "REQUIRED" else "see `python -m beam_pipelines.tables alter`"
            differs(column.name, f"is missing, {remedy}")
        if _TYPE_NAMES.get(field.field_type, field.field_type) != column.type:
            differs(column.name, f"is {field.field_type}, not {column.type}")
        if field.mode != column.mode and (field.mode, column.mode) != ("NULLABLE", "REQUIRED"):
            differs(column.name, f"is {field.mode}, not {column.mode}")
        _compare(table, f"{path}{column.name}.", column.fields, field.fields)
    for name, field in there.items():
        if field.mode == "REQUIRED":
            differs(name, "is required there, and not known here")
