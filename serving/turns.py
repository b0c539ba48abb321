"""Runs at most a given number of jobs at once; further jobs wait their turn."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

__all__ = ["Turns"]

_LOG = logging.getLogger(__name__)

Job = Callable[[], None]


class Turns:
    """Whoever finishes a job does the next one that waits: no thread has to be woken for it.

    Args:
      number: jobs at once, and threads for those of callers that may not be held up.
    """

    def __init__(self, number: int):
        self._number = number
        self._lock = threading.Lock()
        self._busy = 0
        self._waiting: deque[Job] = deque()
        self._handed: SimpleQueue[Job] = SimpleQueue()
        for _ in range(number):
            threading.Thread(target=self._take, name="requests", daemon=True).start()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def here(self, job: Job) -> None:
        """Does it on the caller's thread, and then what waits; or leaves it to others when all turns are taken."""
        if self._may_begin(job):
            self._work(job)

    def elsewhere(self, job: Job) -> None:
        """Has a thread of these do it; returns at once."""
        if self._may_begin(job):
            self._handed.put(job)

    def _may_begin(self, job: Job) -> bool:
        with self._lock:
            if self._busy == self._number:
                self._waiting.append(job)
                return False
            self._busy += 1
            return True

    def _take(self) -> None:
        while True:
            self._work(self._handed.get())

    def _work(self, job: Job | None) -> None:
        while job:
            try:
                job()
            except Exception:  # noqa: BLE001 - the thread is needed for others
                _LOG.exception("an answer could not be handed back")
            with self._lock:
                job = self._waiting.popleft() if self._waiting else None
                if job is None:
                    self._busy -= 1
