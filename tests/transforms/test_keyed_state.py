"""Shards against a dict: whatever fails, moves or goes back to a checkpoint, a shard holds what its log says."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import weakref
from typing import Any

import msgspec
import pytest
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from transforms import keyed_state
from transforms.keyed_state import Expiry, Memory, Shard, Shards, shard_of

Users = dict[str, list[int]]


def apply(users: Users, entry: bytes) -> None:
    for user, number in msgspec.msgpack.decode(entry):
        users.setdefault(user, []).append(number)


def snapshot(users: Users) -> bytes:
    return msgspec.msgpack.encode([(user, number) for user, numbers in users.items() for number in numbers])


class Cells:
    """The state cells of one shard, as a runner keeps them: what a bundle wrote counts once the bundle is committed."""

    def __init__(self) -> None:
        self.committed: tuple[bytes | None, list[bytes]] = (None, [])
        self.rollback()

    def rollback(self) -> None:
        value, entries = copy.deepcopy(self.committed)
        self.token, self.log = _Token(value), _Log(entries)

    def commit(self) -> None:
        self.committed = copy.deepcopy((self.token.value, self.log.entries))


class _Token:
    def __init__(self, value: bytes | None):
        self.value = value

    def read(self) -> bytes | None:
        return self.value

    def write(self, value: bytes) -> None:
        self.value = value


class _Log:
    def __init__(self, entries: list[bytes]):
        self.entries = entries
        self.reads = 0

    def read(self) -> list[bytes]:
        self.reads += 1
        return list(self.entries)

    def add(self, entry: bytes) -> None:
        self.entries.append(entry)

    def clear(self) -> None:
        self.entries.clear()

    @property
    def bytes(self) -> int:
        return sum(map(len, self.entries))


def forget(users: Users, floor: int) -> None:
    for user in list(users):
        users[user] = [number for number in users[user] if number >= floor]
        if not users[user]:
            del users[user]


def next_floor(users: Users) -> int | None:
    return min((min(numbers) for numbers in users.values()), default=-1) + 1 or None


def worker(memory: Memory | None = None) -> Shards[Users]:
    """A worker process has a memory of its own."""
    return Shards(Memory() if memory is None else memory, dict, apply, snapshot, Expiry(forget, next_floor, 3))


def add(shards: Shards[Users], cells: Cells, *changes: tuple[str, int], keep: bool = True) -> Shard[Users]:
    live = shards.open(0, cells.token, cells.log)
    entry = msgspec.msgpack.encode(changes)
    apply(live.state, entry)
    shards.append(live, entry, cells.token, cells.log)
    if keep:
        shards.keep(0, live)
    return live


def contents(shards: Shards[Users], cells: Cells) -> Users:
    live = shards.open(0, cells.token, cells.log)
    shards.keep(0, live)
    return live.state


def test_the_copy_in_memory_is_used_while_it_is_current() -> None:
    shards, cells = worker(), Cells()
    add(shards, cells, ("a", 1))
    add(shards, cells, ("a", 2), ("b", 3))
    assert contents(shards, cells) == {"a": [1, 2], "b": [3]}
    assert cells.log.reads == 0
    assert len(cells.log.entries) == 2


def test_all_copies_of_a_step_in_one_process_share_the_memory() -> None:
    memory, cells = Memory(), Cells()
    add(worker(memory), cells, ("a", 1))
    assert contents(worker(memory), cells) == {"a": [1]}
    assert cells.log.reads == 0


def test_another_worker_replays_the_log() -> None:
    cells = Cells()
    add(worker(), cells, ("a", 1))
    assert contents(worker(), cells) == {"a": [1]}
    assert cells.log.reads == 1


def test_a_copy_that_another_worker_has_overtaken_is_not_used() -> None:
    first, second, cells = worker(), worker(), Cells()
    add(first, cells, ("a", 1))
    add(second, cells, ("a", 2))
    add(first, cells, ("a", 3))
    assert contents(second, cells) == contents(first, cells) == {"a": [1, 2, 3]}


def test_whoever_fails_between_open_and_keep_leaves_nothing_half_done_behind() -> None:
    shards, cells = worker(), Cells()
    add(shards, cells, ("a", 1))
    cells.commit()
    add(shards, cells, ("a", 2), keep=False)
    cells.rollback()
    assert contents(shards, cells) == {"a": [1]}


def test_a_bundle_that_fails_after_its_last_step_is_undone() -> None:
    shards, cells = worker(), Cells()
    add(shards, cells, ("a", 1))
    cells.commit()
    add(shards, cells, ("a", 2))
    cells.rollback()
    add(shards, cells, ("a", 3))
    assert contents(shards, cells) == contents(worker(), cells) == {"a": [1, 3]}


def test_the_very_first_bundle_can_fail_too() -> None:
    shards, cells = worker(), Cells()
    add(shards, cells, ("a", 1))
    cells.rollback()
    assert contents(shards, cells) == {}


def test_a_log_entry_of_another_format_is_refused_by_name() -> None:
    shards, cells = worker(), Cells()
    add(shards, cells, ("a", 1))
    cells.log.entries[0] = b"\x03" + cells.log.entries[0][1:]
    with pytest.raises(ValueError, match=r"state entry of format b'\\x03': written by a newer release"):
        worker().open(0, cells.token, cells.log)


def test_every_entry_begins_with_the_version_of_its_format() -> None:
    shards, cells = worker(), Cells()
    live = add(shards, cells, *((f"u{i}", i) for i in range(30_000)))
    shards.compact(live, cells.token, cells.log)
    add(shards, cells, ("a", 1))
    assert [entry[:1] for entry in cells.log.entries] == [b"\x01", b"\x01"]


def test_a_log_that_has_doubled_is_replaced_by_what_it_amounts_to() -> None:
    shards, cells = worker(), Cells()
    for i in range(20_000):
        live = add(shards, cells, (f"user-{i % 10}", i))
    assert cells.log.bytes > 200_000
    for numbers in live.state.values():
        del numbers[:-1]
    shards.compact(live, cells.token, cells.log)
    assert len(cells.log.entries) == 1
    assert live.log_bytes == cells.log.bytes < 1_000
    assert contents(worker(), cells) == live.state == {f"user-{i % 10}": [i] for i in range(19_990, 20_000)}


def test_what_expired_is_gone_in_a_replay_too_and_a_repeat_after_it_is_there() -> None:
    shards, cells = worker(), Cells()
    live = add(shards, cells, ("a", 1), ("b", 7))
    shards.expire(live, 6, cells.token, cells.log)
    shards.keep(0, live)
    add(shards, cells, ("a", 8))
    assert contents(worker(), cells) == contents(shards, cells) == {"b": [7], "a": [8]}


def test_expiry_is_at_multiples_however_often_it_is_looked_at_between() -> None:
    shards, cells = worker(), Cells()
    live = add(shards, cells, ("a", 1), ("a", 4))
    written = len(cells.log.entries)
    shards.expire(live, 2, cells.token, cells.log)
    assert live.state == {"a": [1, 4]}
    assert len(cells.log.entries) == written, "nothing has expired, and nothing is to be logged"
    shards.expire(live, 5, cells.token, cells.log)
    assert live.state == {"a": [4]}


class _Timer:
    at: int | None = None

    def set(self, at: Timestamp) -> None:
        self.at = at.micros // 1000


def test_a_worker_that_a_shard_has_moved_to_sets_the_timer_that_the_last_one_had_set() -> None:
    first, second, cells, timer = worker(), worker(), Cells(), _Timer()
    first.wake(add(first, cells, ("a", 1)), timer)
    assert timer.at == 3
    second.wake(add(second, cells, ("a", 10)), timer)
    assert timer.at == 3
    second.wake(add(second, cells, ("a", 10)), timer, due_ms=2)
    assert timer.at == 2


def test_copies_of_shards_that_have_moved_away_leave_the_memory() -> None:
    now = [0.0]
    memory, cells = Memory(lambda: now[0]), [Cells() for _ in range(3)]
    shards = worker(memory)

    def bundle(shard: int) -> None:
        live = shards.open(shard, cells[shard].token, cells[shard].log)
        apply(live.state, entry := msgspec.msgpack.encode([("a", 1)]))
        shards.append(live, entry, cells[shard].token, cells[shard].log)
        shards.keep(shard, live)

    for shard in range(3):
        bundle(shard)
    for now[0] in (300.0, 599.0, 700.0):
        bundle(0)
        bundle(1)
    assert len(memory) == 2
    bundle(2)
    assert len(memory) == 3
    assert shards.open(2, cells[2].token, cells[2].log).state == {"a": [1, 1]}


def test_the_copies_are_gone_when_the_last_instance_of_the_step_is() -> None:
    handle = Shared()
    memory = handle.acquire(Memory)
    assert pickle.loads(pickle.dumps(handle)).acquire(Memory) is memory
    gone = weakref.ref(memory)
    del memory
    Shared().acquire(Memory)  # Beam itself holds the newest one
    gc.collect()
    assert gone() is None


def test_a_short_log_is_not_worth_rewriting() -> None:
    shards, cells = worker(), Cells()
    live = add(shards, cells, ("a", 1), ("a", 2))
    before = cells.token.value
    shards.compact(live, cells.token, cells.log)
    assert len(cells.log.entries) == 1
    assert cells.token.value == before


def test_a_shard_without_users_has_no_log() -> None:
    shards, cells = worker(), Cells()
    live = add(shards, cells, ("a", 1))
    live.state.clear()
    shards.compact(live, cells.token, cells.log)
    assert cells.log.entries == []
    assert contents(worker(), cells) == {}


@given(st.lists(st.integers(1, 4_000), min_size=1, max_size=40), st.integers(1, 4))
@settings(max_examples=20)
def test_rewriting_costs_no_more_than_writing_did_and_the_log_stays_in_proportion(
    sizes: list[int], kept_share: int
) -> None:
    shards, cells = worker(), Cells()
    written = rewritten = number = 0
    for size in sizes:
        live = add(shards, cells, *((f"user-{number + i}", number + i) for i in range(size)))
        written += len(cells.log.entries[-1])
        number += size
        for user in list(live.state)[: len(live.state) // kept_share]:
            del live.state[user]
        before = cells.token.value
        shards.compact(live, cells.token, cells.log)
        if cells.token.value != before:
            rewritten += cells.log.bytes
        assert live.log_bytes == cells.log.bytes
        assert cells.log.bytes <= max(keyed_state._SMALL_LOG_BYTES, 2 * live.compact_bytes)
    assert rewritten <= written


def test_a_users_shard_is_the_same_in_every_process() -> None:
    here = [shard_of(f"user-{i}".encode(), 32) for i in range(100)]
    code = "from transforms.keyed_state import shard_of;print([shard_of(f'user-{i}'.encode(), 32) for i in range(100)])"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert str(here) == there.strip()


def test_the_shard_of_a_user_never_changes_between_releases() -> None:
    assert [shard_of(user, 32) for user in (b"", b"u-1", b"user-42", "Gül".encode())] == [0, 28, 19, 6]


def test_users_spread_evenly_over_the_shards() -> None:
    counts = [0] * 32
    for i in range(32_000):
        counts[shard_of(f"user-{i}".encode(), 32)] += 1
    assert min(counts) > 800
    assert max(counts) < 1_200


NAMES = [letter * 20_000 for letter in "abc"]  # so long that logs are worth rewriting


class Workers(RuleBasedStateMachine):
    """Two workers with one shard between them; bundles that commit or fail; checkpoints that the job goes back to."""

    checkpoints = Bundle("checkpoints")

    @initialize()
    def begin(self) -> None:
        self.workers, self.cells = [worker(), worker()], Cells()
        self.model: Users = {}
        self.floor = 0
        self.number = 0

    @rule(who=st.integers(0, 1), users=st.lists(st.integers(0, 2).map(lambda i: NAMES[i]), min_size=1, max_size=3))
    def a_bundle_succeeds(self, who: int, users: list[str]) -> None:
        self._bundle(who, users)
        self.cells.commit()
        for user, number in self.written:
            self.model.setdefault(user, []).append(number)

    @rule(
        who=st.integers(0, 1),
        users=st.lists(st.integers(0, 2).map(lambda i: NAMES[i]), min_size=1, max_size=3),
        keep=st.booleans(),
    )
    def a_bundle_fails(self, who: int, users: list[str], keep: bool) -> None:
        self._bundle(who, users, keep)
        self.cells.rollback()

    def _bundle(self, who: int, users: list[str], keep: bool = True) -> None:
        self.written = [(user, self.number + i) for i, user in enumerate(users)]
        self.number += len(users)
        self._check(add(self.workers[who], self.cells, *self.written, keep=keep), self.written)

    @rule(who=st.integers(0, 1), age=st.integers(0, 6), fails=st.booleans())
    def state_expires(self, who: int, age: int, fails: bool) -> None:
        shards, floor = self.workers[who], max(self.floor, self.number - age)
        live = shards.open(0, self.cells.token, self.cells.log)
        shards.expire(live, floor, self.cells.token, self.cells.log)
        shards.keep(0, live)
        if fails:
            self.cells.rollback()
        else:
            self.cells.commit()
            self.floor = floor
            forget(self.model, floor - floor % 3)

    @rule(target=checkpoints)
    def a_checkpoint_is_taken(self) -> Any:
        return copy.deepcopy((self.cells.committed, self.model, self.floor))

    @rule(checkpoint=checkpoints)
    def the_job_goes_back(self, checkpoint: Any) -> None:
        committed, self.model, self.floor = copy.deepcopy(checkpoint)
        self.cells.committed = committed
        self.cells.rollback()

    @rule(who=st.integers(0, 1))
    def a_worker_is_killed(self, who: int) -> None:
        self.workers[who] = worker()

    @invariant()
    def a_new_worker_reads_what_was_committed(self) -> None:
        if hasattr(self, "cells"):
            self._check(worker().open(0, self.cells.token, self.cells.log), [])

    def _check(self, live: Shard[Users], uncommitted: list[tuple[str, int]]) -> None:
        expected = copy.deepcopy(self.model)
        for user, number in uncommitted:
            expected.setdefault(user, []).append(number)
        assert live.state == expected


TestWorkers = Workers.TestCase
