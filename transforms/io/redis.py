"""The online store: versioned writes to Redis or Valkey, in the layout of `schemas.features`.

Every write is idempotent: any repeat, in any order, leaves the same content. So retries, and input that is read again
after a failure, change nothing.

Long, as connection, retries and tables of the store are one writer.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import apache_beam as beam
import msgspec
import redis

from connections.secrets import read_secret
from connections.store import store_options
from connections.store_cluster import WAIT_MS, Cluster, check_replicas
from connections.store_connection import connections
from schemas import currencies, features
from schemas.addresses import StoreUrl
from schemas.events import FraudAlert, RevenueWindow, UserSession
from schemas.store_errors import About, about, distrusted, words_of
from schemas.store_keys import PREFIX, Keys
from transforms.errors import BadRecord
from transforms.io import redis_cluster, redis_scripts
from transforms.io.redis_cluster import OfAll, Split, run_split
from transforms.ledger import Counts

__all__ = [
    "RedisFn",
    "StoreError",
    "StoreRefusedError",
    "StoreTable",
    "WriteAlertsToRedis",
    "WriteLedgerToRedis",
    "WriteOrderFeaturesToRedis",
    "WriteRevenueToRedis",
    "WriteRowsFn",
    "WriteSessionsToRedis",
    "check_store",
    "freshness",
    "write_rows",
]

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_BATCH = 500
_BATCH_BYTES = 4 << 20  # of rows in one call
_MOST_BYTES = 1 << 20  # of a value: the least to which a store's proto-max-bulk-len may be set
_GIVE_UP_S = 120


def _users(currency: str, keys: Keys, part: str) -> tuple[Any, ...]:
    return features.USER_TTL_S, *keys.of_user(part), currency


class StoreError(Exception):
    """The store did not take a write. The message shows no password."""


class StoreRefusedError(Exception):
    """The store answers, but not to this user, or has no such database. The message shows no password."""


# Who cannot do these cannot run the scripts. A key of its own, so that nothing is seen of it.
_PROBE: Final = """
redis.call('ZADD', KEYS[1], 1, '1')
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], '1', '1')
redis.call('EXPIRE', KEYS[1], 1)
return redis.call('DEL', KEYS[1])
"""


def check_store(url: StoreUrl, prefix: str = PREFIX) -> None:
    """Whether the store takes what jobs write; of one that does not answer, or not now, this says nothing.

    Raises: StoreRefusedError.
    """
    with contextlib.closing(_open(url)) as client:
        try:
            _run(client, _PROBE, [Keys(prefix, url.cluster).check(uuid.uuid4().hex)], ())
        except redis.RedisError as e:
            if _about(e) != "state":
                raise StoreRefusedError(f"{url} refuses: {url.hide(words_of(e))}") from None
            _LOG.warning("%s does not answer yet: %s", url, url.hide(words_of(e)))


def _connect(url: StoreUrl | str) -> tuple[StoreUrl, redis.Redis | Cluster]:
    """Of `secret://project/secret?ca=secret`, the first secret holds the address, and the second, if there is one, the
    certificates of who may have signed the server's.

    Raises:
      OSError: a secret cannot be read.
      ValueError: an address cannot be right.
    """
    more: dict[str, Any] = {}
    if isinstance(url, str) and url.startswith("secret:"):
        parts = urlsplit(url)
        url = read_secret(parts.netloc, parts.path.strip("/")).strip()
        if parts.query:
            more["ssl_ca_data"] = read_secret(parts.netloc, parts.query.removeprefix("ca="))
    address = StoreUrl(url)
    return address, _open(address, **more)


def _open(url: StoreUrl, **more: Any) -> redis.Redis | Cluster:
    settings = {"socket_timeout": 10, "socket_connect_timeout": 5, **more}
    if url.cluster:
        return Cluster.open(url, settings, replicas=store_options(url).get("wait_replicas", 0))
    return redis.Redis.from_pool(connections(url, **settings))


def _run(
    client: redis.Redis | Cluster, script: str, keys: Sequence[str], arguments: Iterable[Any], replicas: int = 0
) -> Any:
    if isinstance(client, Cluster):
        return redis_cluster.run(client, script, keys, arguments)
    if not replicas:
        return client.eval(script, len(keys), *keys, *arguments)
    with client.pipeline(transaction=False) as both:  # on one connection, whose writes are waited for
        both.eval(script, len(keys), *keys, *arguments)
        both.wait(replicas, WAIT_MS)
        answer, reached = both.execute(raise_on_error=False)  # which would put its own words before the error's code
    for each in (answer, reached):
        if isinstance(each, Exception):
            raise each
    check_replicas(reached, replicas)
    return answer


def _about(error: redis.RedisError) -> About:
    # The first and the last are ConnectionErrors.
    if isinstance(error, redis.AuthenticationError | redis.InvalidResponse) or distrusted(error):
        return "access"
    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        return "state"
    return about(words_of(error)) if isinstance(error, redis.ResponseError) else "command"


class RedisFn(beam.DoFn):
    """A connection, opened in the worker, and retries: a store that cannot be written to stops the reading, it loses
    nothing."""

    def __init__(self, url: StoreUrl | str, prefix: str = PREFIX):
        self._url, self._prefix = url, prefix

    def setup(self) -> None:
        self._address, self._client = _connect(self._url)
        self._keys = Keys(self._prefix, self._address.cluster)
        self._replicas = store_options(self._address).get("wait_replicas", 0)

    def teardown(self) -> None:
        self._client.close()

    def _run(self, script: str, keys: Iterable[str], args: Iterable[Any]) -> Any:
        names, arguments = list(keys), list(args)
        return self._ask(lambda: _run(self._client, script, names, arguments, self._replicas))

    def _ask(self, ask: Callable[[], T]) -> T:
        """With back-off while the store is away or refuses; gives up after two minutes, so that the runner restarts the
        job from its checkpoint. What is wrong with the question itself is raised at once."""
        give_up, wait_s = time.monotonic() + _GIVE_UP_S, 0.1
        while True:
            try:
                return ask()
            except redis.RedisError as e:
                kind, words = _about(e), self._address.hide(words_of(e))
                if kind == "command" or time.monotonic() > give_up:
                    raise StoreError(f"{self._address}: {words}") from None
                level = logging.ERROR if kind == "access" else logging.WARNING
                _LOG.log(level, "cannot write to %s, retrying in %.1f s: %s", self._address, wait_s, words)
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, 5.0)


@dataclass(frozen=True)
class StoreTable:
    """What a script writes.

    Attributes:
      keys, first: its keys, and the arguments before those of the rows.
      arguments: of one row.
      rows: the rows of one element.
      split: how it is written in a cluster; None: as elsewhere, as all of its keys are shared.
      of_row: keys that the script makes of a row's arguments, which a cluster has to be told.
    """

    script: str
    keys: tuple[str, ...]
    first: tuple[Any, ...]
    arguments: Callable[[Any], tuple[Any, ...]]
    rows: Callable[[Any], Iterable[Any]] = lambda element: (element,)
    split: Split | None = None
    of_row: Callable[[tuple[Any, ...]], tuple[str, ...]] = lambda _: ()


class WriteRowsFn(RedisFn):
    """Writes rows, many in one go. One with a value that not every store takes is no row but a dead letter."""

    def __init__(self, url: StoreUrl | str, table: Callable[[Keys], StoreTable], job: str = "", prefix: str = PREFIX):
        super().__init__(url, prefix)
        self._make_table, self._job = table, job

    def setup(self) -> None:
        super().setup()
        self._table = self._make_table(self._keys)

    def start_bundle(self) -> None:
        self._bytes = 0
        self._rows: list[tuple[Any, ...]] = []

    def process(self, element: Any) -> Iterable[BadRecord]:
        refused = []
        for row in self._table.rows(element):
            arguments = self._table.arguments(row)
            sizes = [_size(argument) for argument in arguments]
            if max(sizes) > _MOST_BYTES:
                refused.append(self._too_large(arguments, max(sizes)))
                continue
            self._rows.append(arguments)
            self._bytes += sum(sizes)
            if len(self._rows) >= _BATCH or self._bytes >= _BATCH_BYTES:
                self._flush()
        return refused

    def _too_large(self, arguments: tuple[Any, ...], size: int) -> BadRecord:
        payload = msgspec.json.encode([a.decode() if isinstance(a, bytes) else a for a in arguments])
        return BadRecord(
            payload=payload,
            job=self._job,
            stage="redis",
            error_class="TooLarge",
            error_message=f"a value of {size:,} bytes; {_MOST_BYTES:,} are what every store takes",
            topic=str(self._address),
            partition=0,
            offset=int.from_bytes(hashlib.sha256(payload).digest()[:7]),
            timestamp=0,
            key=None,
            headers=[],
            schema_id=None,
            attempts=1,
            seen_at=time.time_ns() // 1_000_000,
        )

    def finish_bundle(self) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._write(self._table, self._rows)
            self.start_bundle()

    def _write(self, table: StoreTable, rows: list[tuple[Any, ...]]) -> None:
        client, keys = self._client, table.keys
        if isinstance(client, Cluster):
            if (split := table.split) is not None:
                self._ask(lambda: run_split(client, self._keys, split, rows))
                return
            keys = (*keys, *dict.fromkeys(key for row in rows for key in table.of_row(row)))
        self._run(table.script, keys, (*table.first, *chain.from_iterable(rows)))


def _size(argument: Any) -> int:
    """In bytes; numbers are short."""
    if isinstance(argument, str):
        return len(argument) if argument.isascii() else len(argument.encode())
    return len(argument) if isinstance(argument, bytes) else 0


def write_rows(rows: beam.PCollection[Any], fn: beam.DoFn) -> beam.PCollection[BadRecord]:
    """Of stage `redis`: rows that are too large for the store."""
    refused = rows | "Store" >> beam.ParDo(fn)
    refused.element_type = BadRecord
    return refused


class WriteAlertsToRedis(beam.PTransform):
    """Stores alerts for the API, and the users' features that come of them."""

    def __init__(self, url: StoreUrl | str, job: str, currency: str = currencies.DEFAULT, prefix: str = PREFIX):
        super().__init__()
        self._fn = WriteRowsFn(url, partial(_alerts, currency), job, prefix)

    def expand(self, alerts: beam.PCollection[FraudAlert]) -> beam.PCollection[BadRecord]:
        return write_rows(alerts, self._fn)


