"""Parses Debezium's changes of the shop's database: which change of a row is newest, and which columns are personal.

Source of the rules: docs/semantics.md, "Changes of the database". Nothing here knows how records arrive.

Long, as what a change says, and all the ways in which it may not say it, are one parser.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, NamedTuple, get_type_hints

import msgspec

from schemas.events import CdcChange, Int, Long, LowStockAlert
from schemas.ids import ID_PATTERN
from schemas.times import END_MS, ms_of_text
from transforms.domain.cdc_places import place, version
from transforms.domain.unavailable import may_lack, untold

__all__ = [
    "PERSONAL",
    "Change",
    "Customer",
    "Known",
    "MalformedChangeError",
    "OrderPlace",
    "Product",
    "alert_of",
    "crosses",
    "customer_of",
    "history_row",
    "order_places",
    "parse",
    "product_of",
    "without_personal",
    "without_personal_letter",
]

PERSONAL: Final[dict[str, dict[str, Literal["hash", "drop"]]]] = {
    "customers": {"email": "hash", "full_name": "drop", "phone": "drop"},
}
"""Columns with personal data, by table, and what becomes of them before anything leaves the job."""

_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_NULL: Final = msgspec.Raw(b"null")
# msgspec searches, and `$` would let a line end pass.
_Id = Annotated[str, msgspec.Meta(pattern=ID_PATTERN.replace("$", r"\Z"))]
_Lsn = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Time = Annotated[int, msgspec.Meta(gt=0, lt=END_MS)]


class MalformedChangeError(ValueError):
    """A record is no change that Debezium could have sent of one of our tables. The message says why, and shows no
    value."""


class _Source(msgspec.Struct, gc=False, rename={"tx_id": "txId"}):
    table: str
    ts_ms: _Time
    lsn: _Lsn | None = None
    snapshot: str | bool | None = None
    sequence: str | None = None
    tx_id: Long | None = None


class _Envelope(msgspec.Struct, gc=False):
    op: Literal["c", "u", "d", "r", "t", "m"]
    source: _Source
    epoch: str | None = None
    before: msgspec.Raw = _NULL
    after: msgspec.Raw = _NULL


class _KnownTable(NamedTuple):
    """Attributes:
    primary_key: its columns, sorted.
    read: the part of a row that must be there, typed.
    read_key: the part of it that is the primary key.
    """

    primary_key: tuple[str, ...]
    read: Callable[[msgspec.Raw], Any]
    read_key: Callable[[bytes | msgspec.Raw], Any]


class _ProductRow(msgspec.Struct, gc=False):
    product_id: _Id
    name: str
    category: str
    price_minor: Long
    stock: Int
    low_stock_threshold: Int
    currency: str = "TRY"
    updated_at: str | None = None


class _CustomerRow(msgspec.Struct, gc=False):
    customer_id: _Id
    region: str | None = None


class _OrderRow(msgspec.Struct, gc=False):
    order_id: _Id
    customer_id: _Id
    status: str
    total_minor: Long


class _ItemRow(msgspec.Struct, gc=False):
    order_id: _Id
    line_no: Int


class _MovementRow(msgspec.Struct, gc=False):
    movement_id: Long


class _StockBefore(msgspec.Struct, gc=False):
    stock: Int | None = None
    low_stock_threshold: Int | None = None


class _CustomerBefore(msgspec.Struct, gc=False):
    customer_id: str | None = None


def _table(row: Any, *primary_key: str) -> _KnownTable:
    types = get_type_hints(row, include_extras=True)
    key = msgspec.defstruct("Key", [(name, types[name]) for name in primary_key])
    return _KnownTable(primary_key, msgspec.json.Decoder(row).decode, msgspec.json.Decoder(key).decode)


_TABLES: Final = {
    "products": _table(_ProductRow, "product_id"),
    "customers": _table(_CustomerRow, "customer_id"),
    "orders": _table(_OrderRow, "order_id"),
    "order_items": _table(_ItemRow, "line_no", "order_id"),
    "inventory_movements": _table(_MovementRow, "movement_id"),
}
_envelope: Callable[[bytes | msgspec.Raw], _Envelope] = msgspec.json.Decoder(_Envelope).decode
_object: Callable[[bytes | msgspec.Raw], dict[str, Any]] = msgspec.json.Decoder(dict[str, Any]).decode
_stock_before: Callable[[msgspec.Raw], _StockBefore] = msgspec.json.Decoder(_StockBefore).decode
_customer_before: Callable[[msgspec.Raw], _CustomerBefore] = msgspec.json.Decoder(_CustomerBefore).decode
_sorted_json: Callable[[Any], bytes] = msgspec.json.Encoder(order="sorted").encode
_json: Callable[[Any], bytes] = msgspec.json.Encoder().encode


class Change(NamedTuple):
    """A change of a row, a row that a snapshot read (op r), or a table emptied (op t).

    Attributes:
      row: the typed part of the row after; of a deleted one, None.
      key: of the primary key, column → value; empty for op t.
      before, after: the whole rows as JSON, `null` where there is none; without columns that the database did not tell.
      version: see `cdc_places.version`; the greatest of a key counts.
      moved: it is the second half of a change of primary key: the row was there before, under another key.
    """

    table: str
    op: str
    key: dict[str, Any]
    row: Any
    before: msgspec.Raw
    after: msgspec.Raw
    version: str
    event_time_ms: int
    lsn: int
    tx_id: int | None
    snapshot: str
    moved: bool


def parse(key: bytes | msgspec.Raw | None, value: bytes | msgspec.Raw, moved: bool = False) -> Change | None:
    """A record's key and value as a change; None for what says nothing of a row (op m, a message in the log).

    Columns that are not known here stay in `before` and `after`.

    Raises: MalformedChangeError.
    """
    try:
        envelope = _envelope(value)
        op, source = envelope.op, envelope.source
        if op == "m":
            return None
        table = _TABLES.get(source.table)
        if table is None:
            raise MalformedChangeError(f"table is not one of {', '.join(_TABLES)}")
        row, its_key = None, {}
        if op == "d":
            its_key = _key_of(table, key, envelope.before)
        elif op != "t":
            if envelope.after == _NULL:
                raise MalformedChangeError(f"op {op} without the row after")
            row = table.read(envelope.after)
            its_key = {name: getattr(row, name) for name in table.primary_key}
        commit, lsn = place(source.lsn, source.sequence)
        return Change(
            source.table,
            op,
            its_key,
            row,
            _told(source.table, envelope.before, ()),
            _told(source.table, envelope.after, () if row is None else row.__struct_fields__),
            version(envelope.epoch, source.ts_ms, commit, lsn),
            source.ts_ms,
            lsn,
            source.tx_id,
            _snapshot(source.snapshot),
            moved,
        )
    except (*_UNREADABLE, ValueError) as e:
        raise MalformedChangeError(str(e)) from None


def _told(table: str, image: msgspec.Raw, needed: tuple[str, ...]) -> msgspec.Raw:
    """A row without the columns that the database did not tell."""
    if image == _NULL or not may_lack(bytes(image)):
        return image
    row = _object(image)
    lacking = untold(row)
    if wanted := lacking.intersection(needed):
        raise MalformedChangeError(f"{', '.join(sorted(wanted))} was not told: {_needs_full(table)}")
    return msgspec.Raw(_json({name: value for name, value in row.items() if name not in lacking}))


def _needs_full(table: str) -> str:
    return f"table {table} needs REPLICA IDENTITY FULL"


def _key_of(table: _KnownTable, key: bytes | msgspec.Raw | None, before: msgspec.Raw) -> dict[str, Any]:
    said = before if before != _NULL else b"{}" if key is None else key
    try:
        found = table.read_key(said)
    except msgspec.ValidationError:
        raise MalformedChangeError("op d without the row's primary key") from None
    return {name: getattr(found, name) for name in table.primary_key}


def _snapshot(said: str | bool | None) -> str:
    return said if isinstance(said, str) else "true" if said else "false"


class Product(NamedTuple):
    """What a change says of a product.

    Attributes:
      exists: False when it is deleted; all that describes it is empty then.
      updated_ms: when the row says that it was updated, else when the change was committed.
      was_low: whether the stock was low before; None when the change does not say.
    """

    product_id: str
    version: str
    exists: bool
    name: str
    category: str
    price_minor: int
    currency: str
    stock: int
    low_stock_threshold: int
    updated_ms: int
    event_time_ms: int
    was_low: bool | None

    @property
    def low(self) -> bool:
        """The stock is at the threshold or below."""
        return self.exists and self.stock <= self.low_stock_threshold


def product_of(change: Change) -> Product:
    """Raises: MalformedChangeError."""
    row: _ProductRow | None = change.row
    product_id, version, at_ms = change.key["product_id"], change.version, change.event_time_ms
    if row is None:
        return Product(product_id, version, False, "", "", 0, "", 0, 0, at_ms, at_ms, None)
    try:
        updated_ms = at_ms if row.updated_at is None else ms_of_text(row.updated_at)
    except ValueError as e:
        raise MalformedChangeError(f"updated_at {e}") from None
    return Product(
        product_id,
        version,
        True,
        row.name,
        row.category,
        row.price_minor,
        row.currency,
        row.stock,
        row.low_stock_threshold,
        updated_ms,
        at_ms,
        _was_low(change),
    )


def _was_low(change: Change) -> bool | None:
    if change.op == "c" and not change.moved:
        return False
    if change.before == _NULL:
        return None
    try:
        before = _stock_before(change.before)
    except _UNREADABLE as e:
        raise MalformedChangeError(str(e)) from None
    if before.stock is None or before.low_stock_threshold is None:
        return None
    return before.stock <= before.low_stock_threshold


class Known(NamedTuple):
    """The newest version of a product, whether its stock is low, and when it was deleted; 0: it was not."""

    version: str
    low: bool
    deleted_ms: int


def crosses(product: Product, known: Known | None) -> bool:
    """Whether a change took a product's stock from above its threshold to it or below.

    A change that says what was before answers that alone, in whatever order changes come. One that does not is compared
    with the newest change known of the product, if that is older; what is seen for the first time has crossed nothing.
    """
    if not product.low:
        return False
    if product.was_low is not None:
        return not product.was_low
    return known is not None and known.version < product.version and not known.low


def alert_of(product: Product) -> LowStockAlert:
    """The alert of a change that crosses the threshold: a function of the change alone."""
    alert_id = hashlib.sha256(_json(["LOW_STOCK", product.product_id, product.version[-16:]])).hexdigest()[:32]
    return LowStockAlert(
        alert_id,
        product.product_id,
        product.name,
        product.category,
        product.stock,
        product.low_stock_threshold,
        product.event_time_ms,
        product.version,
    )


class Customer(NamedTuple):
    """What a change says of a customer; `exists` is False when it is deleted."""

    customer_id: str
    version: str
    exists: bool
    region: str
    event_time_ms: int


def customer_of(change: Change) -> Customer:
    row: _CustomerRow | None = change.row
    region = "" if row is None else row.region or ""
    return Customer(change.key["customer_id"], change.version, row is not None, region, change.event_time_ms)


class OrderPlace(NamedTuple):
    """An order as its customer has it; `status` is empty when the customer has it no more."""

    customer_id: str
    order_id: str
    version: str
    status: str
    total_minor: int
    event_time_ms: int


def order_places(change: Change) -> list[OrderPlace]:
    """Where an order is now, and where it is no more: deleted, or another customer's.

    Raises: MalformedChangeError: it is not said whose order it was.
    """
    try:
        owner = None if change.before == _NULL else _customer_before(change.before).customer_id
    except _UNREADABLE as e:
        raise MalformedChangeError(str(e)) from None
    row: _OrderRow | None = change.row
    order_id, version, at_ms = change.key["order_id"], change.version, change.event_time_ms
    places = []
    if change.op in ("u", "d") and not owner:
        raise MalformedChangeError(f"op {change.op} without before.customer_id: {_needs_full('orders')}")
    if row is not None:
        places.append(OrderPlace(row.customer_id, order_id, version, row.status, row.total_minor, at_ms))
    if owner and (row is None or owner != row.customer_id):
        places.append(OrderPlace(owner, order_id, version, "", 0, at_ms))
    return places


def without_personal(table: str, image: msgspec.Raw, hash_key: bytes | None) -> str | None:
    """A row as it may leave the job; None for none.

    Args:
      hash_key: for HMAC-SHA256 of the columns that are to be hashed. Without one they are dropped: a hash that needs no
        key is found again by trying addresses and numbers.

    Raises: MalformedChangeError.
    """
    if image == _NULL:
        return None
    try:
        columns = PERSONAL.get(table)
        if columns is None:
            return bytes(image).decode()
        row = _object(image)
    except _UNREADABLE as e:
        raise MalformedChangeError(str(e)) from None
    for name, what in columns.items():
        value = row.get(name)
        if value is None:
            continue
        if what == "hash" and hash_key:
            row[name] = hmac.new(hash_key, str(value).encode(), "sha256").hexdigest()
        else:
            del row[name]
    return _json(row).decode()


def without_personal_letter(payload: bytes | None) -> bytes | None:
    """A refused record as it may leave the job: the same bytes, or, where rows in it have personal columns, JSON
    without those. What is no JSON object cannot be looked into and stays as it is."""
    if payload is None:
        return None
    try:
        record = _object(payload)
    except _UNREADABLE:
        return payload
    return _json(record) if _drop_personal(record) else payload


def _drop_personal(record: dict[str, Any]) -> bool:
    """Whether there was something. A record of a file may have its envelope in `value`, as an object or as text."""
    names = {name for columns in PERSONAL.values() for name in columns}
    dropped = False
    for image in (record.get("before"), record.get("after")):
        if isinstance(image, dict):
            for name in names & image.keys():
                del image[name]
                dropped = True
    inner = record.get("value")
    if isinstance(inner, dict):
        dropped |= _drop_personal(inner)
    elif isinstance(inner, str):
        cleaned = without_personal_letter(inner.encode())
        if cleaned is not None and cleaned != inner.encode():
            record["value"], dropped = cleaned.decode(), True
    return dropped


def history_row(change: Change, hash_key: bytes | None) -> CdcChange:
    """A change as a row of table cdc_changes.

    Raises: MalformedChangeError.
    """
    return CdcChange(
        table_name=change.table,
        key=_sorted_json(change.key).decode() if change.key else "",
        op=change.op,
        before=without_personal(change.table, change.before, hash_key),
        after=without_personal(change.table, change.after, hash_key),
        event_time=change.event_time_ms,
        lsn=change.lsn,
        tx_id=change.tx_id,
        snapshot=change.snapshot,
        version=change.version,
        deleted=change.op in ("d", "t"),
    )
