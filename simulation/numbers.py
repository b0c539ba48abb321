"""Numbers of a command line."""

from __future__ import annotations

__all__ = ["positive", "whole"]


def whole(text: str) -> int:
    """Raises: ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ValueError(f"'{text}' is not a whole number")
    return int(text)


def positive(text: str) -> int:
    """Raises: ValueError."""
    number = whole(text)
    if number < 1:
        raise ValueError("must be at least 1")
    return number
