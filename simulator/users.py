"""The shop's ordinary users."""

from __future__ import annotations

import random
from typing import Final

from simulator.catalogue import DEVICES, REGIONS

__all__ = ["ORDER_GAP_MS", "User", "Users"]

# Ordinary users never look fraudulent by the number or places of their orders: these are further apart than any rule
# about CREATED orders looks back.
ORDER_GAP_MS: Final = 11 * 60_000


class User:
    """A user, who lives in one region and prefers one device."""

    __slots__ = ("device", "has_ordered", "is_here", "last_order_ms", "region", "user_id")

    def __init__(self, user_id: str, rng: random.Random):
        self.user_id = user_id
        self.region = REGIONS.choose(rng)
        self.device = DEVICES.choose(rng)
        self.has_ordered = rng.random() < 0.8
        self.last_order_ms = -ORDER_GAP_MS
        self.is_here = False

    def may_order(self, when: int) -> bool:
        return when - self.last_order_ms >= ORDER_GAP_MS


class Users:
    """So many users, made up when they first come."""

    def __init__(self, count: int, rng: random.Random):
        self._count = count
        self._rng = rng
        self._known: dict[int, User] = {}

    def some(self) -> User:
        """Any user; a few come much more often than most."""
        number = int(self._count * self._rng.random() ** 1.2)
        user = self._known.get(number)
        if user is None:
            user = self._known[number] = User(f"user-{number + 1:06d}", self._rng)
        return user

    def visitor(self) -> User:
        """A user who comes to the site now; where there are too few users, one who is there already."""
        user = self.some()
        for _ in range(3):
            if not user.is_here:
                break
            user = self.some()
        user.is_here = True
        return user
