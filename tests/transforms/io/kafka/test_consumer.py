"""The consumer on librdkafka's own broker: what it fetches, where it stands, what it says of what is gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from connections.kafka import Connection
from transforms.io.kafka.consumer import Fetched, PartitionsConsumer
from transforms.io.kafka.position import At
from transforms.io.kafka.sample import newest

TOPIC = "orders"


@pytest.fixture
def broker() -> Iterator[str]:
    """host:port of a broker with a topic of four partitions."""
    owner = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "", "log_level": 0})
    owner.list_topics(TOPIC, timeout=60)
    (metadata,) = owner.list_topics(timeout=60).brokers.values()
    yield f"{metadata.host}:{metadata.port}"
    owner.flush(1)


def send(broker: str, values: range, partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 0, "log_level": 0})
    for i in values:
        producer.produce(TOPIC, str(i).encode(), b"k", partition)
    assert producer.flush(30) == 0


def opened(broker: str, most: int = 100) -> PartitionsConsumer:
    return PartitionsConsumer(Connection(broker), TOPIC, "tests", most)


def fetch(consumer: PartitionsConsumer, messages: int) -> Fetched:
    """What comes until there are so many messages and the end of each partition that was heard of."""
    found = Fetched({}, {}, set(), {})
    for _ in range(500):
        new = consumer.fetch()
        for partition, some in new.messages.items():
            found.messages.setdefault(partition, []).extend(some)
            found.at_end.discard(partition)
        found.after.update(new.after)
        found.at_end.update(new.at_end)
        found.gone.update(new.gone)
        if found.gone or (sum(map(len, found.messages.values())) >= messages and found.at_end):
            break
    return found


def test_partitions_are_read_from_where_they_are_assigned_to_their_end(broker: str) -> None:
    send(broker, range(5))
    send(broker, range(3), partition=1)
    consumer = opened(broker)
    consumer.assign({0: At(2), 1: At()})
    found = fetch(consumer, 6)
    assert {p: [m.value() for m in some] for p, some in found.messages.items()} == {
        0: [b"2", b"3", b"4"],
        1: [b"0", b"1", b"2"],
    }
    assert found.after[0] == 5
    assert consumer.high_watermark(0) == 5
    consumer.close()


def test_a_partition_that_is_assigned_again_is_read_from_there_and_one_that_is_given_up_no_more(broker: str) -> None:
    send(broker, range(4))
    consumer = opened(broker)
    consumer.assign({0: At()})
    assert len(fetch(consumer, 4).messages[0]) == 4
    consumer.assign({0: At(1)})
    assert [m.value() for m in fetch(consumer, 3).messages[0]] == [b"1", b"2", b"3"]
    consumer.unassign(0)
    send(broker, range(4, 6))
    assert consumer.fetch() == Fetched({}, {}, set(), {})
    consumer.close()


def test_an_offset_that_is_not_there_is_told_and_nothing_is_read_instead(broker: str) -> None:
    send(broker, range(4))
    consumer = opened(broker)
    consumer.assign({0: At(40)})
    found = fetch(consumer, 1)
    assert found.gone == {0: None}
    assert not found.messages
    consumer.close()


def test_a_sample_is_of_the_newest_of_each_partition(broker: str) -> None:
    for partition in range(2):
        send(broker, range(30), partition)
    found = [(m.partition(), int(m.value() or b"")) for m in newest(broker, TOPIC, count=20)]
    assert sorted(found) == [(p, i) for p in range(2) for i in range(25, 30)]
    assert newest(broker, TOPIC, count=2)
