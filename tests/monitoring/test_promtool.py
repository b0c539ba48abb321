"""Prometheus's own tool reads the rules, runs their unit tests, and finds what is planted. Needs Debian's package."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests.monitoring.watched import ROOT, Tree
from tests.tools import tool

pytestmark = pytest.mark.deploy

REPOSITORY = Tree()
RULES = sorted(REPOSITORY.rules.glob("*.yaml"))
UNIT_TESTS = sorted(REPOSITORY.unit_tests.glob("*.yaml"))


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool("promtool"), *words], capture_output=True, text=True, check=False, timeout=120)


def test_the_rules_are_right_and_promtool_has_nothing_to_say() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") == len(RULES) >= 3


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    config = (ROOT / "docker/prometheus/prometheus.yaml").read_text()
    there = "/etc/prometheus/rules"
    assert there in config
    (tmp_path / "prometheus.yaml").write_text(config.replace(there, str(REPOSITORY.rules)))
    done = promtool("check", "config", tmp_path / "prometheus.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rule files found" in done.stdout


@pytest.mark.parametrize("file", UNIT_TESTS, ids=lambda path: path.stem)
def test_the_alert_fires_when_it_must_and_only_then(file: Path) -> None:
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_panel_s_promql_is_understood(tmp_path: Path) -> None:
    expressions = REPOSITORY.expressions()
    assert len(expressions) > 80
    rules = [{"record": f"parsed:{n}", "expr": expression} for n, expression in enumerate(expressions.values())]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    done = promtool("check", "rules", tmp_path / "all.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(pipeline:uptime_seconds > 0)", "(pipeline:uptime_seconds > 0"),
        ("min_over_time(pipeline:restarts[30m])", "min_over_time(pipeline:restarts)"),
        ("min_over_time(pipeline:restarts[30m])", "minimum_over_time(pipeline:restarts[30m])"),
        ("for: 15m", "for: soon"),
        ("{{ $labels.pipeline }} is not running", "{{ $labels.pipeline is not running"),
        ("{{ $value | humanizeDuration }}", "{{ $value | inWords }}"),
        ("alert: StreamForgeJobDown", "alarm: StreamForgeJobDown"),
    ],
)
def test_a_rule_that_cannot_be_right_is_refused(tmp_path: Path, old: str, new: str) -> None:
    text = (REPOSITORY.rules / "pipelines.yaml").read_text()
    assert old in text
    (tmp_path / "pipelines.yaml").write_text(text.replace(old, new, 1))
    assert promtool("check", "rules", tmp_path / "pipelines.yaml").returncode != 0


@pytest.mark.parametrize(
    ("alert", "changes"),
    [
        ("StreamForgeJobDown", [("for: 5m", "for: 6m")]),
        ("StreamForgeJobDown", [("(pipeline:uptime_seconds > 0)", "(pipeline:uptime_seconds > -2)")]),
        ("StreamForgeJobRestarting", [("min_over_time(pipeline:restarts[30m]) > 3", "0 > 3")]),
        ("StreamForgeCheckpointOld", [("checkpoint_age_seconds > 600", "checkpoint_age_seconds > 800")]),
        ("StreamForgeCheckpointLarge", [("pipeline:checkpoint_size_bytes > ", "pipeline:checkpoint_size_bytes >= ")]),
        ("StreamForgeLagGrowing", [(" and pipeline:lag_records >= pipeline:lag_records offset 10m", "")]),
        ("StreamForgeWatermarkDelayed", [("delay_seconds > 300 and pipeline:lag_records > 0", "delay_seconds > 300")]),
        ("StreamForgeDeadLetters", [('{outcome="in"} >= 1000', '{outcome="in"} >= 0')]),
        (
            "StreamForgeDeadLetters",
            [("ledger_records - min_over_time(pipeline:ledger_records[30m])", "ledger_records * 1")],
        ),
        (
            "StreamForgeLedgerUnbalanced",
            [
                ("abs(sum without (outcome)", "clamp_min(sum without (outcome)"),
                ('{outcome!="in"})),', '{outcome!="in"}), 0),'),
            ],
        ),
        ("StreamForgeTopicTruncated", [("truncated_partitions > 0", "truncated_partitions > 1")]),
        ("StreamForgeStoreStale", [("orders|revenue|sessions", ".*")]),
        ("StreamForgeApiErrorsFast", [("> 14.4 * 0.001", "> 14 * 0.001")]),
        ("StreamForgeApiErrorsFast", [('status=~"5.."', 'status!="200"')]),
        ("StreamForgeApiLatencySlow", [("slow:ratio_rate3d > 1 * 0.01", "slow:ratio_rate3d > 2 * 0.01")]),
        ("StreamForgeDayRefused", [("for: 30m", "for: 5m")]),
        ("StreamForgeDayMissing", [("> 60 * 3600", "> 48 * 3600")]),
        (
            "StreamForgeDayMissing",
            [("max(streamforge_batch_report_readable)", "min(streamforge_batch_report_readable)")],
        ),
        ("StreamForgeReplicationSlotUnread", [(" unless streamforge_replication_slot_lost == 1", "")]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_threshold_fails_the_alert_s_unit_test(
    tmp_path: Path, alert: str, changes: Sequence[tuple[str, str]]
) -> None:
    copy = Tree(tmp_path)
    shutil.copytree(REPOSITORY.rules, copy.rules)
    shutil.copytree(REPOSITORY.unit_tests, copy.unit_tests)
    file = copy.unit_tests / f"{alert}.yaml"
    assert promtool("test", "rules", file).returncode == 0
    for old, new in changes:
        found = [path for path in sorted(copy.rules.glob("*.yaml")) if old in path.read_text()]
        assert found, old
        for path in found:
            path.write_text(path.read_text().replace(old, new))
    assert promtool("check", "rules", *sorted(copy.rules.glob("*.yaml"))).returncode == 0, "wrong, but a rule"
    assert promtool("test", "rules", file).returncode != 0
