"""A topic that changes under a job on a real Flink: partitions that are added, records that are gone, a topic that is
made anew, a broker that moves. tests/transforms/io/kafka/test_reader.py has each case without a pipeline."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from bench.orders import Encoder, Spec, generate
from schemas.events import avro_schema
from schemas.jobs import JOBS
from stack import Stack
from stack.flink import Cluster
from tests import live, server
from tests.monitoring.watched import Tree
from transforms.io.registry import Registry

pytestmark = pytest.mark.stack

_ORDERS = Spec(orders=6_000, users=2_000, seed=5)


class Orders:
    """Sends orders of the benchmark's data set, each once, to partitions that are named."""

    def __init__(self, stack: Stack, topic: str):
        self._stack, self._topic = stack, topic
        writer_id = Registry(stack.registry_url).register(f"{topic}-value", avro_schema("OrderEvent"))
        self._messages = Encoder(generate(_ORDERS), writer_id).messages(0, None)

    def send(self, number: int, to: Iterable[int], stack: Stack | None = None) -> None:
        """So many to each."""
        sent = [
            live.Message(value, key, time_ms, partition)
            for _ in range(number)
            for partition, (key, value, time_ms) in zip(to, self._messages, strict=False)
        ]
        assert live.fill_topic(stack or self._stack, self._topic, sent, partitions=2) == len(sent)


def said(pool: live.Workers, pattern: str) -> Callable[[], bool]:
    """What workers say."""
    return lambda: re.search(pattern, pool.log) is not None


def counter(url: str, job_id: str, name: str) -> int:
    """One of the job's counters, summed over its steps."""
    total = 0
    for vertex in live.flink_rest(url, f"/jobs/{job_id}")["vertices"]:
        path = f"/jobs/{job_id}/vertices/{vertex['id']}/metrics"
        ids = [each["id"] for each in live.flink_rest(url, path) if each["id"].endswith(f"streamforge_{name}")]
        for each in ids:
            total += sum(int(row["value"]) for row in live.flink_rest(url, f"{path}?get={quote(each)}"))
    return total


def readers(url: str, job_id: str) -> list[int]:
    """How many each subtask was given, as Flink counts them."""
    (vertex,) = (v for v in live.flink_rest(url, f"/jobs/{job_id}")["vertices"] if "{Read, " in v["name"])
    rows = live.flink_rest(url, f"/jobs/{job_id}/vertices/{vertex['id']}")["subtasks"]
    return [row["metrics"]["read-records"] for row in rows]


class Watched:
    """An API beside the job: what a job lost, and the partitions that it reads, are told by every way out."""

    def __init__(self, api: server.Server):
        self._api = api

    def tells(self, in_: int, lost: int) -> None:
        [metric] = Tree().metrics_of("StreamForgeRecordsLost")

        def told() -> bool:
            health = json.loads(self._api.get("/api/v1/health")[1])["data"]["ledgers"].get(JOBS["fraud"].name, {})
            alerting = self._api.metric(metric, job=JOBS["fraud"].name)
            return (health.get("in"), health.get("lost"), alerting) == (in_, lost, lost)

        live.eventually(told, f"health, and the metric that the alert looks at, tell {in_} in and {lost} lost")

    def partitions(self, topic: str, number: int, empty: int = 0) -> None:
        [truncated] = Tree().metrics_of("StreamForgeTopicTruncated")
        names = ["streamforge_pipeline_partitions", "streamforge_pipeline_empty_partitions", truncated]

        def told() -> bool:
            return [self._api.metric(name, job=JOBS["fraud"].name, topic=topic) for name in names] == [number, empty, 0]

        live.eventually(told, f"metrics tell {number} partitions, {empty} of them empty")


@contextlib.contextmanager
def watched(store: str, kafka: Stack, folder: Path) -> Iterator[Watched]:
    with server.running(store, "--kafka", kafka.address("kafka"), tmp_path=folder) as api:
        yield Watched(api)


@pytest.fixture
def store(live_stack: Stack) -> str:
    """An empty database."""
    url = live_stack.redis_url.rpartition("/")[0] + "/8"
    with redis.Redis.from_url(url) as db:
        db.flushdb()
    return url


def ledger(in_: int, lost: int) -> dict[str, int]:
    return {"in": in_, "good": in_, "dead_letters": 0, "late": 0, "duplicates": 0, "lost": lost}


