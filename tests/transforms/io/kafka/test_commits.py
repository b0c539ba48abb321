"""What readers commit, and what the API learns from that, on librdkafka's broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from confluent_kafka import Consumer, Producer, TopicPartition

from schemas.progress import commit_of
from serving.progress import Kafka
from tests.build import SECOND, T0
from transforms.io.kafka import KafkaTopic, ReadBlocksFromKafka, reader
from transforms.io.kafka.position import Position
from transforms.io.kafka.reader import Reader, Source
from transforms.io.kafka.topic import TopicNow


class _Watch:
    """A topic of two partitions that stays as it is; that broker cannot describe one."""

    def __init__(self, *_: object):
        pass

    def look(self) -> TopicNow:
        return TopicNow("id", frozenset({0, 1}))

    def news(self) -> None:
        return None

    def newest_ms(self) -> None:
        return None

    def cut_back(self) -> bool:
        return False


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(reader, "TopicWatch", _Watch)
    owner = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "", "log_level": 0})
    (broker,) = owner.list_topics(timeout=60).brokers.values()
    yield f"{broker.host}:{broker.port}"
    del owner


def send(broker: str, topic: str, records: int) -> None:
    producer = Producer({"bootstrap.servers": broker, "log_level": 0})
    for i in range(records):
        producer.produce(topic, b"x", b"k", 0, timestamp=T0 + i)
    assert producer.flush(10) == 0


def run(broker: str, topic: str, topics: int = 1) -> None:
    """Reads all, commits and ends."""
    source = Source(broker, topic, "archiver", 10 * SECOND, 3_600 * SECOND, topics=topics)
    reading = Reader(source, Position(0, 1), MIN_TIMESTAMP)
    while reading.next_block(1.0) is not None:
        pass
    reading.commit()
    reading.close()


def test_a_commit_says_when_and_how_many_topics_also_for_an_empty_partition(broker: str) -> None:
    send(broker, "orders", 5)
    run(broker, "orders", topics=2)
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "archiver", "log_level": 0})
    full, empty = consumer.committed([TopicPartition("orders", p) for p in range(2)], 10)
    consumer.close()
    assert (full.offset, empty.offset) == (5, 0)
    assert commit_of(full.metadata).watermark_ms == T0 + 4 - 10 * SECOND
    assert {commit_of(each.metadata).topics for each in (full, empty)} == {2}
    assert min(commit_of(each.metadata).committed_ms for each in (full, empty)) > T0


def test_after_a_start_on_another_topic_the_former_one_is_no_longer_behind(broker: str) -> None:
    send(broker, "a", 5)
    run(broker, "a")
    send(broker, "b", 3)
    run(broker, "b")
    send(broker, "a", 100)
    found = Kafka(broker, ["archiver"])()["archiver"]
    assert {each.topic for each in found} == {"b"}
    assert sum(each.end - each.offset for each in found) == 0


def test_a_source_says_of_how_many_topics_its_job_reads() -> None:
    read = ReadBlocksFromKafka(
        KafkaTopic("h:1", "orders", {}, "an-id"), "archiver", 1, 0, 0, until_end=False, place=(1, 3)
    )
    assert read._source.topics == 3
