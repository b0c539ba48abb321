"""BigQuery and Cloud Storage as processes of ours: bqemulator and fake-gcs-server, in an environment of their own.

Nothing of the product knows of them: clients are led there by the environment variables that Google's libraries have
for it, with credentials whose token comes from here. Only Beam's older client, which load jobs go through, has no such
variable; `Emulator.lead_load_jobs_here` replaces its address.

What the emulator does as the service does: types of values, views, QUALIFY, load jobs, rows refused one by one. What it
does not: docs/adr/0012-bigquery.md.
"""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from apache_beam.io.gcp import bigquery_tools
from apache_beam.io.gcp.internal.clients.bigquery import BigqueryV2
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud import bigquery

from schemas.tables import Table, from_bigquery
from stack.environment import python_of
from stack.ports import pick_free
from tests.live import ROOT, eventually

PROJECT = "shop-emulated"
_REQUIREMENTS = ROOT / "tests" / "bigquery_emulator.txt"
_HOME = ROOT / ".stack" / "bigquery-emulator"


class Emulator:
    """A running emulator.

    Attributes:
      environment: what leads Google's clients here, in this process and in those that it starts.
      bucket: `gs://…`, there.
    """

    def __init__(self, port: int, gcs_port: int, key_file: Path):
        self.url = f"http://127.0.0.1:{port}"
        self._gcs = f"http://127.0.0.1:{gcs_port}"
        self.bucket = "gs://load-files"
        self.environment = {
            "BIGQUERY_EMULATOR_HOST": self.url,
            "STORAGE_EMULATOR_HOST": self._gcs,
            "GOOGLE_APPLICATION_CREDENTIALS": str(key_file),
            "NO_GCE_CHECK": "true",
        }

    def make_bucket(self) -> None:
        body = json.dumps({"name": self.bucket.removeprefix("gs://")}).encode()
        request = urllib.request.Request(f"{self._gcs}/storage/v1/b", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=60).close()

    def make_dataset(self, name: str) -> str:
        """An empty dataset, as project.dataset."""
        with _client() as client:
            client.delete_dataset(name, delete_contents=True, not_found_ok=True, retry=None, timeout=60)
            client.create_dataset(name, retry=None, timeout=60)
        return f"{PROJECT}.{name}"

    def rows(self, dataset: str, table: Table, of: str | None = None) -> list[dict[str, Any]]:
        """All rows of the table, or of the view named, as folder rows, in a fixed order."""
        return sorted(
            (
                from_bigquery(table, json.loads(text))
                for (text,) in self.query(f"SELECT TO_JSON_STRING(t) FROM `{dataset}.{of or table.name}` AS t")
            ),
            key=json.dumps,
        )

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with _client() as client:
            return [tuple(row.values()) for row in client.query_and_wait(sql, retry=None, api_timeout=60)]

    def lead_load_jobs_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def client(_: Any) -> BigqueryV2:
            return BigqueryV2(url=f"{self.url}/bigquery/v2/", get_credentials=False)

        monkeypatch.setattr(bigquery_tools.BigQueryWrapper, "_bigquery_client", staticmethod(client))


def _client() -> bigquery.Client:
    return bigquery.Client(project=PROJECT)


@contextmanager
def started(folder: Path) -> Iterator[Emulator]:
    """An emulator that ends with the block."""
    python = python_of(_HOME, _REQUIREMENTS)
    ports = [pick_free() for _ in range(3)]
    buckets = folder / "buckets"
    buckets.mkdir()
    (gcs_binary,) = python.parent.parent.glob("lib/*/site-packages/*/vendor/fake-gcs-server/bin/fake-gcs-server-*")
    commands = [
        [
            *(str(python), str(ROOT / "tests" / "start_bigquery.py"), "start", "--ephemeral", "--project", PROJECT),
            *("--rest-port", str(ports[0]), "--grpc-port", str(ports[1])),
        ],
        [
            *(str(gcs_binary), "-backend=filesystem", f"-filesystem-root={buckets}", "-scheme=http"),
            *("-host=127.0.0.1", f"-port={ports[2]}", f"-public-host=127.0.0.1:{ports[2]}"),
            f"-external-url=http://127.0.0.1:{ports[2]}",
        ],
    ]
    environment = {"BQEMU_ENABLE_FORMAT_EXTENSIONS": "false", "BQEMU_GCS_LOCAL_ROOT": str(buckets), "PATH": "/bin"}
    with _token_server() as token_url, (folder / "log").open("wb") as log:
        processes = [
            subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log) for command in commands
        ]
        try:
            key_file = folder / "key.json"
            key_file.write_text(json.dumps(_key(token_url)))
            emulator = Emulator(ports[0], ports[2], key_file)
            for url in (f"{emulator.url}/bigquery/v2/projects/{PROJECT}/datasets", f"{emulator._gcs}/storage/v1/b"):
                eventually(lambda url=url: _answers(url), f"{url} answers; see {folder / 'log'}", timeout_s=180)
            emulator.make_bucket()
            yield emulator
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True


class _Token(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"access_token": "emulated", "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def _token_server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Token) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/token"
        server.shutdown()
        thread.join()


def _key(token_url: str) -> dict[str, str]:
    """A service account's key file; the key is made here and opens nothing."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "1",
        "private_key": key.decode(),
        "client_email": f"test@{PROJECT}.example",
        "client_id": "1",
        "token_uri": token_url,
    }
