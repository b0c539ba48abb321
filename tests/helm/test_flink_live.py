"""A rendered FlinkDeployment run by processes: its launcher's command writes the jar, its configuration is Flink's.

What only Kubernetes and Google have is taken out (leader election, buckets). The operator is not here: what it asks of
Flink over REST, and at which intervals the chart has it do so, is asked by the test.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.orders import Spec
from stack import Stack
from stack.flink import Cluster, job_server_jar
from tests import live
from tests.helm.chart import render
from tests.oracle import expected_alerts

pytestmark = [pytest.mark.deploy, pytest.mark.stack, pytest.mark.timeout(600)]

ORDERS = Spec(orders=5_000, users=500, seed=8)


def test_what_the_chart_says_of_a_job_runs_it_and_upgrades_it(live_stack: Stack, tmp_path: Path) -> None:
    orders = live.fill_with_orders(live_stack, "transactions.orders", ORDERS, 0, ORDERS.records // 2)
    with live.workers() as pool:
        with started(rendered(live_stack, {"parallelism": 2}), pool, tmp_path) as (cluster, job_id):
            wait_for_a_checkpoint(cluster, job_id)
            told = live.flink_rest(cluster.rest_url, f"/jobs/{job_id}/checkpoints/config")
            before = files_of_checkpoints(tmp_path)
            asked(cluster, f"/jobs/{job_id}/checkpoints", {"checkpointType": "FULL"})
            wait_for_a_checkpoint(cluster, job_id)
            after = files_of_the_newest_checkpoint(tmp_path)
            stopped = asked(
                cluster, f"/jobs/{job_id}/stop", {"targetDirectory": f"{tmp_path.as_uri()}/savepoints", "drain": False}
            )
        assert "RocksDB" in told["state_backend"]
        assert before, "checkpoints are incremental"
        assert after, "and go on to be after a full one"
        assert not after & before, "which is the end of files that an age of some days would take away"

        live.fill_with_orders(live_stack, "transactions.orders", ORDERS, ORDERS.records // 2)
        changed = {"parallelism": 4, "flags": {"allowedLateness": "20m"}}
        with started(rendered(live_stack, changed), pool, tmp_path, stopped["location"]) as (cluster, job_id):
            live.eventually(
                lambda: live.alerts_in_redis(live_stack.redis_url) >= expected_alerts(orders), "every alert", 120
            )
            assert live.restored_from(cluster.rest_url, job_id) is not None


def rendered(stack: Stack, fraud: dict[str, Any]) -> dict[str, Any]:
    values = {
        "kafka": {"servers": stack.address("kafka"), "configSecret": {"name": ""}},
        "registry": {"url": stack.registry_url},
        "redis": {"url": stack.redis_url, "configSecret": {"name": ""}},
        "bigquery": {"dataset": ""},
        "jobs": {"fraud": fraud},
    }
    spec: dict[str, Any] = render("prod", values).one("FlinkDeployment", "fraud-detector")["spec"]
    return spec


@contextmanager
def started(
    deployment: dict[str, Any], pool: live.Workers, folder: Path, savepoint: str | None = None
) -> Iterator[tuple[Cluster, str]]:
    """A Flink that runs the job, and the job's id."""
    (launcher,) = deployment["jobManager"]["podTemplate"]["spec"]["initContainers"]
    assert launcher["command"] == ["python"]
    jar = folder / f"{'upgraded' if savepoint else 'first'}.jar"
    here = {
        "/opt/streamforge/job/job.jar": str(jar),
        "/opt/streamforge/flink-job-server.jar": str(job_server_jar()),
        "localhost:50000": pool.address,
    }
    command = [sys.executable, *(replaced(word, here) for word in launcher["args"])]
    done = subprocess.run(command, cwd=live.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    config = configuration(deployment["flinkConfiguration"], folder / "state")
    config["execution.shutdown-on-application-finish"] = "false"  # as the operator has it, which asks how a job ended
    if savepoint:
        config["execution.savepoint.path"] = savepoint
    slots = int(deployment["job"]["parallelism"])
    with Cluster(folder / jar.stem, slots=slots, config=config, jar=jar) as cluster:
        yield cluster, live.running_job(cluster.rest_url)


def replaced(word: str, by: dict[str, str]) -> str:
    for old, new in by.items():
        word = word.replace(old, new)
    return word


def configuration(chart: dict[str, Any], folder: Path) -> dict[str, str]:
    """Buckets become folders; ports, leader election and memory of containers are the cluster's own here."""
    found = {}
    for key, value in chart.items():
        if key.startswith(("high-availability", "kubernetes.", "env.java", "metrics.", "taskmanager.")):
            continue
        text = str(value)
        if text.startswith("gs://"):
            text = f"{folder.as_uri()}/{text.split('/', 3)[3]}"
        found[key] = text
    return found


def wait_for_a_checkpoint(cluster: Cluster, job_id: str) -> None:
    before = live.completed_checkpoints(cluster.rest_url, job_id)
    live.eventually(lambda: live.completed_checkpoints(cluster.rest_url, job_id) > before, "a checkpoint", 90)


def asked(cluster: Cluster, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """What Flink's REST tells of an operation that takes a while, once it is done."""
    trigger = live.flink_rest(cluster.rest_url, path, body)["request-id"]
    state_of = f"{path.rpartition('/')[0]}/savepoints/{trigger}" if path.endswith("/stop") else f"{path}/{trigger}"

    def done() -> dict[str, Any] | None:
        state = live.flink_rest(cluster.rest_url, state_of)
        return dict(state["operation"]) if state["status"]["id"] == "COMPLETED" else None

    found = live.eventually(done, path, 120)
    assert "failure-cause" not in found, found
    return found


def files_of_checkpoints(folder: Path) -> set[str]:
    """RocksDB's, that checkpoints have in common."""
    return {path.name for path in folder.glob("state/checkpoints/fraud-detector/*/shared/*")}


def files_of_the_newest_checkpoint(folder: Path) -> set[str]:
    newest = max(
        folder.glob("state/checkpoints/fraud-detector/*/chk-*/_metadata"), key=lambda path: path.stat().st_mtime
    )
    content = newest.read_bytes()
    return {name for name in files_of_checkpoints(folder) if name.encode() in content}
