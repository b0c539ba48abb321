"""The names of the online store's keys. `schemas.features` and `schemas.inventory` say what is under them.

All begin with the installation's prefix and a colon, which no prefix holds: so what one installation reads, writes,
lists or counts is never another's on the same server.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["KEYS", "PREFIX", "PREFIX_PATTERN", "Keys", "store_prefix"]

PREFIX: Final = "sf"
PREFIX_PATTERN: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,62}"


def store_prefix(text: str) -> str:
    """A value of --store_prefix. Raises: ValueError."""
    if not re.fullmatch(PREFIX_PATTERN, text):
        raise ValueError(f"'{text}' is not 1 to 63 letters, digits, '.', '_' and '-', the first a letter or digit")
    return text


class Keys:
    """The keys of one installation.

    Attributes:
      first: what all of them begin with.
      minute, minutes: what those of `revenue_minute`, `revenue_minutes` begin with.
      customers, customer_orders: the same of `customer`, `orders_of`.
      of_user: the same of a user's keys, in the order in which the scripts take them.
      rate: the same of the API's counts of requests.
    """

    def __init__(self, prefix: str = PREFIX):
        self.first = first = f"{prefix}:"
        self.recent_alerts = f"{first}alerts:recent"
        self.alert_log = f"{first}alerts:log"
        self.recent_sessions = f"{first}sessions:recent"
        self.open_sessions = f"{first}sessions:open"
        self.minute = f"{first}revenue:minute:"
        self.minutes = f"{first}revenue:minutes:"
        self.minutes_without_currency = f"{first}revenue:minutes"
        self.currencies = f"{first}revenue:currencies"
        self.freshness = f"{first}freshness"
        self.rate = f"{first}rate"
        self.products = f"{first}inventory:products"
        self.all_products = f"{first}inventory:all"
        self.low_products = f"{first}inventory:low"
        self.stock_alerts = f"{first}inventory:alerts"
        self.customers = f"{first}customer:"
        self.customer_orders = f"{first}customer-orders:"
        self.emptied = f"{first}cdc:emptied"
        self.of_user = (
            f"{first}user:",
            f"{first}alerts:user:",
            f"{first}alerts:ids:",
            f"{first}sessions:user:",
            f"{first}sessions:ids:",
            f"{first}orders:user:",
            f"{first}features:",
        )

    def user(self, user_id: str) -> str:
        return f"{self.first}user:{user_id}"

    def user_features(self, user_id: str) -> str:
        return f"{self.first}features:{user_id}"

    def user_alerts(self, user_id: str) -> str:
        return f"{self.first}alerts:user:{user_id}"

    def user_alert_ids(self, user_id: str) -> str:
        return f"{self.first}alerts:ids:{user_id}"

    def user_sessions(self, user_id: str) -> str:
        return f"{self.first}sessions:user:{user_id}"

    def user_session_ids(self, user_id: str) -> str:
        return f"{self.first}sessions:ids:{user_id}"

    def user_orders(self, user_id: str) -> str:
        return f"{self.first}orders:user:{user_id}"

    def revenue_minute(self, currency: str, start_ms: int) -> str:
        return f"{self.minute}{currency}:{start_ms}"

    def revenue_minutes(self, currency: str) -> str:
        return f"{self.minutes}{currency}"

    def customer(self, customer_id: str) -> str:
        return f"{self.customers}{customer_id}"

    def orders_of(self, customer_id: str) -> str:
        return f"{self.customer_orders}{customer_id}"

    def ledger(self, job: str) -> str:
        return f"{self.first}ledger:{job}"

    def check(self, who: str) -> str:
        """One that is never there for long: whether a store may be used is asked by it."""
        return f"{self.first}check:{who}"


KEYS: Final = Keys()
"""Of an installation that is given no prefix."""
