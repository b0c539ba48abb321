"""What a release is made of."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.live import ROOT

SCRIPT = ROOT / ".ci" / "release"
DIGEST = {name: f"sha256:{letter * 64}" for name, letter in (("api", "a"), ("worker", "b"))}


def release(*arguments: str | Path, script: Path = SCRIPT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def pushed(tmp_path: Path) -> Path:
    """As `docker buildx bake --metadata-file` writes it."""
    file = tmp_path / "images.json"
    targets = {
        name: {
            "buildx.build.ref": "builder/builder0/x",
            "containerimage.digest": digest,
            "image.name": f"ghcr.io/shop/streamforge/streamforge-{name}:1.2.3",
        }
        for name, digest in DIGEST.items()
    }
    file.write_text(json.dumps({**targets, "buildx.build.warnings": {}}))
    return file


def test_a_tag_that_is_not_the_version_of_all_is_refused() -> None:
    done = release("version", "99.0.0")
    assert done.returncode == 1
    here = importlib.metadata.version("streamforge")
    for place in (f"pyproject.toml: {here}", f"Chart.yaml, version: {here}", "CHANGELOG.md: it has no section"):
        assert place in done.stderr


def test_the_notes_are_the_changelogs_section(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci" / "release"
    script.write_text(SCRIPT.read_text())
    sections = [
        "# Changelog",
        "## [Unreleased]",
        "## [1.2.3] - 2026-12-01",
        "### Added",
        "- a",
        "## [1.2.2] - 2026-11-01",
    ]
    (tmp_path / "CHANGELOG.md").write_text("\n\n".join([*sections, "- b"]))
    assert release("notes", "1.2.3", script=script).stdout == "### Added\n\n- a\n"
    assert release("notes", "1.2", script=script).stdout.strip() == ""


def test_images_are_signed_by_digest(pushed: Path) -> None:
    assert release("images", pushed).stdout.split() == [
        f"ghcr.io/shop/streamforge/streamforge-{name}@{digest}" for name, digest in DIGEST.items()
    ]


def test_what_is_not_understood_says_how_it_is_called() -> None:
    for arguments in ((), ("sign", "x"), ("version",)):
        done = release(*arguments)
        assert done.returncode == 1
        assert "images FILE" in done.stderr


@pytest.mark.deploy
def test_the_chart_takes_the_digests(pushed: Path) -> None:
    from tests.helm.chart import render
    from tests.helm.test_chart import pods

    values = yaml.safe_load(release("values", pushed).stdout)
    assert list(render("prod", values))
    found = pods("prod", values)["streamforge-api"]["containers"][0]["image"]
    assert found == f"ghcr.io/shop/streamforge/streamforge-api:1.2.3@{DIGEST['api']}"


@pytest.mark.deploy
def test_the_package_holds_chart_templates_and_modules() -> None:
    done = subprocess.run(["make", "--silent", "package"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = re.findall(r"^[0-9a-f]{64}  (\S+)-[0-9.]+\.tgz$", done.stdout, re.MULTILINE)
    assert set(files) == {"streamforge", "dataflow-templates", "terraform"}
    check = subprocess.run(
        ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=ROOT / "build" / "release", check=False
    )
    assert check.returncode == 0
