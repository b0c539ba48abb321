"""Debezium's records in blocks → current state, history and low-stock alerts, wired for Beam; the rules are in
`transforms.domain.cdc`.

Long, as decoding and stock share the rows that they pass on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
import msgspec
from apache_beam import typehints
from apache_beam.utils.shared import Shared

from schemas.events import CdcChange, LowStockAlert
from transforms.blocks import Block
from transforms.decode import refused
from transforms.domain.cdc import (
    Change,
    Known,
    MalformedChangeError,
    Product,
    alert_of,
    crosses,
    customer_of,
    history_row,
    order_places,
    parse,
    product_of,
    without_personal_letter,
)
from transforms.errors import BadRecord
from transforms.in_hand import decoding
from transforms.isolate import unexpected
from transforms.key_groups import MAX_PARALLELISM, shard_keys
from transforms.keyed_state import LOG, TOKEN, Memory, Shards, shard_of
from transforms.ledger import Counts, counted, of_bundle

__all__ = ["ChangeDecoding", "DecodeChanges", "Decoded", "TrackStock", "Tracked"]

_MOVED_HEADER = "__debezium.oldkey"  # of the second half of a change of primary key
_KEEP_DELETED_MS = 7 * 24 * 3_600_000  # as Kafka keeps records by default: none comes again after that
_NULL = msgspec.Raw(b"null")
_NOT_SAID = msgspec.Raw(b"")

_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
_decode_products: Callable[[bytes], list[Product]] = msgspec.msgpack.Decoder(list[Product]).decode
_decode_known: Callable[[bytes], list[tuple[str, Known]]] = msgspec.msgpack.Decoder(list[tuple[str, Known]]).decode


class _Line(msgspec.Struct):
    """A line of a file: key, value and headers of a record, the first two as JSON or as text that holds JSON. Or the
    value alone, which has an `op`."""

    key: msgspec.Raw = _NULL
    value: msgspec.Raw = _NOT_SAID
    headers: list[tuple[str, str | None]] = []


_line: Callable[[bytes], _Line] = msgspec.json.Decoder(_Line).decode
_text: Callable[[msgspec.Raw], str] = msgspec.json.Decoder(str).decode


@dataclass(frozen=True)
class ChangeDecoding:
    """Attributes:
    job: name written into dead letters.
    shards: number of shards; part of a savepoint.
    history: whether every change is wanted as a row of table cdc_changes.
    make_hash_key: called in the worker; returns the key that personal columns are hashed with, None: they are dropped.
    max_parallelism: of the runner, which shards are spread over; part of a savepoint.
    """

    job: str
    shards: int
    history: bool
    make_hash_key: Callable[[], bytes | None]
    max_parallelism: int = MAX_PARALLELISM

    def __post_init__(self) -> None:
        if self.shards < 1:
            raise ValueError("shards must be at least 1")


class Decoded(NamedTuple):
    """Output of `DecodeChanges`.

    Attributes:
      products: KV[key of the shard, list of Product as msgpack].
      customers: list of Customer.
      orders: list of OrderPlace.
      emptied: list of (table, version): a table was truncated.
      counts: for the ledger, one per block: all but the products, which are counted where they end.
    """

    products: beam.PCollection[tuple[int, bytes]]
    customers: beam.PCollection[Any]
    orders: beam.PCollection[Any]
    emptied: beam.PCollection[Any]
    history: beam.PCollection[CdcChange]
    bad: beam.PCollection[BadRecord]
    counts: beam.PCollection[Counts]


class DecodeChanges(beam.PTransform):
    """Decode changes and sort them by purpose. From here on order does not matter: every change carries a version.

    Input:  Block of Debezium's records, from any of the tables.
    Output: Decoded: per block one element per kind, or per kind and shard, however many changes it holds.
    """

    def __init__(self, decoding: ChangeDecoding):
        super().__init__()
        self._fn = _DecodeChangesFn(decoding)

    def expand(self, blocks: beam.PCollection[Block]) -> Decoded:
        out = blocks | "Decode" >> beam.ParDo(self._fn).with_outputs(*Decoded._fields[1:], main="products")
        out.products.element_type = typehints.Tuple[int, bytes]
        out.history.element_type, out.bad.element_type, out.counts.element_type = CdcChange, BadRecord, Counts
        return Decoded(*(out[name] for name in Decoded._fields))


class _Sorted:
    """What a block holds."""

    __slots__ = ("customers", "emptied", "history", "orders", "products")

    def __init__(self) -> None:
        self.products: dict[int, list[Product]] = {}
        self.customers: list[Any] = []
        self.orders: list[Any] = []
        self.emptied: list[Any] = []
        self.history: list[CdcChange] = []


class _DecodeChangesFn(beam.DoFn):
    def __init__(self, decoding: ChangeDecoding):
        self._decoding = decoding

    def setup(self) -> None:
        self._hash_key = self._decoding.make_hash_key()
        self._keys = shard_keys(self._decoding.shards, self._decoding.max_parallelism)

    def process(self, block: Block) -> Iterator[Any]:
        with decoding(block):
            found, bad = self._sort(block)
        for shard, products in found.products.items():
            yield self._keys[shard], _encode(products)
        for name in ("customers", "orders", "emptied"):
            if rows := getattr(found, name):
                yield beam.pvalue.TaggedOutput(name, rows)
        for change_row in found.history:
            yield beam.pvalue.TaggedOutput("history", change_row)
        for letter in bad:
            yield beam.pvalue.TaggedOutput("bad", letter)
        here = len(block) - sum(map(len, found.products.values()))
        counts = Counts(here, here - len(bad), len(bad), lost=block.lost)
        if counts:
            yield beam.pvalue.TaggedOutput("counts", counted(counts))

    def _sort(self, block: Block) -> tuple[_Sorted, list[BadRecord]]:
        found, bad = _Sorted(), list[BadRecord]()
        read = _line_of if block.encoding == "json" else _message_of
        for i in range(len(block)):
            try:
                if i in block.broken:
                    raise MalformedChangeError(block.broken[i])
                change = read(block, i)
                if change is not None:
                    self._add(change, found)
            except MalformedChangeError as e:
                bad.append(self._letter(refused(block, i, self._decoding.job, "decode", type(e).__name__, str(e))))
            except Exception as e:  # noqa: BLE001 - see transforms.isolate
                bad.append(self._letter(unexpected(block, i, self._decoding.job, e)))
        return found, bad

    def _add(self, change: Change, found: _Sorted) -> None:
        """Raises: MalformedChangeError, before anything was added."""
        table = change.table
        row = history_row(change, self._hash_key) if self._decoding.history else None
        if change.op == "t":
            found.emptied.append((table, change.version))
        elif table == "products":
            product = product_of(change)
            shard = shard_of(product.product_id.encode(), self._decoding.shards)
            if shard in found.products:
                found.products[shard].append(product)
            else:
                found.products[shard] = [product]
        elif table == "orders":
            found.orders += order_places(change)
        elif table == "customers":
            found.customers.append(customer_of(change))
        if row is not None:
            found.history.append(row)

    def _letter(self, letter: BadRecord) -> BadRecord:
        return msgspec.structs.replace(letter, payload=without_personal_letter(letter.payload))


def _message_of(block: Block, i: int) -> Change | None:
    """The change that a message of Kafka holds; None for a tombstone, which follows each delete."""
    value = block.payload(i)
    if value is None:
        return None
    moved = i in block.headers and any(name == _MOVED_HEADER for name, _ in block.headers[i])
    return parse(block.keys[i] if block.keys else None, value, moved)


def _line_of(block: Block, i: int) -> Change | None:
    payload = block.payload(i) or b""
    try:
        line = _line(payload)
        if line.value == _NOT_SAID:
            return parse(None, payload)
        key, value = (_text(raw).encode() if raw[:1] == b'"' else raw for raw in map(bytes, (line.key, line.value)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise MalformedChangeError(str(e)) from None
    if value == b"null":
        return None
    moved = any(name == _MOVED_HEADER for name, _ in line.headers)
    return parse(None if key == b"null" else key, value, moved)


class Tracked(NamedTuple):
    """Output of `TrackStock`.

    Attributes:
      products: list of Product, those that are newer than all that was known of them.
    """

    products: beam.PCollection[Any]
    alerts: beam.PCollection[LowStockAlert]
    counts: beam.PCollection[Counts]


class TrackStock(beam.PTransform):
    """Track each product's newest version, and alert each time its stock falls to the threshold.

    Input:  KV[shard, products] of `DecodeChanges`, in any order.
    Output: Tracked, with Counts of the products: good, or duplicates, when something as new was known.
    State:  per shard, of each product the newest version and whether it is low; of deleted ones for 7 days.
    """

    def __init__(self) -> None:
        super().__init__()
        self._fn = _TrackStockFn()

    def expand(self, products: beam.PCollection[tuple[int, bytes]]) -> Tracked:
        out = products | "Track" >> beam.ParDo(self._fn).with_outputs("alerts", "counts", main="products")
        out.alerts.element_type, out.counts.element_type = LowStockAlert, Counts
        return Tracked(out.products, out.alerts, out.counts)


_Products = dict[str, Known]


class _TrackStockFn(beam.DoFn):
    def __init__(self) -> None:
        self._memory = Shared()

    def setup(self) -> None:
        self._shards: Shards[_Products] = Shards(self._memory.acquire(Memory), dict, _replay, _snapshot)

    def start_bundle(self) -> None:
        self._changes = self._repeats = 0

    def finish_bundle(self) -> Iterator[Any]:
        yield from of_bundle(Counts(self._changes, self._changes - self._repeats, duplicates=self._repeats))

    def process(
        self,
        keyed: tuple[int, bytes],
        token: Any = beam.DoFn.StateParam(TOKEN),
        log: Any = beam.DoFn.StateParam(LOG),
    ) -> Iterable[Any]:
        shard, batch = keyed
        live = self._shards.open(shard, token, log)
        changes = _decode_products(batch)
        newest, alerts = track(live.state, changes)
        if newest:
            self._shards.append(live, _encode([(i, live.state[i]) for i in {p.product_id for p in newest}]), token, log)
            # Not when state expires: there is no timer for it. The log is what grows here, products are few.
            self._shards.compact(live, token, log)
        self._shards.keep(shard, live)
        self._changes += len(changes)
        self._repeats += len(changes) - len(newest)
        found: list[Any] = [beam.pvalue.TaggedOutput("alerts", alert) for alert in alerts]
        return [newest, *found] if newest else found


def track(state: _Products, changes: list[Product]) -> tuple[list[Product], list[LowStockAlert]]:
    """Takes changes into the state.

    Returns: those that were newer than what was known, and the alerts of all of them. A change that comes out of order
    is not newer, and may be the one that crossed; one that is known to have come before gives no alert again.
    """
    newest, alerts = [], []
    for product in changes:
        known = state.get(product.product_id)
        if known is None or known.version < product.version:
            newest.append(product)
            deleted_ms = 0 if product.exists else product.event_time_ms
            state[product.product_id] = Known(product.version, product.low, deleted_ms)
        elif known.version == product.version:
            continue
        if crosses(product, known):
            alerts.append(alert_of(product))
    return newest, alerts


def _replay(state: _Products, entry: bytes) -> None:
    state.update(_decode_known(entry))


def _snapshot(state: _Products) -> bytes:
    newest_ms = max(known.deleted_ms for known in state.values())
    for product_id in [p for p, known in state.items() if 0 < known.deleted_ms < newest_ms - _KEEP_DELETED_MS]:
        del state[product_id]
    return _encode(list(state.items()))
