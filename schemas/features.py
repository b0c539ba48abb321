"""The online store's layout: keys, values and times to live. Writers (`transforms/io/redis.py`) and readers
(`serving/store.py`) both use this module and the names in `schemas.store_keys`, so that they cannot disagree. `sf` is
the installation's prefix (--store_prefix).

    sf:features:{user_id}           STRING  the user's features as JSON, made of the hash whenever that changes
    sf:user:{user_id}               HASH  the user's features, see below
    sf:alerts:user:{user_id}        ZSET  alerts as JSON, score = event time in ms; newest 1,000
    sf:alerts:ids:{user_id}         HASH  alert_id → version (event time in ms) of what the ZSET holds
    sf:alerts:recent                ZSET  the same JSON for all users; newest 10,000
    sf:alerts:log                   STREAM  the same JSON, field `alert`, in the order in which it got in; last 10,000
    sf:alerts:states, :labels       what a fraud team says of alerts, see `schemas.alert_states`; only the API's
    sf:sessions:user:{user_id}      ZSET  sessions as JSON, score = start in ms; newest 100, retracted ones included
    sf:sessions:ids:{user_id}       HASH  session_id → version of what the ZSET holds
    sf:sessions:recent              ZSET  the same JSON for all users; newest 10,000
    sf:sessions:open                ZSET  those of `recent` that are in progress
    sf:orders:user:{user_id}        ZSET  amount|currency|order_id NUL region of the CREATED orders of the 24 h before
                                          the newest, score = event time in ms; newest 1,000; see `kept_order`
    sf:revenue:minute:{currency}:{start_ms}  HASH  dimension:value → version, GMV, orders, users, first orders, end
    sf:revenue:minutes:{currency}   ZSET  the minutes that there are, score = start in ms; newest 2,880 (48 h)
    sf:revenue:currencies           ZSET  the currencies of which there are some, score = start of the newest
    sf:freshness                    HASH  feature family → newest event time in ms
    sf:rate:{…}                     STRING  requests of a caller in this second, minute, …; only the API's, if it counts
    sf:ledger:{job}                 HASH  what a running job has counted, by name (transforms.ledger.Counts); updated_ms

A value is written only when its version is newer than the stored one, by one script per batch: a replay changes
nothing. A retracted session stays as a tombstone, whose version nothing exceeds, so that an older row cannot bring it
back. Every key has a TTL, and all keys of a user expire together. JSON values are what the API returns, byte for byte.

The log of alerts is the one key whose contents depend on the order of writes. It is for readers that follow: a late
order completes an alert among older ones, which no reader that remembers a time would see.

Fields of the user's hash, by writer. Each is computed, in the script that writes, from the versioned keys above, so it
is a function of the set of events that came, whatever their order:

    orders   orders_1h, orders_24h     in the hour and day up to last_order_at, inclusive, in any currency
             spend_minor               in the same hour and day, as "EUR 0 995;TRY 1250 7000": by currency, never added
             last_order_at             event time in ms of the newest order
    sessions last_session              JSON of the session that began last
    fraud    alerts, last_alert_type, last_alert_at   how many are kept; of the newest, time in ms
    all      last_seen                 event time in ms of the newest of all of these

Releases that knew no currencies called every amount lira, and so does this one read what they left: order members
`amount:order_id`, spend_1h_minor and spend_24h_minor of the hash, and minutes without a currency in their keys, which
the revenue job renames when it starts (`redis_scripts.ADOPT`). Members `amount|currency|order_id` are of releases that
kept no regions. An order that two releases wrote is two members: it counts once, by its order_id.

Long, as it is one contract: keys, bounds, JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from schemas import currencies
from schemas.events import FraudAlert, RevenueWindow, UserSession
from schemas.times import clamp_ms

__all__ = [
    "ALERTS_LOGGED",
    "ALERTS_PER_USER",
    "ALERTS_RECENT",
    "ALERT_FAMILY",
    "DAY_MS",
    "HOUR_MS",
    "LEDGER_TTL_S",
    "OPEN_MARK",
    "ORDERS_PER_USER",
    "ORDER_FAMILY",
    "REVENUE_FAMILY",
    "REVENUE_MINUTES",
    "REVENUE_TTL_S",
    "SESSIONS_PER_USER",
    "SESSIONS_RECENT",
    "SESSION_FAMILY",
    "TOMBSTONE_MARK",
    "TOMBSTONE_VERSION",
    "USER_TTL_S",
    "KeptOrder",
    "alert_json",
    "kept_order",
    "kept_region",
    "revenue_field",
    "revenue_json",
    "revenue_value",
    "rfc3339",
    "session_json",
    "session_version",
    "user_features_json",
]

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS

USER_TTL_S: Final = 7 * 24 * 3600
REVENUE_TTL_S: Final = 48 * 3600
LEDGER_TTL_S: Final = 24 * 3600

ALERTS_PER_USER: Final = 1_000
ALERTS_RECENT: Final = 10_000
ALERTS_LOGGED: Final = 10_000
SESSIONS_PER_USER: Final = 100
SESSIONS_RECENT: Final = 10_000
ORDERS_PER_USER: Final = 1_000
REVENUE_MINUTES: Final = 48 * 60

ALERT_FAMILY: Final = "fraud_alerts"
SESSION_FAMILY: Final = "sessions"
REVENUE_FAMILY: Final = "revenue"
ORDER_FAMILY: Final = "orders"

TOMBSTONE_VERSION: Final = (1 << 53) - 1
"""The version of a session that was retracted: the greatest. Readers of JSON, and Lua, count exactly up to here."""
TOMBSTONE_MARK: Final = b'"deleted":true}'
"""How the JSON of a retracted session ends, and no other."""
OPEN_MARK: Final = b'"open":true}'
"""How the JSON of a session in progress ends, and no other."""


def rfc3339(time_ms: int) -> str:
    """2026-11-22T10:00:00.123Z; a time that could not be written is clamped."""
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=clamp_ms(time_ms))
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _amount(minor_units: int, currency: str) -> msgspec.Raw:
    """In main units, with all decimals of the currency; a float could not hold all of them."""
    return msgspec.Raw(currencies.decimal(minor_units, currency).encode())


def alert_json(alert: FraudAlert) -> bytes:
    """An alert as the API returns it; `amount` in main units of its order's currency.

    Holds nothing that depends on when the alert was found, so that a replay writes the same bytes.
    """
    return msgspec.json.encode(
        {
            "alert_id": alert.alert_id,
            "user_id": alert.user_id,
            "alert_type": alert.alert_type,
            "risk_score": alert.risk_score,
            "order_id": alert.order_id,
            "amount": _amount(alert.amount_minor, alert.currency),
            "currency": alert.currency,
            "timestamp": rfc3339(alert.event_time),
            "description": alert.description,
            "related_events": alert.related_events,
        }
    )


def session_json(session: UserSession, currency: str = currencies.DEFAULT) -> bytes:
    """A session as the API returns it; `revenue` in main units of the shop's currency, as clicks name none. A retracted
    one, which the API does not return, only says where in a list it would be, and that it is `deleted`."""
    place = {"session_id": session.session_id, "start_time": rfc3339(session.session_start)}
    if session.deleted:
        return msgspec.json.encode({**place, "deleted": True})
    return msgspec.json.encode(
        {
            **place,
            "user_id": session.user_id,
            "end_time": rfc3339(session.session_end),
            "duration_seconds": session.duration_seconds,
            "page_views": session.page_views,
            "product_views": session.product_views,
            "add_to_carts": session.add_to_carts,
            "purchases": session.purchases,
            "revenue": _amount(session.revenue_minor, currency),
            "currency": currency,
            "device_type": session.device_type,
            "geo_region": session.geo_region,
            "primary_category": session.primary_category,
            "open": session.pane == "EARLY",
        }
    )


def session_version(session: UserSession) -> int:
    return TOMBSTONE_VERSION if session.deleted else session.version


class KeptOrder(NamedTuple):
    """What the store keeps of a CREATED order, beside its event time.

    Attributes:
      region: as `kept_region` cuts it; None where the release that wrote the order kept none.
    """

    amount_minor: int
    currency: str
    order_id: str
    region: str | None


_REGION_CHARS = 256


def kept_region(region: str) -> str:
    """What is kept of an order's region, which may be any text."""
    return region[:_REGION_CHARS]


