"""`--kafka_read=native` on real services: a standalone Flink with RocksDB, killed in the middle."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.events import OrderEvent, avro_schema
from stack import Stack
from stack.flink import Cluster
from tests import live
from tests.build import HIGH, LOW, order, payload
from tests.oracle import expected_alerts
from transforms.io.registry import Registry

pytestmark = pytest.mark.stack

REGIONS = ("Istanbul", "Ankara", "Izmir")


@pytest.fixture(scope="module")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    data = tmp_path_factory.mktemp("flink")
    with Cluster(data, checkpoints=data / "kept", config={"state.backend.incremental": "true"}) as cluster:
        yield cluster


@pytest.fixture
def cluster(flink: Cluster) -> Iterator[Cluster]:
    """The same Flink for every test, with all its slots free again after each."""
    yield flink
    live.cancel_all(flink.rest_url)


def recent_orders(count: int, users: int, span_ms: int) -> list[OrderEvent]:
    """Orders of the last minutes, as Beam's watermark jumps to the clock at a partition's end; of every rule."""
    rng = random.Random(7)  # the same on every run
    first_ms = time.time_ns() // 1_000_000 - span_ms - 5_000
    return [
        order(
            f"o-{i}",
            user=f"u-{rng.randrange(users)}",
            at=first_ms + i * span_ms // count,
            amount=HIGH if rng.random() < 0.4 else LOW,
            status="CANCELLED" if rng.random() < 0.2 else "CREATED",
            region=rng.choice(REGIONS),
            is_first_order=rng.random() < 0.02,
        )
        for i in range(count)
    ]


def send(stack: Stack, topic: str, orders: list[OrderEvent]) -> None:
    writer_id = Registry(stack.registry_url).register(f"{topic}-value", avro_schema("OrderEvent"))
    live.fill_topic(
        stack, topic, (live.Message(payload(o, writer_id), o.user_id.encode(), o.event_time) for o in orders)
    )


def flags(stack: Stack, cluster: Cluster, workers: live.Workers, topic: str, output: str | Path) -> list[str]:
    return [
        *live.addresses(stack, topic, output),
        "--runner=FlinkRunner",
        f"--flink_master={cluster.master}",
        *workers.flags,
        "--kafka_read=native",
        "--state_backend=rocksdb",
        "--checkpointing_interval=1000",
    ]


def test_a_killed_task_manager_goes_on_from_its_incremental_checkpoint_with_the_same_alerts(
    live_stack: Stack, cluster: Cluster, tmp_path: Path
) -> None:
    orders = recent_orders(20_000, users=2_500, span_ms=240_000)
    expected, half = expected_alerts(orders), len(orders) // 2
    assert {rule for rule, _, _ in expected} == {
        *("HIGH_VALUE_BURST", "RAPID_ORDERS", "HIGH_VALUE_FIRST_ORDER", "LOCATION_ANOMALY", "SUSPICIOUS_PATTERN")
    }
    redis, topic, url = f"redis://{live_stack.address('valkey')}/1", "orders.native.killed", cluster.rest_url
    send(live_stack, topic, orders[:half])
    storage = f"--state_backend_storage_path={(tmp_path / 'checkpoints').as_uri()}"
    with live.workers() as workers:
        arguments = flags(live_stack, cluster, workers, topic, redis)
        with live.job(*arguments, storage, f"--late={tmp_path}", f"--dead_letters={tmp_path}", folder=tmp_path) as job:
            job_id = live.running_job(url)
            job.wait_for_ledger(half)
            before = live.completed_checkpoints(url, job_id)
            live.eventually(lambda: live.completed_checkpoints(url, job_id) > before + 1, "a checkpoint of all that")
            send(live_stack, topic, orders[half:])
            cluster.kill_taskmanager()
            cluster.start_taskmanager()
            live.eventually(lambda: live.restored_from(url, job_id), "the job restored from a checkpoint")
            ledger = job.wait_for_ledger(len(orders))
            assert ledger == {
                "in": len(orders),
                "good": len(orders),
                "dead_letters": 0,
                "late": 0,
                "duplicates": 0,
                "lost": 0,
            }
            live.eventually(lambda: len(live.alerts_in_redis(redis)) >= len(expected), "all alerts")
            newest_ms = orders[-1].event_time
            live.eventually(
                lambda: all(
                    watermark >= newest_ms - 60_000
                    for subtasks in live.watermarks(url, job_id).values()
                    for watermark in subtasks
                ),
                "the watermark of every step at the topic's end",
            )
            settings = live.flink_rest(url, f"/jobs/{job_id}/checkpoints/config")
            assert settings["state_backend"] == "RocksDBStateBackend"
            # Files that checkpoints share are what makes them incremental.
            assert list((tmp_path / "checkpoints" / job_id / "shared").iterdir())
            live.cancel(url, job_id)
    assert live.alerts_in_redis(redis) == expected


def test_what_is_no_order_keeps_its_bytes_and_origin(live_stack: Stack, cluster: Cluster, tmp_path: Path) -> None:
    """Tombstones, bare keys and headers without a value must come through Java unharmed."""
    topic, now_ms = "orders.native.poison", time.time_ns() // 1_000_000
    good = recent_orders(10, users=10, span_ms=1_000)
    send(live_stack, topic, good)
    poison = [
        live.Message(None, b"tombstone", now_ms, 0),
        live.Message(b"", None, now_ms + 1, 1, [("trace", b"\x00\xff"), ("empty", None), ("trace", b"again")]),
        live.Message(b"\x00no schema", b"k", now_ms + 2, 2, [("streamforge-attempts", b"3")]),
    ]
    live.fill_topic(live_stack, topic, poison)
    with (
        Stack(tmp_path / "expansion", ["expansion"], ports="free") as expansion,
        live.workers() as workers,
        live.job(
            *flags(live_stack, cluster, workers, topic, tmp_path / "out"),
            f"--expansion_service={expansion.address('expansion')}",
            f"--state_backend_storage_path={(tmp_path / 'checkpoints').as_uri()}",
            folder=tmp_path,
        ) as job,
    ):
        ledger = job.wait_for_ledger(len(good) + len(poison))
        if sys.platform == "linux":
            listeners = Path("/proc/net/tcp6").read_text() + Path("/proc/net/tcp").read_text()
            port = int(expansion.address("expansion").rpartition(":")[2])
            assert f" 00000000000000000000000000000000:{port:04X} " not in listeners, "others need not reach it"
        rows = live.eventually(lambda: letters_in(tmp_path / "out", len(poison)), "the letters' parts")
        live.cancel(cluster.rest_url, live.running_job(cluster.rest_url))
    assert (ledger["good"], ledger["dead_letters"]) == (len(good), len(poison))
    letters = {row["partition"]: row for row in rows}
    assert [letters[i]["payload"] for i in range(3)] == [None, "", "AG5vIHNjaGVtYQ=="]
    assert [letters[i]["key"] for i in range(3)] == ["dG9tYnN0b25l", None, "aw=="]
    assert [letters[i]["timestamp"] for i in range(3)] == [now_ms, now_ms + 1, now_ms + 2]
    assert letters[1]["headers"] == [["trace", "AP8="], ["empty", None], ["trace", "YWdhaW4="]]
    assert letters[2]["attempts"] == 4
    assert {row["topic"] for row in letters.values()} == {topic}


def letters_in(output: Path, number: int) -> list[dict[str, Any]]:
    """The dead letters in a folder, once there are so many."""
    parts = (output / "dead_letters").glob("*.jsonl")
    rows = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    return rows if len(rows) >= number else []
