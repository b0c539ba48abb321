"""The production server as a real process, started as users start it."""

import contextlib
import json
import os
import signal
import socket
import threading
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from prometheus_client.multiprocess import MultiProcessCollector

from serving.__main__ import main
from tests.server import running


def in_flight(tmp_path):
    """Seen from outside the server, which asks Redis itself when it is scraped."""
    found = MultiProcessCollector.merge([str(file) for file in tmp_path.glob("*/gauge_*.db")])
    requests = [family for family in found if family.name == "streamforge_http_requests_in_flight"]
    return {sample.labels["endpoint"] for family in requests for sample in family.samples if sample.value}


def accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_metrics_add_up_across_two_workers_and_sigterm_ends_them_with_status_0(
    valkey, db, stored, make_alert, tmp_path
):
    stored(*(make_alert(i, "ada") for i in range(3)))
    # On a loaded machine Valkey or a worker can stand still for longer than the usual time-outs, which would be a 503.
    with running(valkey.redis_url, "--workers", "2", "--redis_timeout", "30", tmp_path=tmp_path) as server:
        files = "counter_*.db"
        server.wait_until(lambda: len(list(tmp_path.glob(f"*/{files}"))) == 2, "both workers are up")
        for _ in range(60):
            assert server.get("/api/v1/fraud-alerts/ada")[0] == 200
        answered = {"endpoint": "/api/v1/fraud-alerts/<user_id>", "status": "200"}
        for _ in range(6):  # whichever worker is asked
            assert server.metric("streamforge_http_requests_total", **answered) == 60
            assert server.metric("streamforge_http_request_duration_seconds_count", **answered) == 60
            assert server.metric("streamforge_fraud_alerts_served_total") == 180
        assert server.metric("streamforge_http_requests_in_flight", endpoint="/metrics") == 1
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(15) == 0
        assert f"http://127.0.0.1:{server.port}" in server.process.stdout.read()
        assert list(tmp_path.glob("streamforge-metrics-*")) == [], "it cleans up"


def test_a_killed_worker_is_replaced_and_nothing_stays_in_flight(valkey, db, tmp_path):
    with running(valkey.redis_url, "--workers", "2", tmp_path=tmp_path) as server:
        server.wait_until(lambda: len(server.workers()) == 2, "two workers")
        server.get("/api/v1/fraud-alerts")
        before = server.metric("streamforge_http_requests_total", endpoint="/api/v1/fraud-alerts")
        victim = server.workers()[0]
        os.kill(victim, signal.SIGKILL)
        server.wait_until(lambda: len(set(server.workers()) - {victim}) == 2, "a new worker")
        server.wait_until(lambda: server.get("/api/v1/health")[0] == 200, "an answer")
        assert server.metric("streamforge_http_requests_total", endpoint="/api/v1/fraud-alerts") == before
        assert server.metric("streamforge_http_requests_in_flight") == 1
        assert not list(tmp_path.glob(f"*/gauge_live*_{victim}.db"))


def test_ctrl_c_in_a_terminal_which_reaches_every_process_ends_with_status_0(valkey, db, tmp_path):
    with running(valkey.redis_url, "--workers", "2", tmp_path=tmp_path) as server:
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(15) == 0
        assert server.process.stderr.read() == ""


