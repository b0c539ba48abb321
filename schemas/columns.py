"""Thousands of Avro records at once, as columns.

One record at a time, even a compiled Avro reader takes 5 µs, more than everything else in reading Kafka. Here every
step of the writer's schema is taken for all records at once with numpy: a string field of 2,000 records is one vector.
Measured on an order with two items: about 1 µs a record, all fields checked (`python -m bench decode` compares).

It marks as not ok what it does not support (maps, unions other than `[null, x]`, recursive types, very long arrays) and
every record that it cannot decode exactly. The caller passes those to `codec.Decoder`, which also says what is wrong.
So this module never decides that a record is bad, only that it is good. No schema or datum can keep it busy: nothing
recurses, array items take bytes, and there are at most `_MOST_ROUNDS` rounds.

Long, as the passes over the bytes share their arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.walk import takes_bytes

__all__ = ["Columns", "UnsupportedSchemaError", "decode_columns", "plan"]

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# Once fewer records than this are still inside an array, vector steps no longer pay: the rest goes record by record.
_FEWEST_IN_ARRAY = 8
_MOST_ROUNDS = 250  # longer arrays gain nothing here, and their columns take many times their bytes of memory
_MOST_COLUMNS = 1_000
_PAD = 16  # zero bytes behind the data, so that a record that ran over its end reads zeros


class UnsupportedSchemaError(Exception):
    """The writer schema has a construct that cannot be read by columns."""


@dataclass
class Columns:
    """Fields of n records, by dotted path (`total_amount_minor`, `items.quantity`).

    Attributes:
      ok: [n] the record was decoded exactly: every byte used, every string UTF-8, every enum and union index valid.
      ints: int, long, boolean and enum-index fields; 0 for null. Fields of array items are flat, with
        `rows[path of array]`; there is no column when no record has an item. `ints["path?"]` of a field that may be
        null: 1 where it is not.
      spans: string fields, as start and end in `data`; (0, 0) for null.
      rows: for each array path, the record number of each flat item.
      data: the bytes.
    """

    ok: Bools
    data: bytes
    ints: dict[str, Ints] = field(default_factory=dict)
    spans: dict[str, tuple[Ints, Ints]] = field(default_factory=dict)
    rows: dict[str, Ints] = field(default_factory=dict)

    def texts(self, path: str, chosen: Ints) -> list[str]:
        """The strings of a field for the chosen records; valid only where `ok`."""
        starts, ends = self.spans[path]
        data = self.data
        return [data[s:e].decode() for s, e in zip(starts[chosen].tolist(), ends[chosen].tolist(), strict=True)]

    def equals(self, path: str, chosen: Ints, text: str) -> Bools:
        """Whether the string field of each chosen record is `text`."""
        want = text.encode()
        starts, ends = (bound[chosen] for bound in self.spans[path])
        data: npt.NDArray[np.uint8] = np.frombuffer(self.data + bytes(len(want)), np.uint8)
        same: Bools = ends - starts == len(want)
        for i, byte in enumerate(want):
            same &= data[starts + i] == byte
        return same

    def currencies(self, path: str, chosen: Ints) -> Ints:
        """The numbers (`schemas.currencies`) of a field that is three capital letters for the chosen records."""
        starts = self.spans[path][0][chosen]
        data: npt.NDArray[np.uint8] = np.frombuffer(self.data, np.uint8)
        numbers: Ints = np.zeros(len(chosen), np.int64)
        for i in range(3):
            numbers = numbers * 26 + (data[starts + i].astype(np.int64) - 65)
        return numbers + 1


class _Cursor:
    """Where each record's reading stands: `pos[i]` in `buf`, up to `end[i]`; `bad[i]` once it cannot be right."""

    def __init__(self, data: bytes, starts: Ints, ends: Ints):
        self.buf: npt.NDArray[np.uint8] = np.frombuffer(data + bytes(_PAD), np.uint8)
        self.dead = len(data)  # the zero pad: where records wait that went wrong
        self.pos, self.end = starts.copy(), ends
        self.bad: Bools = np.zeros(len(starts), np.bool_)
        self.columns = Columns(self.bad, data)
        # How many bytes ≥ 0x80 lie before each position: tells for any span at once whether it is plain ASCII.
        self.high: npt.NDArray[np.int32] = np.zeros(len(self.buf) + 1, np.int32)
        np.cumsum(self.buf >= 0x80, dtype=np.int32, out=self.high[1:])

    def fail(self, rows: Ints) -> None:
        if len(rows):
            self.bad[rows] = True
            self.pos[rows] = self.dead

    def varint(self, rows: Ints) -> Ints:
        """Avro's zig-zag long of each of the rows."""
        buf = self.buf
        at = self.pos[rows]
        byte = buf[at].astype(np.int64)
        value = byte & 0x7F
        at += 1
        more = np.nonzero(byte >= 0x80)[0]
        shift = 7
        while len(more):
            if shift > 63:
                self.fail(rows[more])
                at[more], value[more] = self.dead, 0
                break
            byte = buf[np.minimum(at[more], self.dead + _PAD - 1)].astype(np.int64)
            value[more] |= (byte & 0x7F) << shift
            at[more] += 1
            more = more[byte >= 0x80]
            shift += 7
        # One behind the data, as a last record that ran over its end must not look as if it ended there.
        self.pos[rows] = np.minimum(at, self.dead + 1)
        # The shift must be logical: a 10-byte varint uses the sign bit.
        return (value.view(np.uint64) >> np.uint64(1)).view(np.int64) ^ -(value & 1)

    def skip(self, rows: Ints, width: Ints | int) -> tuple[Ints, Ints]:
        start = self.pos[rows]
        stop = start + width
        wrong = (stop > self.end[rows]) | (stop < start)
        if wrong.any():
            self.pos[rows] = np.where(wrong, start, stop)
            self.fail(rows[wrong])
            stop = np.where(wrong, start, stop)
        else:
            self.pos[rows] = stop
        return start, stop


