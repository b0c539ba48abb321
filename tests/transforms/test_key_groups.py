"""The key group that is computed is the one that Flink computes, and chosen keys are spread as evenly as can be."""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from apache_beam import coders
from hypothesis import given
from hypothesis import strategies as st

from stack.flink import job_server_jar
from stack.java import java
from transforms.key_groups import encoded_int, even_keys, key_group, shard_keys, subtask_of

ROOT = Path(__file__).parents[2]


@pytest.mark.stack
def test_the_key_group_is_the_one_that_beam_and_flink_have() -> None:
    chance = random.Random(1)
    keys = [encoded_int(i) for i in range(3000)] + [chance.randbytes(n) for n in range(64) for _ in range(40)]
    asked = [(key, groups) for groups in (1, 32, 100, 128, 1 << 15) for key in keys]
    source = Path(__file__).with_name("KeyGroups.java")
    said = subprocess.run(
        [java(), "-cp", str(job_server_jar()), str(source)],
        input="".join(f"x{key.hex()} {groups}\n" for key, groups in asked),
        capture_output=True,
        text=True,
        check=True,
    )
    assert [int(line) for line in said.stdout.split()] == [key_group(key, groups) for key, groups in asked]


@given(st.integers(0, (1 << 63) - 1))
def test_a_shards_key_is_encoded_as_beam_does(key: int) -> None:
    assert encoded_int(key) == coders.VarIntCoder().encode(key)


@pytest.mark.parametrize(("shards", "groups"), [(32, 128), (128, 128), (96, 128), (1024, 128), (7, 32), (1, 1)])
def test_chosen_keys_are_in_the_groups_that_they_shall_be_in(shards: int, groups: int) -> None:
    keys = shard_keys(shards, groups)
    assert len(set(keys)) == shards
    assert [key_group(encoded_int(key), groups) for key in keys] == [i * groups // shards for i in range(shards)]


@given(st.data())
def test_no_subtask_has_more_shards_than_there_must_be(data: st.DataObject) -> None:
    shards = data.draw(st.sampled_from([4, 16, 32, 64, 128]))
    parallelism = data.draw(st.integers(1, shards))
    of_subtask = Counter(subtask_of(key_group(encoded_int(k), 128), 128, parallelism) for k in shard_keys(shards, 128))
    assert len(of_subtask) == parallelism
    assert max(of_subtask.values()) == -(-shards // parallelism)


def test_chosen_keys_stay_what_they_are_as_savepoints_hold_them() -> None:
    assert shard_keys(4, 128) == (6, 237, 568, 60)
    assert even_keys(2, 128, lambda n: b"reader-%d" % n) == (38, 19)


def speed_up(keys: Sequence[int], groups: int, parallelism: int) -> float:
    """How many times as fast as one subtask they are, when the one with the most shards is what all wait for."""
    of_subtask = Counter(subtask_of(key_group(encoded_int(key), groups), groups, parallelism) for key in keys)
    return len(keys) / max(of_subtask.values())


def test_the_table_in_the_documentation_is_what_is_computed() -> None:
    chosen = [(shard_keys(shards, 128), 128) for shards in (32, 64, 128)]
    ways = ((range(32), 32), (range(1024), 128), *chosen)
    rows = [
        f"| {p} | {' | '.join(f'{speed_up(keys, groups, p):.1f}' for keys, groups in ways)} |" for p in range(1, 33)
    ]
    assert "\n".join(rows) in (ROOT / "docs/performance.md").read_text(encoding="utf-8")
