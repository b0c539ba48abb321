"""Where the records end in blocks of a container file: of hundreds of blocks at once.

A record says nothing about its length, so a block has to be stepped through, and fastavro takes longer for that than
everything else takes. Here a step is taken in all blocks together, with numpy, and only as far as a length needs it:
nothing is checked and no value is read. So ends are a guess, exact where the data are right. The caller decodes what
lies between them exactly (`schemas.columns`), and steps through a block of which that fails record by record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.columns import Bools, Ints
from schemas.walk import takes_bytes

__all__ = ["Skip", "record_ends", "skips"]

_PAD = 16
_LONGEST = 10  # bytes of a varint
_CHUNK = 1 << 16
_MOST_ITEMS = 250  # of an array; columns are no faster for more


class _Bytes:
    """The data, and how many bytes a varint that begins at each of them would have."""

    def __init__(self, data: bytes):
        self.buf: npt.NDArray[np.uint8] = np.frombuffer(data + bytes(_PAD), np.uint8)
        self.lost = len(data) + 1  # where runs go that cannot be right
        self._sizes: npt.NDArray[np.uint8] = np.ones(len(self.buf), np.uint8)
        for at in range(0, len(self.buf), _CHUNK):
            more = self.buf[at : at + _CHUNK + _LONGEST] >= 0x80
            sizes = self._sizes[at : at + _CHUNK]
            longer = more[: len(sizes)]
            for i in range(1, _LONGEST):
                sizes += longer
                longer = longer[: len(more) - i] & more[i : i + len(longer)]
                sizes = sizes[: len(longer)]
                if not longer.any():
                    break

    def skip_varint(self, pos: Ints) -> Ints:
        return pos + self._sizes.take(pos, mode="clip")

    def lengths(self, pos: Ints) -> tuple[Ints, Ints]:
        """Avro's longs at `pos`, and what follows them; a negative one, or one of more than three bytes, is lost."""
        byte = self.buf.take(pos, mode="clip")
        if (byte & 0x81).any():
            return self._longer(pos, byte)
        return byte >> 1, pos + 1

    def _longer(self, pos: Ints, byte: npt.NDArray[np.uint8]) -> tuple[Ints, Ints]:
        after = self.skip_varint(pos)
        value = (byte & 0x7F).astype(np.int64)
        for i in (1, 2):
            more = self.buf.take(pos + i, mode="clip").astype(np.int64) & 0x7F
            value |= np.where(after > pos + i, more << 7 * i, 0)
        wrong = (value & 1 == 1) | (after > pos + 3)
        return value >> 1, np.where(wrong, self.lost, after)


Skip = Callable[[_Bytes, Ints], Ints]
"""From where values of a schema begin to where they end."""


def skips(writer: dict[str, Any]) -> Skip | None:
    """How to step over records of a schema, as `codec.parse_schema` gives it; None where that takes one at a time."""
    if not takes_bytes(writer, {}):
        return None
    try:
        return _joined(_steps(writer, {}))
    except _UnequalError:
        return None


class _UnequalError(Exception):
    """Not every value is stepped over in the same way."""


def record_ends(data: bytes, starts: Ints, ends: Ints, counts: Ints, skip: Skip) -> tuple[Ints, Bools]:
    """The ends of `counts[i]` records, one behind the other, at `data[starts[i]:ends[i]]`.

    Takes a round for each record of the longest run, and at most one for each of its bytes.

    Returns: them, run by run; and [k] which runs end where they should. The ends of the others mean nothing.
    """
    held = _Bytes(data)
    found: Ints = np.zeros(int(counts.sum()), np.int64)
    right: Bools = np.zeros(len(counts), np.bool_)
    right[(counts == 0) & (starts == ends)] = True
    # The longest first: those that have more records are always the first so many.
    runs = np.argsort(-counts, kind="stable")
    runs = runs[: np.count_nonzero(counts > 0)]
    pos, end, left, first = starts[runs], ends[runs], counts[runs], (np.cumsum(counts) - counts)[runs]
    number = 0
    while len(runs):
        pos = np.minimum(skip(held, pos), held.lost)
        found[first + number] = pos
        number += 1
        over = pos >= end
        if over.any() or left[-1] <= number:
            right[runs] = (pos == end) & (left == number)
            more = ~over & (left > number)
            runs, pos, end, left, first = runs[more], pos[more], end[more], left[more], first[more]
    return found, right


def _steps(schema: Any, named: dict[str, Any]) -> list[Skip]:
    """Raises: _UnequalError."""
    if isinstance(schema, str) and schema in named:
        schema = named[schema]
    kind = schema["type"] if isinstance(schema, dict) else schema
    if isinstance(kind, dict):
        return _steps(kind, named)
    match kind:
        case "null":
            return []
        case "int" | "long":
            return [_Bytes.skip_varint]
        case "enum":
            named[schema["name"]] = schema
            return [_Bytes.skip_varint]
        case "boolean":
            return [_fixed(1)]
        case "float":
            return [_fixed(4)]
        case "double":
            return [_fixed(8)]
        case "string" | "bytes":
            return [_string]
        case "array":
            if takes_bytes(schema["items"], named):
                return [_array(_joined(_steps(schema["items"], named)))]
        case "record" if schema["name"] not in named:
            steps = [step for field in schema["fields"] for step in _steps(field["type"], named)]
            named[schema["name"]] = schema
            return steps
        case list() if len(kind) == 2 and "null" in kind:
            null = kind.index("null")
            return [_optional(null, _joined(_steps(kind[1 - null], named)))]
    raise _UnequalError


def _joined(steps: Sequence[Skip]) -> Skip:
    def skip(held: _Bytes, pos: Ints) -> Ints:
        for step in steps:
            pos = step(held, pos)
        return pos

    return skip


def _fixed(width: int) -> Skip:
    return lambda _, pos: pos + width


def _string(held: _Bytes, pos: Ints) -> Ints:
    length, after = held.lengths(pos)
    return after + length


def _array(skip_item: Skip) -> Skip:
    """Of one block of items, as all writers but the oldest write them, and not too many; runs with others are lost."""

    def skip(held: _Bytes, pos: Ints) -> Ints:
        count, pos = held.lengths(pos)
        left = count.astype(np.int64)
        number = 0
        while (inside := np.flatnonzero((left > number) & (pos < held.lost))).size:
            if len(inside) == len(pos):
                pos = skip_item(held, pos)
            else:
                pos[inside] = skip_item(held, pos[inside])
            number += 1
            if number > _MOST_ITEMS:
                pos[left > number] = held.lost
        some = np.flatnonzero(left > 0)  # an empty array has no other end than its count
        more, after = held.lengths(pos[some])
        pos[some] = np.where(more == 0, after, held.lost)
        return pos

    return skip


def _optional(null_branch: int, skip_value: Skip) -> Skip:
    def skip(held: _Bytes, pos: Ints) -> Ints:
        branch, after = held.lengths(pos)
        present = np.flatnonzero(branch != null_branch)
        after = np.array(after)
        after[present] = skip_value(held, after[present])
        return after

    return skip
