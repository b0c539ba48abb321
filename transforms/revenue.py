"""Orders in blocks → revenue per minute, wired for Beam; the aggregation itself is in `transforms.domain.revenue`.

Long, as rows, gathering and windows of a minute are one sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
import msgspec
import numpy as np
from apache_beam.transforms import trigger
from apache_beam.transforms.window import FixedWindows, GlobalWindows
from apache_beam.utils.timestamp import Duration

from schemas import currencies
from schemas.columns import Ints
from schemas.events import OrderEvent, RevenueWindow
from transforms.decode import DecodedBlock, Part
from transforms.domain.revenue import (
    MINUTE_MS,
    Figures,
    Minute,
    MinuteState,
    Order,
    add_up,
    category_totals,
    revenue_rows,
)
from transforms.domain.seen import Seen
from transforms.domain.versions import MAX_LONG
from transforms.gather import Added, Gather, expire_every_ms
from transforms.keyed_state import shard_of
from transforms.ledger import Counts
from transforms.panes import pane_name
from transforms.sharded_rows import encode_rows

__all__ = ["AddUpMinutes", "CalculateRevenue", "RevenueGathering", "RevenueRows", "decode_rows"]

_CREATED = "CREATED"
# of a currency: sums by minute; the minutes that are pending
_SeriesState = tuple[list[tuple[int, MinuteState]], list[int]]
# order_ids by minute; the series by currency
_Snapshot = tuple[list[tuple[int, list[str]]], dict[str, _SeriesState]]
# As releases that knew no currencies wrote them.
_OldOrder = tuple[str, str, int, int, str, bool, list[tuple[str, int]]]
_OldSnapshot = tuple[list[tuple[int, list[str]]], list[tuple[int, MinuteState]], list[int]]

_decode_orders: Callable[[bytes], list[Order]] = msgspec.msgpack.Decoder(list[Order]).decode
_decode_old_orders: Callable[[bytes], list[_OldOrder]] = msgspec.msgpack.Decoder(list[_OldOrder]).decode
_decode_figures: Callable[[bytes], list[Figures]] = msgspec.msgpack.Decoder(list[Figures]).decode
_decode_snapshot: Callable[[bytes], _Snapshot] = msgspec.msgpack.Decoder(_Snapshot).decode
_decode_old_snapshot: Callable[[bytes], _OldSnapshot] = msgspec.msgpack.Decoder(_OldSnapshot).decode
_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode


def decode_rows(rows: bytes) -> list[Order]:
    """Those of a checkpoint of a release that knew no currencies are lira: it called them that."""
    try:
        return _decode_orders(rows)
    except msgspec.ValidationError:
        return [(*order, currencies.DEFAULT) for order in _decode_old_orders(rows)]


# What minutes are summed up by. That of lira is empty: it was the only one, and a restored job goes on with its sums.
def _key_of(currency: str) -> bytes:
    return b"" if currency == currencies.DEFAULT else currency.encode()


def _currency_of(key: bytes) -> str:
    return key.decode() or currencies.DEFAULT


class RevenueRows:
    """The CREATED orders, as rows; others are dropped here. See `transforms.sharded_rows.RowsOf`."""

    def __call__(self, decoded: DecodedBlock[OrderEvent], shard_count: int) -> dict[int, list[Order]]:
        rows: dict[int, list[Order]] = {}
        for part in decoded.parts:
            _add_columns(part, rows, shard_count)
        for order in decoded.records:
            _add_record(order, rows, shard_count)
        return rows


def _add_record(order: OrderEvent, by_shard: dict[int, list[Order]], shard_count: int) -> None:
    if order.order_status == _CREATED:
        row = (
            order.user_id,
            order.order_id,
            order.event_time,
            order.total_amount_minor,
            order.shipping_region,
            order.is_first_order,
            category_totals((item.category, item.total_price_minor) for item in order.items),
            order.currency,
        )
        by_shard.setdefault(shard_of(order.user_id.encode(), shard_count), []).append(row)


def _add_columns(part: Part, by_shard: dict[int, list[Order]], shard_count: int) -> None:
    """`_add_record` for all good records of a part at once."""
    columns, symbols = part.columns, part.symbols["order_status"]
    if _CREATED not in symbols:
        return
    ints, data = columns.ints, columns.data
    rows = part.rows[ints["order_status"][part.rows] == symbols.index(_CREATED)]
    starts, ends = (bound[rows].tolist() for bound in columns.spans["user_id"])
    users = [data[s:e] for s, e in zip(starts, ends, strict=True)]
    orders = zip(
        [user.decode() for user in users],
        columns.texts("order_id", rows),
        ints["event_time"][rows].tolist(),
        ints["total_amount_minor"][rows].tolist(),
        columns.texts("shipping_region", rows),
        (ints["is_first_order"][rows] != 0).tolist(),
        _categories(part, rows),
        _currencies(part, rows),
        strict=True,
    )
    for user, order in zip(users, orders, strict=True):
        shard = shard_of(user, shard_count)
        if shard in by_shard:
            by_shard[shard].append(order)
        else:
            by_shard[shard] = [order]


def _currencies(part: Part, rows: Ints) -> list[str]:
    """Of each of the records. Nearly always one for all, so that is looked at first."""
    numbers = part.columns.currencies("currency", rows)
    if not len(numbers) or (numbers == numbers[0]).all():
        return [currencies.code_of(int(number)) for number in numbers[:1]] * len(numbers)
    every, which = np.unique(numbers, return_inverse=True)
    codes = [currencies.code_of(number) for number in every.tolist()]
    return [codes[i] for i in which.tolist()]


def _categories(part: Part, rows: Ints) -> list[list[tuple[str, int]]]:
    """`category_totals` of each of the records."""
    columns = part.columns
    chosen = np.zeros(len(columns.ok), np.bool_)
    chosen[rows] = True
    items = np.nonzero(chosen[columns.rows["items"]])[0]
    if not len(items):
        return [[] for _ in rows]
    data, (starts, ends) = columns.data, columns.spans["items.category"]
    names = [data[s:e] for s, e in zip(starts[items].tolist(), ends[items].tolist(), strict=True)]
    every = sorted(set(names))  # bytes of UTF-8 sort as their text does
    code = {name: i for i, name in enumerate(every)}
    # One number for record and category, so that sorting brings together what is to be summed up.
    groups = columns.rows["items"][items] * len(every) + np.array([code[name] for name in names])
    order = np.argsort(groups, kind="stable")
    groups, totals = groups[order], columns.ints["items.total_price_minor"][items][order]
    if totals.max() > MAX_LONG // len(totals):
        totals = totals.astype(object)  # Python's integers, which do not overflow
    firsts = np.nonzero(np.diff(groups, prepend=-1))[0]
    sums = np.minimum(np.add.reduceat(totals, firsts), MAX_LONG).tolist()
    texts = [name.decode() for name in every]
    of_record, of_category = np.divmod(groups[firsts], len(every))
    pairs = list(zip([texts[i] for i in of_category.tolist()], sums, strict=True))
    bounds = (np.searchsorted(of_record, rows, side).tolist() for side in ("left", "right"))
    return [pairs[first:end] for first, end in zip(*bounds, strict=True)]


class _Series:
    """A currency's minutes.

    Attributes:
      minutes: by number; those that an order that is not late can still belong to.
      pending: numbers of the minutes that hold what was not taken.
    """

    __slots__ = ("minutes", "pending")

    def __init__(self) -> None:
        self.minutes: dict[int, Minute] = {}
        self.pending: set[int] = set()


class _State:
    """What is known of a shard's users; series by currency, none of them empty."""

    __slots__ = ("seen", "series")

    def __init__(self) -> None:
        self.seen = Seen()
        self.series: dict[str, _Series] = {}

    def __bool__(self) -> bool:
        return bool(self.series)


