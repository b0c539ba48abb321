"""The names of the online store's keys. `schemas.features`, `schemas.inventory` and `schemas.alert_states` say what is
under them.

All begin with the installation's prefix and a colon, which no prefix holds: so what one installation reads, writes,
lists or counts is never another's on the same server.
"""

from __future__ import annotations

import re
from binascii import crc_hqx
from functools import cache
from itertools import count
from typing import Final
from zlib import crc32

__all__ = ["KEYS", "PREFIX", "PREFIX_PATTERN", "Keys", "store_prefix"]

PREFIX: Final = "sf"
PREFIX_PATTERN: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,62}"


def store_prefix(text: str) -> str:
    """A value of --store_prefix. Raises: ValueError."""
    if not re.fullmatch(PREFIX_PATTERN, text):
        raise ValueError(f"'{text}' is not 1 to 63 letters, digits, '.', '_' and '-', the first a letter or digit")
    return text


_PARTS: Final = 256
_SLOTS: Final = 1 << 14


@cache
def _tags() -> tuple[str, ...]:
    """Hash tags, of which each names a slot of another 256th of all: nodes with as many slots get as many of them."""
    found: dict[int, str] = {}
    for number in count():
        if len(found) == _PARTS:
            return tuple(found[part] for part in range(_PARTS))
        tag = str(number)
        found.setdefault(crc_hqx(tag.encode(), 0) % _SLOTS * _PARTS // _SLOTS, tag)
    raise AssertionError


class Keys:
    """The keys of one installation.

    On a cluster, users and customers are spread over 256 parts, each in one slot by the hash tag after the prefix:
    sf:{17}:features:u-1. What is shared by all is in one slot, too: sf:{sf}:alerts:recent. (Why not a tag for each
    user: docs/adr/0057-stores.md.)

    Attributes:
      shared: what all keys begin with that are of no user and no customer.
      parts: the same of all others; a user's or customer's are in one part. One, which is `shared`, but on a cluster.
      any_part: a pattern of all parts.
      minute, minutes: what those of `revenue_minute`, `revenue_minutes` begin with.
      alert_versions, session_versions: on a cluster: what `recent_alerts`, `recent_sessions` hold, by id.
      rate: what the API's counts of requests begin with.
    """

    def __init__(self, prefix: str = PREFIX, cluster: bool = False):
        self._prefix = prefix
        self.shared = shared = f"{prefix}:{{{prefix}}}:" if cluster else f"{prefix}:"
        self.parts = tuple(f"{prefix}:{{{tag}}}:" for tag in _tags()) if cluster else (shared,)
        self.any_part = f"{prefix}:{{*}}:" if cluster else shared
        self.recent_alerts = f"{shared}alerts:recent"
        self.alert_versions = f"{shared}alerts:versions"
        self.alert_log = f"{shared}alerts:log"
        self.alert_states = f"{shared}alerts:states"
        self.alert_labels = f"{shared}alerts:labels"
        self.recent_sessions = f"{shared}sessions:recent"
        self.open_sessions = f"{shared}sessions:open"
        self.session_versions = f"{shared}sessions:versions"
        self.minute = f"{shared}revenue:minute:"
        self.minutes = f"{shared}revenue:minutes:"
        self.minutes_without_currency = f"{shared}revenue:minutes"
        self.currencies = f"{shared}revenue:currencies"
        self.freshness = f"{shared}freshness"
        self.products = f"{shared}inventory:products"
        self.all_products = f"{shared}inventory:all"
        self.low_products = f"{shared}inventory:low"
        self.stock_alerts = f"{shared}inventory:alerts"
        self.rate = f"{prefix}:rate"

    def part_of(self, an_id: str) -> str:
        """Of a user or customer."""
        parts = self.parts
        return parts[0] if len(parts) == 1 else parts[crc32(an_id.encode()) % len(parts)]

    def of_user(self, part: str) -> tuple[str, ...]:
        """What a user's keys begin with, in the order in which the scripts take them."""
        return (
            f"{part}user:",
            f"{part}alerts:user:",
            f"{part}alerts:ids:",
            f"{part}sessions:user:",
            f"{part}sessions:ids:",
            f"{part}orders:user:",
            f"{part}features:",
        )

    def of_customer(self, part: str) -> tuple[str, ...]:
        """As `of_user`."""
        return f"{part}customer:", f"{part}customer-orders:"

    def emptied(self, part: str) -> str:
        return f"{part}cdc:emptied"

    def user(self, user_id: str) -> str:
        return f"{self.part_of(user_id)}user:{user_id}"

    def user_features(self, user_id: str) -> str:
        return f"{self.part_of(user_id)}features:{user_id}"

    def user_alerts(self, user_id: str) -> str:
        return f"{self.part_of(user_id)}alerts:user:{user_id}"

    def user_alert_ids(self, user_id: str) -> str:
        return f"{self.part_of(user_id)}alerts:ids:{user_id}"

    def user_sessions(self, user_id: str) -> str:
        return f"{self.part_of(user_id)}sessions:user:{user_id}"

    def user_session_ids(self, user_id: str) -> str:
        return f"{self.part_of(user_id)}sessions:ids:{user_id}"

    def user_orders(self, user_id: str) -> str:
        return f"{self.part_of(user_id)}orders:user:{user_id}"

    def revenue_minute(self, currency: str, start_ms: int) -> str:
        return f"{self.minute}{currency}:{start_ms}"

    def revenue_minutes(self, currency: str) -> str:
        return f"{self.minutes}{currency}"

    def customer(self, customer_id: str) -> str:
        return f"{self.part_of(customer_id)}customer:{customer_id}"

    def orders_of(self, customer_id: str) -> str:
        return f"{self.part_of(customer_id)}customer-orders:{customer_id}"

    def ledger(self, job: str) -> str:
        return f"{self.shared}ledger:{job}"

    def check(self, who: str) -> str:
        """One that is never there for long: whether a store may be used is asked by it."""
        return f"{self._prefix}:check:{who}"


KEYS: Final = Keys()
"""Of an installation that is given no prefix."""
