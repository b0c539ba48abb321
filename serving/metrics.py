"""Prometheus metrics: rate, errors and duration per route, the store's errors, and the jobs' state from the store.

prometheus-flask-exporter, extended: it registers and answers /metrics. With several processes it exposes only their
files, so `generate_metrics` adds what is computed at each scrape. Requests are counted in `serving.app`: the exporter's
hooks cost 2.7 times as much, and its counter has another name and no route (docs/adr/0045-exporter.md has the figures).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from flask import current_app
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from prometheus_flask_exporter import PrometheusMetrics

from serving.batch import BatchReport
from serving.progress import Progress
from serving.store import Readings, Store, StoreUnavailable

__all__ = ["Metrics"]

_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

# The second series it drops, per counter, tells nothing that a counter's reset does not.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics(PrometheusMetrics):  # type: ignore[misc] # which has no types
    """The metrics of one app; `register_endpoint` gives it the address where they are.

    Args:
      declared: what the address's view is wrapped in.
      batch_report: folder of the daily batch's reports, if they are to be told of.
      shared_dir: where the worker processes of a server keep their numbers; the answer is then the same from each.
        `PROMETHEUS_MULTIPROC_DIR` must have held the same folder when prometheus_client was imported.
    """

    def __init__(
        self,
        shared_dir: Path | None = None,
        batch_report: str | None = None,
        declared: Callable[..., object] | None = None,
    ):
        registry = CollectorRegistry()
        super().__init__(None, export_defaults=False, metrics_decorator=declared, registry=registry)
        self._shared_dir = shared_dir
        self._batch = None if batch_report is None else BatchReport(batch_report)
        self._in_flight_of: dict[tuple[str, str], Gauge] = {}
        self._answers: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._requests = Counter(
            "streamforge_http_requests",
            "HTTP requests answered.",
            ("method", "endpoint", "status"),
            registry=registry,
        )
        self._duration_s = Histogram(
            "streamforge_http_request_duration_seconds",
            "Time from a request to its answer.",
            ("method", "endpoint", "status"),
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._in_flight = Gauge(
            "streamforge_http_requests_in_flight",
            "HTTP requests being answered now.",
            ("method", "endpoint"),
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.redis_errors = Counter(
            "streamforge_redis_errors",
            "Reads that failed because Redis did not answer as it should.",
            registry=registry,
        )
        self.redis_connections = Gauge(
            "streamforge_redis_connections",
            "Open connections to Redis.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.rate_limit_failures = Counter(
            "streamforge_rate_limit_failures",
            "Times that counting requests against --rate_limit failed, so that none was limited.",
            registry=registry,
        )
        self.fraud_alerts_served = Counter(
            "streamforge_fraud_alerts_served", "Fraud alerts in answers.", registry=registry
        )

    def declare(self, routes: Iterable[str]) -> None:
        """From zero, so that the first request is an increase."""
        for route in routes:
            self.in_flight("GET", route)
            self._answers_of("GET", route, 200)

    def in_flight(self, method: str, route: str) -> Gauge:
        """How many requests there are now; the caller counts."""
        key = _known(method), route
        gauge = self._in_flight_of.get(key)
        if gauge is None:
            gauge = self._in_flight_of[key] = self._in_flight.labels(*key)
        return gauge

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        requests, duration_s = self._answers_of(method, route, status)
        requests.inc()
        duration_s.observe(seconds)

    def _answers_of(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        """Kept here: `labels` takes longer than counting."""
        key = _known(method), route, status
        answers = self._answers.get(key)
        if answers is None:
            labels = (key[0], route, str(status))
            answers = self._answers[key] = self._requests.labels(*labels), self._duration_s.labels(*labels)
        return answers

    def generate_metrics(self, accept_header: str | None = None, names: list[str] | None = None) -> tuple[bytes, str]:  # noqa: ARG002 - the exporter passes them; a scrape is whole
        """What the exporter answers at its address."""
        reach = current_app.extensions
        return self.scrape(accept_header or "", reach["streamforge.store"], reach["streamforge.progress"]())

    def scrape(self, accept: str, store: Store, progress: Mapping[str, Progress]) -> tuple[bytes, str]:
        """As `exposition`, with what the store tells; without when the store is away, whose errors must be told."""
        try:
            readings = store.readings()
        except StoreUnavailable:
            readings = None
        return self.exposition(accept, readings, progress)

    def exposition(self, accept: str, readings: Readings | None, progress: Mapping[str, Progress]) -> tuple[bytes, str]:
        """Body and content type of a scrape."""
        encode, content_type = choose_encoder(accept)
        registry = CollectorRegistry()
        if self._shared_dir is None:
            registry.register(self.registry)
        else:
            _forget_dead_workers(self._shared_dir)
            MultiProcessCollector(registry, str(self._shared_dir))  # type: ignore[no-untyped-call]
        registry.register(_Readings(readings))
        registry.register(_Progress(progress))
        if self._batch is not None:
            registry.register(self._batch)
        return encode(registry), content_type


class _Readings(Collector):
    """Absent when the store does not answer: an old number would hide that.

    Gauges, the ledgers too: a job that begins anew begins its ledger anew, and a counter's reset would count what was
    in it a second time.
    """

    def __init__(self, readings: Readings | None):
        self._readings = readings

    def collect(self) -> Iterable[Metric]:
        known = self._readings
        freshness = _gauge(
            "feature_freshness_seconds", "Now minus the newest event time in the online store.", "family"
        )
        ledger = _gauge("ledger_records", "Records in a job's ledger, by outcome.", "job", "outcome")
        lost = _gauge("ledger_lost_records", "Records that Kafka deleted before a job read them.", "job")
        ignored = _gauge("ledger_ignored_messages", "Messages that a job's mapping ignores, as none of its own.", "job")
        age = _gauge("ledger_age_seconds", "Time since a job last wrote its ledger.", "job")
        sessions = _gauge("sessions_open", "Sessions in progress.")
        alerts = _gauge("fraud_alerts_recent", "Fraud alerts of the last five minutes, at most 1,000.", "alert_type")
        about = "Revenue, in main units, of the newest minute that ended at least a minute ago."
        gmv = _gauge("revenue_minute_gmv", about, "currency")
        orders = _gauge("revenue_minute_orders", "Orders in that minute.", "currency")
        users = _gauge("revenue_minute_users", "Users who ordered in that minute.", "currency")
        if known:
            for family, seconds in known.freshness_s.items():
                freshness.add_metric([family], seconds)
            for job, counts in known.ledgers.items():
                for outcome, records in counts.items():
                    ledger.add_metric([job, outcome], records)
            for job, records in known.lost.items():
                lost.add_metric([job], records)
            for job, messages in known.ignored.items():
                ignored.add_metric([job], messages)
            for job, seconds in known.ledger_age_s.items():
                age.add_metric([job], seconds)
            sessions.add_metric([], known.open_sessions)
            for kind, number in known.recent_alerts.items():
                alerts.add_metric([kind], number)
            for currency, minute in known.minutes.items():
                gmv.add_metric([currency], minute.gmv)
                orders.add_metric([currency], minute.orders)
                users.add_metric([currency], minute.users)
        yield from (freshness, ledger, lost, ignored, age, sessions, alerts, gmv, orders, users)


def _gauge(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"streamforge_{name}", about, labels=labels)


class _Progress(Collector):
    """Absent for what Kafka does not tell."""

    def __init__(self, progress: Mapping[str, Progress]):
        self._progress = progress

    def collect(self) -> Iterable[Metric]:
        lag = _gauge("pipeline_lag_records", "Records that a job has not read yet, over all its partitions.", "job")
        delay = _gauge(
            "pipeline_watermark_delay_seconds",
            "Now minus the smallest watermark of a job's partitions.",
            "job",
        )
        partitions = _gauge("pipeline_partitions", "Partitions that a job reads.", "job", "topic")
        empty = _gauge("pipeline_empty_partitions", "Those of them that hold no records.", "job", "topic")
        about = "Those of them that end before the offset that the job committed."
        truncated = _gauge("pipeline_truncated_partitions", about, "job", "topic")
        for job, (records, delay_s, topics) in self._progress.items():
            lag.add_metric([job], records)
            if delay_s is not None:
                delay.add_metric([job], delay_s)
            for name, topic in topics.items():
                partitions.add_metric([job, name], topic.partitions)
                empty.add_metric([job, name], topic.empty_partitions)
                truncated.add_metric([job, name], topic.truncated_partitions)
        yield from (lag, delay, partitions, empty, truncated)


def _known(method: str) -> str:
    """A label with a bounded number of values, whatever a client sends."""
    return method if method in _METHODS else "other"


def _forget_dead_workers(shared_dir: Path) -> None:
    """A worker that was killed leaves its requests in flight for ever; its counters stay, they happened."""
    for file in shared_dir.glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid, str(shared_dir))  # type: ignore[no-untyped-call]
        except PermissionError:
            continue
