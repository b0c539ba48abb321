"""Keeps connections between bundles for the next bundle of the same reader, in one worker process.

A new consumer costs a connection and everything it had prefetched, so the next bundle should reuse the old one. But a
runner may give that bundle to another process, or never: an unused connection is closed after a while.
"""

from __future__ import annotations

import threading
import time
from typing import Generic, Protocol, TypeVar

__all__ = ["Waiting"]

_KEPT_S = 60.0  # longer than any pause between two bundles, but for one in which a sink is away


class _Connection(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=_Connection)


class Waiting(Generic[C]):
    """At most one connection for each reader, for at most `kept_s`."""

    def __init__(self, kept_s: float = _KEPT_S):
        self._kept_s = kept_s
        self._lock = threading.Lock()
        self._since: dict[int, tuple[C, float]] = {}
        self._sweeping = False

    def take(self, reader: int) -> C | None:
        """The connection that waits for this reader; it is the caller's now."""
        with self._lock:
            found = self._since.pop(reader, None)
        return found and found[0]

    def put(self, reader: int, connection: C) -> None:
        with self._lock:
            before = self._since.pop(reader, None)
            self._since[reader] = connection, time.monotonic()
            if not self._sweeping:
                self._sweeping = True
                threading.Thread(target=self._sweep, name="kafka-waiting", daemon=True).start()
        if before:
            before[0].close()

    def _sweep(self) -> None:
        """Closes what nobody took up; ends when nothing waits."""
        while True:
            with self._lock:
                now = time.monotonic()
                old = [reader for reader, (_, since) in self._since.items() if now - since >= self._kept_s]
                left = [self._since.pop(reader)[0] for reader in old]
                if not self._since:
                    self._sweeping = False
                    next_s = None
                else:
                    next_s = min(since for _, since in self._since.values()) + self._kept_s - now
            for connection in left:
                connection.close()
            if next_s is None:
                return
            time.sleep(next_s)
