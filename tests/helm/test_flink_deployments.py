"""A FlinkDeployment per job: what the operator is told, and that every flag is one that the job takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from beam_pipelines import options
from beam_pipelines.options import Settings
from beam_pipelines.sinks import BigQueryUrl, Folder, KafkaUrl, RedisUrl
from schemas.flags import UsageError
from schemas.jobs import JOBS
from stack import topics
from stack.java import ADD_OPENS
from stack.ports import pick_free
from tests.helm.chart import CHART, ENVIRONMENTS, refusal, render, told
from tests.helm.mounted import here
from tests.helm.test_flags import snake
from transforms.domain.fraud_rules import default_rules, parse_rules

pytestmark = pytest.mark.deploy

MODULES = {name: job.name for name, job in JOBS.items()}
ALL = {"jobs": {module: {"enabled": True} for module in MODULES}}


def deployment(job: str, environment: str = "prod", values: Any = None) -> dict[str, Any]:
    return render(environment, values or ALL).one("FlinkDeployment", job)["spec"]


def launcher(job: str, environment: str = "prod", values: Any = None) -> dict[str, Any]:
    (container,) = deployment(job, environment, values)["jobManager"]["podTemplate"]["spec"]["initContainers"]
    return container


def worker(job: str, environment: str = "prod", values: Any = None) -> dict[str, Any]:
    return deployment(job, environment, values)["taskManager"]["podTemplate"]["spec"]["containers"][1]


def flags(job: str, environment: str = "prod", values: Any = None) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in launcher(job, environment, values)["args"][2:]:
        name, _, value = word.removeprefix("--").partition("=")
        found.setdefault(name, []).append(value)
    return found


def parsed(module: str, args: list[str]) -> tuple[Any, Settings]:
    """What the job's own parser makes of the launcher's arguments.

    Raises:
      UsageError.
    """
    assert args[:2] == ["-m", f"beam_pipelines.{module}"]
    with tempfile.TemporaryDirectory() as folder:
        given, settings, _ = options.parse(JOBS[module], here(args[2:], Path(folder)))
    return given, settings


# Flags


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("module", MODULES)
def test_a_job_takes_every_flag_that_the_chart_gives_it(module: str, environment: str) -> None:
    job = JOBS[module]
    _, settings = parsed(module, launcher(job.name, environment)["args"])
    assert [url.topic for url in settings.inputs] == [*job.topics]
    servers = told(environment)["kafka"]["servers"]
    assert {url.servers for url in settings.inputs} == {servers}
    assert settings.dead_letters == KafkaUrl(servers, f"dlq.{job.name}")
    assert settings.late == KafkaUrl(servers, f"late.{job.name}")
    wanted = {KafkaUrl, RedisUrl} if job.topic else {Folder}
    assert {type(url) for url in settings.outputs} == wanted | {BigQueryUrl}
    assert [url.topic for url in settings.outputs if isinstance(url, KafkaUrl)] == ([job.topic] if job.topic else [])
    assert BigQueryUrl(told(environment)["googleCloud"]["project"], "streamforge") in settings.outputs
    assert not settings.bounded


@pytest.mark.parametrize("module", MODULES)
def test_topics_are_those_that_the_project_has(module: str) -> None:
    given = flags(MODULES[module])
    named = [url for name in ("input", "output", "dead_letters", "late") for url in given[name] if url[:5] == "kafka"]
    assert len(named) >= 3
    assert {url.rpartition("/")[2] for url in named} <= topics.TOPICS.keys()


@pytest.mark.parametrize(
    ("module", "values"),
    [
        ("fraud", {"allowedLateness": "7m", "outOfOrderness": "1500ms", "readers": 3, "stateShards": 16}),
        ("fraud", {"mapping": "shopify", "format": "json"}),
        ("sessions", {"sessionGap": "45m", "maxSession": "6h", "earlyEvery": "1s"}),
        ("revenue", {"earlyEvery": "3s"}),
        ("archive", {"recordsPerFile": 5_000_000, "flushEvery": "2m"}),
        ("cdc", {"readers": 2, "maxBundleSize": 1_000_000, "sdkWorkerParallelism": 3}),
    ],
)
def test_a_value_is_the_flag_of_the_same_name(module: str, values: dict[str, Any]) -> None:
    found = flags(MODULES[module], values={"jobs": {module: {"enabled": True, "flags": values}}})
    assert {name: found[snake(name)] for name in values} == {name: [str(value)] for name, value in values.items()}


def test_a_flag_that_a_job_does_not_know_would_be_found() -> None:
    args = launcher("fraud-detector")["args"]
    with pytest.raises(UsageError, match="--session_gap: no such flag"):
        parsed("fraud", [*args, "--session_gap=30m"])
    with pytest.raises(UsageError, match="--allowed_lateness"):
        parsed("fraud", [*args, "--allowed_lateness=10"])


def test_a_flag_of_another_job_is_refused_by_the_schema() -> None:
    assert "additional properties 'sessionGap' not allowed" in refusal(
        values={"jobs": {"fraud": {"flags": {"sessionGap": "30m"}}}}
    )


def test_without_bigquery_and_with_a_store_of_its_own_the_outputs_follow() -> None:
    values = {"bigquery": {"dataset": ""}}
    assert flags("fraud-detector", "dev", values)["output"] == [
        "redis://streamforge-redis:6379/0",
        f"kafka://{told('dev')['kafka']['servers']}/alerts.fraud",
    ]
    assert flags("archiver", "dev", values)["output"] == [told("dev")["storage"]["archive"]]


def test_bigquery_needs_a_project() -> None:
    assert "bigquery.dataset needs googleCloud.project" in refusal(values={"googleCloud": {"project": ""}})


# Passwords

LOGINS = {name: {"configSecret": {"name": f"{name}-login"}} for name in ("kafka", "registry")}


def test_settings_files_are_where_the_job_and_its_workers_look_for_them() -> None:
    spec = deployment("fraud-detector", values=LOGINS)
    jobs, tasks = spec["jobManager"]["podTemplate"]["spec"], spec["taskManager"]["podTemplate"]["spec"]
    names = {"kafka": "kafka-login", "registry": "registry-login", "store": "streamforge-redis"}
    for pod in (jobs, tasks):
        volumes = {v["name"]: v for v in pod["volumes"]}
        assert {name: volumes[f"{name}-config"]["secret"]["secretName"] for name in names} == names
    for container in (jobs["initContainers"][0], tasks["containers"][1]):
        mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
        assert {name: mounts[f"{name}-config"] for name in names} == {n: f"/etc/streamforge/{n}" for n in names}
    given = flags("fraud-detector", values=LOGINS)
    for name in names:
        (path,) = given[f"{name}_config"]
        assert path.rpartition("/")[0] == f"/etc/streamforge/{name}"
    parsed("fraud", launcher("fraud-detector", values=LOGINS)["args"])


def test_a_job_may_have_a_login_of_its_own() -> None:
    values = {**LOGINS, "jobs": {"fraud": {"kafkaSecret": "fraud-login"}}}
    for job, login in (("fraud-detector", "fraud-login"), ("archiver", "kafka-login")):
        pod = deployment(job, values=values)["jobManager"]["podTemplate"]["spec"]
        (volume,) = [v for v in pod["volumes"] if v["name"] == "kafka-config"]
        assert volume["secret"]["secretName"] == login
    assert flags("fraud-detector", values=values)["kafka_config"] == ["/etc/streamforge/kafka/kafka.properties"]


def test_javas_reader_in_flinks_own_process_finds_kafkas() -> None:
    tasks = deployment("fraud-detector", values=LOGINS)["taskManager"]["podTemplate"]["spec"]
    assert [m["name"] for m in tasks["containers"][0]["volumeMounts"]] == ["kafka-config"]


def test_nothing_that_pods_are_told_is_a_secret() -> None:
    """Not in arguments, which everybody on a node sees and the job's jar keeps, and not in the environment."""
    manifests = render("prod", {**ALL, **LOGINS})
    for o in (*manifests.all("FlinkDeployment").values(), *manifests.all("Deployment").values()):
        text = json.dumps(o)
        assert "secretKeyRef" not in text, o["metadata"]["name"]
        assert "$(" not in text, o["metadata"]["name"]


