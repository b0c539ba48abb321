"""The fraud job on the real services: the same alerts on every runner, whatever comes in and whatever is killed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from base64 import b64decode
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from bench.orders import Spec, generate
from schemas import codec
from stack import Stack
from stack.flink import FLINK_VERSION, Cluster, built_job_server_jar
from tests import live
from tests.oracle import expected_alerts
from transforms.errors import BadRecord

pytestmark = pytest.mark.stack

ORDERS = Spec(orders=20_000, users=1_500, duplicates=300)


@pytest.fixture(scope="module")
def orders_topic(live_stack: Stack) -> str:
    live.fill_with_orders(live_stack, "equal.orders", ORDERS)
    return "equal.orders"


@pytest.fixture(scope="module")
def expected() -> set[Any]:
    alerts = expected_alerts(generate(ORDERS).events())
    assert {rule for rule, _, _ in alerts} == {
        "HIGH_VALUE_BURST",
        "RAPID_ORDERS",
        "HIGH_VALUE_FIRST_ORDER",
        "LOCATION_ANOMALY",
        "SUSPICIOUS_PATTERN",
    }
    return alerts


@pytest.mark.parametrize(
    "runner", [["--runner=DirectRunner"], ["--runner=FlinkRunner", "--parallelism=1"]], ids=["direct", "flink-1"]
)
def test_every_runner_finds_the_same_alerts_on_kafka(
    runner: list[str], live_stack: Stack, orders_topic: str, expected: set[Any], tmp_path: Path
) -> None:
    flags = [*runner, "--until=latest", *live.addresses(live_stack, orders_topic, tmp_path / "out")]
    with live.job(*flags, folder=tmp_path) as job:
        ledger = job.wait()
    assert live.alerts_in_folder(tmp_path / "out") == expected
    assert ledger["in"] == ORDERS.records == ledger["good"] + ledger["duplicates"]
    assert ledger["dead_letters"] == ledger["late"] == 0
    assert ledger["duplicates"] > 0


@pytest.mark.parametrize("kind", ["jsonl", "avro"])
def test_files_give_the_same_alerts_as_kafka_in_any_order(kind: str, expected: set[Any], tmp_path: Path) -> None:
    orders = list(generate(ORDERS).events())
    random.Random(kind).shuffle(orders)
    path = tmp_path / f"orders.{kind}"
    if kind == "avro":
        with path.open("wb") as out:
            codec.write_container(out, type(orders[0]), orders)
    else:
        path.write_bytes(b"".join(codec.to_json(order) + b"\n" for order in orders))
    ledger = live.run_here(f"--input={path}", f"--output={tmp_path / 'out'}", folder=tmp_path)
    assert live.alerts_in_folder(tmp_path / "out") == expected
    assert ledger["in"] == ORDERS.records


def test_a_fifth_of_poison_stops_nothing_and_every_bad_record_is_kept(tmp_path: Path) -> None:
    """Bad, late, repeated and fraudulent: the simulator says what it planted, and each is where it belongs."""
    with Stack(tmp_path / "stack", ["kafka", "registry", "valkey"], ports="free") as stack:
        truth = tmp_path / "truth.jsonl"
        simulator = [
            *(sys.executable, "-m", "simulator", "--rate=0", "--events=25000", "--seed=7", "--users=4000"),
            *("--topics=transactions.orders", "--bad_share=0.2", "--fraud_share=0.1", "--late_share=0.01"),
            *("--late_by=2h", "--duplicate_share=0.02", f"--truth={truth}", f"--registry={stack.registry_url}"),
            f"--output=kafka://{stack.address('kafka')}",
        ]
        subprocess.run(simulator, check=True, capture_output=True, cwd=live.ROOT)
        planted = [json.loads(line) for line in truth.read_text().splitlines()]
        sent = planted[-1]["topics"]["transactions.orders"]
        flags = live.addresses(stack, "transactions.orders", stack.redis_url)
        refused = [f"--dead_letters={tmp_path / 'refused'}", f"--late={tmp_path / 'refused'}"]
        with live.job("--runner=FlinkRunner", "--until=latest", *flags, *refused, folder=tmp_path) as job:
            ledger = job.wait()
        found = live.alerts_in_redis(stack.redis_url)

    bad = Counter(line["sha256"] for line in planted if line["kind"] == "bad")
    letters = rows(tmp_path / "refused" / "dead_letters")
    assert Counter(_sha256(letter["payload"]) for letter in letters) == bad
    assert len({(letter["topic"], letter["partition"], letter["offset"]) for letter in letters}) == len(letters)
    assert all(letter["error_class"] and letter["error_message"] and letter["stage"] for letter in letters)
    reasons = {line["reason"] for line in planted if line["kind"] == "bad"}
    assert len(reasons) >= 12, "the simulator plants bad records of many kinds"

    # Late records at the very start of a partition are not late: nothing is there yet to be behind.
    behind = {line["order_id"] for line in planted if line["kind"] == "late" and line["behind_ms"] > 610_000}
    late = {json.loads(_order(letter["payload"]))["order_id"] for letter in rows(tmp_path / "refused" / "late")}
    assert behind <= late <= {line["order_id"] for line in planted if line["kind"] == "late"}

    assert ledger["in"] == sent["sent"]
    assert ledger["dead_letters"] == sent["bad"]
    assert ledger["in"] == ledger["good"] + ledger["dead_letters"] + ledger["late"] + ledger["duplicates"]

    fraud = {(line["rule"], line["user_id"], line["order_id"]) for line in planted if line["kind"] == "fraud"}
    assert {rule for rule, _, _ in fraud} == {rule for rule, _, _ in found}
    assert {alert for alert in found if alert[1].startswith("fraud-")} == fraud


def test_the_dead_letter_of_the_largest_record_fits_its_topic(live_stack: Stack, tmp_path: Path) -> None:
    """Base64 makes it a third larger; a job that could not write it would try for ever."""
    payload = random.Random(1).randbytes(990_000)
    live.fill_topic(live_stack, "large.orders", [live.Message(payload, b"u-1", 1_700_000_000_000)])
    flags = live.addresses(live_stack, "large.orders", tmp_path / "out")
    letters = f"--dead_letters=kafka://{live_stack.address('kafka')}/dlq.fraud-detector"
    assert live.run_here("--until=latest", *flags, letters, folder=tmp_path)["dead_letters"] == 1
    kept = [BadRecord.from_json(m.value()) for m in live.messages_of(live_stack.address("kafka"), "dlq.fraud-detector")]
    assert [letter.payload for letter in kept if letter.topic == "large.orders"] == [payload]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for part in folder.glob("*.jsonl") for line in part.read_text().splitlines()]


def _sha256(payload: str | None) -> str | None:
    return None if payload is None else hashlib.sha256(b64decode(payload)).hexdigest()


def _order(payload: str) -> bytes:
    from schemas.events import OrderEvent, avro_schema

    decoder = codec.Decoder(OrderEvent, lambda _: avro_schema("OrderEvent"))
    return codec.to_json(decoder.decode(b64decode(payload)))


HALVES = Spec(orders=30_000, users=2_000, seed=2)


@pytest.mark.parametrize(("victim", "backend"), [("task manager", "rocksdb"), ("worker", "filesystem")])
def test_a_job_killed_in_the_middle_ends_with_the_same_alerts_and_counts(
    victim: str, backend: str, live_stack: Stack, cluster: Cluster, pool: live.Workers, tmp_path: Path
) -> None:
    """Killed while records stream in: after a checkpoint, and with records read that are in none."""
    topic = f"kill.{victim.replace(' ', '')}"
    orders = live.fill_with_orders(live_stack, topic, HALVES, 0, 10_000)
    newest_ms = max(order.event_time for order in orders)
    flags = [*live.on_cluster(cluster, pool, tmp_path), *live.addresses(live_stack, topic, tmp_path / "out")]
    flags.append(f"--state_backend={backend}")
    with live.job(*flags, folder=tmp_path) as job:
        job_id = live.running_job(cluster.rest_url)
        job.wait_for_ledger(10_000)
        before = live.completed_checkpoints(cluster.rest_url, job_id)
        live.eventually(
            lambda: live.completed_checkpoints(cluster.rest_url, job_id) > before, "a checkpoint with state", 60
        )
        # 20,000 more arrive over some seconds; the blow falls between them.
        sender = threading.Thread(target=_send_rest, args=(live_stack, topic))
        sender.start()
        job.wait_for_ledger(12_000)
        if victim == "worker":
            workers = pool.pids()
            assert workers, "somebody to kill"
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
        else:
            cluster.kill_taskmanager()
            cluster.start_taskmanager()
        sender.join()
        restored = live.eventually(
            lambda: live.restored_from(cluster.rest_url, job_id), "the job restored from a checkpoint", 120
        )
        ledger = job.wait_for_ledger(HALVES.records)
        live.eventually(
            lambda: fraud_watermark(cluster, job_id) >= newest_ms - 10_000, "the watermark at the newest order", 60
        )
        live.wait_for_alerts(tmp_path / "out", expected_alerts(orders))
        settings = live.flink_rest(cluster.rest_url, f"/jobs/{job_id}/checkpoints/config")
        live.cancel(cluster.rest_url, job_id)
    assert ("RocksDB" in settings["state_backend"]) == (backend == "rocksdb")
    assert restored >= 1
    assert ledger == {
        "in": HALVES.records,
        "good": HALVES.records,
        "dead_letters": 0,
        "late": 0,
        "duplicates": 0,
        "lost": 0,
    }


def fraud_watermark(cluster: Cluster, job_id: str) -> int:
    """The input watermark (ms) of the step with the rules, the smallest of its subtasks'; 0 while there is none."""
    found = live.watermarks(cluster.rest_url, job_id)
    return min((mark for name, marks in found.items() if "Fraud" in name for mark in marks), default=0)


