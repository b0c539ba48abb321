from pathlib import Path

import pytest

from stack.errors import StackError
from stack.java import java


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH, empty."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return tmp_path


def program(file: Path, script: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_a_missing_java_is_named_with_the_remedy(path: Path) -> None:
    with pytest.raises(StackError, match=r"Java not found: install a JDK 17 or newer"):
        java()


@pytest.mark.parametrize(("shown", "version"), [("11.0.2", 11), ("1.8.0_412", 8)])
def test_a_java_that_is_too_old_is_refused(path: Path, shown: str, version: int) -> None:
    program(path / "java", f"""echo 'openjdk version "{shown}" 2019-01-15' >&2""")
    with pytest.raises(StackError, match=rf"is Java {version}: install a JDK 17"):
        java()


def test_a_placeholder_that_only_says_how_to_install_java_is_refused(path: Path) -> None:
    program(path / "java", "echo 'Unable to locate a Java Runtime.' >&2; exit 1")
    with pytest.raises(StackError, match="does not run"):
        java()


def test_java_home_goes_before_the_path(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(path / "java", """echo 'openjdk version "11"' >&2""")
    program(path / "home" / "bin" / "java", """echo 'openjdk version "21.0.1"' >&2""")
    monkeypatch.setenv("JAVA_HOME", str(path / "home"))
    assert java() == str(path / "home" / "bin" / "java")
