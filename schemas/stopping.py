"""What a signal asks of a process that runs until it is stopped."""

from __future__ import annotations

import contextlib
import queue

__all__ = ["Stop"]


class Stop:
    """A `threading.Event` that a signal handler may set while the thread that it interrupts waits for it.

    An Event's lock is held by the waiting thread for a moment in each `wait`; a handler that comes just then waits for
    it in the same thread, for ever. A SimpleQueue may be put to in the middle of its own methods.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        self._is_set = True
        self._asked.put(None)

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout_s: float | None = None) -> None:
        """Until it is set, or the time is over. For one thread."""
        if not self._is_set:
            with contextlib.suppress(queue.Empty):
                self._asked.get(timeout=timeout_s)