def test_a_reader_that_pauses_often_leaves_one_state_in_a_checkpoint(
    live_stack: Stack, cluster: Cluster, pool: live.Workers, tmp_path: Path
) -> None:
    """Flink drops no state before the job ends, so a name for each pause would make it grow for ever."""
    topic, rounds = "pauses.orders", 10
    spec = Spec(orders=rounds, users=1, seed=4)
    own = pool._replace(job_server="")
    flags = [*live.on_cluster(cluster, own, tmp_path), *live.addresses(live_stack, topic, tmp_path / "out")]
    flags += [f"--flink_job_server_jar={built_job_server_jar()}", f"--flink_version={FLINK_VERSION}"]
    live.fill_topic(live_stack, topic, [])
    with live.job(*flags, folder=tmp_path) as job:
        for read in range(rounds):  # what was read leaves the reader when it pauses
            live.fill_with_orders(live_stack, topic, spec, read, read + 1)
            job.wait_for_ledger(read + 1)
        job_id = live.running_job(cluster.rest_url)
        savepoint = live.take_savepoint(cluster.rest_url, job_id, tmp_path / "savepoints")
    kept = [path.read_bytes() for path in Path(urlsplit(savepoint).path).iterdir()]
    names = {name for content in kept for name in re.findall(rb"sdf_checkpoint[:\d]*", content)}
    assert names == {b"sdf_checkpoint:0"}


