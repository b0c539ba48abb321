from __future__ import annotations

from collections import Counter

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from transforms.io.kafka.placement import keys_of_readers, threads
from transforms.key_groups import encoded_int, key_group, subtask_of


def subtasks(keys: tuple[int, ...], parallelism: int, max_parallelism: int = 128) -> list[int]:
    return [subtask_of(key_group(encoded_int(k), max_parallelism), max_parallelism, parallelism) for k in keys]


@pytest.mark.parametrize("topics", [1, 2, 5])
@pytest.mark.parametrize("readers", [1, 2, 3, 4, 6, 8, 12, 16])
def test_as_many_subtasks_as_readers_have_one_of_each_topic(readers: int, topics: int) -> None:
    for topic in range(topics):
        assert subtasks(keys_of_readers(readers, topic, topics, 128), readers) == list(range(readers))


@pytest.mark.parametrize("readers", [2, 4, 8, 12, 32])
@pytest.mark.parametrize("parallelism", [1, 2, 3, 4, 5, 8, 16, 32])
def test_at_any_parallelism_no_subtask_has_two_more_readers_than_another(readers: int, parallelism: int) -> None:
    loads = Counter(subtasks(keys_of_readers(readers, 0, 1, 128), parallelism))
    of_each = [loads[subtask] for subtask in range(parallelism)]
    assert max(of_each) - min(of_each) <= 1


def test_single_readers_of_several_topics_do_not_meet() -> None:
    keys = [keys_of_readers(1, topic, 5, 128) for topic in range(5)]
    assert sorted(subtasks(sum(keys, ()), 5)) == list(range(5))


def test_a_reader_is_called_the_same_in_every_release() -> None:
    assert keys_of_readers(2, 0, 1, 128) == (237, 60)


@pytest.mark.parametrize(
    ("flags", "number"),
    [
        (["--runner=FlinkRunner", "--parallelism=6"], 6),
        (["--runner=apache_beam.runners.FlinkRunner", "--parallelism=6"], 6),
        (["--runner=DataflowRunner", "--max_num_workers=4"], 4),
        (["--runner=DirectRunner"], 1),
    ],
)
def test_the_runner_says_how_many_readers_it_keeps_going(flags: list[str], number: int) -> None:
    assert threads(PipelineOptions(flags)) == number
