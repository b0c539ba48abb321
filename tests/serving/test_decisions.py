"""Decisions over HTTP, on orders that the jobs' own writer stored: what is answered, by whom it may be asked, and what
happens while the store is away."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import re
import signal
import time

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.ids import is_id
from schemas.mapping import SHIPPED
from serving import Config, ConfigError, api_keys, create_app
from serving.__main__ import main
from serving.api_keys import ApiKey
from serving.config import WHEN_DOWN
from serving.decisions.routes import PATH
from serving.decisions.ruleset import read_rules
from serving.ingest.intake import MAX_EVENT_BYTES
from tests import foreign, strategies
from tests.build import HIGH, MINUTE, SECOND, T0, block, click, order
from tests.described import hold_to_its_document
from tests.oracle import expected_alerts
from tests.server import ROOT, running
from tests.serving.test_judge import histories
from tests.store import order as row
from tests.store import write
from transforms.decode import DecodedBlock
from transforms.revenue import RevenueRows

NOBODY = "redis://127.0.0.1:1"


def opened(url=NOBODY, **settings_):
    """A client, held to the document."""
    app = create_app(Config(redis_url=url, decisions=True, **settings_))
    hold_to_its_document(app, keys="api_keys" in settings_)
    return app.test_client()


def ask(client, asked, path=PATH, **headers):
    raw = asked if isinstance(asked, bytes) else msgspec.json.encode(asked)
    return client.post(path, data=raw, content_type="application/json", headers=headers)


def placed(url, orders):
    """The orders come through the stream: the revenue job's rows of them, by its writer."""
    rows = RevenueRows()(DecodedBlock([], list(orders), [], [], block([]), [], set(), []), 1)
    if rows:
        write(url, rows[0])


# What is answered


@pytest.mark.stack
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(histories())
def test_a_decision_names_the_patterns_that_the_stream_will_find(kept, history):
    before, new = history
    kept.db.flushall()
    placed(kept.url, before)
    known = sorted(kept.db.scan_iter())
    client = _client(kept.url)
    expected = expected_alerts([*before, new]) - expected_alerts(before)
    told = ask(client, new).json["data"]
    assert {(each["rule"], "u-1", each["order_id"]) for each in told["rules"]} == expected
    score = max((each["risk_score"] for each in told["rules"]), default=0)
    assert (told["score"], told["fallback"], told["not_evaluated"]) == (score, False, [])
    assert told["decision"] == ("block" if score >= 0.9 else "review" if score >= 0.6 else "allow")
    assert sorted(kept.db.scan_iter()) == known, "nothing is written"
    placed(kept.url, [new])
    assert ask(client, new).json["data"] == told, "the same again, once the order has been placed"


@functools.cache
def _client(url):
    """Made once, as hypothesis asks many times."""
    return opened(url)


@pytest.mark.stack
def test_an_answer_has_its_reasons_with_their_orders_and_the_version_of_the_rules(kept):
    write(kept.url, [row("o-1", T0, HIGH, region="Izmir"), row("o-2", T0 + SECOND, HIGH, region="Istanbul")])
    answer = ask(opened(kept.url), order("o-3", at=T0 + MINUTE, amount=HIGH))
    assert answer.json == {
        "success": True,
        "data": {
            "decision": "block",
            "score": 0.95,
            "rules": [
                {
                    "rule": "HIGH_VALUE_BURST",
                    "risk_score": 0.95,
                    "order_id": "o-3",
                    "description": "3 CREATED orders above 5000.00 TRY within 5 min",
                    "related_orders": ["o-1", "o-2", "o-3"],
                },
                {
                    "rule": "RAPID_ORDERS",
                    "risk_score": 0.85,
                    "order_id": "o-3",
                    "description": "3 CREATED orders within 5 min",
                    "related_orders": ["o-1", "o-2", "o-3"],
                },
                {
                    "rule": "LOCATION_ANOMALY",
                    "risk_score": 0.7,
                    "order_id": "o-3",
                    "description": "order from Istanbul within 10 min of one from Izmir",
                    "related_orders": ["o-1", "o-3"],
                },
            ],
            "not_evaluated": [],
            "rules_version": read_rules(None).version,
            "order_id": "o-3",
            "user_id": "u-1",
            "fallback": False,
        },
        "count": 1,
    }
    assert ask(opened(kept.url), order("o-3", at=T0 + MINUTE, user="u-2")).json["data"]["decision"] == "allow"


