"""Spark's command line; tests/dags runs it."""

import itertools
from pathlib import Path

import pytest

import stack.spark
from stack.console import SILENT
from stack.spark import Spark


@pytest.mark.parametrize(
    ("java", "class_path"), [(17, None), (21, None), (23, None), (24, "spark-hadoop/*"), (25, "spark-hadoop/*")]
)
def test_a_java_without_the_security_manager_gets_a_hadoop_client_that_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, java: int, class_path: str | None
) -> None:
    (tmp_path / "lib" / "python3" / "site-packages" / "pyspark").mkdir(parents=True)
    monkeypatch.setattr(stack.spark, "java_version", lambda: java)
    monkeypatch.setattr(stack.spark, "maven", lambda name, _: Path(name))
    monkeypatch.setattr(stack.spark, "python_of", lambda *_: tmp_path / "bin" / "python")
    command = Spark(tmp_path, SILENT).submit(Path("job.py"), Path("ours.zip"), [])
    found = dict(itertools.pairwise(command)).get("--driver-class-path")
    assert found == class_path
