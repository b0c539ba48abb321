"""Bytes ↔ record: the Confluent wire format, Avro and JSON lines; `schemas.container` reads container files.

Errors (all `CodecError`; a named one per cause, so that a dead letter can say what was wrong):

    CodecError
    ├── NotFramed         not the Confluent wire format: no payload, too short, or another magic byte
    ├── UnknownSchema     the registry has no schema under the id in the payload
    ├── Undecodable       the bytes are not a record of the writer's schema
    └── NotThisRecord     decoded, but a field is missing or has another type than the reader's

`SchemaUnavailable` is none of them: it says nothing of the record.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Iterable
from typing import IO, Any, Generic, TypeVar

import fastavro
import fastavro.schema
import msgspec

from schemas.events import avro_schema
from schemas.walk import Walk, WalkError

__all__ = [
    "DECODE_ERRORS",
    "SCHEMA_ERRORS",
    "CodecError",
    "Decoder",
    "NotFramed",
    "NotThisRecord",
    "Renewal",
    "SchemaUnavailable",
    "Undecodable",
    "UnknownSchema",
    "Writer",
    "canonical",
    "decode_valid",
    "encode",
    "encode_datum",
    "from_fields",
    "from_json",
    "parse_schema",
    "plain_schema",
    "schema_id",
    "to_json",
    "without_defaults",
    "write_container",
]

R = TypeVar("R", bound=msgspec.Struct)

# https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
_FRAME = struct.Struct(">bI")
FRAME_BYTES = _FRAME.size

# What fastavro raises on bytes that are not a record of the schema: short reads, bad enum and union branches,
# bad UTF-8 (a ValueError), a negative or huge length.
DECODE_ERRORS = (EOFError, IndexError, ValueError, OverflowError, MemoryError, TypeError, KeyError, struct.error)
SCHEMA_ERRORS = (
    fastavro.schema.SchemaParseException,
    fastavro.schema.UnknownType,
    AttributeError,
    RecursionError,
    *DECODE_ERRORS,
)
_MAX_SCHEMA_DEPTH = 128  # of its JSON: a field of a record is four levels
_MAX_SCHEMA_NODES = 100_000


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


class SchemaUnavailable(Exception):
    """The registry cannot say now what a schema is. Nothing is known of the record: try again."""


def parse_schema(schema: Any) -> dict[str, Any]:
    """A schema ready for fastavro, with logical types removed: times stay integers, no datetime objects per record.

    Raises: ValueError, and what fastavro raises on what is no schema.
    """
    parsed: dict[str, Any] = fastavro.parse_schema(plain_schema(schema))
    return parsed


def plain_schema(schema: Any) -> Any:
    """A schema without logical types and texts. Raises: ValueError: it is too large."""
    return _plain(schema, _MAX_SCHEMA_DEPTH, [_MAX_SCHEMA_NODES])


def _plain(schema: Any, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if not depth or left[0] < 0:
        raise ValueError(f"nested more than {_MAX_SCHEMA_DEPTH} deep, or of more than {_MAX_SCHEMA_NODES} parts")
    if isinstance(schema, list):
        return [_plain(branch, depth - 1, left) for branch in schema]
    if isinstance(schema, dict):
        kept = (key for key in schema if key not in ("logicalType", "doc") and not key.startswith("__"))
        return {key: _plain(schema[key], depth - 1, left) for key in kept}
    return schema


class Writer:
    """A writer's schema, ready to read its data.

    Attributes:
      schema: as `parse_schema` gives it.
      walk: must step over a datum before fastavro sees it.

    Raises: Undecodable, at construction: it is no Avro schema.
    """

    __slots__ = ("schema", "walk")

    def __init__(self, schema: Any, name: str = "the writer's schema"):
        try:
            self.schema = _parse_writer(schema)
            self.walk = Walk(self.schema)
        except SCHEMA_ERRORS as e:
            raise Undecodable(f"{name} is not Avro: {type(e).__name__} {e}".rstrip()) from e


def _parse_writer(schema: Any) -> dict[str, Any]:
    """A writer's defaults are not needed to read, so one that does not fit its type is no error: Confluent's registry
    accepts it."""
    try:
        return parse_schema(schema)
    except fastavro.schema.SchemaParseException:
        return parse_schema(without_defaults(schema))


def without_defaults(schema: Any) -> Any:
    """A schema as its data are read by."""
    if isinstance(schema, list):
        return [without_defaults(branch) for branch in schema]
    if isinstance(schema, dict):
        return {key: without_defaults(value) for key, value in schema.items() if key != "default"}
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
      fetch: returns the writer schema of an id; raises `UnknownSchema` when there is none. Any other error is
        `SchemaUnavailable`, so that an unreachable registry retries instead of making dead letters.
    """

    def __init__(self, record: type[R], fetch: Callable[[int], dict[str, Any]]):
        self._record = record
        self._reader = parse_schema(avro_schema(record.__name__))
        self._fetch = fetch
        self._writers: dict[int, Writer] = {}

    def writer(self, writer_id: int) -> Writer:
        """The writer schema of an id. What has no schema is fetched again each time: it may be registered later.

        Raises:
          UnknownSchema.
          Undecodable: what is registered under the id is not an Avro schema.
          SchemaUnavailable.
        """
        writer = self._writers.get(writer_id)
        if writer is None:
            try:
                schema = self._fetch(writer_id)
            except CodecError:
                raise
            except Exception as e:
                raise SchemaUnavailable(f"schema {writer_id}: {type(e).__name__} {e}".rstrip()) from e
            writer = self._writers[writer_id] = Writer(schema, f"schema {writer_id}")
        return writer

    def decode(self, payload: bytes | None) -> R:
        """Raises: CodecError, SchemaUnavailable."""
        writer = self.writer(schema_id(payload))
        return self.decode_datum(memoryview(payload or b"")[FRAME_BYTES:], writer)

    def decode_datum(self, datum: bytes | memoryview, writer: Writer) -> R:
        """One record without a frame, as in container files. Raises: CodecError."""
        try:
            end = writer.walk.end(datum)
        except WalkError as e:
            raise Undecodable(f"not a {self._record.__name__}: {e}") from e
        if end != len(datum):
            raise Undecodable(f"{len(datum) - end} bytes left after the record")
        try:
            fields = fastavro.schemaless_reader(io.BytesIO(datum), writer.schema, self._reader)
        except (fastavro.schema.SchemaParseException, fastavro.read.SchemaResolutionError, *DECODE_ERRORS) as e:
            raise Undecodable(f"not a {self._record.__name__}: {type(e).__name__} {e}".rstrip()) from e
        return from_fields(fields, self._record)


def decode_valid(datum: bytes, writer: dict[str, Any], reader: dict[str, Any], record: type[R]) -> R:
    """One record that has been found to be right before; both schemas as `parse_schema` gives them."""
    return from_fields(fastavro.schemaless_reader(io.BytesIO(datum), writer, reader), record)


class Renewal(Generic[R]):
    """Data of an older version of a record's schema, written anew in the current one.

    Args:
      old: as JSON.
    """

    def __init__(self, old: Any, record: type[R]):
        self._old, self._record = Writer(old), record
        self._ours = parse_schema(avro_schema(record.__name__))

    def __call__(self, data: bytes) -> list[bytes]:
        """Each of some data that follow one another."""
        renewed, at = [], 0
        while at < len(data):
            end = self._old.walk.end(data, at)
            record = decode_valid(data[at:end], self._old.schema, self._ours, self._record)
            renewed.append(encode_datum(record, self._ours))
            at = end
        return renewed


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


def canonical(schema: dict[str, Any]) -> str:
    """The schema as the text that is registered."""
    return json.dumps(schema, separators=(",", ":"), ensure_ascii=False)
