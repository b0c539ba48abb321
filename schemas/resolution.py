"""Maps a writer's columns to ours, so that producers a version behind or ahead stay on the fast path.

By Avro's rules of schema resolution, where they cost no record anything: fields have any order, what the writer adds
is ignored, what it lacks has its default, and an enum may have fewer symbols. Anything else (promotions, aliases, other
unions) is for `codec.Decoder`, one record at a time.
"""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import fastavro
import numpy as np

from schemas import columns
from schemas.codec import SCHEMA_ERRORS, parse_schema
from schemas.columns import Columns

__all__ = ["Resolution", "resolve"]

_PRIMITIVE = frozenset(["null", "boolean", "int", "long", "float", "double", "string", "bytes"])


class _Fill(NamedTuple):
    """A column that the writer lacks.

    Attributes:
      array: the path of the array whose items it is of; '' for a field of the record itself.
      value: a number, or the bytes of a string; None: an array without items.
    """

    path: str
    array: str
    value: int | bytes | None


class Resolution(NamedTuple):
    """How data of a writer become columns of the reader.

    Attributes:
      steps: for `columns.decode_columns`.
      symbols: the writer's, of each enum.
      suffix: what makes a datum one that the reader's schema would have written; None: it takes more than that.
    """

    steps: Any
    symbols: dict[str, list[str]]
    fills: tuple[_Fill, ...]
    suffix: bytes | None

    def decode(self, data: bytes, starts: columns.Ints, ends: columns.Ints) -> Columns:
        """The records at `data[starts[i]:ends[i]]`, with the reader's columns."""
        found = columns.decode_columns(data, starts, ends, self.steps)
        for path, array, value in self.fills:
            count = len(found.rows[array]) if array else len(starts)
            if array and not count:
                continue
            if value is None:
                found.rows[path] = np.zeros(0, np.int64)
            elif isinstance(value, int):
                found.ints[path] = np.full(count, value, np.int64)
            else:
                begin = len(found.data) if value else 0
                found.spans[path] = np.full(count, begin, np.int64), np.full(count, begin + len(value), np.int64)
                if value:
                    found.data += value
        return found


class _UnequalError(Exception):
    """Columns cannot do it."""


def resolve(writer: Any, reader: dict[str, Any]) -> Resolution | None:
    """None when data of this writer must be read one at a time. Both schemas are as `codec.parse_schema` gives them."""
    symbols: dict[str, list[str]] = {}
    fills: list[_Fill] = []
    try:
        _match(writer, reader, "", "", symbols, fills)
        return Resolution(columns.plan(writer), symbols, tuple(fills), _suffix(writer, reader))
    except (_UnequalError, columns.UnsupportedSchemaError):
        return None


def _match(writer: Any, reader: Any, path: str, array: str, symbols: dict[str, list[str]], fills: list[_Fill]) -> None:
    """Raises: _UnequalError."""
    writer, reader = _unwrapped(writer), _unwrapped(reader)
    if _kind(writer) != _kind(reader):
        raise _UnequalError(path)
    match _kind(reader):
        case "record":
            if _name(writer) != _name(reader):
                raise _UnequalError(path)
            there = {field["name"]: field["type"] for field in writer["fields"]}
            for field in reader["fields"]:
                inner = f"{path}.{field['name']}" if path else field["name"]
                if field["name"] in there:
                    _match(there[field["name"]], field["type"], inner, array, symbols, fills)
                elif "default" in field and not there.keys() & set(field.get("aliases", ())):
                    _fill(field["type"], field["default"], inner, array, fills)
                else:
                    raise _UnequalError(inner)
        case "enum":
            if _name(writer) != _name(reader) or not set(writer["symbols"]) <= set(reader["symbols"]):
                raise _UnequalError(path)
            symbols[path] = writer["symbols"]
        case "array":
            _match(writer["items"], reader["items"], path, path, symbols, fills)
        case "union":
            if len(writer) != len(reader):
                raise _UnequalError(path)
            for their_branch, branch in zip(writer, reader, strict=True):
                _match(their_branch, branch, path, array, symbols, fills)
        case kind if kind not in _PRIMITIVE:
            raise _UnequalError(path)


def _fill(schema: Any, default: Any, path: str, array: str, fills: list[_Fill]) -> None:
    """Adds the columns of a field that has its default. Raises: _UnequalError: it has none that columns can hold."""
    schema = _unwrapped(schema)
    match _kind(schema):
        case "union" if len(schema) == 2 and "null" in schema:
            branch = schema[1 - schema.index("null")]
            fills.append(_Fill(f"{path}?", array, int(default is not None)))
            _fill(branch, default, path, array, fills)
        case "boolean" | "int" | "long":
            fills.append(_Fill(path, array, int(default or 0)))
        case "string":
            fills.append(_Fill(path, array, (default or "").encode()))
        case "enum":
            fills.append(_Fill(path, array, schema["symbols"].index(default) if default is not None else 0))
        case "array" if not default and not array:
            fills.append(_Fill(path, array, None))
        case "float" | "double" | "null":
            pass  # of these there are no columns
        case _:
            raise _UnequalError(path)


def _suffix(writer: Any, reader: dict[str, Any]) -> bytes | None:
    """What follows a datum when all that the reader has more are fields at the end."""
    theirs = [(field["name"], field["type"]) for field in writer["fields"]]
    ours = [(field["name"], field["type"]) for field in reader["fields"]]
    if ours[: len(theirs)] != theirs:
        return None
    out = io.BytesIO()
    try:
        more = {**reader, "fields": reader["fields"][len(theirs) :]}
        fastavro.schemaless_writer(out, parse_schema(more), {})
    except SCHEMA_ERRORS:
        return None
    return out.getvalue()


def _kind(schema: Any) -> str:
    if isinstance(schema, list):
        return "union"
    return str(schema["type"] if isinstance(schema, dict) else schema)


def _unwrapped(schema: Any) -> Any:
    """{"type": {"type": "string"}} is a string."""
    while isinstance(schema, dict) and not isinstance(schema["type"], str):
        schema = schema["type"]
    return schema


def _name(schema: dict[str, Any]) -> str:
    """The name that has to match, which is the one without its namespace."""
    return str(schema["name"]).rpartition(".")[2]
