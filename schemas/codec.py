"""Bytes ↔ record: the Confluent wire format, Avro object container files and JSON lines.

Errors (all `CodecError`; a named one per cause, so that a dead letter can say what was wrong):

    CodecError
    ├── NotFramed         not the Confluent wire format: no payload, too short, or another magic byte
    ├── UnknownSchema     the registry has no schema under the id in the payload
    ├── Undecodable       the bytes are not a record of the writer's schema
    └── NotThisRecord     decoded, but a field is missing or has another type than the reader's
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, Generic, TypeVar

import fastavro
import fastavro.schema
import msgspec

from schemas.events import avro_schema

__all__ = [
    "CodecError",
    "Decoder",
    "NotFramed",
    "NotThisRecord",
    "Undecodable",
    "UnknownSchema",
    "canonical",
    "decode_datum",
    "decode_valid",
    "encode",
    "encode_datum",
    "from_fields",
    "from_json",
    "parse_schema",
    "read_container",
    "schema_id",
    "to_json",
    "write_container",
]

R = TypeVar("R", bound=msgspec.Struct)

# https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
_FRAME = struct.Struct(">bI")
FRAME_BYTES = _FRAME.size

# What fastavro raises on bytes that are not a record of the schema: short reads, bad enum and union branches,
# bad UTF-8 (a ValueError), a negative or huge length.
_DECODE_ERRORS = (EOFError, IndexError, ValueError, OverflowError, MemoryError, TypeError, KeyError, struct.error)
_SCHEMA_ERRORS = (fastavro.schema.SchemaParseException, fastavro.schema.UnknownType, *_DECODE_ERRORS)


class CodecError(Exception):
    """The bytes are not a record."""


class NotFramed(CodecError):
    """The payload is not in the Confluent wire format."""


class UnknownSchema(CodecError):
    """The registry has no schema with the payload's id."""


class Undecodable(CodecError):
    """The bytes are not a record of the writer's schema."""


class NotThisRecord(CodecError):
    """A field is missing or has another type than the reader's record."""


def parse_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema ready for fastavro, with logical types removed: times stay integers, no datetime objects per record."""
    parsed: dict[str, Any] = fastavro.parse_schema(_plain(schema))
    return parsed


def _plain(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_plain(branch) for branch in schema]
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items() if key not in ("logicalType", "doc")}
    return schema


def encode(record: msgspec.Struct, writer_id: int, parsed: dict[str, Any]) -> bytes:
    """One record as a Kafka payload: magic byte, schema id, Avro."""
    return _FRAME.pack(0, writer_id) + encode_datum(record, parsed)


def encode_datum(record: msgspec.Struct, parsed: dict[str, Any]) -> bytes:
    """One record without a frame."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parsed, msgspec.to_builtins(record))
    return out.getvalue()


def schema_id(payload: bytes | None) -> int:
    """The writer's schema id of a payload.

    Raises:
      NotFramed: there is none.
    """
    if not payload:
        raise NotFramed("empty payload")
    if len(payload) < FRAME_BYTES:
        raise NotFramed(f"{len(payload)} bytes are too short for the 5-byte header")
    magic, writer_id = _FRAME.unpack_from(payload)
    if magic != 0:
        raise NotFramed(f"magic byte is {magic}, not 0")
    return int(writer_id)


class Decoder(Generic[R]):
    """Decodes payloads of any writer schema into one record type; writer schemas are fetched once per id.

    Args:
      record: the reader's type; its Avro schema has the same name.
      fetch: returns the writer schema of an id; raises `UnknownSchema` when there is none. Any other error passes
        through, so that an unreachable registry retries instead of making dead letters.
    """

    def __init__(self, record: type[R], fetch: Callable[[int], dict[str, Any]]):
        self._record = record
        self._reader = parse_schema(avro_schema(record.__name__))
        self._fetch = fetch
        self._writers: dict[int, dict[str, Any]] = {}

    def writer(self, writer_id: int) -> dict[str, Any]:
        """The parsed writer schema of an id. An unknown id is asked for again each time: it may be registered later.

        Raises:
          UnknownSchema.
          Undecodable: what is registered under the id is not an Avro schema.
        """
        parsed = self._writers.get(writer_id)
        if parsed is None:
            schema = self._fetch(writer_id)
            try:
                parsed = self._writers[writer_id] = parse_schema(schema)
            except _SCHEMA_ERRORS as e:
                raise Undecodable(f"schema {writer_id} is not Avro: {type(e).__name__} {e}".rstrip()) from e
        return parsed

    def decode(self, payload: bytes | None) -> R:
        """Raises: CodecError."""
        writer = self.writer(schema_id(payload))
        return _read_datum(memoryview(payload or b"")[FRAME_BYTES:], writer, self._reader, self._record)


def decode_datum(datum: bytes, writer: dict[str, Any], record: type[R]) -> R:
    """One record without a frame, as in container files. Raises: CodecError."""
    return _read_datum(datum, parse_schema(writer), parse_schema(avro_schema(record.__name__)), record)


