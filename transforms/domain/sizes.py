"""Parses sizes in flags: 500KiB, 64MiB, 1GiB."""

from __future__ import annotations

import re

__all__ = ["parse_size_bytes"]

_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def parse_size_bytes(text: str) -> int:
    """The size in bytes.

    Raises:
      ValueError: not a whole number above 0 with a unit.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,8})(KiB|MiB|GiB)", text.strip())
    if match is None:
        raise ValueError(f"'{text}' is not a size; use a whole number with KiB, MiB or GiB, such as 64MiB")
    return int(match[1]) * _UNITS[match[2]]