def test_a_topic_that_grows_is_swept_and_is_made_anew_is_read_and_what_it_lost_is_counted(
    live_stack: Stack, cluster: Cluster, pool: live.Workers, store: str, tmp_path: Path
) -> None:
    topic = "changing.orders"
    admin = AdminClient({"bootstrap.servers": live_stack.address("kafka")})
    orders = Orders(live_stack, topic)
    orders.send(100, [0, 1])
    flags = [*live.on_cluster(cluster, pool, tmp_path), *live.addresses(live_stack, topic, tmp_path / "out")]
    flags += ["--readers=4", "--discover_every=1s"]
    flags += ["--allowed_lateness=7d"]  # each partition has the whole of event time
    flags += [f"--output={store}"]
    with watched(store, live_stack, tmp_path) as api, live.job(*flags, folder=tmp_path / "first") as job:
        job.wait_for_ledger(200)
        api.partitions(topic, 2)
        job_id = live.running_job(cluster.rest_url)
        live.eventually(lambda: readers(cluster.rest_url, job_id) == [2, 2], "two on each subtask")
        live.add_partitions(admin, topic, 4)
        orders.send(100, [2, 3])
        assert job.wait_for_ledger(400) == ledger(400, 0)
        now_reads = said(pool, rf"topic {topic}: now also reading the new partitions \[2\]")
        live.eventually(now_reads, "a line names the partition")
        api.tells(400, 0)
        api.partitions(topic, 4)
        savepoint = live.take_savepoint(cluster.rest_url, job_id, tmp_path / "savepoints")

    live.add_partitions(admin, topic, 5)
    orders.send(100, [0, 1, 2, 3, 4])
    swept = TopicPartition(topic, 0, 160)
    admin.delete_records([swept])[swept].result(30)
    restored = [*flags, f"--savepoint_path={savepoint}"]
    with watched(store, live_stack, tmp_path) as api, live.job(*restored, folder=tmp_path / "second") as job:
        found = job.wait_for_ledger(840)
        assert found == ledger(840, 60)
        job_id = live.running_job(cluster.rest_url)
        live.eventually(
            said(pool, rf"topic {topic}, partition 0, at offset 100: .* 60 lost, reading goes on at offset 160"),
            "a line names what was lost",
        )
        live.eventually(lambda: counter(cluster.rest_url, job_id, "lost") == 60, "the runner's counter tells, too")
        api.tells(840, 60)
        api.partitions(topic, 5)

        admin.delete_topics([topic])[topic].result(30)
        live.make_topic(admin, topic, 2)
        orders.send(300, [0, 1])  # more than the old one held: no offset tells
        found = job.wait_for_ledger(840 + 600)
        assert found == ledger(840 + 600, 60)
        live.eventually(
            said(pool, rf"topic {topic}, partition 1, at offset 200: the topic was deleted and recreated"),
            "a line names the topic that is another one",
        )
        api.tells(840 + 600, 60)
        api.partitions(topic, 2)
        live.cancel(cluster.rest_url, job_id)


