"""Reads the online store for the API, and writes what a fraud team says of alerts. The only module here that knows its
layout or reads the clock.

Alerts and sessions are stored as the JSON that clients get, so reads return bytes and nothing here decodes them, except
the last one of a page, for the place where the next page goes on.

Long, as every read of the store is here, and the one write.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, cast

import msgspec
import redis

from schemas import alert_states, features, inventory, jobs
from schemas.alert_states import AlertState, StateName
from schemas.store_keys import Keys
from serving.config import Config
from serving.connections import Command, connect

__all__ = ["JOBS", "Health", "Page", "Position", "Readings", "Store", "StoreUnavailable", "epoch_ms"]

_LOG = logging.getLogger(__name__)

# Asked for by name: SCAN would walk the whole key space at every health check.
JOBS = tuple(job.name for job in jobs.JOBS.values())
_LEDGER_FIELDS = (b"in", b"good", b"dead_letters", b"late", b"duplicates")
_BESIDE = ("lost", "ignored")
"""What a ledger counts beside these, as it is no part of `in`."""
_MINUTES_WITHOUT_TOTAL = 3  # a minute's dimensions are written one by one: so many of the newest may lack theirs yet
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE_MS = 60_000
_RECENT_MS = 5 * _MINUTE_MS
_MOST_CURRENCIES = 50  # in metrics, where each is a series for good; a producer may send any three letters
_LOOKED_AT = 1_000  # alerts in one go, of which some are wanted
_RECENT_ALERTS = 1_000  # in an attack there are more; that it is one shows already


class StoreUnavailable(Exception):
    """Redis did not answer, or answered with an error; the message is for operators."""


class Position(NamedTuple):
    """The last row a reader has seen, in the order newest first, then its id from high to low."""

    time_ms: int
    row_id: str


class Page(NamedTuple):
    """Rows as JSON, newest first.

    Attributes:
      end: where the next page goes on; None when there is none.
    """

    rows: list[bytes]
    end: Position | None


class Health(NamedTuple):
    latency_ms: float
    ledgers: dict[str, dict[str, int | str]]
    open_sessions: int
    freshness_s: dict[str, float]


class Readings(NamedTuple):
    """What a scrape tells of the store.

    Attributes:
      ledgers: by job and outcome; `in` is the sum of the others.
      lost: by job, what the log no longer held; not of jobs that do not say.
      ignored: by job, messages that its mapping ignores; of jobs that ignored any.
      ledger_age_s: since a job last wrote its ledger.
      recent_alerts: by type, of the last five minutes of event time; the newest 1,000 are counted.
      minutes: by currency, the revenue of the newest minute that has been over for one; not of those in which nobody
        ordered, or nobody counts. Of more than 50 currencies, the newest.
    """

    freshness_s: dict[str, float]
    ledgers: dict[str, dict[str, int]]
    lost: dict[str, int]
    ignored: dict[str, int]
    ledger_age_s: dict[str, float]
    open_sessions: int
    recent_alerts: dict[str, int]
    minutes: dict[str, Minute]


class Minute(NamedTuple):
    gmv: float
    orders: int
    users: int


class _Place(NamedTuple):
    """The fields of a row that say where it stands in its list; the id comes first in its JSON, as Redis orders equal
    scores by that."""

    row_id: str
    time: str


class _OfProduct(msgspec.Struct):
    product_id: str


class _Updated(msgspec.Struct):
    updated_at: datetime


class _OfAlert(msgspec.Struct):
    alert_type: str
    user_id: str
    order_id: str


class _OfAlertId(msgspec.Struct):
    alert_id: str


class _OfMinute(msgspec.Struct):
    total_gmv: float
    order_count: int
    unique_users: int


_of_product = msgspec.json.Decoder(_OfProduct).decode
_updated = msgspec.json.Decoder(_Updated).decode
_of_alert = msgspec.json.Decoder(_OfAlert).decode
_of_alert_id = msgspec.json.Decoder(_OfAlertId).decode
_of_minute = msgspec.json.Decoder(_OfMinute).decode
_ALERT = _Place("alert_id", "timestamp")
_SESSION = _Place("session_id", "start_time")
_STATE = _Place("alert_id", "at")
_PRODUCT_ID = "product_id"

# KEYS: states, labels. ARGV: alert, when in ms, JSON, how many are kept, TTL in s.
_LABEL = """
local old = redis.call('HGET', KEYS[1], ARGV[1])
if old then redis.call('ZREM', KEYS[2], old) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[3])
local over = redis.call('ZCARD', KEYS[2]) - ARGV[4]
if over > 0 then
  local out = redis.call('ZPOPMIN', KEYS[2], over)
  for i = 1, #out, 2 do redis.call('HDEL', KEYS[1], cjson.decode(out[i]).alert_id) end
