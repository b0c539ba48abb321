"""Protobuf messages by the .proto text that a schema registry holds, as plain fields.

In Confluent's format the datum begins with where in the file the message is: zig-zag varints, how many and then each
index; a lone 0 is the first message. Old clients wrote plain varints ([1, 0] of one index): which it is shows in the
first byte alone, as a count below zero is none, and an odd byte is one in zig-zag.
"""

from __future__ import annotations

from typing import Any

from schemas.walk import MAX_DEPTH

__all__ = ["Message", "ProtobufError"]

_MAX_INDEXES = 16
_VALUES = 1_000
_VALUES_PER_BYTE = 4
_WELL_KNOWN = ("any", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers")


class ProtobufError(ValueError):
    """The text is no schema that can be read here, or the bytes are no message of it."""


class Message:
    """The messages of a file.

    Args:
      text: of the file; or, as the Python client registers it, its descriptor in base64.
      imports: name → text of the files that it imports, and those in turn; Google's own need not be there.

    Raises: ProtobufError.
    """

    def __init__(self, text: str, imports: dict[str, str]):
        # Here, as all that reads no Protobuf should not pay for it.
        from google.protobuf import descriptor_pool, message_factory

        from schemas.proto_text import ProtoTextError, file_of

        pool, added = descriptor_pool.DescriptorPool(), set[str]()

        def add(name: str, source: str, depth: int) -> None:
            if name in added:
                return
            if depth > _MAX_INDEXES:
                raise ProtobufError(f"imports nested more than {_MAX_INDEXES} deep, or in a circle")
            file = file_of(source, name)
            for needed in file.dependency:
                if needed in imports:
                    add(needed, imports[needed], depth + 1)
                elif not _add_well_known(pool, needed, added):
                    raise ProtobufError(f"it imports {needed[:100]!r}, which the registry did not give")
            pool.Add(file)
            added.add(name)

        try:
            add("streamforge-payload.proto", text, 0)
            self._file = pool.FindFileByName("streamforge-payload.proto")
        except (ProtoTextError, TypeError, KeyError, IndexError, UnicodeError) as e:
            raise ProtobufError(" ".join(str(e).split())[:300]) from e
        self._top = list(self._file.message_types_by_name.values())
        self._class_of = message_factory.GetMessageClass

    def fields(self, datum: bytes) -> dict[str, Any]:
        """A datum behind Confluent's header, by field names; enums are their names, a Timestamp is epoch milliseconds.

        Raises: ProtobufError.
        """
        from google.protobuf.message import DecodeError

        indexes, at = _indexes(datum)
        message_type = None
        for index in indexes:
            among = self._top if message_type is None else list(message_type.nested_types)
            if index >= len(among):
                raise ProtobufError(f"its schema has no message {indexes}")
            message_type = among[index]
        message = self._class_of(message_type)()
        try:
            message.ParseFromString(datum[at:])
        except (DecodeError, RecursionError) as e:
            raise ProtobufError(str(e)) from e
        found: dict[str, Any] = _Plain(len(datum)).of(message, 0)
        return found


def _add_well_known(pool: Any, name: str, added: set[str]) -> bool:
    from importlib import import_module

    word = name.removeprefix("google/protobuf/").removesuffix(".proto")
    if name != f"google/protobuf/{word}.proto" or word not in _WELL_KNOWN:
        return False
    if name not in added:
        pool.AddSerializedFile(import_module(f"google.protobuf.{word}_pb2").DESCRIPTOR.serialized_pb)
        added.add(name)
    return True


def _indexes(datum: bytes) -> tuple[list[int], int]:
    if not datum:
        raise ProtobufError("no message behind the header")
    zigzag = not datum[0] & 1
    count, at = _varint(datum, 0, zigzag)
    if count == 0:
        return [0], at
    if not 0 < count <= _MAX_INDEXES:
        raise ProtobufError(f"says that its message is nested {count} deep")
    indexes = []
    for _ in range(count):
        index, at = _varint(datum, at, zigzag)
        if index < 0:
            raise ProtobufError(f"index {index} of a message")
        indexes.append(index)
    return indexes, at


def _varint(data: bytes, at: int, zigzag: bool) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            raise ProtobufError("ends in its header")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1 ^ -(value & 1) if zigzag else value), at
    raise ProtobufError("a number of its header is longer than 5 bytes")


class _Plain:
    """Attributes:
    left: how many values it may still have, as an empty message of two bytes has all its fields' defaults.
    """

    def __init__(self, size: int):
        self.left = _VALUES + _VALUES_PER_BYTE * size

    def of(self, message: Any, depth: int) -> Any:
        if depth >= MAX_DEPTH:
            raise ProtobufError(f"nested more than {MAX_DEPTH} deep")
        if message.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
            return message.seconds * 1000 + message.nanos // 1_000_000
        found: dict[str, Any] = {}
        for field in message.DESCRIPTOR.fields:
            self.left -= 1
            if self.left < 0:
                raise ProtobufError(f"more than {_VALUES} values and {_VALUES_PER_BYTE} for each byte")
            if field.has_presence and not message.HasField(field.name):
                continue
            value = getattr(message, field.name)
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                inner = field.message_type.fields_by_name["value"]
                found[field.name] = {str(key): self._one(inner, value[key], depth) for key in value}
            elif field.is_repeated:
                found[field.name] = [self._one(field, each, depth) for each in value]
            else:
                found[field.name] = self._one(field, value, depth)
        return found

    def _one(self, field: Any, value: Any, depth: int) -> Any:
        if field.message_type is not None:
            return self.of(value, depth + 1)
        if field.enum_type is not None:
            named = field.enum_type.values_by_number.get(value)
            return value if named is None else named.name
        return value
