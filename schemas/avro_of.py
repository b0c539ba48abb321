"""The Avro schema of a typed record, for one that has none yet."""

from __future__ import annotations

import types
import typing
from typing import Any, Final, Literal

import msgspec

from schemas.events import Int, Long, avro_schema

__all__ = ["avro_of", "schema_of"]

_PRIMITIVES: Final[dict[Any, str]] = {Int: "int", Long: "long", str: "string", bool: "boolean", float: "double"}
_INSTANTS: Final = ("_time", "_start", "_end", "_at")


def schema_of(record: type[msgspec.Struct]) -> dict[str, Any]:
    """The file's; of a new record, until `make generate` has written that, what it will say."""
    try:
        return avro_schema(record.__name__)
    except FileNotFoundError:
        return avro_of(record)


def avro_of(record: type[msgspec.Struct]) -> dict[str, Any]:
    """Fields that end as those of an instant do, and are of type Long, are timestamps.

    Raises:
      TypeError: a field's type is none that Avro has.
    """
    doc = " ".join((record.__doc__ or "").split())
    return {
        "type": "record",
        "name": record.__name__,
        "namespace": "streamforge",
        "doc": doc,
        "fields": _fields(record),
    }


def _fields(record: type[msgspec.Struct]) -> list[dict[str, Any]]:
    hints = typing.get_type_hints(record, include_extras=True)
    return [_field(field, hints[field.name]) for field in msgspec.structs.fields(record)]


def _field(field: msgspec.structs.FieldInfo, hint: Any) -> dict[str, Any]:
    kind = _kind(field.name, hint)
    return {"name": field.name, "type": kind} | ({} if field.required else {"default": field.default})


def _kind(name: str, hint: Any) -> Any:
    if hint is Long and name.endswith(_INSTANTS):
        return {"type": "long", "logicalType": "timestamp-millis"}
    if hint in _PRIMITIVES:
        return _PRIMITIVES[hint]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return {"type": "enum", "name": "".join(map(str.title, name.split("_"))), "symbols": list(inner)}
    if origin is list:
        return {"type": "array", "items": _kind(name, inner[0])}
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return {"type": "record", "name": hint.__name__, "fields": _fields(hint)}
    if origin in (types.UnionType, typing.Union) and len(inner) == 2 and type(None) in inner:
        return ["null", _kind(name, next(each for each in inner if each is not type(None)))]
    raise TypeError(f"{name}: {hint} is none that an Avro schema is written of; write it by hand")
