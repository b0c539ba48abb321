"""Grafana's dashboards: as their Python writes them, and readable."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest
import yaml

from tests.monitoring.watched import ROOT, Tree

REPOSITORY = Tree()


@pytest.fixture(scope="module")
def written() -> ModuleType:
    path = ROOT / "docker/grafana/dashboards.py"
    spec = importlib.util.spec_from_file_location("dashboards", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_files_are_what_python_writes(written: ModuleType) -> None:
    kept = {path.name: path.read_text() for path in written.FOLDER.glob("*.json")}
    assert kept.keys() == {"pipelines.json", "api.json", "business.json"}
    assert written.dashboards() == kept, "run: make generate"


def test_every_panel_says_what_it_shows_in_which_unit_and_of_what() -> None:
    panels = list(REPOSITORY.panels())
    assert len(panels) > 30
    for uid, panel in panels:
        where = f"{uid} {panel['title']}"
        assert len(panel["description"]) > 10, where
        assert panel["fieldConfig"]["defaults"]["unit"], where
        assert panel["datasource"]["uid"] == "${datasource}", where
        assert panel["targets"], where
        assert all(target["legendFormat"] for target in panel["targets"]), where
    legends = {target["legendFormat"] for _, panel in panels for target in panel["targets"]}
    assert {"p50", "p99"} <= legends


def test_numbers_of_panels_are_one_each() -> None:
    for uid, board in REPOSITORY.boards().items():
        numbers = [panel["id"] for panel in board["panels"]]
        assert len(set(numbers)) == len(numbers), uid


def test_a_limit_that_is_drawn_is_that_of_the_alert_which_links_there() -> None:
    limits = {
        (uid, panel["id"]): panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"]
        for uid, panel in REPOSITORY.panels()
        if "thresholds" in panel["fieldConfig"]["defaults"]
    }
    drawn = {
        "StreamForgeJobRestarting": "> 3",
        "StreamForgeCheckpointOld": "> 600",
        "StreamForgeCheckpointSlow": "> 120",
        "StreamForgeCheckpointLarge": "> 5 * 1024 * 1024 * 1024",
        "StreamForgeLagGrowing": "> 100000",
        "StreamForgeWatermarkDelayed": "> 300",
        "StreamForgeDeadLetters": "> 0.01",
        "StreamForgeLateRecords": "> 0.05",
        "StreamForgeLedgerStands": "> 300",
        "StreamForgeStoreStale": "> 900",
        "StreamForgeApiErrorsFast": "> 14.4",
        "StreamForgeApiLatencyFast": "> 14.4",
        "StreamForgeApiStoreErrors": "> 0.1",
        "StreamForgeReplicationSlotBehind": "> 1024 * 1024 * 1024",
        "StreamForgeReplicationSlotKeepsWal": "> 10 * 1024 * 1024 * 1024",
    }
    alerts = {rule["alert"]: rule for rule in REPOSITORY.alerts()}
    for name, limit in drawn.items():
        rule = alerts[name]
        found = re.fullmatch(r"/d/([\w-]+)\?viewPanel=(\d+).*", rule["annotations"]["dashboard_url"])
        assert found
        factors = [float(factor) for factor in limit.removeprefix("> ").split(" * ")]
        product = 1.0
        for factor in factors:
            product *= factor
        assert limit in rule["expr"], name
        assert limits[found[1], int(found[2])] == product, name


def test_grafana_is_told_where_they_are_and_by_which_name_to_call_prometheus() -> None:
    folder = ROOT / "docker/grafana/provisioning"
    [provider] = yaml.safe_load((folder / "dashboards/streamforge.yaml").read_text())["providers"]
    [source] = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text())["datasources"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