@pytest.mark.stack
def test_the_example_of_the_page_is_answered_as_it_says(kept):
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").partition("## Decisions at the checkout")[2]
    [asked] = re.findall(r"/decisions -H .*? -d '(\{.*?\})'\n", page, re.DOTALL)[:1]
    answer = ask(opened(kept.url), asked.replace("'$(date +%s000)'", str(T0)).encode()).json
    told = json.loads(re.findall(r"```\n(\{.*?)\n```", page, re.DOTALL)[0])
    told["data"]["rules_version"] = read_rules(None).version
    assert answer == told


@pytest.mark.stack
def test_orders_of_an_earlier_release_count_and_their_missing_regions_are_said(kept):
    members = {"600000|TRY|o-1": T0, "600000:o-2": T0 + 1}
    kept.db.zadd(kept.keys.user_orders("u-1"), members)
    told = ask(opened(kept.url), order("o-3", at=T0 + SECOND, amount=HIGH)).json["data"]
    assert [each["rule"] for each in told["rules"]] == ["HIGH_VALUE_BURST", "RAPID_ORDERS"]
    assert [each["rule"] for each in told["not_evaluated"]] == ["LOCATION_ANOMALY"]


@pytest.mark.stack
def test_rules_and_thresholds_are_those_of_the_file(kept, tmp_path):
    (tmp_path / "rules.yaml").write_text(
        "{version: 1, currency: TRY, rules: {TWO: {kind: burst, orders: 2, within: 30h, risk_score: 0.5}},"
        " decisions: {review: 0.5, block: 0.51}}"
    )
    client = opened(kept.url, rules=str(tmp_path / "rules.yaml"))
    first = ask(client, order("o-1")).json["data"]
    assert (first["decision"], first["score"]) == ("allow", 0)
    assert [(each["rule"], "30 h" in each["why"]) for each in first["not_evaluated"]] == [("TWO", True)]
    placed(kept.url, [order("o-1")])
    second = ask(client, order("o-2", at=T0 + MINUTE)).json["data"]
    assert (second["decision"], second["not_evaluated"]) == ("review", [])
    assert second["rules_version"] == first["rules_version"] != read_rules(None).version


@pytest.mark.stack
@pytest.mark.parametrize("name", ["shopify", "woocommerce"])
def test_an_order_of_another_system_is_decided_as_its_mapping_reads_it(kept, name):
    client, decided, refused = opened(kept.url, mappings=(name,)), 0, 0
    for each in foreign.stream(name, 60):
        answer = ask(client, msgspec.json.encode(each.message), f"{PATH}/{name}", **each.headers)
        if each.order is not None and each.order.order_status == "CREATED":
            told = answer.json["data"]
            assert (told["order_id"], told["user_id"]) == (each.order.order_id, each.order.user_id)
            decided += 1
        else:
            assert answer.status_code == 422, answer.json
            refused += 1
    assert decided > 5
    assert refused > 5
    assert ask(client, order(), f"{PATH}/nobody").status_code == 404