def _send_rest(stack: Stack, topic: str) -> None:
    for start in range(10_000, HALVES.records, 1_000):
        live.fill_with_orders(stack, topic, HALVES, start, start + 1_000)


def test_a_savepoint_is_taken_and_resumed_from(
    live_stack: Stack, cluster: Cluster, pool: live.Workers, tmp_path: Path
) -> None:
    topic = "savepoint.orders"
    orders = live.fill_with_orders(live_stack, topic, HALVES, 0, 15_000)
    flags = [*live.on_cluster(cluster, pool, tmp_path), *live.addresses(live_stack, topic, tmp_path / "out")]
    with live.job(*flags, folder=tmp_path / "first") as job:
        job_id = live.running_job(cluster.rest_url)
        job.wait_for_ledger(15_000)
        savepoint = live.take_savepoint(cluster.rest_url, job_id, tmp_path / "savepoints")
    live.fill_with_orders(live_stack, topic, HALVES, 15_000)
    with live.job(*flags, f"--savepoint_path={savepoint}", folder=tmp_path / "second") as job:
        job_id = live.running_job(cluster.rest_url)
        ledger = job.wait_for_ledger(HALVES.records)
        live.wait_for_alerts(tmp_path / "out", expected_alerts(orders))
        live.cancel(cluster.rest_url, job_id)
    assert ledger == {
        "in": HALVES.records,
        "good": HALVES.records,
        "dead_letters": 0,
        "late": 0,
        "duplicates": 0,
        "lost": 0,
    }


def test_idle_partitions_do_not_hold_the_watermark_back(
    live_stack: Stack, cluster: Cluster, pool: live.Workers, tmp_path: Path
) -> None:
    """All orders are of one user and so in one partition; one of the two readers has nothing to read at all."""
    topic = "idle.orders"
    spec = Spec(orders=200, users=1, seed=3)
    orders = live.fill_with_orders(live_stack, topic, spec)
    newest_ms = max(order.event_time for order in orders)
    flags = [*live.on_cluster(cluster, pool, tmp_path), *live.addresses(live_stack, topic, tmp_path / "out")]
    with live.job(*flags, folder=tmp_path) as job:
        job_id = live.running_job(cluster.rest_url)
        job.wait_for_ledger(spec.records)

        live.eventually(
            lambda: fraud_watermark(cluster, job_id) >= newest_ms - 10_000,
            "the watermark of every reader within 10 s of the newest order",
            60,
        )
        live.cancel(cluster.rest_url, job_id)
