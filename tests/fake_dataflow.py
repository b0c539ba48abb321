"""Dataflow's REST API as far as a submission goes: it takes jobs, keeps them as they came, and runs nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["FakeDataflow", "started"]


class FakeDataflow:
    """What was submitted.

    Attributes:
      endpoint: for --dataflow_endpoint. Beam takes `localhost` for one without TLS, 127.0.0.1 not.
      jobs: as posted, oldest first, each with the id that it was given.
    """

    def __init__(self, port: int):
        self.endpoint = f"http://localhost:{port}"
        self.jobs: list[dict[str, Any]] = []
        self.paths: list[str] = []

    def take(self, path: str, job: dict[str, Any]) -> dict[str, Any]:
        self.paths.append(path)
        self.jobs.append({**job, "id": f"job-{len(self.jobs)}"})
        return {"id": self.jobs[-1]["id"], "name": job["name"], "clientRequestId": job["clientRequestId"]}


@contextmanager
def started() -> Iterator[FakeDataflow]:
    """One that ends with the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(fake.take(self.path.partition("?")[0], body))

        def do_GET(self) -> None:
            """The jobs that run, which --update looks for by name."""
            running = [{"id": j["id"], "name": j["name"], "currentState": "JOB_STATE_RUNNING"} for j in fake.jobs]
            self._answer({"jobs": running})

        def _answer(self, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake = FakeDataflow(server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield fake
        server.shutdown()
        thread.join()
