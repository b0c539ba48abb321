"""The workflows: what contributors' changes go through, and what makes a release."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.live import ROOT
from tests.tools import tool

FOLDER = ROOT / ".github" / "workflows"
WORKFLOW, RELEASE = FOLDER / "ci.yaml", FOLDER / "release.yaml"
RUNS = {
    WORKFLOW: ({"test-deploy", "chart", "sbom"}, (".ci/run", "docker/bake.hcl", "docker/compose.yaml")),
    RELEASE: ({"release-check", "sbom", "push-chart"}, (".ci/release", "docker/bake.hcl")),
}


def jobs(workflow: Path) -> dict[str, dict[str, Any]]:
    return yaml.safe_load(workflow.read_text())["jobs"]  # type: ignore[no-any-return]


def steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in jobs(workflow).values() for step in job["steps"]]


def test_there_are_no_others() -> None:
    assert {*FOLDER.iterdir()} == RUNS.keys()


@pytest.mark.parametrize("workflow", RUNS, ids=lambda path: path.stem)
def test_what_it_runs_is_there(workflow: Path) -> None:
    runs = " ".join(step["run"] for step in steps(workflow) if "run" in step)
    targets = set(re.findall(r"make (?:--silent )?([a-z-]+)", runs))
    wanted, paths = RUNS[workflow]
    assert targets >= wanted
    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in paths:
        assert path in runs
        assert (ROOT / path).is_file()


@pytest.mark.parametrize("workflow", RUNS, ids=lambda path: path.stem)
def test_actions_are_commits_and_jobs_may_only_read_unless_they_say_why(workflow: Path) -> None:
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in used), used
    assert yaml.safe_load(workflow.read_text())["permissions"] == {"contents": "read"}
    more = {name for name, job in jobs(workflow).items() if "permissions" in job}
    assert more == ({"images", "publish"} if workflow == RELEASE else set())


def test_a_release_is_checked_before_it_is_built_and_scanned_before_it_is_signed() -> None:
    found = jobs(RELEASE)
    assert (found["images"]["needs"], found["publish"]["needs"]) == ("check", "images")
    (last,) = [step["run"] for step in found["images"]["steps"] if "cosign" in step.get("run", "")]
    assert 0 < last.index("--exit-code 1") < last.index('cosign" sign')
    (built,) = [step["run"] for step in found["images"]["steps"] if "bake" in step.get("run", "")]
    assert "linux/amd64,linux/arm64" in built
    assert {"type=provenance,mode=max", "type=sbom"} <= set(re.findall(r"attest=(type=[\w,=]+)", built))
    assert {"default", "flex"} == set(re.findall(r"bake.hcl (\w+)", built))


@pytest.mark.deploy
def test_actionlint_finds_nothing_and_would_find_a_fault(tmp_path: Path) -> None:
    def lint(path: Path) -> tuple[int, str]:
        done = subprocess.run([tool("actionlint"), "-no-color", path], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    assert lint(WORKFLOW) == (0, "")
    assert lint(RELEASE) == (0, "")
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
