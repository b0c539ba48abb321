"""Our own job is held to the same account as the peers: its alerts are read from its output, its ledger is believed."""

import json
from pathlib import Path

import pytest

from bench import ours
from bench.measure import CommandFailed, Usage
from transforms.domain.fraud_rules import default_rules, parse_rules


def fake_job(counts: dict[str, int] | None, *alerts: tuple[str, str, str]):
    """Instead of running the command, writes what the job would have written."""

    def measure(command: list[str], log: Path, **_: object) -> Usage:
        flags = dict(word.removeprefix("--").split("=", 1) for word in command if "=" in word)
        if counts is not None:
            Path(flags["ledger"]).write_text(json.dumps(counts))
        table = Path(flags["output"]) / "fraud_alerts"
        table.mkdir(parents=True)
        for i, (rule, user, order) in enumerate(alerts):
            row = {"alert_id": str(i), "alert_type": rule, "user_id": user, "order_id": order}
            (table / f"part-{i % 2}.jsonl").open("a").write(json.dumps(row) + "\n")
        return Usage(12.5, 20.0, 900.0, '{"read_seconds": 4.5, "waited_seconds": 2.0}\n')

    return measure


LEDGER = {"in": 10, "good": 10, "dead_letters": 0, "late": 0, "duplicates": 0}


def run(folder: Path, workload: str = "hot"):
    return ours.run(workload, "127.0.0.1:1", "http://127.0.0.1:2", "orders", folder, records=10)


def test_alerts_of_all_parts_count_once(tmp_path, monkeypatch):
    found = [("RAPID_ORDERS", "u-2", "o-2"), ("LOCATION_ANOMALY", "u-1", "o-1"), ("RAPID_ORDERS", "u-2", "o-2")]
    monkeypatch.setattr(ours, "measure", fake_job(LEDGER, *found))
    result = run(tmp_path)
    assert result.alerts == ("LOCATION_ANOMALY u-1 o-1", "RAPID_ORDERS u-2 o-2")
    assert (result.events, result.seconds, result.read_seconds) == (10, 10.5, 4.5)


@pytest.mark.parametrize("refused", ["dead_letters", "late"])
def test_a_job_that_refuses_records_has_no_result(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(ours, "measure", fake_job({**LEDGER, "good": 9, refused: 1}))
    with pytest.raises(CommandFailed, match="records were refused"):
        run(tmp_path)


def test_a_job_without_a_ledger_has_no_result(tmp_path, monkeypatch):
    monkeypatch.setattr(ours, "measure", fake_job(None))
    with pytest.raises(CommandFailed, match="no ledger"):
        run(tmp_path)


def test_the_filter_workload_is_one_rule_of_the_defaults():
    one = parse_rules(ours._RULES_FILTER.read_text())
    names = {rule.name: rule for rule in default_rules().rules}
    assert [rule.name for rule in one.rules] == ["HIGH_VALUE_BURST"]
    assert one.rules[0] == names["HIGH_VALUE_BURST"]
