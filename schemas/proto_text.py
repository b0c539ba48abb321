"""A .proto file's text as a descriptor: what a schema registry holds is text, and protoc is not at hand in a worker.

Read are syntax, package, import, message, enum, oneof, map and fields of proto2 and proto3; options, services,
extensions and reserved names are stepped over. Specification: https://protobuf.dev/reference/protobuf/proto3-spec/
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

__all__ = ["ProtoTextError", "file_of", "parse_proto"]

_MAX_CHARS = 1 << 20
_MAX_DEPTH = 32
_TOKEN = re.compile(
    r"""\s+|//[^\n]*|/\*.*?\*/|(?P<token>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[A-Za-z_.][\w.]*|-?\d[\w.+-]*|.)""",
    re.DOTALL,
)
_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final[dict[str, Any]] = {
    **{name: getattr(_FIELD, f"TYPE_{name.upper()}") for name in ("double", "float", "bool", "string", "bytes")},
    **{
        f"{sort}{bits}": getattr(_FIELD, f"TYPE_{sort.upper()}{bits}")
        for sort in ("int", "uint", "sint", "fixed", "sfixed")
        for bits in (32, 64)
    },
}


_BASE64 = re.compile(r"[A-Za-z0-9+/]{8,}={0,2}")


class ProtoTextError(ValueError):
    """It is no .proto file, or has something that is not read here."""


def parse_proto(text: str, name: str) -> descriptor_pb2.FileDescriptorProto:
    """Raises: ProtoTextError."""
    if len(text) > _MAX_CHARS:
        raise ProtoTextError(f"longer than {_MAX_CHARS} characters")
    return _Parser([m["token"] for m in _TOKEN.finditer(text) if m["token"]], name).file()


def file_of(text: str, name: str) -> descriptor_pb2.FileDescriptorProto:
    """Of a .proto file's text, or of a descriptor in base64. Raises: ProtoTextError."""
    if len(text) <= _MAX_CHARS and _BASE64.fullmatch(text):
        try:
            file = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
        except (binascii.Error, DecodeError) as e:
            raise ProtoTextError(f"neither text nor a descriptor in base64: {e}") from e
        file.name = name
        return file
    return parse_proto(text, name)


