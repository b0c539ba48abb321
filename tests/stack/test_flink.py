"""The job server jar and the standalone cluster. Jobs on them: tests/beam_pipelines/test_*_live.py."""

import json
import os
import time
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import pytest

from stack.flink import FLINK_VERSION, Cluster, built_job_server_jar, job_server_jar
from stack.java import ADD_OPENS

pytestmark = pytest.mark.stack


def overview(cluster: Cluster) -> dict[str, object]:
    with urllib.request.urlopen(f"{cluster.rest_url}/overview", timeout=60) as answer:
        return dict(json.load(answer))


def eventually(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.1)


def test_the_job_server_jar_runs_on_java_17() -> None:
    jar = job_server_jar()
    with zipfile.ZipFile(jar) as content:
        manifest = content.read("META-INF/MANIFEST.MF").decode().replace("\r\n ", "").replace("\n ", "")
    assert "Main-Class: org.apache.beam.runners.flink.FlinkJobServerDriver" in manifest
    if jar == built_job_server_jar():
        opened = next(line for line in manifest.splitlines() if line.startswith("Add-Opens: ")).split()[1:]
        assert [f"--add-opens={package}=ALL-UNNAMED" for package in opened] == ADD_OPENS


def test_that_beams_own_jar_is_out_of_reach_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unreachable(url: str) -> bool:
        asked.append(url)
        return False

    built = built_job_server_jar()
    monkeypatch.setenv("STREAMFORGE_CACHE", str(tmp_path))
    monkeypatch.setattr("stack.job_server._reachable", unreachable)
    monkeypatch.setattr("apache_beam.utils.subprocess_server.JavaJarServer.JAR_CACHE", str(tmp_path))
    (tmp_path / built.parent.name).symlink_to(built.parent)
    first = job_server_jar()
    assert asked
    assert all(f"beam-runners-flink-{FLINK_VERSION}-job-server" in url for url in asked)
    asked.clear()
    assert job_server_jar() == first
    assert not asked


def test_beams_own_jar_is_taken_where_beam_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = tmp_path / f"beam-runners-flink-{FLINK_VERSION}-job-server-{beam.version.__version__}.jar"
    with zipfile.ZipFile(held, "w") as jar:
        jar.writestr("content", "")
    monkeypatch.setenv("STREAMFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("apache_beam.utils.subprocess_server.JavaJarServer.JAR_CACHE", str(tmp_path))
    assert job_server_jar() == held
    assert job_server_jar() == held


def test_a_task_manager_that_was_killed_is_started_again_and_nothing_is_left_at_the_end(tmp_path: Path) -> None:
    with Cluster(tmp_path / "flink", taskmanagers=2, slots=1) as cluster:
        assert str(overview(cluster)["flink-version"]).startswith(f"{FLINK_VERSION}.")
        assert overview(cluster)["slots-total"] == 2
        killed = cluster.pid("taskmanager-1")
        cluster.kill_taskmanager(1)
        assert cluster.pid("taskmanager-1") is None
        cluster.start_taskmanager(1)
        assert cluster.pid("taskmanager-1") not in (None, killed)
        eventually(lambda: overview(cluster)["slots-total"] == 2)
        pids = [cluster.pid(name) for name in ("jobmanager", "taskmanager", "taskmanager-1")]
    for pid in pids:
        assert pid
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
