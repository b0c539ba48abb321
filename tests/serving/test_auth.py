"""API keys, rate limits, CORS: off unless asked for."""

import os
import re
import signal
import subprocess
import sys

import pytest

from schemas import features, store_keys
from serving import Config, ConfigError, api_keys, create_app, openapi
from serving.__main__ import main
from serving.api_keys import ApiKey, InvalidKeys
from tests.described import hold_to_its_document
from tests.live import eventually
from tests.server import running

KEY, OLD_KEY = "sf_new", "sf_old"
KEYS = (ApiKey("ann", api_keys.sha256(OLD_KEY)), ApiKey("ann", api_keys.sha256(KEY)), ApiKey("bob", "0" * 64))
ORIGIN = "https://shop.example"


@pytest.fixture
def serve(valkey, db):
    def make(**settings):
        app = create_app(Config(redis_url=valkey.redis_url, **settings))
        hold_to_its_document(app, keys="api_keys" in settings, limited="rate_limit" in settings)
        return app.test_client()

    return make


@pytest.mark.parametrize("key", [KEY, OLD_KEY])
@pytest.mark.parametrize(
    "header", [("Authorization", "Bearer {}"), ("Authorization", "bearer {}"), ("X-API-Key", "{}")]
)
def test_any_of_the_keys_opens_in_either_header(serve, key, header):
    name, form = header
    assert serve(api_keys=KEYS).get("/api/v1/info", headers={name: form.format(key)}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": KEY + "x"},
        {"X-API-Key": "ü"},
        {"X-API-Key": api_keys.sha256(KEY)},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer"},
        {"Authorization": KEY},
        {"Authorization": "Bearer wrong", "X-API-Key": KEY},
        {"Authorization": f"Bearer {KEY}", "X-API-Key": "wrong"},
        {"Authorization": f"Basic {KEY}", "X-API-Key": KEY},
    ],
)
def test_without_a_right_key_every_address_of_the_api_is_a_401(serve, headers):
    client = serve(api_keys=KEYS)
    guarded = 0
    for rule, method, _, operation in openapi.operations(client.application):
        if rule.rule.startswith("/api/v1/") and not operation.free:
            path = rule.rule.replace("<", "").replace(">", "")
            answer = client.open(path, method=method, headers=headers)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), path
            guarded += 1
    assert guarded >= 10
    assert client.head("/api/v1/fraud-alerts", headers=headers).status_code == 401


def test_health_metrics_and_pages_need_no_key(serve):
    client = serve(api_keys=KEYS)
    for path in ("/api/v1/health", "/api/v1/health/live", "/api/v1/health/ready", "/metrics", "/", "/docs"):
        assert client.get(path).status_code == 200, path
    assert client.get("/nothing").status_code == 404


def test_a_route_that_says_nothing_of_keys_needs_one(serve):
    client = serve(api_keys=KEYS)
    client.application.add_url_rule("/api/v1/new", view_func=lambda: "secret")
    assert client.get("/api/v1/new").status_code == 401


def test_lines_of_keys_are_read():
    assert api_keys.read(f"# ours\n\n ann:{'a' * 64}\nbob:{'b' * 64}  \n") == (
        ApiKey("ann", "a" * 64),
        ApiKey("bob", "b" * 64),
    )


@pytest.mark.parametrize(
    "text", ["", "# none", "ann", "ann:" + "a" * 63, "ann:" + "A" * 64, "a b:" + "a" * 64, "sf_secret"]
)
def test_other_lines_are_refused_without_showing_them(text):
    with pytest.raises(InvalidKeys) as e:
        api_keys.read(text)
    assert "secret" not in str(e.value)


def test_a_made_key_is_shown_once_and_its_line_opens_the_server(serve):
    made = subprocess.run(
        [sys.executable, "-m", "serving.keys", "new", "ann"], capture_output=True, text=True, check=True
    )
    key, line = made.stdout.splitlines()
    assert made.stderr == ""
    assert key not in line
    client = serve(api_keys=api_keys.read(line))
    assert client.get("/api/v1/info", headers={"X-API-Key": key}).status_code == 200


def test_hashes_are_not_in_what_a_config_prints():
    assert "0" * 64 not in repr(Config(api_keys=KEYS))