class _Parser:
    def __init__(self, tokens: list[str], name: str):
        self._tokens, self._at = tokens, 0
        self._file = descriptor_pb2.FileDescriptorProto(name=name, syntax="proto2")

    def file(self) -> descriptor_pb2.FileDescriptorProto:
        while self._at < len(self._tokens):
            match self._next():
                case "syntax":
                    self._file.syntax = self._rest()[1].strip("\"'")
                case "package":
                    self._file.package = self._rest()[0]
                case "import":
                    self._file.dependency.append(self._rest()[-1].strip("\"'"))
                case "message":
                    self._message(self._file.message_type.add(), 0)
                case "enum":
                    self._enum(self._file.enum_type.add())
                case "service" | "extend":
                    self._skip_block()
                case "option":
                    self._rest()
                case ";":
                    pass
                case other:
                    raise ProtoTextError(f"{other[:40]!r} where a declaration should be")
        if self._file.syntax not in ("proto2", "proto3"):
            raise ProtoTextError(f"syntax {self._file.syntax[:40]!r} is not read; proto2 and proto3 are")
        if self._file.syntax == "proto2":
            self._file.ClearField("syntax")
        return self._file

    def _next(self) -> str:
        if self._at >= len(self._tokens):
            raise ProtoTextError("it ends in the middle")
        self._at += 1
        return self._tokens[self._at - 1]

    def _expect(self, *wanted: str) -> str:
        found = self._next()
        if found not in wanted:
            raise ProtoTextError(f"{found[:40]!r} where {' or '.join(wanted)} should be")
        return found

    def _rest(self) -> list[str]:
        """Up to the semicolon."""
        found, depth = [], 0
        while (token := self._next()) != ";" or depth:
            depth += (token == "{") - (token == "}")  # noqa: S105 - the value of an option
            found.append(token)
        if not found:
            raise ProtoTextError("';' where something should be")
        return found

    def _skip_block(self) -> None:
        while self._next() != "{":
            pass
        depth = 1
        while depth:
            token = self._next()
            depth += (token == "{") - (token == "}")  # noqa: S105

    def _message(self, message: Any, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise ProtoTextError(f"messages nested more than {_MAX_DEPTH} deep")
        message.name = self._next()
        self._expect("{")
        optional: list[Any] = []
        self._members(message, depth, None, optional)
        for field in optional:  # behind all real ones
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field.name}")

    def _members(self, message: Any, depth: int, oneof: int | None, optional: list[Any]) -> None:
        while (word := self._next()) != "}":
            following = self._tokens[self._at + 1] if self._at + 1 < len(self._tokens) else ""
            match word:
                case "message" if following == "{":
                    self._message(message.nested_type.add(), depth + 1)
                case "enum" if following == "{":
                    self._enum(message.enum_type.add())
                case "oneof" if following == "{":
                    message.oneof_decl.add(name=self._next())
                    self._expect("{")
                    self._members(message, depth, len(message.oneof_decl) - 1, optional)
                case "option" | "reserved" | "extensions":
                    self._rest()
                case "extend":
                    self._skip_block()
                case "group":
                    raise ProtoTextError("groups are not read")
                case ";":
                    pass
                case "map" if self._tokens[self._at] == "<":
                    self._map(message)
                case _:
                    self._field(message, word, oneof, optional)

    def _field(self, message: Any, word: str, oneof: int | None, optional: list[Any]) -> None:
        label = word if word in ("optional", "required", "repeated") else ""
        kind = self._next() if label else word
        field = message.field.add(name=self._next(), label=_FIELD.LABEL_OPTIONAL)
        if label == "repeated":
            field.label = _FIELD.LABEL_REPEATED
        elif label == "optional" and self._file.syntax == "proto3":
            field.proto3_optional = True
            optional.append(field)
        if oneof is not None:
            field.oneof_index = oneof
        self._number(field)
        _set_type(field, kind)

    def _map(self, message: Any) -> None:
        self._expect("<")
        key = self._next()
        self._expect(",")
        value = self._next()
        self._expect(">")
        field = message.field.add(name=self._next(), label=_FIELD.LABEL_REPEATED, type=_FIELD.TYPE_MESSAGE)
        self._number(field)
        entry = message.nested_type.add(name="".join(p.capitalize() for p in field.name.split("_")) + "Entry")
        entry.options.map_entry = True
        for number, (name, kind) in enumerate((("key", key), ("value", value)), 1):
            _set_type(entry.field.add(name=name, number=number, label=_FIELD.LABEL_OPTIONAL), kind)
        field.type_name = entry.name

    def _number(self, field: Any) -> None:
        self._expect("=")
        field.number = self._integer()
        if self._expect("[", ";") == "[":
            self._rest()

    def _enum(self, enum: Any) -> None:
        enum.name = self._next()
        self._expect("{")
        while (word := self._next()) != "}":
            if word in ("option", "reserved") and self._tokens[self._at : self._at + 1] != ["="]:
                self._rest()
            elif word != ";":
                self._expect("=")
                value = enum.value.add(name=word, number=self._integer())
                if enum.value[0].number == value.number and len(enum.value) > 1:
                    enum.options.allow_alias = True
                if self._expect("[", ";") == "[":
                    self._rest()

    def _integer(self) -> int:
        text = self._next()
        if text == "-":
            text += self._next()
        try:
            number = int(text, 0)
        except ValueError:
            raise ProtoTextError(f"{text[:40]!r} where a number should be") from None
        if not -(1 << 31) <= number < 1 << 31:
            raise ProtoTextError(f"{number} is no number of a field or a value")
        return number


def _set_type(field: Any, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type_name = kind