class RevenueGathering:
    """Orders of a shard → for each minute and currency, what came of each figure. See `transforms.gather.Gathering`.

    Hands on KV[currency, Figures as msgpack], at the beginning of the minute.

    State: of the minutes that are not over for late orders, the order_ids, and the users of each figure.

    Args:
      keep_ms: how far Beam's watermark may be past an order that is not late.
    """

    def __init__(self, keep_ms: int):
        self.keep_ms, self.expire_every_ms = keep_ms, expire_every_ms(keep_ms)

    def new(self) -> _State:
        return _State()

    def add(self, state: _State, rows: bytes) -> Added:
        orders = decode_rows(rows)
        is_new, every = state.seen.add, state.series
        repeats: list[int] = []
        currency, series = "", _Series()
        earliest_ms = None
        for i, order in enumerate(orders):
            at_ms = order[2]
            if not is_new(order[1], at_ms):
                repeats.append(i)
                continue
            if order[7] != currency:
                currency = order[7]
                series = every.get(currency) or every.setdefault(currency, _Series())
            number = at_ms // MINUTE_MS
            minute = series.minutes.get(number)
            if minute is None:
                minute = series.minutes[number] = Minute()
            minute.add(order)
            series.pending.add(number)
            if earliest_ms is None or at_ms < earliest_ms:
                earliest_ms = at_ms
        if earliest_ms is None:
            return Added(None, 0, len(repeats))
        if repeats:
            for i in reversed(repeats):
                del orders[i]
            rows = encode_rows(orders)
        return Added(rows, len(orders), len(repeats), earliest_ms)

    def due_ms(self, event_time_ms: int) -> int:
        return event_time_ms - event_time_ms % MINUTE_MS + MINUTE_MS - 1

    def take(self, state: _State, at_ms: int | None) -> Iterator[tuple[tuple[bytes, bytes], int]]:  # noqa: ARG002
        """Everything, due or not: it is few elements."""
        for currency, series in state.series.items():
            for number in sorted(series.pending):
                yield (_key_of(currency), _encode(series.minutes[number].take())), number * MINUTE_MS
            series.pending.clear()

    def earliest_ms(self, state: _State) -> int | None:
        pending = [min(series.pending) for series in state.series.values() if series.pending]
        return min(pending) * MINUTE_MS if pending else None

    def expire(self, state: _State, before_ms: int) -> None:
        for currency, series in list(state.series.items()):
            for number in [n for n in series.minutes if (n + 1) * MINUTE_MS <= before_ms]:
                del series.minutes[number]
            if not series.minutes:
                del state.series[currency]
        state.seen.expire(before_ms)

    def expires_ms(self, state: _State) -> int | None:
        return state.seen.expires_ms()

    def snapshot(self, state: _State) -> bytes:
        every = {
            currency: ([(number, minute.state()) for number, minute in of.minutes.items()], sorted(of.pending))
            for currency, of in state.series.items()
        }
        return _encode((state.seen.items(), every))

    def restore(self, state: _State, snapshot: bytes) -> None:
        seen, every = _read_snapshot(snapshot)
        state.seen.restore(seen)
        for currency, (minutes, pending) in every.items():
            series = state.series[currency] = _Series()
            series.pending.update(pending)
            for number, minute in minutes:
                series.minutes[number] = Minute.of(minute)


