"""Files of settings: Java's properties, with secrets by reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from connections.settings import SettingsError, Watch, hide, parse, read


def written(folder: Path, text: str, name: str = "settings.properties") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_lines_are_read_as_java_reads_them() -> None:
    text = "# a comment\n! another\n\n a = b=c \nd:e\nlong = one, \\\n   two\nesc=a\\\\b\\u00e9\\n\\=\npath=C\\:/x\n"
    assert parse(text, "f") == {"a": "b=c", "d": "e", "long": "one, two", "esc": "a\\bé\n=", "path": "C:/x"}


@pytest.mark.parametrize(
    ("text", "says"), [("a=1\nhunter2", "line 2 is not name=value"), ("a=1\na=hunter2", "says a twice")]
)
def test_a_line_that_is_wrong_is_named_and_not_shown(text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as refused:
        parse(text, "f")
    assert "hunter2" not in str(refused.value)


def test_secrets_are_found_where_they_are_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SF_SECRET", "of-the-environment")
    written(tmp_path, "of-a-file\n", "password")
    written(tmp_path, "key=of-properties\n", "other.properties")
    path = written(
        tmp_path,
        f"env=${{env:SF_SECRET}}\nfile=${{file:{tmp_path}/password}}\ndir=${{dir:{tmp_path}:password}}\n"
        f"key=${{file:{tmp_path}/other.properties:key}}\nmixed=user:${{env:SF_SECRET}}\n",
    )
    assert read(path) == {
        "env": "of-the-environment",
        "file": "of-a-file",
        "dir": "of-a-file",
        "key": "of-properties",
        "mixed": "user:of-the-environment",
    }


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("${env:SF_NOT_SET}", r"name: \$\{env:SF_NOT_SET\} is not set"),
        ("${file:/nowhere/at/all}", "cannot be read: No such file"),
        ("${file:/nowhere/at/all:key}", "cannot be read: No such file"),
        ("${vault:x}", r"\$\{vault:…\} is none of \$\{file:…\}"),
        ("${secret:nothing}", "not PROJECT/NAME"),
    ],
)
def test_a_reference_that_leads_nowhere_is_named(tmp_path: Path, reference: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        read(written(tmp_path, f"name={reference}\n"))


def test_what_a_client_says_is_shown_without_its_secrets() -> None:
    settings = {"sasl.password": "hunter2", "ssl.ca.location": "/ca.pem", "short": "no"}
    assert hide('Invalid value "hunter2"\n in /ca.pem, no', settings) == 'Invalid value "…" in /ca.pem, no'


def test_a_changed_secret_or_certificate_is_noticed_after_ten_seconds(tmp_path: Path) -> None:
    password, certificate = Path(written(tmp_path, "one", "password")), Path(written(tmp_path, "old", "ca.pem"))
    path = written(tmp_path, f"sasl.password=${{file:{password}}}\nssl.ca.location={certificate}\n")
    now_s = 0.0
    watch = Watch(lambda: read(path), lambda: now_s)

    def changed_after(seconds: float) -> bool:
        nonlocal now_s
        now_s += seconds
        return watch.changed()

    assert not changed_after(11)
    password.write_text("two")
    assert not changed_after(9)
    assert changed_after(2)
    password.write_text("one")
    assert not changed_after(11)
    certificate.write_text("new")
    assert changed_after(11)
    certificate.write_text("old")
    password.unlink()  # half-way through being written anew
    assert not changed_after(11)
