"""How many events each caller may send. Counted in this process: an answer waits for no store, and needs none."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["Budget"]

_MOST_CALLERS = 10_000


class Budget:
    """
    Args:
      events, seconds: so many in so long; they may come at once. A batch is taken as a whole, however large, and what
        it has beyond the budget is waited for before the next one.
    """

    def __init__(self, events: int, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._per_s, self._most, self._clock = events / seconds, float(events), clock
        self._lock = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # caller → events, as of when

    def spend(self, caller: str, events: int) -> float:
        """0, or the seconds to wait; then nothing is spent."""
        with self._lock:
            now = self._clock()
            left, since = self._left.pop(caller, (self._most, now))
            left = min(self._most, left + (now - since) * self._per_s)
            wait_s = 0.0 if left >= 1 else (1 - left) / self._per_s
            self._left[caller] = (left if wait_s else left - events), now
            if len(self._left) > _MOST_CALLERS:
                self._left.popitem(last=False)
            return wait_s