def test_a_job_that_writes_no_store_does_not_know_its_password() -> None:
    text = json.dumps(deployment("archiver"))
    assert "store-config" not in text
    assert "streamforge-redis" not in text


# What Beam and Flink are told must agree: Beam's options win


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("job", MODULES.values())
def test_beam_and_flink_are_told_the_same(job: str, environment: str) -> None:
    spec, given = deployment(job, environment), flags(job, environment)
    config = spec["flinkConfiguration"]
    assert given["parallelism"] == [str(spec["job"]["parallelism"])]
    assert int(given["max_parallelism"][0]) >= spec["job"]["parallelism"]
    assert not {name for name in given if name.startswith("state_backend")}, "the operator looks where Flink is told"
    assert f"{given['checkpointing_interval'][0]}ms" == config["execution.checkpointing.interval"]
    assert int(given["state_shards"][0]) >= spec["job"]["parallelism"]
    assert given["environment_config"] == ["localhost:50000"]
    assert "--port=50000" in worker(job, environment)["args"]


def test_a_job_can_keep_its_state_in_memory() -> None:
    values = {"jobs": {"fraud": {"stateBackend": "hashmap"}}}
    assert deployment("fraud-detector", values=values)["flinkConfiguration"]["state.backend.type"] == "hashmap"
    assert deployment("archiver", values=values)["flinkConfiguration"]["state.backend.type"] == "rocksdb"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_state_outlives_pods_jobs_and_releases(environment: str) -> None:
    bucket = told(environment)["storage"]["state"]
    for job in MODULES.values():
        config = deployment(job, environment)["flinkConfiguration"]
        assert config["state.checkpoints.dir"] == f"{bucket}/checkpoints/{job}"
        assert config["state.savepoints.dir"] == f"{bucket}/savepoints/{job}"
        assert config["high-availability.storageDir"] == f"{bucket}/ha/{job}"
        assert config["high-availability.type"] == "kubernetes"
        assert config["state.backend.incremental"] == "true"
        assert config["execution.checkpointing.externalized-checkpoint-retention"] == "RETAIN_ON_CANCELLATION"
        # The bucket deletes what is older than 7 days, also files that an incremental checkpoint refers to.
        assert config["kubernetes.operator.periodic.checkpoint.interval"] == "24h"
        assert config["kubernetes.operator.checkpoint.type"] == "FULL"
        assert config["restart-strategy.type"] == "exponential-delay"
        assert config["kubernetes.operator.periodic.savepoint.interval"] in ("6h", "24h")


