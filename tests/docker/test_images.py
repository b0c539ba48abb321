"""The images, really built from this checkout, looked into and started as their own user.

Marked deploy: it needs root, buildah and debootstrap, the first time 8 minutes, and 4.3 GB in .stack/images.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack import Stack
from stack.ports import pick_free
from stack.service import LOG4J2
from tests.docker.images import ROOT, Images, Target, targets
from tests.live import eventually

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1800)]

# Unpacked, in millions of bytes; docs/docker.md says what they were when it was written.
MOST_MB = {"api": 160, "cdc": 120, "simulator": 150, "worker": 1100, "launcher": 1600, "flink": 750, "flex-fraud": 1100}


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    images = Images()
    yield images
    images.close()


def answer(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bytes(response.read())
    except OSError:
        return None


def listens(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("name", MOST_MB)
def test_an_image_is_of_its_size_runs_as_nobody_else_and_cannot_change_itself(images: Images, name: str) -> None:
    image = images.built(name)
    print(f"{name}: {image.megabytes:.0f} MB unpacked")
    assert image.megabytes < MOST_MB[name]
    assert image.config["User"] == "10001:10001"
    may = {"/tmp", "/var/tmp", "/run/lock", "/var/lib/streamforge"}
    if name == "flink":
        may |= {"/opt/flink/conf", "/opt/flink/log"}
    assert set(image.writable()) <= may
    assert not [path for path in image.root.rglob("*") if path.is_file() and path.lstat().st_mode & 0o6000] or name in (
        "worker",
        "launcher",
        "flink",
        "flex-fraud",
    )


@pytest.mark.parametrize("name", ["api", "cdc", "simulator"])
def test_the_small_images_hold_no_shell_and_no_installer_but_say_what_they_are_made_of(
    images: Images, name: str
) -> None:
    image = images.built(name)
    for program in ("sh", "bash", "apt", "dpkg", "pip", "pip3", "curl"):
        assert not [path for path in image.root.rglob(program) if path.is_file() or path.is_symlink()], program
    # Where scanners look.
    packages = {path.name for path in (image.root / "var/lib/dpkg/status.d").iterdir()}
    assert {"libc6", "libssl3", "python3.11-minimal"} <= packages
    assert list(image.root.rglob("flask-*.dist-info" if name == "api" else "confluent_kafka-*.dist-info"))


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("api", ["connections", "schemas", "serving", "transforms"]),
        ("cdc", ["cdc", "connections", "schemas"]),
        ("simulator", ["cdc", "connections", "schemas", "simulator", "transforms"]),
        ("worker", ["beam_pipelines", "connections", "schemas", "transforms"]),
    ],
)
def test_an_image_has_every_file_of_its_packages_and_no_other_package(
    images: Images, name: str, packages: list[str]
) -> None:
    """Files that are not Python are where a wheel goes wrong, and an editable installation does not."""
    (installed,) = images.built(name).root.glob("opt/streamforge/venv/lib/python3.11/site-packages")
    files = {
        path.relative_to(ROOT)
        for package in packages
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and "history" not in path.parts  # of tests only
    }
    assert {path.suffix for path in files} > {".py"}
    assert sorted(str(path) for path in files if not (installed / path).exists()) == []
    # Somebody else's package brings a folder `tests` along.
    every = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()} - {"tests"}
    assert len(every) > 6
    assert not [package for package in every - set(packages) if (installed / package).exists()]


def test_the_api_answers_from_its_image(images: Images, valkey: Stack, tmp_path: Path) -> None:
    image = images.built("api")
    port, metrics = pick_free(), pick_free()
    flags = ["--host=127.0.0.1", f"--port={port}", f"--metrics_port={metrics}", f"--redis={valkey.redis_url}"]
    with image.running(tmp_path / "log", *flags):
        url = f"http://127.0.0.1:{port}"
        health = eventually(lambda: answer(f"{url}/api/v1/health"), f"health answers; {tmp_path / 'log'}")
        assert json.loads(health)["data"]["redis"]["status"] == "ok"
        assert b'"0.1.0"' in (answer(f"{url}/api/v1/info") or b"")
        assert b"<html" in (answer(f"{url}/") or b"")
        scraped = eventually(lambda: answer(f"http://127.0.0.1:{metrics}/metrics"), "metrics answer")
        assert b"streamforge_http_requests_total" in scraped
        # The image's own health check, on this port: it ends with 0, and with another number where nobody listens.
        check = [word.replace("8090", str(port)) for word in image.config["Healthcheck"]["Test"][1:]]
        image.output(*check[1:], entrypoint=check[:1])
    with pytest.raises(AssertionError, match="refused"):
        image.output(*check[1:], entrypoint=check[:1])


def test_the_simulator_writes_files_from_its_image(images: Images) -> None:
    said = images.built("simulator").output(
        "simulator", "--rate=0", "--events=200", "--output=/tmp/shop", "--format=jsonl", "--seed=1"
    )
    assert "200" in said
    assert (images.built("simulator").root / "tmp/shop/transactions.orders.jsonl").stat().st_size > 0
    assert "shop" in images.built("simulator").output("cdc", "register", "--dry_run", "--secrets=/run/capture")


def test_the_image_for_capture_runs_its_commands_and_no_traffic(images: Images) -> None:
    image = images.built("cdc")
    assert "shop" in image.output("register", "--dry_run", "--secrets=/run/capture")
    with pytest.raises(AssertionError, match="No module named 'simulator'"):
        image.output("-m", "cdc.workload", entrypoint=["python"])


def test_the_worker_image_holds_beams_program_and_a_pool_that_listens(images: Images, tmp_path: Path) -> None:
    image = images.built("worker")
    assert image.config["Entrypoint"] == ["/opt/apache/beam/boot"]
    assert "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1" in image.config["Env"]
    assert "-control_endpoint" in image.output("-c", "/opt/apache/beam/boot --help 2>&1 || true", entrypoint=["sh"])
    port = pick_free()
    pool = ["-m", "beam_pipelines.worker_pool", "--host=127.0.0.1", f"--port={port}"]
    with image.running(tmp_path / "log", *pool, entrypoint=["python"]):
        eventually(lambda: listens(port), "the pool listens")


def test_beams_program_starts_our_workers_as_a_runner_asks_for_them(images: Images, tmp_path: Path) -> None:
    """As on Dataflow, and in Flink's environments DOCKER and PROCESS: the runner gives boot an address, boot does the
    rest. Here Flink runs what runs the image's entry point."""
    files = tmp_path / "files"
    files.mkdir()
    os.chown(files, 10001, 10001)
    for folder in (files, *files.parents):
        folder.chmod(folder.stat().st_mode | 0o005)  # pytest's own folders are root's alone
    python = [sys.executable, "-m"]
    traffic = ["simulator", "--rate=0", "--events=2000", "--seed=7", f"--output={files}", "--format=jsonl"]
    subprocess.run([*python, *traffic], check=True, cwd=ROOT, capture_output=True)
    start = tmp_path / "start-worker"
    words = shlex.join(images.built("worker").command(volumes={files: str(files)}))
    start.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    start.chmod(0o755)
    job = ["beam_pipelines.fraud", "--runner=FlinkRunner", "--parallelism=1", "--sdk_worker_parallelism=1"]
    job += [f"--input={files}/transactions.orders.jsonl", f"--output={files}/out", f"--ledger={files}/ledger.json"]
    job += ["--environment_type=PROCESS", f"--environment_config={json.dumps({'command': str(start)})}"]
    done = subprocess.run([*python, *job], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-5000:]
    ledger = json.loads((files / "ledger.json").read_text())
    orders = len((files / "transactions.orders.jsonl").read_bytes().splitlines())
    assert ledger["in"] == orders > 0
    # Written by the image's user: this process is another's.
    assert (files / "ledger.json").stat().st_uid == 10001


