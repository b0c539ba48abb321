"""The online store: versioned writes to Redis or Valkey, in the layout of `schemas.features`."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import redis
from redis.exceptions import BusyLoadingError, ReadOnlyError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from schemas import features
from schemas.events import FraudAlert
from transforms.ledger import Counts

__all__ = ["WriteAlertsToRedis", "WriteLedgerToRedis"]

_LOG = logging.getLogger(__name__)
_BATCH = 500
_GIVE_UP_S = 120
_UNREACHABLE = (BusyLoadingError, ReadOnlyError, RedisConnectionError, RedisTimeoutError)

# An alert is written when its id is new or its version is newer than the stored one: repeats change nothing.
# KEYS: recent, freshness. ARGV: ttl, per user, recent, family, then per alert: user key, ids key, id, version, JSON.
# The user's keys are arguments and not KEYS, as a batch has hundreds: not for Redis Cluster, where they would need
# one hash slot.
_ALERTS = """
local ttl, per_user, recent, family = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local newest = tonumber(redis.call('HGET', KEYS[2], family) or '0')
local written = 0
for i = 5, #ARGV, 5 do
  local user, ids, id, version, json = ARGV[i], ARGV[i+1], ARGV[i+2], tonumber(ARGV[i+3]), ARGV[i+4]
  local stored = redis.call('HGET', ids, id)
  if not stored or tonumber(stored) < version then
    if stored then
      for _, old in ipairs(redis.call('ZRANGEBYSCORE', user, stored, stored)) do
        if cjson.decode(old).alert_id == id then
          redis.call('ZREM', user, old)
          redis.call('ZREM', KEYS[1], old)
        end
      end
    end
    redis.call('HSET', ids, id, ARGV[i+3])
    redis.call('ZADD', user, version, json)
    redis.call('ZADD', KEYS[1], version, json)
    if redis.call('ZCARD', user) > per_user then
      redis.call('HDEL', ids, cjson.decode(redis.call('ZPOPMIN', user)[1]).alert_id)
    end
    redis.call('EXPIRE', user, ttl)
    redis.call('EXPIRE', ids, ttl)
    written = written + 1
  end
  if version > newest then newest = version end
end
local over = redis.call('ZCARD', KEYS[1]) - recent
if over > 0 then redis.call('ZREMRANGEBYRANK', KEYS[1], 0, over - 1) end
redis.call('EXPIRE', KEYS[1], ttl)
redis.call('HSET', KEYS[2], family, string.format('%.0f', newest))
redis.call('EXPIRE', KEYS[2], ttl)
return written
"""

# A ledger replaces an older one: of an earlier run, or of this run with fewer records in.
_LEDGER = """
local run, total = unpack(redis.call('HMGET', KEYS[1], 'run_ms', 'in'))
if run and (tonumber(run) > tonumber(ARGV[2]) or (run == ARGV[2] and tonumber(total) > tonumber(ARGV[3]))) then
  return 0
end
redis.call('HSET', KEYS[1], 'run_ms', ARGV[2], 'in', ARGV[3], unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
"""


class _RedisFn(beam.DoFn):
    """A connection, opened in the worker, and retries: an unreachable store stops the reading, it loses nothing."""

    def __init__(self, url: str):
        self._url = url

    def setup(self) -> None:
        self._client = redis.Redis.from_url(self._url, socket_timeout=10, socket_connect_timeout=5)

    def teardown(self) -> None:
        self._client.close()

    def _run(self, script: str, keys: list[str], args: list[Any]) -> Any:
        """Runs a script, with back-off while the store cannot be reached; gives up after two minutes, so that the
        runner restarts the job from its checkpoint."""
        give_up, wait_s = time.monotonic() + _GIVE_UP_S, 0.1
        while True:
            try:
                return self._client.eval(script, len(keys), *keys, *args)
            except _UNREACHABLE as e:
                if time.monotonic() > give_up:
                    raise
                _LOG.warning("%s cannot be written to, trying again in %.1f s: %s", self._url, wait_s, e)
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, 5.0)


class WriteAlertsToRedis(beam.PTransform):
    """Stores alerts for the API. Idempotent: any repeat, in any order, leaves the same contents."""

    def __init__(self, url: str):
        super().__init__()
        self._url = url

    def expand(self, alerts: beam.PCollection[FraudAlert]) -> beam.PCollection[None]:
        return alerts | "Store" >> beam.ParDo(_WriteAlertsFn(self._url))


class _WriteAlertsFn(_RedisFn):
    def start_bundle(self) -> None:
        self._batch: list[FraudAlert] = []

    def process(self, alert: FraudAlert) -> Iterable[None]:
        self._batch.append(alert)
        if len(self._batch) >= _BATCH:
            self._flush()
        return ()

    def finish_bundle(self) -> None:
        self._flush()

    def _flush(self) -> None:
        if not self._batch:
            return
        args: list[Any] = [
            features.ALERT_TTL_S,
            features.ALERTS_PER_USER,
            features.ALERTS_RECENT,
            features.ALERT_FAMILY,
        ]
        for alert in self._batch:
            user, ids = features.user_alerts_key(alert.user_id), features.user_alert_ids_key(alert.user_id)
            args += [user, ids, alert.alert_id, alert.event_time, features.alert_json(alert)]
        self._run(_ALERTS, [features.RECENT_ALERTS_KEY, features.FRESHNESS_KEY], args)
        self._batch = []


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
        self._run(_LEDGER, [features.ledger_key(self._job)], [features.LEDGER_TTL_S, self._run_ms, total, *rest])
        return ()
