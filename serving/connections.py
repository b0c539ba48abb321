"""Connections to Redis: commands are sent together, and their answers returned in order.

The lower half of redis-py (connect, log in, TLS, send, parse) without the upper, whose pool, retries, callbacks and
telemetry cost as much as the round trip itself (docs/adr/0015-serving-speed.md).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any, cast

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.retry import Retry

from connections.store import store_options
from connections.store_connection import StoreConnection, TlsStoreConnection
from schemas.store_errors import about, distrusted, words_of
from schemas.store_keys import Keys
from serving.config import Config, ConfigError

__all__ = ["Command", "Connections", "check_store", "store_settings"]

Command = tuple[str | int | bytes, ...]


class _Connection(StoreConnection):
    """Its time-out is the kernel's. Python's own polls before each call, which gives the interpreter's lock away twice
    as often; with several threads that costs as much again as the call."""

    def _connect(self) -> socket.socket:
        connected: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
        connected.settimeout(None)
        wait = struct.pack("ll", *divmod(max(1, int(cast(float, self.socket_timeout) * 1e6)), 1_000_000))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connected.setsockopt(socket.SOL_SOCKET, option, wait)
        return connected


def store_settings(config: Config) -> dict[str, Any]:
    """Of a connection, by redis-py's names; the URL's own options win."""
    waits = {"socket_connect_timeout": config.redis_timeout_s, "socket_timeout": config.redis_timeout_s}
    return waits | store_options(config.redis_url)


def check_store(config: Config) -> None:
    """Whether the store is one, and lets us read; of one that does not answer, or not now, this says nothing.

    Raises: ConfigError.
    """
    try:
        Connections(config, lambda _: None).ask(("EXISTS", Keys(config.store_prefix).check("api")))
    except redis.ResponseError as e:
        if about(words_of(e)) == "access":
            raise _refused(config, e) from None
    except (redis.AuthenticationError, redis.InvalidResponse) as e:
        raise _refused(config, e) from None
    except redis.RedisError as e:
        if distrusted(e):
            raise _refused(config, e) from None


def _refused(config: Config, error: redis.RedisError) -> ConfigError:
    return ConfigError(f"{config.redis_url} refuses: {config.redis_url.hide(words_of(error))}")


class Connections:
    """As many connections as threads ask at the same time; those not in use are kept.

    Args:
      count_open: called with 1 when one is opened, with -1 when one breaks.
    """

    def __init__(self, config: Config, count_open: Callable[[int], None]):
        self._kind: type[Connection] = TlsStoreConnection if config.redis_url.tls else _Connection
        self._settings = store_settings(config) | {
            "retry": Retry(NoBackoff(), 0),
            "protocol": 3,
            "driver_info": None,  # or two more answers to wait for at each connect
        }
        self._count_open = count_open
        self._idle: list[Connection] = []  # append and pop are atomic; the last used is the next

    def ask(self, *commands: Command, one_view: bool = False) -> list[Any]:
        """The answers, in order; one round trip.

        Args:
          one_view: nothing is written between the commands.

        A broken connection, which was idle when Redis restarted, is replaced once, at once. A time-out is not repeated:
        the wait would double.

        Raises:
          redis.RedisError: no answer, or one of them is an error.
        """
        if one_view:
            return _exec(self.ask(("MULTI",), *commands, ("EXEC",)))
        packed = [b"".join([hiredis.pack_command(command) for command in commands])]  # type: ignore[arg-type]
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._kind(**self._settings)
        try:
            try:
                return self._round_trip(connection, packed, len(commands))
            except redis.ConnectionError:
                return self._round_trip(connection, packed, len(commands))
        finally:
            self._idle.append(connection)

    def _round_trip(self, connection: Connection, packed: list[bytes], answers: int) -> list[Any]:
        was_open = connection.is_connected
        try:
            connection.send_packed_command(packed, check_health=False)  # type: ignore[no-untyped-call]
            found = [connection.read_response() for _ in range(answers)]
        except BaseException as e:
            # Or answers that were not read would be taken for those to the next commands.
            connection.disconnect()  # type: ignore[no-untyped-call]
            if was_open:
                self._count_open(-1)
            if isinstance(e, redis.ConnectionError) and isinstance(e.__context__, BlockingIOError):
                raise redis.TimeoutError("no answer in time") from e  # what the kernel's time-out looks like
            raise
        if not was_open:
            self._count_open(1)
        return found


def _exec(answers: list[Any]) -> list[Any]:
    """Of a transaction; an error in it does not make it fail as a whole."""
    for answer in answers[-1]:
        if isinstance(answer, redis.RedisError):
            raise answer
    return cast("list[Any]", answers[-1])
