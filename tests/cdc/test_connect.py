"""Against a small Connect: what its REST interface answers while it starts, divides its tasks, or fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from cdc import connect
from cdc.connect import Connect
from cdc.errors import CdcError
from cdc.server import AHEAD_MS, EPOCH, Server, epoch_of, is_another
from stack import topics
from transforms.domain.cdc_places import SPAN_MS, version

CONFIG = {"a": "1"}
RUNNING = {"connector": {"state": "RUNNING"}, "tasks": [{"id": 0, "state": "RUNNING"}]}
STARTING = {"connector": {"state": "RUNNING"}, "tasks": []}
TRACE = "io.A: wrapped\n\tat x.y(X.java:1)\nCaused by: io.B: the disk is full\n\tat y.z(Y.java:2)\n\t... 3 more\n"
FAILED = {"connector": {"state": "RUNNING"}, "tasks": [{"id": 0, "state": "FAILED", "trace": TRACE}]}


class FakeConnect:
    """Answers each kind of request from a list; the last answer stays."""

    def __init__(self) -> None:
        self.config: dict[str, str] | None = None
        self.states: list[dict[str, Any]] = [RUNNING]
        self.refusals: list[tuple[int, str]] = []
        self.asked: list[str] = []

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if path.endswith("/status"):
            return 200, self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if method == "GET":
            return (200, {**self.config, "name": "shop"}) if self.config else (404, {"message": "not found"})
        self.asked.append(f"{method} {path.partition('?')[0]}")
        if self.refusals:
            status, message = self.refusals.pop(0)
            return status, {"error_code": status, "message": message}
        if path.endswith("/config"):
            self.config = json.loads(body)
        return 201, {}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeConnect:
    monkeypatch.setattr(connect, "_STEADY_S", 0.2)
    return FakeConnect()


@pytest.fixture
def client(fake: FakeConnect) -> Iterator[Connect]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = fake.answer(self.command, self.path, body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_PUT = do_POST = do_DELETE = do_GET

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Connect(f"http://127.0.0.1:{server.server_port}/")
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_is_made_once_and_then_left_alone(fake: FakeConnect, client: Connect) -> None:
    assert client.register(CONFIG, 10) == "created"
    assert client.register(CONFIG, 10) == "unchanged"
    assert client.register({"a": "2"}, 10) == "updated"
    assert fake.asked == ["PUT /connectors/shop/config"] * 2
    assert fake.config == {"a": "2"}


def test_it_waits_while_connect_divides_its_tasks_or_starts(fake: FakeConnect, client: Connect) -> None:
    fake.refusals = [(409, "rebalancing"), (503, "starting")]
    fake.states = [STARTING, STARTING, RUNNING]
    assert client.register(CONFIG, 10) == "created"
    assert len(fake.asked) == 3


def test_what_had_failed_is_started_again(fake: FakeConnect, client: Connect) -> None:
    fake.config = dict(CONFIG)
    fake.states = [FAILED, FAILED, RUNNING]
    assert client.register(CONFIG, 10) == "restarted"
    assert fake.asked == ["POST /connectors/shop/restart"]


def test_what_runs_for_a_moment_and_fails_is_told_with_the_deepest_cause(fake: FakeConnect, client: Connect) -> None:
    fake.states = [RUNNING, RUNNING, FAILED]
    with pytest.raises(CdcError, match=r"^the connector failed: io\.B: the disk is full$"):
        client.register(CONFIG, 10)


def test_what_never_runs_is_given_up(fake: FakeConnect, client: Connect) -> None:
    fake.states = [STARTING]
    with pytest.raises(CdcError, match="not running in time: connector RUNNING, tasks none"):
        client.register(CONFIG, 0.3)


def test_a_refusal_is_told_in_connects_own_words_and_not_repeated(fake: FakeConnect, client: Connect) -> None:
    fake.refusals = [
        (
            400,
            "Connector configuration is invalid and contains the following 1 error(s):\nno such host\n"
            "You can also find the above list of errors at the endpoint `/x`",
        )
    ]
    with pytest.raises(CdcError, match=r"^Connect answered 400: no such host$"):
        client.register(CONFIG, 10)
    assert len(fake.asked) == 1


def test_a_connector_that_is_not_there_is_missing_not_running(fake: FakeConnect, client: Connect) -> None:
    fake.answer = lambda *_: (404, {"message": "No status found"})  # type: ignore[method-assign]
    state = client.state()
    assert state.connector == "MISSING"
    assert not state.running


def test_a_task_that_fails_while_its_position_is_waited_for_does_not_run(fake: FakeConnect, client: Connect) -> None:
    fake.config, fake.states = CONFIG, [RUNNING, FAILED]
    with pytest.raises(CdcError, match=r"^the connector failed: io\.B: the disk is full$"):
        client.wait_for_position(10)


def test_a_cause_is_told_whole_however_long_and_in_however_many_lines() -> None:
    words = "the message is 1400084 bytes when serialized, " * 40
    cause = f"io.B: {words}\nwhich is at last too many"
    trace = f"io.A: wrapped\n\tat x.y(Z.java:1)\nCaused by: {cause}\n\tat y.z(Z.java:2)\n\t... 3 more\n"
    assert connect._cause(trace) == f"io.B: {words.strip()} which is at last too many"


def test_a_server_keeps_its_epoch_and_another_one_gets_a_later_one() -> None:
    old, new = Server(7577, 1), Server(7577, 2)
    first = epoch_of(old, {}, 1_000)
    assert first == f"{1_000 + AHEAD_MS}/7577/1"
    assert epoch_of(old, {EPOCH: first}, 2_000) == first
    assert epoch_of(None, {EPOCH: first}, 2_000) == first
    second = epoch_of(new, {EPOCH: first}, 2_000)
    assert second == f"{2_000 + AHEAD_MS}/7577/2"
    assert epoch_of(new, {EPOCH: first}, 500) == f"{1_001 + AHEAD_MS}/7577/2"  # a clock that went back
    assert epoch_of(old, {EPOCH: second}, 3_000) == f"{3_000 + AHEAD_MS}/7577/1"  # back again: now it is newer
    unknown = epoch_of(None, {}, 1_000)
    assert unknown == f"{1_000 + AHEAD_MS}/unknown"
    assert epoch_of(old, {EPOCH: unknown}, 2_000) == f"{2_000 + AHEAD_MS}/7577/1"


def test_what_a_connector_sends_while_it_is_taken_over_is_older_than_all_that_comes_after() -> None:
    """It names no server yet, and has the minute of its commit, by the database's clock."""
    now_ms = 1_795_000_000_000 // SPAN_MS * SPAN_MS - 1
    epoch = epoch_of(Server(7577, 1), {"name": "a connector without an epoch"}, now_ms)
    on_the_way = version(None, now_ms + 2 * SPAN_MS, 5, 5)
    assert on_the_way < version(epoch, now_ms + 3 * SPAN_MS, 6, 6)


