"""Alerts and recording rules, as their files have them, and the jobs that should run, as the values have them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.helm.chart import CHART, render

pytestmark = pytest.mark.deploy

FILES = sorted((CHART / "files" / "rules").glob("*.yaml"))


def test_each_file_is_an_object_and_not_a_letter_of_it_is_changed() -> None:
    assert FILES
    found = render().all("PrometheusRule")
    assert found.keys() == {f"streamforge-{path.stem}" for path in FILES} | {"streamforge-expected"}
    for path in FILES:
        spec = found[f"streamforge-{path.stem}"]["spec"]
        assert spec == yaml.safe_load(path.read_text())
        assert spec["groups"]
    assert "{{ $" in "".join(path.read_text() for path in FILES), "Prometheus' own templates are among what is kept"


def expected(values: Any) -> set[str]:
    (group,) = render("prod", values).one("PrometheusRule", "streamforge-expected")["spec"]["groups"]
    assert {(rule["record"], rule["expr"]) for rule in group["rules"]} <= {("pipeline:expected", "vector(1)")}
    return {rule["labels"]["pipeline"] for rule in group["rules"]}


def test_the_jobs_that_should_run_are_those_that_are_on() -> None:
    everything = set(render().all("FlinkDeployment"))
    assert expected({}) == everything
    off = {"jobs": {"cdc": {"enabled": False}, "archive": {"state": "suspended"}}}
    assert expected(off) == everything - {"cdc-processor", "archiver"}
    assert expected({"jobDefaults": {"state": "suspended"}}) == set()


def test_alerts_ask_for_the_jobs_that_should_run() -> None:
    assert any("pipeline:expected" in path.read_text() for path in FILES)


def test_prometheus_finds_them_by_their_labels() -> None:
    for rule in render().all("PrometheusRule").values():
        assert rule["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_they_can_be_left_out() -> None:
    assert not render("prod", {"monitoring": {"rules": False}}).all("PrometheusRule")
    assert not render("dev").all("PrometheusRule")
