import subprocess
import sys
from pathlib import Path

import pytest

from stack.artefacts import cached, maven, run
from stack.console import SILENT
from stack.errors import StackError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMFORGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make(work: Path, log: Path) -> Path:
    (work / "dist").mkdir()
    (work / "dist" / "content").write_text("whole")
    return work / "dist"


def test_a_folder_is_made_once_per_key(cache: Path) -> None:
    first = cached("thing", "1", make, SILENT)
    (first / "content").write_text("kept")
    assert (cached("thing", "1", make, SILENT) / "content").read_text() == "kept"
    assert (cached("thing", "2", make, SILENT) / "content").read_text() == "whole"


def test_a_maker_that_fails_leaves_nothing(cache: Path) -> None:
    def fail(work: Path, log: Path) -> Path:
        make(work, log)
        raise StackError("no network")

    with pytest.raises(StackError, match="no network"):
        cached("thing", "1", fail, SILENT)
    assert sorted(path.name for path in cache.iterdir()) == ["lock", "logs"]
    assert (cached("thing", "1", make, SILENT) / "content").read_text() == "whole"


def test_two_processes_at_once_make_it_once(cache: Path, tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from stack.artefacts import cached
from stack.console import SILENT
def make(work, log):
    with open({str(tmp_path / "made")!r}, "a") as made: made.write("x")
    (work / "dist").mkdir()
    time.sleep(0.3)
    return work / "dist"
cached("thing", "1", make, SILENT)
"""
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert (tmp_path / "made").read_text() == "x"


def test_a_failed_download_names_the_artefact_the_reason_and_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(StackError) as caught:
        run("kafka", ["/bin/sh", "-c", "echo fine; echo '[ERROR] cannot reach it'; echo; exit 1"], log, SILENT)
    message = str(caught.value)
    assert "kafka could not be fetched: [ERROR] cannot reach it" in message
    assert str(log) in message
    assert "\n" not in message


def test_a_missing_maven_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "java"
    java.write_text("""#!/bin/sh\necho 'openjdk version "17.0.15"' >&2\n""")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(StackError, match=r"Maven not found, and kafka .* install Maven"):
        maven("kafka", SILENT)
