"""What callers may ask for: each function reads one parameter and refuses it in one sentence."""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from serving.store import Position, epoch_ms

__all__ = ["DEFAULT_LIMIT", "MAX_LIMIT", "InvalidQuery", "Listing", "cursor_text", "flag", "listing", "user_id"]

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000

_USER_ID = re.compile(r"[A-Za-z0-9._:@+=~-]{1,128}")
# RFC 3339, section 5.6. `datetime.fromisoformat` alone would also take week dates, times without an offset and others.
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_CURSOR = struct.Struct(">Bq")
_CURSOR_VERSION = 1
_MAX_CURSOR_CHARS = 512
_MAX_TIME_MS = 253_402_300_799_999  # the end of the year 9999, the last that RFC 3339 can write


class InvalidQuery(ValueError):
    """A parameter is wrong; the message is one sentence for the caller."""


class Listing(NamedTuple):
    limit: int
    after: Position | None
    since_ms: int | None
    until_ms: int | None


def listing(args: Mapping[str, str]) -> Listing:
    """limit, cursor, since and until of a list.

    Raises:
      InvalidQuery: one of them is wrong.
    """
    since_ms = _time_ms(args, "since", up=True)
    until_ms = _time_ms(args, "until", up=False)
    if since_ms is not None and until_ms is not None and since_ms > until_ms:
        raise InvalidQuery("since must not be later than until")
    return Listing(_limit(args), _cursor(args), since_ms, until_ms)


def user_id(text: str) -> str:
    """Raises: InvalidQuery."""
    if not _USER_ID.fullmatch(text):
        raise InvalidQuery("a user id is 1 to 128 letters, digits or any of . _ : @ + = ~ -")
    return text


def flag(args: Mapping[str, str], name: str) -> bool:
    """Whether it is `true`; `false` when it is not given.

    Raises:
      InvalidQuery: it is neither.
    """
    text = args.get(name, "false")
    if text not in ("true", "false"):
        raise InvalidQuery(f"{name} must be true or false")
    return text == "true"


def cursor_text(position: Position) -> str:
    """A position as the opaque text that `cursor` takes."""
    raw = _CURSOR.pack(_CURSOR_VERSION, position.time_ms) + position.row_id.encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _limit(args: Mapping[str, str]) -> int:
    text = args.get("limit")
    if text is None:
        return DEFAULT_LIMIT
    if text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= MAX_LIMIT:
        return int(text)
    raise InvalidQuery(f"limit must be a whole number from 1 to {MAX_LIMIT}")


def _cursor(args: Mapping[str, str]) -> Position | None:
    text = args.get("cursor")
    if text is None:
        return None
    try:
        if not 0 < len(text) <= _MAX_CURSOR_CHARS:
            raise ValueError("length")
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        version, time_ms = _CURSOR.unpack_from(raw)
        row_id = raw[_CURSOR.size :].decode()
        if version != _CURSOR_VERSION or not 0 <= time_ms <= _MAX_TIME_MS:
            raise ValueError("not one of ours")
    except (binascii.Error, struct.error, ValueError) as e:
        raise InvalidQuery("cursor must be a next_cursor from an earlier answer") from e
    return Position(time_ms, row_id)


def _time_ms(args: Mapping[str, str], name: str, up: bool) -> int | None:
    """A time as milliseconds; finer digits are rounded inwards, so that the bounds stay inclusive."""
    text = args.get(name)
    if text is None:
        return None
    try:
        if not _RFC3339.fullmatch(text):
            raise ValueError("form")
        moment = datetime.fromisoformat(text.upper())
    except ValueError as e:
        raise InvalidQuery(f"{name} must be an RFC 3339 time such as 2026-11-22T10:00:00Z (in a URL, + is %2B)") from e
    below = epoch_ms(moment)
    return below + 1 if up and moment.microsecond % 1000 else below
