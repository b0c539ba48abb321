"""What others install: an editable installation, as here, would not notice that a file is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.live import ROOT

PACKAGES = ("beam_pipelines", "cdc", "connections", "schemas", "serving", "simulator", "stack", "transforms")
NOT_INSTALLED = ("stack/spark.in", "schemas/avro/history/")  # a source of spark.txt; what old writers' schemas were


def test_a_wheel_holds_every_file_of_its_packages(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, source)
    files = {str(path.relative_to(source)) for package in PACKAGES for path in (source / package).rglob("*.*")}
    build = [Path(sys.executable).with_name("uv"), "build", "--quiet", "--wheel", "--out-dir", tmp_path, source]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        missing = files - set(content.namelist())
    assert len(files) > 150
    assert sorted(path for path in missing if not path.startswith(NOT_INSTALLED) and (source / path).is_file()) == []