# What is refused


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b"", 400, "one order, as a JSON object"),
        (b"[]", 400, "one order, as a JSON object"),
        (msgspec.json.encode([order()]), 400, "one order, as a JSON object"),
        (b"7", 400, "one order, as a JSON object"),
        (b'{"order_id":', 400, "not JSON"),
        (msgspec.json.encode(order()) * 2, 400, "not JSON"),
        (b'{"order_id":"\xff"}', 400, "not JSON"),
        (b"{" * 100_000, 400, "not JSON"),
        (b"{}", 422, "neither order_id nor event_id is there"),
        (msgspec.json.encode(click()), 422, "there is no order in it"),
        (msgspec.json.encode(order(status="CANCELLED")), 422, "order_status is CANCELLED"),
        (msgspec.json.encode(order(at=T0 // 1000)), 422, "seconds? Milliseconds since 1970 are wanted"),
        (msgspec.json.encode(order(session_id="x" * MAX_EVENT_BYTES)), 413, "an order has at most 262,144"),
        (b" " * (5 << 20), 413, "larger than 4 MiB"),
    ],
)
def test_what_is_no_order_to_decide_on_is_refused_with_the_reason(body, status, why):
    answer = ask(opened(when_down="allow"), body)
    assert (answer.status_code, answer.json["success"]) == (status, False)
    assert why in answer.json["error"]


def test_all_that_is_wrong_with_an_order_is_said_at_once():
    answer = ask(opened(when_down="allow"), order("", amount=-1, user="a\n", currency="try"))
    assert answer.status_code == 422
    for fault in ("order_id is empty", "user_id", "subtotal_minor", "total_amount_minor", "currency is not three"):
        assert fault in answer.json["error"]


def test_an_order_that_makes_our_code_fail_is_our_failure_and_is_logged(caplog):
    client = opened(when_down="allow")

    def fail(*_):
        raise ZeroDivisionError("planted")

    client.application.extensions["streamforge.decider"]._intakes[None]._ours = fail
    answer = ask(client, order())
    assert (answer.status_code, answer.json["error"]) == (500, "the server failed; its log has the details")
    assert "planted" in caplog.text


def test_other_content_types_and_parameters_are_refused():
    client, raw = opened(when_down="allow"), msgspec.json.encode(order())
    assert client.post(PATH, data=raw, content_type="application/x-ndjson").status_code == 415
    assert ask(client, raw, **{"Content-Encoding": "gzip"}).status_code == 415
    assert ask(client, raw, f"{PATH}?user_id=u-1").status_code == 400
    assert ask(client, b"\xef\xbb\xbf \n" + raw).status_code == 200


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode) | strategies.orders.map(msgspec.json.encode))
def test_no_body_makes_our_code_fail(raw):
    for path in (PATH, *(f"{PATH}/{name}" for name in SHIPPED)):
        for body in (raw, b"{" + raw):
            answer = ask(_fuzzed(), body, path)
            assert answer.status_code in (200, 400, 422), answer.json


@functools.cache
def _fuzzed():
    return opened(when_down="allow", mappings=SHIPPED)


@pytest.mark.stack
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(strategies.texts.filter(is_id), strategies.texts.filter(is_id), strategies.texts)
def test_an_order_of_any_user_with_any_id_and_region_is_found_again(kept, user, order_id, region):
    kept.db.flushall()
    placed(kept.url, [order(f"{order_id[:200]}-{i}", at=T0 + i, user=user, region=region) for i in range(2)])
    [reason] = ask(_client(kept.url), order("new", at=T0 + 2, user=user, region=region)).json["data"]["rules"]
    assert reason["related_orders"] == [f"{order_id[:200]}-0", f"{order_id[:200]}-1", "new"]


# Who may ask


def test_a_key_of_the_scope_decide_asks_this_and_nothing_else():
    names = ("read", "write", "decide")
    keys = tuple(ApiKey(name, api_keys.sha256(name), frozenset([name])) for name in names)
    client = opened(when_down="allow", api_keys=keys)
    assert ask(client, order()).status_code == 401
    answers = {name: ask(client, order(), **{"X-API-Key": name}) for name in names}
    assert {name: answer.status_code for name, answer in answers.items()} == {"read": 403, "write": 403, "decide": 200}
    assert answers["read"].json["error"] == "this key may not decide: it is for read"
    assert client.get("/api/v1/info", headers={"X-API-Key": "decide"}).status_code == 403


def test_it_is_off_unless_it_is_switched_on():
    client = create_app(Config()).test_client()
    assert ask(client, order()).status_code == 404
    assert PATH not in client.get("/openapi.json").json["paths"]
    assert PATH in opened().get("/openapi.json").json["paths"]


