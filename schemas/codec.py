"""Bytes ↔ record: Avro and JSON, as `schemas.framing` tells them apart; `schemas.container` reads container files.

Errors (all `CodecError`; a named one per cause, so that a dead letter can say what was wrong):

    CodecError
    ├── NotFramed         in none of the formats of `schemas.framing`, or not in the one that was asked for
    ├── UnknownSchema     the registry has no schema under the id in the payload
    ├── Undecodable       the bytes are not a record of the writer's schema
    └── NotThisRecord     decoded, but a field is missing or has another type than the reader's

`SchemaUnavailable` is not among them: it says nothing about the record.

Long, as the three encodings share how errors are told.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Iterable
from typing import IO, Any, Generic, NamedTuple, TypeVar

import fastavro
import fastavro.schema
import msgspec

from schemas.events import avro_history, avro_schema
from schemas.framing import FRAME_BYTES, Headers, NotFramedError, looks_like, other_json, unframe
from schemas.protobuf import Message, ProtobufError
from schemas.walk import Walk, WalkError

__all__ = [
    "DECODE_ERRORS",
    "FRAME_BYTES",
    "SCHEMA_ERRORS",
    "CodecError",
    "Decoder",
    "Described",
    "JsonText",
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
    "fingerprints",
    "from_fields",
    "from_json",
    "json_fields",
    "parse_schema",
    "plain_schema",
    "schema_id",
    "to_json",
    "without_defaults",
    "write_container",
]

R = TypeVar("R", bound=msgspec.Struct)

_FRAME = struct.Struct(">bI")
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
    """The payload is in no format that is read, or not in the one that was asked for."""


class UnknownSchema(CodecError):
    """The registry has no schema with the payload's id."""


class Undecodable(CodecError):
    """The bytes are not a record of the writer's schema."""


class NotThisRecord(CodecError):
    """A field is missing or has another type than the reader's record."""


class SchemaUnavailable(Exception):
    """The registry cannot be asked for a schema now. Nothing is known about the record: try again."""


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


class Described(NamedTuple):
    """A registered schema that is not Avro.

    Attributes:
      kind: JSON or PROTOBUF, as the registry says.
      imports: name → text of what a Protobuf file imports.
    """

    kind: str
    text: str
    imports: tuple[tuple[str, str], ...] = ()


class Writer:
    """A writer's Avro schema, ready to read its data.

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

    def fields(self, datum: bytes | memoryview, reader: dict[str, Any] | None = None) -> Any:
        """A datum's fields by name; as `reader` has them, if there is one. Raises: Undecodable."""
        name = "datum of the writer's schema" if reader is None else str(reader["name"]).rpartition(".")[2]
        try:
            end = self.walk.end(datum)
        except WalkError as e:
            raise Undecodable(f"not a {name}: {e}") from e
        if end != len(datum):
            raise Undecodable(f"{len(datum) - end} bytes left after the record")
        try:
            return fastavro.schemaless_reader(io.BytesIO(datum), self.schema, reader)
        except (fastavro.schema.SchemaParseException, fastavro.read.SchemaResolutionError, *DECODE_ERRORS) as e:
            raise Undecodable(f"not a {name}: {type(e).__name__} {e}".rstrip()) from e


class JsonText:
    """What is registered as JSON: the datum is JSON text, and says itself what it is."""

    def fields(self, datum: bytes | memoryview, reader: dict[str, Any] | None = None) -> Any:  # noqa: ARG002
        """Raises: Undecodable."""
        return json_fields(datum)


class ProtobufMessage:
    """A Protobuf schema, ready to read its messages. Raises: Undecodable, at construction."""

    def __init__(self, described: Described, name: str):
        try:
            self._message = Message(described.text, dict(described.imports))
        except ProtobufError as e:
            raise Undecodable(f"{name} is not Protobuf that is read here: {e}") from e

    def fields(self, datum: bytes | memoryview, reader: dict[str, Any] | None = None) -> Any:  # noqa: ARG002
        """Raises: Undecodable."""
        try:
            return self._message.fields(bytes(datum))
        except ProtobufError as e:
            raise Undecodable(f"not a Protobuf message of its schema: {e}") from e


AnyWriter = Writer | JsonText | ProtobufMessage


def _writer(schema: Any, name: str) -> AnyWriter:
    """Raises: Undecodable."""
    if not isinstance(schema, Described):
        return Writer(schema, name)
    return JsonText() if schema.kind == "JSON" else ProtobufMessage(schema, name)


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
        raise NotFramed(f"magic byte is {magic}, not 0: {looks_like(payload)}")
    return int(writer_id)


Fetch = Callable[[Any], Any]
"""From a registry's id, or a GUID, to an Avro schema as JSON, or `Described`. Raises `UnknownSchema` when there is
none. Any other error is `SchemaUnavailable`, so that an unreachable registry retries instead of making dead letters."""


