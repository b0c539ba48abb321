"""Dead letters on folders, and on a real broker: what is counted, sent, sent only once, put aside."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from beam_pipelines import dead_letters, letter_plan
from schemas.events import OrderEvent, avro_schema
from stack import Stack
from stack.ports import pick_free
from tests import build, live
from tests.live import messages_of
from transforms.decode import ORDERS, BlockDecoder
from transforms.errors import ATTEMPTS_HEADER, BadRecord
from transforms.io.kafka import KafkaTopic
from transforms.io.registry import Registry
from transforms.io.resend import RecordSender, Undelivered
from transforms.letter_envelopes import envelopes

Run = Callable[..., tuple[int, str, str]]


def letter(offset: int = 0, **changes: Any) -> BadRecord:
    fields = {
        "payload": b"broken",  # the registry is not asked about what does not begin with a zero
        "job": "fraud-detector",
        "stage": "decode",
        "error_class": "Undecodable",
        "error_message": "not an OrderEvent",
        "topic": "transactions.orders",
        "partition": 0,
        "offset": offset,
        "timestamp": build.T0 + offset,
        "key": b"u-1",
        "headers": [],
        "schema_id": None,
        "attempts": 1,
        "seen_at": build.T0 + build.HOUR + offset,
    }
    return BadRecord(**(fields | changes))


def write_part(folder: Path, letters: list[BadRecord], name: str = "part-1") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_bytes(b"".join(each.to_json() + b"\n" for each in letters))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*argv: object) -> tuple[int, str, str]:
        status = dead_letters.main([str(word) for word in argv])
        return status, *capsys.readouterr()

    return run


def as_json(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


MIXED = [
    letter(1),
    letter(2, error_class="InvalidRecordError", stage="validate", partition=3, payload=b'{"order_id":"\\u001b[2J"}'),
    letter(3, attempts=5),
    letter(3, attempts=5),  # a restarted job wrote it again
    letter(4, topic="data/orders.jsonl", payload=None, error_message="line\nend"),
]


def test_inspect_counts_by_reason_and_origin_each_letter_once(tmp_path: Path, run: Run) -> None:
    write_part(tmp_path / "dead_letters", MIXED)
    status, out, err = run("inspect", tmp_path)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{tmp_path}: 4 open (1 copies)"
    assert [line.split()[:4] for line in lines[2:]] == [
        ["Undecodable", "decode", "transactions.orders", "2"],
        ["InvalidRecordError", "validate", "transactions.orders", "1"],
        ["Undecodable", "decode", "data/orders.jsonl", "1"],
    ]
    assert "1: 1, 5: 1" in lines[2]
    assert "2026-09-21T15:13:20.001Z  2026-09-21T15:13:20.003Z" in lines[2]


def test_the_folder_with_the_parts_itself_is_taken_too(tmp_path: Path, run: Run) -> None:
    write_part(tmp_path, MIXED)
    [summary] = as_json(run("inspect", tmp_path, "--json")[1])
    assert (summary["open"], summary["copies"]) == (4, 1)
    assert summary["groups"][0]["attempts"] == {"1": 1, "5": 1}


def test_show_prints_the_newest_and_nothing_that_a_terminal_would_obey(tmp_path: Path, run: Run) -> None:
    write_part(tmp_path, MIXED)
    _, out, _ = run("inspect", tmp_path, "--show=3")
    shown = out.split("\n\n")[1:]
    assert [text.split("\n")[0].split()[-1] for text in shown] == ["4", "3", "2"]
    assert "\x1b" not in out
    assert "line\\nend" in shown[0]
    assert "payload   none" in shown[0]
    assert "attempts  5" in shown[1]
    assert '{"order_id":"\\u001b[2J"}' in shown[2]


@pytest.mark.parametrize(
    ("flags", "offsets"),
    [
        (["--error_class=InvalidRecordError"], [2]),
        (["--error_class=InvalidRecordError", "--error_class=Undecodable"], [4, 3, 2, 1]),
        (["--topic=data/orders.jsonl"], [4]),
        (["--partition=3"], [2]),
        (["--since=2026-09-21T15:13:20.003Z"], [4, 3]),
        (["--until=2026-09-21T18:13:20.003+03:00"], [2, 1]),
        (["--since=2026-09-21T15:13:20.002Z", "--until=2026-09-21T15:13:20.003Z"], [2]),
    ],
)
def test_filters_choose(tmp_path: Path, run: Run, flags: list[str], offsets: list[int]) -> None:
    write_part(tmp_path, MIXED)
    _, *shown = as_json(run("inspect", tmp_path, "--json", "--show=9", *flags)[1])
    assert [each["offset"] for each in shown] == offsets


def test_discarded_letters_stay_where_they_are_and_are_done(tmp_path: Path, run: Run) -> None:
    write_part(tmp_path / "dead_letters", MIXED)
    before = (tmp_path / "dead_letters" / "part-1.jsonl").read_bytes()

    status, _, err = run("discard", tmp_path)
    assert status == 2
    assert "--yes: is needed to discard 4 letters" in err
    assert as_json(run("inspect", tmp_path, "--json")[1])[0]["open"] == 4

    assert "discarded 3 letters" in run("discard", tmp_path, "--topic=transactions.orders", "--yes")[1]
    write_part(tmp_path / "dead_letters", [MIXED[0], letter(77)], "part-2")  # once more, and a new one
    summary, *shown = as_json(run("inspect", tmp_path, "--json", "--show=9")[1])
    assert (summary["open"], summary["done"], summary["copies"]) == (2, 3, 2)
    assert [each["offset"] for each in shown] == [77, 4]
    assert (tmp_path / "dead_letters" / "part-1.jsonl").read_bytes() == before


def test_a_line_that_is_no_letter_is_counted_shown_and_can_be_discarded(tmp_path: Path, run: Run) -> None:
    write_part(tmp_path, [letter(1)])
    with (tmp_path / "part-1.jsonl").open("ab") as part:
        part.write(b'{"payload": "cut sh')
    status, out, _ = run("inspect", tmp_path, "--show=5")
    assert (status, out.splitlines()[0]) == (0, f"{tmp_path}: 2 open (1 unreadable)")
    assert "cut sh" in out
    assert "discarded 2 letters" in run("discard", tmp_path, "--yes")[1]
    assert as_json(run("inspect", tmp_path, "--json")[1])[0]["open"] == 0


def test_export_writes_the_original_bytes_and_says_of_each_where_it_is_from(tmp_path: Path, run: Run) -> None:
    write_part(tmp_path / "in", MIXED)
    assert run("export", tmp_path / "in", "--to", tmp_path / "out")[0] == 0
    envelopes = as_json((tmp_path / "out" / "letters.jsonl").read_text())
    assert [e["offset"] for e in envelopes] == [1, 2, 3, 4]
    files = {e["offset"]: (tmp_path / "out" / e["file"]).read_bytes() for e in envelopes if "file" in e}
    assert files == {1: MIXED[0].payload, 2: MIXED[1].payload, 3: MIXED[2].payload}
    assert envelopes[1]["decoded"] == {"order_id": "\x1b[2J"}
    assert as_json(run("inspect", tmp_path / "in", "--json")[1])[0]["open"] == 4  # still

    status, _, err = run("export", tmp_path / "in", "--to", tmp_path / "out")
    assert (status, "--to:" in err, "is not empty" in err) == (2, True, True)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "COMMAND"),
        (["mend"], "COMMAND"),
        (["inspect", "--sho=1"], "--sho"),
        (["inspect", "--show=-1"], "--show"),
        (["inspect", "--since=yesterday"], "--since"),
        (["inspect", "--since=2026-09-21T15:00:00"], "--since"),
        (["inspect", "--since=2026-09-21T15:00:00Z", "--until=2026-09-21T15:00:00Z"], "--until"),
        (["inspect", "--partition=one"], "--partition"),
        (["inspect", "--registry=nowhere"], "--registry"),
        (["inspect", "kafka://127.0.0.1:29092"], "SOURCE"),
        (["inspect", "redis://127.0.0.1:6379/0"], "SOURCE"),
        (["inspect", "/no/such/folder"], "SOURCE"),
        (["export"], "--to"),
        (["export", "--to=kafka://127.0.0.1:29092/x"], "--to"),
        (["replay", "--to=folder"], "--to"),
        (["replay", "--rate=0"], "--rate"),
        (["replay", "--kafka=127.0.0.1:29092"], "--kafka"),
        (["replay", "folder", "--kafka=127.0.0.1"], "--kafka"),
        (["replay", "kafka://127.0.0.1:29092/x", "--to=kafka://127.0.0.1:29092/x"], "--to"),
    ],
)
def test_wrong_input_is_one_line_that_names_the_flag(run: Run, argv: list[str], says: str) -> None:
    status, out, err = run(*argv)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert says in err


def test_a_broker_that_is_not_there_is_one_line_within_seconds(tmp_path: Path, run: Run) -> None:
    servers = f"127.0.0.1:{pick_free()}"
    write_part(tmp_path, MIXED)
    for argv in (["inspect", f"kafka://{servers}/dlq.x"], ["replay", tmp_path, f"--kafka={servers}"]):
        begin = time.monotonic()
        assert run(*argv) == (1, "", f"dead_letters: no Kafka broker answers at {servers}\n")
        assert time.monotonic() - begin < 60


class FakeKafka:
    """Stands for a broker with one topic, where a replay is interrupted: what was sent, in order."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.batches: list[int] = []
        self.before: Callable[[int], None] = lambda _: None
        self.servers = "fake"

    def partitions(self, _topic: str) -> int:
        return 2

    def send(self, records: Any) -> list[str | None]:
        self.before(len(self.batches))
        self.batches.append(len(records))
        self.sent += [record.timestamp_ms - build.T0 for _, _, record in records]
        return [None] * len(records)


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> FakeKafka:
    fake = FakeKafka()
    monkeypatch.setattr(dead_letters, "RecordSender", lambda _: fake)
    monkeypatch.setattr(letter_plan, "topic_settings", lambda *_: {})
    return fake


