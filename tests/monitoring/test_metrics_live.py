"""Rules and dashboards look at what Flink and the API really tell."""

from __future__ import annotations

import pytest
import yaml

from tests.monitoring.conftest import ORDERS, Scraped
from tests.monitoring.watched import ROOT, Tree, unknown

pytestmark = pytest.mark.stack

REPOSITORY = Tree()
# Recorded by a rule of whoever deploys, who knows the jobs (docs/monitoring.md).
OF_OPERATORS = {"pipeline:expected"}


def test_every_metric_and_label_that_is_asked_for_is_told(scraped: Scraped) -> None:
    emitted = scraped.emitted()
    recorded = REPOSITORY.recorded() | OF_OPERATORS
    assert unknown(REPOSITORY.expressions(), recorded, emitted) == []
    assert sum(name.startswith("flink_") for name in emitted) > 100
    assert {"streamforge_ledger_records", "streamforge_pipeline_lag_records"} <= emitted.keys()


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("flink_jobmanager_job_upTime > 0", "nobody tells flink_jobmanager_job_upTime"),
        ('flink_jobmanager_job_uptime{job="x"}', "flink_jobmanager_job_uptime has no label job"),
        ("rate(streamforge_http_request_total[5m])", "nobody tells streamforge_http_request_total"),
        ("pipeline:lag_record", "nobody tells pipeline:lag_record"),
    ],
)
def test_a_metric_that_nobody_tells_is_found(scraped: Scraped, planted: str, found: str) -> None:
    assert unknown({"planted": planted}, REPOSITORY.recorded(), scraped.emitted()) == [f"planted: {found}"]


def test_flink_tells_the_job_s_own_name_and_nothing_of_beam_s_steps(scraped: Scraped) -> None:
    job_manager, task_manager, _ = scraped.pages()
    assert 'job_name="fraud-detector"' in job_manager
    assert 'job_name="fraud-detector"' in task_manager
    assert "fraud_detector" not in job_manager + task_manager
    assert "operator_ref_PCollection" not in task_manager
    assert "operator_fn_" not in task_manager


def test_the_counters_of_the_steps_are_told_those_of_faults_from_zero_on(scraped: Scraped) -> None:
    assert (scraped.counted("records_in") or 0) >= ORDERS.records
    assert scraped.counted("unexpected_errors") == 0
    assert scraped.counted("worker_deaths") == 0


def test_the_reporter_s_port_is_the_one_that_is_scraped() -> None:
    settings = yaml.safe_load((ROOT / "helm/streamforge/files/flink-metrics.yaml").read_text())
    assert all(isinstance(value, str) for value in settings.values()), "Flink's operator takes strings only"
    scrapes = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yaml").read_text())["scrape_configs"]
    [flink] = [each for each in scrapes if each["job_name"] == "streamforge-flink"]
    assert str(flink["dns_sd_configs"][0]["port"]) == settings["metrics.reporter.prom.port"]
