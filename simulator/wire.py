"""Encodes events as bytes, and corrupts bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec

from schemas.codec import FRAME_BYTES, encode, parse_schema, to_json
from schemas.events import InventoryEvent, avro_schema
from simulator.config import INVENTORY, RECORDS

__all__ = ["PLACEHOLDER", "Fault", "Framed", "JsonLines", "Records", "Wire"]

# A fault takes a valid record, whose session_id is PLACEHOLDER, and gives bytes that are none.
Fault = Callable[[str, msgspec.Struct, random.Random], bytes | None]

PLACEHOLDER: Final = "session-x"
_BROKEN_TEXT: Final = b"sess\xc3\x28n-\xff"  # as long as the placeholder, so that Avro's length prefix stays right
_NO_SCHEMA_HAS: Final = 2_000_000_000


class Wire(Protocol):
    """A format.

    Attributes:
      faults: ways to break a record's bytes, by reason.
      has_timestamps: messages have a timestamp beside the record's own event time.
    """

    faults: dict[str, Fault]
    has_timestamps: bool

    def encode(self, topic: str, record: msgspec.Struct) -> bytes: ...


class Framed:
    """Avro in the Confluent wire format.

    Args:
      ids: schema id of each topic.
    """

    has_timestamps = True

    def __init__(self, ids: Mapping[str, int]):
        self._schemas = {topic: (ids[topic], parse_schema(avro_schema(RECORDS[topic].__name__))) for topic in RECORDS}
        self.faults: dict[str, Fault] = {
            "truncated": self._truncated,
            "unknown_schema_id": self._unknown_schema_id,
            "wrong_magic_byte": self._wrong_magic_byte,
            "wrong_types": self._wrong_types,
            "other_schema": self._other_schema,
            "invalid_utf8": self._invalid_utf8,
            "empty_payload": lambda _topic, _record, _rng: b"",
            "null_payload": lambda _topic, _record, _rng: None,
        }

    def encode(self, topic: str, record: msgspec.Struct) -> bytes:
        return encode(record, *self._schemas[topic])

    def _truncated(self, topic: str, record: msgspec.Struct, rng: random.Random) -> bytes:
        payload = self.encode(topic, record)
        return payload[: rng.randrange(FRAME_BYTES, len(payload))]

    def _unknown_schema_id(self, topic: str, record: msgspec.Struct, rng: random.Random) -> bytes:
        unknown = _NO_SCHEMA_HAS + rng.randrange(1_000_000)
        return b"\0" + unknown.to_bytes(4, "big") + self.encode(topic, record)[FRAME_BYTES:]

    def _wrong_magic_byte(self, topic: str, record: msgspec.Struct, rng: random.Random) -> bytes:
        return bytes([rng.randrange(0x80, 0x100)]) + self.encode(topic, record)[1:]  # with which no format begins

    def _wrong_types(self, topic: str, record: msgspec.Struct, rng: random.Random) -> bytes:
        return self.encode(topic, record)[:FRAME_BYTES] + self._other_schema(topic, record, rng)[FRAME_BYTES:]

    def _other_schema(self, topic: str, record: msgspec.Struct, rng: random.Random) -> bytes:  # noqa: ARG002
        number = rng.randrange(10**9)
        # Numbers that no order or click has in the place where these are read, so that it can never fit by chance.
        stranger = InventoryEvent(f"x-{number:09d}", f"P{number % 300:04d}", "IST-1", "SALE", -1, 500, 1, None)
        return self.encode(INVENTORY, stranger)

    def _invalid_utf8(self, topic: str, record: msgspec.Struct, rng: random.Random) -> bytes:  # noqa: ARG002
        return self.encode(topic, record).replace(PLACEHOLDER.encode(), _BROKEN_TEXT)


class JsonLines:
    """One JSON object a line."""

    has_timestamps = False

    def __init__(self) -> None:
        self.faults: dict[str, Fault] = {
            "truncated": self._truncated,
            "wrong_types": self._wrong_types,
            "missing_field": self._missing_field,
            "invalid_utf8": self._invalid_utf8,
            "not_json": lambda _topic, _record, rng: f"?? {rng.randrange(10**9)}".encode(),
            "null_payload": lambda _topic, _record, _rng: b"null",
        }

    def encode(self, topic: str, record: msgspec.Struct) -> bytes:  # noqa: ARG002
        return to_json(record)

    def _truncated(self, topic: str, record: msgspec.Struct, rng: random.Random) -> bytes:
        line = self.encode(topic, record)
        return line[: rng.randrange(1, len(line))].rstrip()

    def _wrong_types(self, topic: str, record: msgspec.Struct, rng: random.Random) -> bytes:  # noqa: ARG002
        return msgspec.json.encode(msgspec.to_builtins(record) | {"event_time": "yesterday"})

    def _missing_field(self, topic: str, record: msgspec.Struct, rng: random.Random) -> bytes:  # noqa: ARG002
        fields = msgspec.to_builtins(record)
        del fields["user_id"]
        return msgspec.json.encode(fields)

    def _invalid_utf8(self, topic: str, record: msgspec.Struct, rng: random.Random) -> bytes:  # noqa: ARG002
        return self.encode(topic, record).replace(PLACEHOLDER.encode(), _BROKEN_TEXT)


class Records:
    """Avro object containers: their records can be wrong, their bytes cannot."""

    has_timestamps = False

    def __init__(self) -> None:
        self.faults: dict[str, Fault] = {}

    def encode(self, topic: str, record: msgspec.Struct) -> bytes:  # noqa: ARG002
        return to_json(record)
