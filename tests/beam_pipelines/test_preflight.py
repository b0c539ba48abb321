"""Combinations that are known not to work are refused before anything starts, with the remedy."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import DebugOptions, FlinkRunnerOptions, PipelineOptions

from beam_pipelines import archive, connect, expansion, options, runners
from beam_pipelines.fraud import JOB
from beam_pipelines.sinks import KafkaUrl
from schemas.flags import UsageError
from schemas.jobs import JOBS, Job
from stack.errors import StackError
from stack.flink import beam_version, pauses_leak
from stack.ports import pick_free
from transforms.io.kafka.topic import KafkaTopic

KAFKA = "--input=kafka://127.0.0.1:1/orders"
NATIVE = "--kafka_read=native"
ROCKSDB = "--state_backend=rocksdb"


def check(*argv: str) -> PipelineOptions:
    _, settings, rest = options.parse(JOB, argv)
    return runners.pipeline_options(settings, rest)


def flink(*argv: str) -> PipelineOptions:
    return check(KAFKA, "--runner=FlinkRunner", *argv)


@pytest.fixture
def jar(tmp_path: Path) -> Callable[..., Path]:
    def make(version: str, manifest: str = "") -> Path:
        path = tmp_path / f"job-server-of-{version}{'-ours' if manifest else ''}.jar"
        with zipfile.ZipFile(path, "w") as content:
            content.writestr("META-INF/MANIFEST.MF", f"Manifest-Version: 1.0\r\n{manifest}\r\n")
            content.writestr("org/apache/beam/sdk/sdk.properties", f"# Beam\nversion={version}\nsdk_version=x\n")
        return path

    return make


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, jar: Callable[[str], Path]) -> dict[str, Path]:
    """The job servers that would be found or built."""
    jars = {"found": jar("2.77.0"), "built": jar("2.70.0")}
    monkeypatch.setattr("stack.flink.job_server_jar", lambda: jars["found"])
    monkeypatch.setattr("stack.flink.built_job_server_jar", lambda: jars["built"])
    return jars


@pytest.mark.parametrize("version", ["2.62.0", "2.70.0", "2.75.1"])
@pytest.mark.parametrize("words", [[ROCKSDB], ["--state_backend", "RocksDB"]])
def test_rocksdb_behind_our_source_is_refused_on_old_job_servers(
    jar: Callable[[str], Path], version: str, words: list[str]
) -> None:
    with pytest.raises(UsageError) as refused:
        flink(*words, f"--flink_job_server_jar={jar(version)}")
    text = str(refused.value)
    assert text.startswith("--state_backend=rocksdb: with --kafka_read=blocks, ")
    assert f"Beam {version.rpartition('.')[0]} " in text
    assert all(remedy in text for remedy in (NATIVE, "--state_backend=filesystem", "built here", "Beam 2.76 or newer"))


def test_rocksdb_behind_our_source_works_on_the_job_server_that_is_built_here(jar: Callable[..., Path]) -> None:
    ours = jar("2.70.0", manifest="StreamForge-Bounded-Residuals: true\r\n")
    assert not pauses_leak(str(ours))
    flink(ROCKSDB, f"--flink_job_server_jar={ours}")


def test_the_job_server_that_would_be_found_is_looked_at(found: dict[str, Path]) -> None:
    flink(ROCKSDB)
    found["found"] = found["built"]
    with pytest.raises(UsageError, match=r"Beam 2\.70"):
        flink(ROCKSDB)


@pytest.mark.parametrize(
    "more",
    [
        ["--state_backend=filesystem"],
        ["--until=latest", ROCKSDB],
        [NATIVE, ROCKSDB],
        [ROCKSDB, "--state_backend=hashmap"],
    ],
)
def test_what_works_on_an_old_job_server_is_not_refused(jar: Callable[[str], Path], more: list[str]) -> None:
    flink(f"--flink_job_server_jar={jar('2.70.0')}", *more)


def test_files_need_no_reader_that_could_leak(jar: Callable[[str], Path]) -> None:
    files = ["--input=orders.jsonl", "--output=out", "--runner=FlinkRunner"]
    check(*files, ROCKSDB, f"--flink_job_server_jar={jar('2.70.0')}")


@pytest.mark.parametrize("path", ["gs://bucket/job-server.jar", "no-such.jar"])
def test_a_job_server_of_unknown_release_is_not_refused(path: str) -> None:
    flink(ROCKSDB, f"--flink_job_server_jar={path}")


def test_the_release_is_read_from_the_jar_and_else_from_its_name(jar: Callable[[str], Path], tmp_path: Path) -> None:
    assert beam_version(str(jar("2.70.0"))) == (2, 70)
    assert beam_version(str(jar("3.0.0-SNAPSHOT"))) == (3, 0)
    assert beam_version("https://example.org/beam-runners-flink-1.19-job-server-2.77.0.jar") == (2, 77)
    broken = tmp_path / "beam-runners-flink-1.19-job-server-2.76.0.jar"
    broken.write_bytes(b"half a download")
    assert beam_version(str(broken)) == (2, 76)
    assert beam_version("jar") is None


def test_embedded_flink_takes_incremental_checkpoints_of_rocksdb(found: dict[str, Path]) -> None:
    conf = Path(_value(flink(ROCKSDB, NATIVE), "flink_conf_dir")) / "flink-conf.yaml"
    assert "\nstate.backend.incremental: true\n" in conf.read_text()
    assert _value(flink(ROCKSDB, NATIVE, "--flink_conf_dir=mine"), "flink_conf_dir") == "mine"
    assert _value(flink(ROCKSDB, NATIVE, "--flink_master=host:8081"), "flink_conf_dir") == ""
    assert _value(flink(NATIVE), "flink_conf_dir") == ""


JAR = "--output_executable_path=job.jar"
POOL = ("--environment_type=EXTERNAL", "--environment_config=localhost:50000")


def test_a_jobs_own_jar_leaves_its_state_to_the_configuration_of_its_cluster(found: dict[str, Path]) -> None:
    made = flink(JAR, *POOL)
    for name in ("state_backend", "state_backend_storage_path", "flink_conf_dir"):
        assert _value(made, name) == "", name
    assert _value(flink(JAR, *POOL, ROCKSDB), "flink_conf_dir") == ""
    # Part of every savepoint, and what Beam itself must know; so no cluster's business.
    assert (_value(made, "max_parallelism"), _value(made, "checkpointing_interval")) == ("128", "5000")


def test_a_jobs_own_jar_needs_workers_that_its_cluster_can_reach(found: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=r"--output_executable_path: .* --environment_type=EXTERNAL"):
        flink(JAR)


def test_a_jobs_own_jar_may_meet_rocksdb_so_a_job_server_that_leaks_is_refused(found: dict[str, Path]) -> None:
    found["found"] = found["built"]
    with pytest.raises(UsageError, match=r"Beam 2\.70"):
        flink(JAR, *POOL)
    flink(JAR, *POOL, "--state_backend=hashmap")


def test_no_list_of_packages_is_made_at_each_start(found: dict[str, Path]) -> None:
    given = flink("--experiments=mine").view_as(DebugOptions).experiments
    assert {"mine", "disable_logging_submission_environment"} <= set(given)


def test_the_native_read_runs_inside_the_job_server_that_holds_kafka_io(found: dict[str, Path]) -> None:
    made = flink(NATIVE)
    assert made.view_as(FlinkRunnerOptions).flink_job_server_jar == str(found["built"])
    assert "use_deprecated_read" in made.view_as(DebugOptions).experiments
    assert _value(made, "max_bundle_time_mills") == "100"
    assert _value(flink(NATIVE, "--max_bundle_time_mills=5"), "max_bundle_time_mills") == "5"
    ours = flink()
    assert ours.view_as(FlinkRunnerOptions).flink_job_server_jar == str(found["found"])
    assert "use_deprecated_read" not in (ours.view_as(DebugOptions).experiments or [])


def test_several_workers_of_beams_own_runner_are_refused_as_it_loses_what_they_have_left_to_read() -> None:
    with pytest.raises(UsageError, match=r"--direct_num_workers: .* loses Kafka records"):
        check(KAFKA, "--direct_num_workers=2")
    check(KAFKA, "--direct_num_workers=1")


@pytest.mark.parametrize("runner", ["DirectRunner", "PrismRunner"])
def test_the_native_read_is_refused_where_it_cannot_run(runner: str) -> None:
    with pytest.raises(UsageError, match=f"--kafka_read=native: needs .*leave it out with {runner}"):
        check(KAFKA, NATIVE, f"--runner={runner}")


def test_the_native_read_has_no_end() -> None:
    with pytest.raises(UsageError, match=r"--until: .*--kafka_read=blocks"):
        check(KAFKA, NATIVE, "--until=latest")


@pytest.mark.parametrize("address", ["localhost", ":8097", "localhost:", "localhost:port"])
def test_an_expansion_service_is_host_and_port(address: str) -> None:
    with pytest.raises(UsageError, match=r"--expansion_service: .*is not host:port"):
        check(KAFKA, NATIVE, f"--expansion_service={address}")


def test_an_expansion_service_that_does_not_answer_is_named() -> None:
    address = f"127.0.0.1:{pick_free()}"
    _, settings, _ = options.parse(JOB, [KAFKA, NATIVE, f"--expansion_service={address}"])
    with pytest.raises(UsageError, match=f"--expansion_service: nothing answers at {address}"):
        expansion.service(settings)


def test_an_expansion_service_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise StackError("Maven not found")

    monkeypatch.setattr("stack.flink.built_job_server_jar", fail)
    _, settings, _ = options.parse(JOB, [KAFKA, NATIVE])
    with pytest.raises(UsageError, match="--kafka_read=native: Maven not found"):
        expansion.service(settings)


def _value(made: PipelineOptions, name: str) -> str:
    """Of a flag that the Python SDK passes on without knowing it."""
    return str(made.get_all_options(retain_unknown_options=True).get(name) or "")


def test_a_job_that_is_to_stop_at_a_loss_is_not_restarted_for_ever(found: dict[str, Path]) -> None:
    def retries(*argv: str) -> list[str]:
        """An option of Flink's, of which the SDK knows nothing."""
        return [word for word in flink(*argv)._flags if word.startswith("--number_of_execution_retries")]

    assert retries() == []
    assert retries("--on_lost=stop") == ["--number_of_execution_retries=3"]
    assert retries("--on_lost=stop", "--number_of_execution_retries=9") == ["--number_of_execution_retries=9"]


