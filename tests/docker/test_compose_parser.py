"""docker/compose.yaml, read by the library that `docker compose` reads it with. Needs Go, so it is marked deploy."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.docker.compose import COMPOSE, load
from tests.docker.images import ROOT

pytestmark = pytest.mark.deploy
_SOURCE = Path(__file__).parent / "compose_parser"


@pytest.fixture(scope="module")
def parser() -> Path:
    program = ROOT / ".stack" / "tools" / "compose_parser"
    program.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["go", "build", "-o", program, "."], cwd=_SOURCE, check=True)
    return program


def read(parser: Path, file: Path) -> subprocess.CompletedProcess[str]:
    # Without what the machine's environment may set.
    environment = {k: v for k, v in os.environ.items() if k not in ("REGISTRY", "TAG", "RATE")}
    return subprocess.run([parser, file], capture_output=True, text=True, check=False, env=environment)


def test_docker_compose_reads_what_we_mean(parser: Path) -> None:
    done = read(parser, COMPOSE)
    assert (done.returncode, done.stderr) == (0, "")
    understood: dict[str, Any] = json.loads(done.stdout)
    assert understood["services"].keys() == load()["services"].keys()
    fraud = understood["services"]["fraud"]
    assert fraud["image"] == "streamforge-launcher:dev"
    assert fraud["depends_on"]["worker"]["condition"] == "service_healthy"
    assert fraud["environment"]["FLINK_FLAGS"].startswith("--runner=FlinkRunner --flink_version=1.19 ")
    assert understood["services"]["api"]["ports"][0]["host_ip"] == "127.0.0.1"
    assert understood["services"]["simulator"]["command"][1] == "--rate=50"
    assert understood["services"]["kafka"]["healthcheck"]["start_interval"] == "2s"


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (
            "    read_only: true\n    cap_drop: [ALL]\n    volumes",
            "    readonly: true\n    volumes",
            "'readonly' not allowed",
        ),
        (
            "      jobmanager: {condition: service_healthy}\n    healthcheck",
            "      jobmanger: {condition: service_healthy}\n    healthcheck",
            "jobmanger",
        ),
        ("{condition: service_healthy, restart: true}", "{condition: healthy}", "condition"),
        ("127.0.0.1:8090:8090", "127.0.0.1:8090:port", "Invalid containerPort"),
        ("network_mode: service:taskmanager", "network_mode: service:taskmaster", "taskmaster"),
        ('["kafka:/var/lib/kafka/data"]', '["kafa:/var/lib/kafka/data"]', "kafa"),
        ("memory: 256m, pids: 200", "memory: plenty, pids: 200", "plenty"),
    ],
)
def test_docker_compose_refuses_a_planted_fault(
    parser: Path, tmp_path: Path, before: str, after: str, why: str
) -> None:
    text = COMPOSE.read_text()
    assert before in text
    (tmp_path / "compose.yaml").write_text(text.replace(before, after))
    done = read(parser, tmp_path / "compose.yaml")
    assert done.returncode
    assert why in done.stderr
