"""Checks an Avro datum before anything decodes it, without building values.

fastavro 1.13 trusts the bytes: a recursive type nests as deep as they say (20,000 levels overflow the C stack), an
array of nulls has as many items as they say (six bytes claim 10¹⁰), and an enum or union index below zero counts from
the list's end, so that a broken record passes for another. Here depth and number of values are bounded, lengths must
lie in the datum, and a block of an array that gives its size must have it: what was checked is what is decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["MAX_DEPTH", "Walk", "WalkError", "takes_bytes"]

MAX_DEPTH = 64
"""Values inside values: of a record, an item of an array, a branch of a union."""

_VALUES = 1_000
_VALUES_PER_BYTE = 4
_LONG_BYTES = 10
_WIDTHS = {"null": 0, "boolean": 1, "float": 4, "double": 8}


class WalkError(ValueError):
    """The bytes are not a datum of the schema, or beyond the bounds."""


class _Datum:
    """Attributes:
    left: how many values it may still have. Only a value without bytes (null, a record of nulls) costs nothing to
      claim, so the bound grows with the bytes.
    """

    __slots__ = ("data", "end", "left")

    def __init__(self, data: bytes | memoryview, start: int):
        self.data, self.end = data, len(data)
        self.left = _VALUES + _VALUES_PER_BYTE * (self.end - start)


_Step = Callable[[_Datum, int, int], int]  # datum, position, depth → position after the value


class Walk:
    """Steps over data of one writer's schema.

    Args:
      schema: as `codec.parse_schema` gives it.
    """

    def __init__(self, schema: Any):
        self._step = _compile(schema, {})

    def end(self, data: bytes | memoryview, start: int = 0) -> int:
        """Where the datum that begins at `start` ends.

        Raises: WalkError.
        """
        try:
            return self._step(_Datum(data, start), start, 0)
        except IndexError:
            raise WalkError("ends inside a value") from None


def _compile(schema: Any, named: dict[str, _Step]) -> _Step:
    if isinstance(schema, str) and schema in named:
        # Looked up when it is stepped over: a recursive type is not compiled yet.
        return lambda datum, at, depth: named[schema](datum, at, depth)
    if isinstance(schema, list):
        return _union([_compile(branch, named) for branch in schema])
    kind = schema["type"] if isinstance(schema, dict) else schema
    match kind:
        case "record" | "error":
            named[schema["name"]] = _pending
            step = _record([_compile(field["type"], named) for field in schema["fields"]])
            named[schema["name"]] = step
            return step
        case "array":
            return _items(_compile(schema["items"], named))
        case "map":
            return _items(_pair(_compile(schema["values"], named)))
        case "enum":
            named[schema["name"]] = _index(len(schema["symbols"]))
            return named[schema["name"]]
        case "fixed":
            if type(schema["size"]) is not int or schema["size"] < 0:
                raise ValueError(f"the size of {schema['name']} is {schema['size']!r}")
            named[schema["name"]] = _skip(schema["size"])
            return named[schema["name"]]
        case "int" | "long":
            return _number
        case "string" | "bytes":
            return _text
    return _skip(_WIDTHS[kind])


def _pending(datum: _Datum, at: int, depth: int) -> int:  # noqa: ARG001
    raise AssertionError("a type that is being compiled")


def _long(datum: _Datum, at: int) -> tuple[int, int]:
    data = datum.data
    byte = data[at]
    if byte < 0x80:
        return byte >> 1 ^ -(byte & 1), at + 1
    value, shift = byte & 0x7F, 7
    for following in range(at + 1, at + _LONG_BYTES):
        byte = data[following]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            value &= (1 << 64) - 1
            return value >> 1 ^ -(value & 1), following + 1
        shift += 7
    raise WalkError(f"a number longer than {_LONG_BYTES} bytes")


def _count(datum: _Datum) -> None:
    datum.left -= 1
    if datum.left < 0:
        raise WalkError(f"more than {_VALUES} values and {_VALUES_PER_BYTE} for each byte")


def _number(datum: _Datum, at: int, depth: int) -> int:  # noqa: ARG001
    _count(datum)
    return _long(datum, at)[1]


def _skip(width: int) -> _Step:
    def step(datum: _Datum, at: int, depth: int) -> int:  # noqa: ARG001
        _count(datum)
        return _within(datum, at, width)

    return step


def _within(datum: _Datum, at: int, width: int) -> int:
    if not 0 <= width <= datum.end - at:
        raise WalkError(f"a length of {width} with {datum.end - at} bytes left")
    return at + width


def _text(datum: _Datum, at: int, depth: int) -> int:  # noqa: ARG001
    _count(datum)
    width, at = _long(datum, at)
    return _within(datum, at, width)


def _index(symbols: int) -> _Step:
    def step(datum: _Datum, at: int, depth: int) -> int:  # noqa: ARG001
        _count(datum)
        index, at = _long(datum, at)
        if not 0 <= index < symbols:
            raise WalkError(f"index {index} of an enum of {symbols}")
        return at

    return step


def _deeper(depth: int) -> int:
    if depth >= MAX_DEPTH:
        raise WalkError(f"nested more than {MAX_DEPTH} deep")
    return depth + 1


def _union(branches: list[_Step]) -> _Step:
    def step(datum: _Datum, at: int, depth: int) -> int:
        index, at = _long(datum, at)
        if not 0 <= index < len(branches):
            raise WalkError(f"index {index} of a union of {len(branches)}")
        return branches[index](datum, at, _deeper(depth))

    return step


def _record(fields: list[_Step]) -> _Step:
    def step(datum: _Datum, at: int, depth: int) -> int:
        _count(datum)
        depth = _deeper(depth)
        for field in fields:
            at = field(datum, at, depth)
        return at

    return step


def _pair(value: _Step) -> _Step:
    def step(datum: _Datum, at: int, depth: int) -> int:
        return value(datum, _text(datum, at, depth), depth)

    return step


def _items(item: _Step) -> _Step:
    def step(datum: _Datum, at: int, depth: int) -> int:
        _count(datum)
        depth = _deeper(depth)
        while True:
            count, at = _long(datum, at)
            if count == 0:
                return at
            stop = None
            if count < 0:  # a negative count is followed by the block's size in bytes
                size, at = _long(datum, at)
                stop = _within(datum, at, size)
            for _ in range(abs(count)):
                at = item(datum, at, depth)
            if stop is not None and at != stop:
                raise WalkError("a block of an array has another size than it says")

    return step


def takes_bytes(schema: Any, named: dict[str, Any]) -> bool:
    """Whether every datum of a schema is known to have at least one byte.

    Args:
      named: the enums and fixed types that were defined before; of other named types nothing is known.
    """
    if isinstance(schema, list):
        return True  # the index
    if isinstance(schema, str) and schema in named:
        schema = named[schema]
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind == "record":
        return any(takes_bytes(field["type"], {}) for field in schema["fields"])
    if kind == "fixed":
        return bool(schema["size"])
    return kind in ("boolean", "int", "long", "float", "double", "string", "bytes", "enum", "array", "map")
