"""The shop: users browse, buy, and their orders and stock move on, all in event time.

Pure: the events follow from the config alone. Whatever is going to happen waits in one queue ordered by time; each tick
takes what is due, and when nothing is due a new visit begins. So the rate is exact, event times never go back, and the
number of visits under way finds its own balance.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from functools import partial
from typing import Final

from schemas.events import ClickstreamEvent, OrderEvent, OrderItem
from simulator.catalogue import PRODUCTS
from simulator.config import CLICKS, INVENTORY, ORDERS, Config, Event
from simulator.fraud import Patterns
from simulator.orders import Orders
from simulator.prices import Prices
from simulator.stock import Stock
from simulator.ticks import Ticks
from simulator.timeline import Timeline
from simulator.users import User, Users
from simulator.visit import Visit, random_click

__all__ = ["Shop", "events"]

# Hardly a visit is longer; so long after the start it does not matter any more that the shop was open before.
_WARM_UP_MS: Final = 20 * 60_000
_LEAVES: Final = 0.12  # a visit's chance to end at a click, roughly


def events(config: Config) -> Iterator[Event]:
    """The shop's traffic in the order of event time: ordinary users and planted fraud, every record valid.

    Poison, late records, duplicates and a shuffled arrival order are added by `simulator.arrival.arrivals`, not here.
    Ends after `config.events` or `config.duration_ms`; endless when both are None.

        config = Config(seed=7, start_ms=1_767_225_600_000, rate=50, events=10_000, topics=("clickstream.events",))
        clicks = [event.record for event in events(config)]

    Users of planted fraud are called `fraud-…`; what the fraud rules say about their orders stands in `event.truth`.
    """
    yield from Shop(config).traffic(Ticks(config))


class Shop:
    """One shop, from opening; see `events`."""

    def __init__(self, config: Config):
        self._timeline = Timeline(config)
        self._start_ms = config.start_ms
        self._has_clicks = CLICKS in config.topics
        self._has_orders = ORDERS in config.topics
        self._stock = Stock(self._timeline) if INVENTORY in config.topics else None
        self.users = Users(config.users, self._timeline.random)
        self._orders = Orders(self._timeline, self.users, self._stock, Prices(config.currencies))
        self._patterns: Patterns | None = None
        if config.fraud_share and self._has_orders:
            self._patterns = Patterns(config.fraud_share, random.Random(f"{config.seed}/fraud"))
        self.identifier = self._timeline.identifier

    def traffic(self, ticks: Ticks) -> Iterator[Event]:
        timeline, patterns = self._timeline, self._patterns
        while (now := ticks.next()) is not None:
            event = timeline.happen(now) or self._begin(now)
            if patterns and event.topic == ORDERS and not event.key.startswith("fraud"):
                pattern = patterns.after_order()
                if pattern:
                    self._orders.plant(pattern, event.timestamp_ms)
            yield event

    def random_record(self, topic: str, when: int, user_id: str, region: str) -> OrderEvent | ClickstreamEvent:
        """A valid order or click that belongs to nothing else."""
        if topic == ORDERS:
            return self._orders.random(when, user_id, region)
        return random_click(self._timeline, when, user_id, region)

    def _begin(self, now: int) -> Event:
        if self._has_clicks:
            return self._begin_visit(now)
        rng = self._timeline.random
        line = PRODUCTS.choose(rng).line(1 + int(rng.random() ** 4 * 4))
        if not self._has_orders:
            assert self._stock
            return self._stock.sell(self.identifier("o"), line, now)
        for _ in range(8):
            user = self.users.some()
            if user.may_order(now):
                user.last_order_ms = now
                return self._orders.create(user, [line], self.identifier("s"), now)
        # Too few users for this rate: rather orders from before than users who seem to be fraudulent.
        return self._orders.earlier("SHIPPED", now)

    def _begin_visit(self, now: int) -> Event:
        visit = self._visit_under_way(now) if now - self._start_ms < _WARM_UP_MS else None
        return (visit or Visit(self._timeline, self.users.visitor(), self._checkout))(now)

    def _visit_under_way(self, now: int) -> Visit | None:
        """A visit that began before the start, so that the first minute already has purchases; else None.

        Any click of a long stream is the n-th of its visit with geometric odds: n clicks are made and thrown away, and
        when they took longer than the time since the start, the visit goes on from there.
        """
        user = self.users.visitor()
        visit = Visit(self._timeline, user, self._checkout)
        then = now
        for _ in range(int(math.log(1.0 - self._timeline.random.random()) / math.log(1 - _LEAVES))):
            if visit.next == "PURCHASE":
                break
            visit.click(then)
            after = visit.plan(then)
            if after is None:
                return None
            then = after
        if then - now > now - self._start_ms:
            return visit
        user.is_here = False
        return None

    def _checkout(self, user: User, lines: list[OrderItem], session_id: str, when: int) -> None:
        if self._has_orders:
            self._timeline.at(when, partial(self._orders.create, user, lines, session_id))
        elif self._stock:
            self._stock.sold(self.identifier("o"), lines, when)
