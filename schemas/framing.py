"""How a payload is framed: which schema it is of, and where its datum begins. Headers first, then first bytes.

    {…  or [… (also behind a byte order mark)      JSON
    00, id (4 bytes), datum                         Confluent's; Avro, JSON or Protobuf, as the registry says of the id
    01, GUID (16 bytes), datum                      Confluent's, newer; the same in a header, before a bare datum
    C3 01, CRC-64-AVRO (8 bytes), datum             Avro single-object encoding
    a header content-type: application/cloudevents  CloudEvents, structured: the event is in `data` or `data_base64`
    a header ce_specversion                         CloudEvents, binary: the payload is the event

Nothing here is asked of a registry, and nothing is copied but what JSON or base64 hold.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec

__all__ = ["BOM", "FORMATS", "FRAME_BYTES", "Framed", "Headers", "NotFramedError", "format_of", "looks_like", "unframe"]

Headers = Sequence[tuple[str, bytes | None]]

FORMATS: Final = {
    "json": "plain JSON",
    "confluent": "Confluent's wire format",
    "single_object": "Avro single-object encoding",
    "cloudevents": "CloudEvents",
}
"""What --format may say, and what people call it."""

# https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
_FRAME = struct.Struct(">bI")
FRAME_BYTES: Final = _FRAME.size
_GUID_BYTES = 17
_GUID_HEADERS = ("__value_schema_id", "value.schema.id")
_SINGLE_OBJECT = b"\xc3\x01"
_SINGLE_OBJECT_BYTES = 10
BOM: Final = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_MAX_BASE64 = 16 << 20
_LOOKS: Final = (
    (b"Obj\x01", "an Avro container file; a message is a datum, not a file"),
    (b"\x03\0", "AWS Glue's frame, which is not read here"),
    (b"\x03\x05", "AWS Glue's frame, which is not read here"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstandard"),
    (b"PAR1", "a Parquet file"),
    (b"<", "XML"),
    (b'"', "a JSON text; JSON that was encoded twice?"),
    (b"\xac\xed", "a serialized Java object"),
)


class NotFramedError(ValueError):
    """The payload is in none of the formats, or not in the one that was asked for."""


class Framed(NamedTuple):
    """
    Attributes:
      format: of `FORMATS`; of a CloudEvent, that of the event in it.
      schema: the registry's id or GUID, or the fingerprint of a single object; None: JSON needs none.
    """

    format: str
    schema: int | str | bytes | None
    datum: bytes | memoryview


class _CloudEvent(msgspec.Struct):
    specversion: str
    id: str
    source: str
    type: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data_base64: str | msgspec.UnsetType = msgspec.UNSET


_cloud_event = msgspec.json.Decoder(_CloudEvent).decode


def format_of(payload: bytes | memoryview, headers: Headers = ()) -> str | None:
    """Which of `FORMATS` it is, as its headers and first bytes say; None: none of them."""
    for name, value in headers:
        lower = name.lower()
        if lower in _GUID_HEADERS and value:
            return "confluent"
        if lower == "ce_specversion" or (lower == "content-type" and _is_cloud_event(value)):
            return "cloudevents"
    if payload[:1] in (b"\0", b"\1"):
        return "confluent"
    if payload[:2] == _SINGLE_OBJECT:
        return "single_object"
    return "json" if _begins_json(payload) else None


def unframe(payload: bytes | None, headers: Headers = (), wanted: str = "auto") -> Framed:
    """Raises: NotFramedError."""
    if not payload:
        raise NotFramedError("empty payload")
    found = format_of(payload, headers)
    if found == "cloudevents" and wanted in ("auto", "cloudevents"):
        return _unwrapped(payload, headers)
    if wanted == "cloudevents" and found == "json":  # structured, and nobody set the content type
        return _structured(payload)
    if found is None or wanted not in ("auto", found):
        raise NotFramedError(_not(payload, found, wanted))
    match found:
        case "json":
            return Framed(found, None, payload.removeprefix(BOM))
        case "single_object":
            if len(payload) < _SINGLE_OBJECT_BYTES:
                raise NotFramedError(f"{len(payload)} bytes are too short for the 10-byte header of a single object")
            return Framed(found, payload[2:_SINGLE_OBJECT_BYTES], memoryview(payload)[_SINGLE_OBJECT_BYTES:])
        case "cloudevents":
            raise AssertionError("is unwrapped above, or refused")
    for name, value in headers:
        if name.lower() in _GUID_HEADERS and value:
            return Framed(found, _schema_in(value, f"header {name}"), payload)
    return _confluent(payload)


def _confluent(payload: bytes) -> Framed:
    size = FRAME_BYTES if payload[0] == 0 else _GUID_BYTES
    if len(payload) < size:
        raise NotFramedError(f"{len(payload)} bytes are too short for the {size}-byte header")
    return Framed("confluent", _schema_in(payload[:size], "the payload"), memoryview(payload)[size:])


def _schema_in(frame: bytes, where: str) -> int | str:
    """A registry's id, or a GUID as text."""
    if len(frame) == FRAME_BYTES and frame[0] == 0:
        return int(_FRAME.unpack(frame)[1])
    if len(frame) == _GUID_BYTES and frame[0] == 1:
        digits = frame[1:].hex()
        return "-".join(digits[a:b] for a, b in pairwise((0, 8, 12, 16, 20, 32)))
    raise NotFramedError(f"{where} has no schema id: {frame[:20].hex(' ')}")


