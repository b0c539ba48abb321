"""The daily batch's latest results, from its reports: whether a gate failed, and the newest published day.

Off unless `--batch_report` names their folder, local or gs://. A bucket is read by Google's JSON interface with the
machine's identity, which needs no client library; at most once a minute, by whoever scrapes.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.times import starts_ms, time_zone

__all__ = ["BatchReport", "read_file"]

_GATES = {"reconciliation": "passed", "quality": "passed", "published": "done"}
_EVERY_S = 60.0
_TIMEOUT_S = 5.0
_MOST_BYTES = 100_000
# As Google's own clients let them be set, for an emulator.
_STORAGE = os.environ.get("STORAGE_EMULATOR_HOST", "https://storage.googleapis.com")
_METADATA = "http://{}/computeMetadata/v1/instance/service-accounts/default/token".format(
    os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
)


def read_file(folder: str, name: str) -> bytes | None:
    """None when there is no such file. Raises: OSError: the folder cannot be read."""
    if folder.startswith("gs://"):
        return _object(folder, name)
    path = Path(urlsplit(folder).path if folder.startswith("file://") else folder)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    try:
        return (path / name).read_bytes()[:_MOST_BYTES]
    except FileNotFoundError:
        return None


def _object(folder: str, name: str) -> bytes | None:
    bucket, _, path = folder.removeprefix("gs://").rstrip("/").partition("/")
    place = quote(f"{path}/{name}" if path else name, safe="")
    try:
        token = json.loads(_get(_METADATA, {"Metadata-Flavor": "Google"}))["access_token"]
        url = f"{_STORAGE}/storage/v1/b/{quote(bucket, safe='')}/o/{place}?alt=media"
        return _get(url, {"Authorization": f"Bearer {token}"})
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.NOT_FOUND:
            return None
        raise
    except (http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise OSError(f"no answer that makes sense: {error}") from error


def _get(url: str, headers: dict[str, str]) -> bytes:
    asked = urllib.request.Request(url, headers=headers)  # noqa: S310 - the addresses above
    with urllib.request.urlopen(asked, timeout=_TIMEOUT_S) as answer:  # noqa: S310
        return bytes(answer.read(_MOST_BYTES))


class BatchReport(Collector):
    """
    Args:
      folder: the job's --report.
      read: as `read_file`.
    """

    def __init__(self, folder: str, read: Callable[[str, str], bytes | None] = read_file):
        self._folder, self._read = folder, read
        self._lock = threading.Lock()
        self._asked_s = float("-inf")
        self._said: dict[str, dict[str, Any] | None] | None = None

    def collect(self) -> Iterable[Metric]:
        said = self._newest()
        readable = _gauge("batch_report_readable", "Whether the daily batch's reports can be read.")
        readable.add_metric([], int(said is not None))
        passed = _gauge("batch_gate_passed", "Whether a gate passed the last day that it checked.", "gate")
        published = _gauge("batch_published_day_seconds", "When the newest published day began; 0 if there is none.")
        if said is not None:
            for name, field in _GATES.items():
                about = said[name]
                if about is not None:
                    passed.add_metric([name], int(about[field] is True))
            published.add_metric([], _published_s(said["published"]))
        yield from (readable, passed, published)

    def _newest(self) -> dict[str, dict[str, Any] | None] | None:
        with self._lock:
            if time.monotonic() - self._asked_s >= _EVERY_S:
                self._said = self._ask()
                self._asked_s = time.monotonic()
            return self._said

    def _ask(self) -> dict[str, dict[str, Any] | None] | None:
        try:
            texts = {name: self._read(self._folder, f"{name}.status.json") for name in _GATES}
            said = {name: None if text is None else dict(json.loads(text)) for name, text in texts.items()}
            _published_s(said["published"])
            for name, about in said.items():
                if about is not None:
                    about[_GATES[name]]
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return said


def _published_s(about: dict[str, Any] | None) -> int:
    if about is None or about["newest"] is None:
        return 0
    return starts_ms(date.fromisoformat(about["newest"]), time_zone(about.get("time_zone", "UTC"))) // 1000


def _gauge(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"streamforge_{name}", about, labels=labels)
