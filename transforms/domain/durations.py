"""Spans of time as people write them in flags and rule files: 500ms, 10s, 30m, 2h, 7d."""

from __future__ import annotations

import re

__all__ = ["parse_duration_ms"]

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def parse_duration_ms(text: str) -> int:
    """The duration in milliseconds.

    Raises:
      ValueError: not a whole number with a unit.
    """
    match = re.fullmatch(r"(\d+)(ms|s|m|h|d)", text.strip())
    if match is None:
        raise ValueError(f"'{text}' is not a duration; write a whole number with ms, s, m, h or d, as 10s or 30m")
    return int(match[1]) * _UNITS_MS[match[2]]
