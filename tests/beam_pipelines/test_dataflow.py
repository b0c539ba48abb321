"""Jobs on Dataflow, as far as that can be seen without Google: what is refused, what is submitted, what is staged.

Each job is submitted to a fake of Dataflow's API with the parameters of its template, against a real broker and
registry and emulated buckets and BigQuery. What it staged is compared with `outlines/<job>.txt`: what a running job's
state hangs on. WRITE_OUTLINES=1 writes those anew; a step that got another name, or keeps something else, cannot take
over the state of a running job, so look at the difference before you commit it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from apache_beam.internal import pickler
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, StandardOptions, WorkerOptions
from apache_beam.portability.api import beam_runner_api_pb2, standard_window_fns_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineState

from beam_pipelines import archive, fraud, options, runners, tables, templates
from beam_pipelines.run import page
from bench.orders import Spec
from schemas import codec
from schemas.events import avro_schema
from schemas.flags import UsageError
from schemas.jobs import JOBS, LETTERS, Job
from schemas.tables import TABLES
from stack import Stack
from tests import fake_dataflow, live
from tests.beam_pipelines.test_fraud import golden
from tests.bigquery_emulator import Emulator
from tests.build import MINUTE, T0, click
from tests.fake_dataflow import FakeDataflow
from tests.live import ROOT
from tests.oracle import expected_alerts
from tests.oracle_sessions import expected_sessions
from tests.outline import outline, unstable_keys
from transforms.domain.fraud_rules import CREATED, default_rules
from transforms.io.registry import Registry

OUTLINES = Path(__file__).parent / "outlines"
IMAGE = "europe-west1-docker.pkg.dev/shop-1/streamforge/streamforge-worker:0.1.0"
CLOUD = [
    *("--runner=DataflowRunner", "--project=shop-1", "--region=europe-west1", "--temp_location=gs://shop-state/tmp"),
    f"--sdk_container_image={IMAGE}",
]
OURS = "dataflow."
STORE = "secret://shop-1/redis-url?ca=redis-ca"
TOPICS = "kafka://10.0.0.2:9092/transactions.orders"
STREAM = [f"--input={TOPICS}", "--output=redis://10.0.0.3:6379/0", "--registry=http://10.0.0.4:8081"]


# What is refused, and what is set


def submitted_with(*argv: str, job: Job = fraud.JOB) -> PipelineOptions:
    _, settings, rest = options.parse(job, argv)
    return runners.pipeline_options(settings, rest)


def refusal(*argv: str) -> str:
    with pytest.raises(UsageError) as refused:
        submitted_with(*argv)
    return str(refused.value)


def test_a_stream_is_one_from_the_start_on_few_machines_without_public_addresses() -> None:
    found = submitted_with(*CLOUD, *STREAM)
    assert found.view_as(StandardOptions).streaming
    worker = found.view_as(WorkerOptions)
    assert (worker.max_num_workers, worker.use_public_ips) == (4, False)
    assert found.get_all_options()["sdk_location"] == "container"
    assert found.view_as(GoogleCloudOptions).job_name == "fraud-detector"


def test_what_is_given_wins() -> None:
    given = ["--max_num_workers=9", "--use_public_ips", "--sdk_location=default", "--job_name=second"]
    found = submitted_with(*CLOUD, *STREAM, *given)
    worker = found.view_as(WorkerOptions)
    assert (worker.max_num_workers, worker.use_public_ips) == (9, True)
    assert found.get_all_options()["sdk_location"] == "default"
    assert found.view_as(GoogleCloudOptions).job_name == "second"


def test_files_are_no_stream() -> None:
    files = ["--input=gs://shop-archive/orders/*.avro", "--output=gs://shop-archive/alerts"]
    assert not submitted_with(*CLOUD, *files).view_as(StandardOptions).streaming


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        ("project", "--project: is needed with DataflowRunner: the project that runs"),
        ("region", "--region: is needed with DataflowRunner: the region it runs in"),
        ("temp_location", "--temp_location: is needed with DataflowRunner: a gs:// folder"),
        ("sdk_container_image", "--sdk_container_image: is needed with DataflowRunner: workers get this job's code"),
    ],
)
def test_what_dataflow_cannot_do_without_is_asked_for(flag: str, why: str) -> None:
    rest = [word for word in CLOUD if not word.startswith(f"--{flag}=")]
    assert refusal(*rest, *STREAM).startswith(why)


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        # With either of these, Beam would warn, and make a bucket of its own.
        ("--temp_location=/tmp/staged", "--temp_location: Invalid GCS path (/tmp/staged)"),
        ("--temp_location=gs://shop-state", "--temp_location: Invalid GCS path: 'gs://shop-state' given for option: "),
        ("--staging_location=s3://shop-state/s", "--staging_location: Invalid GCS path (s3://shop-state/s)"),
        ("--project=123456", "--project: 123456 is a project number; use the project id"),
        ("--project=The_Shop", "--project: The_Shop is not a project id"),
        ("--job_name=Fraud_Detector", "--job_name: Fraud_Detector must be lower-case letters, digits and -, "),
    ],
)
def test_what_beam_would_show_as_a_stack_trace_is_one_line(flag: str, why: str) -> None:
    assert refusal(*CLOUD, *STREAM, flag).startswith(why)


def test_who_begins_with_more_machines_may_have_them() -> None:
    assert submitted_with(*CLOUD, *STREAM, "--num_workers=6").view_as(WorkerOptions).max_num_workers == 6


def test_a_place_to_stage_is_enough() -> None:
    rest = [word.replace("temp_location", "staging_location") for word in CLOUD]
    submitted_with(*rest, *STREAM)


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        ("--checkpointing_interval=5000", "--checkpointing_interval: is an option of Flink's; leave it out"),
        ("--parallelism=4", "--parallelism: is an option of Flink's"),
        ("--flink_master=host:8081", "--flink_master: is an option of Flink's"),
        ("--savepoint_path=gs://shop-state/savepoints/1", "--savepoint_path: is an option of Flink's"),
        ("--output=out", "--output: out would be on each worker's own disk with DataflowRunner; use one on gs://"),
        ("--dead_letters=/tmp/dlq", "--dead_letters: /tmp/dlq would be on each worker's own disk"),
        ("--ledger=ledger.json", "--ledger: ledger.json would be on each worker's own disk"),
        ("--output=redis://127.0.0.1:6379/0", "--output: 127.0.0.1 would be each worker itself with DataflowRunner"),
        ("--output=redis://localhost:6379/0", "--output: localhost would be each worker itself"),
        ("--late=kafka://10.0.0.2:9092,127.0.1.1:9092/late", "--late: 127.0.1.1 would be each worker itself"),
        ("--registry=http://[::1]:8081", "--registry: ::1 would be each worker itself"),
        ("--kafka_read=native", "--kafka_read=native: with DataflowRunner, needs --expansion_service=host:port"),
    ],
)
def test_what_cannot_work_on_dataflow_is_refused(flag: str, why: str) -> None:
    name = flag.partition("=")[0]
    line = refusal(*CLOUD, *(word for word in STREAM if not word.startswith(f"{name}=")), flag)
    assert line.startswith(why)
    assert "\n" not in line


def test_without_a_flag_the_local_stack_is_refused() -> None:
    assert refusal(*CLOUD).startswith("--input: 127.0.0.1 would be each worker itself")
    with pytest.raises(UsageError, match=r"--output: \.stack/archive would be on each worker's own disk"):
        submitted_with(*CLOUD, f"--input={TOPICS}", "--registry=http://10.0.0.4:8081", job=archive.JOB)


@pytest.mark.parametrize("name", ["DataflowRunner", "dataflowrunner", "apache_beam.runners.DataflowRunner"])
def test_dataflow_is_known_by_every_name_that_beam_takes(name: str) -> None:
    rest = [word for word in CLOUD if not word.startswith("--runner=")]
    assert refusal(*rest, f"--runner={name}", *STREAM, "--parallelism=4").startswith("--parallelism: is an option of F")


def test_every_flag_that_googles_launcher_may_add_is_taken() -> None:
    added = [
        *("--job_name=x", "--template_location=gs://b/job", "--staging_location=gs://b/s", "--num_workers=1"),
        *("--network=n", "--subnetwork=regions/r/subnetworks/s", "--machine_type=n2-standard-2", "--no_use_public_ips"),
        *("--service_account_email=a@b.example", "--dataflow_kms_key=k", "--worker_region=r", "--worker_zone=z"),
        *("--experiments=use_runner_v2", "--labels={'a': 'b'}", "--update", "--transform_name_mapping={}"),
        *("--enable_streaming_engine", "--autoscaling_algorithm=THROUGHPUT_BASED", "--disk_size_gb=30", "--streaming"),
        *("--dataflow_service_options=x", "--flexrs_goal=SPEED_OPTIMIZED", "--save_main_session", "--zone=z"),
        *("--create_from_snapshot=s", "--requirements_file=r", "--setup_file=s", "--extra_package=p"),
    ]
    options.parse(fraud.JOB, [*CLOUD, *STREAM, *added])


# What is submitted


class Submission(NamedTuple):
    """Attributes:
    job: as posted, or as written into a classic template.
    """

    job: dict[str, Any]
    pipeline: Any

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.job["environment"]["sdkPipelineOptions"]["options"])

    @property
    def pool(self) -> dict[str, Any]:
        (pool,) = self.job["environment"]["workerPools"]
        return dict(pool)

    def steps(self) -> dict[str, Any]:
        return {t.unique_name: t for t in self.pipeline.components.transforms.values()}

    def copy(self) -> Any:
        pipeline = beam_runner_api_pb2.Pipeline()
        pipeline.CopyFrom(self.pipeline)
        return pipeline


def functions(pipeline: Any) -> Iterator[tuple[str, Any]]:
    """Names of steps, and what workers would run for each."""
    for step in pipeline.components.transforms.values():
        if step.spec.urn == "beam:transform:pardo:v1":
            fn = beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload).do_fn
            if fn.urn == "beam:dofn:pickled_python_info:v1":
                yield step.unique_name, pickler.loads(fn.payload)[0]


def submission(job: dict[str, Any]) -> Submission:
    with FileSystems.open(job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]) as staged:
        return Submission(job, beam_runner_api_pb2.Pipeline.FromString(staged.read()))


class Cloud(NamedTuple):
    """A fake of Dataflow with real topics, an emulated bucket and dataset beside it."""

    fake: FakeDataflow
    stack: Stack
    google: Emulator
    dataset: str

    def topic(self, name: str) -> str:
        """Of ours: others share the broker."""
        return f"kafka://{self.stack.address('kafka')}/{OURS}{name}"

    def flags(self) -> list[str]:
        """What Google's launcher adds to a template's parameters."""
        return [
            *("--runner=DataflowRunner", "--project=shop-1", "--region=europe-west1"),
            f"--temp_location={self.google.bucket}/tmp",
            f"--staging_location={self.google.bucket}/staging",
            *("--service_account_email=streamforge-dataflow@shop-1.example", "--no_use_public_ips"),
            *(
                "--subnetwork=regions/europe-west1/subnetworks/jobs",
                "--max_num_workers=3",
                "--machine_type=n2-standard-2",
            ),
            f"--dataflow_endpoint={self.fake.endpoint}",
        ]

    def parameters(self, name: str) -> list[str]:
        """A template's, those with a default at their default; each let through by its pattern."""
        job = JOBS[name]
        output = (
            f"{self.google.bucket}/archive bigquery://{self.dataset}"
            if name == "archive"
            else f"{STORE} {self.topic(job.topic)} bigquery://{self.dataset}"
        )
        values = {
            "input": " ".join(map(self.topic, job.topics)),
            "output": output,
            "registry": self.stack.registry_url,
            **{p["name"]: p["defaultValue"] for p in templates.parameters(JOBS[name]) if "defaultValue" in p},
        }
        values |= {flag: self.topic(f"{side}.{job.name}") for flag, side in LETTERS.items()}
        for parameter in templates.parameters(JOBS[name]):
            if parameter["name"] in values:
                assert re.fullmatch(parameter["regexes"][0], values[parameter["name"]]), parameter
        return [f"--{flag}={value}" for flag, value in values.items()]

    def submit(self, name: str, *more: str) -> Submission:
        before = len(self.fake.jobs)
        page(JOBS[name]).main([*self.flags(), f"--sdk_container_image={IMAGE}", *self.parameters(name), *more])
        (job,) = self.fake.jobs[before:]
        return submission(job)


