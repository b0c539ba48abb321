"""What `make setup` begins with: a Python that fits, and one lock for every Python that is supported."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.specifiers import SpecifierSet

from tests.live import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SUPPORTED = [f"3.{minor}" for minor in range(30) if f"3.{minor}" in SpecifierSet(PROJECT["requires-python"])]
FIND = ROOT / ".ci" / "python"


def python(file: Path, version: str, venv: bool = True) -> Path:
    """A program that answers what .ci/python asks, as a Python of this version would."""
    no = f"echo 'is Python {version}.1' >&2; exit 1"
    fits = "exit 0" if venv else "echo 'has no venv' >&2; exit 1"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\ncase \" $3 \" in *' {version} '*) {fits};; esac; {no}\n")
    file.chmod(0o755)
    return file


def find(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "bin").mkdir(exist_ok=True)
    for tool in ("head", "sh"):
        (folder / "bin" / tool).symlink_to(f"/bin/{tool}")
    environment = {"PATH": str(folder / "bin"), "HOME": str(folder), "PYENV_ROOT": str(folder / "pyenv")}
    return subprocess.run([FIND, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_the_versions_are_those_of_the_package_everywhere() -> None:
    assert SUPPORTED == ["3.11", "3.12", "3.13"]
    assert re.search(r'^versions="(.*?)"', FIND.read_text(), re.MULTILINE)[1].split() == SUPPORTED  # type: ignore[index]
    named = [c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert named == SUPPORTED
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text())["jobs"]
    assert {str(row["python"]) for row in jobs["test"]["strategy"]["matrix"]["include"]} == set(SUPPORTED)


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_python_on_the_path_is_found_by_its_name_or_as_python3(tmp_path: Path, version: str) -> None:
    plain = python(tmp_path / "bin" / "python3", version)
    assert find(tmp_path).stdout == f"{plain}\n"


def test_a_shim_that_leads_nowhere_and_a_python_that_is_too_new_are_passed_over_for_pyenvs(tmp_path: Path) -> None:
    shim = tmp_path / "bin" / "python3.12"
    python(tmp_path / "bin" / "python3", "3.14")
    shim.write_text("#!/bin/sh\necho 'pyenv: python3.12: command not found' >&2; exit 127\n")
    shim.chmod(0o755)
    fits = python(tmp_path / "pyenv" / "versions" / "3.13.0" / "bin" / "python3.13", "3.13")
    assert find(tmp_path).stdout == f"{fits}\n"


def test_none_that_fits_is_one_line_with_what_to_install_and_what_was_found(tmp_path: Path) -> None:
    new, bare = (
        python(tmp_path / "bin" / "python3", "3.14"),
        python(tmp_path / "bin" / "python3.12", "3.12", venv=False),
    )
    done = find(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Python 3.11, 3.12 or 3.13 with venv not found: install one")
    assert f"{new} is Python 3.14.1" in line
    assert f"{bare} has no venv" in line


def test_one_that_is_named_is_taken_or_refused_and_no_other_is_looked_for(tmp_path: Path) -> None:
    python(tmp_path / "bin" / "python3", "3.11")
    named = python(tmp_path / "own", "3.13")
    assert find(tmp_path, str(named)).stdout == f"{named}\n"
    for tool in ("head", "sh"):
        (tmp_path / "bin" / tool).unlink()
    done = find(tmp_path, "python3.12")
    assert (done.returncode, done.stderr.rstrip().endswith("; python3.12 not found")) == (1, True)


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-dev.txt"])
def test_the_lock_names_one_version_of_each_package_for_every_python(lock: str) -> None:
    pins = re.findall(r"^([a-z0-9._-]+)(?:\[.*?\])?==(\S+)(?: ; (.*?))? \\$", (ROOT / lock).read_text(), re.MULTILINE)
    assert len(pins) > 100
    for version in SUPPORTED:
        here = {"python_version": version, "python_full_version": f"{version}.9", "implementation_name": "cpython"}
        names = [name for name, _, marker in pins if not marker or Marker(marker).evaluate(here)]
        assert len(names) == len(set(names)), version
        assert {"apache-beam", "flask", "confluent-kafka"} <= set(names)


def test_the_version_stands_in_one_place() -> None:
    assert PROJECT["version"]
    calls = [node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.Call)]
    assert not [keyword.arg for call in calls for keyword in call.keywords if keyword.arg == "version"]


MANIFESTS = {
    "docker": r"(.*/)?Dockerfile",
    "docker-compose": r"(.*/)?compose\.yaml",
    "gomod": r".*/go\.mod",
    "maven": r".*/pom\.xml",
    "pip": r"(.*/)?(setup\.py|[\w-]+\.in)",
    "terraform": r".*/versions\.tf",
}


def test_dependabot_watches_every_folder_that_pins_something() -> None:
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for ecosystem, manifest in MANIFESTS.items():
        (update,) = [update for update in updates if update["package-ecosystem"] == ecosystem]
        watched = update.get("directories") or [update["directory"]]
        folders = {f"/{Path(path).parent}".removesuffix(".") for path in listed if re.fullmatch(manifest, path)}
        assert folders, ecosystem
        assert {folder for folder in folders if not any(Path(folder).match(glob) for glob in watched)} == set()
        assert [glob for glob in watched if not any(Path(folder).match(glob) for folder in folders)] == []
    assert {update["package-ecosystem"] for update in updates} == {*MANIFESTS, "github-actions"}


def test_issue_forms_are_forms() -> None:
    forms = list((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yaml"))
    assert len(forms) == 2
    for form in map(yaml.safe_load, (path.read_text() for path in forms)):
        assert form.keys() >= {"name", "description", "body"}
        ids = [part["id"] for part in form["body"]]
        assert len(ids) == len(set(ids)) > 0
        assert all(part["attributes"]["label"] for part in form["body"])