def test_a_job_follows_its_broker_and_goes_on_where_an_older_copy_of_the_log_ends(
    cluster: Cluster, pool: live.Workers, store: str, tmp_path: Path
) -> None:
    """A second broker has the same data; a third one has what a backup held."""
    topic = "moving.orders"
    backup, copy, kept = tmp_path / "backup", tmp_path / "copy", tmp_path / "kept"
    with Stack(tmp_path / "stack", ["kafka", "registry"], ports="free") as stack:
        orders = Orders(stack, topic)
        orders.send(60, [0, 1])
        stack.stop("kafka")
        shutil.copytree(tmp_path / "stack/kafka/data", backup / "kafka/data")
        shutil.copytree(tmp_path / "stack/kafka/data", kept)
        stack.start("kafka")
        orders.send(40, [0, 1])
        registry = f"--registry={stack.registry_url}"
        common = [*live.on_cluster(cluster, pool, tmp_path), registry, f"--output={tmp_path / 'out'}"]
        common += ["--allowed_lateness=7d", f"--output={store}"]
        with live.job(*common, _input(stack, topic), folder=tmp_path / "first") as job:
            assert job.wait_for_ledger(200) == ledger(200, 0)
            savepoint = _stop(cluster, tmp_path)
        stack.stop("kafka")
        shutil.copytree(tmp_path / "stack/kafka/data", copy / "kafka/data")

        with Stack(copy, ["kafka"], ports="free") as second, watched(store, second, tmp_path) as api:
            orders.send(50, [0, 1], second)
            restored = [*common, _input(second, topic), f"--savepoint_path={savepoint}"]
            with live.job(*restored, folder=tmp_path / "second") as job:
                assert job.wait_for_ledger(300) == ledger(300, 0)
                api.tells(300, 0)
                api.partitions(topic, 2)
                savepoint = _stop(cluster, tmp_path)

        with Stack(backup, ["kafka"], ports="free") as third, watched(store, third, tmp_path) as api:
            third.stop("kafka")  # each start is a later epoch of its partitions: the backup will be of an earlier one
            third.start("kafka")
            restored = [*common, _input(third, topic), f"--savepoint_path={savepoint}", "--discover_every=2s"]
            with live.job(*restored, folder=tmp_path / "third") as job:
                live.eventually(lambda: job.ledger().get("lost") == 180, "what was cut off is counted", 120)
                orders.send(10, [0, 1], third)
                assert job.wait_for_ledger(320) == ledger(320, 180)
                api.tells(320, 180)

                third.stop("kafka")  # and while the job reads from it, it is given the backup once more
                shutil.rmtree(backup / "kafka/data")
                shutil.copytree(kept, backup / "kafka/data")
                third.start("kafka")
                live.eventually(lambda: job.ledger().get("lost") == 200, "what was cut off again is counted", 180)
                orders.send(10, [0, 1], third)
                assert job.wait_for_ledger(340) == ledger(340, 200)
                api.tells(340, 200)
                api.partitions(topic, 2)
                live.cancel(cluster.rest_url, live.running_job(cluster.rest_url))
    assert re.search(rf"topic {topic}, partition 0, at offset 150: the log was truncated: offsets 60 to", pool.log)


def _input(stack: Stack, topic: str) -> str:
    return f"--input=kafka://{stack.address('kafka')}/{topic}"


def _stop(cluster: Cluster, folder: Path) -> str:
    return live.take_savepoint(cluster.rest_url, live.running_job(cluster.rest_url), folder / "savepoints")


def test_a_job_that_is_to_stop_at_a_loss_ends_with_its_line(
    live_stack: Stack, cluster: Cluster, pool: live.Workers, tmp_path: Path
) -> None:
    topic = "stopping.orders"
    admin = AdminClient({"bootstrap.servers": live_stack.address("kafka")})
    orders = Orders(live_stack, topic)
    orders.send(50, [0, 1])
    flags = [*live.on_cluster(cluster, pool, tmp_path), *live.addresses(live_stack, topic, tmp_path / "out")]
    flags += ["--on_lost=stop", "--number_of_execution_retries=1", "--allowed_lateness=7d"]
    with live.job(*flags, folder=tmp_path / "first") as job:
        job.wait_for_ledger(100)
        savepoint = _stop(cluster, tmp_path)
    orders.send(50, [0, 1])
    swept = TopicPartition(topic, 1, 90)
    admin.delete_records([swept])[swept].result(30)
    with live.job(*flags, f"--savepoint_path={savepoint}", folder=tmp_path / "second") as job:

        def failed() -> Any:
            jobs = live.flink_rest(cluster.rest_url, "/jobs/overview")["jobs"]
            return [each for each in jobs if each["state"] == "FAILED"]

        (ended,) = live.eventually(failed, "the job fails for good", 120)
        exceptions = live.flink_rest(cluster.rest_url, f"/jobs/{ended['jid']}/exceptions")
    assert f"topic {topic}, partition 1, at offset 50" in str(exceptions)
    assert "40 lost" in str(exceptions)


def test_four_subtasks_have_a_reader_each(
    live_stack: Stack, cluster: Cluster, pool: live.Workers, tmp_path: Path
) -> None:
    topic = "spread.orders"
    live.fill_topic(live_stack, topic, [], partitions=4)
    Orders(live_stack, topic).send(100, range(4))
    flags = [*live.on_cluster(cluster, pool, tmp_path), "--parallelism=4"]
    flags += [*live.addresses(live_stack, topic, tmp_path / "out"), "--readers=4", "--allowed_lateness=7d"]
    with live.job(*flags, folder=tmp_path) as job:
        job.wait_for_ledger(400)
        job_id = live.running_job(cluster.rest_url)
        live.eventually(lambda: readers(cluster.rest_url, job_id) == [1, 1, 1, 1], "one each")
        live.cancel(cluster.rest_url, job_id)
