"""What clients see while the store is stopped, frozen, loading and back, through the production server under load."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import signal
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from serving import Config, create_app
from serving.server import threads
from tests.server import running
from tests.serving.conftest import store_alerts

pytestmark = pytest.mark.stack

CLIENTS = 8
TIMEOUT_S = 0.5
REQUESTS = itertools.cycle(
    [
        ("GET", "/api/v1/fraud-alerts/ada", None),
        ("GET", "/api/v1/sessions/ada", None),
        ("POST", "/api/v1/features", b'{"user_ids":["ada","bob"]}'),
    ]
)


class Clients:
    """Threads that ask one request after the other, each on a connection of its own, and note what they got."""

    def __init__(self, port):
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(CLIENTS)]
        self.answers = []  # (status, Retry-After, seconds); status 0 for no answer

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a request is never answered"

    def _ask(self):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        with contextlib.closing(connection):
            while not self._stop.is_set():
                method, path, body = next(REQUESTS)
                began = time.monotonic()
                try:
                    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
                    answer = connection.getresponse()
                    answer.read()
                    seen = answer.status, answer.headers.get("Retry-After")
                except (OSError, http.client.HTTPException):
                    connection.close()
                    seen = 0, None
                self.answers.append((*seen, time.monotonic() - began))

    def until(self, status, count, seconds=30):
        """Waits for so many more answers with the status; what came until then."""
        begin = len(self.answers)
        deadline = time.monotonic() + seconds
        while sum(answer[0] == status for answer in self.answers[begin:]) < count:
            assert time.monotonic() < deadline, f"no {count} answers with {status}: {tell(self.answers[begin:])}"
            time.sleep(0.01)
        return self.answers[begin:]


def tell(answers):
    slowest = max((seconds for *_, seconds in answers), default=0.0)
    return f"{dict(Counter(status for status, *_ in answers))}, slowest {slowest * 1000:.0f} ms"


def thread_count(pid):
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


class Loading(socketserver.StreamRequestHandler):
    """Redis while it reads its data from disk: that is its answer to everything."""

    def handle(self):
        while data := self.request.recv(65536):
            commands = data.count(b"*") or 1
            self.request.sendall(b"-LOADING Redis is loading the dataset in memory\r\n" * commands)


@contextlib.contextmanager
def loading(port) -> Iterator[None]:
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    socketserver.ThreadingTCPServer.daemon_threads = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", port), Loading) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_a_store_that_goes_and_comes_back_is_503_with_retry_after_and_then_200(own_valkey, tmp_path, make_alert):

    def fill():
        with redis.Redis.from_url(own_valkey.redis_url) as db:
            store_alerts(db, [make_alert(i, "ada") for i in range(3)])

    fill()
    port = int(own_valkey.address("valkey").rpartition(":")[2])
    seen = {}
    with running(own_valkey.redis_url, "--redis_timeout", str(TIMEOUT_S), tmp_path=tmp_path) as server:
        [worker] = server.workers()
        idle_threads = thread_count(worker)
        with Clients(server.port) as clients:
            seen["healthy"] = clients.until(200, 100)

            own_valkey.stop()
            seen["stopped"] = clients.until(503, 200)
            own_valkey.start()
            fill()
            seen["started"] = clients.until(200, 100)

            os.kill(own_valkey.pid("valkey"), signal.SIGSTOP)
            try:
                seen["frozen"] = clients.until(503, 400)
                most_threads = thread_count(worker)
            finally:
                os.kill(own_valkey.pid("valkey"), signal.SIGCONT)
            seen["thawed"] = clients.until(200, 100)

            own_valkey.stop()
            with loading(port):
                seen["loading"] = clients.until(503, 200)
            own_valkey.start()
            fill()
            seen["loaded"] = clients.until(200, 100)
        failed = sum(status == 503 for status, *_ in clients.answers)
        assert server.metric("streamforge_redis_errors_total") >= failed > 0
        server.wait_until(lambda: server.get("/api/v1/health/ready")[0] == 200, "it is ready again")

    for phase, answers in seen.items():
        print(f"{phase:8} {tell(answers)}")
    assert {status for status, *_ in clients.answers} == {200, 503}
    assert all((after is not None) == (status == 503) for status, after, _ in clients.answers)
    assert most_threads <= idle_threads + threads(Config()), "threads pile up"


class _NoRedis(socketserver.BaseRequestHandler):
    says = b""

    def handle(self):
        while self.request.recv(1 << 16):
            self.request.sendall(self.says)


@pytest.mark.parametrize(
    "says",
    [
        b"+OK\r\n" * 9,
        b":1\r\n" * 9,
        b"$5\r\nhello\r\n" * 9,
        b"*0\r\n" * 9,
        b"$-1\r\n" * 9,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_another_server_where_redis_was_to_be_is_a_store_that_is_away(says, monkeypatch):
    monkeypatch.setattr(_NoRedis, "says", says)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _NoRedis) as other:
        threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
        client = create_app(Config(redis_url=f"redis://127.0.0.1:{other.server_address[1]}/0")).test_client()
        for path in ("/api/v1/features/ada", "/api/v1/fraud-alerts", "/api/v1/health"):
            assert client.get(path).status_code == 503
        other.shutdown()