def kept_order(member: bytes) -> KeptOrder | None:
    """A member of sf:orders:user:{user_id}, of this or an earlier release; None: of none."""
    # Ids hold no control characters, regions may: so the first NUL is where the id ends.
    begin, nul, region = member.decode().partition("\0")
    amount, *rest = begin.split("|", 2)
    if len(rest) == 2 and amount.isdecimal():
        return KeptOrder(int(amount), rest[0], rest[1], region if nul else None)
    amount, colon, order_id = begin.partition(":")
    if colon and amount.isdecimal():
        return KeptOrder(int(amount), currencies.DEFAULT, order_id, None)
    return None


def revenue_field(row: RevenueWindow) -> str:
    return f"{row.dimension}:{row.value}"


def revenue_value(row: RevenueWindow) -> str:
    """Version first, as the writing script compares it."""
    return (
        f"{row.version} {row.gmv_minor} {row.order_count} {row.unique_users} {row.first_time_orders} {row.window_end}"
    )


def revenue_json(currency: str, start_ms: int, fields: Mapping[bytes, bytes]) -> bytes | None:
    """A minute as the API returns it; amounts in main units of the currency; None while its total has not come.

    Dimensions arrive one by one: for a moment a region can be ahead of the total.
    """
    rows = {name.decode(): [int(number) for number in value.split()] for name, value in fields.items()}
    total = rows.get("total:*")
    if total is None:
        return None
    _, gmv_minor, orders, users, first_orders, end_ms = total

    def gmv_of(dimension: str) -> dict[str, int]:
        prefix = f"{dimension}:"
        return {name.removeprefix(prefix): row[1] for name, row in sorted(rows.items()) if name.startswith(prefix)}

    categories = gmv_of("category")
    return msgspec.json.encode(
        {
            "window_start": rfc3339(start_ms),
            "window_end": rfc3339(end_ms),
            "currency": currency,
            "total_gmv": _amount(gmv_minor, currency),
            "order_count": orders,
            "avg_order_value": _amount(round(gmv_minor / orders) if orders else 0, currency),
            "unique_users": users,
            "first_time_orders": first_orders,
            # Of several, the smallest string: they are sorted, and max takes the first.
            "top_category": max(categories, key=categories.__getitem__, default=None),
            "by_category": {name: _amount(gmv, currency) for name, gmv in categories.items()},
            "by_region": {name: _amount(gmv, currency) for name, gmv in gmv_of("region").items()},
        }
    )


