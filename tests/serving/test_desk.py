"""States of alerts and the labels that they make, on alerts that the jobs' own writer stored: who may give them, what
survives, and a backtest that reads them."""

from __future__ import annotations

import functools
import json
import re
import time
from collections import Counter
from datetime import datetime

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from beam_pipelines import backtest
from schemas import alert_states
from schemas.alert_states import NOTE_CHARS
from schemas.ids import is_id
from serving import Config, api_keys, create_app, store
from serving.api_keys import ApiKey
from tests import strategies
from tests.build import HIGH, MINUTE, SECOND, T0, alert, order
from tests.described import hold_to_its_document
from tests.oracle import expected_alerts
from tests.server import ROOT
from tests.store import order as row
from tests.store import write
from transforms.domain.fraud import alert_id
from transforms.domain.labels import parse_labels

API = "/api/v1"
NOBODY = "redis://127.0.0.1:1"
KEYS = tuple(
    ApiKey(name, api_keys.sha256(name), frozenset(scopes))
    for name, scopes in (("ann", ["read", "label"]), ("bob", ["label"]), ("eve", ["read", "write", "decide"]))
)


def opened(url=NOBODY, **more):
    """A client, held to the document."""
    app = create_app(Config(redis_url=url, **more))
    hold_to_its_document(app, keys="api_keys" in more)
    return app.test_client()


def label(client, which, state, key=None, **more):
    headers = {"X-API-Key": key} if key else {}
    return client.put(f"{API}/fraud-alerts/{which}/state", json={"state": state, **more}, headers=headers)


def states(client, query="", **headers):
    rows = client.get(f"{API}/fraud-alerts{query}", headers=headers).json["data"]
    return {each["alert_id"]: each.get("state", "new") for each in rows}


def three(url):
    """Of two users; a-1 is the oldest."""
    write(
        url, [alert(alert_id=f"a-{i}", user_id=f"u-{i % 2}", order_id=f"o-{i}", event_time=T0 + i) for i in (1, 2, 3)]
    )


# What a state is


@pytest.mark.stack
def test_an_alert_is_new_until_somebody_says_otherwise_and_the_last_word_counts(kept):
    three(kept.url)
    client = opened(kept.url, api_keys=KEYS)
    ann = {"X-API-Key": "ann"}
    assert states(client, **ann) == {"a-3": "new", "a-2": "new", "a-1": "new"}
    before = time.time()
    told = label(client, "a-2", "confirmed", key="ann", note="the card was stolen").json["data"]
    assert (told["order_id"], told["user_id"], told["kind"]) == ("o-2", "u-0", "fraud")
    for path in ("/fraud-alerts", "/fraud-alerts/u-0", "/fraud-alerts?user_id=u-0"):
        [shown] = [each for each in client.get(API + path, headers=ann).json["data"] if each["alert_id"] == "a-2"]
        assert (shown["state"], shown["state_by"]) == ("confirmed", "ann")
        assert shown["state_note"] == "the card was stolen"
        assert abs(_seconds(shown["state_at"]) - before) < 60
    label(client, "a-2", "false_alarm", key="bob")
    [shown] = client.get(f"{API}/fraud-alerts/u-0", headers=ann).json["data"]
    assert (shown["state"], shown["state_by"], shown["state_note"]) == ("false_alarm", "bob", None)
    label(client, "a-2", "new", key="ann")
    assert states(client, **ann)["a-2"] == "new"
    [line] = client.get(f"{API}/labels", headers=ann).json["data"]
    assert (line["kind"], line["by"]) == ("new", "ann"), "one line an alert, with who took the label back"


