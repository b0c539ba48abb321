"""The alerts' files, as far as one sees without Prometheus: test_promtool.py has the rest."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from serving import metrics
from serving.store import JOBS
from tests.monitoring.watched import ROOT, Tree, faults
from transforms import in_hand, isolate

REPOSITORY = Tree()
COPIED = ("helm/streamforge/files", "docs/alerts", "tests/monitoring/rules")


@pytest.fixture
def copy(tmp_path: Path) -> Tree:
    for folder in COPIED:
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return Tree(tmp_path)


def test_every_alert_has_a_page_a_panel_a_severity_and_a_unit_test_and_nothing_is_left_over() -> None:
    assert faults(REPOSITORY) == []
    assert len(REPOSITORY.alerts()) >= 20


def in_file(path: str, old: str, new: str) -> Callable[[Tree], None]:
    def plant(tree: Tree) -> None:
        file = tree.root / path
        text = file.read_text()
        assert text.count(old) >= 1, old
        file.write_text(text.replace(old, new, 1))

    return plant


def without(path: str) -> Callable[[Tree], None]:
    return lambda tree: (tree.root / path).unlink()


def renamed(path: str, to: str) -> Callable[[Tree], None]:
    return lambda tree: shutil.copy(tree.root / path, tree.root / to)


RULES = "helm/streamforge/files/rules"


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (without("docs/alerts/StreamForgeJobDown.md"), "StreamForgeJobDown: it has no page"),
        (
            in_file(f"{RULES}/pipelines.yaml", "docs/alerts/StreamForgeJobDown.md", "docs/alerts/StreamForgeJobUp.md"),
            "StreamForgeJobDown: it has no page",
        ),
        (without("tests/monitoring/rules/StreamForgeApiDown.yaml"), "StreamForgeApiDown: it has no unit test"),
        (
            in_file(
                "tests/monitoring/rules/StreamForgeReplicationSlotLost.yaml",
                "exp_samples: []",
                "exp_samples: [{labels: 'ALERTS{}'}]",
            ),
            "StreamForgeReplicationSlotLost: its unit test does not say both when it fires and when not",
        ),
        (
            in_file(f"{RULES}/pipelines.yaml", "pipeline }} is not running", "jbo }} is not running"),
            "StreamForgeJobDown: it never has the label jbo",
        ),
        (
            in_file(f"{RULES}/api.yaml", "/d/streamforge-api?viewPanel=3", "/d/streamforge-api?viewPanel=77"),
            "StreamForgeApiDown: no panel /d/streamforge-api?viewPanel=77",
        ),
        (
            in_file(f"{RULES}/api.yaml", "{severity: page}", "{severity: disaster}"),
            "StreamForgeApiDown: its severity is neither page nor ticket",
        ),
        (
            in_file(
                f"{RULES}/replication.yaml", "alert: StreamForgeReplicationSlotBehind", "alert: StreamForgeApiDown"
            ),
            "StreamForgeApiDown: twice",
        ),
        (
            renamed("docs/alerts/StreamForgeJobDown.md", "docs/alerts/StreamForgeGone.md"),
            "StreamForgeGone: a page of no alert",
        ),
    ],
)
def test_a_planted_fault_is_found(copy: Tree, plant: Callable[[Tree], None], found: str) -> None:
    assert faults(copy) == []
    plant(copy)
    assert found in faults(copy)


def test_the_objective_of_latency_is_a_bound_that_the_histogram_has() -> None:
    text = (ROOT / RULES / "api.yaml").read_text()
    bounds = set(re.findall(r'le="([\d.]+)"', text))
    assert bounds == {"0.1"}
    assert float(bounds.pop()) in metrics._BUCKETS_S


def test_a_share_of_a_gauge_that_may_begin_anew_is_never_a_rate() -> None:
    """See the head of pipelines.yaml."""
    gauges = "ledger_records|numRestarts|Checkpoints|checkpoints_completed|restarts"
    for where, expression in REPOSITORY.expressions().items():
        assert not re.search(rf"(rate|increase)\((\w|:)*({gauges})", expression), where


def test_the_jobs_counters_that_rules_ask_for_are_those_that_their_steps_count() -> None:
    asked = {n for text in REPOSITORY.expressions().values() for n in re.findall(r"_operator_(streamforge_\w+)", text)}
    counters = (isolate._COUNTER, in_hand._DEATHS)
    assert asked == {f"{each.metric_name.namespace}_{each.metric_name.name}" for each in counters}


def test_prometheus_keeps_the_jobs_names_and_asks_by_the_names_that_rules_use() -> None:
    config = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yaml").read_text())
    scraped = {each["job_name"]: each for each in config["scrape_configs"]}
    asked = {job for text in REPOSITORY.expressions().values() for job in re.findall(r'\bup\{job="([^"]+)"', text)}
    assert asked == {"streamforge-api"}
    assert scraped.keys() == {"streamforge-api", "streamforge-flink", "streamforge-slots"}
    assert scraped["streamforge-api"]["honor_labels"] is True


def test_flink_in_containers_reports_as_on_kubernetes() -> None:
    wanted = yaml.safe_load((ROOT / "helm/streamforge/files/flink-metrics.yaml").read_text())
    found = yaml.safe_load((ROOT / "docker/flink/config.yaml").read_text())
    assert {key: str(found.get(key)).lower() for key in wanted} == {key: text.lower() for key, text in wanted.items()}


def test_compose_has_what_prometheus_and_grafana_look_for_where_they_look() -> None:
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    scrapes = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yaml").read_text())["scrape_configs"]
    addresses = {t for s in scrapes for each in s.get("static_configs", []) for t in each["targets"]}
    addresses |= {f"{n}:{each['port']}" for s in scrapes for each in s.get("dns_sd_configs", []) for n in each["names"]}
    assert addresses == {"api:9090", "slots:9187", "jobmanager:9249", "taskmanager:9249"}
    assert {"jobmanager", "taskmanager"} <= services.keys()
    assert "--metrics_port=9090" in services["api"]["command"]
    assert "--port=9187" in services["slots"]["command"]
    mounted = {
        inside: (ROOT / "docker" / outside).resolve()
        for name in ("prometheus", "grafana")
        for outside, inside, *_ in (volume.split(":") for volume in services[name]["volumes"])
        if outside.startswith(".")
    }
    assert mounted["/etc/prometheus/rules"] == REPOSITORY.rules
    assert mounted["/etc/prometheus/prometheus.yaml"] == ROOT / "docker/prometheus/prometheus.yaml"
    assert mounted["/etc/grafana/provisioning"] == ROOT / "docker/grafana/provisioning"
    assert mounted["/var/lib/grafana/dashboards"] == REPOSITORY.dashboards


def test_jobs_that_rules_name_are_jobs_that_exist() -> None:
    named = {name for text in REPOSITORY.expressions().values() for name in re.findall(r'pipeline="([^"]+)"', text)}
    assert named == {"cdc-processor"}
    assert named <= set(JOBS)


def test_the_table_of_alerts_has_each_with_its_severity() -> None:
    rows = re.findall(
        r"^\| \[(\w+)\]\(alerts/\1\.md\) \| (\w+) \|", (ROOT / "docs/monitoring.md").read_text(), re.MULTILINE
    )
    assert sorted(rows) == sorted((rule["alert"], rule["labels"]["severity"]) for rule in REPOSITORY.alerts())
