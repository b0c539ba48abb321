"""Orders in blocks → fraud alerts, wired for Beam; the rules themselves are in `transforms.domain.fraud`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

import apache_beam as beam
import msgspec
import numpy as np
from apache_beam.transforms import userstate
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import TimerSpec
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import Timestamp

from schemas.columns import Columns, Ints
from schemas.currencies import NUMBERS, number_of
from schemas.events import FraudAlert, OrderEvent
from transforms.decode import DecodedBlock, Part
from transforms.domain.conditions import matcher
from transforms.domain.fraud import Detector
from transforms.domain.fraud_orders import (
    STATUS_BITS,
    STATUSES,
    Order,
    UserOrders,
    attribute,
    extra_of,
    fields_of,
    fitted,
    order_flags,
    prune,
    renewed,
)
from transforms.domain.fraud_rules import Rules
from transforms.keyed_state import LOG, TOKEN, Expiry, Memory, Shards, shard_of
from transforms.ledger import Counts, of_bundle
from transforms.sharded_rows import encode_rows

__all__ = ["DetectFraud", "DetectFraudFn", "FraudRows", "Row", "Users", "decode_rows", "snapshot"]

Row = tuple[str, Order]
"""user_id, and what the rules need of an order."""
_NEVER = 1 << 62
_EXPIRY = TimerSpec("expiry", TimeDomain.WATERMARK)

_decode_short = msgspec.msgpack.Decoder(list[tuple[str, tuple[int, str, int, int, str]]]).decode
_decode_any = msgspec.msgpack.Decoder(list[tuple[str, tuple[Any, ...]]]).decode


def decode_rows(data: bytes, bits: int = 0) -> list[Row]:
    """Rows with exactly the fields that rules need, whichever rules they were kept for."""
    if not bits:
        try:
            return _decode_short(data)
        except msgspec.ValidationError:  # orders with more, of other rules
            pass
    return [(user, fitted(order, bits)) for user, order in _decode_any(data)]


class FraudRows:
    """The orders that can matter to a rule, as rows; others are dropped here. See `transforms.sharded_rows.RowsOf`."""

    def __init__(self, rules: Rules):
        self._rules = rules

    @cached_property
    def _bits(self) -> int:
        return self._rules.bits

    @cached_property
    def _extra_of(self) -> Callable[[OrderEvent], tuple[Any, ...]]:
        return extra_of(self._bits)

    @cached_property
    def _touches(self) -> Callable[[Order], bool] | None:
        """Whether an order touches a rule; None: `_least` says it all."""
        exact = self._rules.exact
        return exact and matcher(exact, self._bits)

    @cached_property
    def _least(self) -> Ints:
        """By status and number of the currency; an order at or below it touches no rule. Made where it is used: it is
        much larger than the rules."""
        least = np.full((len(STATUSES), NUMBERS), _NEVER)
        for status, of_status in enumerate(least):
            if (floors := self._rules.least_minor(status)) is None:
                of_status[:] = -1
            else:
                for code, minor in floors.items():
                    of_status[number_of(code)] = minor
        return least

    def __call__(self, decoded: DecodedBlock[OrderEvent], shard_count: int) -> dict[int, list[Row]]:
        rows: dict[int, list[Row]] = {}
        for part in decoded.parts:
            self.add_columns(part, rows, shard_count)
        for order in decoded.records:
            self.add_record(order, rows, shard_count)
        return rows

    def add_columns(self, part: Part, by_shard: dict[int, list[Row]], shard_count: int) -> None:
        """`add_record` for all good records of a part at once."""
        columns, rows = part.columns, part.rows
        ints, spans, data = columns.ints, columns.spans, columns.data
        status = np.array([STATUSES.index(s) for s in part.symbols["order_status"]])[ints["order_status"][rows]]
        amount = ints["total_amount_minor"][rows]
        currency = columns.currencies("currency", rows)
        kept = amount > self._least[status, currency]
        rows, status, amount, currency = rows[kept], status[kept], amount[kept], currency[kept]
        flags = order_flags(status, ints["is_first_order"][rows], currency)
        users = [data[s:e] for s, e in zip(*_bounds(spans["user_id"], rows), strict=True)]
        orders: Iterable[Order] = zip(
            ints["event_time"][rows].tolist(),
            columns.texts("order_id", rows),
            flags.tolist(),
            amount.tolist(),
            columns.texts("shipping_region", rows),
            strict=True,
        )
        keyed: Iterable[tuple[bytes, Order]] = zip(users, orders, strict=True)
        if self._touches is not None:
            keyed = self._touching(keyed, columns, rows)
        for user, order in keyed:
            shard = shard_of(user, shard_count)
            if shard in by_shard:
                by_shard[shard].append((user.decode(), order))
            else:
                by_shard[shard] = [(user.decode(), order)]

    def _touching(
        self, keyed: Iterable[tuple[bytes, Order]], columns: Columns, rows: Ints
    ) -> Iterator[tuple[bytes, Order]]:
        """Orders that touch a rule, with all that rules need of them."""
        touches, bits = self._touches, self._bits
        if bits:
            extra = zip(*[_values(columns, field, rows) for field in fields_of(bits)], strict=True)
            keyed = ((user, (*o, (bits, *values))) for (user, o), values in zip(keyed, extra, strict=True))
        return ((user, order) for user, order in keyed if touches(order))

    def add_record(self, order: OrderEvent, by_shard: dict[int, list[Row]], shard_count: int) -> None:
        status = STATUSES.index(order.order_status)
        currency = number_of(order.currency)
        if order.total_amount_minor > self._least[status, currency]:
            flags = order_flags(status, order.is_first_order, currency)
            row: Order = (order.event_time, order.order_id, flags, order.total_amount_minor, order.shipping_region)
            if self._touches is not None:
                if self._bits:
                    row = (*row, self._extra_of(order))
                if not self._touches(row):
                    return
            shard = shard_of(order.user_id.encode(), shard_count)
            by_shard.setdefault(shard, []).append((order.user_id, row))


def _bounds(span: tuple[Ints, Ints], rows: Ints) -> tuple[list[int], list[int]]:
    return span[0][rows].tolist(), span[1][rows].tolist()


def _values(columns: Columns, field: str, rows: Ints) -> list[Any]:
    """A field of `fraud_orders.EXTRA` for the chosen records, which ascend; one of items as a tuple for each record."""
    if not field.startswith("items."):
        name = attribute(field)
        return columns.ints[name][rows].tolist() if name in columns.ints else columns.texts(name, rows)
    of_record = columns.rows["items"]
    wanted = np.zeros(len(columns.ok), np.bool_)
    wanted[rows] = True
    items = np.argsort(of_record, kind="stable")
    items = items[wanted[of_record[items]]]
    if not len(items):
        return [()] * len(rows)
    name = f"items.{attribute(field)}"
    values = columns.ints[name][items].tolist() if name in columns.ints else columns.texts(name, items)
    ends = np.cumsum(np.bincount(of_record[items], minlength=len(columns.ok))[rows]).tolist()
    return [tuple(values[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


class DetectFraud(beam.PTransform):
    """Alert on orders that complete a fraud pattern.

    Input:  KV[shard, rows] of `FraudRows`, in any order.
    Output: one FraudAlert per rule and completing order, at that order's event time; and Counts of duplicates.
    State:  per shard, each user's orders of the longest span and the allowed lateness, at most
            `max_orders_per_user`; freed by event-time timer.
    """

    def __init__(self, rules: Rules, allowed_lateness_ms: int, max_orders_per_user: int):
        super().__init__()
        self._fn = _DetectFraudFn(rules, allowed_lateness_ms, max_orders_per_user)

    def expand(
        self, orders: beam.PCollection[tuple[int, bytes]]
    ) -> tuple[beam.PCollection[FraudAlert], beam.PCollection[Counts]]:
        outputs = orders | "Detect" >> beam.ParDo(self._fn).with_outputs("counts", main="alerts")
        outputs.alerts.element_type, outputs.counts.element_type = FraudAlert, Counts
        return outputs.alerts, outputs.counts


class Users:
    """A shard's users.

    Attributes:
      orders: of each user.
      expiring: the users of each order, by the period in which it is of no more use.
    """

    __slots__ = ("expiring", "orders")

    def __init__(self) -> None:
        self.orders: dict[str, UserOrders] = {}
        self.expiring: dict[int, list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self.orders)


class _DetectFraudFn(beam.DoFn):
    def __init__(self, rules: Rules, allowed_lateness_ms: int, max_orders_per_user: int):
        self._rules, self._max_orders = rules, max_orders_per_user
        self._memory = Shared()
        # An order is of use while one that is not late can still form a pattern with it, or repeat it.
        self._keep_ms = [(rules.span_ms(s) or 0) + allowed_lateness_ms for s in range(len(STATUSES))]
        # State holds an eighth more than it must.
        self._period_ms = max(1_000, max(self._keep_ms) // 8)

    def setup(self) -> None:
        self._detector, self._bits = Detector(self._rules, self._max_orders), self._rules.bits
        expiry = Expiry(self._forget, self._forgets_ms, self._period_ms)
        self._shards: Shards[Users] = Shards(self._memory.acquire(Memory), Users, self._replay, snapshot, expiry)

    def start_bundle(self) -> None:
        self._orders = self._repeats = 0

    def finish_bundle(self) -> Iterator[Any]:
        yield from of_bundle(Counts(self._orders, self._orders - self._repeats, duplicates=self._repeats))

    def _replay(self, users: Users, entry: bytes) -> None:
        add, orders = self._detector.add, users.orders
        rows = [(user, renewed(order, self._rules.currency)) for user, order in decode_rows(entry, self._bits)]
        for user, order in rows:
            add(orders.setdefault(user, []), order)
        self._will_expire(users, rows)

    def _will_expire(self, users: Users, rows: list[Row]) -> None:
        expiring, keep_ms, period_ms = users.expiring, self._keep_ms, self._period_ms
        for user, order in rows:
            period = (order[0] + keep_ms[order[2] & STATUS_BITS]) // period_ms
            if period in expiring:
                expiring[period].append(user)
            else:
                expiring[period] = [user]

    def _forget(self, users: Users, watermark_ms: int) -> None:
        floors = [watermark_ms - keep_ms for keep_ms in self._keep_ms]
        over = [period for period in users.expiring if (period + 1) * self._period_ms <= watermark_ms]
        for user in {user for period in over for user in users.expiring.pop(period)}:
            orders = users.orders.get(user)
            if orders is not None:
                prune(orders, floors)
                if not orders:
                    del users.orders[user]

    def _forgets_ms(self, users: Users) -> int | None:
        return (min(users.expiring) + 1) * self._period_ms if users.expiring else None

    def process(
        self,
        keyed: tuple[int, bytes],
        token: Any = beam.DoFn.StateParam(TOKEN),
        log: Any = beam.DoFn.StateParam(LOG),
        expiry: Any = beam.DoFn.TimerParam(_EXPIRY),
    ) -> Iterator[Any]:
        shard, batch = keyed
        live = self._shards.open(shard, token, log)
        users, add, completed = live.state.orders, self._detector.add, self._detector.completed
        now_ms = time.time_ns() // 1_000_000
        rows = decode_rows(batch, self._bits)
        orders_in = len(rows)
        alerts: list[FraudAlert] = []
        repeats = []
        for i, (user, order) in enumerate(rows):
            orders = users.get(user)
            if orders is None:
                orders = users[user] = []
            if add(orders, order):
                alerts += completed(user, orders, order, now_ms)
            else:
                repeats.append(i)
        if repeats:
            for i in reversed(repeats):
                del rows[i]
            batch = encode_rows(rows)
        if rows:
            self._will_expire(live.state, rows)
            self._shards.append(live, batch, token, log)
            self._shards.wake(live, expiry)
        self._shards.keep(shard, live)
        for alert in alerts:
            yield TimestampedValue(alert, Timestamp(micros=alert.event_time * 1000))
        self._orders += orders_in
        self._repeats += len(repeats)

    @userstate.on_timer(_EXPIRY)
    def expire(
        self,
        shard: int = beam.DoFn.KeyParam,
        firing: Timestamp = beam.DoFn.TimestampParam,
        token: Any = beam.DoFn.StateParam(TOKEN),
        log: Any = beam.DoFn.StateParam(LOG),
        expiry: Any = beam.DoFn.TimerParam(_EXPIRY),
    ) -> None:
        live = self._shards.open(shard, token, log)
        self._shards.expire(live, int(firing.micros // 1000), token, log)
        self._shards.wake(live, expiry)
        self._shards.keep(shard, live)


DetectFraudFn = _DetectFraudFn  # whose name is part of savepoints


def snapshot(users: Users) -> bytes:
    return encode_rows([(user, order) for user, orders in users.orders.items() for order in orders])
