"""The command that puts, activates and rolls back rules; on librdkafka's mock broker."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from beam_pipelines import rules
from tests.transforms.io.test_kafka_rules import TOPIC, mock_broker
from transforms.domain.rule_history import LEAD_MS, RuleHistory
from transforms.io.kafka.rules import RulesReader

Run = Callable[..., tuple[int, str, str]]
GOOD = "version: 1\ncurrency: TRY\nrules:\n  R: {kind: burst, orders: 3, within: 5m, risk_score: 0.9}\n"
STRICT = GOOD.replace("orders: 3", "orders: 2")


@pytest.fixture
def broker() -> Iterator[str]:
    with mock_broker() as address:
        yield address


@pytest.fixture
def run(broker: str, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: object) -> tuple[int, str, str]:
        status = rules.main([*map(str, arguments), f"--bootstrap_servers={broker}"])
        out, err = capsys.readouterr()
        return status, out, err

    return command


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    def made(text: str) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml"
        path.write_text(text)
        return path

    return made


def history(broker: str) -> RuleHistory:
    reader = RulesReader(broker, TOPIC)
    try:
        return reader.read()
    finally:
        reader.close()


def test_from_put_to_rollback(run: Run, file: Callable[[str], Path], broker: str) -> None:
    status, out, err = run("put", file(GOOD), "--who=ada", "--comment=the first")
    assert (status, err) == (0, "")
    assert out == "version 1 of rules.fraud; activate 1 puts it in force\n"
    assert run("put", file(STRICT), "--who=bob")[0] == 0
    assert run("show", 2)[1] == STRICT
    assert "-  R: {kind: burst, orders: 3" in run("diff", 1, 2)[1]
    assert json.loads(run("list", "--json")[1])["in_force"] == 0
    assert run("rollback")[0] == 2, "nothing was in force before"

    for number in (1, 2):
        before_ms = time.time_ns() // 1_000_000
        status, out, _ = run("activate", number, "--who=ada")
        assert status == 0
        assert out.startswith(f"version {number} holds for orders from ")
        assert history(broker).activations[-1].effective_from_ms >= before_ms + LEAD_MS
    listed = run("list")[1]
    assert "version   1  put" in listed
    assert "by ada" in listed
    assert "the first" in listed
    assert listed.count("scheduled") == 2
    found = json.loads(run("list", "--json")[1])
    assert [v["who"] for v in found["versions"]] == ["ada", "bob"]
    assert [a["version"] for a in found["activations"]] == [1, 2]
    assert found["void"] == []


def test_a_rollback_puts_in_force_what_was_so_before(
    run: Run, file: Callable[[str], Path], broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("put", file(GOOD))
    run("put", file(STRICT))
    run("activate", 1)
    run("activate", 2)
    later_ms = history(broker).activations[-1].effective_from_ms + 1
    monkeypatch.setattr(rules, "_now_ms", lambda: later_ms)
    status, out, _ = run("rollback")
    assert status == 0
    assert out.startswith("from version 2 back to version 1\nversion 1 holds for orders from ")
    assert [a.version for a in history(broker).activations] == [1, 2, 1]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("version: 1\ncurrency: TRY\nrules: {}\n", "rules: at least one rule is needed"),
        (GOOD.replace("burst", "average"), "R: kind 'average' is not one of"),
        ("{", ""),
    ],
)
def test_a_wrong_file_never_gets_in(run: Run, file: Callable[[str], Path], broker: str, text: str, why: str) -> None:
    status, out, err = run("put", file(text))
    assert (status, out) == (2, "")
    assert err.startswith("rules: FILE: ")
    assert err.count("\n") == 1
    assert why in err
    assert history(broker) == RuleHistory()


def test_what_cannot_be_is_refused_in_one_line(
    run: Run, file: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("put", file(GOOD))
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    now_ms = time.time_ns() // 1_000_000
    monkeypatch.setattr(rules, "_now_ms", lambda: now_ms)
    soon = datetime.fromtimestamp(now_ms / 1000 + 2, UTC).isoformat()
    for arguments, why in (
        (["put", tmp_path / "none.yaml"], "FILE: [Errno 2] No such file or directory"),
        (["activate", 7], "N: there is no version 7; the newest is 1"),
        (["show", 0], "N: version 0 is what each job was started with"),
        (["activate", 1, f"--from={yesterday}"], "--from: is in the past"),
        (["activate", 1, f"--from={soon}"], "--from: is less than 5 s from now"),
        (["activate", 1, "--from=2026-11-27"], "is not a time with a zone"),
        (["activate", "one"], "is not the number of a version"),
    ):
        status, out, err = run(*arguments)
        assert (status, out) == (2, ""), arguments
        assert why in err
        assert err.count("\n") == 1


def test_a_version_is_scheduled_and_one_that_is_activated_before_does_not_last(
    run: Run, file: Callable[[str], Path], broker: str
) -> None:
    run("put", file(GOOD))
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert run("activate", 1, f"--from={tomorrow.isoformat()}")[0] == 0
    status, _, err = run("activate", 0)
    assert status == 0
    assert "but version 1 is scheduled from " in err
    at_ms = round(tomorrow.timestamp() * 1000)
    assert [history(broker).at(ms) for ms in (at_ms - 1, at_ms)] == [0, 1]


def test_people_who_put_at_the_same_time_each_get_a_number_of_their_own(
    broker: str, file: Callable[[str], Path]
) -> None:
    paths = [file(GOOD.replace("0.9", f"0.{n}")) for n in range(1, 5)]
    statuses: list[int] = []
    threads = [
        threading.Thread(
            target=lambda p: statuses.append(rules.main(["put", str(p), f"--bootstrap_servers={broker}"])), args=(p,)
        )
        for p in paths
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert statuses == [0] * 4
    found = history(broker)
    assert [*found.versions] == [1, 2, 3, 4]
    assert {v.text for v in found.versions.values()} == {p.read_text() for p in paths}


def test_a_broker_that_does_not_answer_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.io.kafka.rules._TIMEOUT_S", 0.5)
    assert rules.main(["list", "--bootstrap_servers=127.0.0.1:1"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("rules: topic rules.fraud at 127.0.0.1:1: ")
    assert err.count("\n") == 1