def _alerts(currency: str, keys: Keys) -> StoreTable:
    recent, family, logged = features.ALERTS_RECENT, features.ALERT_FAMILY, features.ALERTS_LOGGED

    def first(part: str) -> tuple[Any, ...]:
        return *_users(currency, keys, part), features.ALERTS_PER_USER, recent, family, logged

    def of_all(rows: Sequence[tuple[Any, ...]]) -> OfAll:
        names = (keys.recent_alerts, keys.alert_versions, keys.alert_log, keys.freshness)
        arguments = (features.USER_TTL_S, recent, logged, family, *chain.from_iterable(rows))
        return OfAll(redis_cluster.ALL_ALERTS, names, arguments)

    return StoreTable(
        redis_scripts.ALERTS,
        (keys.recent_alerts, keys.freshness, keys.alert_log),
        first(keys.shared),
        lambda alert: (alert.user_id, alert.alert_id, alert.event_time, features.alert_json(alert)),
        split=Split(redis_scripts.ALERTS_OF_PART, first, keys.of_user, of_all=of_all),
    )


class WriteSessionsToRedis(beam.PTransform):
    """Stores sessions for the API, and the users' features that come of them.

    Input: UserSession, early, final, corrected and retracted ones, in any order; a version below 2^53 stands for one
    content.
    """

    def __init__(self, url: StoreUrl | str, job: str, currency: str = currencies.DEFAULT, prefix: str = PREFIX):
        super().__init__()
        self._fn = WriteRowsFn(url, partial(_sessions, currency), job, prefix)

    def expand(self, sessions: beam.PCollection[UserSession]) -> beam.PCollection[BadRecord]:
        return write_rows(sessions, self._fn)


