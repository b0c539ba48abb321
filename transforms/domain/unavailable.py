"""Columns missing from a change: without REPLICA IDENTITY FULL, PostgreSQL does not log a large value that an update
left unchanged. Debezium writes a placeholder instead, which is easily mistaken for a value."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

__all__ = ["may_lack", "untold"]

_TEXT: Final = "__debezium_unavailable_value"
_BYTES: Final = _TEXT.encode()
_BASE64: Final = base64.b64encode(_BYTES).decode()
_NUMBERS: Final = list(_BYTES)
_SIGNS: Final = (_BYTES, _BASE64.encode(), json.dumps(_NUMBERS[:8], separators=(",", ":"))[:-1].encode())


def may_lack(image: bytes) -> bool:
    """Whether a row, as JSON, is worth a closer look."""
    return any(sign in image for sign in _SIGNS)


def untold(row: dict[str, Any]) -> set[str]:
    """The columns whose value is a placeholder, as text or bytes, or holds one in an array or object."""
    return {name for name, value in row.items() if _is_placeholder(value)}


def _is_placeholder(value: Any) -> bool:
    if isinstance(value, str):
        return value in (_TEXT, _BASE64)
    if isinstance(value, list):
        return value == _NUMBERS or any(map(_is_placeholder, value))
    if isinstance(value, dict):
        return _TEXT in value or any(map(_is_placeholder, value.values()))
    return False
