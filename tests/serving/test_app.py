import json
import os

import pytest

from serving import Config, create_app
from serving.access_log import AccessLog
from serving.app import App
from serving.metrics import Metrics

PATH = "/api/v1/fraud-alerts/ada"


@pytest.fixture
def app(valkey, db):
    return create_app(Config(redis_url=valkey.redis_url))


@pytest.fixture
def logged(app, monkeypatch):
    """A client, and the lines of its access log."""
    lines = []
    monkeypatch.setattr(app, "_access_log", AccessLog(with_path=False, write=lines.append))
    return app.test_client(), lines


def test_a_request_is_a_line_of_json_that_names_no_user(logged):
    client, lines = logged
    answer = client.get(PATH + "?limit=3")
    [line] = lines
    assert line.endswith(b"\n")
    assert b"ada" not in line
    told = json.loads(line)
    assert told.keys() == {"time", "request_id", "method", "route", "status", "duration_ms"}
    assert (told["method"], told["route"], told["status"]) == ("GET", "/api/v1/fraud-alerts/<user_id>", 200)
    assert told["request_id"] == answer.headers["X-Request-ID"]
    assert told["duration_ms"] > 0


@pytest.mark.parametrize(("path", "status"), [("/no/such", 404), (PATH + "?limit=0", 400)])
def test_refusals_are_logged_too(logged, path, status):
    client, lines = logged
    assert client.get(path).status_code == status
    assert [json.loads(line)["status"] for line in lines] == [status]


def test_a_failure_nobody_foresaw_is_logged_and_carries_its_request_id(app, logged):
    client, lines = logged

    @app.get("/broken")
    def broken():
        raise RuntimeError("boom")

    answer = client.get("/broken", headers={"X-Request-ID": "r-1"})
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (500, "r-1")
    assert [(json.loads(line)["status"], json.loads(line)["request_id"]) for line in lines] == [(500, "r-1")]


def test_paths_are_told_when_asked_for(app, monkeypatch):
    lines = []
    monkeypatch.setattr(app, "_access_log", AccessLog(with_path=True, write=lines.append))
    app.test_client().get(PATH)
    assert json.loads(lines[0])["path"] == PATH


def test_a_clients_request_id_comes_back_also_without_a_log(app):
    client = app.test_client()
    assert client.get(PATH, headers={"X-Request-ID": "abc-1"}).headers["X-Request-ID"] == "abc-1"
    assert "X-Request-ID" not in client.get(PATH).headers


@pytest.mark.parametrize("odd", ["a b", "x" * 129, 'a"b', "é"])
def test_a_request_id_that_could_spoil_a_log_is_replaced(logged, odd):
    client, lines = logged
    given = client.get(PATH, headers={"X-Request-ID": odd}).headers["X-Request-ID"]
    assert given != odd
    assert json.loads(lines[0])["request_id"] == given


def test_lines_go_to_standard_output_whole():
    read, write = os.pipe()
    saved = os.dup(1)
    try:
        os.dup2(write, 1)
        AccessLog(with_path=False).tell("r-1", "GET", "/", "/", 200, 0.001)
    finally:
        os.dup2(saved, 1)
        for fd in (saved, write):
            os.close(fd)
    with os.fdopen(read, "rb") as out:
        assert json.loads(out.read())["request_id"] == "r-1"


def test_no_rule_ends_in_a_slash_as_redirects_name_no_host(app):
    assert [rule.rule for rule in app.url_map.iter_rules() if rule.rule.endswith("/") and rule.rule != "/"] == []


def test_head_has_the_headers_of_get_and_no_body(app):
    client = app.test_client()
    get, head = client.get(PATH), client.head(PATH)
    assert head.data == b""
    assert dict(head.headers) == dict(get.headers)
    assert int(head.headers["Content-Length"]) == len(get.data)


def test_a_hostile_host_or_websocket_header_changes_nothing(app):
    for headers in ({"Host": "a b/<>"}, {"Connection": "Upgrade", "Upgrade": "websocket"}):
        assert app.test_client().get(PATH, headers=headers).status_code == 200


def test_methods_that_clients_invent_are_one_label():
    metrics = Metrics()
    app = App(metrics, None)
    for i in range(3):
        app.test_client().open("/", method=f"INVENTED{i}")
    body, _ = metrics.exposition("", None, {})
    assert body.count(b"streamforge_http_requests_total{") == 1
