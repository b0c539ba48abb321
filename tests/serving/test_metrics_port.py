"""/metrics on a port of its own."""

import http.client
import os
import signal
import socket
from pathlib import Path

import pytest

from serving.__main__ import main
from stack.ports import pick_free
from tests.live import eventually
from tests.server import Server, running

pytestmark = pytest.mark.stack


def is_taken(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_all_workers_are_in_the_metrics_there_and_none_are_beside_the_api(valkey, db, tmp_path):
    port = pick_free()
    flags = ("--workers", "2", "--metrics_port", str(port))
    with running(valkey.redis_url, *flags, tmp_path=tmp_path) as server:
        scraped = Server(server.process, port)
        eventually(lambda: is_taken(port), "the metrics' port")
        assert {server.get("/api/v1/revenue")[0] for _ in range(30)} == {200}
        answered = {"endpoint": "/api/v1/revenue", "status": "200"}
        assert scraped.metric("streamforge_http_requests_total", **answered) == 30
        assert server.get("/metrics")[0] == 404
        assert b"/metrics" not in server.get("/")[1], "a link that leads nowhere"
        assert "/metrics" not in server.get("/openapi.json")[1].decode()
        assert [scraped.get(path)[0] for path in ("/", "/api/v1/revenue", "/metrics/x")] == [404] * 3
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(15) == 0
        assert not is_taken(port)
        assert server.process.stderr.read() == ""


def test_it_does_not_outlive_a_server_that_is_killed(valkey, db, tmp_path):
    port = pick_free()
    with running(valkey.redis_url, "--metrics_port", str(port), tmp_path=tmp_path) as server:
        eventually(lambda: is_taken(port), "the metrics' port")
        os.kill(server.process.pid, signal.SIGKILL)
        eventually(lambda: not is_taken(port), "its end")


def serving_metrics(server):
    """Processes that a thread of the server has spawned; the kernel leaves some out while others begin or end."""
    lists = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    pids = [int(pid) for file in lists for pid in file.read_text().split()]
    return [pid for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def answers(scraped):
    try:
        return scraped.get("/metrics")[0] == 200
    except OSError:  # the socket is the server's, and there before and after the process that answers
        return False


def test_it_comes_back_when_it_is_killed(valkey, db, tmp_path):
    port = pick_free()
    with running(valkey.redis_url, "--metrics_port", str(port), tmp_path=tmp_path) as server:
        scraped = Server(server.process, port)
        for _ in range(2):
            eventually(lambda: is_taken(port), "the metrics' port")
            [metrics] = eventually(lambda: serving_metrics(server), "its process")
            os.kill(metrics, signal.SIGKILL)
            eventually(lambda metrics=metrics: metrics not in serving_metrics(server), "its end")
        eventually(lambda: answers(scraped), "metrics again")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(15) == 0
        assert server.process.stderr.read().count("is started again") == 2
        assert not is_taken(port)


def test_metrics_are_there_while_the_store_is_not(own_valkey, tmp_path):
    port = pick_free()
    with running(own_valkey.redis_url, "--metrics_port", str(port), tmp_path=tmp_path) as server:
        eventually(lambda: is_taken(port), "the metrics' port")
        own_valkey.stop()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.status == 200
        assert b"streamforge_redis_errors_total" in answer.read()
        connection.close()
        assert server.get("/api/v1/health/live")[0] == 200


def test_a_port_that_is_taken_or_the_same_is_one_line_and_status_2(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--port", str(pick_free()), "--metrics_port", str(port)]) == 2
    assert main(["--port", "9", "--metrics_port", "9"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"python -m serving: cannot serve on 127.0.0.1:{port}: Address already in use"
    assert "--metrics_port must be another port" in second
