"""Which records are late, on real Kafka and Flink: the same read live and read later, with wrong clocks among them; and
partitions in which nothing happens beside one in which much does."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from schemas import codec
from schemas.events import avro_schema
from schemas.jobs import JOBS
from stack import Stack
from tests import live, server
from tests.build import HOUR, MINUTE, SECOND, order
from tests.monitoring.watched import Tree
from transforms.io.registry import Registry

pytestmark = pytest.mark.stack

Y2035 = 2_051_222_400_000


class Orders:
    """Orders as they lie in a topic."""

    def __init__(self, stack: Stack, topic: str):
        self._schema_id = Registry(stack.registry_url).register(f"{topic}-value", avro_schema("OrderEvent"))
        self._schema = codec.parse_schema(avro_schema("OrderEvent"))

    def __call__(self, order_id: str, user: str, at: int, partition: int = 0) -> live.Message:
        made = order(order_id, user_id=user, at=at)
        return live.Message(codec.encode(made, self._schema_id, self._schema), user.encode(), at, partition)


def make_topic(stack: Stack, topic: str, partitions: int) -> None:
    """One whose broker lets any timestamp in, as older ones did."""
    config = {"retention.ms": "-1", "message.timestamp.after.max.ms": str((1 << 63) - 1)}
    admin = AdminClient({"bootstrap.servers": stack.address("kafka")})
    admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result(30)
    # Made, and not yet known to whoever asks; `fill_topic` would make it.
    live.eventually(lambda: admin.list_topics(topic, timeout=60).topics[topic].error is None, f"{topic} is known")


def an_hour(orders: Orders, start_ms: int) -> list[live.Message]:
    """An order a second, one of them stamped an hour ahead and one 2035."""
    at = [start_ms + i * SECOND for i in range(3_600)]
    made = [orders(f"o-{i}", f"u-{i % 97}", time_ms) for i, time_ms in enumerate(at)]
    made.insert(611, orders("o-fast", "u-fast", at[611] + HOUR))
    made.insert(1_800, orders("o-2035", "u-2035", Y2035))
    return made


def refused(folder: Path) -> list[tuple[str, int, str]]:
    """Class, offset and reason of every record that was refused or late."""
    lines = [line for part in sorted(folder.glob("*/*.jsonl")) for line in part.read_text().splitlines()]
    rows = [json.loads(line) for line in lines]
    return sorted((r["error_class"], r["offset"], r["error_message"]) for r in rows if "error_class" in r)


def test_an_hour_with_wrong_clocks_has_the_same_ledger_read_live_and_read_two_hours_behind(
    live_stack: Stack, tmp_path: Path
) -> None:
    now_ms = time.time_ns() // 1_000_000
    for topic in ("live.hour", "old.hour"):
        make_topic(live_stack, topic, 1)
    expected = {"in": 3_602, "good": 3_601, "dead_letters": 1, "late": 0, "duplicates": 0}

    old = an_hour(Orders(live_stack, "old.hour"), now_ms - 3 * HOUR)
    live.fill_topic(live_stack, "old.hour", old)
    flags = live.addresses(live_stack, "old.hour", tmp_path / "old")
    with live.job("--runner=DirectRunner", "--until=latest", *flags, folder=tmp_path / "o") as job:
        ledger = job.wait()
    assert {name: ledger[name] for name in expected} == expected

    flags = live.addresses(live_stack, "live.hour", tmp_path / "live")
    with live.job("--runner=FlinkRunner", "--roll_every=1s", *flags, folder=tmp_path / "l") as job:
        stamped = an_hour(Orders(live_stack, "live.hour"), now_ms - HOUR)
        for start in range(0, len(stamped), 300):
            live.fill_topic(live_stack, "live.hour", stamped[start : start + 300])
            ledger = job.wait_for_ledger(min(start + 300, len(stamped)))
        live.eventually(lambda: refused(tmp_path / "live"), "the dead letter", 60)
    assert {name: ledger[name] for name in expected} == expected

    for folder in ("old", "live"):
        [(error, offset, reason)] = refused(tmp_path / folder)
        assert (error, offset) == ("InvalidRecordError", 1_800)
        assert f"event_time {Y2035} is from the future" in reason


@contextlib.contextmanager
def busy(stack: Stack, topic: str, orders: Orders, start_ms: int) -> Iterator[list[int]]:
    """Sends about 200 orders a second to partition 0, each 30 ms of event time after the one before; yields event
    times, the newest last."""
    sent, stop = [start_ms], threading.Event()
    producer = Producer({"bootstrap.servers": stack.address("kafka"), "linger.ms": 5, "enable.idempotence": True})

    def send() -> None:
        while not stop.wait(0.05):
            for _ in range(10):
                at = sent[-1] + 30
                message = orders(f"busy-{len(sent)}", f"u-{len(sent) % 97}", at)
                producer.produce(topic, message.value, message.key, partition=0, timestamp=at)
                sent.append(at)
            producer.poll(0)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()
        assert producer.flush(30) == 0


@contextlib.contextmanager
def open_transaction(stack: Stack, topic: str, message: live.Message) -> Iterator[None]:
    """A record that nobody may read yet, nor what comes behind it; committed at the end."""
    settings = {
        "bootstrap.servers": stack.address("kafka"),
        "transactional.id": topic,
        "transaction.timeout.ms": 600_000,
    }
    producer = Producer(settings)
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(topic, message.value, message.key, partition=message.partition, timestamp=message.time_ms)
    assert producer.flush(30) == 0
    yield
    producer.commit_transaction(60)


def rows(folder: Path) -> Iterable[Any]:
    for part in sorted((folder / "real_time_revenue").glob("*.jsonl")):
        yield from map(json.loads, part.read_text().splitlines())


def test_beside_a_busy_partition_silent_ones_hold_nothing_up_but_an_open_transaction_does_and_nothing_is_lost(
    live_stack: Stack, tmp_path: Path
) -> None:
    """Partition 0 is busy, 1 is empty, 2 had three orders long ago; in 3 a transaction is open, with orders before and
    behind it."""
    topic, out = "beside.orders", tmp_path / "out"
    make_topic(live_stack, topic, 4)
    orders = Orders(live_stack, topic)
    start_ms = (time.time_ns() // 1_000_000 - 10 * HOUR) // MINUTE * MINUTE
    long_ago = [orders(f"first-{i}", f"v-{i}", start_ms - 6 * HOUR + i, 2) for i in range(3)]
    live.fill_topic(live_stack, topic, long_ago)

    def seen(pane: str, minute: int, count: int | None = None) -> bool:
        return any(
            (r["pane"], r["window_start"], r["dimension"]) == (pane, minute, "total")
            and count in (None, r["order_count"])
            for r in rows(out)
        )

    first, inside, *behind = (orders(f"w-{i}", f"w-{i % 3}", start_ms + i * SECOND, 3) for i in range(8))
    live.fill_topic(live_stack, topic, [first])

    flags = [*live.addresses(live_stack, topic, out), "--readers=1", "--roll_every=1s", "--allowed_lateness=4h"]
    kafka, name = live_stack.address("kafka"), JOBS["revenue"].name
    with (
        server.running(live_stack.redis_url, "--kafka", kafka, tmp_path=tmp_path) as api,
        live.job("--runner=FlinkRunner", *flags, folder=tmp_path, module="beam_pipelines.revenue") as job,
        busy(live_stack, topic, orders, start_ms) as sent,
    ):
        with open_transaction(live_stack, topic, inside):
            live.fill_topic(live_stack, topic, behind)
            job.wait_for_ledger(1)
            job.wait_for_ledger(len(sent) + 3_000)  # 15 s, and 90 s of event time; idle ones are passed over after 10 s
            assert not any(r["pane"] == "ON_TIME" for r in rows(out)), "no minute is over before the transaction is"
            empty = "streamforge_pipeline_empty_partitions"
            live.eventually(lambda: api.metric(empty, job=name, topic=topic) == 1, "a partition is told to be empty")
            [lag] = Tree().metrics_of("StreamForgeLagGrowing")
            # What nobody may read yet: the transaction's record and those behind it.
            live.eventually(lambda: api.metric(lag, job=name) >= 7, "the metric of an alert tells what waits")
        minute = start_ms + MINUTE
        live.eventually(lambda: seen("ON_TIME", start_ms, 1_999 + 8), "what lay behind it is in time", 180, every_s=0.5)
        live.eventually(lambda: seen("ON_TIME", minute), "a minute is over while others are silent", 180, every_s=0.5)
        # From the idle partition: within the allowed lateness of the job, and not.
        live.fill_topic(live_stack, topic, [orders("v-behind", "v-1", minute + SECOND, 2)])
        live.eventually(lambda: seen("LATE", minute, 2_001), "the minute is corrected", 60, every_s=0.5)
        live.fill_topic(live_stack, topic, [orders("v-far-behind", "v-2", start_ms - 5 * HOUR, 2)])
        live.eventually(lambda: refused(out), "what windows reach no more is named", 60, every_s=0.5)
        ledger = job.wait_for_ledger(len(sent))
    [(error, offset, reason)] = refused(out)
    assert (error, offset) == ("Overtaken", 4)
    assert "had passed the partition over" in reason
    assert (ledger["late"], ledger["dead_letters"], ledger["duplicates"]) == (1, 0, 0)
    assert ledger["in"] == ledger["good"] + 1
