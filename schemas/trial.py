"""A mapping tried on a sample: what it recognises, ignores and refuses, and what it never fills."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from schemas.mapping import RECORDS, Envelope, Mapping, NotMappable

__all__ = ["Refusal", "Trial", "try_out"]

_WITHOUT: Final = {
    "orders": {
        "is_first_order": "HIGH_VALUE_FIRST_ORDER never alerts, and first orders are not counted",
        "shipping_region": "LOCATION_ANOMALY never alerts, and revenue has no regions",
        "payment_method": "nothing that is computed now needs it",
        "session_id": "orders are not joined to sessions",
        "items": "revenue has no categories",
        "discount_minor": "subtotals are totals",
        "shipping_minor": "subtotals are totals",
    },
    "clicks": {
        "product_id": "views of products are counted, but not which",
        "category": "sessions have no category",
        "price_minor": "sessions have no revenue",
        "device_type": "sessions have no device",
        "geo_region": "sessions have no region",
        "session_id": "sessions are cut by pauses, as always: nothing is lost",
    },
}
_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|-?\d+(\.\d+)?")


class Refusal(msgspec.Struct):
    """
    Attributes:
      reason: of the first, in full.
      example: number of the message.
    """

    reason: str
    count: int
    example: int


class Trial(msgspec.Struct):
    """Of one section.

    Attributes:
      never_filled: field → what does not work without it.
      warnings: what looks odd about what was recognised.
      source, record: a message, and what it became.
    """

    section: str
    messages: int = 0
    recognised: int = 0
    ignored: int = 0
    refused: int = 0
    reasons: list[Refusal] = []
    filled: dict[str, int] = {}
    never_filled: dict[str, str] = {}
    warnings: list[str] = []
    source: Any = None
    record: dict[str, Any] | None = None


def try_out(
    mapping: Mapping, section: str, messages: Iterable[tuple[Any, Envelope]], check: Callable[[Any, Envelope], None]
) -> Trial:
    """
    Args:
      messages: fields, or an exception that says why there are none; and the envelope.
      check: raises ValueError for a record that jobs refuse.
    """
    mapped = mapping.sections[section]
    trial, reasons = Trial(section), dict[str, Refusal]()
    filled: Counter[str] = Counter()
    users: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    for number, (fields, envelope) in enumerate(messages):
        trial.messages += 1
        try:
            if isinstance(fields, Exception):
                raise NotMappable(str(fields))
            record = mapped(fields, envelope)
            if record is None:
                trial.ignored += 1
                continue
            check(record, envelope)
        except ValueError as e:
            trial.refused += 1
            found = reasons.setdefault(_VALUES.sub("…", str(e)), Refusal(str(e), 0, number))
            found.count += 1
            continue
        trial.recognised += 1
        plain = msgspec.to_builtins(record)
        filled.update(name for name, value in plain.items() if value not in (None, "", 0, [], False))
        users[record.user_id] += 1
        statuses[getattr(record, "order_status", "")] += 1
        if trial.record is None:
            trial.source, trial.record = fields, plain
    trial.reasons = sorted(reasons.values(), key=lambda each: -each.count)
    names = [field.name for field in msgspec.structs.fields(RECORDS[section][0])]
    trial.filled = {name: filled[name] for name in names}
    if trial.recognised:
        without = _WITHOUT[section]
        trial.never_filled = {name: without.get(name, "") for name in names if not filled[name]}
        trial.warnings = list(_odd(section, trial.recognised, users, statuses))
    return trial


def _odd(section: str, recognised: int, users: Counter[str], statuses: Counter[str]) -> Iterable[str]:
    user, most = users.most_common(1)[0]
    if recognised >= 20 and most > recognised // 2:
        yield f"{most} of {recognised} have the user_id {user!r}: one id for all guests? RAPID_ORDERS would alert on it"
    if recognised >= 20 and len(users) == recognised:
        yield "every one has another user_id: nothing that a user does twice can be seen"
    if section == "orders" and not statuses["CREATED"]:
        yield "no order has the status CREATED: no revenue, and most rules never alert"
    if section == "orders" and not statuses["CANCELLED"]:
        yield "no order has the status CANCELLED: SUSPICIOUS_PATTERN never alerts"
