"""The online store: versioned writes to Redis or Valkey, in the layout of `schemas.features`.

Every write is idempotent: any repeat, in any order, leaves the same contents. So what a runner retries, or reads again
after a failure, changes nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import apache_beam as beam
import msgspec
import redis
from redis.exceptions import BusyLoadingError, ReadOnlyError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from schemas import features
from schemas.events import FraudAlert, RevenueWindow, UserSession
from transforms.io import redis_scripts
from transforms.io.secrets import read_secret
from transforms.ledger import Counts

__all__ = [
    "WriteAlertsToRedis",
    "WriteLedgerToRedis",
    "WriteOrderFeaturesToRedis",
    "WriteRevenueToRedis",
    "WriteSessionsToRedis",
]

_LOG = logging.getLogger(__name__)
_BATCH = 500
_GIVE_UP_S = 120
_UNREACHABLE = (BusyLoadingError, ReadOnlyError, RedisConnectionError, RedisTimeoutError)
_USERS = (features.USER_TTL_S, *features.USER_PREFIXES)


def _connect(url: str) -> redis.Redis:
    """Of `secret://project/secret?ca=secret`, the first secret holds the address, and the second, if there is one, the
    certificates of who may have signed the server's.

    Raises:
      OSError: a secret cannot be read.
    """
    more: dict[str, Any] = {}
    parts = urlsplit(url)
    if parts.scheme == "secret":
        url = read_secret(parts.netloc, parts.path.strip("/")).strip()
        if parts.query:
            more["ssl_ca_data"] = read_secret(parts.netloc, parts.query.removeprefix("ca="))
    return redis.Redis.from_url(url, socket_timeout=10, socket_connect_timeout=5, **more)


def _shown(url: str) -> str:
    """Without user and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


class _RedisFn(beam.DoFn):
    """A connection, opened in the worker, and retries: an unreachable store stops the reading, it loses nothing."""

    def __init__(self, url: str):
        self._url = url

    def setup(self) -> None:
        self._client = _connect(self._url)

    def teardown(self) -> None:
        self._client.close()

    def _run(self, script: str, keys: Iterable[str], args: Iterable[Any]) -> Any:
        """Runs a script, with back-off while the store cannot be reached; gives up after two minutes, so that the
        runner restarts the job from its checkpoint."""
        names = list(keys)
        give_up, wait_s = time.monotonic() + _GIVE_UP_S, 0.1
        while True:
            try:
                return self._client.eval(script, len(names), *names, *args)
            except _UNREACHABLE as e:
                if time.monotonic() > give_up:
                    raise
                _LOG.warning("%s cannot be written to, trying again in %.1f s: %s", _shown(self._url), wait_s, e)
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, 5.0)


@dataclass(frozen=True)
class _Table:
    """What a script writes.

    Attributes:
      keys, first: its keys, and the arguments before those of the rows.
      arguments: of one row.
      rows: the rows of one element.
    """

    script: str
    keys: tuple[str, ...]
    first: tuple[Any, ...]
    arguments: Callable[[Any], tuple[Any, ...]]
    rows: Callable[[Any], Iterable[Any]] = lambda element: (element,)


class _WriteRowsFn(_RedisFn):
    def __init__(self, url: str, table: Callable[[], _Table]):
        super().__init__(url)
        self._make_table = table

    def setup(self) -> None:
        super().setup()
        self._table = self._make_table()

    def start_bundle(self) -> None:
        self._rows = 0
        self._args: list[Any] = []

    def process(self, element: Any) -> Iterable[None]:
        for row in self._table.rows(element):
            self._args += self._table.arguments(row)
            self._rows += 1
            if self._rows >= _BATCH:
                self._flush()
        return ()

    def finish_bundle(self) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._run(self._table.script, self._table.keys, (*self._table.first, *self._args))
            self.start_bundle()


class WriteAlertsToRedis(beam.PTransform):
    """Stores alerts for the API, and the users' features that come of them."""

    def __init__(self, url: str):
        super().__init__()
        self._fn = _WriteRowsFn(url, _alerts)

    def expand(self, alerts: beam.PCollection[FraudAlert]) -> beam.PCollection[None]:
        return alerts | "Store" >> beam.ParDo(self._fn)


