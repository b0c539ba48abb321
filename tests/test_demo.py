"""The demo as users run it, on ports of its own."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaException

import stack.java
from stack import demo
from stack.console import SILENT
from stack.ports import HOST, is_free, pick_free
from tests.live import PATIENCE, eventually

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
LISTS = ("fraud-alerts", "sessions?open=true", "sessions", "revenue")
PORTS = ("kafka", "kafka-controller", "registry", "valkey", "api")
LEDGER = r"^{} +([\d,]+) +([\d,]+) +([\d,]+) +([\d,]+) +([\d,]+)$"
SENT_TO_IT = LEDGER.format("  sent to it")


@pytest.fixture
def ports() -> dict[str, int]:
    return {name: pick_free() for name in PORTS}


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
    monkeypatch.setattr(stack.java, "INSTALLED", ())
    assert demo.main(flags(tmp_path, ports)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("demo: Java 17 to 25 not found: install one")


BALANCED = {"in": 10, "good": 7, "dead_letters": 1, "late": 1, "duplicates": 1}
SENT = {"sent": 10, "good": 7, "bad": 1, "late": 1, "duplicates": 1}
TOPICS = ("transactions.orders", "clickstream.events")
JOBS = ("fraud-detector", "session-aggregator", "revenue-calculator", "archiver")


@pytest.mark.parametrize(
    ("ledger", "before", "status", "said"),
    [
        (BALANCED, 0, 0, "every ledger balances\neverything sent has arrived"),
        (BALANCED | {"in": 15, "good": 12}, 5, 0, "its topics already held 5 records"),
        (BALANCED | {"good": 6}, 0, 1, "1             1             1  DOES NOT BALANCE"),
        (BALANCED | {"in": 9, "good": 6}, 0, 1, "DIFFERENCE: session-aggregator: sent − read = 1"),
        (BALANCED | {"in": 11, "good": 8}, 0, 1, "DIFFERENCE: session-aggregator: sent − read = -1"),
    ],
)
def test_only_ledgers_that_balance_and_hold_all_that_was_sent_give_status_0(
    ledger: dict[str, int],
    before: int,
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All jobs but one are as they should be."""
    monkeypatch.setattr(demo, "_ARRIVAL_S", 0)
    truth = tmp_path / "truth.jsonl"
    truth.write_text(json.dumps({"kind": "summary", "topics": dict.fromkeys(TOPICS, SENT)}) + "\n")
    ledgers = {
        "fraud": BALANCED,
        "sessions": ledger,
        "revenue": BALANCED,
        "archive": {name: 2 * n + before * (name in ("in", "good")) for name, n in BALANCED.items()},
    }
    system: Any = SimpleNamespace(
        truth=truth,
        jobs=demo._JOBS,
        children=SimpleNamespace(stop=lambda *_: None, require=lambda *_: None),
        ledger=lambda job: ledgers[job.name],
        posted=dict,
        is_quiet=lambda _: True,
        found=lambda _: [],
    )
    console = SimpleNamespace(line=print, waiting=SILENT.waiting)
    held = {"transactions.orders": 0, "clickstream.events": before}
    assert demo._settle(system, held, console) == status  # type: ignore[arg-type]
    assert said in capsys.readouterr().out


FRAUDS = [{"kind": "fraud", "rule": "RAPID_ORDERS", "user_id": f"u-{i}", "order_id": f"o-{i}"} for i in range(30)]


@pytest.mark.parametrize(("unseen", "status"), [(0, 0), (1, 1), (25, 1)])
def test_planted_fraud_that_was_not_found_is_named_and_gives_status_1(
    unseen: int, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "_ARRIVAL_S", 0)
    truth = tmp_path / "truth.jsonl"
    lines = [*FRAUDS, {"kind": "summary", "topics": dict.fromkeys(TOPICS, SENT)}]
    truth.write_text("".join(json.dumps(line) + "\n" for line in lines))
    system: Any = SimpleNamespace(
        truth=truth,
        jobs=(demo._FRAUD,),
        children=SimpleNamespace(stop=lambda *_: None, require=lambda *_: None),
        ledger=lambda _: BALANCED,
        posted=dict,
        is_quiet=lambda _: True,
        found=lambda frauds: [i >= unseen for i in range(len(frauds))],
    )
    console: Any = SimpleNamespace(line=print, waiting=SILENT.waiting)
    assert demo._settle(system, dict.fromkeys(TOPICS, 0), console) == status
    said = capsys.readouterr().out
    assert f"planted fraud: {30 - unseen} of 30 found" in said
    named = [f"NOT FOUND: RAPID_ORDERS of u-{i}, completed by order o-{i}" for i in range(min(unseen, 20))]
    assert [line for line in said.splitlines() if "order o-" in line] == named
    assert ("NOT FOUND: 5 more" in said) == (unseen == 25)


