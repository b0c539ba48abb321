"""Orders of ours in every framing that jobs read, as fastavro, Google's Protobuf and Python's json write it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import fastavro
import msgspec
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from google.protobuf import descriptor_pool, message_factory

from schemas.codec import encode_datum, parse_schema, to_json
from schemas.events import OrderEvent, avro_schema
from schemas.proto_text import parse_proto

__all__ = ["FRAMINGS", "Headers", "framings"]

Headers = list[tuple[str, bytes | None]]
Framing = Callable[[OrderEvent], tuple[bytes, Headers]]

FRAMINGS = (
    "plain JSON",
    "Confluent Avro with references",
    "Confluent JSON Schema",
    "Confluent Protobuf",
    "an id in a header",
    "an Avro single object",
    "a structured CloudEvent",
    "a binary CloudEvent",
)
_JSON = '{"$schema":"http://json-schema.org/draft-07/schema#","type":"object"}'
_PROTO = """
syntax = "proto3";
package shop.v1;
message OrderEvent {
  enum Status { CREATED = 0; CONFIRMED = 1; SHIPPED = 2; DELIVERED = 3; CANCELLED = 4; REFUNDED = 5; }
  message Item {
    string product_id = 1; string product_name = 2; string category = 3; int32 quantity = 4;
    int64 unit_price_minor = 5; int64 total_price_minor = 6;
  }
  string order_id = 1; string user_id = 2; string session_id = 3; Status order_status = 4; repeated Item items = 5;
  int64 subtotal_minor = 6; int64 discount_minor = 7; int64 shipping_minor = 8; int64 total_amount_minor = 9;
  string currency = 10; string payment_method = 11; string shipping_region = 12; bool is_first_order = 13;
  int64 event_time = 14;
}
"""


def framings(registry_url: str) -> dict[str, Framing]:
    """By the names of `FRAMINGS`, with their schemas registered."""
    client = SchemaRegistryClient({"url": registry_url})
    ours = avro_schema("OrderEvent")
    parsed = parse_schema(ours)
    frames = {name: b"\0" + id_.to_bytes(4, "big") for name, id_ in _registered(client, ours).items()}
    canonical = fastavro.schema.to_parsing_canonical_form(ours)
    single = b"\xc3\x01" + bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
    message = _message_class()

    def cloud_event(order: OrderEvent) -> bytes:
        event = {"specversion": "1.0", "id": order.order_id, "source": "/shop", "type": "order"}
        return json.dumps({**event, "data": msgspec.to_builtins(order)}).encode()

    def protobuf(order: OrderEvent) -> bytes:
        return bytes(message(**msgspec.to_builtins(order)).SerializeToString())

    made: list[Framing] = [
        lambda order: (to_json(order), []),
        lambda order: (frames["references"] + encode_datum(order, parsed), []),
        lambda order: (frames["json"] + to_json(order), []),
        lambda order: (frames["protobuf"] + b"\0" + protobuf(order), []),
        lambda order: (encode_datum(order, parsed), [("__value_schema_id", frames["avro"])]),
        lambda order: (single + encode_datum(order, parsed), []),
        lambda order: (cloud_event(order), [("content-type", b"application/cloudevents+json")]),
        lambda order: (frames["avro"] + encode_datum(order, parsed), [("ce_specversion", b"1.0"), ("ce_id", b"1")]),
    ]
    return dict(zip(FRAMINGS, made, strict=True))


def _registered(client: SchemaRegistryClient, ours: dict[str, Any]) -> dict[str, int]:
    """The same order as one schema, and as one that refers to its item."""
    whole = copy.deepcopy(ours)
    [items] = [field for field in whole["fields"] if field["name"] == "items"]
    item = items["type"]["items"]
    items["type"]["items"] = name = f"{ours['namespace']}.{item['name']}"
    client.register_schema("framed.item", Schema(json.dumps({"namespace": ours["namespace"], **item}), "AVRO"))
    version = client.get_latest_version("framed.item").version
    referring = Schema(json.dumps(whole), "AVRO", [SchemaReference(name, "framed.item", version)])
    return {
        "avro": client.register_schema("framed.avro", Schema(json.dumps(ours), "AVRO")),
        "references": client.register_schema("framed.references", referring),
        "json": client.register_schema("framed.json", Schema(_JSON, "JSON")),
        "protobuf": client.register_schema("framed.protobuf", Schema(_PROTO, "PROTOBUF")),
    }


def _message_class() -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(parse_proto(_PROTO, "framed.proto"))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.v1.OrderEvent"))