def _alerts() -> _Table:
    return _Table(
        redis_scripts.ALERTS,
        (features.RECENT_ALERTS_KEY, features.FRESHNESS_KEY, features.ALERT_LOG_KEY),
        (
            *_USERS,
            features.ALERTS_PER_USER,
            features.ALERTS_RECENT,
            features.ALERT_FAMILY,
            features.ALERTS_LOGGED,
        ),
        lambda alert: (alert.user_id, alert.alert_id, alert.event_time, features.alert_json(alert)),
    )


class WriteSessionsToRedis(beam.PTransform):
    """Stores sessions for the API, and the users' features that come of them.

    Input: UserSession, early, final, corrected and retracted ones, in any order; a version below 2^53 stands for one
    content.
    """

    def __init__(self, url: str):
        super().__init__()
        self._fn = _WriteRowsFn(url, _sessions)

    def expand(self, sessions: beam.PCollection[UserSession]) -> beam.PCollection[None]:
        return sessions | "Store" >> beam.ParDo(self._fn)


def _sessions() -> _Table:
    return _Table(
        redis_scripts.SESSIONS,
        (features.RECENT_SESSIONS_KEY, features.OPEN_SESSIONS_KEY, features.FRESHNESS_KEY),
        (*_USERS, features.SESSIONS_PER_USER, features.SESSIONS_RECENT, features.SESSION_FAMILY),
        _session_arguments,
    )


def _session_arguments(session: UserSession) -> tuple[Any, ...]:
    return (
        session.user_id,
        session.session_id,
        session.session_start,
        0 if session.deleted else session.session_end,
        features.session_version(session),
        int(session.pane == "EARLY" and not session.deleted),
        features.session_json(session),
    )


class WriteOrderFeaturesToRedis(beam.PTransform):
    """Sums up each user's orders of the hour and the day before the newest, for the user's features.

    Input: KV[shard, rows] of `transforms.revenue`: as msgpack, each beginning with user_id, order_id, event time in ms,
    amount in minor units.
    """

    def __init__(self, url: str):
        super().__init__()
        self._fn = _WriteRowsFn(url, _orders)

    def expand(self, orders: beam.PCollection[tuple[int, bytes]]) -> beam.PCollection[None]:
        return orders | "Store" >> beam.ParDo(self._fn)


def _orders() -> _Table:
    return _Table(
        redis_scripts.ORDERS,
        (features.FRESHNESS_KEY,),
        (*_USERS, features.ORDERS_PER_USER, features.HOUR_MS, features.DAY_MS, features.ORDER_FAMILY),
        lambda order: tuple(order[:4]),
        lambda keyed: msgspec.msgpack.decode(keyed[1]),
    )


class WriteRevenueToRedis(beam.PTransform):
    """Stores revenue by the minute for the API.

    Input: RevenueWindow, early, final and corrected ones, in any order; a version below 2^53 stands for one content.
    """

    def __init__(self, url: str):
        super().__init__()
        self._fn = _WriteRowsFn(url, _revenue)

    def expand(self, revenue: beam.PCollection[RevenueWindow]) -> beam.PCollection[None]:
        return revenue | "Store" >> beam.ParDo(self._fn)


def _revenue() -> _Table:
    return _Table(
        redis_scripts.REVENUE,
        (features.REVENUE_MINUTES_KEY, features.FRESHNESS_KEY),
        (
            features.REVENUE_TTL_S,
            features.REVENUE_MINUTES,
            features.REVENUE_MINUTE_PREFIX,
            features.REVENUE_FAMILY,
            features.USER_TTL_S,
        ),
        lambda row: (row.window_start, features.revenue_field(row), row.version, features.revenue_value(row)),
    )


class WriteLedgerToRedis(beam.PTransform):
    """Shows a running job's ledger; `run_ms` is when the job was started."""

    def __init__(self, url: str, job: str, run_ms: int):
        super().__init__()
        self._fn = _WriteLedgerFn(url, job, run_ms)

    def expand(self, counts: beam.PCollection[Counts]) -> beam.PCollection[None]:
        return counts | "Store" >> beam.ParDo(self._fn)


class _WriteLedgerFn(_RedisFn):
    def __init__(self, url: str, job: str, run_ms: int):
        super().__init__(url)
        self._job, self._run_ms = job, run_ms

    def process(self, counts: Counts) -> Iterable[None]:
        fields = {**counts.as_dict(), "updated_ms": time.time_ns() // 1_000_000}
        total = fields.pop("in")
        rest = [part for pair in fields.items() for part in pair]
        keys = [features.ledger_key(self._job)]
        self._run(redis_scripts.LEDGER, keys, [features.LEDGER_TTL_S, self._run_ms, total, *rest])
        return ()