@pytest.mark.parametrize("status", [0, 1])
def test_what_debezium_wrote_has_arrived_when_the_ledger_holds_as_much(
    status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tmp_path / "truth.jsonl"
    truth.write_text(json.dumps({"kind": "summary", "topics": {}}) + "\n")
    stopped: list[str] = []
    system: Any = SimpleNamespace(
        truth=truth,
        jobs=(demo._CDC,),
        children=SimpleNamespace(stop=lambda *names: stopped.extend(names), require=lambda *_: None),
        ledger=lambda _: {"in": 40, "good": 40, "dead_letters": 0, "late": 0, "duplicates": 0},
        posted=dict,
        sent=lambda: dict.fromkeys(demo._CDC.topics, 8) | {demo._CDC.topics[0]: 9 if status else 8},
        is_quiet=lambda _: True,
        found=lambda _: [],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "_ARRIVAL_S", 0)
        console: Any = SimpleNamespace(line=print, waiting=SILENT.waiting)
        assert demo._settle(system, dict.fromkeys(demo._CDC.topics, 0), console) == status
    assert stopped == ["simulator", "workload"]
    assert f"cdc-processor {'':<6}{40:>14,}" in capsys.readouterr().out


def test_what_was_sent_to_the_api_is_counted_beside_the_simulators() -> None:
    found = demo._with({"transactions.orders": SENT, "inventory.events": SENT}, {"transactions.orders": 3})
    assert found["transactions.orders"] == SENT | {"sent": 13, "good": 10}
    assert found["inventory.events"] == SENT


def test_a_missing_ledger_is_waited_for_and_not_taken_for_arrived(tmp_path: Path) -> None:
    system = demo._System(None, "", tmp_path, None)  # type: ignore[arg-type]
    assert system.ledger(demo._FRAUD) == dict.fromkeys(BALANCED, 0)


@pytest.mark.parametrize("failure", [TimeoutError(), KafkaException("no leader yet")])
def test_a_broker_that_does_not_answer_in_time_is_asked_again(
    failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([failure, {"transactions.orders": 3}])

    def ask(_: demo._System) -> dict[str, int]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(demo._System, "_ask_sent", ask)
    assert demo._System(None, "", tmp_path, None).sent() == {"transactions.orders": 3}  # type: ignore[arg-type]


def test_a_history_begins_so_long_ago_and_goes_on_at_the_same_rate() -> None:
    before = datetime.now(UTC)
    rate, event_rate, start = demo._pace(demo._parser().parse_args(["--history=1h", "--rate=20"]))
    assert (rate, event_rate) == ("--rate=0", "--event_rate=20")
    assert before - timedelta(hours=1, seconds=1) < datetime.fromisoformat(start.removeprefix("--start="))
    assert datetime.fromisoformat(start.removeprefix("--start=")) <= datetime.now(UTC) - timedelta(hours=1)


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
            process.wait(60 * PATIENCE)
        except subprocess.TimeoutExpired:  # its children are in groups of their own, and would take all of the machine
            for pid in (*descendants(process.pid), process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


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
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


def numbers(pattern: str, text: str) -> list[list[int]]:
    return [[int(n.replace(",", "")) for n in found] for found in re.findall(pattern, text, re.M)]


def adds_up(minute: dict[str, Any]) -> bool:
    """Regions are written one by one, beside the total."""
    return 0 < minute["total_gmv"] == round(sum(minute["by_region"].values()), 2)


def users_with_alerts(api: str) -> Iterator[dict[str, Any]]:
    for user_id in {alert["user_id"] for alert in get(f"{api}/fraud-alerts")["data"]}:
        yield get(f"{api}/features/{user_id}")["data"]


def send_readmes_order(port: int, to: str = "events") -> Any:
    """As the quick start says, at another port."""
    [command] = re.findall(r"^curl -s http://127.0.0.1:8090/api/v1/events .*?}'$", README, re.MULTILINE | re.DOTALL)
    command = command.replace("8090", str(port)).replace("/events", f"/{to}")
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    return json.loads(done.stdout)


def accepted(told: dict[str, Any]) -> dict[str, Any] | None:
    return told if "accepted" in told else None


def known_to_fraud_and_revenue(user: dict[str, Any]) -> bool:
    return bool(user["alerts"] and user["spend_24h"])


@pytest.mark.stack
def test_the_demo_shows_every_jobs_results_accounts_for_every_record_and_leaves_nothing_behind(
    tmp_path: Path, ports: dict[str, int]
) -> None:
    with running(tmp_path, ports, "--rate=100") as process:
        read_until(process, "StreamForge runs")
        api = f"http://{HOST}:{ports['api']}/api/v1"
        shown = {path: eventually(lambda path=path: get(f"{api}/{path}")["data"], path, 120) for path in LISTS}
        eventually(lambda: adds_up(get(f"{api}/revenue/realtime")["data"]), "regions that add up to the total", 120)
        eventually(lambda: any(map(known_to_fraud_and_revenue, users_with_alerts(api))), "a user of two jobs", 120)
        session = shown["sessions"][0]
        assert get(f"{api}/features/{session['user_id']}")["data"]["last_session"]["user_id"] == session["user_id"]
        # While the machine is busy the answer may be that store or Kafka were too slow, and to send it again.
        told = eventually(lambda: send_readmes_order(ports["api"], "decisions").get("data"), "a decision", 120)
        assert told["decision"] == "review"
        order = eventually(lambda: accepted(send_readmes_order(ports["api"])), "the order is accepted", 120)
        assert (order["accepted"], order["count"]) == (1, 1)
        mine = eventually(lambda: get(f"{api}/fraud-alerts/me")["data"], "an alert on the README's order", 120)
        assert (mine[0]["alert_type"], mine[0]["order_id"]) == ("HIGH_VALUE_FIRST_ORDER", "mine-1")
        started = descendants(process.pid)
        process.send_signal(signal.SIGINT)  # a demo for a set time could end before all of this is seen
        said = read_until(process, "planted fraud:")
        assert process.wait(120 * PATIENCE) == 0
    assert {"alert_id", "user_id", "alert_type", "order_id"} <= shown["fraud-alerts"][0].keys()
    parts = ["kafka.Kafka", "apicurio", "valkey", "forkserver", "serving", "simulator"]
    for part in parts + [f"beam_pipelines.{job}" for job in ("fraud", "sessions", "revenue", "archive")]:
        assert any(part in command for command in started.values()), part
    for job, sent in zip(JOBS, numbers(SENT_TO_IT, said), strict=True):
        [[total, *outcomes]] = numbers(LEDGER.format(job), said)
        assert total == sum(outcomes) == sent[0], job
        assert min(outcomes) > 0, "every outcome is planted"
        assert outcomes[1:3] == sent[2:4], "dead letters and late records are those planted"
    assert "every ledger balances" in said
    assert "everything sent has arrived" in said
    found, planted = map(int, re.search(r"planted fraud: (\d+) of (\d+) found", said).groups())  # type: ignore[union-attr]
    assert found == planted > 0
    assert re.search(r"memory: \d+\.\d GB in total; in MB: .*fraud \d+.*kafka \d+", said)
    assert list((tmp_path / "archive").rglob("*.avro"))
    assert alive(started) == []
    assert [name for name, port in ports.items() if not is_free(port)] == []


@pytest.mark.stack
def test_a_child_that_dies_ends_the_demo_with_one_line_and_its_log(tmp_path: Path, ports: dict[str, int]) -> None:
    with running(tmp_path, ports) as process:
        pid = tmp_path / "simulator.pid"  # it is started last
        eventually(lambda: pid.exists() and pid.read_text(), "the simulator is started", 120)
        started = descendants(process.pid)
        os.kill(int(pid.read_text()), signal.SIGKILL)
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