def test_the_launcher_has_java_and_a_job_server_that_it_can_look_into(images: Images) -> None:
    image = images.built("launcher")
    assert "17." in image.output("-version", entrypoint=["java"])
    jar = "/opt/streamforge/flink-job-server.jar"
    look = f"from stack.flink import beam_version, pauses_leak; print(beam_version({jar!r}), pauses_leak({jar!r}))"
    assert image.output("-c", look, entrypoint=["python"]).strip() == "(2, 70) False"
    assert "--allowed_lateness" in image.output("beam_pipelines.fraud", "--help")
    assert "pip" in image.output("pip", "freeze", "--all")


def test_flink_begins_with_its_reporter_and_its_file_system(images: Images, tmp_path: Path) -> None:
    image = images.built("flink")
    names = {str(path.relative_to(image.root / "opt/flink/plugins")) for path in image.root.rglob("plugins/*/*.jar")}
    assert any(re.fullmatch(r"gs-fs-hadoop/flink-gs-fs-hadoop-.*\.jar", name) for name in names)
    assert any(re.fullmatch(r"metrics-prometheus/flink-metrics-prometheus-.*\.jar", name) for name in names)
    assert not list((image.root / "opt/flink/opt").glob("flink-gs-fs-hadoop-*.jar"))
    ports = [pick_free() for _ in range(3)]
    settings = {
        "jobmanager.rpc.address": "127.0.0.1",
        "jobmanager.rpc.port": str(ports[0]),
        "rest.bind-address": "127.0.0.1",
        "rest.port": str(ports[1]),
        "metrics.reporter.prom.factory.class": "org.apache.flink.metrics.prometheus.PrometheusReporterFactory",
        "metrics.reporter.prom.port": str(ports[2]),
    }
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "config.yaml").write_text("".join(f"{key}: '{value}'\n" for key, value in settings.items()))
    shutil.copy(LOG4J2, conf)
    # What its base's start scripts, which are not in the stand-in's Python package, give to Java.
    start = ["env", "FLINK_PLUGINS_DIR=/opt/flink/plugins", "java", "-Xmx256m", "-cp", "/opt/flink/lib/*"]
    start.append(f"-Dlog4j.configurationFile=/conf/{LOG4J2.name}")
    main = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
    log = tmp_path / "log"
    words = [main, "--configDir", "/conf", "--executionMode", "cluster"]
    with image.running(log, *words, entrypoint=start, volumes={conf: "/conf"}):
        eventually(
            lambda: b"flink_jobmanager_taskSlotsTotal" in (answer(f"http://127.0.0.1:{ports[2]}/metrics") or b""),
            f"the reporter tells; {log}",
        )
        eventually(lambda: "gs-fs-hadoop" in log.read_text(), "the file system's plugin is found")


def test_each_flex_image_says_its_job_and_a_wrong_one_is_not_built(images: Images) -> None:
    image = images.built("flex-fraud")
    environment = dict(entry.split("=", 1) for entry in image.config["Env"])
    assert environment["STREAMFORGE_JOB"] == "fraud"
    assert environment["STREAMFORGE_WORKER_IMAGE"] == targets()["worker"].tags[0]
    assert image.config["Entrypoint"] == ["/opt/google/dataflow/python_template_launcher"]
    assert (image.root / environment["FLEX_TEMPLATE_PYTHON_PY_FILE"].lstrip("/")).exists()
    assert "--allowed_lateness" in image.output("--help")
    wrong = Target("flex-fruad", "flex", ("streamforge-flex-fruad:dev",), {"JOB": "fruad", "WORKER_IMAGE": "w:1"})
    with pytest.raises(RuntimeError, match=r"No module named 'beam_pipelines\.fruad'"):
        images.build(wrong)
