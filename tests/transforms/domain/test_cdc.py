"""Which change is newest, what crosses a threshold, whose an order is, and what is personal."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests
from schemas.events import LowStockAlert
from tests.build import T0
from tests.changes import CUSTOMER, ITEM, MOVEMENT, ORDER, envelope, product, record, version_at
from transforms.domain.cdc import (
    Change,
    Known,
    MalformedChangeError,
    OrderPlace,
    alert_of,
    crosses,
    customer_of,
    history_row,
    order_places,
    parse,
    product_of,
    without_personal_letter,
)
from transforms.domain.cdc_places import SPAN_MS

REAL = Path(tests.__file__).parent / "cdc" / "records.jsonl"


def change(op: str, table: str, before: Any = None, after: Any = None, **how: Any) -> Change:
    found = parse(*record(op, table, before, after, **how))
    assert found is not None
    return found


def stock_of(version: int, stock: int, before: int | None, threshold: int = 10, op: str = "u") -> Any:
    was = None if before is None else product(stock=before, low_stock_threshold=threshold)
    return product_of(change(op, "products", was, product(stock=stock, low_stock_threshold=threshold), lsn=version))


# What Debezium really sends.


def test_every_real_record_is_read_and_only_tombstones_hold_nothing() -> None:
    kinds: dict[tuple[str, str], int] = {}
    for line in REAL.read_text(encoding="utf-8").splitlines():
        real = json.loads(line)
        if real["value"] is None:
            continue
        moved = any(name == "__debezium.oldkey" for name, _ in real["headers"])
        found = parse(real["key"] and real["key"].encode(), real["value"].encode(), moved)
        assert found is not None
        assert found.table == real["topic"].rpartition(".")[2]
        assert found.key == (json.loads(real["key"]) if real["key"] else {})
        assert len(found.version) == 44
        row = history_row(found, None)
        assert json.loads(row.after or "null") == without(json.loads(real["value"])["after"])
        kinds[found.op, found.snapshot.partition("_")[0]] = kinds.get((found.op, found.snapshot), 0) + 1
    assert {op for op, _ in kinds} == {"r", "c", "u", "d", "t"}
    assert ("r", "incremental") in kinds


def without(row: dict[str, Any] | None) -> dict[str, Any] | None:
    return row and {name: value for name, value in row.items() if name not in ("email", "full_name", "phone")}


def test_in_the_order_in_which_debezium_sends_them_the_versions_of_a_row_grow() -> None:
    newest: dict[tuple[str, str], str] = {}
    reads = 0
    lines = [json.loads(line) for line in REAL.read_text(encoding="utf-8").splitlines()]
    for real in sorted(lines, key=lambda r: (r["topic"], r["partition"], r["offset"])):
        if real["value"] and real["key"]:
            found = parse(real["key"].encode(), real["value"].encode())
            assert found is not None
            place = (real["topic"], real["key"])
            assert found.version > newest.get(place, "")
            reads += found.snapshot == "incremental" and place in newest
            newest[place] = found.version
    assert reads > 0


# Versions.


def test_a_change_is_newer_than_a_row_that_was_read_after_it_was_written_and_before_it_was_committed() -> None:
    # A transaction writes at 90, a snapshot reads at 100 what was committed by 80, then the transaction commits.
    read = change("r", "products", after=product(), lsn=None, own=100, commit=80, snapshot="incremental")
    committed_before = change("u", "products", after=product(), lsn=70, commit=60)
    committed_after = change("u", "products", after=product(), lsn=90, commit=110)
    assert committed_before.version < read.version < committed_after.version


def test_before_debezium_has_seen_a_commit_the_place_in_the_log_decides() -> None:
    snapshot = change("r", "products", after=product(), lsn=100, commit=None, snapshot="first")
    first = change("u", "products", after=product(), lsn=130, commit=None)
    second = change("u", "products", after=product(), lsn=150, commit=140)
    again = change("r", "products", after=product(), lsn=200, commit=None, snapshot="true")
    assert snapshot.version < first.version < second.version < again.version


@given(st.lists(st.tuples(st.integers(0, (1 << 63) - 1), st.integers(0, (1 << 63) - 1)), min_size=2, max_size=20))
def test_versions_compare_as_places_in_the_order_of_commits_do(places: list[tuple[int, int]]) -> None:
    versions = {
        place: change("u", "products", after=product(), lsn=place[1], commit=place[0]).version for place in places
    }
    assert sorted(versions) == sorted(versions, key=versions.__getitem__)


def test_a_record_without_sequence_has_its_lsn() -> None:
    found = change("u", "products", after=product(), lsn=7, sequence=None)
    assert (found.lsn, found.version) == (7, version_at(7))


# Servers.

MINUTE_MS = 60_000
LATER = T0 + 86_400_000


def at_place(lsn: int, at: int, epoch: str | None = None) -> str:
    key, value = record("u", "products", product(), product(), lsn=lsn, at=at)
    found = parse(key, json.dumps(json.loads(value) | {"epoch": epoch}).encode())
    assert found is not None
    return found.version


def test_a_server_that_was_captured_later_is_newer_wherever_its_log_begins() -> None:
    old, new = f"{T0}/7577/1", f"{T0 + 1}/7578/1"
    before = [at_place(lsn, T0, old) for lsn in (97_000, 98_000, 1 << 62)]
    after = [at_place(lsn, T0, new) for lsn in (1, 2, 3)]
    assert sorted(after + before) == before + after
    assert at_place(99, LATER, old) < at_place(1, T0, new)  # a late repeat, or the old server still running


def test_in_one_server_the_place_alone_decides_whatever_the_clock_says() -> None:
    epoch = f"{T0}/7577/1"
    assert at_place(100, LATER, epoch) < at_place(101, T0 - 3 * 86_400_000, epoch)


def test_without_an_epoch_the_time_decides_between_spans_and_the_place_within_one() -> None:
    span = T0 - T0 % SPAN_MS
    assert at_place(97_000_000, span) < at_place(1, span + SPAN_MS) < at_place(2, span + SPAN_MS)
    assert at_place(100, span + SPAN_MS - 1) < at_place(101, span)
    assert at_place(1 << 62, T0) < at_place(1, LATER, f"{LATER - MINUTE_MS}/7578/1") < at_place(1, LATER + SPAN_MS)


def test_what_was_written_before_there_were_epochs_is_older() -> None:
    position = 1 << 56  # 72,000 TB of log
    assert f"{position:016x}" * 2 < at_place(1, T0)


@pytest.mark.parametrize("epoch", ["", "x/1/1", "-1/1/1", "0/1/1", "١/1/1", "253402300800000/1/1", "9" * 5000])
def test_an_epoch_that_is_none_is_refused(epoch: str) -> None:
    with pytest.raises(MalformedChangeError, match="epoch does not begin with a time"):
        at_place(1, T0, epoch)


# What is refused.


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"[]", "Expected `object`"),
        (b"null", "Expected `object`"),
        (b"\xff", "malformed"),
        (b'{"op":"c"}', "`source`"),
        ({"op": "x"}, "Invalid enum"),
        ({"source": None}, "Expected `object`"),
        ({"after": None}, "without the row after"),
        ({"after": []}, "Expected `object`"),
        ({"after": {"product_id": ""}}, ""),
        ({"after": product(product_id="p" * 257)}, "$.product_id"),
        ({"after": product(product_id="p\n")}, "$.product_id"),
        ({"after": product(product_id="p\x85")}, "$.product_id"),
        ({"after": product(stock="7")}, "$.stock"),
        ({"after": product(stock=1 << 31)}, "$.stock"),
        ({"after": product(price_minor=1.5)}, "$.price_minor"),
        ({"after": {k: v for k, v in product().items() if k != "name"}}, "`name`"),
        ({"source": envelope("u", "secrets")["source"]}, "table is not one of"),
        ({"source": envelope("u", "products", lsn=None)["source"]}, "neither lsn nor sequence"),
        ({"source": envelope("u", "products", lsn=-1)["source"]}, "$.source.lsn"),
        ({"source": envelope("u", "products", commit=-1)["source"]}, "out of range"),
        ({"source": envelope("u", "products", commit=1 << 63)["source"]}, "out of range"),
        ({"source": envelope("u", "products", sequence="[]")["source"]}, "positions"),
        ({"source": envelope("u", "products", sequence="{")["source"]}, "positions"),
        ({"source": envelope("u", "products", sequence='["x","1"]')["source"]}, "positions"),
        ({"source": envelope("u", "products", at=0)["source"]}, "$.source.ts_ms"),
        ({"source": envelope("u", "products", at=253_402_300_800_000)["source"]}, "$.source.ts_ms"),
        (b'{"op":"u","source":' + b"[" * 100_000, ""),
    ],
)
def test_what_is_no_change_is_refused_and_the_reason_shows_no_value(value: Any, why: str) -> None:
    if isinstance(value, dict):
        value = json.dumps(envelope("u", "products", None, product(name="gizli")) | value).encode()
    with pytest.raises(MalformedChangeError) as refused:
        parse(b"{}", value)
    assert why in str(refused.value)
    assert "gizli" not in str(refused.value)


def test_a_deleted_row_needs_its_key_and_takes_it_from_the_row_before_or_from_the_record() -> None:
    assert change("d", "order_items", before=ITEM).key == {"order_id": "o-1", "line_no": 1}
    bare = json.dumps(envelope("d", "products")).encode()
    found = parse(b'{"product_id":"p-9"}', bare)
    assert found is not None
    assert found.key == {"product_id": "p-9"}
    for key in (
        None,
        b"{}",
        b'{"product_id":""}',
        b'{"product_id":"p\\n"}',
        b'{"product_id":null}',
        b'{"product_id":[]}',
        b"[]",
        b"{",
    ):
        with pytest.raises(MalformedChangeError):
            parse(key, bare)


def test_a_message_in_the_log_says_nothing_of_a_row() -> None:
    value = {"op": "m", "source": envelope("m", "")["source"], "message": {"prefix": "x", "content": "eA=="}}
    assert parse(b'{"prefix":"x"}', json.dumps(value).encode()) is None


def test_an_emptied_table_has_no_key() -> None:
    found = change("t", "orders")
    assert (found.table, found.op, found.key, found.row) == ("orders", "t", {}, None)


# Columns that the database did not tell.

PLACEHOLDERS = [
    "__debezium_unavailable_value",
    "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==",
    ["__debezium_unavailable_value"],
    list(b"__debezium_unavailable_value"),
    {"__debezium_unavailable_value": "__debezium_unavailable_value"},
    {"a": [1, {"b": "__debezium_unavailable_value"}]},
]


@pytest.mark.parametrize("column", ["name", "category", "currency", "product_id"])
def test_a_column_that_is_needed_and_was_not_told_refuses_the_change(column: str) -> None:
    with pytest.raises(MalformedChangeError) as refused:
        change("u", "products", None, product(**{column: PLACEHOLDERS[0]}))
    assert str(refused.value) == f"{column} was not told: table products needs REPLICA IDENTITY FULL"


@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
def test_a_column_that_nobody_needs_and_was_not_told_is_left_out(placeholder: Any) -> None:
    rows = [product(notes=placeholder, about="of __debezium_unavailable_value", stock=stock) for stock in (12, 9)]
    found = change("u", "products", *rows)
    row = history_row(found, None)
    kept = [{name: value for name, value in each.items() if name != "notes"} for each in rows]
    assert [json.loads(row.before or ""), json.loads(row.after or "")] == kept
    assert (product_of(found).stock, product_of(found).was_low) == (9, False)


@pytest.mark.parametrize("op", ["u", "d"])
@pytest.mark.parametrize(
    "before", [None, {"order_id": "o-1"}, ORDER | {"customer_id": ""}, ORDER | {"customer_id": PLACEHOLDERS[0]}]
)
def test_an_order_whose_customer_before_is_not_told_is_refused(op: str, before: dict[str, Any] | None) -> None:
    after = ORDER | {"customer_id": "k-2"} if op == "u" else None
    value = envelope(op, "orders", before, after)
    found = parse(b'{"order_id":"o-1"}', json.dumps(value).encode())
    assert found is not None
    with pytest.raises(MalformedChangeError, match="table orders needs REPLICA IDENTITY FULL"):
        order_places(found)


# Products and their stock.


@pytest.mark.parametrize(
    ("updated_at", "ms"),
    [
        ("infinity", 253_402_300_799_999),
        ("-infinity", 0),
        ("9999-12-31T23:59:59-05:00", 253_402_300_799_999),
        ("0001-01-01T00:00:00+05:00", 0),
        ("-4712-01-01T00:00:00Z", 0),
        ("-0043-03-15T12:00:00.5Z", 0),
        ("+10000-01-01T00:00:00Z", 253_402_300_799_999),
        ("+294247-01-10T04:00:54.775807Z", 253_402_300_799_999),
        ("+292278994-08-17T07:12:55.807Z", 253_402_300_799_999),
        ("1969-12-31T23:59:59Z", 0),
        ("2026-09-21T14:13:20.123456Z", 1_790_000_000_123),
        ("2026-09-21T17:13:20.123456+03:00", 1_790_000_000_123),
        ("2026-09-21T14:13:20.123456789Z", 1_790_000_000_123),
        ("2026-09-21T14:13:20", 1_790_000_000_000),
    ],
)
def test_a_time_that_no_sink_can_write_is_clamped_and_costs_no_other_column(updated_at: str, ms: int) -> None:
    found = product_of(change("u", "products", None, product(updated_at=updated_at, stock=7)))
    assert (found.updated_ms, found.stock, found.name) == (ms, 7, "Çay bardağı")


@pytest.mark.parametrize("updated_at", ["", "dün", "2026-13-01T00:00:00Z", "+1-1-1T00:00:00Z"])
def test_a_time_that_is_none_is_refused_and_not_shown(updated_at: str) -> None:
    with pytest.raises(MalformedChangeError, match=r"^updated_at is not an ISO 8601 time$"):
        product_of(change("u", "products", None, product(updated_at=updated_at)))


def test_a_product_is_what_its_row_says_with_the_time_that_the_row_says() -> None:
    found = product_of(change("c", "products", after=product(rating=5), lsn=9, at=T0 + 1))
    assert found._asdict() == {
        "product_id": "p-1",
        "version": version_at(9),
        "exists": True,
        "name": "Çay bardağı",
        "category": "mutfak",
        "price_minor": 12_990,
        "currency": "TRY",
        "stock": 50,
        "low_stock_threshold": 10,
        "updated_ms": 1_790_000_000_123,
        "event_time_ms": T0 + 1,
        "was_low": False,
    }
    gone = product_of(change("d", "products", before=product(stock=1)))
    assert (gone.exists, gone.low, gone.product_id) == (False, False, "p-1")


@pytest.mark.parametrize(
    ("before", "after", "crossed"),
    [(11, 10, True), (11, 11, False), (10, 9, False), (10, 11, False), (50, -1, True), (10, 10, False)],
)
def test_stock_crosses_when_it_comes_to_the_threshold_from_above(before: int, after: int, crossed: bool) -> None:
    assert crosses(stock_of(1, after, before), None) is crossed


def test_a_threshold_that_rises_above_the_stock_is_crossed_too_and_one_that_falls_re_arms() -> None:
    low, high = product(stock=20, low_stock_threshold=20), product(stock=20, low_stock_threshold=19)
    assert crosses(product_of(change("u", "products", high, low)), None)
    assert not crosses(product_of(change("u", "products", low, high)), None)


def test_a_product_that_begins_low_crosses_unless_it_only_changed_its_key() -> None:
    row = product(stock=3)
    assert crosses(product_of(change("c", "products", None, row)), None)
    moved = parse(*record("c", "products", None, row), moved=True)
    assert moved is not None
    assert not crosses(product_of(moved), None)


def test_a_row_that_is_read_or_says_nothing_of_before_crosses_only_what_is_known_not_to_be_low() -> None:
    for op in ("r", "u"):
        seen = stock_of(5, 3, None, op=op)
        assert not crosses(seen, None)
        assert not crosses(seen, Known(stock_of(4, 3, None).version, True, 0))
        assert crosses(seen, Known(stock_of(4, 30, None).version, False, 0))
        assert not crosses(seen, Known(stock_of(6, 30, None).version, False, 0))


def test_an_alert_is_named_for_product_and_change_and_says_what_the_change_says() -> None:
    found = stock_of(0xAB, 7, 12)
    wanted = hashlib.sha256(b'["LOW_STOCK","p-1","00000000000000ab"]').hexdigest()[:32]
    assert alert_of(found) == LowStockAlert(wanted, "p-1", "Çay bardağı", "mutfak", 7, 10, T0, version_at(0xAB))
    ids = {alert_of(stock_of(v, 7, 12)).alert_id for v in range(1, 100)}
    assert len(ids) == 99


# Orders.


def test_an_order_is_its_customers_and_one_that_is_deleted_or_moved_is_no_more() -> None:
    version = version_at(100)
    mine = OrderPlace("k-1", "o-1", version, "CREATED", 25_980, T0)
    not_mine = OrderPlace("k-1", "o-1", version, "", 0, T0)
    other = ORDER | {"customer_id": "k-2"}
    assert order_places(change("c", "orders", None, ORDER)) == [mine]
    assert order_places(change("r", "orders", None, ORDER)) == [mine]
    assert order_places(change("u", "orders", ORDER, ORDER)) == [mine]
    assert order_places(change("d", "orders", ORDER)) == [not_mine]
    assert order_places(change("u", "orders", ORDER, other)) == [mine._replace(customer_id="k-2"), not_mine]


def test_a_deleted_order_of_nobody_is_refused_and_the_reason_names_the_remedy() -> None:
    deleted = parse(b'{"order_id":"o-1"}', json.dumps(envelope("d", "orders")).encode())
    assert deleted is not None
    with pytest.raises(MalformedChangeError, match="REPLICA IDENTITY FULL"):
        order_places(deleted)


def test_a_customer_is_there_or_not() -> None:
    there = customer_of(change("u", "customers", CUSTOMER, CUSTOMER))
    assert there[:1] + there[2:] == ("k-1", True, "TR-34", T0)
    assert customer_of(change("d", "customers", CUSTOMER)).exists is False
    assert customer_of(change("c", "customers", None, CUSTOMER | {"region": None})).region == ""


# The history, and what is personal.


def test_the_history_keeps_columns_that_nobody_knows_here() -> None:
    row = history_row(change("u", "products", product(), product(rating=4, notes=["a"]), lsn=9, commit=8), None)
    assert json.loads(row.after or "") == product(rating=4, notes=["a"])
    assert json.loads(row.before or "") == product()
    assert (row.table_name, row.key, row.op, row.lsn, row.tx_id, row.snapshot, row.deleted) == (
        *("products", '{"product_id":"p-1"}', "u", 9, 742, "false"),
        False,
    )
    assert history_row(change("d", "order_items", ITEM), None).key == '{"line_no":1,"order_id":"o-1"}'
    assert history_row(change("c", "inventory_movements", None, MOVEMENT), None).key == '{"movement_id":1}'
    assert [history_row(change(op, "orders", ORDER), None).deleted for op in "dt"] == [True, True]


def test_personal_columns_are_dropped_or_with_a_key_hashed_with_it() -> None:
    moved_out = CUSTOMER | {"phone": None, "email": "x@y.z"}
    for key in (None, b"0123456789abcdef"):
        row = history_row(change("u", "customers", CUSTOMER, moved_out), key)
        text = msgspec.json.encode(row).decode()
        for secret in ("ayse", "Ayşe", "Yılmaz", "555", "x@y.z", "full_name"):
            assert secret not in text
        before = json.loads(row.before or "")
        assert before["region"] == "TR-34"
        assert before.get("email") == (key and hmac.new(key, b"ayse@example.com", "sha256").hexdigest())


@given(st.data())
def test_no_personal_value_leaves_in_a_dead_letter_that_is_json(data: Any) -> None:
    row = CUSTOMER | {"region": data.draw(st.none() | st.text(max_size=4))}
    broken = envelope(data.draw(st.sampled_from("cudx")), "customers", row, row)
    del broken["source"][data.draw(st.sampled_from(sorted(broken["source"])))]
    value = json.dumps(broken)
    for payload in (value, json.dumps({"key": None, "value": value}), json.dumps({"key": None, "value": broken})):
        cleaned = without_personal_letter(payload.encode())
        assert cleaned is not None
        for secret in ("ayse@", "Y\\u0131lmaz", "Yılmaz", "555 000"):
            assert secret not in cleaned.decode()
        assert b"TR" in cleaned or row["region"] != "TR-34"


@pytest.mark.parametrize(
    "payload",
    [None, b"", b"{", b"\xff\x00", b"7", b'{"before":7,"after":[]}', b'{ "after": {"stock": 1} }', b"[" * 99_999],
)
def test_a_dead_letter_without_personal_columns_keeps_its_bytes(payload: bytes | None) -> None:
    assert without_personal_letter(payload) == payload


# Order of arrival.


class Shop:
    """Products as a database changes them, one transaction after another."""

    def __init__(self, seed: int):
        self._random = random.Random(seed)
        self.rows: dict[str, dict[str, Any]] = {}
        self.changes: list[tuple[str, Any, Any, int]] = []

    def play(self, steps: int) -> None:
        for step in range(1, steps + 1):
            name = f"p-{self._random.randrange(4)}"
            old = self.rows.get(name)
            lsn = step * 10
            if old is None:
                new = product(product_id=name, stock=self._random.randrange(25))
                self._put("c", None, new, lsn)
            elif self._random.random() < 0.15:
                self._put("d", old, None, lsn)
            elif self._random.random() < 0.1:  # its key changes; a free one may be one that was there before
                free = f"p-{self._random.randrange(4)}"
                if free not in self.rows:
                    self._put("d", old, None, lsn)
                    self._put("c", None, old | {"product_id": free}, lsn)
            else:
                self._put("u", old, old | {"stock": self._random.randrange(25)}, lsn)

    def _put(self, op: str, before: Any, after: Any, lsn: int) -> None:
        self.changes.append((op, before, after, lsn))
        if after is None:
            del self.rows[before["product_id"]]
        else:
            self.rows[after["product_id"]] = after


@given(st.integers(0, 10_000), st.data())
def test_whatever_order_and_however_often_changes_come_the_newest_rows_are_the_tables_and_alerts_are_the_same(
    seed: int, data: Any
) -> None:
    shop = Shop(seed)
    shop.play(40)
    products = [
        product_of(change(op, "products", before, after, lsn=lsn, commit=lsn - 5))
        for op, before, after, lsn in shop.changes
    ]
    in_order = {alert_of(p).alert_id for p in products if crosses(p, None)}
    shuffled = data.draw(st.permutations(products + products[::3]))
    newest: dict[str, Any] = {}
    for each in shuffled:
        if each.product_id not in newest or newest[each.product_id].version < each.version:
            newest[each.product_id] = each
    assert {i: p.stock for i, p in newest.items() if p.exists} == {i: row["stock"] for i, row in shop.rows.items()}
    assert {alert_of(p).alert_id for p in shuffled if crosses(p, None)} == in_order
    # Once for each time it fell, whatever was in between.
    falls = sum(
        (after["stock"] <= 10) and (before is None or before["stock"] > 10)
        for _, before, after, _ in shop.changes
        if after is not None
    )
    assert len(in_order) == falls


@pytest.mark.parametrize("key", [7, None, "", "a\x00b", ["p-1"], True, "x" * 257])
def test_a_deleted_row_whose_key_is_of_another_type_is_malformed(key: Any) -> None:
    value = envelope("d", "products", product(product_id=key), None)
    with pytest.raises(MalformedChangeError, match="without the row's primary key"):
        parse(None, json.dumps(value).encode())
