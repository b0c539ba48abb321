"""The workflow that contributors' changes go through."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.live import ROOT
from tests.tools import tool

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yaml"


def steps() -> list[dict[str, Any]]:
    return [step for job in yaml.safe_load(WORKFLOW.read_text())["jobs"].values() for step in job["steps"]]


def test_what_it_runs_is_there() -> None:
    runs = " ".join(step["run"] for step in steps() if "run" in step)
    targets = set(re.findall(r"make ([a-z-]+)", runs))
    assert targets >= {"test-deploy", "chart", "sbom"}
    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in (".ci/run", "docker/bake.hcl", "docker/compose.yaml"):
        assert path in runs
        assert (ROOT / path).is_file()


def test_actions_are_commits_and_may_only_read() -> None:
    used = [step["uses"] for step in steps() if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in used), used
    assert yaml.safe_load(WORKFLOW.read_text())["permissions"] == {"contents": "read"}


@pytest.mark.deploy
def test_actionlint_finds_nothing_and_would_find_a_fault(tmp_path: Path) -> None:
    def lint(path: Path) -> tuple[int, str]:
        done = subprocess.run([tool("actionlint"), "-no-color", path], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    assert lint(WORKFLOW) == (0, "")
    wrong = tmp_path / "wrong.yaml"
    for right, fault, why in (
        ("timeout-minutes: 15", "timeout_minutes: 15", 'unexpected key "timeout_minutes"'),
        ("github.event_name", "github.event_nam", 'property "event_nam" is not defined'),
        ("runs-on: ubuntu-24.04", "runs-on: ubuntu-24", 'label "ubuntu-24" is unknown'),
    ):
        text = WORKFLOW.read_text()
        assert right in text
        wrong.write_text(text.replace(right, fault))
        status, told = lint(wrong)
        assert (status, why in told) == (1, True), told
