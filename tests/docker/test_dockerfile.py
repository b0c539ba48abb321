"""The Dockerfile and what goes into it, looked at without building anything."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import Marker

from schemas.jobs import JOBS
from tests.docker.dockerfile import problems, stages
from tests.docker.images import ROOT, targets

DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
REQUIREMENTS = DOCKER / "requirements"
BUILT = {target.stage for target in targets().values()}
# Only in requirements of images: needed by Debian's Python, which is 3.11.2, and not by 3.11.3 or newer.
OLDER_PYTHON = {"async-timeout"}


def lint(file: Path) -> subprocess.CompletedProcess[str]:
    hadolint = Path(sys.executable).parent / "hadolint"
    return subprocess.run([hadolint, "--no-color", file], capture_output=True, text=True, check=False)


def pins(file: Path) -> dict[str, str]:
    """Those of the images' Python."""
    found = re.findall(r"^([a-z0-9._-]+)(?:\[[^]]*\])?==(\S+)(?: ; ([^\\\n]+))?", file.read_text(), re.MULTILINE)
    here = {"python_full_version": "3.11.2", "python_version": "3.11"}
    return {name: version for name, version, marker in found if not marker or Marker(marker).evaluate(here)}


def hashes(file: Path) -> dict[str, set[str]]:
    return {
        name: set(re.findall(r"sha256:\w{64}", block))
        for name, block in re.findall(r"^([a-z0-9._-]+)==((?:.*\\\n)+.*)$", file.read_text(), re.MULTILINE)
    }


# The file


def test_hadolint_has_nothing_to_say() -> None:
    done = lint(DOCKER / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        ("FROM ${FLINK} AS flink", "FROM flink:latest AS flink", "DL3007"),
        ("WORKDIR /build/source", "WORKDIR build/source", "DL3000"),
        ('ENTRYPOINT ["python", "-m", "serving"]', "ENTRYPOINT python -m serving", "DL3025"),
        ("USER 10001:10001\n\n\n# What builds", "USER root\n\n\n# What builds", "DL3002"),
        ("&& apt-get install -y --no-install-recommends maven", "&& apt-get install -y maven", "DL3015"),
    ],
)
def test_hadolint_finds_a_planted_fault(tmp_path: Path, before: str, after: str, rule: str) -> None:
    assert DOCKERFILE.count(before) == 1
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.replace(before, after))
    assert rule in lint(tmp_path / "Dockerfile").stdout


def test_every_image_is_pinned_runs_as_10001_and_holds_no_secret() -> None:
    assert problems(DOCKERFILE, BUILT) == []


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("debian:bookworm-20260824-slim", "debian:latest", "ARG DEBIAN: docker.io/library/debian:latest has no fixed"),
        ("apache/beam_python3.11_sdk:2.77.0", "apache/beam_python3.11_sdk", "ARG BEAM_SDK"),
        ("FROM ${DEBIAN} AS tools", "FROM debian:12.1 AS tools", "tools: FROM debian:12.1 is neither"),
        ("WORKDIR /tmp\nUSER 10001:10001\nEXPOSE", "WORKDIR /tmp\nEXPOSE", "api: runs as None"),
        ("ENV PYTHONPATH=/opt/streamforge/launcher\nUSER 10001:10001", "", "launcher: runs as 0"),
        ("COPY schemas schemas\nCOPY serving", "COPY . .\nCOPY serving", "api-built: COPY of everything"),
        ("ARG JOB\n", "ARG JOB\nARG GITHUB_TOKEN\n", "flex: ARG GITHUB_TOKEN would stay"),
        ("ARG JOB\n", "ARG JOB\nENV REDIS_PASSWORD=x\n", "flex: ENV REDIS_PASSWORD would stay"),
        ("COPY LICENSE pyproject.toml setup.py ./\nCOPY cdc", "ADD cdc cdc\nCOPY cdc", "simulator-built: ADD"),
        ("install --require-hashes -r /build/api.txt", "install -r /build/api.txt", "api-built: pip install without"),
        ('ENTRYPOINT ["python", "-m", "serving"]', "ENTRYPOINT python -m serving", "api: no entry point in exec form"),
        (" AS simulator\n", " AS traffic\n", "simulator is no stage"),
    ],
)
def test_a_planted_fault_is_found(before: str, after: str, why: str) -> None:
    assert before in DOCKERFILE
    found = problems(DOCKERFILE.replace(before, after), BUILT)
    assert [line for line in found if line.startswith(why)], found


def test_the_service_that_is_asked_has_a_health_check() -> None:
    _, found = stages(DOCKERFILE)
    assert "8090/api/v1/health/live" in (found["api"].last("HEALTHCHECK") or "")