def user_features_json(user_id: str, fields: Mapping[bytes, bytes], shop: str = currencies.DEFAULT) -> bytes | None:
    """A user's hash as the API returns it; amounts in main units; None when there is none.

    spend_1h and spend_24h are in `currency`, the shop's; spend_by_currency has every currency of that day.

    What no event has told yet is null, or zero when it is a count or a sum. The scripts that write the hash
    (`transforms/io/redis_scripts.py`) write these bytes beside it; this says what they are.
    """
    if not fields:
        return None

    def number(name: str) -> int:
        return int(fields.get(name.encode(), b"0"))

    def time(name: str) -> str | None:
        return rfc3339(number(name)) if name.encode() in fields else None

    old = f"{currencies.DEFAULT} {number('spend_1h_minor')} {number('spend_24h_minor')}" if number("orders_24h") else ""
    told = fields.get(b"spend_minor", old.encode()).decode()
    spend = {code: (int(hour), int(day)) for code, hour, day in (each.split() for each in told.split(";") if each)}
    hour, day = spend.get(shop, (0, 0))
    kind = fields.get(b"last_alert_type")
    session = fields.get(b"last_session")
    return msgspec.json.encode(
        {
            "user_id": user_id,
            "last_seen": time("last_seen"),
            "orders_1h": number("orders_1h"),
            "spend_1h": _amount(hour, shop),
            "orders_24h": number("orders_24h"),
            "spend_24h": _amount(day, shop),
            "currency": shop,
            "spend_by_currency": {
                code: {"spend_1h": _amount(hour, code), "spend_24h": _amount(day, code)}
                for code, (hour, day) in spend.items()
            },
            "last_order_at": time("last_order_at"),
            "last_session": None if session is None else msgspec.Raw(session),
            "alerts": number("alerts"),
            "last_alert_type": None if kind is None else kind.decode(),
            "last_alert_at": time("last_alert_at"),
        }
    )
