"""One server of the online store: commands are sent together, and their answers returned in order.

The lower half of redis-py (connect, log in, TLS, send, parse) without the upper, whose pool, retries, callbacks and
telemetry cost as much as the round trip itself (docs/adr/0015-serving-speed.md).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, cast

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.retry import Retry

from connections.store_connection import StoreConnection, TlsStoreConnection

__all__ = ["Command", "Node"]

Command = tuple[str | int | bytes, ...]


class _Connection(StoreConnection):
    """Its time-out is the kernel's. Python's own polls before each call, which gives the interpreter's lock away twice
    as often; with several threads that costs as much again as the call."""

    def _connect(self) -> socket.socket:
        connected: socket.socket = super()._connect()
        connected.settimeout(None)
        wait = struct.pack("ll", *divmod(max(1, int(cast(float, self.socket_timeout) * 1e6)), 1_000_000))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connected.setsockopt(socket.SOL_SOCKET, option, wait)
        return connected


class Node:
    """As many connections as threads ask at the same time; those not in use are kept.

    Args:
      tls: whether they are encrypted.
      settings: of a connection, by redis-py's names.
      count_open: called with 1 when one is opened, with -1 when one breaks.
    """

    def __init__(self, tls: bool, settings: dict[str, Any], count_open: Callable[[int], None] | None = None):
        self._kind: type[Connection] = TlsStoreConnection if tls else _Connection
        self._settings = settings | {
            "retry": Retry(NoBackoff(), 0),
            "protocol": 3,
            "driver_info": None,  # or two more answers to wait for at each connect
        }
        self._count_open = count_open or (lambda _: None)
        self._idle: list[Connection] = []  # append and pop are atomic; the last used is the next

    @property
    def host(self) -> str:
        return str(self._settings["host"])

    def ask(self, *commands: Command, one_view: bool = False) -> list[Any]:
        """The answers, in order; one round trip.

        Args:
          one_view: nothing is written between the commands.

        A broken connection, which was idle when the server restarted, is replaced once, at once. A time-out is not
        repeated: the wait would double.

        Raises:
          redis.RedisError: no answer, or one of them is an error.
        """
        if one_view:
            return _exec(self.ask(("MULTI",), *commands, ("EXEC",)))
        connection = self.take()
        try:
            try:
                self.write(connection, commands)
                return self.read(connection, len(commands))
            except redis.ConnectionError:
                self.write(connection, commands)
                return self.read(connection, len(commands))
        finally:
            self.give(connection)

    def take(self) -> Connection:
        """For `write`, `read` and in the end `give`; each of them raises as `ask` does."""
        try:
            return self._idle.pop()
        except IndexError:
            return self._kind(**self._settings)

    def give(self, connection: Connection) -> None:
        self._idle.append(connection)

    def write(self, connection: Connection, commands: Iterable[Command]) -> None:
        packed = [b"".join([hiredis.pack_command(command) for command in commands])]  # type: ignore[arg-type]
        was_open = connection.is_connected
        try:
            connection.send_packed_command(packed, check_health=False)  # type: ignore[no-untyped-call]
        except BaseException as e:
            self._break(connection, was_open, e)
            raise
        if not was_open:
            self._count_open(1)

    def read(self, connection: Connection, answers: int) -> list[Any]:
        try:
            return [connection.read_response() for _ in range(answers)]
        except BaseException as e:
            self._break(connection, was_open=True, why=e)
            raise

    def drop(self, connection: Connection) -> None:
        """Of which answers were not read: they would be taken for those to the next commands."""
        if connection.is_connected:
            self._break(connection, was_open=True)

    def _break(self, connection: Connection, was_open: bool, why: BaseException | None = None) -> None:
        connection.disconnect()  # type: ignore[no-untyped-call]
        if was_open:
            self._count_open(-1)
        if isinstance(why, redis.ConnectionError) and isinstance(why.__context__, BlockingIOError):
            raise redis.TimeoutError("no answer in time") from why  # what the kernel's time-out looks like

    def close(self) -> None:
        with suppress(IndexError):  # another thread may take the last one
            while True:
                self.drop(self._idle.pop())


def _exec(answers: list[Any]) -> list[Any]:
    """Of a transaction; an error in it does not make it fail as a whole."""
    for answer in answers[-1]:
        if isinstance(answer, redis.RedisError):
            raise answer
    return cast("list[Any]", answers[-1])
