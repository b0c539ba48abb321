"""What Prometheus scrapes, under the names that alerts and dashboards ask for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helm.chart import render

pytestmark = pytest.mark.deploy

SCRAPED = {"streamforge-api": "ServiceMonitor", "streamforge-flink": "PodMonitor", "streamforge-slots": "PodMonitor"}


def pod_templates(manifests: Any) -> list[dict[str, Any]]:
    found = [o["spec"]["template"] for o in manifests if "template" in o.get("spec", {})]
    return found + [o["spec"]["podTemplate"] for o in manifests.all("FlinkDeployment").values()]


@pytest.mark.parametrize(("job", "kind"), SCRAPED.items())
def test_a_monitor_finds_pods_that_have_the_port_and_calls_them_by_its_name(job: str, kind: str) -> None:
    manifests = render()
    monitor = manifests.one(kind, job)["spec"]
    (endpoint,) = monitor["endpoints" if kind == "ServiceMonitor" else "podMetricsEndpoints"]
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": job}]
    wanted = monitor["selector"]["matchLabels"]
    if kind == "ServiceMonitor":
        (service,) = [o for o in manifests.all("Service").values() if wanted.items() <= o["metadata"]["labels"].items()]
        assert endpoint["port"] in {p["name"] for p in service["spec"]["ports"]}
        wanted = service["spec"]["selector"]
    chosen = [t for t in pod_templates(manifests) if wanted.items() <= t["metadata"]["labels"].items()]
    assert len(chosen) == (5 if job == "streamforge-flink" else 1)
    for template in chosen:
        ports = {p["name"] for c in template["spec"]["containers"] for p in c.get("ports", [])}
        assert endpoint["port"] in ports


def test_prometheus_finds_the_monitors_by_their_labels() -> None:
    manifests = render("prod", {"monitoring": {"labels": {"release": "mine", "team": "a"}, "interval": "30s"}})
    for job, kind in SCRAPED.items():
        labels = manifests.one(kind, job)["metadata"]["labels"]
        assert (labels["release"], labels["team"]) == ("mine", "a")
        spec = manifests.one(kind, job)["spec"]
        (endpoint,) = spec.get("endpoints", spec.get("podMetricsEndpoints"))
        assert endpoint["interval"] == "30s"


def test_there_are_none_where_monitoring_is_off() -> None:
    kinds = {o["kind"] for o in render("dev")}
    assert not kinds & {"ServiceMonitor", "PodMonitor", "PrometheusRule"}


def test_without_the_exporter_nobody_looks_for_it() -> None:
    assert "streamforge-slots" not in render("prod", {"slots": {"enabled": False}}).all("PodMonitor")
