"""Dashboards, as their files have them."""

from __future__ import annotations

import json

import pytest

from tests.helm.chart import CHART, render

pytestmark = pytest.mark.deploy

FILES = sorted((CHART / "files" / "dashboards").glob("*.json"))
MOST_BYTES = 1_000_000  # of a ConfigMap


def test_each_file_is_a_config_map_that_grafana_looks_for() -> None:
    assert FILES
    found = render("prod", {"monitoring": {"dashboardLabel": "team_dashboard"}}).all("ConfigMap")
    assert found.keys() == {f"streamforge-dashboard-{path.stem}" for path in FILES}
    for path in FILES:
        config_map = found[f"streamforge-dashboard-{path.stem}"]
        assert config_map["metadata"]["labels"]["team_dashboard"] == "1"
        assert config_map["data"] == {path.name: path.read_text()}
        assert json.loads(config_map["data"][path.name])["panels"]
        assert len(path.read_bytes()) < MOST_BYTES


def test_they_can_be_left_out() -> None:
    for environment, values in (("prod", {"monitoring": {"dashboards": False}}), ("dev", {})):
        assert not [n for n in render(environment, values).all("ConfigMap") if "dashboard" in n]
