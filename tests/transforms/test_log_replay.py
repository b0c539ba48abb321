"""A shard that moves, loses its memory and is restored does what one does that never left its worker, output by output.

Repeats come after their first has expired, too: whether one counts must not depend on where the shard was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.currencies import number_of
from tests.transforms.test_gather import DUE_MS, Rows, _Timer
from tests.transforms.test_keyed_state import Cells
from transforms import keyed_state
from transforms.archive import CLICKSTREAM, Store
from transforms.archive_topic import _ArchiveTopicFn
from transforms.domain.fraud import alert_id, order_flags
from transforms.domain.fraud_rules import default_rules, parse_rules
from transforms.fraud import _DetectFraudFn
from transforms.gather import _GatherFn
from transforms.keyed_state import Shards
from transforms.ledger import Counts
from transforms.revenue import RevenueGathering
from transforms.sessions import ClickGathering
from transforms.sharded_rows import encode_rows

KEEP_MS = 120_000
GAP_MS = 60_000
RULES = default_rules()
MORE_RULES = parse_rules(
    "{version: 2, currency: TRY, rules: {R: {kind: distinct, of: items.category, at_least: 2, within: 1m, "
    "where: {session_id: s-1}, risk_score: 0.5}}}"
)
Operation = tuple[str, Any]


@pytest.fixture(autouse=True, scope="module")
def logs_are_rewritten_early() -> Iterator[None]:
    known, keyed_state._SMALL_LOG_BYTES = keyed_state._SMALL_LOG_BYTES, 600
    yield
    keyed_state._SMALL_LOG_BYTES = known


class Worker:
    """One shard of a stateful step, with the state and the timers that a runner keeps for it, and what came out."""

    def __init__(self, make: Callable[[], Any]):
        self.make, self.cells = make, Cells()
        self.expiry, self.flush = _Timer(), _Timer()
        self.out: list[Any] = []
        self.move()
        self.left = self.fn
        self.move()

    def move(self) -> None:
        self.fn = self.make()
        self.fn.setup()

    def move_back(self) -> None:
        """To the worker that had the shard before this one, and still has a copy."""
        self.fn, self.left = self.left, self.fn

    def state(self) -> bytes:
        """What a new worker reads from the log."""
        fn = self.make()
        fn.setup()
        live = _shards(fn).open(0, self.cells.token, self.cells.log)
        return _shards(fn)._snapshot(live.state) if live.state else b""

    def is_what_the_log_says(self) -> None:
        """After each firing, not only when everything has expired: then any log is rewritten."""
        shards = _shards(self.fn)
        live = shards.open(0, self.cells.token, self.cells.log)
        shards.keep(0, live)
        held = shards._snapshot(live.state) if live.state else b""
        assert held == self.state(), "the log does not say what the worker holds"

    def rows(self, batch: bytes) -> None:
        self.fn.start_bundle()
        timers = {_DetectFraudFn: [self.expiry], _ArchiveTopicFn: [self.expiry, self.flush, _Timer()]}
        given_timers = timers.get(type(self.fn), [self.expiry, self.flush])
        found = self.fn.process((0, batch), self.cells.token, self.cells.log, *given_timers)
        self.out += [self._seen(o) for o in found or ()]
        self.out += [o.value.value for o in self.fn.finish_bundle()]

    def fires_flush(self) -> None:
        if self.flush.at is not None:
            self.flush.at = None
            self.out += map(self._seen, self.fn.flush(0, self.cells.token, self.cells.log, self.flush))

    def reaches(self, watermark_ms: int, then: Callable[[], None] = lambda: None) -> None:
        """Fires what is due; `then` is called after each firing."""
        for _ in range(1_000):
            if self.expiry.at is None or self.expiry.at.micros > watermark_ms * 1000:
                return
            at, self.expiry.at = self.expiry.at, None
            found = self.fn.expire(0, at, self.cells.token, self.cells.log, self.expiry)
            self.out += map(self._seen, found or ())
            then()
        raise AssertionError("the timer fires for ever")

    def checkpoint(self) -> Any:
        memory = _shards(self.fn)._memory._copies
        return copy.deepcopy((self.cells.token.value, self.cells.log.entries, self.expiry, self.flush, memory))

    def restore(self, checkpoint: Any) -> None:
        self.cells.committed = checkpoint[:2]
        self.cells.rollback()
        _, _, self.expiry, self.flush, _shards(self.fn)._memory._copies = copy.deepcopy(checkpoint)

    @staticmethod
    def _seen(output: Any) -> Any:
        if isinstance(output, beam.pvalue.TaggedOutput):
            output = output.value
        value = getattr(output, "value", output)
        return getattr(value, "alert_id", value)


def _shards(fn: Any) -> Shards[Any]:
    shards: Shards[Any] = fn._timely if isinstance(fn, _ArchiveTopicFn) else fn._shards
    return shards


def a_row(id_: str, at_ms: int) -> Any:
    return (id_, at_ms)


def a_click(id_: str, at_ms: int) -> Any:
    return (f"u-{ord(id_[0]) % 2}", id_, at_ms, ord(id_[-1]) % 5, "web", "Izmir", None, 7)


def an_order(id_: str, at_ms: int) -> Any:
    return (f"u-{ord(id_[0]) % 2}", id_, at_ms, 700, "Izmir", False, [("toys", 700)])


def a_fraud_row(id_: str, at_ms: int) -> Any:
    return (f"u-{ord(id_[0]) % 2}", (at_ms, id_, order_flags(0, 1, number_of(RULES.currency)), 900_000, "Izmir"))


def a_row_with_more(id_: str, at_ms: int) -> Any:
    user, order = a_fraud_row(id_, at_ms)
    return (user, (*order, (MORE_RULES.bits, "s-1", [id_, "toys"])))


def an_archived_row(id_: str, at_ms: int) -> Any:
    return (at_ms, at_ms, id_, id_.encode())


def a_batch(step: str, rows: list[Any]) -> bytes:
    return encode_rows([None, sorted(rows)] if step == "archive" else rows)


STEPS: dict[str, tuple[Callable[[], Any], Callable[[str, int], Any]]] = {
    # So long between flushes that none is put off for a backlog: a worker knows of that only while it has the shard.
    "rows": (lambda: _GatherFn(Rows(), 1e6), a_row),
    "clicks": (lambda: _GatherFn(ClickGathering(GAP_MS, KEEP_MS), 1e6), a_click),
    "clicks that are cut": (lambda: _GatherFn(ClickGathering(GAP_MS, KEEP_MS, 2 * KEEP_MS), 1e6), a_click),
    "revenue": (lambda: _GatherFn(RevenueGathering(KEEP_MS), 1e6), an_order),
    "fraud": (lambda: _DetectFraudFn(RULES, KEEP_MS, 5), a_fraud_row),
    "fraud with more": (lambda: _DetectFraudFn(MORE_RULES, KEEP_MS, 5), a_row_with_more),
    "archive": (lambda: _ArchiveTopicFn(CLICKSTREAM, "clicks", Store(None, True, 10, None, KEEP_MS)), an_archived_row),
}
OPERATIONS = st.lists(
    st.one_of(
        # Few ids, so that nearly each comes again, within the lateness and long after it.
        st.tuples(
            st.just("rows"),
            st.lists(st.tuples(st.sampled_from("abc"), st.integers(-KEEP_MS, 30_000)), min_size=1, max_size=4),
        ),
        st.tuples(st.just("advances"), st.integers(1, 3 * KEEP_MS)),
        st.tuples(st.just("advances"), st.sampled_from([60 * 60_000])),
        st.tuples(st.sampled_from(["flushes", "checkpoints", "restores"]), st.none()),
    ),
    min_size=12,
    max_size=40,
)


@pytest.mark.parametrize("step", STEPS)
@given(operations=OPERATIONS, moves=st.lists(st.sampled_from(["", "moves", "moves back"]), min_size=40, max_size=40))
def test_a_shard_that_moves_is_as_one_that_never_did(step: str, operations: list[Operation], moves: list[str]) -> None:
    make, row = STEPS[step]
    stays, goes = Worker(make), Worker(make)
    watermark_ms, saved = 100 * KEEP_MS, None
    for (what, given_), moved in zip(operations, moves, strict=False):
        if moved == "moves":
            goes.move()
        elif moved == "moves back":
            goes.move_back()
        if what == "advances":
            watermark_ms += given_
        for worker in (stays, goes):
            if what == "rows":
                worker.rows(a_batch(step, [row(id_, watermark_ms + ahead) for id_, ahead in given_]))
            elif what == "advances":
                worker.reaches(watermark_ms, worker.is_what_the_log_says)
            elif what == "flushes":
                worker.fires_flush()
        if what == "checkpoints":
            saved = (stays.checkpoint(), goes.checkpoint(), watermark_ms)
        elif what == "restores" and saved:
            stays.restore(saved[0])
            goes.restore(saved[1])
            watermark_ms = saved[2]
        assert goes.out == stays.out
        assert goes.state() == stays.state()
        stays.is_what_the_log_says()
    for worker in (stays, goes):
        worker.fires_flush()
        worker.reaches(watermark_ms + 100 * 60_000)
    assert goes.out == stays.out
    assert goes.state() == stays.state()


@pytest.mark.parametrize("before", ["fraud", "fraud with more"])
def test_other_rules_go_on_with_the_orders_that_are_there_and_what_was_kept_of_them(before: str) -> None:
    """A checkpoint of rules that kept less, or more: orders are known, patterns only of what was kept."""
    after = "fraud with more" if before == "fraud" else "fraud"
    (older, older_row), (newer, newer_row) = STEPS[before], STEPS[after]
    worker = Worker(older)
    worker.rows(encode_rows([older_row(id_, at_ms) for at_ms, id_ in enumerate("aceg")]))
    worker.make = newer
    worker.move()
    worker.out.clear()
    worker.rows(encode_rows([older_row("g", 3)]))  # what was under way
    worker.rows(encode_rows([newer_row("i", 4)]))
    known, one = Counts(1, 0, duplicates=1), Counts(1, 1)
    counts = [o for o in worker.out if isinstance(o, Counts)]
    assert counts == [known, one]
    alerts = [o for o in worker.out if not isinstance(o, Counts)]
    names = {"fraud": ["HIGH_VALUE_BURST", "RAPID_ORDERS", "HIGH_VALUE_FIRST_ORDER"], "fraud with more": ["R"]}
    assert sorted(alerts) == sorted(alert_id(name, "u-1", "i") for name in names[after])
    worker.is_what_the_log_says()


def test_of_orders_that_were_kept_without_a_field_no_pattern_is_made() -> None:
    toys = (MORE_RULES.bits, "s-1", ["toys"])
    for older, alerts in (
        (a_fraud_row("a", 0), 0),
        (("u-1", (*a_fraud_row("a", 0)[1], (MORE_RULES.bits, "s-1", ["cup"]))), 1),
    ):
        worker = Worker(STEPS["fraud" if not alerts else "fraud with more"][0])
        worker.rows(encode_rows([older]))
        worker.make = STEPS["fraud with more"][0]
        worker.move()
        worker.out.clear()
        worker.rows(encode_rows([("u-1", (*a_fraud_row("c", 1)[1], toys))]))
        assert len(worker.out) - 1 == alerts


def test_a_worker_that_gets_a_shard_back_knows_which_timers_fired_elsewhere() -> None:
    worker = Worker(STEPS["rows"][0])
    worker.rows(encode_rows([a_row("a", 0)]))
    worker.fires_flush()
    worker.move_back()
    worker.reaches(DUE_MS)  # nothing is left to do
    worker.move_back()
    worker.rows(encode_rows([a_row("b", 10_000)]))
    worker.out.clear()
    worker.reaches(10_000 + DUE_MS)
    assert worker.out == [("b", 10_000)]
