"""A reader on a real broker, without a pipeline around it: what it reads, and what it makes of a log that changes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from apache_beam.utils.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from stack import Stack
from tests import live
from tests.build import SECOND, T0
from transforms.blocks import Block
from transforms.io.kafka.gaps import RecordsLostError
from transforms.io.kafka.position import BEGINNING, At, Position
from transforms.io.kafka.reader import Reader, Source

pytestmark = pytest.mark.stack

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("kafka"), ["kafka"], ports="free") as stack:
        yield stack


@pytest.fixture
def broker(kafka: Stack) -> str:
    return kafka.address("kafka")


@pytest.fixture
def admin(broker: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": broker, "log_level": 0})


@pytest.fixture
def topic(admin: AdminClient) -> str:
    """A new one, of two partitions."""
    name = f"orders-{next(_NUMBERS)}"
    live.make_topic(admin, name, 2)
    return name


def source(broker: str, topic: str, **changes: object) -> Source:
    return Source(broker, topic, "tests", 10 * SECOND, 3_600 * SECOND, **changes)  # type: ignore[arg-type]


def send(broker: str, topic: str, values: Iterable[int], partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 0, "log_level": 0})
    for i in values:
        producer.produce(topic, str(i).encode(), f"k-{i}".encode(), partition, timestamp=T0 + i)
    assert producer.flush(30) == 0


def read(reader: Reader, messages: int) -> list[Block]:
    """Blocks with as many messages, or what came within a while."""
    found: list[Block] = []
    for _ in range(20):
        if sum(map(len, found)) >= messages:
            break
        block = reader.next_block(1.0)
        if block is not None:
            found.append(block)
    return found


def stopped_after(broker: str, topic: str, records: int) -> Position:
    """Of a reader that has read so many, all there are, and is closed."""
    send(broker, topic, range(records))
    reader = Reader(source(broker, topic), Position(0, 2), MIN_TIMESTAMP)
    read(reader, records)
    position = reader.position()
    reader.close()
    return position


def recreate(broker: str, admin: AdminClient, topic: str, records: Iterable[int]) -> None:
    """With these records, and none of those that it had."""
    admin.delete_topics([topic])[topic].result(30)
    live.make_topic(admin, topic, 2)
    send(broker, topic, records)


def values(blocks: Iterable[Block]) -> list[tuple[int, int]]:
    return sorted((b.partition, int(b.payload(i) or b"")) for b in blocks for i in range(len(b)))


def test_a_reader_reads_its_partitions_from_their_beginning_and_no_others(broker: str, topic: str) -> None:
    send(broker, topic, range(5))
    send(broker, topic, range(3), partition=1)
    reader = Reader(source(broker, topic), Position(1, 2), MIN_TIMESTAMP)
    assert values(read(reader, 3)) == [(1, 0), (1, 1), (1, 2)]
    position = reader.position()
    assert (position.reader, position.readers, position.ended) == (1, 2, False)
    assert {p: at.offset for p, at in position.partitions.items()} == {1: 3}
    assert position.topic_id
    reader.close()


def test_a_reader_goes_on_where_a_position_says(broker: str, topic: str) -> None:
    send(broker, topic, range(5))
    first = Reader(source(broker, topic, block_messages=2), Position(0, 1), MIN_TIMESTAMP)
    found = read(first, 2)
    position = first.position()
    assert first.stands_at(position._replace(backlog=77))
    assert not first.stands_at(position._replace(partitions={}))
    first.close()
    second = Reader(source(broker, topic), position, MIN_TIMESTAMP)
    found += read(second, 3)
    assert values(found) == [(0, i) for i in range(5)]
    second.close()


def test_what_is_left_is_the_backlog(broker: str, topic: str) -> None:
    send(broker, topic, range(10))
    reader = Reader(source(broker, topic, block_messages=4), Position(0, 2), MIN_TIMESTAMP)
    read(reader, 4)
    (at,) = reader.position().partitions.values()
    assert reader.position().backlog == 10 - at.offset > 0
    read(reader, 10 - at.offset)
    assert reader.position().backlog == 0
    reader.close()


def test_a_bounded_reader_stops_at_the_end_that_it_was_given(broker: str, topic: str) -> None:
    send(broker, topic, range(5))
    bounded = source(broker, topic, stops={0: 3, 1: 0})
    reader = Reader(bounded, Position(0, 1), MIN_TIMESTAMP)
    assert values(read(reader, 3)) == [(0, 0), (0, 1), (0, 2)]
    assert reader.next_block(0.1) is None
    assert reader.position().ended
    assert reader.watermark() == MAX_TIMESTAMP
    reader.close()


def test_a_bounded_reader_that_has_nothing_to_read_has_ended(broker: str, topic: str) -> None:
    reader = Reader(source(broker, topic, stops={0: 3, 1: 0}), Position(1, 2), MIN_TIMESTAMP)
    assert reader.next_block(10) is None
    assert reader.position().ended
    reader.close()


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "while it is stopped"])
def test_a_partition_that_is_added_is_read_from_its_first_record(
    running: bool, broker: str, admin: AdminClient, topic: str
) -> None:
    send(broker, topic, range(2))
    watching = source(broker, topic, discover_every_s=0.1)
    reader = Reader(watching, Position(0, 2), MIN_TIMESTAMP)
    found = read(reader, 2)
    position = reader.position()
    if not running:
        reader.close()
    live.add_partitions(admin, topic, 4)
    send(broker, topic, range(3), partition=2)
    send(broker, topic, range(3), partition=3)  # which is another reader's
    if not running:
        reader = Reader(watching, position, MIN_TIMESTAMP)
    found += read(reader, 3)
    assert values(found) == [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]
    assert {p: at.offset for p, at in reader.position().partitions.items()} == {0: 2, 2: 3}
    reader.close()


def test_before_anything_was_read_a_partition_is_at_its_beginning(broker: str, topic: str) -> None:
    reader = Reader(source(broker, topic), Position(0, 2), MIN_TIMESTAMP)
    assert reader.position().partitions == {0: At(BEGINNING)}
    assert reader.watermark() == MIN_TIMESTAMP
    reader.close()


def lost(blocks: Iterable[Block]) -> int:
    return sum(b.lost for b in blocks)


def delete_before(admin: AdminClient, topic: str, offset: int) -> None:
    """As retention does."""
    place = TopicPartition(topic, 0, offset)
    admin.delete_records([place])[place].result(30)


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "while it is stopped"])
def test_what_retention_took_before_it_was_read_is_counted_and_named(
    running: bool, broker: str, admin: AdminClient, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    send(broker, topic, range(10))
    reader = Reader(source(broker, topic), Position(0, 2), MIN_TIMESTAMP)
    found = read(reader, 10)
    position, watermark = reader.position(), reader.watermark()
    if running:  # the reader falls behind: nothing is fetched while it does nothing for itself
        reader._consumer._consumer.pause([TopicPartition(topic, 0)])
    else:
        reader.close()
    send(broker, topic, range(10, 60))
    delete_before(admin, topic, 40)
    if running:
        reader._consumer._consumer.resume([TopicPartition(topic, 0)])
    else:
        reader = Reader(source(broker, topic), position, watermark)
    found += read(reader, 20)
    assert values(found) == [(0, i) for i in (*range(10), *range(40, 60))]
    assert lost(found) == 30
    assert caplog.messages == [
        f"records lost: topic {topic}, partition 0, at offset 10: offsets 10 to 39 were deleted before they were read; "
        "30 lost, reading goes on at offset 40"
    ]
    reader.close()


def test_the_job_stops_at_a_gap_if_it_is_told_to(broker: str, admin: AdminClient, topic: str) -> None:
    send(broker, topic, range(60))
    delete_before(admin, topic, 40)
    first = Reader(source(broker, topic), Position(0, 2), MIN_TIMESTAMP)
    assert lost(read(first, 20)) == 0, "what is gone before a job begins is not lost to it"
    position = first.position()._replace(partitions={0: At(10)})
    first.close()
    stopping = Reader(source(broker, topic, on_lost="stop"), position, MIN_TIMESTAMP)
    with pytest.raises(RecordsLostError, match=f"topic {topic}, partition 0, at offset 10: .* 30 lost"):
        read(stopping, 1)
    assert stopping.position().partitions[0].offset == 10
    stopping.close()


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "while it is stopped"])
def test_a_topic_that_was_made_anew_is_read_from_its_beginning(
    running: bool, broker: str, admin: AdminClient, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It holds more than the old one did, so no offset tells."""
    send(broker, topic, range(10))
    reader = Reader(source(broker, topic), Position(0, 2), MIN_TIMESTAMP)
    found = read(reader, 10)
    position, watermark = reader.position(), reader.watermark()
    if not running:
        reader.close()
    recreate(broker, admin, topic, range(100, 180))
    if not running:
        reader = Reader(source(broker, topic), position, watermark)
    found += read(reader, 80)
    assert values(found) == [(0, i) for i in (*range(10), *range(100, 180))]
    assert lost(found) == 0
    assert [m.split(";")[0] for m in caplog.messages if "records lost" in m] == [
        f"records lost: topic {topic}, partition 0, at offset 10: the topic was deleted and recreated"
    ]
    assert reader.watermark() >= watermark
    reader.close()


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "while it is stopped"])
def test_a_job_that_accounts_by_offset_does_not_go_on_in_a_topic_that_was_made_anew(
    running: bool, broker: str, admin: AdminClient, topic: str
) -> None:
    send(broker, topic, range(10))
    archiver = source(broker, topic, by_offset=True)
    reader = Reader(archiver, Position(0, 2), MIN_TIMESTAMP)
    read(reader, 10)
    position, watermark = reader.position(), reader.watermark()
    if not running:
        reader.close()
    recreate(broker, admin, topic, range(100, 180))
    with pytest.raises(
        RecordsLostError, match=r"its offsets begin again, .* start it without a savepoint and with another --output"
    ):
        read(reader if running else Reader(archiver, position, watermark), 80)
    reader.close()
    fresh = Reader(archiver, Position(0, 2), MIN_TIMESTAMP)
    assert values(read(fresh, 80)) == [(0, i) for i in range(100, 180)]
    fresh.close()