# While the store is away


@pytest.mark.parametrize("policy", WHEN_DOWN)
def test_without_a_store_the_policy_is_answered_and_said_to_be_one(policy):
    client = opened(when_down=policy)
    answer = ask(client, order("o-1"))
    if policy == "503":
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    else:
        told = answer.json["data"]
        assert (told["decision"], told["score"], told["rules"], told["fallback"]) == (policy, None, [], True)
        assert told["rules_version"] == read_rules(None).version
    metrics = client.get("/metrics").text
    assert "streamforge_decision_fallbacks_total 1.0" in metrics
    assert 'streamforge_decisions_total{outcome="allow"} 0.0' in metrics, "a policy is no decision by the rules"


@pytest.mark.stack
def test_decisions_are_counted_by_outcome_and_timed(kept):
    client = opened(kept.url)
    placed(kept.url, [order(f"o-{i}", at=T0 + i) for i in range(2)])
    for user in ("u-1", "u-1", "u-2"):
        ask(client, order("new", at=T0 + 2, user=user))
    metrics = client.get("/metrics").text
    for outcome, number in (("review", 2.0), ("allow", 1.0), ("block", 0.0)):
        assert f'streamforge_decisions_total{{outcome="{outcome}"}} {number}' in metrics
    assert "streamforge_decision_seconds_count 3.0" in metrics
    assert "streamforge_decision_fallbacks_total 0.0" in metrics


@pytest.mark.stack
@pytest.mark.parametrize("policy", WHEN_DOWN)
def test_a_real_server_decides_and_answers_in_time_while_the_store_hangs_or_is_away(own_valkey, tmp_path, policy):
    flags = ["--decisions", f"--when_down={policy}", "--redis_timeout=0.2"]
    with running(own_valkey.redis_url, *flags, tmp_path=tmp_path) as server:
        placed(own_valkey.redis_url, [order(f"o-{i}", at=T0 + i) for i in range(2)])

        def decided():
            began = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            with contextlib.closing(connection):
                raw = msgspec.json.encode(order("new", at=T0 + 2))
                connection.request("POST", PATH, raw, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                told = json.loads(answer.read()).get("data", {})
            assert time.monotonic() - began < 30, "never a hang"
            return answer.status, told.get("decision"), told.get("fallback")

        usual = (200, "review", False)
        by_policy = (503, None, None) if policy == "503" else (200, policy, True)
        assert decided() == usual
        os.kill(own_valkey.pid("valkey"), signal.SIGSTOP)
        try:
            assert {decided() for _ in range(5)} == {by_policy}
        finally:
            os.kill(own_valkey.pid("valkey"), signal.SIGCONT)
        server.wait_until(lambda: decided() == usual, "the store answers again")
        own_valkey.stop()
        assert {decided() for _ in range(3)} == {by_policy}
        assert server.metric("streamforge_decision_fallbacks_total") >= 8


# Flags


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--decisions", "--rules=nowhere.yaml"], "nowhere.yaml cannot be read: No such file or directory"),
        (["--decisions", "--rules={}"], "rules.yaml: RAPID: orders 1 is not a whole number of at least 2"),
        (["--rules=transforms/domain/fraud_rules.yaml"], "--rules needs --decisions"),
        (["--mapping=shopify"], "--mapping needs --events or --decisions"),
        (["--decisions", "--when_down=block"], "--when_down: invalid choice: 'block'"),
    ],
)
def test_a_wrong_flag_stops_the_server_before_it_starts_with_one_line(capsys, tmp_path, flags, why):
    rules = tmp_path / "rules.yaml"
    rules.write_text("{version: 1, currency: TRY, rules: {RAPID: {kind: burst, orders: 1, within: 5m, risk_score: 1}}}")
    try:
        status = main([flag.format(rules) for flag in flags])
    except SystemExit as e:
        status = e.code
    said = capsys.readouterr().err
    assert (status, why in said, said.count("\n")) == (2, True, 1), said


def test_a_policy_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="when_down must be allow, review or 503, not 'block'"):
        Config(when_down="block")
