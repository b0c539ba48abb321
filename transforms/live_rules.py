"""The fraud job's steps with rules that change while it runs; see `transforms.domain.rules_in_force`.

They read and write what `transforms.fraud` does, rows and state included: the same orders, with the fields that the
version in force at their time needed. So a savepoint taken with either is restored by the other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Protocol

import apache_beam as beam
import numpy as np
from apache_beam.transforms import userstate
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import TimerSpec
from apache_beam.utils.timestamp import Timestamp

from schemas.events import OrderEvent
from transforms.decode import DecodedBlock
from transforms.domain.fraud_orders import Order, fitted
from transforms.domain.fraud_rules import RuleError, Rules
from transforms.domain.rule_history import RuleHistory
from transforms.domain.rules_in_force import DetectorOverTime, RulesInForce
from transforms.errors import Unavailable
from transforms.fraud import DetectFraud, DetectFraudFn, FraudRows, Row, Users, snapshot
from transforms.keyed_state import LOG, TOKEN, Expiry, Memory, Shard, Shards

__all__ = ["DetectFraudOverTime", "FraudRowsOverTime", "Histories"]

_EXPIRY = TimerSpec("expiry", TimeDomain.WATERMARK)  # the same; a spec belongs to one class


class Histories(Protocol):
    """Where workers learn of the history. Pickled into them."""

    def known(self, until_ms: int) -> RuleHistory:
        """All that takes effect by this event time, or by now if that is earlier; and perhaps more. Waits for it.

        It is the same object while there is nothing new.
        """


class _Followed:
    """What follows from the history, made anew when that changes."""

    def __init__(self, base: Rules, histories: Histories):
        self._base, self._histories = base, histories
        self._history: RuleHistory | None = None

    def moved(self, until_ms: int) -> RulesInForce | None:
        """The rules in force, if they are others than those of the last call."""
        history = self._histories.known(until_ms)
        if history is self._history:
            return None
        try:
            in_force = RulesInForce(self._base, history)
        except RuleError as e:
            raise Unavailable(str(e)) from e
        self._history = history
        return in_force


class FraudRowsOverTime:
    """`FraudRows` of the version in force at each order's own time."""

    def __init__(self, base: Rules, histories: Histories):
        self._base, self._histories = base, histories
        self._followed: _Followed | None = None

    def __call__(self, decoded: DecodedBlock[OrderEvent], shard_count: int) -> dict[int, list[Row]]:
        self._follow(_newest_ms(decoded))
        rows: dict[int, list[Row]] = {}
        if len(self._rows_of) == 1:
            return self._rows_of[0](decoded, shard_count)
        begins = np.array(self._in_force.from_ms[1:])
        for part in decoded.parts:
            periods = np.searchsorted(begins, part.columns.ints["event_time"][part.rows], side="right")
            for period in np.unique(periods).tolist():
                of_period = part._replace(rows=part.rows[periods == period])
                self._rows_of[period].add_columns(of_period, rows, shard_count)
        for order in decoded.records:
            self._rows_of[self._in_force.period(order.event_time)].add_record(order, rows, shard_count)
        return rows

    def _follow(self, until_ms: int) -> None:
        if self._followed is None:  # in the worker
            self._followed = _Followed(self._base, self._histories)
        if (in_force := self._followed.moved(until_ms)) is not None:
            of_each = {id(rules): FraudRows(rules) for rules in in_force.rules}
            self._in_force, self._rows_of = in_force, [of_each[id(rules)] for rules in in_force.rules]


def _newest_ms(decoded: DecodedBlock[OrderEvent]) -> int:
    newest = [int(part.columns.ints["event_time"][part.rows].max()) for part in decoded.parts if len(part.rows)]
    return max(newest + [order.event_time for order in decoded.records], default=0)


class DetectFraudOverTime(DetectFraud):
    """`DetectFraud` by the version in force at the time of each order that completes a pattern.

    State holds an order for the longest span of the versions that can still see it, and the allowed lateness.
    """

    def __init__(self, base: Rules, histories: Histories, allowed_lateness_ms: int, max_orders_per_user: int):
        super().__init__(base, allowed_lateness_ms, max_orders_per_user)
        self._fn = _DetectFraudOverTimeFn(base, histories, allowed_lateness_ms, max_orders_per_user)


