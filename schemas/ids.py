"""What an id is: text of 1 to 256 characters without control characters. Every job refuses a record whose ids are
anything else, so that the API can look up by each id that is stored."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["ID_PATTERN", "MAX_ID_CHARS", "is_id", "wrong_with"]

MAX_ID_CHARS: Final = 256

ID_PATTERN: Final = rf"^[^\u0000-\u001f\u007f-\u009f]{{1,{MAX_ID_CHARS}}}$"
"""For JSON schema, whose texts have no lone surrogates. Unicode's category Cc, and it will not grow."""

# A lone surrogate is no character: UTF-8, and so Avro, Kafka and Redis, cannot hold it.
_ID = re.compile(rf"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{MAX_ID_CHARS}}}")


def is_id(text: str) -> bool:
    # What is printable has neither control characters nor surrogates, and is found out in a tenth of the time.
    if text.isprintable():
        return 0 < len(text) <= MAX_ID_CHARS
    return _ID.fullmatch(text) is not None


def wrong_with(text: str) -> str | None:
    """What is wrong with an id, as the end of a sentence about it; None when nothing is."""
    if is_id(text):
        return None
    if not text:
        return "is empty"
    if len(text) > MAX_ID_CHARS:
        return f"is longer than {MAX_ID_CHARS} characters: {len(text)}"
    return f"has a control character: {text!r}"
