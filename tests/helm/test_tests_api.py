"""`helm test`: its program against a real server, and the pod that runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serving import api_keys
from stack import Stack
from tests.helm.chart import CHART, render
from tests.server import running

PROGRAM = (CHART / "files" / "test_api.py").read_text()


def run(server: Any, *flags: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
    assert "WITHIN_S = 60" in PROGRAM
    program = PROGRAM.replace("WITHIN_S = 60", "WITHIN_S = 2")
    return subprocess.run(
        [sys.executable, "-c", program, f"http://127.0.0.1:{server.port}", *flags],
        env={"API_KEY": key} if key else {},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_it_is_content_with_an_api_that_answers(valkey: Stack, tmp_path: Path) -> None:
    with running(valkey.redis_url, tmp_path=tmp_path) as server:
        done = run(server)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "the API is there and reaches its store: yes\nit answers for many users at once: yes\n"


def test_it_sees_that_strangers_are_kept_out_and_a_key_lets_in(valkey: Stack, tmp_path: Path) -> None:
    key = "k" * 43
    keys = tmp_path / "keys"
    keys.write_text(f"helm-test:{api_keys.sha256(key)}\n")
    with running(valkey.redis_url, "--api_keys", str(keys), tmp_path=tmp_path) as server:
        without, wrong = run(server, "--keys"), run(server, "--keys", key="x")
        with_key = run(server, "--keys", key=f"{key}\n")  # as a file ends
    assert (without.returncode, without.stdout.count(": yes")) == (0, 2)
    assert (with_key.returncode, with_key.stdout.count(": yes")) == (0, 3)
    assert wrong.returncode == 1
    assert "it answers for many users at once: not so, the answer was (401" in wrong.stderr


def test_it_sees_an_api_that_should_ask_for_keys_and_does_not(valkey: Stack, tmp_path: Path) -> None:
    with running(valkey.redis_url, tmp_path=tmp_path) as server:
        done = run(server, "--keys")
    assert done.returncode == 1
    assert "without a key it is closed: not so, the answer was (200" in done.stderr


def test_it_sees_a_store_that_is_away(tmp_path: Path) -> None:
    with running("redis://127.0.0.1:1/0", tmp_path=tmp_path) as server:
        done = run(server)
    assert done.returncode == 1
    assert "the API is there and reaches its store: not so, the answer was (503" in done.stderr


@pytest.mark.deploy
def test_the_pod_runs_that_program_with_the_apis_image() -> None:
    manifests = render("dev")
    pod = manifests.one("Pod", "streamforge-test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["restartPolicy"] == "Never"
    (container,) = pod["spec"]["containers"]
    (api,) = manifests.one("Deployment", "streamforge-api")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == api["image"]
    assert container["command"] == ["python"]
    assert container["args"] == ["-c", PROGRAM, "http://streamforge-api"]
    assert "env" not in container


@pytest.mark.deploy
def test_with_keys_it_is_told_so_and_given_its_own() -> None:
    (container,) = render("prod").one("Pod", "streamforge-test")["spec"]["containers"]
    assert container["args"][-1] == "--keys"
    (variable,) = container["env"]
    assert variable == {
        "name": "API_KEY",
        "valueFrom": {"secretKeyRef": {"name": "streamforge-test-key", "key": "key"}},
    }