def _seconds(text):
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.stack
def test_alerts_can_be_asked_for_by_their_state_and_no_page_leaves_one_out(kept, monkeypatch):
    monkeypatch.setattr(store, "_LOOKED_AT", 10)
    client, names = opened(kept.url), [f"a-{i:02}" for i in range(47)]
    write(kept.url, [alert(alert_id=name, order_id=name, event_time=T0 + i // 4) for i, name in enumerate(names)])
    for name in names[::5]:
        label(client, name, "confirmed")
    label(client, names[1], "false_alarm")
    expected = {"confirmed": names[::5], "false_alarm": [names[1]], "new": sorted({*names} - {*names[::5], names[1]})}
    for path in ("/fraud-alerts", "/fraud-alerts/u-1"):
        for state, those in expected.items():
            for limit in (1, 3, 100):
                found, cursor = [], ""
                while cursor is not None:
                    query = {"state": state, "limit": limit} | ({"cursor": cursor} if cursor else {})
                    answer = client.get(API + path, query_string=query).json
                    assert len(answer["data"]) <= limit
                    assert {each.get("state", "new") for each in answer["data"]} <= {state}
                    found += [each["alert_id"] for each in answer["data"]]
                    cursor = answer["next_cursor"]
                assert found == those[::-1], (path, state, limit)
    assert client.get(f"{API}/fraud-alerts?state=maybe").status_code == 400


@pytest.mark.stack
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20)
@given(strategies.texts.filter(is_id), strategies.texts.filter(is_id), strategies.texts)
def test_an_alert_of_any_id_and_user_is_found_and_no_other_is_labelled(kept, an_id, user, note):
    kept.db.flushall()
    client = _client(kept.url)
    others = [f"{an_id[:200]}*", f"x{an_id[:200]}"]
    write(kept.url, [alert(alert_id=each, user_id=user, order_id=f"o-{each}") for each in (an_id, *others)])
    address = "".join(f"%{byte:02X}" for byte in an_id.encode())
    for more in ({}, {"user_id": user}):
        if an_id in (".", ".."):
            continue  # clients take these out of a path
        told = label(client, address, "confirmed", note=note[:NOTE_CHARS], **more).json["data"]
        assert (told["alert_id"], told["order_id"]) == (an_id, f"o-{an_id}")
        assert Counter(states(client).values()) == {"confirmed": 1, "new": 2}


@functools.cache
def _client(url):
    """Made once, as hypothesis asks many times."""
    return opened(url)


@pytest.mark.stack
def test_an_alert_that_nobody_knows_is_a_404_and_leaves_nothing(kept):
    three(kept.url)
    client, known = opened(kept.url), sorted(kept.db.scan_iter())
    for which, more in (("a-9", {}), ("*", {}), ("a-%3F", {}), ("a-1", {"user_id": "u-0"}), ("a-1", {"user_id": "u"})):
        assert label(client, which, "confirmed", **more).status_code == 404
    assert sorted(kept.db.scan_iter()) == known


@pytest.mark.stack
def test_a_label_outlives_its_alert_and_can_still_be_mended(kept):
    three(kept.url)
    client = opened(kept.url)
    label(client, "a-1", "confirmed")
    for key in (kept.keys.recent_alerts, kept.keys.user_alerts("u-1")):
        kept.db.delete(key)
    assert [each["state"] for each in client.get(f"{API}/labels").json["data"]] == ["confirmed"]
    assert label(client, "a-1", "false_alarm", user_id="u-1").json["data"]["order_id"] == "o-1"
    assert [each["state"] for each in client.get(f"{API}/labels").json["data"]] == ["false_alarm"]
    for key in (kept.keys.alert_states, kept.keys.alert_labels):
        assert kept.db.ttl(key) > 7 * 24 * 3600, "longer than any user's rows"


@pytest.mark.stack
def test_a_rebuild_of_the_alerts_keeps_their_states(kept):
    three(kept.url)
    client = opened(kept.url)
    label(client, "a-1", "confirmed")
    for key in kept.db.scan_iter():
        if key.decode() not in (kept.keys.alert_states, kept.keys.alert_labels):
            kept.db.delete(key)
    assert states(client) == {}
    three(kept.url)
    assert states(client) == {"a-3": "new", "a-2": "new", "a-1": "confirmed"}


@pytest.mark.stack
def test_of_very_many_labels_the_oldest_go(kept, monkeypatch):
    monkeypatch.setattr(alert_states, "KEPT", 2)
    three(kept.url)
    client = opened(kept.url)
    for which in ("a-1", "a-2", "a-1", "a-3"):
        time.sleep(0.002)  # labels of the same millisecond are as old as each other
        label(client, which, "confirmed")
    assert states(client) == {"a-3": "confirmed", "a-2": "new", "a-1": "confirmed"}
    assert kept.db.hlen(kept.keys.alert_states) == kept.db.zcard(kept.keys.alert_labels) == 2


# Labels


@pytest.mark.stack
def test_what_the_api_was_told_is_what_the_next_backtest_counts_as_fraud(kept, tmp_path, capsys):
    orders = [
        order(f"o-{user}-{i}", user=user, at=T0 + i * SECOND, amount=HIGH)
        for user in ("thief", "rich", "unseen")
        for i in range(3)
    ]
    (tmp_path / "orders.jsonl").write_bytes(b"\n".join(msgspec.json.encode(each) for each in orders))
    alerts = expected_alerts(orders)
    write(
        kept.url,
        [
            alert(alert_id=alert_id(rule, user, order_id), alert_type=rule, user_id=user, order_id=order_id)
            for rule, user, order_id in sorted(alerts)
        ],
    )
    client = opened(kept.url)
    for each in client.get(f"{API}/fraud-alerts").json["data"]:
        if each["user_id"] != "unseen":
            said = "confirmed" if each["user_id"] == "thief" else "false_alarm"
            assert label(client, each["alert_id"], said, note="a\nb").status_code == 200
    export = client.get(f"{API}/labels/export")
    assert export.mimetype == "application/x-ndjson"
    (tmp_path / "labels.jsonl").write_bytes(export.data)
    assert parse_labels(export.text) == {each for _, user, each in alerts if user == "thief"}
    flags = [f"--input={tmp_path}/orders.jsonl", f"--labels={tmp_path}/labels.jsonl", "--workers=1"]
    assert backtest.main(["--rules=current", *flags]) == 0
    assert "labelled as fraud: 1 of 1 are in the archive" in capsys.readouterr().out


@pytest.mark.stack
def test_an_export_goes_on_at_its_cursor_and_is_of_the_time_that_is_asked_for(kept):
    client, names = opened(kept.url), [f"a-{i:02}" for i in range(25)]
    write(kept.url, [alert(alert_id=name, order_id=name, event_time=T0 + i) for i, name in enumerate(names)])
    for name in names:
        label(client, name, "confirmed")
    found, cursor = [], ""
    while cursor is not None:
        answer = client.get(f"{API}/labels/export?limit=10" + (f"&cursor={cursor}" if cursor else ""))
        found += [json.loads(line)["order_id"] for line in answer.text.splitlines()]
        cursor = answer.headers.get("X-Next-Cursor")
    assert sorted(found) == names
    assert client.get(f"{API}/labels/export?until=2026-01-01T00:00:00Z").data == b""
    assert len(client.get(f"{API}/labels/export").text.splitlines()) == 25, "no limit, no cut at 100"
    assert client.get(f"{API}/labels/export?limit=10001").status_code == 400


# Who may


@pytest.mark.stack
def test_only_a_key_of_the_scope_label_labels(kept):
    three(kept.url)
    client = opened(kept.url, api_keys=KEYS)
    assert label(client, "a-1", "confirmed").status_code == 401
    refused = label(client, "a-1", "confirmed", key="eve")
    assert (refused.status_code, refused.json["error"]) == (
        403,
        "this key may not label: it is for decide and read and write",
    )
    assert label(client, "a-1", "confirmed", key="bob").json["data"]["by"] == "bob"
    assert client.get(f"{API}/labels", headers={"X-API-Key": "bob"}).status_code == 403
    assert client.get(f"{API}/labels", headers={"X-API-Key": "eve"}).status_code == 200


@pytest.mark.stack
def test_without_keys_labels_are_taken_only_where_nobody_else_comes(kept):
    three(kept.url)
    assert label(opened(kept.url), "a-1", "confirmed").json["data"]["by"] is None
    refused = label(opened(kept.url, keyless_labels=False), "a-1", "false_alarm")
    assert refused.status_code == 403
    assert "--api_keys" in refused.json["error"]
    assert states(opened(kept.url))["a-1"] == "confirmed"


@pytest.mark.stack
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "LOCALHOST:8090"}, 200),
        ({"Host": "[::1]:8090"}, 200),
        ({"Host": "rebound.example:8090", "Origin": "http://rebound.example:8090"}, 403),
        ({"Host": "127.0.0.1.rebound.example"}, 403),
        ({"Host": "127.0.0.1:8090", "X-Forwarded-For": "203.0.113.9"}, 403),
        ({"Host": "127.0.0.1:8090", "Forwarded": "for=203.0.113.9"}, 403),
    ],
)
def test_without_keys_neither_a_rebound_name_nor_a_proxy_may_label(kept, headers, status):
    three(kept.url)
    client = opened(kept.url)
    asked = {"json": {"state": "confirmed"}, "headers": headers}
    assert client.put(f"{API}/fraud-alerts/a-1/state", **asked).status_code == status
    assert client.get(f"{API}/info", headers=headers).json["data"]["may_label"] == (status == 200)


