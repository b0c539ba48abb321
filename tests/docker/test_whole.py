"""The compose file's own commands, in the images built from this checkout, from an order to its alert in the API.

What is not ours (Kafka, registry, Valkey, Flink) is the local stack's, on other ports; the rest is as a container has
it: its files, its user, its entry point.
"""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from stack import Stack
from stack.flink import Cluster
from stack.kafka import Kafka
from stack.ports import pick_free
from stack.topics import TOPICS
from tests.docker.compose import command, load
from tests.docker.images import ROOT, Images
from tests.live import eventually

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(3600)]

JOBS = ("fraud", "archive")


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    images = Images()
    yield images
    images.close()


def ask(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return json.loads(response.read())["data"]
    except OSError:
        return None


def test_an_order_becomes_an_alert_by_the_commands_of_the_compose_file(images: Images, tmp_path: Path) -> None:
    services = load()["services"]
    state = tmp_path / "state"  # the volume, which Flink and Python share
    state.mkdir()
    os.chown(state, 10001, 10001)
    for folder in (state, *state.parents):
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(folder.stat().st_mode | 0o005)  # pytest's own folders are root's alone
    with ExitStack() as opened:
        stack = opened.enter_context(Stack(tmp_path / "stack", [Kafka(topics={}), "registry", "valkey"], ports="free"))
        cluster = opened.enter_context(Cluster(tmp_path / "flink", slots=4, checkpoints=state))
        pool, api, metrics = (pick_free() for _ in range(3))
        elsewhere = {
            "http://registry:8080": f"http://{stack.address('registry')}",
            "jobmanager:8081": cluster.master,
            "kafka:9092": stack.address("kafka"),
            "valkey:6379": stack.address("valkey"),
            "localhost:50000": f"127.0.0.1:{pool}",
            "--port=50000": f"--port={pool}",
            "--port=8090": f"--port={api}",
            "--metrics_port=9090": f"--metrics_port={metrics}",
            "--host=0.0.0.0": "--host=127.0.0.1",
            "/var/lib/streamforge": str(state),
        }

        def start(name: str, *more: str) -> Path:
            service = services[name]
            image = re.fullmatch(r".*streamforge-([a-z]+):.*", service["image"])
            assert image
            words = command(service)
            for here, there in elsewhere.items():
                words = [word.replace(here, there) for word in words]
            log = tmp_path / f"{name}.log"
            volumes = {state: str(state)} if "state:/var/lib/streamforge" in service.get("volumes", []) else {}
            if name == "prepare":
                volumes = {
                    ROOT / "docker/compose/prepare.py": "/tmp/prepare.py",
                    ROOT / "stack/topics.py": "/tmp/stack/topics.py",
                }
            built = images.built(image[1])
            process = opened.enter_context(built.running(log, *words[1:], *more, entrypoint=words[:1], volumes=volumes))
            if service.get("restart") == "no" and name not in JOBS:
                assert process.wait(120) == 0, log.read_text()
            return log

        assert f"topics: {len(TOPICS)} made" in start("prepare").read_text()
        assert "topics: 0 made" in start("prepare").read_text()
        log = start("worker")
        eventually(lambda: "workers at" in log.read_text(), "the pool listens")
        for job in JOBS:
            start(job)
        start("api")
        start("simulator", "--seed=5")
        url = f"http://127.0.0.1:{api}/api/v1"
        alerts = eventually(lambda: ask(f"{url}/fraud-alerts?limit=5"), f"an alert; logs in {tmp_path}", timeout_s=300)
        assert {"alert_id", "order_id", "risk_score"} <= alerts[0].keys()
        ledger = eventually(lambda: (ask(f"{url}/health") or {}).get("ledgers", {}).get("fraud-detector"), "a ledger")
        assert ledger["in"] == sum(ledger[name] for name in ("good", "dead_letters", "late", "duplicates"))
        files = eventually(lambda: list((state / "archive").rglob("*.avro")), "archived files", timeout_s=120)
        # Of the user that every image runs as: nothing had to be root to get here.
        assert {path.stat().st_uid for path in files} == {10001}
