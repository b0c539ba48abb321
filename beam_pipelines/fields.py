"""What a record needs, as tables of docs/mapping.md: from its Avro schema, its class, and what mappings fill in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from schemas.events import OrderItem, avro_schema
from schemas.mapping import ITEM, RECORDS

__all__ = ["lines"]

_TYPES: Final = {"string": "text", "int": "whole number", "long": "whole number", "boolean": "true or false"}
_OTHERWISE: Final = {"None": "null", "''": "empty", "[]": "none", "False": "false"}


def lines() -> Iterator[str]:
    for record, filled in RECORDS.values():
        yield ""
        yield f"| Field of `{record.__name__}` | JSON | Without a mapping | With one, if it is not filled | |"
        yield "|---|---|---|---|---|"
        yield from _rows(avro_schema(record.__name__)["fields"], record, filled, "")
    yield ""


def _rows(
    fields: list[dict[str, Any]], record: type[msgspec.Struct], filled: dict[str, Any], path: str
) -> Iterator[str]:
    required = {field.name: field.required for field in msgspec.structs.fields(record)}
    for field in fields:
        name = field["name"]
        needed, otherwise = "required" if required[name] else "null", _otherwise(filled[name])
        yield f"| `{path}{name}` | {_type(field['type'])} | {needed} | {otherwise} | {field.get('doc', '')} |"
        if isinstance(field["type"], dict) and field["type"]["type"] == "array":
            yield from _rows(field["type"]["items"]["fields"], OrderItem, ITEM, f"{name}[].")


def _type(schema: Any) -> str:
    if isinstance(schema, list):
        return f"{_type(next(each for each in schema if each != 'null'))}, or null"
    if isinstance(schema, str):
        return _TYPES[schema]
    match schema["type"]:
        case "enum":
            return ", ".join(f"`{symbol}`" for symbol in schema["symbols"])
        case "array":
            return "array of objects"
    return _type(schema["type"])


def _otherwise(kind: Any) -> str:
    if kind.default is None:
        return "refused"
    return _OTHERWISE.get(kind.default) or f"`{kind.default.replace('v_', '')}`"