@pytest.mark.parametrize(
    ("before", "now", "another"),
    [
        ("", "2/7577/1", False),
        ("1/unknown", "2/7577/1", False),
        ("1/7577/1", "1/7577/1", False),
        ("1/7577/1", "2/7577/2", True),
        ("1/7577/1", "2/7578/1", True),
    ],
)
def test_only_what_is_known_to_be_another_server_is_begun_anew(before: str, now: str, another: bool) -> None:
    assert is_another({EPOCH: before} if before else {}, {EPOCH: now}) == another


def test_a_change_may_be_as_large_in_connects_producer_as_in_its_topics() -> None:
    settings = connect.settings()
    limit = settings["producer.override.max.request.size"]
    assert limit == settings["topic.creation.default.max.message.bytes"]
    assert {topics.config(name)["max.message.bytes"] for name in topics.TOPICS if name.startswith("cdc.")} == {limit}
    assert int(settings["producer.override.buffer.memory"]) > int(limit)


def test_on_another_server_it_forgets_the_old_position_before_it_is_told_of_the_new_one(
    fake: FakeConnect, client: Connect
) -> None:
    fake.config, fake.states = CONFIG, [{"connector": {"state": "STOPPED"}, "tasks": []}, RUNNING]
    client.begin_anew(10, lambda: fake.asked.append("drop the slot"), {"a": "2"})
    paths = [asked.replace("/connectors/shop", "") for asked in fake.asked]
    assert paths == ["PUT /stop", "DELETE /offsets", "drop the slot", "PUT /config", "PUT /resume"]
    assert fake.config == {"a": "2"}
