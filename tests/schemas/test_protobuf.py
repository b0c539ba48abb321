"""Protobuf by the text of its schema: against Google's own runtime, with messages that it wrote."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from schemas.proto_text import ProtoTextError, parse_proto
from schemas.protobuf import Message, ProtobufError

SHOP = """
syntax = "proto3";
package shop.v1;  // the shop's
import "google/protobuf/timestamp.proto";
import "money.proto";
option java_package = "x.y";
/* an order
   and its lines */
message Envelope { string trace = 1; }
message Order {
  enum Status { UNKNOWN = 0; CREATED = 1; CANCELLED = 2 [deprecated = true]; }
  message Line { string sku = 1; int32 quantity = 2 [json_name = "q"]; shop.v1.Money price = 3; }
  reserved 90 to 95, 99; reserved "old";
  string id = 1;
  Status status = 2;
  repeated Line lines = 3;
  map<string, int64> totals = 4;
  google.protobuf.Timestamp at = 5;
  optional string coupon = 6;
  oneof who { string user = 7; int64 guest = 8; }
  sint64 delta = 9; bool first = 10; double rate = 11; bytes raw = 12;
}
service Orders { rpc Get (Order) returns (Order) { option x = { a: 1 }; } }
"""
MONEY = 'syntax = "proto3"; package shop.v1; message Money { int64 units = 1; string currency = 2; }'


def order_class() -> Any:
    pool = descriptor_pool.DescriptorPool()
    from google.protobuf import timestamp_pb2

    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(parse_proto(MONEY, "money.proto"))
    pool.Add(parse_proto(SHOP, "shop.proto"))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.v1.Order"))


def an_order(**changes: Any) -> bytes:
    fields: dict[str, Any] = {"id": "o-1", "status": 1, "delta": -3, "first": True, "user": "u-1"}
    found = order_class()(**(fields | changes))
    found.at.seconds, found.at.nanos = 1_790_000_000, 5_000_000
    found.lines.add(sku="p-1", quantity=2).price.units = 1999
    found.totals["EUR"] = 1 << 60
    return bytes(found.SerializeToString())


SECOND = b"\x02\x02"  # one index: 1


def message() -> Message:
    return Message(SHOP, {"money.proto": MONEY})


def test_a_message_becomes_fields_by_the_names_of_its_schema() -> None:
    assert message().fields(SECOND + an_order()) == {
        "id": "o-1",
        "status": "CREATED",
        "lines": [{"sku": "p-1", "quantity": 2, "price": {"units": 1999, "currency": ""}}],
        "totals": {"EUR": 1 << 60},
        "at": 1_790_000_000_005,
        "user": "u-1",
        "delta": -3,
        "first": True,
        "rate": 0.0,
        "raw": b"",
    }
    assert message().fields(SECOND + an_order(coupon="")).get("coupon") == ""


@pytest.mark.parametrize("header", [b"\x02\x02", b"\x01\x01"], ids=["zig-zag", "plain"])
def test_old_and_new_clients_say_differently_which_message_it_is(header: bytes) -> None:
    assert message().fields(header + an_order())["id"] == "o-1"


def test_what_confluents_own_client_registers_and_writes_is_read() -> None:
    """It registers descriptors in base64, not text, and what they import as references."""
    client = SchemaRegistryClient.new_client({"url": "mock://"})
    kind = order_class()
    sent = kind.FromString(an_order())
    payload = ProtobufSerializer(kind, client, {"use.deprecated.format": False})(
        sent, SerializationContext("t", MessageField.VALUE)
    )
    assert payload is not None
    found = client.get_schema(int.from_bytes(payload[1:5], "big"))
    imports = {r.name: client.get_version(r.subject, r.version).schema.schema_str for r in found.references}
    assert Message(found.schema_str, imports).fields(payload[5:]) == message().fields(SECOND + an_order())


def test_a_lone_zero_is_the_first_message_and_indexes_go_into_it() -> None:
    assert message().fields(b"\0\x0a\x01t") == {"trace": "t"}
    assert message().fields(b"\x04\x02\x00\x0a\x01s")["sku"] == "s"


@pytest.mark.parametrize(
    ("datum", "why"),
    [
        (b"", "no message"),
        (b"\x02", "ends in its header"),
        (b"\x02\x08", "no message"),
        (b"\x7e", "nested 63 deep"),
        (b"\x02\x01", "index -1"),
        (b"\x80" * 9, "longer than 5 bytes"),
        (SECOND + b"\x0a\x05o", ""),
    ],
)
def test_bytes_that_are_no_message_are_refused(datum: bytes, why: str) -> None:
    with pytest.raises(ProtobufError, match=why):
        message().fields(datum)


def test_an_empty_message_of_many_fields_does_not_blow_up() -> None:
    many = "".join(f"int32 f{i} = {i + 1}; " for i in range(1000))
    text = f'syntax = "proto3"; message A {{ repeated B b = 1; }} message B {{ {many} }}'
    with pytest.raises(ProtobufError, match="more than 1000 values"):
        Message(text, {}).fields(b"\0" + b"\x0a\x00" * 1_000)


def test_a_message_nested_without_end_is_refused() -> None:
    deep = b""
    for _ in range(80):
        deep = (
            b"\x0a" + bytes([len(deep) & 0x7F | 0x80, len(deep) >> 7]) + deep
            if len(deep) > 127
            else b"\x0a" + bytes([len(deep)]) + deep
        )
    with pytest.raises(ProtobufError, match="deep"):
        Message('syntax = "proto3"; message A { A a = 1; }', {}).fields(b"\0" + deep)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no message"),
        ("message", "ends in the middle"),
        ("message A {", "ends in the middle"),
        ("message A { string a = x; }", "a number"),
        ("message A { string a = 99999999999; }", "no number of a field"),
        ("message A { Nobody a = 1; }", ""),
        ("helloworld", "neither text nor a descriptor"),
        ("hello", "where a declaration should be"),
        ('syntax = "proto9";', "proto9"),
        ('import "else.proto"; message A {}', "else.proto"),
        ("message A {" * 40, "nested more than 32 deep"),
        ("x" * (2 << 20), "longer than"),
        ("message A { group B = 1 { } }", ""),
    ],
)
def test_a_schema_that_cannot_be_read_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises((ProtobufError, ProtoTextError), match=why):
        Message(text, {}).fields(b"\0")


def test_files_that_import_each_other_are_refused() -> None:
    circle = {"a.proto": 'import "b.proto";', "b.proto": 'import "a.proto";'}
    with pytest.raises(ProtobufError, match="circle"):
        Message('import "a.proto"; message A {}', circle)


@given(st.binary(max_size=200), st.integers(0, 1 << 30))
def test_any_bytes_are_a_message_or_refused(noise: bytes, seed: int) -> None:
    spoilt = bytearray(SECOND + an_order())
    rng = random.Random(seed)
    for _ in range(3):
        spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
    for datum in (noise, bytes(spoilt)):
        with contextlib.suppress(ProtobufError):
            message().fields(datum)


@given(
    st.text(max_size=100)
    | st.lists(st.sampled_from([*SHOP.split(), "{", "}", ";", "=", "1"]), max_size=60).map(" ".join)
)
def test_any_text_is_a_schema_or_refused(text: str) -> None:
    with contextlib.suppress(ProtobufError):
        Message(text, {"money.proto": MONEY})