def _unwrapped(payload: bytes, headers: Headers) -> Framed:
    if any(name.lower() == "content-type" and _is_cloud_event(value) for name, value in headers):
        return _structured(payload)
    inner = [(name, value) for name, value in headers if name.lower() in _GUID_HEADERS]
    return unframe(payload, inner)


def _structured(payload: bytes) -> Framed:
    try:
        event = _cloud_event(payload.removeprefix(BOM))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise NotFramedError(f"not a CloudEvent: {e}") from e
    if isinstance(event.data, msgspec.Raw):
        return Framed("json", None, bytes(event.data))
    if isinstance(event.data_base64, str):
        if len(event.data_base64) > _MAX_BASE64:
            raise NotFramedError(f"data_base64 is longer than {_MAX_BASE64}")
        try:
            inside = base64.b64decode(event.data_base64, validate=True)
        except binascii.Error as e:
            raise NotFramedError(f"data_base64 of the CloudEvent: {e}") from e
        return unframe(inside)  # its bytes cannot be a CloudEvent again: they have no headers
    raise NotFramedError(f"the CloudEvent {event.id[:60]!r} has no data")


def _is_cloud_event(content_type: bytes | None) -> bool:
    return content_type is not None and content_type[:23].lower() == b"application/cloudevents"


def _begins_json(payload: bytes | memoryview) -> bool:
    if payload[:1] in (b"{", b"["):
        return True
    return bytes(payload[:64]).removeprefix(BOM).lstrip(_SPACE)[:1] in (b"{", b"[")


def _not(payload: bytes, found: str | None, wanted: str) -> str:
    asked = "in none of the formats that are read" if wanted == "auto" else f"not {FORMATS[wanted]}"
    return f"{asked}: magic byte is {payload[0]}, {looks_like(payload, found)}"


def looks_like(payload: bytes | memoryview, found: str | None = None) -> str:
    """For a message about a payload that is not what it should be."""
    found = found or format_of(payload)
    if found:
        return f"it looks like {FORMATS[found]}"
    for sign, name in _LOOKS:
        if payload[: len(sign)] == sign:
            return f"it looks like {name}"
    return f"it begins with {bytes(payload[:8]).hex(' ')}"


def other_json(fields: Any) -> str:
    """What a JSON object that lacks our fields is known as; "" when it is nothing known."""
    if not isinstance(fields, dict):
        return "a JSON array; a message is one object with fields" if isinstance(fields, list) else ""
    names = fields.keys()
    for signs, name in (
        ({"specversion", "source", "type"}, "a CloudEvent: --format=cloudevents"),
        ({"schema", "payload"}, "JSON of Kafka Connect with its schema: set schemas.enable=false"),
        ({"op", "ts_ms", "after"}, "a change of Debezium, which the cdc job reads"),
        ({"event_name", "event_params"}, "an event of Google Analytics 4: --mapping=ga4"),
        ({"messageId", "properties"}, "an event of Segment or RudderStack: --mapping=segment"),
        ({"collector_tstamp", "app_id"}, "an event of Snowplow: --mapping=snowplow"),
        ({"line_items", "total_price"}, "an order of Shopify: --mapping=shopify"),
        ({"line_items", "discount_total"}, "an order of WooCommerce: --mapping=woocommerce"),
    ):
        if signs <= names:
            return f"it looks like {name}"
    return ""
