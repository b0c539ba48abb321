"""The demo as users run it, on ports of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stack import demo
from stack.console import SILENT
from stack.ports import HOST, is_free, pick_free

PORTS = ("kafka", "kafka-controller", "registry", "valkey", "api")
LEDGER = re.compile(r"in = .*: ([\d,]+) = ([\d,]+) \+ ([\d,]+) \+ ([\d,]+) \+ ([\d,]+), balances")


@pytest.fixture
def ports() -> dict[str, int]:
    chosen: dict[str, int] = {}
    for name in PORTS:
        chosen[name] = pick_free(set(chosen.values()))
    return chosen


def flags(data: Path, ports: dict[str, int]) -> list[str]:
    return [f"--data={data}", *(f"--port={name}={port}" for name, port in ports.items())]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--duration=60"], "--duration: '60' is not a duration"),
        (["--rate=0"], "--rate: '0' is not a whole number"),
        (["--port=web=80"], "--port: 'web=80' is not NAME=PORT with a NAME of kafka,"),
        (["--port=api=70000"], "--port: 'api=70000' is not NAME=PORT"),
        (["--prot=api=1"], "--prot=api=1"),
    ],
)
def test_a_wrong_flag_exits_2_with_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        demo.main(arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_port_in_use_is_one_line_with_the_remedy(
    tmp_path: Path, ports: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server((HOST, ports["api"])):
        assert demo.main(flags(tmp_path, ports)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"demo: port {ports['api']} is already in use.*; stop what uses it or choose .*--port.*", line)


def test_a_missing_java_is_one_line_with_the_remedy(
    tmp_path: Path, ports: dict[str, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert demo.main(flags(tmp_path, ports)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("demo: Java not found: install a JDK 17")


BALANCED = {"in": 10, "good": 7, "dead_letters": 1, "late": 1, "duplicates": 1, "updated_ms": 0}


@pytest.mark.parametrize(
    ("ledger", "before", "status", "said"),
    [
        (BALANCED, 0, 0, "10 = 7 + 1 + 1 + 1, balances"),
        (BALANCED | {"in": 15, "good": 12}, 5, 0, "the topic held 5 orders before"),
        (BALANCED | {"good": 6}, 0, 1, "10 = 6 + 1 + 1 + 1, DOES NOT BALANCE"),
        (BALANCED | {"in": 9, "good": 6}, 0, 1, "DIFFERENCE: 1 of what was sent"),
        (BALANCED | {"in": 11, "good": 8}, 0, 1, "DIFFERENCE: -1 of what was sent"),
    ],
)
def test_only_a_ledger_that_balances_and_holds_all_that_was_sent_gives_status_0(
    ledger: dict[str, int],
    before: int,
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo, "_ARRIVAL_S", 0)
    truth = tmp_path / "truth.jsonl"
    sent = {"sent": 10, "good": 7, "bad": 1, "late": 1, "duplicates": 1}
    truth.write_text(json.dumps({"kind": "summary", "topics": {"transactions.orders": sent}}) + "\n")
    system: Any = SimpleNamespace(
        truth=truth,
        children=SimpleNamespace(stop=lambda *_: None, require=lambda *_: None),
        ledger=lambda _: ledger,
        found=lambda _: [],
    )
    console = SimpleNamespace(line=print, waiting=SILENT.waiting)
    assert demo._settle(system, before, 0, console) == status  # type: ignore[arg-type]
    assert said in capsys.readouterr().out


@contextmanager
def running(data: Path, ports: dict[str, int], *more: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "stack.demo", *flags(data, ports), *more]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What the demo says up to the line that holds the text."""
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    pytest.fail(f"the demo ended without {text!r}:\n{said}")


def descendants(root: int) -> dict[int, str]:
    """pid → command of all processes below this one, whatever group they are in."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            commands[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if stat[0] != "Z":
            parents[int(folder.name)] = int(stat[1])
    found = {root}
    while grown := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= grown
    return {pid: commands[pid] for pid in found - {root}}


def alive(processes: dict[int, str]) -> list[str]:
    left = []
    for pid, command in processes.items():
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX":
            left.append(f"{pid} {command}")
    return left


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


@pytest.mark.stack
@pytest.mark.timeout(400)
def test_the_demo_shows_alerts_accounts_for_every_record_and_leaves_nothing_behind(
    tmp_path: Path, ports: dict[str, int]
) -> None:
    with running(tmp_path, ports, "--duration=25s", "--rate=200") as process:
        read_until(process, "StreamForge runs")
        api = f"http://{HOST}:{ports['api']}/api/v1"
        deadline = time.monotonic() + 20
        while not (alerts := get(f"{api}/fraud-alerts")["data"]):
            assert time.monotonic() < deadline, "no alert"
            time.sleep(0.2)
        started = descendants(process.pid)
        said = read_until(process, "planted fraud:")
        assert process.wait(60) == 0
    assert {"alert_id", "user_id", "alert_type", "order_id"} <= alerts[0].keys()
    for part in ("kafka.Kafka", "apicurio", "valkey", "beam_pipelines.fraud", "forkserver", "serving", "simulator"):
        assert any(part in command for command in started.values()), part
    total, *parts = (int(number.replace(",", "")) for number in LEDGER.search(said).groups())  # type: ignore[union-attr]
    assert total == sum(parts)
    assert min(parts) > 0, "every outcome is planted"
    assert "everything sent has arrived" in said
    found, planted = map(int, re.search(r"planted fraud: (\d+) of (\d+) found", said).groups())  # type: ignore[union-attr]
    assert found == planted > 0
    assert alive(started) == []
    assert [name for name, port in ports.items() if not is_free(port)] == []


@pytest.mark.stack
def test_a_child_that_dies_ends_the_demo_with_one_line_and_its_log(tmp_path: Path, ports: dict[str, int]) -> None:
    with running(tmp_path, ports) as process:
        read_until(process, "api: works")
        started = descendants(process.pid)
        os.kill(int((tmp_path / "simulator.pid").read_text()), signal.SIGKILL)
        said = read_until(process, "demo: ")
        assert process.wait(60) == 1
    assert re.search(rf"^demo: simulator ended unexpectedly: .+ \(log: {tmp_path}/logs/simulator.log\)$", said, re.M)
    assert alive(started) == []


@pytest.mark.stack
def test_ctrl_c_while_it_starts_leaves_nothing_behind(tmp_path: Path, ports: dict[str, int]) -> None:
    with running(tmp_path, ports) as process:
        read_until(process, "valkey: up")
        started = descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        read_until(process, "demo: interrupted")
        assert process.wait(60) == 130
    assert alive(started) == []
    assert [name for name, port in ports.items() if not is_free(port)] == []
