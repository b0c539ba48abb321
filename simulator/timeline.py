"""The queue of future events, and the ids of past ones."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

from simulator.config import Config, Event

__all__ = ["Timeline"]


class Timeline:
    """A queue of things to happen, each giving an event; beside it the shop's randomness and its ids.

    Attributes:
      random: the only source of chance in the shop.
      start_ms: the time of the first event.
    """

    def __init__(self, config: Config):
        self.random = random.Random(f"{config.seed}/shop")
        self.start_ms = config.start_ms
        self._run = config.run
        self._due: list[tuple[int, int, Callable[[int], Event]]] = []
        self._sequence = 0
        self._numbers = {"c": 0, "s": 0, "o": 0, "i": 0, "fraud": 0, "late": 0}

    @property
    def waiting(self) -> int:
        return len(self._due)

    def at(self, when: int, happen: Callable[[int], Event]) -> None:
        """Lets something happen at a time not before the current one."""
        self._sequence += 1
        heapq.heappush(self._due, (when, self._sequence, happen))

    def happen(self, now: int) -> Event | None:
        """The event that has been due longest; None: nothing is."""
        if self._due and self._due[0][0] <= now:
            when, _, happen = heapq.heappop(self._due)
            return happen(when)
        return None

    def identifier(self, kind: str) -> str:
        """A new id. Zero-padded: ids of a kind sort as they were made."""
        number = self._numbers[kind] = self._numbers[kind] + 1
        return f"{kind}-{self._run}-{number:09d}"
