"""The simulated Kafka, as the product's consumer meets it."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, TopicPartition

from simulation.clock import START_MS, Clock
from simulation.kafka import Cluster
from simulation.log import Topic


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(Topic("t", 1), Clock(), Counter[str]().__getitem__)  # type: ignore[arg-type]


def write(cluster: Cluster, names: str, transaction: int = 0) -> None:
    for name in names:
        cluster.topic.write(0, START_MS, b"k", name.encode(), name, transaction)


def consumer(cluster: Cluster, offset: int = OFFSET_BEGINNING, epoch: int | None = None) -> Any:
    made = cluster.consumer({})
    place = TopicPartition("t", 0, offset) if epoch is None else TopicPartition("t", 0, offset, leader_epoch=epoch)
    made.incremental_assign([place])
    return made


def read(made: Any) -> tuple[str, list[tuple[int, str]]]:
    """Values; codes of errors and their words."""
    values, errors = "", []
    for i in range(60):
        made._cluster.random = random.Random(i)
        for message in made.consume(10, 0.02):
            if message.error() is None:
                values += message.value().decode()
            else:
                errors.append((message.error().code(), message.error().str()))
    return values, errors


def test_a_transaction_is_read_when_it_is_committed_and_never_when_it_is_aborted(cluster: Cluster) -> None:
    write(cluster, "ab")
    first, second = cluster.topic.begin(), cluster.topic.begin()
    write(cluster, "c", first)
    write(cluster, "d", second)
    write(cluster, "e")
    made = consumer(cluster)
    assert read(made)[0] == "ab"
    cluster.topic.end_transaction(first, commits=False)
    assert read(made)[0] == ""
    cluster.topic.end_transaction(second, commits=True)
    values, errors = read(made)
    assert values == "de"
    assert {code for code, _ in errors} == {KafkaError._PARTITION_EOF}


def test_what_retention_took_is_out_of_range(cluster: Cluster) -> None:
    write(cluster, "abcd")
    cluster.topic.partitions[0].sweep(2)
    values, ((code, words),) = read(consumer(cluster, 1))
    assert (values, code) == ("", KafkaError._AUTO_OFFSET_RESET)
    assert "out of range" in words
    assert read(consumer(cluster))[0] == "cd"


def test_a_log_that_was_cut_back_says_where_it_branched_off(cluster: Cluster) -> None:
    write(cluster, "abcd")
    log = cluster.topic.partitions[0]
    log.cut(1)
    log.epoch += 1
    write(cluster, "xyz")
    values, ((_, words),) = read(consumer(cluster, 4, 0))
    assert values == ""
    assert words.endswith("broker end offset is 1")
    assert read(consumer(cluster, 1, 0))[0] == "xyz"


def test_a_connection_that_knows_a_newer_leader_reads_nothing_and_a_new_one_is_told(cluster: Cluster) -> None:
    write(cluster, "ab")
    log = cluster.topic.partitions[0]
    log.epoch = 1
    write(cluster, "c")
    made = consumer(cluster)
    assert read(made)[0] == "abc"
    log.cut(1)
    log.epoch = 0
    write(cluster, "d")
    assert read(made) == ("", [])
    values, ((_, words),) = read(consumer(cluster, 3, 1))
    assert (values, "broker end offset" in words) == ("", False)


def test_a_topic_that_is_made_anew_has_another_id_and_no_records(cluster: Cluster) -> None:
    write(cluster, "ab")
    before = cluster.topic.id
    cluster.topic.make_anew()
    assert cluster.topic.id != before
    assert read(consumer(cluster))[0] == ""
    assert [record.gone for record in cluster.topic.every] == [True, True]
