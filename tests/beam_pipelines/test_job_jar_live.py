"""A job's own jar in a Flink that runs nothing else: what each FlinkDeployment is on Kubernetes, as processes.

State, what is kept of it, and restarts are the cluster's configuration here, as the chart gives it. Only folders stand
in for buckets, and nobody starts a lost process again but the test.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.orders import Spec
from stack import Stack
from stack.flink import Cluster
from tests import live
from tests.oracle import expected_alerts

pytestmark = pytest.mark.stack

TOPIC = "jar.orders"
ORDERS = Spec(orders=30_000, users=2_000, seed=6)
CONFIG = {
    "state.backend.type": "rocksdb",
    "state.backend.incremental": "true",
    "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
    "execution.shutdown-on-application-finish": "false",  # as Flink's operator has it, which asks how the job ended
    "restart-strategy.type": "exponential-delay",
    "restart-strategy.exponential-delay.initial-backoff": "1 s",
}


def write_jar(stack: Stack, pool: live.Workers, folder: Path, *flags: str) -> Path:
    jar = folder / "job.jar"
    # No job server that knows a Flink: its address would be in the jar.
    common = [*live.addresses(stack, TOPIC, folder.parent / "out"), *pool._replace(job_server="").flags]
    with live.job(
        "--runner=FlinkRunner",
        "--checkpointing_interval=2000",
        f"--output_executable_path={jar}",
        *common,
        *flags,
        folder=folder,
    ) as job:
        job.wait()
    return jar


def wait_for_ledger(path: Path, in_: int) -> dict[str, int]:
    def counted() -> dict[str, int]:
        ledger: dict[str, int] = json.loads(path.read_text()) if path.exists() else {"in": 0}
        return ledger if ledger["in"] >= in_ else {}

    return live.eventually(counted, f"{in_} records in", 120)


def test_a_jobs_own_jar_survives_kills_and_is_upgraded_with_a_savepoint(
    live_stack: Stack, pool: live.Workers, tmp_path: Path
) -> None:
    orders = live.fill_with_orders(live_stack, TOPIC, ORDERS, 0, 10_000)
    ledger = tmp_path / "first" / "ledger.json"

    # The second is an upgrade: another lateness, and more parallelism. Side by side, as each takes half a minute.
    more = ("--allowed_lateness=20m", "--parallelism=4")
    with ThreadPoolExecutor(2) as threads:
        second = threads.submit(write_jar, live_stack, pool, tmp_path / "second", *more)
        jar = write_jar(live_stack, pool, tmp_path / "first")
        upgrade = second.result()
    with Cluster(tmp_path / "flink-1", checkpoints=tmp_path / "state", config=CONFIG, jar=jar) as cluster:
        job_id = live.running_job(cluster.rest_url)
        wait_for_ledger(ledger, 10_000)
        before = live.completed_checkpoints(cluster.rest_url, job_id)
        live.eventually(lambda: live.completed_checkpoints(cluster.rest_url, job_id) > before, "a checkpoint", 60)
        sender = threading.Thread(target=live.fill_with_orders, args=(live_stack, TOPIC, ORDERS, 10_000, 20_000))
        sender.start()
        for worker in pool.pids():
            os.kill(worker, signal.SIGKILL)
        cluster.kill_taskmanager()
        cluster.start_taskmanager()
        sender.join()
        assert live.eventually(lambda: live.restored_from(cluster.rest_url, job_id), "the job restored", 120)
        wait_for_ledger(ledger, 20_000)
        settings = live.flink_rest(cluster.rest_url, f"/jobs/{job_id}/checkpoints/config")
        savepoint = live.take_savepoint(cluster.rest_url, job_id, tmp_path / "savepoints")
    assert "RocksDB" in settings["state_backend"]
    assert settings["interval"] == 2_000
    assert settings["externalization"]["enabled"]
    assert list((tmp_path / "state").glob("checkpoints/*/shared/*")), "checkpoints are incremental"

    # The upgrade goes on from there.
    live.fill_with_orders(live_stack, TOPIC, ORDERS, 20_000)
    config = {**CONFIG, "execution.savepoint.path": savepoint}
    with Cluster(tmp_path / "flink-2", checkpoints=tmp_path / "state", config=config, jar=upgrade, slots=4) as cluster:
        job_id = live.running_job(cluster.rest_url)
        found = wait_for_ledger(tmp_path / "second" / "ledger.json", ORDERS.records)
        assert live.restored_from(cluster.rest_url, job_id)
        live.wait_for_alerts(tmp_path / "out", expected_alerts(orders))
        live.cancel(cluster.rest_url, job_id)
    assert found == {
        "in": ORDERS.records,
        "good": ORDERS.records,
        "dead_letters": 0,
        "late": 0,
        "duplicates": 0,
        "lost": 0,
    }