def _read_snapshot(snapshot: bytes) -> _Snapshot:
    try:
        return _decode_snapshot(snapshot)
    except msgspec.ValidationError:
        seen, minutes, pending = _decode_old_snapshot(snapshot)
        return seen, ({currencies.DEFAULT: (minutes, pending)} if minutes else {})


class CalculateRevenue(beam.PTransform):
    """Calculate revenue per currency and minute of event time: early, on time, and again when it is corrected.

    Input:  KV[shard, rows] of `RevenueRows`, in any order.
    Output: see `AddUpMinutes`; and Counts of the orders.
    State:  see `RevenueGathering` and `AddUpMinutes`.

    Args:
      allowed_lateness_ms: how far Beam's watermark may be past an order that is not late.
      early_every_s: how long an order may wait in its shard, and again in its window, before there is a result with it;
        None when the input has an end: then there is one result for each minute, and one for each correction.
    """

    def __init__(self, allowed_lateness_ms: int, early_every_s: int | None):
        super().__init__()
        self._lateness_ms, self._early_every_s = allowed_lateness_ms, early_every_s

    def expand(
        self, orders: beam.PCollection[tuple[int, bytes]]
    ) -> tuple[beam.PCollection[RevenueWindow], beam.PCollection[Counts]]:
        gathering = RevenueGathering(self._lateness_ms)
        gathered, counts = orders | "Shards" >> Gather(gathering, self._early_every_s, tuple[bytes, bytes])
        return gathered | "AddUp" >> AddUpMinutes(self._lateness_ms, self._early_every_s), counts


class AddUpMinutes(beam.PTransform):
    """Combine the shards' results for each currency and minute into one.

    Input:  KV[currency, Figures as msgpack] of `RevenueGathering`, at the beginning of the minute.
    Output: RevenueWindow of every figure of the minute, each time that the minute is looked at, in the global window.
            Of the rows of a minute, currency, dimension and value, the one of the newest version counts.
    State:  of each minute until it is over for late orders, what the shards handed on.

    Args: as of `CalculateRevenue`.
    """

    def __init__(self, allowed_lateness_ms: int, early_every_s: int | None):
        super().__init__()
        self._lateness_ms, self._early_every_s = allowed_lateness_ms, early_every_s

    def expand(self, gathered: beam.PCollection[tuple[bytes, bytes]]) -> beam.PCollection[RevenueWindow]:
        every_s = self._early_every_s
        return (
            gathered
            | "Minutes"
            >> beam.WindowInto(
                FixedWindows(MINUTE_MS // 1000),
                trigger=trigger.AfterWatermark(
                    early=None if every_s is None else trigger.AfterProcessingTime(every_s),
                    # Every result costs a look at all that was handed on: late orders wait for each other, too.
                    late=trigger.AfterCount(1) if every_s is None else trigger.AfterProcessingTime(every_s),
                ),
                accumulation_mode=trigger.AccumulationMode.ACCUMULATING,
                allowed_lateness=Duration(micros=self._lateness_ms * 1000),
            )
            # A key per currency: what comes here is one element per shard and flush, however many orders there are.
            | "Together" >> beam.GroupByKey()
            | "Sum" >> beam.ParDo(_AddUpFn()).with_output_types(RevenueWindow)
            | "AllTime" >> beam.WindowInto(GlobalWindows())
        )


class _AddUpFn(beam.DoFn):
    def process(
        self,
        keyed: tuple[bytes, Iterable[bytes]],
        window: Any = beam.DoFn.WindowParam,
        pane: Any = beam.DoFn.PaneInfoParam,
    ) -> Iterable[RevenueWindow]:
        figures = add_up(map(_decode_figures, keyed[1]))
        return revenue_rows(figures, int(window.start.micros // 1000), _currency_of(keyed[0]), pane_name(pane))
