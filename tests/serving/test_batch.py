"""What the API tells of the daily batch: from a folder, and from a bucket by Google's JSON interface."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving import Config, create_app
from serving import batch as module
from serving.batch import BatchReport, read_file
from serving.config import ConfigError

PASSED = {
    "reconciliation": {"day": "2026-11-22", "passed": True, "at": ""},
    "quality": {"day": "2026-11-22", "passed": False, "at": ""},
    "published": {"day": "2026-11-21", "done": True, "newest": "2026-11-22", "at": ""},
}
BEGAN_S = 1795305600  # 2026-11-22T00:00:00Z


def write(folder: Path, said: dict[str, Any]) -> None:
    for name, about in said.items():
        (folder / f"{name}.status.json").write_text(about if isinstance(about, str) else json.dumps(about))


def told(report: BatchReport) -> dict[tuple[str, str], float]:
    return {
        (sample.name.removeprefix("streamforge_batch_"), sample.labels.get("gate", "")): sample.value
        for family in report.collect()
        for sample in family.samples
    }


def test_verdicts_and_the_newest_published_day_are_told_in_metrics(tmp_path: Path) -> None:
    write(tmp_path, PASSED)
    page = create_app(Config(batch_report=str(tmp_path))).test_client().get("/metrics").text
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name.startswith("streamforge_batch")
    }
    assert values == {
        ("streamforge_batch_report_readable",): 1,
        ("streamforge_batch_gate_passed", "reconciliation"): 1,
        ("streamforge_batch_gate_passed", "quality"): 0,
        ("streamforge_batch_gate_passed", "published"): 1,
        ("streamforge_batch_published_day_seconds",): BEGAN_S,
    }
    assert "streamforge_batch" not in create_app(Config()).test_client().get("/metrics").text


def test_a_job_that_never_ran_has_published_nothing(tmp_path: Path) -> None:
    assert told(BatchReport(str(tmp_path))) == {("report_readable", ""): 1, ("published_day_seconds", ""): 0}


def test_publishing_that_broke_off_on_the_first_day_is_told(tmp_path: Path) -> None:
    write(tmp_path, {"published": {"day": "2026-11-22", "done": False, "newest": None}})
    assert told(BatchReport(str(tmp_path))) == {
        ("report_readable", ""): 1,
        ("gate_passed", "published"): 0,
        ("published_day_seconds", ""): 0,
    }


@pytest.mark.parametrize(
    "said",
    [
        {"quality": "{"},
        {"quality": "[]"},
        {"quality": {"day": "2026-11-22"}},
        {"published": {"done": True}},
        {"published": {"done": True, "newest": 7}},
        {"published": {"done": True, "newest": "tomorrow"}},
        {"published": "\udcff".encode("utf-8", "surrogatepass").decode("latin-1")},
    ],
)
def test_a_report_that_makes_no_sense_is_not_readable_and_stops_no_scrape(said: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, PASSED | said)
    assert told(BatchReport(str(tmp_path))) == {("report_readable", ""): 0}


def test_a_folder_that_is_not_there_is_not_readable(tmp_path: Path) -> None:
    assert told(BatchReport(str(tmp_path / "nowhere"))) == {("report_readable", ""): 0}


def test_it_is_read_once_a_minute(tmp_path: Path) -> None:
    asked: list[str] = []
    report = BatchReport("gs://b/r", lambda _, name: asked.append(name))
    for _ in range(3):
        told(report)
    assert len(asked) == 3, "once for each of three files"


@pytest.mark.parametrize("folder", ["gs://", "gs://B/x", "s3://bucket/x", "http://host/x", "gs://bucket/x?y", ""])
def test_a_folder_that_cannot_be_one_is_refused(folder: str) -> None:
    with pytest.raises(ConfigError, match="batch_report must be a folder or gs://bucket/path"):
        Config(batch_report=folder)


class _Google(BaseHTTPRequestHandler):
    """A metadata server and a bucket, as far as they are asked here."""

    objects: dict[str, bytes]
    status = 200

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.endswith("/token"):
            ok = self.headers["Metadata-Flavor"] == "Google"
            self._answer(200 if ok else 403, b'{"access_token": "t0"}')
        elif self.headers["Authorization"] != "Bearer t0" or self.status != 200:
            self._answer(self.status if self.status != 200 else 401, b"no")
        else:
            body = self.objects.get(path.removeprefix("/storage/v1/b/"))
            self._answer(404 if body is None else 200, body or b"no such object")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Google]]:
    handler = type("Handler", (_Google,), {"objects": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        address = f"127.0.0.1:{server.server_port}"
        monkeypatch.setattr(module, "_STORAGE", f"http://{address}")
        monkeypatch.setattr(module, "_METADATA", f"http://{address}/token")
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield handler
        server.shutdown()


def test_a_bucket_is_read_by_the_machines_identity(google: type[_Google]) -> None:
    google.objects["shop-lake/o/a b/reports/quality.status.json"] = json.dumps(PASSED["quality"]).encode()
    assert json.loads(read_file("gs://shop-lake/a b/reports/", "quality.status.json") or b"") == PASSED["quality"]
    assert read_file("gs://shop-lake/a b/reports", "published.status.json") is None
    google.objects["shop-lake/o/quality.status.json"] = b"top"
    assert read_file("gs://shop-lake", "quality.status.json") == b"top"
    assert told(BatchReport("gs://shop-lake/a b/reports"))["gate_passed", "quality"] == 0


@pytest.mark.parametrize("status", [403, 500])
def test_a_bucket_that_cannot_be_read_is_told_and_not_taken_for_empty(google: type[_Google], status: int) -> None:
    google.status = status
    assert told(BatchReport("gs://shop-lake/reports")) == {("report_readable", ""): 0}
