"""A rendered FlinkDeployment run by processes: its launcher's command writes the jar, its configuration is Flink's.

What only Kubernetes and Google have is taken out (leader election, buckets); the operator is not here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.orders import Spec
from stack import Stack
from stack.flink import Cluster, job_server_jar
from tests import live
from tests.helm.chart import render
from tests.oracle import expected_alerts

pytestmark = [pytest.mark.deploy, pytest.mark.stack, pytest.mark.timeout(400)]

ORDERS = Spec(orders=5_000, users=500, seed=8)


def test_what_the_chart_says_of_a_job_runs_it(live_stack: Stack, tmp_path: Path) -> None:
    orders = live.fill_with_orders(live_stack, "transactions.orders", ORDERS)
    values = {
        "kafka": {"servers": live_stack.address("kafka")},
        "registry": {"url": live_stack.registry_url},
        "redis": {"url": live_stack.redis_url, "urlSecret": {"name": ""}, "caConfigMap": {"name": ""}},
        "bigquery": {"dataset": ""},
    }
    deployment = render("prod", values).one("FlinkDeployment", "fraud-detector")["spec"]
    (launcher,) = deployment["jobManager"]["podTemplate"]["spec"]["initContainers"]
    assert launcher["command"] == ["python"]
    with live.workers() as pool:
        jar = tmp_path / "job.jar"
        here = {
            "/opt/streamforge/job/job.jar": str(jar),
            "/opt/streamforge/flink-job-server.jar": str(job_server_jar()),
            "localhost:50000": pool.address,
        }
        command = [sys.executable, *(replaced(word, here) for word in launcher["args"])]
        done = subprocess.run(command, cwd=live.ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        config = configuration(deployment["flinkConfiguration"], tmp_path / "state")
        slots = int(deployment["job"]["parallelism"])
        with Cluster(tmp_path / "flink", slots=slots, config=config, jar=jar) as cluster:
            job_id = live.running_job(cluster.rest_url)
            live.eventually(
                lambda: live.alerts_in_redis(live_stack.redis_url) >= expected_alerts(orders), "every alert", 120
            )
            before = live.completed_checkpoints(cluster.rest_url, job_id)
            live.eventually(lambda: live.completed_checkpoints(cluster.rest_url, job_id) > before, "a checkpoint", 60)
            told = live.flink_rest(cluster.rest_url, f"/jobs/{job_id}/checkpoints/config")
            live.take_savepoint(cluster.rest_url, job_id, tmp_path / "savepoints", cancel=False)
    assert "RocksDB" in told["state_backend"]
    assert list((tmp_path / "state" / "checkpoints" / "fraud-detector").glob("*/shared/*")), "incremental"


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