def _sessions(currency: str, keys: Keys) -> StoreTable:
    recent, family = features.SESSIONS_RECENT, features.SESSION_FAMILY

    def first(part: str) -> tuple[Any, ...]:
        return *_users(currency, keys, part), features.SESSIONS_PER_USER, recent, family

    def of_all(rows: Sequence[tuple[Any, ...]]) -> OfAll:
        names = (keys.recent_sessions, keys.open_sessions, keys.session_versions, keys.freshness)
        arguments = (features.USER_TTL_S, recent, family, *chain.from_iterable(rows))
        return OfAll(redis_cluster.ALL_SESSIONS, names, arguments)

    return StoreTable(
        redis_scripts.SESSIONS,
        (keys.recent_sessions, keys.open_sessions, keys.freshness),
        first(keys.shared),
        partial(_session_arguments, currency),
        split=Split(redis_scripts.SESSIONS_OF_PART, first, keys.of_user, of_all=of_all),
    )


def _session_arguments(currency: str, session: UserSession) -> tuple[Any, ...]:
    return (
        session.user_id,
        session.session_id,
        session.session_start,
        0 if session.deleted else session.session_end,
        features.session_version(session),
        int(session.pane == "EARLY" and not session.deleted),
        features.session_json(session, currency),
    )


class WriteOrderFeaturesToRedis(beam.PTransform):
    """Sums up each user's orders of the hour and the day before the newest, for the user's features.

    Input: KV[shard, rows] of `transforms.revenue`: as msgpack, each beginning with user_id, order_id, event time in ms,
    amount in minor units, region.
    """

    def __init__(self, url: StoreUrl | str, job: str, currency: str = currencies.DEFAULT, prefix: str = PREFIX):
        super().__init__()
        self._fn = WriteRowsFn(url, partial(_orders, currency), job, prefix)

    def expand(self, orders: beam.PCollection[tuple[int, bytes]]) -> beam.PCollection[BadRecord]:
        return write_rows(orders, self._fn)