class Decoder(Generic[R]):
    """Decodes payloads of any writer schema into one record type; writer schemas are fetched once per id.

    Args:
      record: the reader's type; its Avro schema has the same name.
      wanted: one of `framing.FORMATS`, or auto: whatever each payload is.
    """

    def __init__(self, record: type[R], fetch: Fetch, wanted: str = "auto"):
        self._record, self._wanted = record, wanted
        self._reader = parse_schema(avro_schema(record.__name__))
        self._fetch = fetch
        self._writers: dict[Any, AnyWriter] = {}
        self._printed: dict[bytes, Writer] | None = None

    def writer(self, key: int | str | bytes) -> AnyWriter:
        """The writer schema of a registry's id or GUID, or of a fingerprint. What has no schema is fetched again each
        time: it may be registered later.

        Raises:
          UnknownSchema.
          Undecodable: what is registered under the id is not a schema.
          SchemaUnavailable.
        """
        if isinstance(key, bytes):
            return self._of_fingerprint(key)
        writer = self._writers.get(key)
        if writer is None:
            try:
                schema = self._fetch(key)
            except CodecError:
                raise
            except Exception as e:
                raise SchemaUnavailable(f"schema {key}: {type(e).__name__} {e}".rstrip()) from e
            writer = self._writers[key] = _writer(schema, f"schema {key}")
        return writer

    def _of_fingerprint(self, fingerprint: bytes) -> Writer:
        """A single object has no registry: it is of a version of our own schema."""
        if self._printed is None:
            self._printed = fingerprints(self._record.__name__)
        if fingerprint not in self._printed:
            name = self._record.__name__
            raise UnknownSchema(f"no version of {name} has the fingerprint {fingerprint.hex()} (CRC-64-AVRO)")
        return self._printed[fingerprint]

    def decode(self, payload: bytes | None, headers: Headers = ()) -> R:
        """Raises: CodecError, SchemaUnavailable."""
        try:
            framed = unframe(payload, headers, self._wanted)
        except NotFramedError as e:
            raise NotFramed(str(e)) from e
        if framed.schema is None:
            return from_json(framed.datum, self._record)
        return self.decode_datum(framed.datum, self.writer(framed.schema))

    def decode_datum(self, datum: bytes | memoryview, writer: AnyWriter) -> R:
        """One record without a frame, as in container files. Raises: CodecError."""
        if isinstance(writer, JsonText):
            return from_json(datum, self._record)
        return from_fields(writer.fields(datum, self._reader), self._record)

    def fields(self, payload: bytes | None, headers: Headers = ()) -> Any:
        """What a payload holds, by the names of whoever wrote it. Raises: CodecError, SchemaUnavailable."""
        try:
            framed = unframe(payload, headers, self._wanted)
        except NotFramedError as e:
            raise NotFramed(str(e)) from e
        return json_fields(framed.datum) if framed.schema is None else self.writer(framed.schema).fields(framed.datum)


def fingerprints(name: str) -> dict[bytes, Writer]:
    """Of every version of a record type's schema, as a single object has it: little-endian."""
    found = {}
    for schema in avro_history(name):
        canonical_form = fastavro.schema.to_parsing_canonical_form(schema)
        printed = fastavro.schema.fingerprint(canonical_form, "CRC-64-AVRO")
        found[bytes.fromhex(printed)] = Writer(schema)
    return found


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
      NotThisRecord: required fields are missing or have the wrong type; it names them all.
    """
    try:
        return msgspec.convert(fields, record)
    except msgspec.ValidationError as e:
        raise NotThisRecord(_all_faults(fields, record) or str(e)) from e


def from_json(line: bytes | memoryview, record: type[R]) -> R:
    """One JSON line as a typed record.

    Raises:
      Undecodable: not JSON.
      NotThisRecord: JSON of another shape; it names all that is wrong.
    """
    try:
        return msgspec.json.decode(line, type=record)
    except msgspec.ValidationError as e:
        raise NotThisRecord(_all_faults(json_fields(line), record) or str(e)) from e
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Undecodable(str(e)) from e


def json_fields(text: bytes | memoryview) -> Any:
    """Raises: Undecodable: not JSON."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Undecodable(str(e)) from e


def _all_faults(fields: Any, record: type[msgspec.Struct]) -> str:
    """Everything that keeps fields from being a record, at once; "" when it is no object."""
    if not isinstance(fields, dict):
        return other_json(fields)
    known = msgspec.structs.fields(record)
    missing = [f.name for f in known if f.required and f.name not in fields]
    wrong = []
    for field in known:
        if field.name in fields:
            try:
                msgspec.convert(fields[field.name], field.type)
            except msgspec.ValidationError as e:
                wrong.append(f"{field.name}: {e}")
    faults = [f"required and not there: {', '.join(missing)}"] * bool(missing) + wrong
    seems = other_json(fields) if missing else ""
    return "; ".join(faults + [seems] * bool(seems))


def to_json(record: msgspec.Struct) -> bytes:
    return msgspec.json.encode(record)


def write_container(out: IO[bytes], record: type[R], records: Iterable[R]) -> None:
    """Writes an Avro object container file."""
    fields = (msgspec.to_builtins(r) for r in records)
    fastavro.writer(out, fastavro.parse_schema(avro_schema(record.__name__)), fields, codec="deflate")


def canonical(schema: dict[str, Any]) -> str:
    """The schema as the text that is registered."""
    return json.dumps(schema, separators=(",", ":"), ensure_ascii=False)