@pytest.fixture(scope="module")
def cloud(live_stack: Stack, bigquery_process: Emulator) -> Iterator[Cloud]:
    names = [topic for job in JOBS.values() for topic in (*job.topics, job.topic, *job.letters)]
    for name in sorted(set(filter(None, names))):
        live.fill_topic(live_stack, f"{OURS}{name}", [])
    with pytest.MonkeyPatch.context() as patch, fake_dataflow.started() as fake:
        for name, value in bigquery_process.environment.items():
            patch.setenv(name, value)
        dataset = bigquery_process.make_dataset("dataflow")
        tables.main(["create", f"bigquery://{dataset}"])
        yield Cloud(fake, live_stack, bigquery_process, dataset)


@pytest.fixture(scope="module")
def submissions(cloud: Cloud) -> dict[str, Submission]:
    """Every job with what its template gives it."""
    return {name: cloud.submit(name) for name in JOBS}


@pytest.mark.stack
@pytest.mark.parametrize("name", JOBS)
def test_what_is_staged_is_what_a_running_job_could_go_on_from(submissions: dict[str, Submission], name: str) -> None:
    found = outline(submissions[name].pipeline)
    path = OUTLINES / f"{name}.txt"
    if os.environ.get("WRITE_OUTLINES"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(found)
    assert found == path.read_text(), "see the top of this file before you write the outlines anew"


@pytest.mark.stack
@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_posted_with_its_name_image_and_machines_and_without_what_it_connects_to(
    submissions: dict[str, Submission], cloud: Cloud, name: str
) -> None:
    found = submissions[name]
    assert set(cloud.fake.paths) == {"/v1b3/projects/shop-1/locations/europe-west1/jobs"}
    assert found.job["name"] == JOBS[name].name
    assert found.job["type"] == 2  # streaming
    environment = found.job["environment"]
    assert environment["serviceAccountEmail"] == "streamforge-dataflow@shop-1.example"
    assert {"use_runner_v2", "enable_streaming_engine"} <= set(environment["experiments"])
    assert environment["version"]["job_type"] == "FNAPI_STREAMING"
    (image,) = found.pool["sdkHarnessContainerImages"]
    assert image["containerImage"] == found.pool["workerHarnessContainerImage"] == IMAGE
    assert found.pool["autoscalingSettings"] == {"maxNumWorkers": 3}
    assert found.pool["ipConfiguration"] == 2  # private
    assert (found.pool["machineType"], found.pool["subnetwork"]) == (
        "n2-standard-2",
        "regions/europe-west1/subnetworks/jobs",
    )
    assert (found.options["streaming"], found.options["sdk_location"]) == (True, "container")
    said = json.dumps(found.job)
    assert cloud.dataset not in said
    assert STORE not in said


@pytest.mark.stack
@pytest.mark.parametrize("name", JOBS)
def test_workers_need_nothing_but_the_image(submissions: dict[str, Submission], name: str) -> None:
    parts = submissions[name].pipeline.components
    (environment,) = parts.environments.values()
    image = beam_runner_api_pb2.DockerPayload.FromString(environment.payload).container_image
    assert (environment.urn, image) == ("beam:env:docker:v1", IMAGE)
    staged = {package["name"] for package in submissions[name].pool["packages"]}
    assert staged <= {"submission_environment_dependencies.txt"}  # a list for people, which no worker installs
    fns = dict(functions(submissions[name].pipeline))
    assert len(fns) > 10
    assert [step for step, fn in fns.items() if type(fn).__module__ == "__main__"] == []


@pytest.mark.stack
@pytest.mark.parametrize("name", JOBS)
def test_every_key_is_encoded_the_same_by_every_worker(submissions: dict[str, Submission], name: str) -> None:
    assert unstable_keys(submissions[name].pipeline) == []


@pytest.mark.stack
def test_the_templates_parameters_reach_the_pipeline(cloud: Cloud, submissions: dict[str, Submission]) -> None:
    found = outline(cloud.submit("sessions", "--session_gap=20m", "--allowed_lateness=1h").pipeline)
    as_usual = outline(submissions["sessions"].pipeline)
    assert "sessions with a gap of 1800000 ms, accumulating" in as_usual
    assert "allowed lateness 600000 ms" in as_usual
    assert found == as_usual.replace("gap of 1800000 ms", "gap of 1200000 ms").replace(
        "allowed lateness 600000 ms", "allowed lateness 3600000 ms"
    )
    more = dict(functions(cloud.submit("fraud", "--readers=3").pipeline))
    assert len(more["Read/Read"]._keys) == 3


# Faults that are planted in what was staged


def change_step(pipeline: Any, name: str, change: Callable[[Any], None]) -> None:
    (step,) = (t for t in pipeline.components.transforms.values() if t.unique_name == name)
    payload = beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload)
    change(payload)
    step.spec.payload = payload.SerializeToString()