def _orders(currency: str, keys: Keys) -> StoreTable:
    family = features.ORDER_FAMILY

    def first(part: str) -> tuple[Any, ...]:
        spans = features.HOUR_MS, features.DAY_MS
        return *_users(currency, keys, part), features.ORDERS_PER_USER, *spans, family

    return StoreTable(
        redis_scripts.ORDERS,
        (keys.freshness,),
        first(keys.shared),
        _order_arguments,
        lambda keyed: msgspec.msgpack.decode(keyed[1]),
        split=Split(redis_scripts.ORDERS_OF_PART, first, keys.of_user, of_all=partial(freshness, keys, family, 2)),
    )


def freshness(keys: Keys, family: str, place: int, rows: Sequence[tuple[Any, ...]]) -> OfAll:
    """Of a family, by the event times at a place in the rows' arguments."""
    newest = max(row[place] for row in rows)
    return OfAll(redis_cluster.ALL_FRESHNESS, [keys.freshness], (features.USER_TTL_S, family, newest))


def _order_arguments(order: list[Any]) -> tuple[Any, ...]:
    user_id, order_id, event_time, amount_minor, region, *_ = order
    currency = (*order, currencies.DEFAULT)[7]  # a release that knew none had no eighth
    return user_id, order_id, event_time, amount_minor, currency, features.kept_region(region)


class WriteRevenueToRedis(beam.PTransform):
    """Stores revenue by the minute for the API.

    Input: RevenueWindow, early, final and corrected ones, in any order; a version below 2^53 stands for one content.
    """

    def __init__(self, url: StoreUrl | str, job: str, currency: str = "", prefix: str = PREFIX):  # noqa: ARG002 - rows name theirs
        super().__init__()
        self._fn = _WriteRevenueFn(url, _revenue, job, prefix)

    def expand(self, revenue: beam.PCollection[RevenueWindow]) -> beam.PCollection[BadRecord]:
        return write_rows(revenue, self._fn)


def _revenue(keys: Keys) -> StoreTable:
    return StoreTable(
        redis_scripts.REVENUE,
        (keys.currencies, keys.freshness),
        (
            features.REVENUE_TTL_S,
            features.REVENUE_MINUTES,
            keys.minute,
            keys.minutes,
            features.REVENUE_FAMILY,
            features.USER_TTL_S,
        ),
        lambda row: (
            row.currency,
            row.window_start,
            features.revenue_field(row),
            row.version,
            features.revenue_value(row),
        ),
        of_row=lambda row: (keys.revenue_minute(row[0], row[1]), keys.revenue_minutes(row[0])),
    )


class _WriteRevenueFn(WriteRowsFn):
    """Takes over, before it writes, the minutes of a release that knew no currencies."""

    def setup(self) -> None:
        super().setup()
        keys = self._keys
        names = [keys.minutes_without_currency, keys.currencies]
        self._run(redis_scripts.ADOPT, names, [keys.minute, keys.minutes, currencies.DEFAULT])


class WriteLedgerToRedis(beam.PTransform):
    """Shows a running job's ledger; `run_ms` is when the job was started."""

    def __init__(self, url: StoreUrl | str, job: str, run_ms: int, prefix: str = PREFIX):
        super().__init__()
        self._fn = _WriteLedgerFn(url, job, run_ms, prefix)

    def expand(self, counts: beam.PCollection[Counts]) -> beam.PCollection[None]:
        return counts | "Store" >> beam.ParDo(self._fn)


class _WriteLedgerFn(RedisFn):
    def __init__(self, url: StoreUrl | str, job: str, run_ms: int, prefix: str = PREFIX):
        super().__init__(url, prefix)
        self._job, self._run_ms = job, run_ms

    def process(self, counts: Counts) -> Iterable[None]:
        fields = {**counts.as_dict(), "updated_ms": time.time_ns() // 1_000_000}
        total = fields.pop("in")
        rest = [part for pair in fields.items() for part in pair]
        keys = [self._keys.ledger(self._job)]
        self._run(redis_scripts.LEDGER, keys, [features.LEDGER_TTL_S, self._run_ms, total, *rest])
        return ()
