"""Latency is measured on a stand-in job of known delay: a thread that turns orders into alerts."""

import json
import re
import threading
import time
from collections.abc import Iterator

import pytest
import redis
from confluent_kafka import Consumer

from bench import __main__ as bench
from bench.latency import percentile
from schemas.codec import Decoder
from schemas.events import FraudAlert, OrderEvent
from schemas.features import alert_json
from schemas.store_keys import KEYS
from stack import Stack
from transforms.io.registry import Registry

DELAY_S = 0.3


def test_percentiles_are_nearest_ranks():
    values = [float(i) for i in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.9, 0.99, 1.0)] == [50.0, 90.0, 99.0, 100.0]
    assert percentile([7.0], 0.5) == percentile([7.0], 0.99) == 7.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack"), ["kafka", "registry", "valkey"], ports="free") as stack:
        yield stack


class StandIn(threading.Thread):
    """Alerts on high first orders, each `DELAY_S` after it was read; forgets every tenth when told to."""

    def __init__(self, stack: Stack, forgetful: bool):
        super().__init__(daemon=True)
        self._stack, self._forgetful = stack, forgetful
        self.stopping = threading.Event()

    def run(self) -> None:
        decode = Decoder(OrderEvent, Registry(self._stack.registry_url).schema).decode
        store = redis.Redis.from_url(self._stack.redis_url)
        servers = {"bootstrap.servers": self._stack.address("kafka"), "group.id": "stand-in"}
        consumer = Consumer({**servers, "auto.offset.reset": "earliest", "fetch.queue.backoff.ms": 5})
        consumer.subscribe(["transactions.orders"])
        waiting: list[tuple[float, OrderEvent]] = []
        while not self.stopping.is_set():
            message = consumer.poll(0.01)
            if message is not None and not message.error():
                order = decode(message.value())
                if order.is_first_order and order.total_amount_minor > 500_000:
                    waiting.append((time.monotonic() + DELAY_S, order))
            while waiting and waiting[0][0] <= time.monotonic():
                _, order = waiting.pop(0)
                if not (self._forgetful and order.order_id.endswith("7")):
                    store.zadd(KEYS.recent_alerts, {alert_json(alert(order)): order.event_time})
        consumer.close()


def alert(order: OrderEvent) -> FraudAlert:
    ids = (f"a-{order.order_id}", order.user_id, order.order_id)
    return FraudAlert(*ids, "HIGH_VALUE_FIRST_ORDER", 0.75, "", order.total_amount_minor, order.event_time, 0, [])


@pytest.mark.stack
@pytest.mark.parametrize("forgetful", [False, True])
def test_latency_is_that_of_the_job_and_missing_alerts_are_told(stack, forgetful, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("bench.latency._LAST_ALERT_S", 3.0)
    job = StandIn(stack, forgetful)
    job.start()
    figures = tmp_path / "figures.json"
    addresses = [f"--kafka={stack.address('kafka')}", f"--registry={stack.registry_url}", f"--redis={stack.redis_url}"]
    traffic = ["--rate=200", "--seconds=3", "--warmup=1", "--every=50"]
    try:
        status = bench.main(["latency", *addresses, *traffic, f"--json={figures}"])
    finally:
        job.stopping.set()
        job.join(10)
    told = json.loads(figures.read_text())
    assert status == int(forgetful)
    assert 40 < told["alerts"] + told["missing"] < 80
    assert (told["missing"] > 0) == forgetful
    # No upper bound: a busy machine would break it.
    assert told["ms"]["p50"] >= DELAY_S * 1000 * 0.95
    assert told["ms"]["p50"] <= told["ms"]["p90"] <= told["ms"]["p99"] <= told["ms"]["max"]
    out = capsys.readouterr().out
    assert re.search(r"p50 \d+ ms {2}p90 \d+ ms", out)
    assert "█" in out