def decode_valid(datum: bytes, writer: dict[str, Any], reader: dict[str, Any], record: type[R]) -> R:
    """One record that has been found to be right before; both schemas as `parse_schema` gives them."""
    return from_fields(fastavro.schemaless_reader(io.BytesIO(datum), writer, reader), record)


def _read_datum(datum: bytes | memoryview, writer: dict[str, Any], reader: dict[str, Any], record: type[R]) -> R:
    stream = io.BytesIO(datum)
    try:
        fields = fastavro.schemaless_reader(stream, writer, reader)
        _check_indexes(io.BytesIO(datum), writer, {})
    except (fastavro.schema.SchemaParseException, fastavro.read.SchemaResolutionError, *_DECODE_ERRORS) as e:
        raise Undecodable(f"not a {record.__name__}: {type(e).__name__} {e}".rstrip()) from e
    if stream.tell() != len(datum):
        raise Undecodable(f"{len(datum) - stream.tell()} bytes left after the record")
    return from_fields(fields, record)


def _check_indexes(datum: io.BytesIO, schema: Any, named: dict[str, Any]) -> None:
    """Steps once more over a datum, for what fastavro 1.13 lets pass: it takes an enum or union index below zero from
    the list's end, and a broken record would pass for another.

    Raises: IndexError.
    """
    if isinstance(schema, str) and schema in named:
        schema = named[schema]
    if isinstance(schema, list):
        _check_indexes(datum, schema[_index(datum)], named)
        return
    kind = schema["type"] if isinstance(schema, dict) else schema
    if isinstance(kind, dict | list):
        _check_indexes(datum, kind, named)
        return
    if kind in ("record", "enum", "fixed"):
        named[schema["name"]] = schema
    match kind:
        case "record" | "error":
            for field in schema["fields"]:
                _check_indexes(datum, field["type"], named)
        case "array" | "map":
            while count := _long(datum):
                if count < 0:
                    _long(datum)
                for _ in range(abs(count)):
                    if kind == "map":
                        datum.seek(_long(datum), io.SEEK_CUR)
                    _check_indexes(datum, schema["items" if kind == "array" else "values"], named)
        case "enum":
            _index(datum)
        case "int" | "long":
            _long(datum)
        case "string" | "bytes":
            datum.seek(_long(datum), io.SEEK_CUR)
        case _:
            widths = {"null": 0, "boolean": 1, "float": 4, "double": 8}
            datum.seek(schema["size"] if kind == "fixed" else widths[kind], io.SEEK_CUR)


def _index(datum: io.BytesIO) -> int:
    index = _long(datum)
    if index < 0:
        raise IndexError(f"index {index} of an enum or union")
    return index


def _long(datum: io.BytesIO) -> int:
    value = shift = 0
    while True:
        byte = datum.read(1)[0]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1)
        shift += 7


def from_fields(fields: Any, record: type[R]) -> R:
    """A decoded dict as a typed record; unknown fields are ignored.

    Raises:
      NotThisRecord: a required field is missing or has the wrong type.
    """
    try:
        return msgspec.convert(fields, record)
    except msgspec.ValidationError as e:
        raise NotThisRecord(str(e)) from e


def from_json(line: bytes, record: type[R]) -> R:
    """One JSON line as a typed record.

    Raises:
      Undecodable: not JSON.
      NotThisRecord: JSON of another shape.
    """
    try:
        return msgspec.json.decode(line, type=record)
    except msgspec.ValidationError as e:
        raise NotThisRecord(str(e)) from e
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Undecodable(str(e)) from e


def to_json(record: msgspec.Struct) -> bytes:
    return msgspec.json.encode(record)


def write_container(out: IO[bytes], record: type[R], records: Iterable[R]) -> None:
    """Writes an Avro object container file."""
    fields = (msgspec.to_builtins(r) for r in records)
    fastavro.writer(out, fastavro.parse_schema(avro_schema(record.__name__)), fields, codec="deflate")


def read_container(stream: IO[bytes]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Each record of an Avro object container file as (writer schema, datum), the datum with the bytes it had.

    Bytes that are not a record cannot be stepped over, as nothing says where the next begins: the rest of their block
    comes as one datum, and so does what a block holds beyond its count. Raises `Undecodable` where the file itself
    breaks off; what came before was yielded.
    """
    try:
        for block in fastavro.block_reader(stream):
            writer = parse_schema(block.writer_schema)
            data = block.bytes_.getvalue()
            rest = io.BytesIO(data)
            start = 0
            for _ in range(block.num_records):
                try:
                    fastavro.schemaless_reader(rest, writer, None)
                except _DECODE_ERRORS:
                    yield writer, data[start:]
                    break
                yield writer, data[start : rest.tell()]
                start = rest.tell()
            else:
                if start < len(data):
                    yield writer, data[start:]
    except (zlib.error, *_SCHEMA_ERRORS) as e:
        raise Undecodable(f"not an Avro object container file, or cut short: {type(e).__name__} {e}".rstrip()) from e


def canonical(schema: dict[str, Any]) -> str:
    """The schema as the text that is registered."""
    return json.dumps(schema, separators=(",", ":"), ensure_ascii=False)
