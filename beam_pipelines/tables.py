"""The analytics tables in BigQuery: create and alter them, or print them for other tools (Terraform).

    python -m beam_pipelines.tables show
    python -m beam_pipelines.tables show bigquery://project.dataset user_sessions --json
    python -m beam_pipelines.tables create bigquery://project.dataset
    python -m beam_pipelines.tables alter bigquery://project.dataset orders

`create` creates missing tables and views in an existing dataset and updates views; it never changes a table. `alter`
adds missing columns, if they are nullable, while jobs go on writing; it refuses any other difference. A wrong command
line, or a BigQuery that cannot be used, is reported in one line, with status 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from beam_pipelines.sinks import BigQueryUrl
from schemas.flags import Parser, UsageError
from schemas.tables import TABLES, Column, Table, current_view, resources

_MODULE = "beam_pipelines.tables"
_PLACEHOLDER = "bigquery://project-id.dataset"


def main(argv: Sequence[str] | None = None) -> None:
    parser = _parser()
    try:
        flags = parser.read(argv)
        url = BigQueryUrl.parse(flags.dataset)
        tables = _tables(flags.table)
        if flags.command == "show":
            _show(url, tables, flags.json)
        else:
            _change(flags.command, url, tables)
    except (UsageError, ValueError) as e:
        parser.stop(e)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"python -m {_MODULE}", description="Shows, creates or alters the analytics tables in BigQuery."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="show|create|alter")
    show = commands.add_parser("show", help="print columns and views")
    show.add_argument("dataset", nargs="?", default=_PLACEHOLDER, help="bigquery://project.dataset")
    show.add_argument("table", nargs="*", help="default: all")
    show.add_argument("--json", action="store_true", help="print the resources of BigQuery's REST API")
    for name, about in (
        ("create", "create missing tables and views"),
        ("alter", "add missing nullable columns"),
    ):
        command = commands.add_parser(name, help=about)
        command.add_argument("dataset", help="bigquery://project.dataset")
        command.add_argument("table", nargs="*", help="default: all")
    return parser


def _tables(names: Sequence[str]) -> list[Table]:
    for name in names:
        if name not in TABLES:
            raise UsageError(name, f"is not one of {', '.join(TABLES)}")
    return [TABLES[name] for name in names or TABLES]


def _change(command: str, url: BigQueryUrl, tables: Sequence[Table]) -> None:
    from transforms.io.bigquery import BigQueryUnusableError, alter_tables, create_tables

    change, did, nothing = {
        "create": (create_tables, "created", "nothing is missing"),
        "alter": (alter_tables, "added", "no column is missing"),
    }[command]
    try:
        changed = change(url.place, tables)
    except BigQueryUnusableError as e:
        raise UsageError(command, e) from e
    print(f"{url.place}: {did} {', '.join(changed)}" if changed else f"{url.place}: {nothing}")  # noqa: T201


def _show(url: BigQueryUrl, tables: Sequence[Table], as_json: bool) -> None:
    if as_json:
        made = {r["tableReference"]["tableId"]: r for table in tables for r in resources(table, url.place)}
        json.dump(made, sys.stdout, indent=2, ensure_ascii=False)
        print()  # noqa: T201
        return
    for table in tables:
        print(f"{url.place}.{table.name}, a partition per day of {table.partition_by}")  # noqa: T201
        print(f"  key {', '.join(table.key)}; clustered by {', '.join(table.cluster_by)}")  # noqa: T201
        for line in _lines(table.columns, "  "):
            print(line)  # noqa: T201
        print(f"{url.place}.{table.view}\n{current_view(table, url.place)}\n")  # noqa: T201


def _lines(columns: Sequence[Column], indent: str) -> list[str]:
    lines = []
    for column in columns:
        kind = column.type if column.mode == "REQUIRED" else f"{column.type} {column.mode}"
        lines.append(f"{indent}{column.name:<20} {kind:<18} {column.description}".rstrip())
        lines += _lines(column.fields, indent + "  ")
    return lines


if __name__ == "__main__":
    main()