@pytest.mark.parametrize("kill", [os.kill, os.killpg], ids=["server", "group"])
def test_with_a_browser_there_sigterm_ends_it_at_once_with_status_0_and_without_a_word(valkey, db, tmp_path, kill):
    """A browser keeps connections open, has a stream, and asks on while the server stops."""
    with running(valkey.redis_url, tmp_path=tmp_path) as server, contextlib.ExitStack() as browser:
        for path in ("/", "/dashboard/main.js", "/api/v1/health", "/api/v1/sessions?open=true", "/api/v1/stream"):
            connection = browser.enter_context(contextlib.closing(HTTPConnection("127.0.0.1", server.port, timeout=20)))
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.read(1)
            if "stream" not in path:
                answer.read()
        stop = threading.Event()

        def ask_on():
            while not stop.is_set():
                with contextlib.suppress(OSError, HTTPException):
                    server.get("/api/v1/health")

        asking = threading.Thread(target=ask_on)
        asking.start()
        try:
            kill(server.process.pid, signal.SIGTERM)
            assert server.process.wait(15) == 0
        finally:
            stop.set()
            asking.join(20)
        assert server.process.stderr.read() == ""
        assert server.process.stdout.read().count("\n") == 1, "where it serves, and no more"


def test_a_worker_that_ends_before_the_server_has_its_signal_has_not_failed(valkey, db, tmp_path):
    with running(valkey.redis_url, tmp_path=tmp_path) as server:
        [worker] = server.workers()
        os.kill(worker, signal.SIGTERM)
        while Path(f"/proc/{worker}").exists():
            assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(15) == 0
        assert server.process.stderr.read() == ""
        assert server.process.stdout.read().count("\n") == 1, "where it serves, and no more"


def test_a_request_that_is_being_answered_at_sigterm_gets_its_answer(own_valkey, tmp_path):
    with running(own_valkey.redis_url, "--redis_timeout", "2", tmp_path=tmp_path) as server:
        assert server.get("/api/v1/health")[0] == 200
        os.kill(own_valkey.pid("valkey"), signal.SIGSTOP)
        answers = []
        asking = threading.Thread(target=lambda: answers.append(server.get("/api/v1/fraud-alerts")))
        try:
            asking.start()
            server.wait_until(lambda: in_flight(tmp_path) == {"/api/v1/fraud-alerts"}, "a request waits for Redis")
            server.process.send_signal(signal.SIGTERM)
            server.wait_until(lambda: not accepts(server.port), "no new connections")
        finally:
            os.kill(own_valkey.pid("valkey"), signal.SIGCONT)
        asking.join(10)
        assert [status for status, _ in answers] == [200]
        assert server.process.wait(15) == 0


def test_without_redis_it_starts_answers_503_and_recovers(own_valkey, tmp_path):
    own_valkey.stop()
    with running(own_valkey.redis_url, tmp_path=tmp_path) as server:
        status, body = server.get("/api/v1/health")
        assert status == 503
        assert json.loads(body)["success"] is False
        assert server.metric("streamforge_redis_errors_total") >= 1
        own_valkey.start()
        assert server.get("/api/v1/health")[0] == 200


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--port", "99999"], "--port: must be a whole number from 1 to 65535, not '99999'"),
        (["--port", "http"], "--port: must be a whole number"),
        (["--workers", "0"], "--workers: must be a whole number from 1 to 64"),
        (["--redis", "localhost"], "--redis: redis URL localhost is not redis://host:port/db"),
        (["--redis_timeout", "-1"], "--redis_timeout: redis_timeout_s must be above 0"),
        (["--redis_timeout", "soon"], "--redis_timeout: invalid"),
        (["--wrokers", "2"], "unrecognized arguments: --wrokers"),
        (["--work", "2"], "unrecognized arguments: --work"),
    ],
)
def test_a_bad_flag_ends_with_status_2_and_one_line_that_names_it(flags, reason, capsys):
    with pytest.raises(SystemExit) as end:
        main(flags)
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert reason in told
    assert told.count("\n") == 1


def test_a_port_in_use_is_one_line_and_status_2(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 2
    told = capsys.readouterr().err
    assert told == f"python -m serving: cannot serve on 127.0.0.1:{port}: Address already in use\n"


def test_help_names_every_flag_with_its_default(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    told = capsys.readouterr().out
    for text in ("--host", "--port", "8090", "--redis", "redis://127.0.0.1:6379/0", "--workers", "--redis_timeout"):
        assert text in told
