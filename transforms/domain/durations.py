"""Parses durations in flags and rule files: 500ms, 10s, 30m, 2h, 7d."""

from __future__ import annotations

import re

__all__ = ["parse_duration_ms"]

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LONGEST_MS = 36_500 * 86_400_000  # sums of a time and a few durations stay far within 64 bits


def parse_duration_ms(text: str) -> int:
    """The duration in milliseconds.

    Raises:
      ValueError: not a whole number with a unit, or longer than 100 years.
    """
    match = re.fullmatch(r"([0-9]+)(ms|s|m|h|d)", text.strip())
    if match is None:
        raise ValueError(f"'{text}' is not a duration; use a whole number with ms, s, m, h or d, such as 10s or 30m")
    duration_ms = int(match[1]) * _UNITS_MS[match[2]]
    if duration_ms > _LONGEST_MS:
        raise ValueError(f"'{text}' is longer than 100 years")
    return duration_ms
