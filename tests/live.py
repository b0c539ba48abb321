"""Jobs on real services: started as a user starts them, watched and hurt from outside.

Everything waits for a condition with a deadline. What a test starts ends with the test, also when it fails.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import redis
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as KafkaMessage
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from bench.orders import Encoder, Spec, generate
from schemas.events import OrderEvent, avro_schema
from schemas.store_keys import KEYS
from stack import Stack
from stack.flink import Cluster, job_server_jar
from stack.java import ADD_OPENS, jvm
from stack.ports import pick_free
from tests.oracle import Alert
from transforms.io.registry import Registry

T = TypeVar("T")
ROOT = Path(__file__).parent.parent
OVER = ("CANCELED", "FINISHED", "FAILED")  # the states of a Flink job that has ended
PATIENCE = 5
"""Time-outs here are for a machine with nothing else to do. They only end what hangs, so others get this many times as
long."""


def eventually(condition: Callable[[], T], what: str, timeout_s: float = 60, every_s: float = 0.1) -> T:
    """What the condition returns, once that is true.

    Raises: AssertionError after the timeout.
    """
    deadline = time.monotonic() + timeout_s * PATIENCE
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s * PATIENCE:.0f} s: {what}"
        time.sleep(every_s)
    return result


def equals_soon(found: Callable[[], T], wanted: T, what: str, timeout_s: float = 60) -> None:
    """Waits until they are equal. A running job's rows are in its sinks a moment after its ledger counts them.

    Raises: AssertionError after the timeout; pytest shows where they differ.
    """
    with contextlib.suppress(AssertionError):
        eventually(lambda: found() == wanted, what, timeout_s, every_s=0.5)
    assert found() == wanted, what


class Message(NamedTuple):
    """A record to be sent; partition −1 goes by the key."""

    value: bytes | None
    key: bytes | None = None
    time_ms: int = 0
    partition: int = -1
    headers: list[tuple[str, bytes | None]] = []  # noqa: RUF012 - never mutated


def fill_topic(stack: Stack, topic: str, messages: Iterable[Message], partitions: int = 4) -> int:
    """Sends the messages to a topic, which is made if it is not there; returns how many."""
    servers = stack.address("kafka")
    admin = AdminClient({"bootstrap.servers": servers})
    if admin.list_topics(topic, timeout=60).topics[topic].error is not None:
        # retention.ms: event times may lie further back than Kafka keeps records by default.
        new = NewTopic(topic, partitions, 1, config={"retention.ms": "-1"})
        admin.create_topics([new])[topic].result(30)
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "linger.ms": 20,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,  # else what is tried again comes behind what followed it
        }
    )
    sent = 0
    refused: list[Any] = []
    for message in messages:
        producer.produce(
            topic,
            message.value,
            message.key,
            timestamp=message.time_ms,
            partition=message.partition,
            headers=message.headers,
            on_delivery=lambda error, _: refused.append(error) if error else None,
        )
        sent += 1
        if sent % 10_000 == 0:
            assert producer.flush(60) == 0
    assert producer.flush(60) == 0
    assert not refused, refused[0]
    return sent


def make_topic(admin: AdminClient, topic: str, partitions: int) -> None:
    """One that was deleted is there for a while yet."""

    def made() -> bool:
        try:
            admin.create_topics([NewTopic(topic, partitions, 1, config={"retention.ms": "-1"})])[topic].result(30)
        except KafkaException as e:
            if e.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            return False
        return True

    eventually(made, f"{topic} is made")
    _see_partitions(admin, topic, partitions)


def add_partitions(admin: AdminClient, topic: str, number: int) -> None:
    """So that there are so many."""
    admin.create_partitions([NewPartitions(topic, number)])[topic].result(30)
    _see_partitions(admin, topic, number)


def _see_partitions(admin: AdminClient, topic: str, number: int) -> None:
    """The controller answers a moment before the broker's metadata have them."""
    eventually(lambda: len(admin.list_topics(topic, timeout=60).topics[topic].partitions) == number, "the partitions")