@pytest.mark.parametrize("job", JOBS.values(), ids=list(JOBS))
def test_the_source_of_the_archiver_alone_knows_that_its_job_accounts_by_offset(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KafkaUrl, "look_up", lambda url, _: KafkaTopic(url.servers, url.topic, {0: 0}, "an-id"))
    _, settings, _ = options.parse(job, [f"--input=kafka://127.0.0.1:1/{topic}" for topic in job.topics])
    reads = [connect.read_blocks(settings, url) for url in settings.inputs if isinstance(url, KafkaUrl)]
    assert len(reads) == len(job.topics)
    assert {read._source.by_offset for read in reads} == {job.module == "archive"}


@pytest.mark.parametrize(
    ("told", "refused"),
    [(None, False), ({}, False), ({"topic_id": "an-id"}, False), ({"topic_id": "of a topic before"}, True)],
    ids=["a new folder", "one of an earlier release", "its own", "that of a topic before"],
)
def test_the_archiver_does_not_start_into_the_folder_of_another_topic_of_that_name(
    told: dict[str, str] | None, refused: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(KafkaUrl, "look_up", lambda url, _: KafkaTopic(url.servers, url.topic, {0: 0}, "an-id"))
    if told is not None:
        (tmp_path / "accounts" / "orders").mkdir(parents=True)
        (tmp_path / "accounts" / "orders" / "transactions.orders.ends.json").write_text(json.dumps(told))
    flags = [f"--input=kafka://127.0.0.1:1/{topic}" for topic in JOBS["archive"].topics]
    _, settings, _ = options.parse(JOBS["archive"], [*flags, f"--output={tmp_path}"])
    if not refused:
        archive.source(settings)
        return
    with pytest.raises(UsageError, match=r"another id: topic transactions\.orders was deleted and recreated"):
        archive.source(settings)