def rename(pipeline: Any) -> None:
    (step,) = (
        t for t in pipeline.components.transforms.values() if t.unique_name.startswith("Sessions/Shards/Gather/P")
    )
    step.unique_name = step.unique_name.replace("Gather", "Collect", 1)


def forget_log(pipeline: Any) -> None:
    change_step(pipeline, "Sessions/Shards/Gather/ParDo(_GatherFn)", lambda p: p.state_specs.pop("log"))


def wrong_clock(pipeline: Any) -> None:
    def change(payload: Any) -> None:
        payload.timer_family_specs["ts-expiry"].time_domain = beam_runner_api_pb2.TimeDomain.PROCESSING_TIME

    change_step(pipeline, "Sessions/Shards/Gather/ParDo(_GatherFn)", change)


def other_gap(pipeline: Any) -> None:
    for strategy in pipeline.components.windowing_strategies.values():
        if strategy.window_fn.urn == "beam:window_fn:session_windows:v1":
            gap = standard_window_fns_pb2.SessionWindowsPayload()
            gap.gap_size.FromSeconds(1_801)
            strategy.window_fn.payload = gap.SerializeToString()


def no_lateness(pipeline: Any) -> None:
    for strategy in pipeline.components.windowing_strategies.values():
        strategy.allowed_lateness = 0