_Step = Callable[[_Cursor, Ints], None]


def _int(path: str, low: int, high: int) -> _Step:
    def step(c: _Cursor, rows: Ints) -> None:
        value = c.varint(rows)
        c.fail(rows[(value < low) | (value > high)])
        _put(c, path, rows, value)

    return step


def _boolean(path: str) -> _Step:
    def step(c: _Cursor, rows: Ints) -> None:
        start, _ = c.skip(rows, 1)
        value = c.buf[start].astype(np.int64)
        c.fail(rows[value > 1])
        _put(c, path, rows, value)

    return step


def _fixed(width: int) -> _Step:
    def step(c: _Cursor, rows: Ints) -> None:
        c.skip(rows, width)

    return step


def _string(path: str, utf8: bool) -> _Step:
    def step(c: _Cursor, rows: Ints) -> None:
        start, stop = c.skip(rows, c.varint(rows))
        if utf8:
            foreign = np.nonzero(c.high[stop] != c.high[start])[0]
            data = c.columns.data
            for i, s, e in zip(foreign.tolist(), start[foreign].tolist(), stop[foreign].tolist(), strict=True):
                try:
                    data[s:e].decode()
                except UnicodeDecodeError:
                    c.fail(rows[i : i + 1])
        full = len(rows) == len(c.pos) and path not in c.columns.spans
        if full:
            c.columns.spans[path] = (start, stop)
        else:
            starts, stops = c.columns.spans.setdefault(path, (np.zeros_like(c.pos), np.zeros_like(c.pos)))
            starts[rows], stops[rows] = start, stop

    return step


def _put(c: _Cursor, path: str, rows: Ints, value: Ints) -> None:
    if len(rows) == len(c.pos):
        c.columns.ints[path] = value
    else:
        c.columns.ints.setdefault(path, np.zeros_like(c.pos))[rows] = value


def _optional(path: str, null_branch: int, step: _Step) -> _Step:
    def run(c: _Cursor, rows: Ints) -> None:
        branch = c.varint(rows)
        c.fail(rows[(branch < 0) | (branch > 1)])
        _put(c, f"{path}?", rows, (branch == 1 - null_branch).astype(np.int64))
        step(c, rows[branch == 1 - null_branch])  # also when none is present: its columns must be there

    return run