def test_wrong_keys_in_file_or_environment_end_the_start_with_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "keys").write_text("ann:secret\n")
    with pytest.raises(SystemExit) as end:
        main(["--api_keys", str(tmp_path / "keys")])
    assert end.value.code == 2
    with pytest.raises(SystemExit):
        main(["--api_keys", str(tmp_path / "none")])
    monkeypatch.setenv("STREAMFORGE_API_KEYS", "")
    assert main([]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 3
    assert "secret" not in told


def test_above_the_rate_a_caller_gets_429_and_others_do_not(serve):
    client = serve(api_keys=(*KEYS, ApiKey("eve", api_keys.sha256("e"))), rate_limit="3/hour")

    def ask(key):
        return client.get("/api/v1/fraud-alerts", headers={"X-API-Key": key})

    assert [ask(key).status_code for key in (KEY, OLD_KEY, KEY, KEY)] == [200, 200, 200, 429]  # one name, one count
    assert 1 <= int(ask(KEY).headers["Retry-After"]) <= 3600
    assert ask("e").status_code == 200
    assert client.get("/api/v1/health").status_code == 200
    assert client.get("/metrics").status_code == 200


def test_without_keys_the_rate_is_counted_by_address_and_across_servers(serve, db):
    one, other = serve(rate_limit="4/hour"), serve(rate_limit="4/hour")
    assert [c.get("/api/v1/info").status_code for c in (one, other, one, other, one, other)] == [200] * 4 + [429] * 2
    assert other.get("/api/v1/info", environ_base={"REMOTE_ADDR": "10.0.0.9"}).status_code == 200
    counted = list(db.scan_iter())
    assert len(counted) == 2
    assert all(key.startswith(b"sf:rate:") and 0 < db.ttl(key) <= 3600 for key in counted)


@pytest.mark.stack
def test_connections_of_one_address_are_counted_together_by_every_worker(valkey, db, tmp_path):
    with running(valkey.redis_url, "--workers", "2", "--rate_limit", "9/hour", tmp_path=tmp_path) as server:
        statuses = [server.get("/api/v1/info")[0] for _ in range(20)]
        assert 429 in statuses
        assert statuses == sorted(statuses)
        assert sum(int(db.get(key)) for key in db.scan_iter()) >= 20


def test_a_store_that_does_not_answer_limits_nobody_and_holds_a_request_for_few_time_outs(own_valkey):
    settings = Config(redis_url=own_valkey.redis_url, redis_timeout_s=0.2, retry_after_s=0.3, rate_limit="1/hour")
    client = create_app(settings).test_client()
    os.kill(own_valkey.pid("valkey"), signal.SIGSTOP)
    try:
        assert client.get("/api/v1/info").status_code == 200
        assert client.get("/api/v1/info").status_code == 200
        assert client.get("/api/v1/fraud-alerts").status_code == 503
    finally:
        os.kill(own_valkey.pid("valkey"), signal.SIGCONT)
    eventually(lambda: client.get("/api/v1/info").status_code == 429, "it counts again")


def test_a_store_that_refuses_to_count_limits_nobody_and_log_and_metric_say_so(serve, db, caplog):
    client = serve(rate_limit="1/hour", retry_after_s=0.05)
    db.config_set("maxmemory", 1)
    db.config_set("maxmemory-policy", "noeviction")
    try:
        eventually(
            lambda: [client.get("/api/v1/info").status_code for _ in range(3)] and failures(client) >= 3, "failures"
        )
        assert client.get("/api/v1/info").status_code == 200
    finally:
        db.config_set("maxmemory", 0)
    assert caplog.text.count("--rate_limit: Redis does not count requests") == 1
    eventually(lambda: client.get("/api/v1/info").status_code == 429, "it counts again")
    assert "requests are counted again" in caplog.text


def failures(client):
    [line] = re.findall(r"^streamforge_rate_limit_failures_total (\S+)", client.get("/metrics").text, re.MULTILINE)
    return float(line)


def test_without_a_key_health_tells_no_more_than_that_the_store_answers(serve, db):
    client = serve(api_keys=KEYS)
    db.hset(store_keys.KEYS.ledger("archiver"), mapping={"in": 5, "good": 5, "updated_ms": 1})
    for headers in ({}, {"X-API-Key": "wrong"}, {"X-API-Key": KEY, "Authorization": "Bearer wrong"}):
        answer = client.get("/api/v1/health", headers=headers)
        assert (answer.status_code, answer.json["data"].keys()) == (200, {"status", "redis"})
    assert client.get("/api/v1/health", headers={"X-API-Key": KEY}).json["data"]["ledgers"].keys() == {"archiver"}
    assert serve().get("/api/v1/health").json["data"]["ledgers"].keys() == {"archiver"}


@pytest.mark.parametrize("keys", [(), KEYS])
def test_no_answer_says_where_the_store_is_that_is_away(keys):
    client = create_app(Config(redis_url="redis://127.0.0.1:1/0", api_keys=keys)).test_client()
    for path in ("health", "health/ready", "fraud-alerts"):
        answer = client.get(f"/api/v1/{path}", headers={"X-API-Key": KEY} if keys and path == "fraud-alerts" else {})
        assert answer.status_code == 503
        assert "127.0.0.1" not in answer.text
        assert answer.headers["Retry-After"]


def test_other_origins_get_no_leave_and_none_is_given_by_default(serve):
    answer = serve().get("/api/v1/info", headers={"Origin": ORIGIN})
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]
    client = serve(cors_origins=(ORIGIN,))
    for origin in ("https://evil.example", ORIGIN + ".evil.example", "null", ORIGIN.upper(), "http://shop.example"):
        answer = client.get("/api/v1/info", headers={"Origin": origin})
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Origin" in answer.vary


def test_an_origin_on_the_list_may_call_also_with_a_key_and_read_errors(serve):
    client = serve(cors_origins=("https://a.example", ORIGIN), api_keys=KEYS)
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    preflight = client.options("/api/v1/features", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert "X-API-Key" in preflight.headers["Access-Control-Allow-Headers"]
    refused = client.get("/api/v1/info", headers={"Origin": ORIGIN})
    assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, ORIGIN)
    assert "Retry-After" in refused.headers["Access-Control-Expose-Headers"]
    listed = client.get("/api/v1/fraud-alerts", headers={"Origin": ORIGIN, "X-API-Key": KEY})
    assert {"Origin", "Accept-Encoding"} <= set(listed.vary)


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        *(
            ("rate_limit", text)
            for text in ("", "5", "0/second", "5/week", "5 / second", "-1/second", "5/second;1/day")
        ),
        *(("cors_origins", (text,)) for text in ("*", "null", "shop.example", ORIGIN + "/", "https://", "ftp://a.b")),
        ("streams", -1),
        ("streams", 1001),
    ],
)
def test_settings_that_cannot_be_right_are_refused_by_name(field, bad):
    with pytest.raises(ConfigError, match=field):
        Config(**{field: bad})


def test_the_prefix_of_what_is_counted_is_part_of_the_layout():
    assert f"{store_keys.KEYS.rate}:" in features.__doc__
