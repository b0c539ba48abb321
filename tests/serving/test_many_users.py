"""POST /features, and the compression that its long answers are worth."""

import gzip
import json

import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.store_keys import KEYS
from serving import Config, create_app, openapi
from tests.build import HOUR, T0, session
from tests.store import order, write

PATH = "/api/v1/features"
KNOWN = [f"u-{i}" for i in range(5)]


@pytest.fixture
def known(valkey, db):
    write(valkey.redis_url, [order(f"o-{i}", T0 + i, 100 + i, user) for i, user in enumerate(KNOWN)])
    write(valkey.redis_url, [session("u-1", T0 + HOUR)])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(asked=st.lists(st.sampled_from([*KNOWN, "nobody", "no.one"]), min_size=1, max_size=20))
def test_the_known_come_in_the_order_asked_as_each_alone_and_the_others_by_id(client, known, asked):
    answer = client.post(PATH, json={"user_ids": asked})
    alone = {user: client.get(f"{PATH}/{user}") for user in set(asked)}
    assert answer.status_code == 200
    assert answer.json["data"] == [alone[user].json["data"] for user in asked if user in KNOWN]
    assert answer.json["missing"] == [user for user in asked if user not in KNOWN]
    assert answer.json["count"] == len(answer.json["data"])
    for user in set(asked) & set(KNOWN):
        assert alone[user].data.removeprefix(b'{"success":true,"data":').removesuffix(b',"count":1}') in answer.data


def test_a_thousand_users_of_the_longest_id_fit_and_one_more_does_not(client, db):
    users = [f"{i:04}" + "😀" * 252 for i in range(1001)]
    answer = client.post(PATH, json={"user_ids": users[:1000]})
    assert (answer.status_code, answer.json["missing"]) == (200, users[:1000])
    assert client.post(PATH, json={"user_ids": users}).status_code == 400


def test_many_users_cost_the_store_one_question(client, known, db):
    client.post(PATH, json={"user_ids": KNOWN})  # connects
    before = db.info("stats")["total_commands_processed"]
    client.post(PATH, json={"user_ids": KNOWN * 100})
    assert db.info("stats")["total_commands_processed"] - before == 2  # with the second of these


@pytest.mark.parametrize(
    ("body", "content_type", "status", "word"),
    [
        (b'{"user_ids":["u-1"]}', None, 415, "Content-Type"),
        (b'{"user_ids":["u-1"]}', "text/plain", 415, "Content-Type"),
        (b"user_ids=u-1", "application/x-www-form-urlencoded", 415, "Content-Type"),
        (b"", openapi.JSON, 400, "JSON"),
        (b"{", openapi.JSON, 400, "JSON"),
        (b'{"user_ids":["\xff"]}', openapi.JSON, 400, "JSON"),
        (b'{"user_ids":["\\ud800"]}', openapi.JSON, 400, "JSON"),
        (b"[" * 100_000, openapi.JSON, 400, "body"),
        (b'{"user_ids":' + b"[" * 100_000, openapi.JSON, 400, "body"),
        (b"[]", openapi.JSON, 400, "object"),
        (b"null", openapi.JSON, 400, "object"),
        (b"{}", openapi.JSON, 400, "user_ids"),
        (b'{"user_ids":[]}', openapi.JSON, 400, "length"),
        (b'{"user_ids":"u-1"}', openapi.JSON, 400, "array"),
        (b'{"user_ids":[1]}', openapi.JSON, 400, "str"),
        (b'{"user_ids":[null]}', openapi.JSON, 400, "str"),
        (b'{"user_ids":["u-1"],"fields":[]}', openapi.JSON, 400, "fields"),
        (b'{"user_ids":["u-1",""]}', openapi.JSON, 400, "user id"),
        (b'{"user_ids":["' + b"x" * 257 + b'"]}', openapi.JSON, 400, "user id"),
        (b'{"user_ids":["u-1\\nu-2"]}', openapi.JSON, 400, "user id"),
        (b'{"user_ids":["u-1","\\u0085"]}', openapi.JSON, 400, "user id"),
        (b" " * (openapi.MAX_BODY_BYTES + 1), openapi.JSON, 413, "4 MiB"),
    ],
)
def test_a_body_that_is_not_as_described_is_refused_with_one_sentence(client, body, content_type, status, word):
    answer = client.post(PATH, data=body, content_type=content_type)
    assert answer.status_code == status
    assert answer.json["success"] is False
    assert word in answer.json["error"]
    assert "\n" not in answer.json["error"]
    assert len(answer.json["error"]) < 300


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(
    body=st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["user_ids", "x"]), inner),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_body_makes_the_server_fail(client, body):
    answer = client.post(PATH, data=body, content_type=openapi.JSON)
    assert answer.status_code in (200, 400)
    assert answer.json["success"] is (answer.status_code == 200)


@pytest.mark.parametrize(
    ("path", "takes"),
    [
        ("/api/v1/health", "no parameters"),
        ("/api/v1/info", "no parameters"),
        ("/api/v1/revenue/realtime", "only currency"),
        ("/api/v1/features/u-1", "no parameters"),
    ],
)
def test_a_parameter_that_an_address_does_not_take_is_refused(client, path, takes):
    answer = client.get(f"{path}?limit=1")
    assert (answer.status_code, answer.json["error"]) == (400, f"this address takes {takes}, not 'limit'")


def test_probes_tell_the_process_from_the_store(own_valkey):
    client = create_app(Config(redis_url=own_valkey.redis_url)).test_client()
    for path in ("live", "ready"):
        assert client.get(f"/api/v1/health/{path}").json["data"] == {"status": "ok"}
    own_valkey.stop()
    assert client.get("/api/v1/health/live").status_code == 200
    answer = client.get("/api/v1/health/ready")
    assert (answer.status_code, int(answer.headers["Retry-After"]) >= 1) == (503, True)
    own_valkey.start()
    assert client.get("/api/v1/health/ready").status_code == 200


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("zstd;q=0, gzip", "gzip"),
        ("gzip;q=0", None),
        ("br", None),
        ("", None),
        (None, None),
    ],
)
def test_a_long_list_is_compressed_as_the_client_takes_it(client, stored, make_alert, accepted, encoding):
    stored(*(make_alert(i) for i in range(50)))
    headers = {} if accepted is None else {"Accept-Encoding": accepted}
    plain = client.get("/api/v1/fraud-alerts").data
    answer = client.get("/api/v1/fraud-alerts", headers=headers)
    assert answer.headers.get("Content-Encoding") == encoding
    assert "Accept-Encoding" in answer.vary
    read = {None: bytes, "gzip": gzip.decompress, "zstd": zstd.decompress}[encoding]
    assert read(answer.data) == plain
    assert answer.content_length == len(answer.data)
    assert encoding is None or len(answer.data) < len(plain) / 3


def test_a_short_answer_is_not_worth_compressing(client, stored, make_alert):
    stored(make_alert(1))
    answer = client.get("/api/v1/fraud-alerts", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in answer.headers
    assert "Accept-Encoding" in answer.vary


def test_the_longest_id_reaches_its_own_keys_and_no_others(client, db):
    user = "x" * 256
    db.set(KEYS.user_features(user + "y"), b'{"other":true}')
    assert client.get(f"{PATH}/{user}").status_code == 404
    assert client.get(f"{PATH}/{user}y").status_code == 400
