"""What Prometheus sees: rate, errors and duration per route, the store's errors, and how fresh the features are.

Plain prometheus_client, not prometheus-flask-exporter. Of its own metrics the counter is `…_http_request_total` without
the route, not the name that StreamForge promises; the ones it wraps around views miss requests that no route matches
(404, 405); and with several processes it exposes their files only, which leaves no place for what is computed at each
scrape (freshness).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import perf_counter

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

__all__ = ["Metrics"]

_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

# The second series it drops, per counter, tells nothing that a counter's reset does not.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The metrics of one app.

    Args:
      shared_dir: where the worker processes of a server keep their numbers; the answer is then the same from each.
        `PROMETHEUS_MULTIPROC_DIR` must have held the same folder when prometheus_client was imported.
    """

    def __init__(self, shared_dir: Path | None = None):
        self._shared_dir = shared_dir
        self._registry = registry = CollectorRegistry()
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
        self.fraud_alerts_served = Counter(
            "streamforge_fraud_alerts_served", "Fraud alerts in answers.", registry=registry
        )

    def watch(self, app: Flask) -> None:
        """Measures every request of the app; call it after the routes are registered."""
        for rule in app.url_map.iter_rules():  # from zero, so that the first request is an increase
            self._requests.labels("GET", rule.rule, "200")
            self._duration_s.labels("GET", rule.rule, "200")
            self._in_flight.labels("GET", rule.rule)

        @app.before_request
        def _begin() -> None:
            g.started = perf_counter()
            g.in_flight = self._in_flight.labels(*_method_and_endpoint())
            g.in_flight.inc()

        @app.after_request
        def _count(response: Response) -> Response:
            labels = (*_method_and_endpoint(), str(response.status_code))
            self._requests.labels(*labels).inc()
            self._duration_s.labels(*labels).observe(perf_counter() - g.started)
            return response

        @app.teardown_request
        def _end(_: BaseException | None) -> None:
            g.in_flight.dec()

    def exposition(self, accept: str, freshness_s: Mapping[str, float]) -> tuple[bytes, str]:
        """Body and content type of a scrape."""
        encode, content_type = choose_encoder(accept)
        registry = CollectorRegistry()
        if self._shared_dir is None:
            registry.register(self._registry)
        else:
            _forget_dead_workers(self._shared_dir)
            MultiProcessCollector(registry, str(self._shared_dir))  # type: ignore[no-untyped-call]
        registry.register(_Freshness(freshness_s))
        return encode(registry), content_type


class _Freshness(Collector):
    """Absent when the store does not answer: an old number would hide that."""

    def __init__(self, freshness_s: Mapping[str, float]):
        self._freshness_s = freshness_s

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "streamforge_feature_freshness_seconds",
            "Now minus the newest event time in the online store.",
            labels=["family"],
        )
        for name, seconds in self._freshness_s.items():
            family.add_metric([name], seconds)
        yield family


def _method_and_endpoint() -> tuple[str, str]:
    """Labels with a bounded number of values, whatever a client sends."""
    method = request.method if request.method in _METHODS else "other"
    return method, request.url_rule.rule if request.url_rule else "unmatched"


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
