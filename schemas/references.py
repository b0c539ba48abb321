"""Inlines a schema's references to others in the registry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fastavro

from schemas.codec import SCHEMA_ERRORS, Undecodable, plain_schema, without_defaults

__all__ = ["inline"]

_NAMED = ("record", "error", "enum", "fixed")


def inline(schema: Any, referenced: Sequence[Any]) -> Any:
    """The schema with each referenced type written out where it is first named.

    Args:
      referenced: the schemas that it refers to, each after those that it refers to itself. Defaults are left out, as
        reading needs none of a writer's.

    Raises: Undecodable: one of them is no Avro schema, or names what none of them defines.
    """
    named: dict[str, Any] = {}
    try:
        for each in (*referenced, schema):
            parsed = fastavro.parse_schema(plain_schema(without_defaults(each)), named_schemas=named)
    except SCHEMA_ERRORS as e:
        raise Undecodable(f"a schema with references is not Avro: {type(e).__name__} {e}".rstrip()) from e
    return _written_out(parsed, named, set())


def _written_out(schema: Any, named: dict[str, Any], defined: set[str]) -> Any:
    if isinstance(schema, str) and schema in named and schema not in defined:
        schema = named[schema]
    if isinstance(schema, list):
        return [_written_out(branch, named, defined) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    if schema["type"] in _NAMED:
        defined.add(schema["name"])
    out = {key: value for key, value in schema.items() if not key.startswith("__")}
    if "fields" in out:
        out["fields"] = [f | {"type": _written_out(f["type"], named, defined)} for f in out["fields"]]
    for key in ("items", "values"):
        if key in out:
            out[key] = _written_out(out[key], named, defined)
    return out