end
for i = 1, 2 do redis.call('EXPIRE', KEYS[i], ARGV[5]) end
"""


def epoch_ms(moment: datetime) -> int:
    """Milliseconds since the epoch, rounded down; exact, unlike `timestamp() * 1000`."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


class Store:
    """Reads the layout of `schemas.features`.

    Every method raises StoreUnavailable within two timeouts (connect, read) if Redis does not answer. After a timeout,
    calls fail at once for `retry_after_s`, so that a frozen Redis does not hold every thread; then one call tries
    again. A refused connection fails at once anyway, so it is always tried.
    """

    def __init__(
        self,
        config: Config,
        count_error: Callable[[], None],
        count_open: Callable[[int], None] = lambda _: None,
    ):
        self._config = config
        self._count_error = count_error
        self._shut_until = 0.0
        self._failing = False
        self._connections = connect(config, count_open)
        self._keys = keys = Keys(config.store_prefix, config.redis_url.cluster)
        # What health and a scrape ask for.
        self._of_the_jobs: tuple[Command, ...] = (
            *(("HGETALL", keys.ledger(job)) for job in JOBS),
            ("ZCARD", keys.open_sessions),
            ("HGETALL", keys.freshness),
        )

    def alerts(
        self,
        user_id: str | None,
        limit: int,
        after: Position | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        state: StateName | None = None,
    ) -> Page:
        """Alerts of one user or of all, newest first, each with its state.

        Args:
          user_id: None for all users.
          limit: at most this many.
          after: the last row of the page before.
          since_ms, until_ms: bounds of the event time, both inclusive.
          state: only these, of the next 1,000 alerts: so a page may be short and still have a successor.
        """
        page = self._page(
            self._alerts_of(user_id), _ALERT, limit if state is None else _LOOKED_AT, after, since_ms, until_ms
        )
        if not page.rows:
            return page
        ids = [_of_alert_id(row).alert_id for row in page.rows]
        [stored] = self._ask(("HMGET", self._keys.alert_states, *ids))
        known = [alert_states.state_of(each) for each in stored]
        wanted = [i for i, each in enumerate(known) if state is None or (each.state if each else "new") == state]
        end = page.end
        if len(wanted) > limit or (len(wanted) == limit and wanted[-1] + 1 < len(page.rows)):
            wanted = wanted[:limit]
            end = _position(page.rows[wanted[-1]], _ALERT)
        return Page([alert_states.with_state(page.rows[i], known[i]) for i in wanted], end)

    def label(
        self, alert_id: str, user_id: str | None, state: StateName, by: str | None, note: str | None
    ) -> AlertState | None:
        """Gives an alert a state; None: there is no such alert.

        An alert that has left the store, but was labelled before, can still be labelled otherwise.

        Args:
          user_id: None: the alert is looked for among the newest of all users.
        """
        of = self._alert(alert_id, user_id)
        if of is None:
            return None
        at_ms = int(time.time() * 1000)
        made = alert_states.make_state(alert_id, of.order_id, of.user_id, of.alert_type, state, by, note, at_ms)
        keys = (self._keys.alert_states, self._keys.alert_labels)
        told = msgspec.json.encode(made)
        self._ask(("EVAL", _LABEL, 2, *keys, alert_id, at_ms, told, alert_states.KEPT, alert_states.KEPT_S))
        return made

    def labels(
        self,
        limit: int,
        after: Position | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> Page:
        """States that somebody gave, as `schemas.alert_states`, the last first; bounds are of that time."""
        return self._page(self._keys.alert_labels, _STATE, limit, after, since_ms, until_ms)

    def _alerts_of(self, user_id: str | None) -> str:
        return self._keys.recent_alerts if user_id is None else self._keys.user_alerts(user_id)

    def _alert(self, alert_id: str, user_id: str | None) -> _OfAlert | AlertState | None:
        # No key leads from an alert's id to the alert: somebody labels so seldom that the list may be gone through.
        begin = re.sub(rb"[\\*?\[\]]", rb"\\\g<0>", _begin(_ALERT.row_id, alert_id))
        cursor: int | bytes = 0
        while True:
            [(cursor, found)] = self._ask(
                ("ZSCAN", self._alerts_of(user_id), cursor, "MATCH", begin + b",*", "COUNT", _LOOKED_AT)
            )
            if found:
                return _of_alert(found[0])
            if int(cursor) == 0:
                break
        [stored] = self._ask(("HGET", self._keys.alert_states, alert_id))
        return alert_states.state_of(stored)

    def alert_log(self, after: tuple[int, int], count: int) -> list[tuple[tuple[int, int], bytes]]:
        """Alerts in the order in which the store got them, as id and JSON: at most `count` after an id."""
        [entries] = self._ask(("XRANGE", self._keys.alert_log, f"({after[0]}-{after[1]}", "+", "COUNT", count))
        return [((int(at), int(number)), fields[1]) for entry, fields in entries for at, number in [entry.split(b"-")]]

    def sessions(
        self,
        user_id: str | None,
        limit: int,
        after: Position | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        only_open: bool = False,
    ) -> Page:
        """Sessions by their start, as `alerts`. A page with a next one may be short: retracted sessions are left out.

        Args:
          only_open: those that are in progress.
        """
        everyone = self._keys.open_sessions if only_open else self._keys.recent_sessions
        key = everyone if user_id is None else self._keys.user_sessions(user_id)
        page = self._page(key, _SESSION, limit, after, since_ms, until_ms)
        rows = [row for row in page.rows if not row.endswith(features.TOMBSTONE_MARK)]
        if only_open and user_id is not None:
            rows = [row for row in rows if row.endswith(features.OPEN_MARK)]
        return Page(rows, page.end)

    def currencies(self) -> list[str]:
        """Those of which there are minutes, by their codes."""
        [codes] = self._ask(("ZRANGE", self._keys.currencies, 0, -1))
        return sorted(code.decode() for code in codes)

    def revenue(
        self,
        currency: str,
        limit: int,
        after: Position | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> Page:
        """Minutes of a currency by their start, newest first, as `alerts`; the open one too."""
        newest: int | str = "+inf" if until_ms is None else until_ms
        if after is not None and (until_ms is None or after.time_ms <= until_ms):
            newest = f"({after.time_ms}"
        oldest: int | str = "-inf" if since_ms is None else since_ms
        starts, rows = self._minutes(currency, newest, oldest, limit + 1)
        end = Position(starts[limit - 1], "") if len(starts) > limit else None
        return Page([row for row in rows[:limit] if row is not None], end)

    def revenue_now(self, currency: str) -> bytes | None:
        """The minute that is open, or, when there were no orders for a while, the last that was; None before any.

        A minute ahead of the clock, of a producer whose clock is wrong, does not count.
        """
        now_ms = int(time.time() * 1000)
        _, rows = self._minutes(currency, now_ms, "-inf", _MINUTES_WITHOUT_TOTAL)
        return next((row for row in rows if row is not None), None)

    def _minutes(
        self, currency: str, newest: int | str, oldest: int | str, count: int
    ) -> tuple[list[int], list[bytes | None]]:
        [found] = self._ask(_newest_first(self._keys.revenue_minutes(currency), newest, oldest, count))
        starts = [int(start) for start in found]
        minutes = self._ask(*(("HGETALL", self._keys.revenue_minute(currency, start)) for start in starts))
        return starts, [features.revenue_json(currency, *minute) for minute in zip(starts, minutes, strict=True)]

    def product(self, product_id: str) -> bytes | None:
        """A product as JSON; None when there is none."""
        [stored] = self._ask(("HGET", self._keys.products, product_id))
        return inventory.product_of(stored)

    def products(
        self,
        limit: int,
        after: Position | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        low_stock: bool = False,
        product_id: str | None = None,
    ) -> Page:
        """Products by their id. A page with a next one may be short, as those updated at another time are left out.

        Args:
          since_ms, until_ms: bounds of when they were updated, both inclusive.
          low_stock: those whose stock is at their threshold or below.
          product_id: this one only.
        """
        key = self._keys.low_products if low_stock else self._keys.all_products
        first, last = b"[", b"+"
        # A comma follows the id in its JSON: the hyphen, which is the next character, is beyond that row and no other.
        if product_id is not None:
            first, last = b"[%b" % _begin(_PRODUCT_ID, product_id), b"(%b-" % _begin(_PRODUCT_ID, product_id)
        if after is not None:
            first = max(first, b"[%b-" % _begin(_PRODUCT_ID, after.row_id))
        [found] = self._ask(("ZRANGE", key, first, last, "BYLEX", "LIMIT", 0, limit + 1))
        page = found[:limit]
        end = Position(0, _of_product(page[-1]).product_id) if len(found) > limit else None
        if since_ms is not None or until_ms is not None:
            oldest_ms, newest_ms = since_ms or 0, math.inf if until_ms is None else until_ms
            page = [row for row in page if oldest_ms <= _updated_ms(row) <= newest_ms]
        return Page(page, end)

    def stock_alerts(
        self,
        limit: int,
        after: Position | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> Page:
        """Low-stock alerts, as `alerts`; each with its product as that is now, as `product`."""
        page = self._page(self._keys.stock_alerts, _ALERT, limit, after, since_ms, until_ms)
        if not page.rows:
            return page
        ids = [_of_product(row).product_id for row in page.rows]
        [stored] = self._ask(("HMGET", self._keys.products, *ids))
        products = [inventory.product_of(each) or b"null" for each in stored]
        rows = [b'%b,"product":%b}' % (row[:-1], now) for row, now in zip(page.rows, products, strict=True)]
        return Page(rows, page.end)

    def features_of(self, user_id: str) -> bytes | None:
        """What is known of a user, as JSON; None when nothing is."""
        [known] = self._ask(("GET", self._keys.user_features(user_id)))
        return cast("bytes | None", known)

    def features_of_many(self, user_ids: Sequence[str]) -> list[bytes | None]:
        """As `features_of`, of each user, in the order asked."""
        keys = [self._keys.user_features(user_id) for user_id in user_ids]
        if self._config.redis_url.cluster:  # one by one, as keys of a slot on the move cannot be had together
            return self._ask(*(("GET", key) for key in keys))
        [known] = self._ask(("MGET", *keys))
        return cast("list[bytes | None]", known)

    def orders_of(self, user_id: str) -> list[tuple[bytes, float]]:
        """What `features.kept_order` reads, each with its event time in ms, oldest first."""
        [found] = self._ask(("ZRANGE", self._keys.user_orders(user_id), 0, -1, "WITHSCORES"))
        return [(member, at_ms) for member, at_ms in found]

    def _page(
        self,
        key: str,
        place: _Place,
        limit: int,
        after: Position | None,
        since_ms: int | None,
        until_ms: int | None,
    ) -> Page:
        oldest: int | str = "-inf" if since_ms is None else since_ms
        if after is None or (until_ms is not None and until_ms < after.time_ms):
            newest = "+inf" if until_ms is None else until_ms
            [found] = self._ask(_newest_first(key, newest, oldest, limit + 1))
        else:
            found = self._page_after(key, place, after, oldest, limit + 1)
        page = found[:limit]
        if len(found) <= limit:
            return Page(page, None)
        return Page(page, _position(page[-1], place))

    def _page_after(self, key: str, place: _Place, after: Position, oldest: int | str, count: int) -> list[bytes]:
        """One round trip, one consistent view: the rest of the instant at which the last page ended, then what is
        older. Redis orders equal scores by member, that is by id, the first field of a row's JSON."""
        if isinstance(oldest, int) and after.time_ms < oldest:
            return []
        same_instant, older = self._ask(
            _newest_first(key, after.time_ms, after.time_ms),
            _newest_first(key, f"({after.time_ms}", oldest, count),
            one_view=True,
        )
        seen = _begin(place.row_id, after.row_id)
        return [*(row for row in same_instant if row < seen), *older]

    def health(self) -> Health:
        """How long Redis took, the ledgers of the jobs that have written one, how many sessions are in progress, and
        `freshness_s`."""
        start = time.perf_counter()
        *hashes, open_sessions, newest = self._ask(*self._of_the_jobs)
        latency_ms = (time.perf_counter() - start) * 1000
        ledgers = {job: _ledger(fields) for job, fields in zip(JOBS, hashes, strict=True) if fields}
        return Health(round(latency_ms, 3), ledgers, open_sessions, _freshness_s(newest))

    def freshness_s(self) -> dict[str, float]:
        """Per feature family: seconds from the newest event time in the store to now."""
        [newest] = self._ask(("HGETALL", self._keys.freshness))
        return _freshness_s(newest)

    def readings(self) -> Readings:
        """For a scrape, in two round trips."""
        now_ms = int(time.time() * 1000)
        # A younger minute still grows.
        minute_ms = now_ms - now_ms % _MINUTE_MS - 2 * _MINUTE_MS
        *hashes, open_sessions, newest, alerts, codes = self._ask(
            *self._of_the_jobs,
            _newest_first(self._keys.recent_alerts, now_ms, now_ms - _RECENT_MS, _RECENT_ALERTS),
            _newest_first(self._keys.currencies, "+inf", minute_ms, _MOST_CURRENCIES),
        )
        codes = [code.decode() for code in codes]
        totals = self._ask(*(("HGET", self._keys.revenue_minute(code, minute_ms), "total:*") for code in codes))
        written = {job: fields for job, fields in zip(JOBS, hashes, strict=True) if fields}
        updated = {job: fields.get(b"updated_ms") for job, fields in written.items()}
        return Readings(
            freshness_s=_freshness_s(newest),
            ledgers={job: _counts(fields) for job, fields in written.items()},
            **{
                name: {job: n for job, fields in written.items() if (n := _beside(fields).get(name)) is not None}
                for name in _BESIDE
            },
            ledger_age_s={job: (now_ms - int(at)) / 1000 for job, at in updated.items() if at and _is_count(at)},
            open_sessions=open_sessions,
            recent_alerts=Counter(_of_alert(row).alert_type for row in alerts),
            minutes={code: _minute(code, minute_ms, total) for code, total in zip(codes, totals, strict=True) if total},
        )

    def _ask(self, *commands: Command, one_view: bool = False) -> list[Any]:
        """As `Node.ask`, for a Redis that may be away."""
        now = time.monotonic()
        if now < self._shut_until:
            self._count_error()
            raise StoreUnavailable("Redis timed out a moment ago and is given time to recover")
        if self._shut_until:
            self._shut_until = now + 2 * self._config.redis_timeout_s  # this call tries; others go on failing at once
        try:
            answers = self._connections.ask(*commands, one_view=one_view)
        except redis.TimeoutError as e:
            self._shut_until = time.monotonic() + self._config.retry_after_s
            raise self._failure(f"Redis did not answer within {self._config.redis_timeout_s} s") from e
        except redis.RedisError as e:
            self._shut_until = 0.0
            raise self._failure(f"Redis failed: {e}") from e
        self._shut_until = 0.0
        if self._failing:
            self._failing = False
            _LOG.warning("Redis answers again")
        return answers

    def _failure(self, reason: str) -> StoreUnavailable:
        self._count_error()
        if not self._failing:  # one line an outage, not one a request
            self._failing = True
            _LOG.warning("%s", reason)
        return StoreUnavailable(reason)


def _position(row: bytes, place: _Place) -> Position:
    fields = msgspec.json.decode(row)
    return Position(epoch_ms(datetime.fromisoformat(fields[place.time])), fields[place.row_id])


def _begin(name: str, row_id: str) -> bytes:
    """What the JSON of a row begins with."""
    return b'{"%b":%b' % (name.encode(), msgspec.json.encode(row_id))


def _updated_ms(product: bytes) -> int:
    return epoch_ms(_updated(product).updated_at)


def _newest_first(key: str, newest: int | str, oldest: int | str, count: int | None = None) -> Command:
    limit = () if count is None else ("LIMIT", 0, count)
    return ("ZRANGE", key, newest, oldest, "BYSCORE", "REV", *limit)


def _freshness_s(newest: dict[bytes, bytes]) -> dict[str, float]:
    now_ms = time.time() * 1000
    return {
        family.decode("utf-8", "replace"): (now_ms - int(at)) / 1000 for family, at in newest.items() if at.isdigit()
    }


def _minute(currency: str, start_ms: int, total: bytes) -> Minute:
    minute = _of_minute(cast(bytes, features.revenue_json(currency, start_ms, {b"total:*": total})))
    return Minute(minute.total_gmv, minute.order_count, minute.unique_users)


def _counts(fields: dict[bytes, bytes]) -> dict[str, int]:
    return {name.decode(): int(fields[name]) for name in _LEDGER_FIELDS if _is_count(fields.get(name))}


def _beside(fields: dict[bytes, bytes]) -> dict[str, int]:
    return {name: int(fields[name.encode()]) for name in _BESIDE if _is_count(fields.get(name.encode()))}


def _ledger(fields: dict[bytes, bytes]) -> dict[str, int | str]:
    known: dict[str, Any] = {**_counts(fields), **_beside(fields)}
    updated = fields.get(b"updated_ms")
    if _is_count(updated):
        known["updated_at"] = features.rfc3339(int(cast(bytes, updated)))
    return known


def _is_count(value: bytes | None) -> bool:
    return value is not None and value.isdigit() and len(value) < 15