class _UsersOverTime(Users):
    """
    Attributes:
      bits: the fields that orders in memory have.
      due: the users of each order, by the period at whose end it may be over. `expiring` is not used.
    """

    __slots__ = ("bits", "due")

    def __init__(self) -> None:
        super().__init__()
        self.bits = 0
        self.due: dict[int, set[str]] = {}


class _FittedShards(Shards[_UsersOverTime]):
    """Orders in memory have the fields that are needed now, too, when versions were heard of since."""

    bits = 0

    def open(self, shard: int, token: Any, log: Any) -> Shard[_UsersOverTime]:
        live = super().open(shard, token, log)
        if live.state.bits != self.bits:
            for orders in live.state.orders.values():
                orders[:] = [fitted(order, self.bits) for order in orders]
            live.state.bits = self.bits
        return live


class _DetectFraudOverTimeFn(DetectFraudFn):
    def __init__(self, base: Rules, histories: Histories, allowed_lateness_ms: int, max_orders_per_user: int):
        super().__init__(base, allowed_lateness_ms, max_orders_per_user)
        self._histories, self._lateness_ms = histories, allowed_lateness_ms

    def default_label(self) -> str:
        """The same, as it is part of savepoints."""
        return DetectFraudFn.__name__

    def setup(self) -> None:
        expiry = Expiry(self._forget, self._forgets_ms, self._period_ms)
        memory = self._memory.acquire(Memory)
        self._shards: Any = _FittedShards(memory, _UsersOverTime, self._replay, snapshot, expiry)
        self._followed = _Followed(self._rules, self._histories)
        self._follow(0)

    def _follow(self, until_ms: int) -> None:
        if (in_force := self._followed.moved(until_ms)) is not None:
            self._in_force, self._bits = in_force, in_force.bits
            self._shards.bits = in_force.bits
            self._detector: Any = DetectorOverTime(in_force, self._max_orders)

    def _replay(self, users: Any, entry: bytes) -> None:
        users.bits = self._bits
        super()._replay(users, entry)

    def _will_expire(self, users: Any, rows: list[Row]) -> None:
        for user, order in rows:
            users.due.setdefault(self._due(order), set()).add(user)

    def _due(self, order: Order) -> int:
        return (self._in_force.kept_until_ms(order) + self._lateness_ms) // self._period_ms

    def _forget(self, users: Any, watermark_ms: int) -> None:
        """Every activation up to the watermark is known, so what is over is so for good, in a replay as well."""
        floor_ms, kept_until_ms = watermark_ms - self._lateness_ms, self._in_force.kept_until_ms
        over = [period for period in users.due if (period + 1) * self._period_ms <= watermark_ms]
        for user in {user for period in over for user in users.due.pop(period)}:
            orders = users.orders.get(user)
            if orders is not None:
                orders[:] = [order for order in orders if kept_until_ms(order) >= floor_ms]
                if not orders:
                    del users.orders[user]
                # A version that was heard of since may have given some of them longer.
                self._will_expire(users, [(user, order) for order in orders])

    def _forgets_ms(self, users: Any) -> int | None:
        return (min(users.due) + 1) * self._period_ms if users.due else None

    def process(
        self,
        keyed: tuple[int, bytes],
        token: Any = beam.DoFn.StateParam(TOKEN),
        log: Any = beam.DoFn.StateParam(LOG),
        expiry: Any = beam.DoFn.TimerParam(_EXPIRY),
    ) -> Iterator[Any]:
        self._follow(time.time_ns() // 1_000_000)  # as an order can complete patterns of later ones
        yield from super().process(keyed, token, log, expiry)

    @userstate.on_timer(_EXPIRY)
    def expire(
        self,
        shard: int = beam.DoFn.KeyParam,
        firing: Timestamp = beam.DoFn.TimestampParam,
        token: Any = beam.DoFn.StateParam(TOKEN),
        log: Any = beam.DoFn.StateParam(LOG),
        expiry: Any = beam.DoFn.TimerParam(_EXPIRY),
    ) -> None:
        self._follow(int(firing.micros // 1000))
        super().expire(shard, firing, token, log, expiry)