@pytest.mark.stack
def test_a_state_of_a_later_release_hides_no_alert(kept):
    three(kept.url)
    kept.db.hset(kept.keys.alert_states, "a-1", b'{"alert_id":"a-1","state":"escalated"}')
    assert states(opened(kept.url))["a-1"] == "new"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"state": "maybe"},
        {"state": None},
        {"state": "confirmed", "note": "x" * (NOTE_CHARS + 1)},
        {"state": "confirmed", "note": 7},
        {"state": "confirmed", "by": "somebody else"},
        {"state": "confirmed", "user_id": ""},
        [],
    ],
)
def test_what_is_no_state_is_refused(body):
    answer = opened().put(f"{API}/fraud-alerts/a-1/state", json=body)
    assert answer.status_code == 400
    assert opened().put(f"{API}/fraud-alerts/a-1/state", data=b"{}").status_code == 415


def test_a_store_that_is_away_takes_no_label():
    assert label(opened(), "a-1", "confirmed").status_code == 503


# The orders behind an alert


@pytest.mark.stack
def test_a_users_orders_are_told_with_their_amounts_and_times(kept):
    write(
        kept.url,
        [row("o-1", T0, 123_456, region="Izmir"), row("o-2", T0 + MINUTE, 9_000, currency="JPY", region="")],
    )
    kept.db.zadd(kept.keys.user_orders("u-1"), {"600000:o-0": T0 - 1})
    assert opened(kept.url).get(f"{API}/orders?user_id=u-1").json["data"] == [
        {
            "order_id": "o-2",
            "timestamp": "2026-09-21T14:14:20.000Z",
            "amount": 9000,
            "currency": "JPY",
            "region": "",
        },
        {
            "order_id": "o-1",
            "timestamp": "2026-09-21T14:13:20.000Z",
            "amount": 1234.56,
            "currency": "TRY",
            "region": "Izmir",
        },
        {
            "order_id": "o-0",
            "timestamp": "2026-09-21T14:13:19.999Z",
            "amount": 6000,
            "currency": "TRY",
            "region": None,
        },
    ]
    assert opened(kept.url).get(f"{API}/orders?user_id=u-2").json["data"] == []
    assert opened(kept.url).get(f"{API}/orders").json["error"] == "user_id must be given"


@pytest.mark.stack
def test_the_rights_that_the_page_about_security_names_are_enough(valkey, db):
    three(valkey.redis_url)
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").partition("## Least privilege")[2]
    rights = " ".join(re.findall(r"`([^`]*\+[^`]*)`", page.replace("\n", " ").partition("the API ")[2])[:3]).split()
    assert {"~sf:*", "+@read", "+zpopmin"} <= set(rights)
    db.execute_command("ACL", "SETUSER", "api", "reset", "on", ">pw", *(each for each in rights if each[0] in "~+"))
    try:
        client = opened(valkey.redis_url.replace("redis://", "redis://api:pw@"))
        for state in ("confirmed", "false_alarm"):
            assert label(client, "a-1", state).status_code == 200
        assert states(client)["a-1"] == "false_alarm"
    finally:
        db.execute_command("ACL", "DELUSER", "api")
