"""The real Prometheus, with the project's configuration and rules, on a real Flink and a real API: it fires when a job
is cancelled. Needs Debian's package."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cdc.slots import Slot, exposition, serve
from stack import Stack
from stack.ports import pick_free
from stack.service import fetch_url
from tests.live import cancel, eventually, fill_with_orders
from tests.monitoring.conftest import ORDERS, Scraped
from tests.monitoring.watched import ROOT, Tree, filled_in
from tests.tools import tool

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(400)]

SLOT = Slot("streamforge", "shop", active=True, wal_status="reserved", lag_bytes=7, retained_bytes=9)


# What there is none of while all is well, or in the first minute.
EMPTY = {
    "streamforge-pipelines, Alerts",
    "streamforge-pipelines, Dead letters, share of 30 minutes",
    "streamforge-pipelines, Late records, share of 30 minutes",
    "streamforge-api, Answers without a server error, three days",
    "streamforge-api, Error budget burn rate",
    "streamforge-api, Slow-answer budget burn rate",
}


def shown() -> Iterator[tuple[str, str]]:
    """Panel and expression."""
    for uid, panel in Tree().panels():
        for target in panel["targets"]:
            yield f"{uid}, {panel['title']}", filled_in(target["expr"])


class Prometheus:
    def __init__(self, address: str):
        self.address = address

    def ask(self, path: str, **parameters: str) -> Any:
        answer = fetch_url(f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        assert answer, path
        return json.loads(answer)["data"]

    def value(self, expression: str) -> float | None:
        found = self.ask("query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> dict[str, dict[str, Any]]:
        alerts = self.ask("alerts")["alerts"]
        return {alert["labels"]["alertname"]: alert for alert in alerts if alert["state"] == "firing"}


@pytest.fixture
def prometheus(scraped: Scraped, tmp_path: Path) -> Iterator[Prometheus]:
    """As configured, but for the targets, and quick: everything each second, and an alert after two."""
    slots, port = pick_free(), pick_free()
    threading.Thread(
        target=serve, args=("127.0.0.1", slots, lambda: exposition([SLOT], {"orders": True})), daemon=True
    ).start()
    targets = {
        "streamforge-api": [scraped.api],
        "streamforge-flink": list(scraped.flink),
        "streamforge-slots": [f"127.0.0.1:{slots}"],
    }
    config = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(tmp_path / "rules/*.yaml")]
    for scrape in config["scrape_configs"]:
        scrape.pop("dns_sd_configs", None)
        scrape["static_configs"] = [{"targets": targets.pop(scrape["job_name"])}]
    assert not targets
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "rules").mkdir()
    for file in Tree().rules.glob("*.yaml"):
        (tmp_path / "rules" / file.name).write_text(re.sub(r"for: \d+m", "for: 2s", file.read_text()))
    process = subprocess.Popen(
        [
            tool("prometheus"),
            f"--config.file={tmp_path / 'prometheus.yaml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stderr=(tmp_path / "log").open("wb"),
    )
    try:
        address = f"127.0.0.1:{port}"
        eventually(lambda: fetch_url(f"http://{address}/-/ready"), "a Prometheus that is ready")
        yield Prometheus(address)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()


def test_the_death_of_a_worker_is_counted_where_it_is_scraped(scraped: Scraped, live_stack: Stack) -> None:
    os.kill(scraped.pool.pids()[0], signal.SIGKILL)

    def counted() -> bool:
        # A worker of the restarted job counts it, with the next block that it decodes.
        fill_with_orders(live_stack, "scraped.orders", ORDERS, 0, 20)
        return (scraped.counted("worker_deaths") or 0) >= 1

    eventually(counted, "the death in a scrape", 300, every_s=2)
    assert "died: SIGKILL" in scraped.pool.log


def test_a_cancelled_job_pages_and_nothing_did_before(prometheus: Prometheus, scraped: Scraped) -> None:
    def all_up() -> bool:
        targets = prometheus.ask("targets")["activeTargets"]
        return len(targets) == 4 and all(target["health"] == "up" for target in targets)

    eventually(all_up, "all targets up", 60)
    eventually(lambda: prometheus.value('pipeline:uptime_seconds{pipeline="fraud-detector"} > 0'), "the job's uptime")
    eventually(
        lambda: prometheus.value('pipeline:checkpoint_age_seconds{pipeline="fraud-detector"} < 60') is not None,
        "a checkpoint that is seen to complete",
    )
    assert prometheus.value('pipeline:lag_records{pipeline="fraud-detector"}') == 0
    assert prometheus.value('pipeline:ledger_records{pipeline="fraud-detector",outcome="in"}') == 3_030
    assert prometheus.value("max(pipeline:ledger_imbalance_records)") == 0
    assert prometheus.value("streamforge_replication_slot_lag_bytes") == 7
    assert prometheus.firing() == {}
    empty = {where for where, expression in shown() if not prometheus.ask("query", query=expression)["result"]}
    assert empty <= EMPTY

    cancel(scraped.cluster.rest_url, scraped.job_id)
    alert = eventually(lambda: prometheus.firing().get("StreamForgeJobDown"), "the alert", 60)
    assert alert["labels"] == {"alertname": "StreamForgeJobDown", "pipeline": "fraud-detector", "severity": "page"}
    assert alert["annotations"]["summary"] == "fraud-detector is not running"
    assert alert["annotations"]["dashboard_url"].endswith("var-pipeline=fraud-detector")
    groups = prometheus.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(Tree().all_rules())
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