def other_encoding(pipeline: Any) -> None:
    for coder in pipeline.components.coders.values():
        if coder.spec.urn == "beam:coder:varint:v1":
            coder.spec.urn = "beam:coder:bytes:v1"


def bypass(pipeline: Any) -> None:
    steps = {t.unique_name: t for t in pipeline.components.transforms.values()}
    (read,) = steps["Late/Produce"].inputs.values()
    for tag in steps["DeadLetters/Produce"].inputs:
        steps["DeadLetters/Produce"].inputs[tag] = read


@pytest.mark.stack
@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (rename, "Sessions/Shards/Collect/ParDo(_GatherFn): pardo"),
        (forget_log, None),
        (wrong_clock, "  timer ts-expiry: processing_time, timer[varint, global_window]"),
        (other_gap, "sessions with a gap of 1801000 ms"),
        (no_lateness, "late after 1 elements, allowed lateness 0 ms"),
        (other_encoding, "  timer ts-expiry: event_time, timer[bytes, global_window]"),
        (bypass, "  reads Clicks/Decode/ParDo(_DecodeRowsFn) late"),
    ],
)
def test_a_planted_fault_shows_in_the_outline(
    submissions: dict[str, Submission], fault: Callable[[Any], None], line: str | None
) -> None:
    pipeline = submissions["sessions"].copy()
    before = outline(pipeline)
    fault(pipeline)
    after = outline(pipeline)
    assert after != before == (OUTLINES / "sessions.txt").read_text()
    if line is None:
        assert set(before.splitlines()) - set(after.splitlines()) == {"  state log: bag of bytes"}
    else:
        assert after.count(line) > before.count(line)


