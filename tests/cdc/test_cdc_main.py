"""The commands without any service: help, wrong input, nobody there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cdc import workload
from cdc.__main__ import main
from cdc.database import Database
from cdc.errors import WrongInput
from stack.ports import pick_free

COMMANDS = ("setup", "register", "status", "snapshot", "slots")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["fly"], "fly"),
        (["status", "--speed"], "--speed"),
        (["status", "--connect", "ftp://x"], "'ftp://x' is not http://host:port"),
        (["status", "--connect", "127.0.0.1:8083"], "is not http://host:port"),
        (["register", "--timeout", "soon"], "--timeout: 'soon' is not a positive number"),
        (["register", "--database", "mysql://u@h/d"], "'mysql://…' is not postgresql://user@host[:port]/database"),
        (["register", "--database", "postgresql://h/d"], "is not postgresql://user@host[:port]/database"),
        (["register", "--database", "postgresql://u@h:p/d"], "is not postgresql://user@host[:port]/database"),
        (["snapshot", "--secrets", "x"], "name tables, or give --initial"),
        (["snapshot", "products", "--initial"], "name tables, or give --initial"),
        (["snapshot", "product"], "'product' is none of products, customers"),
        (["slots", "--max_lag_mb", "-1"], "--max_lag_mb: '-1' is not a positive number"),
        (["slots", "--secrets", "nowhere"], "nowhere/monitor-password: no such file or directory"),
        (["slots", "--port", "70000"], "--port: '70000' is no port"),
        (["slots", "--port", "9187", "--secrets", "nowhere"], "nowhere/monitor-password: no such file or directory"),
        (["slots", "--port", "9187", "--prometheus"], "--port serves the metrics"),
        (["setup", "--password_file", "nowhere"], "nowhere: no such file or directory"),
    ],
)
def test_wrong_input_exits_2_with_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_password_in_a_url_is_refused_and_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    for url in ("postgresql://u:hush@h/d", "postgresql://u@h/d?password=hush"):
        with pytest.raises(SystemExit) as stop:
            main(["setup", "--database", url])
        assert stop.value.code == 2
        said = capsys.readouterr().err
        assert "PGPASSWORD" in said
        assert "hush" not in said


def test_help_tells_every_command_and_each_has_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"\n    {command} " in shown for command in COMMANDS)
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
        assert "exit status" in capsys.readouterr().out


def test_nobody_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = pick_free()
    (tmp_path / "monitor-password").write_text("x")
    database = f"postgresql://u@127.0.0.1:{port}/shop"
    for arguments in (
        ["status", "--connect", f"http://127.0.0.1:{port}"],
        ["register", "--connect", f"http://127.0.0.1:{port}"],
        ["slots", "--database", database, "--secrets", str(tmp_path)],
        ["setup", "--database", database],
    ):
        assert main(arguments) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("cdc: ")
        assert str(port) in line


def test_a_dry_run_prints_the_configuration_and_no_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "capture-password").write_text("hush")
    assert main(["register", "--dry_run", "--database", "postgresql://u@db/shop", "--secrets", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    config = json.loads(shown)
    assert config["database.hostname"] == "db"
    assert config["database.port"] == "5432"
    assert config["database.user"] == "streamforge_capture"
    assert re.fullmatch(r"\d{13}/unknown", config["transforms.epoch.static.value"])
    assert config["database.password"] == f"${{dir:{tmp_path}:capture-password}}"
    assert "hush" not in shown


@pytest.mark.parametrize("arguments", [["--transactions", "0"], ["--rate", "fast"], ["--database", "x"], ["now"]])
def test_the_workload_refuses_wrong_input_with_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        workload.main(arguments)
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_database_url_is_taken_apart() -> None:
    assert Database.parse("postgresql://u@h:6/d?sslmode=require")[1:] == ("h", 6, "u", "d")
    with pytest.raises(WrongInput):
        Database.parse("postgresql://u@h1,h2/d")