def _array(path: str, step: _Step) -> _Step:
    """Each round reads one item of every record that has one left; item columns become flat."""

    def run(c: _Cursor, rows: Ints) -> None:
        left = np.zeros_like(c.pos)
        inside = rows
        numbers: list[Ints] = []
        flat: dict[str, list[Ints]] = {}
        spans: dict[str, list[tuple[Ints, Ints]]] = {}
        outer_ints, outer_spans = c.columns.ints, c.columns.spans
        while True:
            opening = inside[left[inside] == 0]
            if len(opening):
                count = c.varint(opening)
                sized = opening[count < 0]
                if len(sized):  # a negative count is followed by the block's size in bytes
                    c.varint(sized)
                left_bytes = c.end[opening] - c.pos[opening]
                c.fail(opening[(count > left_bytes) | (count < -left_bytes)])  # an item has a byte at least
                left[opening] = np.abs(count)
            inside = inside[(left[inside] > 0) & ~c.bad[inside]]
            if not len(inside):
                break
            rounds = len(numbers)
            if rounds >= _MOST_ROUNDS or len(inside) < _FEWEST_IN_ARRAY < rounds:
                c.fail(inside)
                break
            c.columns.ints, c.columns.spans = {}, {}
            step(c, inside)
            for name, values in c.columns.ints.items():
                flat.setdefault(name, []).append(values[inside] if len(values) != len(inside) else values)
            for name, (start, stop) in c.columns.spans.items():
                whole = len(start) == len(inside)
                spans.setdefault(name, []).append((start, stop) if whole else (start[inside], stop[inside]))
            numbers.append(inside)
            left[inside] -= 1
        c.columns.ints, c.columns.spans = outer_ints, outer_spans
        empty = np.zeros(0, np.int64)
        c.columns.rows[path] = np.concatenate(numbers) if numbers else empty
        for name, parts in flat.items():
            c.columns.ints[name] = np.concatenate(parts)
        for name, pairs in spans.items():
            c.columns.spans[name] = (np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs]))

    return run


def _record(steps: Sequence[_Step]) -> _Step:
    def run(c: _Cursor, rows: Ints) -> None:
        for step in steps:
            step(c, rows)

    return run


_INT = (-(1 << 31), (1 << 31) - 1)
_LONG = (-(1 << 63), (1 << 63) - 1)


def plan(writer: dict[str, Any]) -> _Step:
    """Compiles a writer schema (as returned by `codec.parse_schema`) into the steps of `decode_columns`.

    Raises:
      UnsupportedSchemaError: it has a construct that cannot be read by columns.
    """
    if _fields(writer) > _MOST_COLUMNS:
        raise UnsupportedSchemaError(f"more than {_MOST_COLUMNS} columns")
    return _plan(writer, "", {}, in_array=False)


def _fields(schema: Any) -> int:
    if isinstance(schema, list):
        return sum(map(_fields, schema))
    if not isinstance(schema, dict):
        return 1
    if "fields" in schema:
        return sum(_fields(field["type"]) for field in schema["fields"])
    return _fields(schema.get("items", schema.get("values"))) if schema["type"] in ("array", "map") else 1


def _plan(schema: Any, path: str, named: dict[str, Any], in_array: bool) -> _Step:
    if isinstance(schema, str) and schema in named:
        schema = named[schema]
    kind = schema["type"] if isinstance(schema, dict) else schema
    if isinstance(kind, dict):  # {"type": {"type": "string"}}
        return _plan(kind, path, named, in_array)
    if isinstance(schema, list):
        if len(schema) != 2 or "null" not in schema or schema == ["null", "null"]:
            raise UnsupportedSchemaError(f"{path}: union {schema}")
        null_branch = schema.index("null")
        return _optional(path, null_branch, _plan(schema[1 - null_branch], path, named, in_array))
    match kind:
        case "null":
            return _fixed(0)
        case "boolean":
            return _boolean(path)
        case "int":
            return _int(path, *_INT)
        case "long":
            return _int(path, *_LONG)
        case "float":
            return _fixed(4)
        case "double":
            return _fixed(8)
        case "string" | "bytes":
            return _string(path, kind == "string")
        case "enum":
            named[schema["name"]] = schema
            return _int(path, 0, len(schema["symbols"]) - 1)
        case "fixed":
            named[schema["name"]] = schema
            return _fixed(schema["size"])
        case "array":
            if in_array:
                raise UnsupportedSchemaError(f"{path}: an array in an array")
            if not takes_bytes(schema["items"], named):
                raise UnsupportedSchemaError(f"{path}: an array of nothing")
            return _array(path, _plan(schema["items"], path, named, in_array=True))
        case "record":
            if schema["name"] not in named:
                prefix = f"{path}." if path else ""
                steps = [_plan(f["type"], prefix + f["name"], named, in_array) for f in schema["fields"]]
                named[schema["name"]] = schema
                return _record(steps)
    raise UnsupportedSchemaError(f"{path}: {schema}")


def decode_columns(data: bytes, starts: Ints, ends: Ints, steps: _Step) -> Columns:
    """Decodes the n records at `data[starts[i]:ends[i]]`, all written with the schema that `steps` was planned from."""
    cursor = _Cursor(data, starts, ends)
    with np.errstate(over="ignore"):
        steps(cursor, np.arange(len(starts)))
    cursor.columns.ok = ~cursor.bad & (cursor.pos == ends)
    return cursor.columns