def messages_of(servers: str, topic: str) -> list[KafkaMessage]:
    """All messages that a topic holds now."""
    settings = {"bootstrap.servers": servers, "group.id": "tests", "enable.partition.eof": True}
    consumer = Consumer(settings | {"auto.offset.reset": "earliest", "enable.auto.commit": False})
    try:
        partitions = list(consumer.list_topics(topic, timeout=60).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
        found, ended = [], set()
        deadline = time.monotonic() + 30 * PATIENCE
        while len(ended) < len(partitions):
            assert time.monotonic() < deadline, f"cannot read {topic} to its end"
            for message in consumer.consume(1_000, 0.1):
                if message.error() is None:
                    found.append(message)
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
        return found
    finally:
        consumer.close()


def fill_with_orders(stack: Stack, topic: str, spec: Spec, start: int = 0, end: int | None = None) -> list[OrderEvent]:
    """Sends orders start to end of the benchmark's data set (every rule's patterns are in it); returns all of them."""
    writer_id = Registry(stack.registry_url).register(f"{topic}-value", avro_schema("OrderEvent"))
    orders = generate(spec)
    messages = Encoder(orders, writer_id).messages(start, end)
    fill_topic(stack, topic, (Message(value, key, time_ms) for key, value, time_ms in messages))
    return list(orders.events())


def addresses(stack: Stack, topic: str, output: str | Path) -> list[str]:
    """The flags that point a job at a topic of the stack."""
    return [
        f"--input=kafka://{stack.address('kafka')}/{topic}",
        f"--registry={stack.registry_url}",
        f"--output={output}",
        "--roll_every=1s",
    ]


class Job:
    """A job's launcher, as a process in a group of its own."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, ledger: Path):
        self._process, self.log_path, self._ledger = process, log, ledger

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def ledger(self) -> dict[str, int]:
        """The newest counts; empty before there are any."""
        try:
            return dict(json.loads(self._ledger.read_text()))
        except FileNotFoundError:
            return {}

    def wait_for_ledger(self, in_: int, timeout_s: float = 120) -> dict[str, int]:
        """Waits until the ledger counts so many records in, or more."""

        def counted() -> dict[str, int]:
            assert self._process.poll() is None or self._process.returncode == 0, self._story("it ended")
            ledger = self.ledger()
            return ledger if ledger.get("in", 0) >= in_ else {}

        try:
            return eventually(counted, f"{in_} records in", timeout_s)
        except AssertionError as e:
            raise AssertionError(self._story(str(e))) from None

    def wait(self, timeout_s: float = 180) -> dict[str, int]:
        """Waits until a bounded job has ended well; returns its ledger."""
        try:
            status = self._process.wait(timeout_s * PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(self._story(f"still running after {timeout_s * PATIENCE:.0f} s")) from None
        assert status == 0, self._story(f"status {status}")
        return self.ledger()

    def workers(self) -> list[int]:
        """The Python workers of embedded Flink; of a pool that the test runs, see `Workers.pids`."""
        return _workers_of(self.pid)

    def stop(self, timeout_s: float = 20) -> None:
        """As Ctrl-C does, then without mercy."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _story(self, what: str) -> str:
        return f"{what}; ledger {self.ledger()}; the log ends\n{self.log[-4_000:]}"


@contextlib.contextmanager
def job(*flags: str, folder: Path, module: str = "beam_pipelines.fraud") -> Iterator[Job]:
    """Runs a job with its log and ledger in the folder; it is stopped at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    log, ledger = folder / "job.log", folder / "ledger.json"
    if "--runner=FlinkRunner" in flags:  # by default 20 ms, for which an idle job takes nearly twice as much of a core
        flags = ("--max_bundle_time_mills=100", *flags)
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", module, f"--ledger={ledger}", *flags],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=ROOT,
            start_new_session=True,
        )
    running = Job(process, log, ledger)
    try:
        yield running
    finally:
        running.stop()


def run_here(*flags: str, folder: Path, module: str = "beam_pipelines.fraud") -> dict[str, int]:
    """Runs a job to its end in this process, where Beam is imported already; returns its ledger."""
    folder.mkdir(parents=True, exist_ok=True)
    ledger = folder / "ledger.json"
    importlib.import_module(module).main([f"--ledger={ledger}", *flags])
    return dict(json.loads(ledger.read_text()))


class Workers(NamedTuple):
    """A pool of Python workers beside a standalone Flink; `flags` point a job at it, and they write to the log.

    Attributes:
      job_server: its address; '' where each launcher starts one.
    """

    address: str
    pid: int
    log_path: Path
    job_server: str = ""

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def flags(self) -> list[str]:
        through = [f"--job_endpoint={self.job_server}"] if self.job_server else []
        return ["--environment_type=EXTERNAL", f"--environment_config={self.address}", *through]

    def pids(self) -> list[int]:
        return _workers_of(self.pid)


@contextlib.contextmanager
def workers() -> Iterator[Workers]:
    """Runs `python -m beam_pipelines.worker_pool` on a free port."""
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "beam_pipelines.worker_pool", "--port=0"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        pool = Workers("", process.pid, Path(log.name))
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line, "the worker pool ended"
            yield pool._replace(address=line.split()[-1])
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            sys.stderr.write(pool.log)


@contextlib.contextmanager
def job_server(cluster: Cluster, folder: Path) -> Iterator[str]:
    """Runs Beam's job server for a Flink; yields the address for --job_endpoint.

    Each launcher starts one of its own when it is not told of one, as most tests on embedded Flink show.
    """
    port, log = pick_free(), folder / "job-server.log"
    command = [*jvm("512m"), *ADD_OPENS, "-jar", str(job_server_jar()), f"--flink-master={cluster.master}"]
    command += [f"--job-port={port}", "--artifact-port=0", "--expansion-port=0", f"--artifacts-dir={folder}"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    try:

        def listening() -> bool:
            assert process.poll() is None, log.read_text(errors="replace")[-4_000:]
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        eventually(listening, "the job server listens", 120)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _workers_of(pid: int) -> list[int]:
    """Workers are what the fork server, a child of the pool's process, has forked."""
    # Without -ww a terminal's width in the environment cuts what is looked for here.
    listed = subprocess.run(["ps", "-ewwo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [(int(child), int(parent), args) for child, parent, args in (r.split(None, 2) for r in listed.splitlines())]
    servers = {child for child, parent, args in rows if parent == pid and "multiprocessing.forkserver" in args}
    assert servers, f"process {pid} runs no fork server"
    return sorted(child for child, parent, _ in rows if parent in servers)


def on_cluster(cluster: Cluster, pool: Workers, folder: Path) -> list[str]:
    """The flags that run a job on a standalone Flink, with a checkpoint every two seconds."""
    return [
        *("--runner=FlinkRunner", f"--flink_master={cluster.master}", *pool.flags, "--parallelism=2"),
        *("--checkpointing_interval=2000", f"--state_backend_storage_path={(folder / 'state').as_uri()}"),
        "--sdk_worker_parallelism=2",
    ]


def alerts_in_folder(folder: Path) -> set[Alert]:
    """Of a folder of --output, one for each alert_id."""
    rows = [
        json.loads(line)
        for part in sorted((folder / "fraud_alerts").glob("*.jsonl"))
        for line in part.read_text().splitlines()
    ]
    return _distinct(rows)


def wait_for_alerts(folder: Path, expected: set[Alert]) -> None:
    equals_soon(lambda: alerts_in_folder(folder), expected, "the alerts in the folder")


def alerts_in_redis(url: str) -> set[Alert]:
    client = redis.Redis.from_url(url)
    try:
        keys = list(client.scan_iter(KEYS.user_alerts("*"), count=1_000))
        rows = [json.loads(row) for key in keys for row in client.zrange(key, 0, -1)]
    finally:
        client.close()
    ids = [row["alert_id"] for row in rows]
    assert len(ids) == len(set(ids)), "the store holds an alert twice"
    return _distinct(rows)


def _distinct(rows: list[dict[str, Any]]) -> set[Alert]:
    by_id = {row["alert_id"]: (row["alert_type"], row["user_id"], row["order_id"]) for row in rows}
    alerts = set(by_id.values())
    assert len(alerts) == len(by_id), "one alert has two ids"
    return alerts


def flink_rest(url: str, path: str, body: object = None) -> Any:
    """Flink's answer to GET, or to POST with a body.

    Raises: OSError when there is none, or it is an error.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/{path.lstrip('/')}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def running_job(url: str, timeout_s: float = 120) -> str:
    """The id of the one job that is running, with all its tasks."""

    def find() -> str | None:
        jobs = flink_rest(url, "/jobs")["jobs"]
        ids = [each["id"] for each in jobs if each["status"] == "RUNNING"]
        return ids[0] if ids and all_running(url, ids[0]) else None

    return str(eventually(find, "a running job", timeout_s))


def all_running(url: str, job_id: str) -> bool:
    vertices = flink_rest(url, f"/jobs/{job_id}")["vertices"]
    return all(vertex["status"] in ("RUNNING", "FINISHED") for vertex in vertices)


def completed_checkpoints(url: str, job_id: str) -> int:
    return int(flink_rest(url, f"/jobs/{job_id}/checkpoints")["counts"]["completed"])


def restored_from(url: str, job_id: str) -> int | None:
    """The id of the checkpoint that the job last went back to; None if it never did."""
    restored = (flink_rest(url, f"/jobs/{job_id}/checkpoints")["latest"] or {}).get("restored")
    return int(restored["id"]) if restored else None


def watermarks(url: str, job_id: str) -> dict[str, list[int]]:
    """Name of each vertex → the input watermark (ms) of its subtasks, where there is one."""
    found = {}
    for vertex in flink_rest(url, f"/jobs/{job_id}")["vertices"]:
        rows = flink_rest(url, f"/jobs/{job_id}/vertices/{vertex['id']}/watermarks")
        found[vertex["name"]] = [int(row["value"]) for row in rows]
    return found


def take_savepoint(url: str, job_id: str, folder: Path, *, cancel: bool = True, timeout_s: float = 120) -> str:
    """Takes a savepoint, for --savepoint_path; the job is cancelled with it unless said otherwise."""
    body = {"target-directory": folder.absolute().as_uri(), "cancel-job": cancel}
    trigger = flink_rest(url, f"/jobs/{job_id}/savepoints", body)["request-id"]

    def done() -> dict[str, Any] | None:
        state = flink_rest(url, f"/jobs/{job_id}/savepoints/{trigger}")
        return dict(state["operation"]) if state["status"]["id"] == "COMPLETED" else None

    operation = eventually(done, "a savepoint", timeout_s)
    assert "location" in operation, operation
    return str(operation["location"])


def cancel_all(url: str) -> None:
    """Ends what a failed test left running on a cluster, whose slots the next one needs."""
    for each in flink_rest(url, "/jobs")["jobs"]:
        if each["status"] not in OVER:
            cancel(url, each["id"])


def cancel(url: str, job_id: str, timeout_s: float = 60) -> None:
    """Ends a job on a cluster; its launcher then ends too."""
    request = urllib.request.Request(f"{url}/jobs/{job_id}?mode=cancel", method="PATCH")
    with contextlib.suppress(urllib.error.HTTPError):  # it has ended already
        urllib.request.urlopen(request, timeout=60).close()
    eventually(lambda: flink_rest(url, f"/jobs/{job_id}")["state"] in OVER, "the end of the job", timeout_s)
