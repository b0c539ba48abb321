"""The job server jar, the standalone cluster and the expansion service, with a real Beam job on each."""

import json
import os
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.io.kafka import ReadFromKafka
from apache_beam.options.pipeline_options import PipelineOptions
from confluent_kafka import Producer

from stack import Stack
from stack.flink import FLINK_VERSION, Cluster, built_job_server_jar, job_server_jar
from stack.java import ADD_OPENS
from stack.kafka import Kafka

pytestmark = [
    pytest.mark.stack,
    # Beam's LOOPBACK worker says goodbye with an exception in one of its threads when Flink hangs up first.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


def flags(jar: Path, *more: str) -> PipelineOptions:
    return PipelineOptions(
        [
            "--runner=FlinkRunner",
            f"--flink_version={FLINK_VERSION}",
            f"--flink_job_server_jar={jar}",
            "--environment_type=LOOPBACK",
            "--parallelism=1",
            *more,
        ]
    )


def write_sum(numbers: beam.PCollection[int], target: Path) -> None:
    def write(total: int) -> None:
        target.write_text(str(total))

    numbers | "Sum" >> beam.CombineGlobally(sum) | "Write" >> beam.Map(write)


def overview(cluster: Cluster) -> dict[str, object]:
    with urllib.request.urlopen(f"{cluster.rest_url}/overview", timeout=5) as answer:
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


def test_a_job_runs_on_the_standalone_cluster_also_after_a_taskmanager_was_killed(tmp_path: Path) -> None:
    with Cluster(tmp_path / "flink", taskmanagers=2, slots=1) as cluster:
        assert str(overview(cluster)["flink-version"]).startswith(f"{FLINK_VERSION}.")
        assert overview(cluster)["slots-total"] == 2
        killed = cluster.pid("taskmanager-1")
        cluster.kill_taskmanager(1)
        assert cluster.pid("taskmanager-1") is None
        cluster.start_taskmanager(1)
        assert cluster.pid("taskmanager-1") not in (None, killed)
        eventually(lambda: overview(cluster)["slots-total"] == 2)
        options = flags(job_server_jar(), f"--flink_master={cluster.master}")
        with beam.Pipeline(options=options) as pipeline:
            write_sum(pipeline | beam.Create(range(100)), tmp_path / "sum")
        assert overview(cluster)["jobs-finished"] == 1
        pids = [cluster.pid(name) for name in ("jobmanager", "taskmanager", "taskmanager-1")]
    assert (tmp_path / "sum").read_text() == "4950"
    for pid in pids:
        assert pid
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_kafka_io_is_expanded_and_runs_inside_flink(tmp_path: Path) -> None:
    with Stack(tmp_path, [Kafka(topics={"numbers": 2}), "expansion"], ports="free") as stack:
        producer = Producer({"bootstrap.servers": stack.address("kafka"), "log_level": 0})
        for number in range(100):
            producer.produce("numbers", str(number), str(number))
        assert producer.flush(10) == 0
        with beam.Pipeline(options=flags(built_job_server_jar(), "--experiments=use_deprecated_read")) as pipeline:
            read = ReadFromKafka(
                {"bootstrap.servers": stack.address("kafka"), "auto.offset.reset": "earliest"},
                ["numbers"],
                max_num_records=100,
                timestamp_policy=ReadFromKafka.create_time_policy,
                expansion_service=stack.address("expansion"),
            )
            write_sum(pipeline | read | "Value" >> beam.Map(lambda pair: int(pair[1])), tmp_path / "sum")
        if sys.platform == "linux":
            listeners = Path("/proc/net/tcp6").read_text() + Path("/proc/net/tcp").read_text()
            assert f" 00000000000000000000000000000000:{int(stack.address('expansion')[10:]):04X} " not in listeners
    assert (tmp_path / "sum").read_text() == "4950"
