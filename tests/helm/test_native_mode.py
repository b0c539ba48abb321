"""Flink's own Kubernetes client and job manager with what the chart says, at a real API server.

The client stands for the operator, which calls it: it makes the job manager's Deployment of the pod templates. The job
manager is the process that would be in that pod, with its service account's token; it makes task managers' pods, elects
itself, and tidies up. Nothing runs them: there is no kubelet.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from stack.flink import job_server_jar
from stack.flink_processes import flink_libraries
from stack.java import ADD_OPENS, java
from stack.ports import pick_free
from stack.service import LOG4J2
from tests import live
from tests.helm.api_server import ApiServer
from tests.helm.chart import render
from tests.helm.test_chart import joined

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]  # the first time, the API server is built

JOB = "fraud-detector"
# Flink looks for the template of task managers in a fixed place of its image. So /opt is laid over, for this process
# only.
WITH_TEMPLATE = """
mkdir "$1/opt" && mount --rbind /opt "$1/opt" && mount -t tmpfs none /opt
for each in "$1"/opt/*; do ln -s "$each" /opt/; done
rm -f /opt/flink && mkdir -p /opt/flink/pod-template
cp "$1/taskManager.yaml" /opt/flink/pod-template/taskmanager-pod-template.yaml
shift && exec "$@"
"""


@pytest.fixture(scope="module")
def jar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job, of files: it never gets as far as to read them."""
    folder = tmp_path_factory.mktemp("jar")
    (folder / "orders.jsonl").touch()
    command = [sys.executable, "-m", "beam_pipelines.fraud", "--runner=FlinkRunner", f"--output={folder}/out"]
    command += [f"--input={folder}/orders.jsonl", f"--output_executable_path={folder}/job.jar"]
    command += ["--environment_type=EXTERNAL", "--environment_config=localhost:50000", "--parallelism=4"]
    command += [f"--flink_job_server_jar={job_server_jar()}"]
    done = subprocess.run(command, cwd=live.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "job.jar"


class JobManager(NamedTuple):
    process: subprocess.Popen[bytes]
    rest: str
    log: Path


def deploy(server: ApiServer, folder: Path) -> dict[str, Any]:
    """Has Flink's client make the job manager's Deployment, as the operator does, and gives it back."""
    spec = render("prod").one("FlinkDeployment", JOB)["spec"]
    common = spec["podTemplate"]
    for part in ("jobManager", "taskManager"):
        pod = {**common, "spec": joined(common["spec"], spec[part]["podTemplate"]["spec"])}
        (folder / f"{part}.yaml").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", **pod}))
    config = {key: value for key, value in spec["flinkConfiguration"].items() if "kubernetes.operator" not in key}
    config |= {
        "kubernetes.cluster-id": JOB,
        "kubernetes.namespace": "streamforge",
        "kubernetes.config.file": str(server.kubeconfig(folder / "administrator.json")),
        "kubernetes.container.image.ref": spec["image"],
        "kubernetes.service-account": spec["serviceAccount"],
        "kubernetes.jobmanager.replicas": str(spec["jobManager"]["replicas"]),
        "kubernetes.jobmanager.cpu.amount": str(spec["jobManager"]["resource"]["cpu"]),
        "kubernetes.taskmanager.cpu.amount": str(spec["taskManager"]["resource"]["cpu"]),
        "jobmanager.memory.process.size": spec["jobManager"]["resource"]["memory"],
        "taskmanager.memory.process.size": spec["taskManager"]["resource"]["memory"],
        "parallelism.default": str(spec["job"]["parallelism"]),
        **{
            f"kubernetes.pod-template-file.{p.lower()}": str(folder / f"{p}.yaml")
            for p in ("jobManager", "taskManager")
        },
    }
    client = written(folder / "client", config)
    command = [*flink("org.apache.flink.client.cli.CliFrontend"), "run-application", "-t", "kubernetes-application"]
    command.append(spec["job"]["jarURI"])
    environment = {**os.environ, "FLINK_CONF_DIR": str(client)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return server.objects("deployments")[JOB]


@contextmanager
def job_manager(server: ApiServer, folder: Path, jar: Path) -> Iterator[JobManager]:
    """The process of the Deployment's pod: its configuration, its account; files in place of buckets."""
    ports = [pick_free() for _ in range(3)]
    told = server.objects("configmaps")[f"flink-config-{JOB}"]["data"]["flink-conf.yaml"]
    config = dict(line.split(": ", 1) for line in told.splitlines() if ": " in line and not line.startswith("metrics."))
    config |= {
        "kubernetes.config.file": str(server.kubeconfig(folder / "flink.json", "streamforge-jobs")),
        "pipeline.jars": f"local://{jar}",
        "high-availability.storageDir": (folder / "ha").as_uri(),
        "state.checkpoints.dir": (folder / "checkpoints").as_uri(),
        "state.savepoints.dir": (folder / "savepoints").as_uri(),
        "io.tmp.dirs": str(folder),
        "rest.bind-address": "127.0.0.1",
        "jobmanager.bind-host": "127.0.0.1",
        "rest.port": str(ports[0]),
        "rest.bind-port": str(ports[0]),
        "high-availability.jobmanager.port": str(ports[1]),
        "jobmanager.rpc.port": str(ports[1]),
        "blob.server.port": str(ports[2]),
    }
    environment = {**os.environ, "FLINK_CONF_DIR": str(written(folder / "jobmanager", config))}
    environment["_POD_IP_ADDRESS"] = "127.0.0.1"
    entry = flink("org.apache.flink.kubernetes.entrypoint.KubernetesApplicationClusterEntrypoint")
    command = [*alone(), "sh", "-c", WITH_TEMPLATE, "sh", str(folder), *entry]
    log = folder / "jobmanager.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield JobManager(process, f"http://127.0.0.1:{ports[0]}", log)
    finally:
        process.kill()
        process.wait()


def alone() -> list[str]:
    """What gives a process mounts of its own."""
    command = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        done = subprocess.run([*command, "mount", "-t", "tmpfs", "none", "/opt"], capture_output=True, check=False)
    except OSError:
        pytest.skip("unshare is needed")
    if done.returncode:
        pytest.skip("this system lets nobody but root have mounts of one's own")
    return command


def flink(main: str) -> list[str]:
    options = ["-Xmx512m", *ADD_OPENS, f"-Dlog4j.configurationFile={LOG4J2.as_uri()}"]
    return [java(), *options, "-cp", f"{flink_libraries()}/*", main]


def written(folder: Path, config: dict[str, str]) -> Path:
    folder.mkdir()
    (folder / "flink-conf.yaml").write_text("".join(f"{key}: {value}\n" for key, value in config.items()))
    return folder


@contextmanager
def tidied(server: ApiServer) -> Iterator[None]:
    try:
        yield
    finally:
        for kind in ("deployments", "pods", "services", "configmaps"):
            server.done(
                "delete", kind, "--all", "--namespace=streamforge", "--wait=false", "--grace-period=0", "--force"
            )


def test_flink_makes_of_it_what_the_chart_means_and_its_role_is_enough(
    server: ApiServer, role: dict[str, Any], jar: Path, tmp_path: Path
) -> None:
    with tidied(server):
        template = deploy(server, tmp_path)["spec"]["template"]
        assert template["spec"]["serviceAccountName"] == "streamforge-jobs"
        assert [c["name"] for c in template["spec"]["initContainers"]] == ["launcher"]
        (main,) = template["spec"]["containers"]
        mounts = {m["name"]: m["mountPath"] for m in main["volumeMounts"]}
        assert (mounts["job"], mounts["tmp"]) == ("/opt/streamforge/job", "/tmp")
        assert main["resources"]["limits"] == {"cpu": "1", "memory": "2Gi"}
        assert ("metrics", 9249) in [(p["name"], p["containerPort"]) for p in main["ports"]]
        meta = {"name": "job-manager", "namespace": "streamforge", "labels": template["metadata"]["labels"]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}
        server.done("apply", "--dry-run=server", objects=[pod])

        with job_manager(server, tmp_path, jar) as running:

            def pods() -> dict[str, Any]:
                assert running.process.poll() is None, running.log.read_text()[-3000:]
                found = server.objects("pods")
                return found if len(found) == 2 else {}  # parallelism 4, two slots each

            for pod in live.eventually(pods, "task managers", 180).values():
                containers = {c["name"]: c for c in pod["spec"]["containers"]}
                assert containers.keys() == {"worker", "flink-main-container"}
                assert "--port=50000" in containers["worker"]["args"]
                ports = containers["flink-main-container"]["ports"]
                assert ("metrics", 9249) in [(p["name"], p["containerPort"]) for p in ports]
                assert containers["flink-main-container"]["resources"]["limits"] == {"cpu": "2", "memory": "4Gi"}
                assert pod["metadata"]["labels"]["streamforge/job"] == JOB
                assert pod["metadata"]["ownerReferences"][0]["name"] == JOB
            assert f"{JOB}-cluster-config-map" in server.objects("configmaps"), "a leader is elected"
            (job,) = live.flink_rest(running.rest, "/jobs")["jobs"]
            request = urllib.request.Request(f"{running.rest}/jobs/{job['id']}?mode=cancel", method="PATCH")
            urllib.request.urlopen(request, timeout=10).close()
            assert running.process.wait(120) == 0
        assert "forbidden" not in running.log.read_text().lower()
        assert JOB not in server.objects("deployments"), "it takes itself away"
        left = server.objects("configmaps")
        assert not [name for name in left if name.endswith("-config-map")], "and what it kept for its successors"


def test_without_a_permission_it_makes_no_pod_and_says_so(
    server: ApiServer, role: dict[str, Any], jar: Path, tmp_path: Path
) -> None:
    poorer = copy.deepcopy(role)
    (of_pods,) = [rule for rule in poorer["rules"] if rule["resources"] == ["pods"]]
    of_pods["verbs"].remove("create")
    server.done("replace", objects=[poorer])
    with tidied(server):
        deploy(server, tmp_path)
        with job_manager(server, tmp_path, jar) as running:
            live.eventually(lambda: "cannot create resource" in running.log.read_text(), "a refusal", 180)
            assert not server.objects("pods")