def test_a_replay_sends_no_more_than_it_may_and_the_next_one_goes_on(
    tmp_path: Path, run: Run, kafka: FakeKafka
) -> None:
    write_part(tmp_path, [letter(i, attempts=5 if i == 3 else 1) for i in range(8)])
    status, out, _ = run("replay", tmp_path, "--max=4", "--dry_run")
    assert (status, kafka.sent) == (0, [])
    assert "would replay 4 to transactions.orders\nleft 3 for the next time, by --max=4\nskipped 1 that had 5" in out
    assert "replayed 4" in run("replay", tmp_path, "--max=4")[1]
    assert kafka.sent == [0, 1, 2, 4]
    told = as_json(run("replay", tmp_path, "--max=4", "--json")[1])[0]
    assert (told["sent"], told["beyond_max"]) == ({"transactions.orders": 3}, 0)
    assert kafka.sent == [0, 1, 2, 4, 5, 6, 7]
    assert "replayed nothing" in run("replay", tmp_path, "--max=4")[1]


def test_a_replay_that_is_interrupted_ends_with_its_batch_and_the_next_one_sends_the_rest(
    tmp_path: Path, run: Run, kafka: FakeKafka
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    write_part(tmp_path, [letter(i) for i in range(1_700)])
    for number, counts in ((signal.SIGINT, "replayed 1,000 to"), (signal.SIGTERM, "replayed 500 to")):
        batches = len(kafka.batches)
        kafka.before = lambda batch, at=batches + (number == signal.SIGINT), number=number: (  # type: ignore[misc]
            os.kill(os.getpid(), number) if batch == at else None
        )
        status, out, err = run("replay", tmp_path)
        assert (status, counts in out, "interrupted" in err) == (130, True, True)
    kafka.before = lambda _: None
    assert "replayed 200 to" in run("replay", tmp_path)[1]
    assert kafka.batches == [500, 500, 500, 200]
    assert kafka.sent == [*range(1_700)]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_slow_replay_says_how_far_it_is(
    tmp_path: Path, run: Run, kafka: FakeKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "_PROGRESS_S", 0.0)
    write_part(tmp_path, [letter(i) for i in range(1_100)])
    status, _, err = run("replay", tmp_path, "--rate=100000")
    assert status == 0
    assert "dead_letters: replayed: 500 of 1,100 letters\ndead_letters: replayed: 1,000 of 1,100 letters\n" in err


def test_an_export_as_avro_has_each_letter_with_its_bytes(tmp_path: Path, run: Run) -> None:
    large = next(envelopes(letter(9, payload=random.Random(1).randbytes(90_000)), 40_000))
    write_part(tmp_path / "in", [*MIXED, letter(8, key=None, headers=[("a", b"\xff"), ("b", None)], schema_id=7)])
    (tmp_path / "in" / "part-2.jsonl").write_bytes(large + b"\n")
    status, out, _ = run(
        "export", tmp_path / "in", "--to", tmp_path / "out", "--avro", f"--kafka=127.0.0.1:{pick_free()}"
    )
    assert (status, out) == (1, ""), "the original of the large one is on a broker that is away"
    (tmp_path / "in" / "part-2.jsonl").unlink()
    assert [*(tmp_path / "out").iterdir()] == []
    assert run("export", tmp_path / "in", "--to", tmp_path / "out", "--avro")[0] == 0
    with (tmp_path / "out" / "letters.avro").open("rb") as file:
        found = list(fastavro.reader(file))
    assert [(each["offset"], each["payload"], each["attempts"]) for each in found] == [
        (each.offset, each.payload, each.attempts) for each in (*MIXED[:3], MIXED[4], letter(8))
    ]
    assert json.loads(found[1]["decoded"]) == {"order_id": "\x1b[2J"}
    assert found[4]["headers"] == [{"name": "a", "value": b"\xff"}, {"name": "b", "value": None}]
    assert (found[0]["seen_at"].isoformat(), found[0]["cut"]) == ("2026-09-21T15:13:20.001000+00:00", None)


def test_a_letter_with_numbers_that_kafka_has_not_cannot_be_read(tmp_path: Path, run: Run) -> None:
    """Sending it would have failed, and every replay of the topic with it."""
    write_part(tmp_path, [letter(1, timestamp=1 << 70), letter(-(1 << 64))])
    assert "2 open (2 unreadable)" in run("inspect", tmp_path)[1]


class Topics:
    """A source topic and its dead letters on the broker, new ones for every test."""

    def __init__(self, stack: Stack):
        name = uuid.uuid4().hex[:8]
        self.servers, self.registry = stack.address("kafka"), stack.registry_url
        self.source, self.letters = f"orders.{name}", f"dlq.{name}"
        self.url = f"kafka://{self.servers}/{self.letters}"
        self.admin = AdminClient({"bootstrap.servers": self.servers})
        self._make(self.source, self.letters)
        self._producer = Producer({"bootstrap.servers": self.servers, "enable.idempotence": True})

    def _make(self, *topics: str) -> None:
        config = {"retention.ms": "-1"}  # the tests' records are of some time ago
        for made in self.admin.create_topics([NewTopic(topic, 2, 1, config=config) for topic in topics]).values():
            made.result(30)

    def keep_for(self, retention_ms: int) -> None:
        """Of the source topic."""
        entry = ConfigEntry("retention.ms", str(retention_ms), incremental_operation=AlterConfigOpType.SET)
        change = ConfigResource(ResourceType.TOPIC, self.source, incremental_configs=[entry])
        self.admin.incremental_alter_configs([change])[change].result(30)

    def forget(self, partition: int, before: int) -> None:
        """The source topic's records, as its retention does."""
        asked = TopicPartition(self.source, partition, before)
        self.admin.delete_records([asked])[asked].result(30)

    def make_anew(self) -> None:
        """The source topic, empty."""
        self.admin.delete_topics([self.source])[self.source].result(30)
        live.eventually(lambda: self.source not in self.admin.list_topics(timeout=60).topics, "the topic to go")
        self._make(self.source)

    def send(self, topic: str, value: bytes | None, **fields: Any) -> None:
        self._producer.produce(topic, value, **fields)
        assert self._producer.flush(30) == 0

    def write(self, *letters: BadRecord | bytes) -> None:
        for each in letters:
            value = each if isinstance(each, bytes) else each.to_json()
            self._producer.produce(self.letters, value, partition=0 if isinstance(each, bytes) else each.offset % 2)
        assert self._producer.flush(30) == 0

    def letter(self, offset: int, **changes: Any) -> BadRecord:
        return letter(offset, **({"topic": self.source} | changes))

    def content(self, topic: str | None = None) -> list[Message]:
        found = messages_of(self.servers, topic or self.source)
        return sorted(found, key=lambda m: (m.timestamp()[1], m.offset()))

    def refuse(self, start: dict[int, int], decoder: BlockDecoder[OrderEvent]) -> list[BadRecord]:
        """What a job's decoder refuses of what came since; written to the dead letters as the job does."""
        ends = KafkaTopic.look_up(self.servers, self.source).ends
        found = []
        new = [m for m in messages_of(self.servers, self.source) if m.offset() >= start.get(m.partition(), 0)]
        for message in new:
            block = build.block(
                [message.value()],
                times_ms=message.timestamp()[1],
                first_offset=message.offset(),
                topic=self.source,
                partition=message.partition(),
                keys=[message.key()],
                headers={0: message.headers()} if message.headers() else {},
            )
            found += decoder.decode(block).bad
        start.update(ends)
        self.write(*found)
        return found

    def lag(self) -> int:
        """Of the group that remembers, as monitoring sees it."""
        group = f"streamforge-dead-letters-{self.letters}"
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": group})
        try:
            ends = KafkaTopic.look_up(self.servers, self.letters).ends
            committed = consumer.committed([TopicPartition(self.letters, p) for p in ends], timeout=60)
            return sum(ends[at.partition] - max(at.offset, 0) for at in committed)
        finally:
            consumer.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack"), ["kafka", "registry"], ports="free") as stack:
        yield stack


@pytest.fixture
def topics(stack: Stack) -> Topics:
    return Topics(stack)


def open_letters(run: Run, url: object) -> int:
    return int(as_json(run("inspect", url, "--json")[1])[0]["open"])


@pytest.mark.stack
def test_inspect_counts_a_topics_letters_and_decodes_payloads_by_the_registry(topics: Topics, run: Run) -> None:
    schema_id = Registry(topics.registry).register(f"{topics.source}-value", avro_schema("OrderEvent"))
    order = build.payload(build.order("o-7", currency="try"), schema_id)
    topics.write(topics.letter(1), topics.letter(1), topics.letter(2, payload=order, schema_id=schema_id), b"garbage")
    status, out, _ = run("inspect", topics.url, "--show=9", f"--registry={topics.registry}")
    assert status == 0
    assert out.splitlines()[0] == f"{topics.url}: 3 open (1 copies, 1 unreadable)"
    assert '"order_id":"o-7"' in out
    assert "Çay bardağı" in out
    assert topics.lag() == 4  # looking changes nothing


@pytest.mark.stack
def test_a_topic_that_was_made_a_moment_ago_is_waited_for(tmp_path: Path, run: Run) -> None:
    """On a broker that has no groups either: neither topic, leader nor coordinator is there at once."""
    with Stack(tmp_path, ["kafka"], ports="free") as stack:
        servers = stack.address("kafka")
        admin = AdminClient({"bootstrap.servers": servers})
        admin.create_topics([NewTopic("dlq.new", 2, 1)])["dlq.new"].result(30)
        assert run("inspect", f"kafka://{servers}/dlq.new") == (0, f"kafka://{servers}/dlq.new: 0 open\n", "")


@pytest.mark.stack
def test_replay_sends_the_record_as_it_was_and_only_once(topics: Topics, run: Run) -> None:
    headers: list[tuple[str, bytes | None]] = [("trace", b"\x00\xff"), ("empty", None), (ATTEMPTS_HEADER, b"1")]
    topics.write(
        topics.letter(1, payload=bytes(range(256)), partition=1, headers=headers, attempts=2, key=b"\xff"),
        topics.letter(2, payload=None, key=None),
        topics.letter(2, payload=None, key=None),
        topics.letter(3, attempts=5),
    )
    assert "would replay 2" in run("replay", topics.url, "--dry_run")[1]
    assert topics.content() == []

    status, out, _ = run("replay", topics.url)
    assert status == 0
    assert f"replayed 2 to {topics.source}" in out
    assert "skipped 1 that had 5 attempts" in out
    first, second = topics.content()
    assert (first.value(), first.key(), first.partition()) == (bytes(range(256)), b"\xff", 1)
    assert first.headers() == [("trace", b"\x00\xff"), ("empty", None), (ATTEMPTS_HEADER, b"2")]
    assert (second.value(), second.key(), second.headers()) == (None, None, [(ATTEMPTS_HEADER, b"1")])
    assert [m.timestamp()[1] for m in (first, second)] == [build.T0 + 1, build.T0 + 2]

    topics.write(topics.letter(2, payload=None, key=None))  # by a job that went back to its checkpoint
    assert "replayed nothing" in run("replay", topics.url)[1]
    assert len(topics.content()) == 2
    assert open_letters(run, topics.url) == 1  # the one that had five attempts


@pytest.mark.stack
def test_many_letters_are_all_sent_once_through_filters_and_batches(topics: Topics, run: Run) -> None:
    every = [topics.letter(i, error_class=("A", "B", "C")[i % 3], partition=i % 2) for i in range(3_000)]
    topics.write(*every)
    assert f"replayed 1,000 to {topics.source}" in run("replay", topics.url, "--error_class=B")[1]
    assert "replayed nothing" in run("replay", topics.url, "--error_class=B")[1]
    assert "discarded 1,000 letters" in run("discard", topics.url, "--error_class=C", "--yes")[1]
    assert f"replayed 1,000 to {topics.source}" in run("replay", topics.url)[1]
    expected = [each.timestamp for each in every if each.error_class != "C"]
    assert [m.timestamp()[1] for m in topics.content()] == expected
    assert topics.lag() == 0
    assert len(topics.content(topics.letters)) == 3_000


@pytest.mark.stack
def test_a_record_that_stays_bad_gets_five_attempts_and_no_more(topics: Topics, run: Run) -> None:
    decoder, read = BlockDecoder(ORDERS, "fraud-detector", build.fetch, 0), dict[int, int]()
    topics.send(topics.source, b"\x00 never an order", key=b"u-1", timestamp=build.T0, headers=[("trace", b"7")])
    attempts = []
    for _ in range(7):
        attempts += [bad.attempts for bad in topics.refuse(read, decoder)]
        assert run("replay", topics.url)[0] == 0
    assert attempts == [1, 2, 3, 4, 5]
    assert {(m.value(), m.key(), m.timestamp()[1]) for m in topics.content()} == {
        (b"\x00 never an order", b"u-1", build.T0)
    }
    assert [dict(m.headers()).get(ATTEMPTS_HEADER) for m in topics.content()] == [None, b"1", b"2", b"3", b"4"]
    assert open_letters(run, topics.url) == 1


@pytest.mark.stack
def test_a_lost_connection_resends_at_most_what_was_not_known_to_be_there(
    topics: Topics, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics.write(*(topics.letter(i) for i in range(1_200)))
    send, calls = RecordSender.send, []

    def break_off(self: RecordSender, records: Any) -> Any:
        calls.append(len(records))
        results = send(self, records)
        if len(calls) == 2:
            raise Undelivered("gone", [i < 300 for i in range(len(records))])
        return results

    monkeypatch.setattr(RecordSender, "send", break_off)
    status, out, err = run("replay", topics.url)
    assert (status, err.splitlines()[-1]) == (1, "dead_letters: gone")
    assert f"replayed 800 to {topics.source}" in out
    assert f"replayed 400 to {topics.source}" in run("replay", topics.url)[1]
    sent = [m.timestamp()[1] for m in topics.content()]
    assert len(sent) == 1_400
    assert len(set(sent)) == 1_200


@pytest.mark.stack
def test_a_folder_is_replayed_once_and_what_the_broker_refuses_stays_open(
    tmp_path: Path, topics: Topics, run: Run
) -> None:
    too_large = topics.letter(2, payload=random.Random(1).randbytes(3_000_000))
    write_part(tmp_path / "dead_letters", [topics.letter(1), too_large, topics.letter(3)])
    for sent in ("replayed 2 to", "replayed nothing"):
        status, out, _ = run("replay", tmp_path, f"--kafka={topics.servers}")
        assert status == 1
        assert sent in out
        assert "not sent, 1 that the broker refuses" in out
    assert [m.timestamp()[1] for m in topics.content()] == [build.T0 + 1, build.T0 + 3]
    assert open_letters(run, tmp_path) == 1


@pytest.mark.stack
def test_letters_from_files_go_where_they_are_told_to(tmp_path: Path, topics: Topics, run: Run) -> None:
    row = letter(3, topic="bigquery://shop-1.live.orders", stage="bigquery")
    write_part(tmp_path, [letter(1, topic="data/orders.jsonl"), letter(2, topic="gone"), row])
    status, out, _ = run("replay", tmp_path, f"--kafka={topics.servers}")
    assert status == 0
    assert "skipped 1 that came from a file or over HTTP: say with --to" in out
    assert "skipped 1 that came from the topic gone, which the broker does not have" in out
    assert "skipped 1 that is a row that BigQuery did not take" in out
    assert "replayed 2 to" in run("replay", tmp_path, f"--to=kafka://{topics.servers}/{topics.source}")[1]
    assert {m.headers()[0] for m in topics.content()} == {(ATTEMPTS_HEADER, b"1")}

    status, _, err = run("replay", tmp_path, f"--to=kafka://{topics.servers}/no.such.topic")
    assert (status, "--to: the broker" in err) == (2, True)
    status, _, err = run("inspect", f"kafka://{topics.servers}/no.such.topic")
    assert (status, err) == (2, f"dead_letters: SOURCE: the broker at {topics.servers} has no topic no.such.topic\n")


@pytest.mark.stack
def test_an_exported_payload_that_was_mended_is_what_is_sent(tmp_path: Path, topics: Topics, run: Run) -> None:
    topics.write(topics.letter(1, payload=b"brokn"))
    assert run("export", topics.url, f"--to={tmp_path / 'out'}")[0] == 0
    [file] = (tmp_path / "out" / "payloads").iterdir()
    assert file.read_bytes() == b"brokn"
    file.write_bytes(b"broken no more")
    assert "replayed 1" in run("replay", tmp_path / "out", f"--kafka={topics.servers}")[1]
    [message] = topics.content()
    assert (message.value(), message.key(), message.headers()) == (b"broken no more", b"u-1", [(ATTEMPTS_HEADER, b"1")])


noise = random.Random(1).randbytes


def cut(letter: BadRecord) -> bytes:
    """As it is where no letter may have more than 40,000 bytes."""
    return next(envelopes(letter, 40_000))


@pytest.mark.stack
def test_of_a_record_too_large_for_a_letter_the_original_is_sent_and_exported(
    tmp_path: Path, topics: Topics, run: Run
) -> None:
    payload, headers = noise(900_000), [("trace", noise(2_000)), (ATTEMPTS_HEADER, b"1")]
    for value in (b"before", payload, b"after"):
        topics.send(topics.source, value, key=b"k" * 2_000, partition=1, timestamp=build.T0, headers=headers)
    made = topics.letter(1, payload=payload, partition=1, key=b"k" * 2_000, headers=headers, attempts=2)
    topics.write(cut(made))
    assert "the head of 900,000 bytes" in run("inspect", topics.url, "--show=1")[1]

    assert run("export", topics.url, f"--to={tmp_path / 'out'}")[0] == 0
    [file] = (tmp_path / "out" / "payloads").iterdir()
    assert file.read_bytes() == payload

    status, out, _ = run("replay", topics.url)
    assert (status, f"replayed 1 to {topics.source}" in out) == (0, True)
    *_, sent = [m for m in messages_of(topics.servers, topics.source) if m.offset() == 3]
    assert (sent.value(), sent.key(), sent.partition()) == (payload, b"k" * 2_000, 1)
    assert sent.headers() == [headers[0], (ATTEMPTS_HEADER, b"2")]
    assert open_letters(run, topics.url) == 0


@pytest.mark.stack
@pytest.mark.parametrize("gone", ["deleted by retention", "in a topic that was made anew"])
def test_when_the_original_is_gone_the_letter_stays_and_says_so(
    gone: str, tmp_path: Path, topics: Topics, run: Run
) -> None:
    payload = noise(100_000)
    topics.send(topics.source, payload, partition=0)
    topics.write(cut(topics.letter(0, payload=payload, partition=0)), topics.letter(2))
    if gone == "deleted by retention":
        topics.forget(0, before=1)
        why = "is no longer in its topic"
    else:
        topics.make_anew()
        topics.send(topics.source, b"another", partition=0)
        why = "is no longer in its topic: another record lies there"
    for _ in range(2):
        status, out, _ = run("replay", topics.url)
        assert status == 0
        assert f"skipped 1 that is the head of a record too large for a letter, which {why}\n" in out
    assert open_letters(run, topics.url) == 1
    assert "of 1 only the head" in run("export", topics.url, f"--to={tmp_path / 'out'}")[1]
    [envelope] = as_json((tmp_path / "out" / "letters.jsonl").read_text())
    assert (envelope["cut"]["bytes"], why in envelope["why_cut"]) == (100_000, True)
    assert (tmp_path / "out" / envelope["file"]).read_bytes() == payload[:4_096]


@pytest.mark.stack
def test_a_compressed_letter_is_sent_as_its_record_was(topics: Topics, run: Run) -> None:
    topics.write(cut(topics.letter(1, payload=b"spam and eggs" * 70_000)))
    assert "replayed 1" in run("replay", topics.url)[1]
    assert [m.value() for m in topics.content()] == [b"spam and eggs" * 70_000]


@pytest.mark.stack
def test_a_timestamp_that_the_topic_would_not_keep_is_the_time_of_now_and_in_a_header(topics: Topics, run: Run) -> None:
    """Or the broker deletes the record as soon as it looks: retention counts by the record's own timestamp."""
    topics.keep_for(7 * 24 * build.HOUR)
    now_ms = time.time_ns() // 1_000_000
    topics.write(topics.letter(1), topics.letter(2, timestamp=now_ms - build.HOUR, payload=b"young"))
    assert "replayed 2" in run("replay", topics.url)[1]
    young, old = topics.content()
    assert (young.value(), young.timestamp()[1]) == (b"young", now_ms - build.HOUR)
    assert young.headers() == [(ATTEMPTS_HEADER, b"1")]
    assert now_ms <= old.timestamp()[1] < now_ms + build.HOUR
    assert old.headers() == [(ATTEMPTS_HEADER, b"1"), ("streamforge-timestamp", str(build.T0 + 1).encode())]


@pytest.mark.stack
def test_a_rate_is_kept(topics: Topics, run: Run) -> None:
    topics.write(*(topics.letter(i) for i in range(30)))
    begin = time.monotonic()
    assert "replayed 30" in run("replay", topics.url, "--rate=10")[1]
    assert time.monotonic() - begin >= 2
    assert len(topics.content()) == 30


@pytest.mark.stack
def test_a_replay_that_is_killed_resends_one_batch_at_most(topics: Topics, run: Run) -> None:
    topics.write(*(topics.letter(i) for i in range(1_000)))
    command = [sys.executable, "-m", "beam_pipelines.dead_letters", "replay", topics.url, "--rate=50"]
    with subprocess.Popen(command, cwd=live.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as replay:
        live.eventually(lambda: len(topics.content()) >= 150, "some letters to be sent")
        replay.kill()
    assert run("replay", topics.url)[0] == 0
    sent = [m.timestamp()[1] for m in topics.content()]
    assert len(set(sent)) == 1_000
    assert len(sent) <= 1_050
    assert open_letters(run, topics.url) == 0


@pytest.mark.stack
def test_what_something_else_committed_for_the_group_is_refused(topics: Topics, run: Run) -> None:
    topics.write(topics.letter(0), topics.letter(2))
    consumer = Consumer({"bootstrap.servers": topics.servers, "group.id": f"streamforge-dead-letters-{topics.letters}"})
    consumer.commit(offsets=[TopicPartition(topics.letters, 0, 1, metadata="v1:0:not ours")], asynchronous=False)
    consumer.close()
    status, _, err = run("replay", topics.url)
    assert (status, "is not what was committed" in err, topics.content()) == (2, True, [])