def test_flink_tells_prometheus_what_alerts_and_dashboards_ask_for_where_it_is_scraped() -> None:
    wanted = yaml.safe_load((CHART / "files" / "flink-metrics.yaml").read_text())
    spec = deployment("fraud-detector")
    assert wanted["metrics.reporter.prom.factory.class"].endswith(".PrometheusReporterFactory")
    assert wanted.items() <= spec["flinkConfiguration"].items()
    (main,) = spec["podTemplate"]["spec"]["containers"]
    assert main["ports"] == [{"name": "metrics", "containerPort": int(wanted["metrics.reporter.prom.port"])}]


def test_flinks_configuration_is_strings() -> None:
    """Else the operator's kind would be refused: YAML's true and 1 are not its "true" and "1"."""
    for job in MODULES.values():
        for key, value in deployment(job)["flinkConfiguration"].items():
            assert isinstance(value, str), key


def test_java_is_opened_for_what_beam_needs() -> None:
    """The operator's configuration takes the place of the image's, so nobody else does it."""
    given = deployment("fraud-detector")["flinkConfiguration"]["env.java.opts.all"].split(" ")
    assert set(ADD_OPENS) <= set(given)
    assert all(option.startswith("--add-") and option.endswith("=ALL-UNNAMED") for option in given)


def test_configuration_can_be_added_but_not_the_charts_own() -> None:
    added = {"flink": {"extraConfiguration": {"rest.flamegraph.enabled": "true"}}}
    assert deployment("archiver", values=added)["flinkConfiguration"]["rest.flamegraph.enabled"] == "true"
    ours = {"flink": {"extraConfiguration": {"high-availability.type": "NONE"}}}
    assert "flink.extraConfiguration.high-availability.type: the chart sets this itself" in refusal(values=ours)


# The operator


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_operator_runs_what_the_init_container_writes(environment: str) -> None:
    spec = deployment("fraud-detector", environment)
    assert (spec["mode"], spec["flinkVersion"], spec["serviceAccount"]) == ("native", "v1_19", "streamforge-jobs")
    assert spec["image"].endswith("/streamforge-flink:0.1.0")
    written = flags("fraud-detector", environment)["output_executable_path"]
    assert spec["job"]["jarURI"] == f"local://{written[0]}"
    own = spec["jobManager"]["podTemplate"]["spec"]
    mount = {"name": "job", "mountPath": "/opt/streamforge/job"}
    assert mount in own["initContainers"][0]["volumeMounts"]
    (main,) = own["containers"]
    assert main["name"] == "flink-main-container"
    assert {**mount, "readOnly": True} in main["volumeMounts"]


def test_environments_differ_in_how_a_changed_job_goes_on() -> None:
    modes = {e: deployment("fraud-detector", e)["job"]["upgradeMode"] for e in ENVIRONMENTS}
    assert modes == {"dev": "last-state", "staging": "savepoint", "prod": "savepoint"}
    assert deployment("fraud-detector", "prod")["jobManager"]["replicas"] == 2


def test_state_mode_and_nonces_are_the_values() -> None:
    told = {
        "state": "suspended",
        "savepointTriggerNonce": 3,
        "initialSavepointPath": "gs://b-1/savepoints/x",
        "savepointRedeployNonce": 2,
        "allowNonRestoredState": True,
    }
    job = deployment("archiver", values={"jobs": {"archive": {**told, "restartNonce": 9}}})
    assert {key: job["job"][key] for key in told} == told
    assert job["restartNonce"] == 9
    assert "initialSavepointPath" not in deployment("archiver")["job"]


