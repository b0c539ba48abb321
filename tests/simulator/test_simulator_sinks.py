"""What is written can be read back: folders, and a broker inside librdkafka."""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import fastavro
import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, Consumer, Message, Producer, TopicPartition

from schemas.codec import from_json
from schemas.stopping import Stop
from simulator.arrival import arrivals, partition_of
from simulator.config import CLICKS, ORDERS, RECORDS, TOPICS, Config
from simulator.run import Progress, Steady, run
from simulator.sinks import AvroFiles, JsonlFiles, KafkaSink, Sink, SinkError, schema_ids
from simulator.truth import Truth
from simulator.wire import JsonLines, Records

IDS = {topic: 11 + i for i, topic in enumerate(TOPICS)}
MIXED = Config(events=3_000, bad_share=0.1, late_share=0.05, duplicate_share=0.05, out_of_orderness_ms=3_000)


def send(config: Config, sink: Sink) -> list[dict]:
    """Sends everything; the lines of the truth."""
    out = StringIO()
    truth = Truth(config, out)
    run(config, sink, truth, Progress(truth, sink, StringIO()), None, Stop())
    return [json.loads(line) for line in out.getvalue().splitlines()]


def of_kind(truth: list[dict], kind: str) -> list[dict]:
    return [line for line in truth if line["kind"] == kind]


def test_lines_in_a_folder_are_the_events_in_order(tmp_path: Path) -> None:
    truth = send(MIXED, JsonlFiles(tmp_path / "new" / "folder", TOPICS))

    wire = JsonLines()
    for topic in TOPICS:
        expected = [
            e.payload if e.record is None else wire.encode(topic, e.record)
            for e in arrivals(MIXED, wire)
            if e.topic == topic
        ]
        lines = (tmp_path / "new" / "folder" / f"{topic}.jsonl").read_bytes().split(b"\n")
        assert lines == [*expected, b""]
        bad = {line["sha256"] for line in of_kind(truth, "bad") if line["topic"] == topic}
        for line in lines[:-1]:
            if hashlib.sha256(line).hexdigest() not in bad:
                from_json(line, RECORDS[topic])


def test_containers_in_a_folder_are_the_events_in_order(tmp_path: Path) -> None:
    truth = send(MIXED, AvroFiles(tmp_path, TOPICS))

    expected = Counter(e.topic for e in arrivals(MIXED, Records()))
    for topic in TOPICS:
        with (tmp_path / f"{topic}.avro").open("rb") as stream:
            reader = fastavro.reader(stream)
            assert reader.writer_schema["name"].endswith(RECORDS[topic].__name__)
            assert sum(1 for _ in reader) == expected[topic]
    assert all(line["sha256"] is None for line in of_kind(truth, "bad"))


def test_the_summary_accounts_for_every_record(tmp_path: Path) -> None:
    truth = send(MIXED, JsonlFiles(tmp_path, TOPICS))

    summary = truth[-1]
    assert summary["kind"] == "summary"
    assert sum(counts["sent"] for counts in summary["topics"].values()) == MIXED.events
    for topic, counts in summary["topics"].items():
        assert counts["sent"] == counts["good"] + counts["bad"] + counts["late"] + counts["duplicates"]
        for kind, name in (("bad", "bad"), ("late", "late"), ("duplicate", "duplicates")):
            assert sum(line["topic"] == topic for line in of_kind(truth, kind)) == counts[name]
    assert (summary["seed"], summary["start"], summary["failed"]) == (MIXED.seed, MIXED.start_ms, 0)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="--output: cannot write into"):
        JsonlFiles(tmp_path / "file", TOPICS)


@pytest.fixture
def broker() -> Iterator[str]:
    with mock_broker() as address:
        yield address


@contextlib.contextmanager
def mock_broker() -> Iterator[str]:
    """host:port of a mock broker that has the simulator's topics."""
    owner = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "", "log_level": 0})
    for topic in TOPICS:
        owner.list_topics(topic, timeout=60)
    (metadata,) = owner.list_topics(timeout=60).brokers.values()
    yield f"{metadata.host}:{metadata.port}"
    owner.flush(1)


def consumed(broker: str, partitions: dict[str, int]) -> list[Message]:
    """Everything in the topics, in order within each partition."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "test", "auto.offset.reset": "earliest"})
    all_partitions = [TopicPartition(topic, n, 0) for topic, count in partitions.items() for n in range(count)]
    left = sum(consumer.get_watermark_offsets(p, timeout=10)[1] for p in all_partitions)
    consumer.assign(all_partitions)
    messages: list[Message] = []
    while len(messages) < left:
        messages += [m for m in consumer.consume(1_000, timeout=10) if not m.error()]
    consumer.close()
    return messages


def test_kafka_gets_key_timestamp_and_payload_where_the_default_partitioner_puts_them(broker: str) -> None:
    sink = KafkaSink(broker, TOPICS, IDS)
    config = Config(
        events=5_000, bad_share=0.1, late_share=0.05, duplicate_share=0.05, partitions=dict(sink.partitions)
    )

    truth = send(config, sink)

    assert sink.failed == 0
    messages = consumed(broker, sink.partitions)
    got = Counter((m.topic(), m.partition(), m.key(), m.timestamp(), m.value()) for m in messages)
    wanted = Counter(
        (
            e.topic,
            partition_of(e.key, sink.partitions[e.topic]),
            e.key.encode(),
            (TIMESTAMP_CREATE_TIME, e.timestamp_ms),
            e.payload if e.record is None else sink.wire.encode(e.topic, e.record),
        )
        for e in arrivals(config, sink.wire)
    )
    assert got == wanted
    assert {m.partition() for m in messages if m.topic() == ORDERS} == set(range(sink.partitions[ORDERS]))
    hashes = Counter(None if m.value() is None else hashlib.sha256(m.value()).hexdigest() for m in messages)
    assert all(hashes[line["sha256"]] for line in of_kind(truth, "bad"))


def test_a_missing_topic_is_named(broker: str) -> None:
    with pytest.raises(SinkError, match=r"--output: the broker at .* has no topic no\.such\.topic"):
        KafkaSink(broker, (CLICKS, "no.such.topic"), IDS)


def test_what_is_not_delivered_is_counted() -> None:
    with mock_broker() as address:
        sink = KafkaSink(address, TOPICS, IDS, linger_ms=5_000)
    event = next(iter(arrivals(Config(events=1), sink.wire)))
    for _ in range(3):
        sink.send(event)

    sink.close(0)

    assert sink.failed == 3


def test_nobody_at_the_address_is_said_at_once(unused_tcp_address: str) -> None:
    with pytest.raises(SinkError, match="--output: no Kafka broker answers at"):
        KafkaSink(unused_tcp_address, TOPICS, IDS)
    with pytest.raises(SinkError, match="--registry: no schema registry answers at"):
        schema_ids(f"http://{unused_tcp_address}/apis/ccompat/v7")


def test_a_steady_pace_is_the_rate_from_the_first_event_on() -> None:
    pace = Steady(200)
    event = next(iter(arrivals(Config(events=1), JsonLines())))

    assert pace.due_s(400, event) - pace.due_s(0, event) == pytest.approx(2)
