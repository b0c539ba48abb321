"""Orders in blocks → revenue per minute, wired for Beam; the aggregation itself is in `transforms.domain.revenue`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
import msgspec
import numpy as np
from apache_beam.transforms import trigger
from apache_beam.transforms.window import FixedWindows, GlobalWindows
from apache_beam.utils.timestamp import Duration

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
# order_ids and sums by minute; the minutes that are pending
_Snapshot = tuple[list[tuple[int, list[str]]], list[tuple[int, MinuteState]], list[int]]

decode_rows: Callable[[bytes], list[Order]] = msgspec.msgpack.Decoder(list[Order]).decode
_decode_figures: Callable[[bytes], list[Figures]] = msgspec.msgpack.Decoder(list[Figures]).decode
_decode_snapshot: Callable[[bytes], _Snapshot] = msgspec.msgpack.Decoder(_Snapshot).decode
_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode


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
        strict=True,
    )
    for user, order in zip(users, orders, strict=True):
        shard = shard_of(user, shard_count)
        if shard in by_shard:
            by_shard[shard].append(order)
        else:
            by_shard[shard] = [order]


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


class _State:
    """What is known of a shard's users.

    Attributes:
      minutes: by number; those that an order that is not late can still belong to.
      pending: numbers of the minutes that hold what was not taken.
    """

    __slots__ = ("minutes", "pending", "seen")

    def __init__(self) -> None:
        self.seen = Seen()
        self.minutes: dict[int, Minute] = {}
        self.pending: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self.minutes)


class RevenueGathering:
    """Orders of a shard → for each minute, what came of each figure. See `transforms.gather.Gathering`.

    Hands on KV[nothing, Figures as msgpack], at the beginning of the minute.

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
        is_new, minutes, pending = state.seen.add, state.minutes, state.pending
        repeats: list[int] = []
        earliest_ms = None
        for i, order in enumerate(orders):
            at_ms = order[2]
            if not is_new(order[1], at_ms):
                repeats.append(i)
                continue
            number = at_ms // MINUTE_MS
            minute = minutes.get(number)
            if minute is None:
                minute = minutes[number] = Minute()
            minute.add(order)
            pending.add(number)
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
        for number in sorted(state.pending):
            yield (b"", _encode(state.minutes[number].take())), number * MINUTE_MS
        state.pending.clear()

    def earliest_ms(self, state: _State) -> int | None:
        return min(state.pending) * MINUTE_MS if state.pending else None

    def expire(self, state: _State, before_ms: int) -> None:
        for number in [n for n in state.minutes if (n + 1) * MINUTE_MS <= before_ms]:
            del state.minutes[number]
        state.seen.expire(before_ms)

    def expires_ms(self, state: _State) -> int | None:
        return state.seen.expires_ms()

    def snapshot(self, state: _State) -> bytes:
        minutes = [(number, minute.state()) for number, minute in state.minutes.items()]
        return _encode((state.seen.items(), minutes, sorted(state.pending)))

    def restore(self, state: _State, snapshot: bytes) -> None:
        seen, minutes, pending = _decode_snapshot(snapshot)
        state.seen.restore(seen)
        state.pending.update(pending)
        for number, minute in minutes:
            state.minutes[number] = Minute.of(minute)


class CalculateRevenue(beam.PTransform):
    """Calculate revenue per minute of event time: early, on time, and again when it is corrected.

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
    """Combine the shards' results for each minute into one.

    Input:  KV[nothing, Figures as msgpack] of `RevenueGathering`, at the beginning of the minute.
    Output: RevenueWindow of every figure of the minute, each time that the minute is looked at, in the global window.
            Of the rows of a minute, dimension and value, the one of the newest version counts.
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
            # One key: what comes here is one element per shard and flush, however many orders there are.
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
        return revenue_rows(figures, int(window.start.micros // 1000), pane_name(pane))
