"""Payloads told apart: by headers first, then by first bytes; and what is said of one that is none of them."""

from __future__ import annotations

import base64
import contextlib
import json
import uuid
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.codec import NotFramed, NotThisRecord, UnknownSchema
from schemas.events import OrderEvent, avro_history, avro_schema
from schemas.framing import FORMATS, NotFramedError, format_of, other_json, unframe
from tests.build import fetch, order, payload

ORDER = order()
JSON = codec.to_json(ORDER)
AVRO = payload(ORDER)
DATUM = AVRO[codec.FRAME_BYTES :]
GUID = uuid.UUID(int=7)
PRINT = fastavro.schema.fingerprint(fastavro.schema.to_parsing_canonical_form(avro_schema("OrderEvent")), "CRC-64-AVRO")
SINGLE = b"\xc3\x01" + bytes.fromhex(PRINT) + DATUM
STRUCTURED = ("Content-Type", b"application/CloudEvents+json; charset=utf-8")
BINARY: list[tuple[str, bytes | None]] = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_type", b"t")]


def cloud_event(**more: Any) -> bytes:
    return json.dumps({"specversion": "1.0", "id": "1", "source": "/shop", "type": "order", **more}).encode()


def schemas(key: Any) -> Any:
    if key == str(GUID):
        return avro_schema("OrderEvent")
    if key == 21:
        return codec.Described("JSON", "{}")
    return fetch(key)


WAYS: dict[str, tuple[str, bytes, list[tuple[str, bytes | None]]]] = {
    "plain JSON": ("json", JSON, []),
    "JSON behind a byte order mark": ("json", b"\xef\xbb\xbf" + JSON, []),
    "JSON behind blanks": ("json", b" \r\n" + JSON, []),
    "Confluent Avro": ("confluent", AVRO, []),
    "Confluent JSON Schema": ("confluent", b"\0\0\0\0\x15" + JSON, []),
    "a GUID in the payload": ("confluent", b"\1" + GUID.bytes + DATUM, []),
    "a GUID in a header": ("confluent", DATUM, [("__value_schema_id", b"\1" + GUID.bytes)]),
    "an id in a header": ("confluent", DATUM, [("__value_schema_id", b"\0\0\0\0\1")]),
    "a single object": ("single_object", SINGLE, []),
    "a structured CloudEvent": ("cloudevents", cloud_event(data=msgspec.to_builtins(ORDER)), [STRUCTURED]),
    "a CloudEvent of Avro": ("cloudevents", cloud_event(data_base64=base64.b64encode(AVRO).decode()), [STRUCTURED]),
    "a binary CloudEvent": ("cloudevents", JSON, BINARY),
    "a binary CloudEvent of Avro": ("cloudevents", AVRO, BINARY),
    "a binary CloudEvent with a GUID": ("cloudevents", DATUM, [*BINARY, ("__value_schema_id", b"\1" + GUID.bytes)]),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_record_is_the_same_however_it_is_framed(way: str) -> None:
    wanted, framed, headers = WAYS[way]
    for asked in ("auto", wanted):
        assert codec.Decoder(OrderEvent, schemas, asked).decode(framed, headers) == ORDER


@pytest.mark.parametrize("way", WAYS)
def test_another_format_than_the_one_that_is_asked_for_is_refused_and_named(way: str) -> None:
    found, framed, headers = WAYS[way]
    found = format_of(framed, headers) or found
    for asked in FORMATS.keys() - {found, "cloudevents"}:
        with pytest.raises(NotFramed, match=f"not {FORMATS[asked]}.*looks like {FORMATS[found]}"):
            codec.Decoder(OrderEvent, schemas, asked).decode(framed, headers)


def test_a_structured_event_without_its_content_type_is_read_when_the_format_is_given() -> None:
    event = cloud_event(data=msgspec.to_builtins(ORDER))
    assert codec.Decoder(OrderEvent, schemas, "cloudevents").decode(event) == ORDER
    with pytest.raises(NotThisRecord, match="a CloudEvent: --format=cloudevents"):
        codec.Decoder(OrderEvent, schemas).decode(event)


@pytest.mark.parametrize(
    ("framed", "headers", "why"),
    [
        (b"", [], "empty payload"),
        (None, [], "empty payload"),
        (b"\0\0\0", [], "3 bytes are too short for the 5-byte header"),
        (b"\1\0\0\0\1x", [], "6 bytes are too short for the 17-byte header"),
        (b"\xc3\x01x", [], "3 bytes are too short for the 10-byte header"),
        (b"Obj\x01rest", [], "an Avro container file"),
        (b"\x03\0" + bytes(16), [], "AWS Glue"),
        (b"<order/>", [], "XML"),
        (b'"{}"', [], "encoded twice"),
        (b"\x9f\x01\x02", [], "it begins with 9f 01 02"),
        (DATUM, [("__value_schema_id", b"7" * 5_000)], "header __value_schema_id has no schema id"),
        (b"{}", [STRUCTURED], "not a CloudEvent"),
        (cloud_event(), [STRUCTURED], "has no data"),
        (cloud_event(data_base64="?"), [STRUCTURED], "data_base64"),
        (cloud_event(data_base64=""), [STRUCTURED], "empty payload"),
    ],
)
def test_what_is_in_no_format_is_refused_with_what_it_looks_like(framed: Any, headers: Any, why: str) -> None:
    with pytest.raises(NotFramedError, match=why):
        unframe(framed, headers)


def test_a_single_object_of_a_foreign_schema_is_of_an_unknown_one() -> None:
    with pytest.raises(UnknownSchema, match="ffffffffffffffff"):
        codec.Decoder(OrderEvent, schemas).decode(b"\xc3\x01" + b"\xff" * 8 + DATUM)


def test_every_version_of_a_schema_has_its_fingerprint() -> None:
    for name in ("OrderEvent", "ClickstreamEvent"):
        assert len(codec.fingerprints(name)) == len(
            {json.dumps(codec.plain_schema(schema)) for schema in avro_history(name)}
        )


@pytest.mark.parametrize(
    "sign", [{"op": 1, "ts_ms": 1, "after": {}}, {"schema": {}, "payload": {}}, {"messageId": 1, "properties": {}}]
)
def test_json_that_is_known_by_its_fields_is_named_in_the_refusal(sign: dict[str, Any]) -> None:
    with pytest.raises(NotThisRecord, match=r"required and not there: order_id, .*it looks like") as refusal:
        codec.from_json(json.dumps(sign).encode(), OrderEvent)
    assert other_json(sign) in str(refusal.value)


def test_all_faults_of_a_record_are_named_at_once() -> None:
    fields = msgspec.to_builtins(ORDER) | {"user_id": 7, "order_status": "LOST", "items": [{}]}
    del fields["currency"], fields["event_time"]
    with pytest.raises(NotThisRecord) as refusal:
        codec.from_json(json.dumps(fields).encode(), OrderEvent)
    assert str(refusal.value).startswith("required and not there: currency, event_time; user_id: ")
    assert all(f"; {name}: " in str(refusal.value) for name in ("user_id", "order_status", "items"))


texts = st.sampled_from([name for way in WAYS.values() for name, _ in way[2]] + ["content-type", "x"])


@given(st.binary(max_size=60), st.lists(st.tuples(texts, st.none() | st.binary(max_size=30)), max_size=3))
def test_any_bytes_are_of_a_format_or_refused(noise: bytes, headers: Any) -> None:
    for wanted in ("auto", *FORMATS):
        with contextlib.suppress(NotFramedError):
            unframe(noise, headers, wanted)
