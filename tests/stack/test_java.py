from pathlib import Path

import pytest

import stack.java
from stack.errors import StackError
from stack.java import java, java_home


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH, empty; nothing is installed elsewhere but in its jvm/."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(stack.java, "INSTALLED", (f"{tmp_path}/jvm/*/bin/java",))
    return tmp_path


def program(file: Path, script: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


def shows(version: str) -> str:
    return f"""echo 'openjdk version "{version}" 2019-01-15' >&2"""


def test_a_missing_java_is_one_line_with_the_remedy_and_where_it_was_looked_for(path: Path) -> None:
    with pytest.raises(
        StackError, match=r"^Java 17 to 25 not found: install .*; looked on the PATH; in .*/jvm$"
    ) as caught:
        java()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("shown", "version"), [("11.0.2", 11), ("1.8.0_412", 8), ("16", 16), ("26-ea", 26)])
def test_a_java_that_is_too_old_or_too_new_is_refused_and_named(path: Path, shown: str, version: int) -> None:
    command = program(path / "java", shows(shown))
    with pytest.raises(StackError, match=rf"^Java 17 to 25 not found: .*; {command} is Java {version}$"):
        java()


@pytest.mark.parametrize("shown", ["17", "17.0.15", "21.0.8", "25", "25.0.3"])
def test_every_java_from_17_to_25_is_taken(path: Path, shown: str) -> None:
    command = program(path / "java", shows(shown))
    assert java() == str(command)


def test_a_placeholder_that_only_says_how_to_install_java_is_refused(path: Path) -> None:
    program(path / "java", "echo 'Unable to locate a Java Runtime.' >&2; exit 1")
    with pytest.raises(StackError, match=r"java does not run$"):
        java()


def test_a_java_that_is_installed_but_not_on_the_path_is_found_after_one_that_does_not_fit(path: Path) -> None:
    program(path / "java", shows("11"))
    program(path / "jvm" / "java-11" / "bin" / "java", shows("11"))
    fits = program(path / "jvm" / "java-21" / "bin" / "java", shows("21"))
    assert java() == str(fits)
    assert java_home() == str(path / "jvm" / "java-21")


def test_java_home_goes_before_the_path_and_is_not_passed_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(path / "java", shows("17"))
    home = program(path / "home" / "bin" / "java", shows("21.0.1"))
    monkeypatch.setenv("JAVA_HOME", str(path / "home"))
    assert java() == str(home)
    monkeypatch.setenv("JAVA_HOME", str(path / "nowhere"))
    with pytest.raises(StackError, match=r"looked in JAVA_HOME=.*/nowhere$"):
        java()


def test_the_home_of_a_shim_is_what_java_says(path: Path) -> None:
    program(path / "java", f"""{shows("21")}; echo '    java.home = /opt/jdk-21' >&2""")
    assert java_home() == "/opt/jdk-21"