def test_a_build_sees_nothing_but_what_is_named() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    copied = {
        word
        for stage in stages(DOCKERFILE)[1].values()
        for instruction, rest in stage.instructions
        if instruction == "COPY" and "--from=" not in rest
        for word in rest.split()[:-1]
    }
    assert copied
    assert all((ROOT / path).exists() for path in copied)
    allowed = {line[1:] for line in lines if line.startswith("!")}
    seen = {path for path in copied if any(Path(path).is_relative_to(a) or Path(path).match(a) for a in allowed)}
    assert seen == copied


def test_each_job_has_its_flex_image_and_every_image_a_name() -> None:
    assert {name for name in targets() if name.startswith("flex-")} == {f"flex-{job}" for job in JOBS}
    assert all(target.tags == (f"streamforge-{name}:dev",) for name, target in targets().items())


def test_versions_are_those_that_the_tests_ran_with() -> None:
    beam = importlib.metadata.version("apache-beam")
    arguments, _ = stages(DOCKERFILE)
    assert arguments["BEAM_SDK"].endswith(f"_python3.11_sdk:{beam}")
    flink = re.search(r"apache-flink-libraries==([\d.]+)", (ROOT / "stack" / "flink_processes.py").read_text())
    assert flink
    assert f":{flink[1]}-" in arguments["FLINK"]


# Requirements


@pytest.mark.parametrize("name", ["api", "build", "cdc", "launcher", "simulator", "worker"])
def test_an_image_has_the_versions_that_the_tests_ran_with(name: str) -> None:
    tested = pins(ROOT / "requirements-dev.txt") | pins(ROOT / "requirements.txt")
    mine = pins(REQUIREMENTS / f"{name}.txt")
    assert mine
    if name != "build":
        assert {n: v for n, v in mine.items() if tested.get(n) != v}.keys() <= OLDER_PYTHON
    assert hashes(REQUIREMENTS / f"{name}.txt").keys() == mine.keys()
    wanted = re.findall(r"^([a-zA-Z0-9._-]+)", (REQUIREMENTS / f"{name}.in").read_text(), re.MULTILINE)
    assert {re.sub(r"[._]", "-", n).lower() for n in wanted} <= {re.sub(r"[._]", "-", n) for n in mine}


ALLOW = """
import importlib, importlib.metadata, pkgutil, re, sys
allowed, ours, modules, absent = (each.split(",") for each in sys.argv[1:])
distributions = importlib.metadata.packages_distributions()

class Absent:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        owners = {re.sub("[._]", "-", d).lower() for d in distributions.get(top, [])} - {"streamforge"}
        if owners and not owners & set(allowed):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if "streamforge" in distributions.get(top, []) and top not in ours:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
for name in modules:
    package = importlib.import_module(name)
    for each in pkgutil.walk_packages(package.__path__, f"{name}."):
        if not each.name.endswith("__main__") and each.name not in absent:
            importlib.import_module(each.name)
    importlib.import_module(f"{name}.__main__")
if "serving" in modules:
    import serving
    from confluent_kafka.admin import AdminClient
    serving.create_app(serving.Config(rate_limit="5/second", decisions=True))
"""


def imports(requirements: dict[str, str], ours: str, modules: str, absent: str) -> subprocess.CompletedProcess[str]:
    allowed = ",".join(re.sub(r"[._]", "-", name) for name in requirements)
    words = [allowed, ours, modules, absent]
    return subprocess.run([sys.executable, "-c", ALLOW, *words], capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize(
    ("name", "ours", "modules", "absent", "needed"),
    [
        ("api", "connections,schemas,serving,transforms", "serving", "", "msgspec"),
        # Those two generate what a shop would have: the simulator's image has them.
        ("cdc", "cdc,connections,schemas", "cdc", "cdc.sample,cdc.workload", "psycopg"),
        ("simulator", "cdc,connections,schemas,simulator,transforms", "simulator,cdc", "", "msgspec"),
    ],
)
def test_a_small_image_has_all_that_its_modules_import(
    name: str, ours: str, modules: str, absent: str, needed: str
) -> None:
    requirements = pins(REQUIREMENTS / f"{name}.txt")
    done = imports(requirements, ours, modules, absent)
    assert done.returncode == 0, done.stderr
    without = {n: v for n, v in requirements.items() if n != needed}
    assert f"No module named '{needed}'" in imports(without, ours, modules, absent).stderr
    assert "No module named" in imports(requirements, ours.partition(",")[2], modules, absent).stderr
