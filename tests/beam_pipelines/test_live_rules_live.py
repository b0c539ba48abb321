"""Rules are activated while orders flow, and a task manager is killed right then: the alerts are the oracle's.

Orders have the time of the clock, as only activations to come are taken.
"""

from __future__ import annotations

import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from beam_pipelines import rules
from schemas.events import OrderEvent, avro_schema
from schemas.jobs.shop import RULES_TOPIC
from stack import Stack
from stack.flink import Cluster
from tests import build, live
from tests.rules_oracle import expected_over_time
from transforms.io.kafka.rules import RulesReader
from transforms.io.registry import Registry

pytestmark = pytest.mark.stack

BASE = files("transforms.domain").joinpath("fraud_rules.yaml").read_text()
PAIRS = "{version: 2, currency: TRY, rules: {PAIR: {kind: count, at_least: 2, within: 1m, risk_score: 0.5}}}"
EACH = "{version: 2, currency: TRY, rules: {EACH: {kind: count, at_least: 1, risk_score: 0.5}}}"


class Orders:
    """Ten users who order again and again, all at the time of the clock."""

    def __init__(self, stack: Stack, topic: str):
        self._stack, self._topic = stack, topic
        self._schema_id = Registry(stack.registry_url).register(f"{topic}-value", avro_schema("OrderEvent"))
        self.sent: list[OrderEvent] = []

    def flow(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self.send(20)
            time.sleep(0.2)

    def send(self, count: int) -> None:
        now_ms, first = time.time_ns() // 1_000_000, len(self.sent)
        new = [
            build.order(f"o-{first + i}", user=f"u-{(first + i) % 10}", at=now_ms - 5 * (count - i))
            for i in range(count)
        ]
        messages = [live.Message(build.payload(o, self._schema_id), o.user_id.encode(), o.event_time) for o in new]
        live.fill_topic(self._stack, self._topic, messages)
        self.sent += new


def test_rules_are_activated_while_orders_flow_and_a_task_manager_is_killed_right_then(
    live_stack: Stack, cluster: Cluster, pool: live.Workers, tmp_path: Path, record_property: Any
) -> None:
    servers, topic, history = live_stack.address("kafka"), "rules.orders", "rules.live"
    admin = AdminClient({"bootstrap.servers": servers})
    admin.create_topics([NewTopic(history, 1, 1, config=RULES_TOPIC)])[history].result(60)
    for number, text in enumerate((PAIRS, EACH), 1):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        assert command(servers, history, "put", str(path)) == 0
    orders = Orders(live_stack, topic)
    orders.send(20)
    flags = [*live.on_cluster(cluster, pool, tmp_path), *live.addresses(live_stack, topic, tmp_path / "out")]
    with live.job(*flags, f"--rules_topic={history}", folder=tmp_path) as job:
        job_id = live.running_job(cluster.rest_url)
        job.wait_for_ledger(20)
        before = live.completed_checkpoints(cluster.rest_url, job_id)
        live.eventually(lambda: live.completed_checkpoints(cluster.rest_url, job_id) > before, "a checkpoint", 60)
        asked_s = time.monotonic()
        assert command(servers, history, "activate", "1") == 0
        orders.flow(3)
        cluster.kill_taskmanager()
        cluster.start_taskmanager()
        orders.flow(8)
        live.eventually(lambda: "PAIR" in found(tmp_path), "an alert by the new version", 120)
        record_property("seconds_from_activate_to_its_first_alert", round(time.monotonic() - asked_s, 1))
        assert command(servers, history, "activate", "2") == 0
        orders.flow(10)
        assert command(servers, history, "rollback") == 0
        orders.flow(10)
        ledger = job.wait_for_ledger(len(orders.sent))
        reader = RulesReader(servers, history)
        texts = {1: PAIRS, 2: EACH}
        activated = [(a.effective_from_ms, texts[a.version]) for a in reader.read().activations]
        reader.close()
        expected = expected_over_time(BASE, activated, orders.sent)
        live.wait_for_alerts(tmp_path / "out", {(rule, user, order_id) for rule, user, order_id, _ in expected})
        restored = live.restored_from(cluster.rest_url, job_id)
        live.cancel(cluster.rest_url, job_id)
    assert restored
    assert [a for a, _ in activated] == sorted(a for a, _ in activated)
    assert len(activated) == 3
    assert {rule for rule, *_ in expected} >= {"PAIR", "EACH", "RAPID_ORDERS"}
    assert (ledger["in"], ledger["good"]) == (len(orders.sent), len(orders.sent))


def command(servers: str, topic: str, *arguments: str) -> int:
    return rules.main([*arguments, f"--bootstrap_servers={servers}", f"--topic={topic}"])


def found(folder: Path) -> set[str]:
    return {rule for rule, _, _ in live.alerts_in_folder(folder / "out")}
