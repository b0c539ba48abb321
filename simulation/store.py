"""The online store: a real Valkey with the real scripts, behind a client that fails before a write, or after it."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import redis

from stack.valkey import server

__all__ = ["FaultyStore", "valkey"]

_START_S = 30


@contextlib.contextmanager
def valkey() -> Iterator[str]:
    """A Valkey of our own on a socket; its path."""
    with tempfile.TemporaryDirectory(prefix="simulation-") as folder:
        socket = Path(folder, "socket")
        options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no", "--dir", folder]
        process = subprocess.Popen([server(), *options], stdout=subprocess.DEVNULL)
        try:
            until = time.monotonic() + _START_S
            while not socket.exists():
                if time.monotonic() > until or process.poll() is not None:
                    raise RuntimeError("Valkey does not start")
                time.sleep(0.01)
            yield str(socket)
        finally:
            process.terminate()
            process.wait()


class FaultyStore:
    """Takes the place of the module `redis` in `transforms.io.redis`.

    Attributes:
      db: the same server, without faults, for whoever looks what is there.
      before, after: how many of the next writes fail so: the store is away, or dies when it has written.
      effect: is called around each write.
      written: is called after each.
    """

    RedisError, ConnectionError, TimeoutError = redis.RedisError, redis.ConnectionError, redis.TimeoutError
    ResponseError, AuthenticationError = redis.ResponseError, redis.AuthenticationError
    InvalidResponse = redis.InvalidResponse

    def __init__(self, socket: str, effect: Callable[[str], None], seen: Callable[[str], None]):
        self.db = redis.Redis(unix_socket_path=socket)
        self.before = self.after = 0
        self._effect, self._seen = effect, seen
        self.written: Callable[[], None] = lambda: None
        self.Redis = SimpleNamespace(from_pool=lambda _pool: self)

    def eval(self, script: str, keys: int, *arguments: Any) -> Any:
        self._effect("store")
        if self.before:
            self.before -= 1
            self._seen("the store failed before a write")
            raise redis.ConnectionError("Connection refused")
        answer = self.db.eval(script, keys, *arguments)
        self.written()
        if self.after:
            self.after -= 1
            self._seen("the store failed after a write")
            raise redis.ConnectionError("Connection closed by server.")
        self._effect("stored")
        return answer

    def close(self) -> None:
        """Of the product's connections; `db` stays."""
