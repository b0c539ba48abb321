"""A job on a Flink that reports, and an API that sees its topic and its store: what Prometheus would scrape."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bench.orders import Spec
from cdc.slots import Slot, exposition
from schemas.store_keys import KEYS
from stack import Stack
from stack.flink import Cluster
from stack.ports import pick_free
from stack.service import fetch_url
from tests import live, server
from tests.monitoring.watched import OF_PROMETHEUS, ROOT
from tests.serving.conftest import alert
from tests.store import write

ORDERS = Spec(orders=3_000, users=400, duplicates=30)
_STARTED = re.compile(r"Started PrometheusReporter HTTP server on port (\d+)")


class Scraped(NamedTuple):
    """Where to scrape."""

    cluster: Cluster
    pool: live.Workers
    job_id: str
    flink: tuple[str, ...]
    api: str

    def counted(self, name: str) -> float | None:
        """A counter of the job's steps, of all its operators; None where nobody tells it."""
        wanted = f"flink_taskmanager_job_task_operator_streamforge_{name}"
        families = (f for page in self.pages() for f in text_string_to_metric_families(page) if f.name == wanted)
        values = [sample.value for family in families for sample in family.samples]
        return sum(values) if values else None

    def pages(self) -> list[str]:
        """What each of them answers."""
        pages = [fetch_url(f"http://{address}/metrics", timeout_s=20) for address in (*self.flink, self.api)]
        assert all(pages), "one of them does not answer"
        return [page.decode() for page in pages if page]

    def emitted(self) -> dict[str, set[str]]:
        """Every metric with the labels that all its samples have, with what Prometheus and the slots' server tell."""
        found = {name: set(labels) for name, labels in OF_PROMETHEUS.items()}
        slot = Slot("streamforge", "shop", active=True, wal_status="reserved", lag_bytes=0, retained_bytes=0)
        for page in (*self.pages(), exposition([slot], {"orders": True})):
            for family in text_string_to_metric_families(page):
                for sample in family.samples:
                    labels = found.setdefault(sample.name, set(sample.labels))
                    labels &= set(sample.labels)
        return found


def reporter() -> dict[str, str]:
    """Flink's settings as the chart has them, but for the port: here several processes share a host."""
    settings = yaml.safe_load((ROOT / "helm/streamforge/files/flink-metrics.yaml").read_text())
    return {**settings, "metrics.reporter.prom.port": ",".join(str(pick_free()) for _ in range(4))}


@pytest.fixture(scope="module")
def scraped(live_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    folder = tmp_path_factory.mktemp("scraped")
    live.fill_with_orders(live_stack, "scraped.orders", ORDERS)
    url = live_stack.redis_url.rpartition("/")[0] + "/9"
    with (
        Cluster(folder / "flink", slots=4, checkpoints=folder / "state", config=reporter()) as cluster,
        live.workers() as pool,
        live.job(
            *live.on_cluster(cluster, pool, folder),
            *live.addresses(live_stack, "scraped.orders", url),
            folder=folder / "job",
        ) as job,
        server.running(
            url, "--kafka", live_stack.address("kafka"), f"--batch_report={_reports(folder)}", tmp_path=folder
        ) as api,
    ):
        job_id = live.running_job(cluster.rest_url, 300)
        job.wait_for_ledger(ORDERS.records)
        live.eventually(lambda: live.completed_checkpoints(cluster.rest_url, job_id), "a checkpoint")
        _fill(url)
        scraped = Scraped(cluster, pool, job_id, tuple(_ports(folder / "flink/logs")), f"127.0.0.1:{api.port}")
        live.eventually(lambda: b"pipeline_lag_records{" in (fetch_url(f"http://{scraped.api}/metrics") or b""), "lag")
        yield scraped


def _reports(folder: Path) -> Path:
    """Of the daily batch."""
    said = {"day": "2026-11-22", "at": "2026-11-23T03:40:00+00:00"}
    for name, about in (("reconciliation", {"passed": True}), ("published", {"done": True, "newest": "2026-11-22"})):
        (folder / f"{name}.status.json").write_text(json.dumps(said | about))
    return folder


def _fill(url: str) -> None:
    """What the orders of the job, which are old, do not bring into the store."""
    now_ms = int(time.time() * 1000)
    write(url, [alert(time_ms=now_ms)])
    with redis.Redis.from_url(url) as store:
        store.hset(KEYS.freshness, mapping={"orders": now_ms, "revenue": now_ms, "sessions": now_ms})
        for minute in range(-3, 30):
            start_ms = now_ms - now_ms % 60_000 + minute * 60_000
            store.hset(KEYS.revenue_minute("TRY", start_ms), "total:*", f"1 12345 7 5 1 {start_ms + 60_000}")
            store.zadd(KEYS.currencies, {"TRY": start_ms})


def _ports(logs: Path) -> Iterator[str]:
    for log in sorted(logs.glob("*.log")):
        [port] = _STARTED.findall(log.read_text(errors="replace"))
        yield f"127.0.0.1:{port}"
