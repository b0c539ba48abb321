"""Connections to the online store, the same for jobs and API: they raise `redis.RedisError` and nothing else.

One to a server that sentinels name asks them whenever it is opened, and is closed by the first answer of a server that
is a master no more.
"""

from __future__ import annotations

from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.retry import Retry

from connections.store import store_options
from schemas.addresses import StoreUrl

__all__ = ["StoreConnection", "TlsStoreConnection", "connection_settings", "connections"]

_OF_A_SENTINEL: Final = ("socket_", "ssl_")  # settings that its connections share with the master's


class _Strict:
    """redis-py trips over a reply that no Redis gives: AttributeError, TypeError, …

    Args:
      sentinels: who know the server; None: it is at host and port.
    """

    def __init__(self, sentinels: _Sentinels | None = None, **settings: Any):
        self._sentinels = sentinels
        super().__init__(**settings)

    def _connect(self) -> Any:
        if self._sentinels is not None:
            self.host, self.port = self._sentinels.master()
        return super()._connect()  # type: ignore[misc]

    def on_connect_check_health(self, check_health: bool = True) -> None:
        try:
            super().on_connect_check_health(check_health)  # type: ignore[misc]
        except Exception as e:
            raise _as_store_error(e) from e

    def read_response(self, *args: Any, **more: Any) -> Any:
        try:
            return super().read_response(*args, **more)  # type: ignore[misc]
        except Exception as e:
            # The latter as scripts of Redis before 7 say it.
            if isinstance(e, redis.ReadOnlyError) or "-READONLY " in str(e):
                self.disconnect()  # type: ignore[attr-defined]
                raise redis.ConnectionError(f"READONLY {e}") from e
            raise _as_store_error(e) from e


def _as_store_error(error: Exception) -> redis.RedisError:
    if isinstance(error, redis.RedisError):
        return error
    return redis.InvalidResponse(f"what answers is not Redis: {type(error).__name__}")


class StoreConnection(_Strict, Connection):
    pass


class TlsStoreConnection(_Strict, SSLConnection):
    pass


class _Sentinels:
    """
    Args:
      settings: of connections to them.
    """

    def __init__(self, url: StoreUrl, settings: dict[str, Any]):
        self._kind = TlsStoreConnection if url.tls else StoreConnection
        self._servers, self._service, self._settings = list(url.servers), url.service, settings

    def master(self) -> tuple[str, int]:
        """Raises: redis.RedisError."""
        why: object = "none was asked"
        for server in self._servers:
            try:
                found = self._ask(*server)
            except redis.RedisError as e:
                why = e
                continue
            if found:
                self._servers = [server, *(each for each in self._servers if each != server)]  # the first to be asked
                return found[0].decode(), int(found[1])
            why = "it knows none of that name"
        raise redis.ConnectionError(f"no sentinel names the master of {self._service}: {why}")

    def _ask(self, host: str, port: int) -> Any:
        connection = self._kind(host=host, port=port, **self._settings)
        try:
            connection.connect()  # type: ignore[no-untyped-call]
            connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)  # type: ignore[no-untyped-call]
            return connection.read_response()
        finally:
            connection.disconnect()  # type: ignore[no-untyped-call]


def connection_settings(url: StoreUrl, more: dict[str, Any]) -> dict[str, Any]:
    """Of one connection.

    Args:
      more: by redis-py's names; what the URL or its file says wins.

    Raises: SettingsError.
    """
    settings = {**more, **store_options(url)}
    settings.pop("wait_replicas", None)  # of writes, not of connections
    names = ("username", "password", "credential_provider")
    own = {name: value for name in names if (value := settings.pop(f"sentinel_{name}", None))}
    if url.service:
        own |= {name: value for name, value in settings.items() if name.startswith(_OF_A_SENTINEL)}
        own |= {"retry": Retry(NoBackoff(), 0)}
        settings["sentinels"] = _Sentinels(url, own)
    return settings


def connections(url: StoreUrl, **more: Any) -> redis.ConnectionPool:
    """A pool. A connection that broke while idle is replaced at once, once; a time-out is not repeated.

    Args:
      more: settings by redis-py's names; what the URL or its file says wins.

    Raises: SettingsError.
    """
    return redis.ConnectionPool(
        connection_class=TlsStoreConnection if url.tls else StoreConnection,
        **connection_settings(url, more),
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )
