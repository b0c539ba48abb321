"""Request parameters, each declared once: how it is parsed, and its entry in the OpenAPI document.

Long, as every parameter is here that more than one route takes.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple, get_args

from schemas.alert_states import StateName
from schemas.ids import ID_PATTERN, MAX_ID_CHARS, is_id
from schemas.times import LAST_MS, starts_ms
from serving.store import Position, epoch_ms

__all__ = [
    "ALERT_TYPE",
    "CURRENCY",
    "CURSOR",
    "EVENTS",
    "LAST_EVENT_ID",
    "LIMIT",
    "LISTING",
    "MAX_LIMIT",
    "OF_USER",
    "OPEN",
    "SINCE",
    "STATE",
    "UNTIL",
    "USER_ID",
    "WHOSE",
    "InvalidQuery",
    "Listing",
    "Parameter",
    "an_id",
    "cursor_text",
    "flag",
    "limit",
    "listing",
    "read",
    "user_id",
    "user_ids",
]

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
EVENT_KINDS = ("alert", "revenue")
STATES = get_args(StateName)

_IDS = re.compile(f"(?:{ID_PATTERN.strip('^$')}\n)*")
_ALERT_TYPE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
_EVENT_ID = re.compile(r"(\d{1,19})-(\d{1,19})", re.ASCII)
# RFC 3339, section 5.6. `datetime.fromisoformat` alone would also take week dates, times without an offset and others.
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_CURSOR = struct.Struct(">Bq")
_CURSOR_VERSION = 1
_MAX_CURSOR_CHARS = 2048  # a session's id is the longest: 256 characters of 4 bytes, and a time


class InvalidQuery(ValueError):
    """A parameter is wrong; the message is one sentence for the caller."""


@dataclass(frozen=True)
class Parameter:
    """One value that a caller may give.

    Attributes:
      name: as callers write it; the view gets it as `argument`.
      read: the text as a value; raises InvalidQuery.
      schema: of the text, as JSON schema.
      description: for people.
      default: the value when it is not given.
      required: whether it has to be given; of what is in a path, always.
    """

    name: str
    read: Callable[[str], Any]
    schema: Mapping[str, Any]
    description: str
    default: Any = None
    required: bool = False

    @property
    def argument(self) -> str:
        return self.name.lower().replace("-", "_")


class Listing(NamedTuple):
    limit: int
    after: Position | None
    since_ms: int | None
    until_ms: int | None


def read(parameters: Mapping[str, Parameter], given: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Values by argument; those that are not given have their default.

    Args:
      parameters: by name.
      given: texts by name.

    Raises:
      InvalidQuery: one is unknown, given twice or wrong.
    """
    values = {parameter.argument: parameter.default for parameter in parameters.values()}
    for name, texts in given.items():
        parameter = parameters.get(name)
        if parameter is None:
            known = ", ".join(parameters)
            raise InvalidQuery(f"this address takes {f'only {known}' if known else 'no parameters'}, not {name[:40]!r}")
        if len(texts) != 1:
            raise InvalidQuery(f"{name} must be given once")
        values[parameter.argument] = parameter.read(texts[0])
    for name, parameter in parameters.items():
        if parameter.required and name not in given:
            raise InvalidQuery(f"{name} must be given")
    return values


def listing(
    limit: int, cursor: Position | None, since: int | None, until: int | None, day: date | None, zone: str = "UTC"
) -> Listing:
    """The parameters of `LISTING` together; the day is one of that time zone. Raises: InvalidQuery."""
    # Both are rounded inwards: those of one instant between two milliseconds have crossed by one.
    if since is not None and until is not None and since > until + 1:
        raise InvalidQuery("since must not be later than until")
    if day is not None:
        first, last = starts_ms(day, zone), starts_ms(day + timedelta(days=1), zone) - 1
        since = first if since is None else max(since, first)
        until = last if until is None else min(until, last)
    return Listing(limit, cursor, since, until)


def an_id(whose: str) -> Callable[[str], str]:
    """
    Args:
      whose: `user`, `product`.
    """

    def parse(text: str) -> str:
        if not is_id(text):
            raise InvalidQuery(f"a {whose} id is 1 to {MAX_ID_CHARS} characters, none of them a control character")
        return text

    return parse


user_id = an_id("user")


def user_ids(texts: list[str]) -> list[str]:
    """All of them checked in one go. Raises: InvalidQuery."""
    lines = "\n".join(texts) + "\n"
    # No id holds a line end, so as many lines as ids are the ids.
    if lines.count("\n") != len(texts) or not _IDS.fullmatch(lines):
        for text in texts:
            user_id(text)
    return texts


def cursor_text(position: Position) -> str:
    """A position as the opaque text that `cursor` takes."""
    raw = _CURSOR.pack(_CURSOR_VERSION, position.time_ms) + position.row_id.encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def flag(name: str) -> Callable[[str], bool]:
    def parse(text: str) -> bool:
        if text not in ("true", "false"):
            raise InvalidQuery(f"{name} must be true or false")
        return text == "true"

    return parse


def limit(most: int, default: int) -> Parameter:
    def parse(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= most:
            return int(text)
        raise InvalidQuery(f"limit must be a whole number from 1 to {most}")

    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return Parameter("limit", parse, schema, "At most this many rows.", default)


def _cursor(text: str) -> Position:
    try:
        if not 0 < len(text) <= _MAX_CURSOR_CHARS:
            raise ValueError("length")
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        version, time_ms = _CURSOR.unpack_from(raw)
        row_id = raw[_CURSOR.size :].decode()
        if version != _CURSOR_VERSION or not 0 <= time_ms <= LAST_MS:
            raise ValueError("not one of ours")
    except (binascii.Error, struct.error, ValueError) as e:
        raise InvalidQuery("cursor must be a next_cursor from an earlier answer") from e
    return Position(time_ms, row_id)


def _time_ms(name: str, up: bool) -> Callable[[str], int]:
    """A time as milliseconds; finer digits are rounded inwards, so that the bounds stay inclusive."""

    def parse(text: str) -> int:
        try:
            if not _RFC3339.fullmatch(text):
                raise ValueError("form")
            moment = datetime.fromisoformat(text.upper())
        except ValueError as e:
            raise InvalidQuery(
                f"{name} must be an RFC 3339 time such as 2026-11-22T10:00:00Z (in a URL, + is %2B)"
            ) from e
        below = epoch_ms(moment)
        return below + 1 if up and moment.microsecond % 1000 else below

    return parse


# No row is older than 2000, or as new; and none of a day beyond them has bounds that fit.
_FIRST_DAY, _LAST_DAY = date(1971, 1, 1), date(9998, 12, 31)


def _day(text: str) -> date:
    try:
        if not _DATE.fullmatch(text):
            raise ValueError("form")
        day = date.fromisoformat(text)
    except ValueError as e:
        raise InvalidQuery("day must be a date such as 2026-11-22") from e
    return min(max(day, _FIRST_DAY), _LAST_DAY)


def _events(text: str) -> frozenset[str]:
    kinds = text.split(",")
    if not set(kinds) <= set(EVENT_KINDS) or len(kinds) > len(EVENT_KINDS):
        raise InvalidQuery(f"events must be one or more of {', '.join(EVENT_KINDS)}, with commas between")
    return frozenset(kinds)


def _alert_type(text: str) -> str:
    if not _ALERT_TYPE.fullmatch(text):
        raise InvalidQuery("alert_type is the name of a rule, such as RAPID_ORDERS")
    return text


def _state(text: str) -> str:
    if text not in STATES:
        raise InvalidQuery(f"state must be {', '.join(STATES[:-1])} or {STATES[-1]}")
    return text


def _currency(text: str) -> str:
    if not _CURRENCY.fullmatch(text):
        raise InvalidQuery("currency is three capital letters, such as EUR")
    return text


def _event_id(text: str) -> tuple[int, int]:
    match = _EVENT_ID.fullmatch(text)
    if not match:
        raise InvalidQuery("Last-Event-ID must be the id of an event of this stream")
    return int(match[1]), int(match[2])


_USER_ID_SCHEMA = {"type": "string", "pattern": ID_PATTERN, "examples": ["user-1"]}
_TIME_SCHEMA = {"type": "string", "format": "date-time"}

LIMIT = limit(MAX_LIMIT, DEFAULT_LIMIT)
CURSOR = Parameter(
    "cursor",
    _cursor,
    {"type": "string", "minLength": 1, "maxLength": _MAX_CURSOR_CHARS},
    "`next_cursor` of the previous page; keep the other parameters unchanged.",
)
SINCE = Parameter("since", _time_ms("since", up=True), _TIME_SCHEMA, "Only rows at or after this time; RFC 3339.")
UNTIL = Parameter("until", _time_ms("until", up=False), _TIME_SCHEMA, "Only rows at or before this time; RFC 3339.")
DAY = Parameter(
    "day",
    _day,
    {"type": "string", "format": "date", "examples": ["2026-11-22"]},
    "Only rows of this day in the server's time zone (see /info); `since` and `until` narrow it.",
)
LISTING = (LIMIT, CURSOR, SINCE, UNTIL, DAY)

OPEN = Parameter(
    "open", flag("open"), {"type": "boolean", "default": False}, "`true`: only sessions in progress.", default=False
)
USER_ID = Parameter(
    "user_id",
    user_id,
    _USER_ID_SCHEMA,
    "The user, percent-encoded. For ids `.` and `..`, which many clients remove from paths, use the query.",
)
OF_USER = Parameter("user_id", user_id, _USER_ID_SCHEMA, "Only rows of this user.")
WHOSE = Parameter("user_id", user_id, _USER_ID_SCHEMA, "The user.", required=True)
STATE = Parameter(
    "state",
    _state,
    {"type": "string", "enum": list(STATES)},
    "Only alerts in this state, picked from the next 1,000: a page may be short and still be followed by another.",
)

CURRENCY = Parameter(
    "currency",
    _currency,
    {"type": "string", "pattern": f"^{_CURRENCY.pattern}$", "examples": ["EUR"]},
    "Revenue in this currency; if not given, in the shop's. Amounts of several are never added.",
)
EVENTS = Parameter(
    "events",
    _events,
    {"type": "string", "pattern": "^(alert|revenue)(,(alert|revenue))?$", "default": ",".join(EVENT_KINDS)},
    "The kinds of event to send, separated by commas.",
    frozenset(EVENT_KINDS),
)
ALERT_TYPE = Parameter(
    "alert_type",
    _alert_type,
    {"type": "string", "pattern": f"^{_ALERT_TYPE.pattern}$", "examples": ["RAPID_ORDERS"]},
    "Only alerts of this rule.",
)
LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    _event_id,
    {"type": "string", "pattern": f"^{_EVENT_ID.pattern}$".replace("\\d", "[0-9]")},
    "The id of the last event received: later alerts come first. Browsers send it when they reconnect.",
)
