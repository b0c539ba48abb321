"""Alerts and recording rules, as their files have them."""

from __future__ import annotations

import pytest
import yaml

from tests.helm.chart import CHART, render

pytestmark = pytest.mark.deploy

FILES = sorted((CHART / "files" / "rules").glob("*.yaml"))


def test_each_file_is_an_object_and_not_a_letter_of_it_is_changed() -> None:
    assert FILES
    found = render().all("PrometheusRule")
    assert found.keys() == {f"streamforge-{path.stem}" for path in FILES}
    for path in FILES:
        spec = found[f"streamforge-{path.stem}"]["spec"]
        assert spec == yaml.safe_load(path.read_text())
        assert spec["groups"]
    assert "{{ $" in "".join(path.read_text() for path in FILES), "Prometheus' own templates are among what is kept"


def test_prometheus_finds_them_by_their_labels() -> None:
    for rule in render().all("PrometheusRule").values():
        assert rule["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_they_can_be_left_out() -> None:
    assert not render("prod", {"monitoring": {"rules": False}}).all("PrometheusRule")
    assert not render("dev").all("PrometheusRule")