def test_containers_are_joined_by_name() -> None:
    """By place, the operator's own way, a container that is added to podTemplate would become another one's."""
    assert (
        deployment("archiver")["flinkConfiguration"]["kubernetes.operator.pod-template.merge-arrays-by-name"] == "true"
    )


def test_a_job_that_is_off_is_not_there() -> None:
    found = render("prod", {"jobs": {"cdc": {"enabled": False}}}).all("FlinkDeployment")
    assert found.keys() == set(MODULES.values()) - {"cdc-processor"}


def test_what_changes_with_the_chart_alone_restarts_no_job() -> None:
    """The operator restarts a job whose spec changed."""
    for job in MODULES.values():
        spec = deployment(job)
        assert "helm.sh" not in json.dumps(spec)
        assert "app.kubernetes.io/version" not in json.dumps(spec)


def test_what_a_job_has_of_its_own_wins_over_the_defaults() -> None:
    values = {"jobDefaults": {"parallelism": 8}, "jobs": {"fraud": {"parallelism": 16}}}
    assert deployment("fraud-detector", values=values)["job"]["parallelism"] == 16
    assert deployment("archiver", values=values)["job"]["parallelism"] == 8
    assert flags("cdc-processor")["readers"] == ["1"], "of five topics"


@pytest.mark.parametrize(
    ("fraud", "why"),
    [
        (
            {"parallelism": 12, "flags": {"maxParallelism": 8}},
            "jobs.fraud.parallelism: 12 is more than its maxParallelism, 8",
        ),
        ({"parallelism": 12, "flags": {"stateShards": 8}}, "jobs.fraud.parallelism: 12 is more than its 8 stateShards"),
        ({"parallelism": 3}, "jobs.fraud.parallelism: 3 is not a multiple of taskSlots, 2"),
        ({"state": "suspended", "upgradeMode": "last-state"}, "jobs.fraud.state: suspend with upgradeMode savepoint"),
    ],
)
def test_values_that_do_not_go_together_are_refused(fraud: dict[str, Any], why: str) -> None:
    assert why in refusal(values={"jobs": {"fraud": fraud}})


# Files


def test_rules_of_our_own_reach_the_launcher_and_other_rules_restart_the_job() -> None:
    def with_rules(rules: str) -> dict[str, Any]:
        return {"jobs": {"fraud": {"rules": rules}}}

    assert flags("fraud-detector", values=with_rules("a: 1"))["rules"] == ["/etc/streamforge/rules/fraud_rules.yaml"]
    first, second = (deployment("fraud-detector", values=with_rules(r)) for r in ("a: 1", "a: 2"))
    assert first != second
    assert "rules" not in flags("fraud-detector")


def test_the_hash_key_is_there_wherever_the_job_reads_it() -> None:
    assert flags("cdc-processor")["hash_key"] == ["/etc/streamforge/hash-key/hash-key"]
    mount = {"name": "hash-key", "mountPath": "/etc/streamforge/hash-key", "readOnly": True}
    assert mount in launcher("cdc-processor")["volumeMounts"]
    assert mount in worker("cdc-processor")["volumeMounts"]
    assert "hash_key" not in flags("cdc-processor", "dev")


# The worker


def test_the_worker_starts_as_it_is_told_and_its_probe_tells_whether_it_listens() -> None:
    """The real pool, and the real probe, on another port."""
    container = worker("fraud-detector")
    assert container["command"] == ["python"]
    port = str(pick_free())
    args = [arg.replace("50000", port) for arg in container["args"]]
    probe = [arg.replace("50000", port) for arg in container["livenessProbe"]["exec"]["command"]]
    assert container["startupProbe"]["exec"] == container["livenessProbe"]["exec"]

    def asked() -> int:
        return subprocess.run([sys.executable, *probe[1:]], stderr=subprocess.DEVNULL, check=False).returncode

    assert asked() != 0
    with subprocess.Popen([sys.executable, *args], stdout=subprocess.PIPE, text=True, env=os.environ) as pool:
        try:
            assert pool.stdout
            assert pool.stdout.readline() == f"workers at 127.0.0.1:{port}\n"
            assert asked() == 0
        finally:
            pool.terminate()
            pool.wait(30)


def test_only_the_worker_gives_the_probes_of_a_task_manager() -> None:
    """It listens on the pod's own loopback, where the kubelet's connections do not come."""
    for probe in ("startupProbe", "livenessProbe"):
        assert "tcpSocket" not in worker("fraud-detector")[probe]


def test_the_rules_of_the_image_are_valid_rules() -> None:
    """What `rules` in values.yaml points to as the example of the format."""
    text = (CHART.parents[1] / "transforms" / "domain" / "fraud_rules.yaml").read_text()
    assert parse_rules(text) == default_rules()
