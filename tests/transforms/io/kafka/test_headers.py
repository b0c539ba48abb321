"""Headers as the client gives them, and what stands for those that it cannot give."""

from __future__ import annotations

import hashlib
import io
import socket
import struct

import fastavro
import google_crc32c
import pytest
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from confluent_kafka import Message

from connections.kafka import Connection
from stack import Stack
from tests import live
from tests.build import SECOND, T0
from transforms.errors import UNREADABLE_HEADERS, BadRecord
from transforms.io.kafka.consumer import PartitionsConsumer
from transforms.io.kafka.headers import headers_of
from transforms.io.kafka.position import At, Position
from transforms.io.kafka.reader import Reader, Source
from transforms.io.originals import Originals
from transforms.letter_envelopes import Cut


def _varint(value: int) -> bytes:
    """Kafka's varints are Avro's longs."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", value)
    return out.getvalue()


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _batch(value: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    """A record batch of one record. https://kafka.apache.org/documentation/#recordbatch"""
    pairs = b"".join(_sized(name) + _sized(data) for name, data in headers)
    record = b"\0" + _varint(0) + _varint(0) + _varint(-1) + _sized(value) + _varint(len(headers)) + pairs
    after_crc = struct.pack(">hiqqqhii", 0, 0, T0, T0, -1, -1, -1, 1) + _sized(record)
    after_length = struct.pack(">ibI", -1, 2, google_crc32c.value(after_crc)) + after_crc
    return struct.pack(">qi", 0, len(after_length)) + after_length


def _produce(server: str, topic: str, batch: bytes) -> int:
    """By hand, as the client refuses to write such a name. Returns: the broker's error code."""
    name = struct.pack(">h", len(topic)) + topic.encode()
    body = struct.pack(">hhih", 0, 3, 1, -1) + struct.pack(">hhi", -1, -1, 30_000)
    body += struct.pack(">i", 1) + name + struct.pack(">iii", 1, 0, len(batch)) + batch
    host, port = server.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(struct.pack(">i", len(body)) + body)
        with connection.makefile("rb") as answers:
            answer = answers.read(struct.unpack(">i", answers.read(4))[0])
    return int(struct.unpack_from(">h", answer, 4 + 4 + len(name) + 4 + 4)[0])


def _without_headers(number: int) -> list[Message]:
    return [Message(topic="headers", value=b"0") for _ in range(number)]


@pytest.mark.stack
def test_a_record_whose_header_name_is_not_utf_8_is_read_with_the_others(live_stack: Stack) -> None:
    server, topic = live_stack.address("kafka"), "headers"
    live.fill_topic(live_stack, topic, [live.Message(b"0", b"k", T0, 0, [("a", b"1")])], partitions=1)
    assert _produce(server, topic, _batch(b"1", [(b"\xff\xfe", b"1"), (b"b", b"2")])) == 0
    assert _produce(server, topic, _batch(b"2", [(b"c", b"3")])) == 0

    consumer = PartitionsConsumer(Connection(server), topic, "tests", 10)
    consumer.assign({0: At(1)})
    bad = live.eventually(lambda: consumer.fetch().messages.get(0), "the record", every_s=0)
    bad = [*_without_headers(100), *bad]  # by now CPython has specialised the call, and looks for no error after it
    assert headers_of(bad)[100] == [(UNREADABLE_HEADERS, None)]
    assert headers_of(bad)[100] == [(UNREADABLE_HEADERS, None)], "the client breaks when it is asked again"
    consumer.close()

    cut = Cut(1, hashlib.sha256(b"1").hexdigest())
    letter = BadRecord(b"1", "fraud", "decode", "X", "x", topic, 0, 1, T0, None, [], None, 1, T0)
    assert Originals(server).fetch(letter, cut).headers == [(UNREADABLE_HEADERS, None)]

    source = Source(server, topic, "tests", 10 * SECOND, 3_600 * SECOND, {0: 3})
    reader = Reader(source, Position(0, 1), MIN_TIMESTAMP)
    blocks = list(iter(lambda: reader.next_block(30), None))
    reader.close()
    found = {b.payload(i): b.headers.get(i) for b in blocks for i in range(len(b))}
    assert found == {b"0": [("a", b"1")], b"1": [(UNREADABLE_HEADERS, None)], b"2": [("c", b"3")]}
