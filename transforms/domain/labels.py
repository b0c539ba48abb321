"""Labels: which orders were fraud, as a shop knows it in the end."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import msgspec

__all__ = ["LabelError", "parse_labels"]

_COLUMN = "order_id"


class LabelError(ValueError):
    """A file of labels that cannot be used; the message names the line."""


def parse_labels(text: str) -> frozenset[str]:
    """The ids of orders that were fraud: CSV with a column order_id, or JSON lines with a field of that name.

    Other columns and fields are ignored, but for the simulator's `kind`: only its fraud counts.

    Raises: LabelError.
    """
    text = text.removeprefix("\ufeff")
    found = frozenset(_of_json(text) if text.lstrip()[:1] == "{" else _of_csv(text))
    if not found:
        raise LabelError("holds no order ids")
    return found


def _of_json(text: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: an id may have any other sign
        if not line.strip():
            continue
        try:
            fields = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError) as e:
            raise LabelError(f"line {number}: not JSON: {e}") from e
        if not isinstance(fields, dict):
            raise LabelError(f"line {number}: not a JSON object")
        if fields.get("kind", "fraud") == "fraud":
            yield _id(fields.get(_COLUMN), number)


def _of_csv(text: str) -> Iterator[str]:
    head = text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    try:
        columns = [column.strip() for column in next(rows, [])]
        if _COLUMN not in columns:
            raise LabelError(f"line 1: neither JSON nor a header of CSV with a column {_COLUMN}")
        at = columns.index(_COLUMN)
        for row in rows:
            if any(row):
                yield _id(row[at].strip() if at < len(row) else None, rows.line_num)
    except csv.Error as e:
        raise LabelError(f"line {rows.line_num}: {e}") from e


def _id(value: object, number: int) -> str:
    if not isinstance(value, str) or not value:
        raise LabelError(f"line {number}: no {_COLUMN}")
    return value
