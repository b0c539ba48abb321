"""Rules that change while orders flow: in any order of arrival, any batches and with any kills, each order is judged by
the version of its own time."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.events import OrderEvent
from tests.build import MINUTE, SECOND, T0, block, make_fetch, order
from tests.rules_made import files, histories
from tests.rules_oracle import expected_over_time
from tests.transforms.domain.test_rule_history import history_of
from tests.transforms.test_gather import _Timer
from tests.transforms.test_keyed_state import Cells
from transforms.decode import ORDERS, BlockDecoder
from transforms.domain.fraud_rules import parse_rules
from transforms.domain.rule_history import RuleHistory
from transforms.fraud import DetectFraud, FraudRows
from transforms.live_rules import DetectFraudOverTime, FraudRowsOverTime
from transforms.sharded_rows import encode_rows

SHARDS = 2
LATENESS_MS = 10 * MINUTE
Found = tuple[str, str, str, int]

instants = st.builds(
    lambda minutes, offset: T0 + minutes * MINUTE + offset,
    st.sampled_from([0, 1, 2, 4, 5, 6, 9, 10, 11, 15, 46, 47]),
    st.sampled_from([0, 0, 1, -1, 20 * SECOND]),
)


class Heard:
    """What a worker has heard of a history, in the order in which it was written: what it must know by now, or more."""

    def __init__(self, whole: RuleHistory, order_of_writing: list[Any], chance: random.Random):
        self._whole, self._written, self._chance = whole, order_of_writing, chance
        self.now_ms, self._count, self._history = 0, -1, RuleHistory()

    def known(self, until_ms: int) -> RuleHistory:
        until_ms = min(until_ms, self.now_ms)
        must = max((i + 1 for i, each in enumerate(self._written) if each.effective_from_ms <= until_ms), default=0)
        count = max(self._count, must, self._chance.choice([0, len(self._written)]))
        if count != self._count:
            self._count = count
            known = sorted(self._written[:count], key=lambda each: each.effective_from_ms)
            self._history = RuleHistory(self._whole.versions, tuple(known))
        return self._history


class Job:
    """Two readers and one step with state, whose worker may be lost."""

    def __init__(self, base: str, heard: Callable[[], Heard]):
        self.base, self.heard = parse_rules(base), heard
        self.cells = {shard: Cells() for shard in range(SHARDS)}
        self.timers = {shard: _Timer() for shard in range(SHARDS)}
        self.found: set[Found] = set()
        self.repeats = 0
        self.start()

    def start(self) -> None:
        self.histories = [self.heard() for _ in range(3)]
        self.readers: list[Any] = [FraudRowsOverTime(self.base, each) for each in self.histories[:2]]
        self.fn: Any = DetectFraudOverTime(self.base, self.histories[2], LATENESS_MS, 1_000)._fn
        self.fn.setup()

    def reads(self, orders: list[OrderEvent], reader: int, encoding: str, now_ms: int) -> None:
        for each in self.histories:
            each.now_ms = now_ms
        payloads: Any = orders if encoding == "confluent" else map(codec.to_json, orders)
        decoded = BlockDecoder(ORDERS, "fraud-detector", make_fetch(), LATENESS_MS).decode(
            block(payloads, encoding=encoding, times_ms=now_ms)
        )
        for shard, rows in self.readers[reader](decoded, SHARDS).items():
            cells = self.cells[shard]
            self.fn.start_bundle()
            for alert in self.fn.process((shard, encode_rows(rows)), cells.token, cells.log, self.timers[shard]):
                each = alert.value
                self.found.add((each.alert_type, each.user_id, each.order_id, each.event_time))
            for counts in self.fn.finish_bundle():
                self.repeats += counts.value.value.duplicates

    def reaches(self, watermark_ms: int) -> None:
        for shard, timer in self.timers.items():
            while timer.at is not None and timer.at.micros <= watermark_ms * 1000:
                at, timer.at = timer.at, None
                self.fn.expire(shard, at, self.cells[shard].token, self.cells[shard].log, timer)

    def checkpoint(self) -> Any:
        return copy.deepcopy([(c.token.value, c.log.entries, self.timers[s]) for s, c in self.cells.items()])

    def restore(self, checkpoint: Any) -> None:
        for shard, (value, entries, timer) in enumerate(copy.deepcopy(checkpoint)):
            self.cells[shard].committed = value, entries
            self.cells[shard].rollback()
            self.timers[shard] = timer
        self.start()


def run(
    base: str, versions: list[str], changes: list[tuple[int, int]], orders: list[OrderEvent], chance: random.Random
) -> tuple[set[Found], set[Found]]:
    """What the job finds, and what the oracle does."""
    history = history_of(versions, changes)
    written = sorted(history.activations, key=lambda each: each.number)
    job = Job(base, lambda: Heard(history, written, chance))
    # None is late: by the time that the watermark passes an order and the lateness, it has come.
    arrivals = sorted(orders, key=lambda o: o.event_time + chance.randint(0, LATENESS_MS))
    step, now_ms, saved = 0, 0, (0, job.checkpoint())
    for _ in range(200):
        if step >= len(arrivals):
            break
        if chance.random() < 0.2 and step:
            saved = step, job.checkpoint()
        if chance.random() < 0.15:
            step = saved[0]
            job.restore(saved[1])
        size = chance.randint(1, 4)
        batch = arrivals[step : step + size]
        now_ms = max([now_ms, *(o.event_time for o in batch)])
        job.reads(batch, chance.randrange(2), chance.choice(["confluent", "json"]), now_ms)
        step += len(batch)
        if chance.random() < 0.5:
            oldest_ms = min([o.event_time for o in arrivals[step:]], default=now_ms)
            job.reaches(min(now_ms, oldest_ms + LATENESS_MS))
    activated = [(at_ms, versions[n - 1] if n else base) for at_ms, n in changes]
    return job.found, expected_over_time(base, activated, arrivals[:step])


@given(
    base=files,
    versions=st.lists(files, min_size=1, max_size=3),
    changes=st.lists(st.tuples(instants, st.integers(0, 3)), max_size=4),
    orders=histories,
    chance=st.randoms(use_true_random=False),
)
def test_each_order_is_judged_by_the_version_of_its_time_in_whatever_order_they_arrive_and_whatever_is_killed(
    base: str, versions: list[str], changes: list[tuple[int, int]], orders: list[OrderEvent], chance: random.Random
) -> None:
    changes = [(at_ms, min(n, len(versions))) for at_ms, n in changes]
    found, expected = run(base, versions, changes, orders, chance)
    assert found == expected


def rules(*names: str, **said: Any) -> str:
    fields = ", ".join(f"{name}: {value}" for name, value in said.items())
    each = ", ".join(f"{name}: {{{fields}, risk_score: 0.5}}" for name in names)
    return f"{{version: 2, currency: TRY, rules: {{{each}}}}}"


PAIR = rules("PAIR", kind="count", at_least=2, within="5m")
HOURLY = rules("HOURLY", kind="count", at_least=2, within="1h")
GIFTS = rules("GIFTS", kind="count", at_least=1, where="{items: {category: kitchen}}")


@pytest.mark.parametrize(
    ("versions", "changes", "at_minutes", "expected"),
    [
        ([HOURLY], [], [0, 20], []),
        ([HOURLY], [(2, 1)], [0, 20], [("HOURLY", 20)]),  # still remembered when the longer span takes effect
        ([HOURLY], [(6, 1)], [0, 20], []),  # forgotten by then
        ([HOURLY], [(6, 1)], [0, 20, 70], [("HOURLY", 70)]),
        ([HOURLY], [(2, 1), (30, 0)], [0, 20, 31], [("HOURLY", 20)]),  # rolled back
        ([GIFTS], [(2, 1)], [1, 2], [("GIFTS", 2)]),  # exactly from then on
        ([GIFTS], [(2, 1), (2, 0)], [1, 2], [("PAIR", 2)]),  # the later of one instant
    ],
)
def test_a_version_sees_what_those_before_it_remembered(
    versions: list[str], changes: list[tuple[int, int]], at_minutes: list[int], expected: list[tuple[str, int]]
) -> None:
    orders = [order(f"o-{minute}", at=T0 + minute * MINUTE) for minute in at_minutes]
    in_force = [(T0 + minute * MINUTE, number) for minute, number in changes]
    for seed in range(5):
        found, by_oracle = run(PAIR, versions, in_force, orders, random.Random(seed))
        assert found == by_oracle
        assert sorted((rule, (at - T0) // MINUTE) for rule, _, _, at in found) == sorted(expected)


def test_without_a_history_rows_and_state_are_those_of_the_rules_themselves() -> None:
    """So a savepoint of either is restored by the other."""
    base, orders = parse_rules(PAIR), [order(f"o-{i}", at=T0 + i) for i in range(5)]
    decoded = BlockDecoder(ORDERS, "fraud-detector", make_fetch(), LATENESS_MS).decode(block(orders))
    heard = Heard(RuleHistory(), [], random.Random(1))
    rows = FraudRows(base)(decoded, SHARDS)
    assert FraudRowsOverTime(base, heard)(decoded, SHARDS) == rows
    logs = []
    for transform in (DetectFraud(base, LATENESS_MS, 10), DetectFraudOverTime(base, heard, LATENESS_MS, 10)):
        fn: Any = transform._fn
        fn.setup()
        fn.start_bundle()
        cells, timer = Cells(), _Timer()
        ((shard, of_shard),) = rows.items()
        alerts = list(fn.process((shard, encode_rows(of_shard)), cells.token, cells.log, timer))
        logs.append((cells.log.entries, timer.at, len(alerts), fn.default_label()))
    assert logs[0] == logs[1]


def test_a_repeat_is_one_whatever_version_is_in_force() -> None:
    history = history_of([HOURLY], [(T0 + MINUTE, 1)])
    heard = Heard(history, list(history.activations), random.Random(1))
    job = Job(PAIR, lambda: heard)
    first = order("o-1", at=T0)
    for orders in ([first], [first, order("o-2", at=T0 + 2 * MINUTE)], [first]):
        job.reads(orders, 0, "confluent", T0 + 2 * MINUTE)
    assert job.repeats == 2
    assert job.found == {("HOURLY", "u-1", "o-2", T0 + 2 * MINUTE)}


def test_who_waits_for_the_history_asks_for_no_more_than_there_is() -> None:
    """Readers need it up to their newest order, the rest up to now."""
    asked = []

    class Asked:
        def known(self, until_ms: int) -> RuleHistory:
            asked.append(until_ms)
            return RuleHistory()

    decoded = BlockDecoder(ORDERS, "fraud-detector", make_fetch(), LATENESS_MS).decode(
        block([order("o-1", at=T0), order("o-2", at=T0 + 5)])
    )
    FraudRowsOverTime(parse_rules(PAIR), Asked())(decoded, SHARDS)
    assert asked == [T0 + 5]
