"""The steps by themselves: what a block becomes, and the state of products after failures."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.build import T0
from tests.changes import CUSTOMER, ITEM, ORDER, product, record, version_at
from tests.transforms.test_keyed_state import Cells
from transforms.blocks import NO_WATERMARK_MS, Block
from transforms.cdc import ChangeDecoding, _decode_products, _DecodeChangesFn, _encode, _snapshot, _TrackStockFn, track
from transforms.domain.cdc import Customer, Known, OrderPlace, Product, alert_of, crosses
from transforms.errors import BadRecord
from transforms.key_groups import MAX_PARALLELISM, shard_keys
from transforms.keyed_state import shard_of
from transforms.ledger import Counts

DAY = 24 * 3_600_000


def block(*records: tuple[bytes | None, bytes | None], headers: Any = None) -> Block:
    values = [value or b"" for _, value in records]
    count = len(records)
    return Block(
        topic="cdc.public.products",
        partition=3,
        data=b"".join(values),
        bounds=np.cumsum([0, *map(len, values)]),
        offsets=np.arange(70, 70 + count),
        times_ms=np.full(count, T0),
        watermarks_ms=np.full(count, NO_WATERMARK_MS),
        keys=[key for key, _ in records],
        headers=headers or {},
        nulls=frozenset(i for i, (_, value) in enumerate(records) if value is None),
    )


def decoded(a_block: Block, history: bool = False) -> dict[str, list[Any]]:
    fn = _DecodeChangesFn(ChangeDecoding("cdc-processor", 8, history, lambda: None))
    fn.setup()
    found: dict[str, list[Any]] = {}
    for each in fn.process(a_block):
        tag = getattr(each, "tag", "products")
        found.setdefault(tag, []).append(each if tag == "products" else each.value)
    return found


def test_a_block_becomes_one_element_for_each_that_wants_some_of_it() -> None:
    moved = {"customer_id": "k-2"}
    records = [
        record("u", "products", product(), product(stock=3)),
        record("c", "products", None, product(product_id="p-1", stock=2), lsn=200),
        record("d", "customers", CUSTOMER),
        record("u", "orders", ORDER, ORDER | moved),
        record("c", "order_items", None, ITEM),
        record("t", "orders", lsn=300),
        (b'{"product_id":"p-1"}', None),
        (b'{"product_id":"p-1"}', b""),
    ]
    found = decoded(block(*records, headers={1: [("__debezium.oldkey", b"{}")], 0: [("x", None)]}))
    ((shard, products),) = found["products"]
    assert shard == shard_keys(8, MAX_PARALLELISM)[shard_of(b"p-1", 8)]
    assert [(p.stock, p.was_low) for p in _decode_products(products)] == [(3, False), (2, None)]
    version = version_at(100)
    assert found["customers"] == [[Customer("k-1", version, False, "", T0)]]
    places = [OrderPlace("k-2", "o-1", version, "CREATED", 25_980, T0), OrderPlace("k-1", "o-1", version, "", 0, T0)]
    assert found["orders"] == [places]
    assert found["emptied"] == [[("orders", version_at(300))]]
    assert "history" not in found
    (letter,) = found["bad"]
    assert isinstance(letter, BadRecord)
    assert (letter.payload, letter.offset, letter.partition, letter.key) == (b"", 77, 3, b'{"product_id":"p-1"}')
    assert found["counts"] == [Counts(6, 5, 1)]
    assert len(decoded(block(*records), history=True)["history"]) == 6


def test_a_change_that_is_refused_late_leaves_nothing_behind() -> None:
    key, value = record("u", "products", product(stock="?"), product())
    found = decoded(block((key, value)), history=True)
    assert found.keys() == {"bad", "counts"}


def test_a_letter_of_a_customer_has_no_personal_column() -> None:
    key, value = record("u", "customers", CUSTOMER, CUSTOMER | {"customer_id": 7})
    (letter,) = decoded(block((key, value)))["bad"]
    assert json.loads(letter.payload)["before"].keys() == {"customer_id", "region", "created_at", "updated_at"}


def of(product_id: str, number: int, stock: int, was_low: bool | None = None, exists: bool = True) -> Product:
    fields = ("Çay", "mutfak", 100, "TRY", stock, 10)
    return Product(product_id, f"{number:032x}", exists, *fields, T0, T0 + number * DAY, was_low)


changes = st.lists(
    st.builds(
        of,
        st.sampled_from(["p-1", "p-2", "p-3"]),
        st.integers(1, 12),
        st.integers(5, 15),
        st.none() | st.booleans(),
        st.booleans(),
    ),
    max_size=25,
    unique_by=lambda p: (p.product_id, p.version),
)


@given(changes, st.data())
def test_the_newest_stays_repeats_are_counted_and_what_says_what_was_before_alerts_in_any_order(
    all_changes: list[Product], data: Any
) -> None:
    arriving = data.draw(st.permutations(all_changes)) + data.draw(st.lists(st.sampled_from(all_changes or [None])))
    arriving = [each for each in arriving if each is not None]
    state: dict[str, Known] = {}
    alerts, passed = set(), []
    for each in arriving:
        newest, found = track(state, [each])
        passed += newest
        alerts |= {alert.alert_id for alert in found}
    for product_id in {p.product_id for p in all_changes}:
        latest = max((p for p in all_changes if p.product_id == product_id), key=lambda p: p.version)
        assert state[product_id][:2] == (latest.version, latest.low)
        versions = [p.version for p in passed if p.product_id == product_id]
        assert versions == sorted(set(versions))
        assert versions[-1] == latest.version
    sure = {alert_of(p).alert_id for p in all_changes if p.was_low is not None and crosses(p, None)}
    assert sure <= alerts
    assert alerts <= {alert_of(p).alert_id for p in all_changes if p.low and p.was_low is not True}


class _Step:
    """The step of one shard, on a worker that can be replaced."""

    def __init__(self) -> None:
        self.cells = Cells()
        self.new_worker()

    def new_worker(self) -> None:
        self._fn = _TrackStockFn()
        self._fn.setup()

    def __call__(self, *batch: Product) -> tuple[list[str], Counts]:
        self._fn.start_bundle()
        out = list(self._fn.process((1, _encode(list(batch))), self.cells.token, self.cells.log))
        (counts,) = [tagged.value.value for tagged in self._fn.finish_bundle()]
        return [each.tag if hasattr(each, "tag") else "products" for each in out], counts


def test_a_new_worker_knows_what_the_last_one_knew() -> None:
    step = _Step()
    assert step(of("p-1", 1, 50)) == (["products"], Counts(1, 1))
    step.new_worker()
    assert step(of("p-1", 1, 50), of("p-1", 2, 3)) == (["products", "alerts"], Counts(2, 1, duplicates=1))
    step.new_worker()
    assert step(of("p-1", 2, 3)) == ([], Counts(1, 0, duplicates=1))


def test_state_stays_in_proportion_to_the_products_and_forgets_deleted_ones_after_a_week() -> None:
    step = _Step()
    for number in range(1, 4_000):
        step(of(f"p-{number % 5}", number, 50, exists=number < 3_000 or number % 5 > 0))
    assert sum(map(len, step.cells.log.read())) < 200_000
    state = {"gone": Known("1", False, T0), "back": Known("2", False, 0), "new": Known("3", False, T0 + 7 * DAY + 1)}
    _snapshot(state)
    assert state.keys() == {"back", "new"}
