import socket
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.jobs import JOBS, topics
from stack.__main__ import main
from stack.ports import HOST, pick_free


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["up", "kafkaa"], "no service is called 'kafkaa'; there are kafka, registry"),
        (["up", "--port", "kafka"], "'kafka' is not NAME=PORT"),
        (["up", "--port", "kafka=70000"], "'kafka=70000' is not NAME=PORT"),
        (["up", "--port", "web=80"], "'web=80' is not NAME=PORT"),
        (["up", "--speed"], "--speed"),
        (["logs", "--lines", "-1"], "--lines"),
        (["fly"], "fly"),
        ([], "COMMAND"),
    ],
)
def test_wrong_input_exits_2_with_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    (line,) = lines(capsys)
    assert said in line


def test_help_tells_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"\n    {command} " in shown for command in ("up", "down", "status", "logs", "fetch"))


def test_topics_are_printed_as_commands_that_make_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topics", "--partitions=6", "--replicas=2"]) == 0
    made = {}
    for line in capsys.readouterr().out.splitlines():
        program, *words = line.split()
        assert program == "kafka-topics"
        given = [word.removeprefix("--").partition("=")[::2] for word in words]
        assert {("create", ""), ("if-not-exists", ""), ("partitions", "6"), ("replication-factor", "2")} < set(given)
        (name,) = [value for flag, value in given if flag == "topic"]
        made[name] = dict(value.split("=") for flag, value in given if flag == "config")
    assert made.items() >= topics(JOBS.values()).items()


def test_where_nothing_was_started_status_is_1_logs_say_so_and_down_is_content(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(tmp_path / "none")]
    assert main(["status", *data]) == 1
    assert main(["logs", *data]) == 1
    assert main(["down", *data]) == 0
    assert not (tmp_path / "none").exists()


def test_a_port_in_use_is_named_with_the_service_and_its_holder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = pick_free()
    with socket.create_server((HOST, port)):
        assert main(["up", "valkey", "--data", str(tmp_path), "--port", f"valkey={port}"]) == 1
    (line,) = lines(capsys)
    assert f"valkey: port {port} is already in use (pid" in line


def test_a_missing_java_is_one_line_and_leaves_nothing_running(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "stack", "up", "valkey", "kafka", "--data", str(tmp_path), *free_ports()],
        env={"PATH": str(tmp_path / "empty"), "HOME": str(tmp_path), "JAVA_HOME": str(tmp_path / "jdk")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1].startswith("stack: Java 17 to 25 not found: install one")
    assert main(["status", "--data", str(tmp_path)]) == 1


def free_ports() -> list[str]:
    names = ("kafka", "kafka-controller", "valkey")
    return [word for name in names for word in ("--port", f"{name}={pick_free()}")]