def test_what_a_checkpoint_knew_to_be_unread_is_lost_with_the_topic(
    broker: str, admin: AdminClient, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    position = stopped_after(broker, topic, 10)
    recreate(broker, admin, topic, range(100, 105))
    reader = Reader(source(broker, topic), position._replace(backlog=7), MIN_TIMESTAMP)
    found = read(reader, 5)
    reader.close()
    assert values(found) == [(0, i) for i in range(100, 105)]
    assert lost(found) == 7
    assert "7 lost" in caplog.text


def test_a_log_that_was_cut_back_is_gone_on_with_where_it_branches_off(
    broker: str, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    position = stopped_after(broker, topic, 60)
    ahead = position._replace(partitions={0: position.partitions[0]._replace(offset=100, read=100)})
    reader = Reader(source(broker, topic), ahead, MIN_TIMESTAMP)
    block = next(found for _ in range(20) if (found := reader.next_block(1.0)) is not None)
    send(broker, topic, range(60, 70))
    found = [block, *read(reader, 10)]
    assert values(found) == [(0, i) for i in range(60, 70)]
    assert lost(found) == 40
    (line,) = caplog.messages
    assert (
        "the log was truncated: offsets 60 to 99 were read, and are gone; 40 lost, reading goes on at offset 60" in line
    )
    reader.close()


def test_an_older_copy_of_the_log_that_has_grown_since_is_named(
    broker: str, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its leader does not know the epoch of what was read."""
    position = stopped_after(broker, topic, 10)._replace(partitions={0: At(5, 77)})
    with pytest.raises(RecordsLostError, match=f"topic {topic}, partition 0, at offset 5: the log is an older copy"):
        read(stopping := Reader(source(broker, topic, on_lost="stop"), position, MIN_TIMESTAMP), 1)
    stopping.close()
    reader = Reader(source(broker, topic), position, MIN_TIMESTAMP)
    found = read(reader, 5)
    assert values(found) == [(0, i) for i in range(5, 10)]
    assert lost(found) == 0
    (line,) = caplog.messages
    assert line.startswith(f"records lost: topic {topic}, partition 0, at offset 5: the log is an older copy")
    assert reader.position().partitions[0].epoch < 77
    reader.close()


def test_the_gaps_of_transactions_are_none_and_one_that_hangs_is_waited_for(broker: str, topic: str) -> None:
    send(broker, topic, range(5))
    transaction = Producer({"bootstrap.servers": broker, "transactional.id": topic, "log_level": 0})
    transaction.init_transactions()
    transaction.begin_transaction()
    transaction.produce(topic, b"5", b"k-5", 0, timestamp=T0 + 5)
    assert transaction.flush(30) == 0
    send(broker, topic, range(6, 9))
    reader = Reader(source(broker, topic), Position(0, 2), MIN_TIMESTAMP)
    found = read(reader, 5)
    assert reader.next_block(0.5) is None
    assert reader.position().backlog == 4
    assert reader._ended_partitions() == set(), "what comes next is there, and held back"
    transaction.abort_transaction()
    found += read(reader, 3)
    assert reader.next_block(0.5) is None
    assert values(found) == [(0, i) for i in (*range(5), *range(6, 9))]
    assert lost(found) == 0
    assert reader._ended_partitions() == {0}
    reader.close()


def test_aborted_records_of_a_later_leader_are_not_taken_for_a_log_that_was_cut_back(tmp_path: Path) -> None:
    """The simulation found it: a restart asked for the log's end in the epoch of the last record that was read, and
    that was before what nobody may read."""
    with Stack(tmp_path, ["kafka"], ports="free") as stack:
        broker = stack.address("kafka")
        live.make_topic(AdminClient({"bootstrap.servers": broker, "log_level": 0}), "orders", 2)
        send(broker, "orders", range(3))
        first = Reader(source(broker, "orders"), Position(0, 2), MIN_TIMESTAMP)
        read(first, 3)
        position = first.position()
        first.close()
        stack.kill("kafka")
        stack.start("kafka")  # which is another leader
        transaction = Producer({"bootstrap.servers": broker, "transactional.id": "shop", "log_level": 0})
        transaction.init_transactions()
        transaction.begin_transaction()
        transaction.produce("orders", b"3", b"k-3", 0, timestamp=T0 + 3)
        assert transaction.flush(30) == 0
        transaction.abort_transaction()
        second = Reader(source(broker, "orders"), position, MIN_TIMESTAMP)
        read(second, 1)
        position = second.position()
        second.close()
        assert position.partitions[0].offset > position.partitions[0].read == 3
        send(broker, "orders", [4])
        third = Reader(source(broker, "orders", on_lost="stop"), position, MIN_TIMESTAMP)
        found = read(third, 1)
        third.close()
    assert values(found) == [(0, 4)]
    assert lost(found) == 0