@pytest.mark.stack
def test_a_key_that_two_workers_would_encode_differently_is_found(submissions: dict[str, Submission]) -> None:
    pipeline = submissions["sessions"].copy()
    (any_object,) = (
        i for i, c in pipeline.components.coders.items() if c.spec.payload.startswith(b"\n\x94\x01FastPrimitivesCoder$")
    )
    grouped = {t.unique_name: t for t in pipeline.components.transforms.values()}["Sessions/Together"]
    (read,) = grouped.inputs.values()
    pair = pipeline.components.coders[pipeline.components.pcollections[read].coder_id]
    pair.component_coder_ids[0] = any_object
    assert "Sessions/Together" in unstable_keys(pipeline)


# Templates, updates, files


def launch(cloud: Cloud, name: str, arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """As Google's launcher starts what is in the image of a flex template."""
    return subprocess.run(
        [sys.executable, ROOT / "docker" / "dataflow" / "launch.py", *arguments],
        cwd=folder,
        env={
            **os.environ,
            **cloud.google.environment,
            "PYTHONPATH": str(ROOT),
            "STREAMFORGE_JOB": name,
            "STREAMFORGE_WORKER_IMAGE": IMAGE,
        },
        capture_output=True,
        text=True,
    )


@pytest.mark.stack
def test_templates_are_written_to_a_bucket_and_written_again(cloud: Cloud) -> None:
    to = f"{cloud.google.bucket}/templates"
    for tag in ("0.1.0", "0.1.1"):
        templates.main(["specs", f"--to={to}", "--images=host/shop-1/streamforge", f"--tag={tag}", "fraud"])
        with FileSystems.open(f"{to}/fraud.json") as file:
            assert json.loads(file.read()) == templates.spec(JOBS["fraud"], "host/shop-1/streamforge", tag)


@pytest.mark.stack
def test_what_the_launcher_starts_writes_the_job_and_ends(
    cloud: Cloud, submissions: dict[str, Submission], tmp_path: Path
) -> None:
    before = len(cloud.fake.jobs)
    place = f"{cloud.google.bucket}/launches/job_object"
    rules = f"{cloud.google.bucket}/rules/fraud.yaml"
    with FileSystems.create(rules) as file:
        ours = (ROOT / "transforms" / "domain" / "fraud_rules.yaml").read_bytes()
        file.write(ours.replace(b"within: 10m", b"within: 7m"))
    arguments = [*cloud.flags(), *cloud.parameters("fraud"), f"--rules={rules}", f"--template_location={place}"]
    done = launch(cloud, "fraud", arguments, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == f"written to {place}; no job was started"
    assert len(cloud.fake.jobs) == before
    with FileSystems.open(place) as file:
        written = submission(json.loads(file.read()))
    assert written.job["name"] == "fraud-detector"
    assert written.pool["workerHarnessContainerImage"] == IMAGE  # which no flag said
    assert outline(written.pipeline) == (OUTLINES / "fraud.txt").read_text()
    fns = dict(functions(written.pipeline))
    assert (
        fns["Fraud/Detect/ParDo(_DetectFraudFn)"]._rules.span_ms(CREATED)
        == 7 * 60_000
        != default_rules().span_ms(CREATED)
    )
    assert {type(fn).__module__ for fn in fns.values()} >= {"transforms.fraud", "transforms.io.kafka.source"}


@pytest.mark.stack
def test_a_launch_that_cannot_work_ends_with_status_2_and_one_line(cloud: Cloud, tmp_path: Path) -> None:
    wrong = [word for word in cloud.parameters("fraud") if not word.startswith("--input=")]
    done = launch(cloud, "fraud", [*cloud.flags(), *wrong, f"--input={cloud.topic('no.such.topic')}"], tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("beam_pipelines.fraud: --input: topic dataflow.no.such.topic at ")


@pytest.mark.stack
def test_an_update_names_the_job_that_it_replaces_and_the_steps_that_were_renamed(
    cloud: Cloud, submissions: dict[str, Submission]
) -> None:
    mapping = json.dumps({"Old/Detect": "Fraud/Detect"})
    found = cloud.submit("fraud", "--update", f"--transform_name_mapping={mapping}")
    assert found.job["replaceJobId"] == submissions["fraud"].job["id"]
    assert found.job["transformNameMapping"] == {"Old/Detect": "Fraud/Detect"}
    assert outline(found.pipeline) == outline(submissions["fraud"].pipeline)


@pytest.mark.stack
def test_a_job_can_begin_with_a_snapshot(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    found = cloud.submit("fraud", "--create_from_snapshot=snapshot-1", "--job_name=fraud-again")
    assert (found.job["createdFromSnapshotId"], found.job["name"]) == ("snapshot-1", "fraud-again")
    job_id = found.job["id"]
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"submitted to Dataflow as {job_id}: https://console.cloud.google.com/dataflow/jobs/europe-west1/{job_id}"
        "?project=shop-1"
    )


@pytest.mark.stack
def test_files_in_a_bucket_are_a_batch(cloud: Cloud) -> None:
    orders = f"{cloud.google.bucket}/orders/part.jsonl"
    with FileSystems.create(orders) as file:
        file.write(b"".join(codec.to_json(order) + b"\n" for order in golden()))
    before = len(cloud.fake.jobs)
    fraud.main(
        [
            *(*cloud.flags(), f"--sdk_container_image={IMAGE}", f"--input={orders}"),
            f"--output={cloud.google.bucket}/alerts",
        ]
    )
    (job,) = cloud.fake.jobs[before:]
    assert (job["type"], job["environment"]["version"]["job_type"]) == (1, "FNAPI_BATCH")
    assert "Folder0/Write: pardo" in outline(submission(job).pipeline)


# What was staged, run


def run(staged: Submission) -> None:
    """The very proto that was staged, by Beam's own runner in this process: all but the workers' image is kept."""
    pipeline = staged.copy()
    for environment in pipeline.components.environments.values():
        environment.urn, environment.payload = "beam:env:embedded_python:v1", b""
    assert FnApiRunner().run_via_runner_api(pipeline, PipelineOptions()).wait_until_finish() == PipelineState.DONE


def submit_until_latest(cloud: Cloud, name: str, topic: str, output: str) -> Submission:
    before = len(cloud.fake.jobs)
    job = JOBS[name]
    sides = [f"--{flag}={cloud.topic(f'{side}.{job.name}')}" for flag, side in LETTERS.items()]
    given = [f"--input={cloud.topic(topic)}", f"--output={output}", f"--registry={cloud.stack.registry_url}", *sides]
    page(job).main([*cloud.flags(), f"--sdk_container_image={IMAGE}", "--until=latest", *given])
    (posted,) = cloud.fake.jobs[before:]
    return submission(posted)


@pytest.mark.stack
def test_what_was_staged_of_fraud_finds_every_alert(cloud: Cloud) -> None:
    orders = live.fill_with_orders(cloud.stack, f"{OURS}orders", Spec(orders=2_000, users=200))
    store = f"{cloud.stack.redis_url.removesuffix('/0')}/7"
    run(submit_until_latest(cloud, "fraud", "orders", store))
    expected = set(expected_alerts(orders))
    assert len(expected) > 100
    assert live.alerts_in_redis(store) == expected


@pytest.mark.stack
def test_what_was_staged_of_sessions_gives_the_sessions_that_the_clicks_make(cloud: Cloud) -> None:
    clicks = [
        click(f"c-{user}-{i}", user=f"u-{user}", at=T0 + i * (user + 1) * MINUTE)
        for user in range(40)
        for i in range(12)
    ]
    schema = avro_schema("ClickstreamEvent")
    schema_id = Registry(cloud.stack.registry_url).register(f"{OURS}clicks-value", schema)
    messages = [
        live.Message(codec.encode(each, schema_id, codec.parse_schema(schema)), each.user_id.encode(), each.event_time)
        for each in sorted(clicks, key=lambda each: each.event_time)
    ]
    live.fill_topic(cloud.stack, f"{OURS}clicks", messages)
    dataset = cloud.google.make_dataset("dataflow_run")
    tables.main(["create", f"bigquery://{dataset}"])
    run(submit_until_latest(cloud, "sessions", "clicks", f"bigquery://{dataset}"))
    table = TABLES["user_sessions"]
    found = {row["session_id"]: row for row in cloud.google.rows(dataset, table, table.view)}
    expected = expected_sessions(clicks)
    # Clicks of the last users are further apart than the gap; each of theirs is a session of its own.
    assert 40 < len(expected) < len(clicks)
    assert {name: (row["session_start"], row["session_end"], row["product_views"]) for name, row in found.items()} == {
        name: (session.session_start, session.session_end, session.product_views) for name, session in expected.items()
    }
