"""Connections to the online store, the same for jobs and API: they raise `redis.RedisError` and nothing else."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.retry import Retry

from connections.store import store_options
from schemas.addresses import StoreUrl

__all__ = ["StoreConnection", "TlsStoreConnection", "connections"]


class _Strict:
    """redis-py trips over a reply that no Redis gives: AttributeError, TypeError, …"""

    def on_connect_check_health(self, check_health: bool = True) -> None:
        try:
            super().on_connect_check_health(check_health)  # type: ignore[misc]
        except Exception as e:
            raise _as_store_error(e) from e

    def read_response(self, *args: Any, **more: Any) -> Any:
        try:
            return super().read_response(*args, **more)  # type: ignore[misc]
        except Exception as e:
            raise _as_store_error(e) from e


def _as_store_error(error: Exception) -> redis.RedisError:
    if isinstance(error, redis.RedisError):
        return error
    return redis.InvalidResponse(f"what answers is not Redis: {type(error).__name__}")


class StoreConnection(_Strict, Connection):
    pass


class TlsStoreConnection(_Strict, SSLConnection):
    pass


def connections(url: StoreUrl, **more: Any) -> redis.ConnectionPool:
    """A pool. A connection that broke while idle is replaced at once, once; a time-out is not repeated.

    Args:
      more: settings by redis-py's names; what the URL or its file says wins.

    Raises: SettingsError.
    """
    return redis.ConnectionPool(
        connection_class=TlsStoreConnection if url.tls else StoreConnection,
        **{**more, **store_options(url)},
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )
