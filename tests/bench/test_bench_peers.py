"""The peers find exactly what DESIGN.md's words say: a brute-force reading of them is the judge."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import contestants
from bench.measure import Result, measure
from bench.orders import Spec, fill, generate
from bench.peers.detection import HIGH_VALUE_MINOR, Order, UserOrders
from bench.topics import end_offsets
from schemas.events import OrderEvent
from stack import Stack
from stack.java import java

MINUTE_MS = 60_000
# Over two hours of event time, so that users are forgotten and come back; with repeated deliveries.
SPEC = Spec(orders=20_000, users=2_000, rate=3, seed=3, duplicates=200)


def expected(events: list[OrderEvent]) -> set[str]:
    """Every rule by the words of "Fraud semantics", comparing each order with all earlier ones of its user."""
    found = set()
    for user_id, of_user in by_user(events).items():
        created = [e for e in of_user if e.order_status == "CREATED"]
        cancelled = [e for e in of_user if e.order_status == "CANCELLED"]
        high = [e for e in created if e.total_amount_minor > 500_000]
        found |= {f"HIGH_VALUE_BURST {user_id} {o}" for o in completing(high, 3, 5 * MINUTE_MS)}
        found |= {f"RAPID_ORDERS {user_id} {o}" for o in completing(created, 3, 5 * MINUTE_MS)}
        found |= {f"SUSPICIOUS_PATTERN {user_id} {o}" for o in completing(cancelled, 3, 30 * MINUTE_MS)}
        found |= {f"HIGH_VALUE_FIRST_ORDER {user_id} {e.order_id}" for e in high if e.is_first_order}
        for i, order in enumerate(created):
            before = [e for e in created[:i] if order.event_time - e.event_time <= 10 * MINUTE_MS]
            if any(e.shipping_region != order.shipping_region for e in before):
                found.add(f"LOCATION_ANOMALY {user_id} {order.order_id}")
    return found


def by_user(events: list[OrderEvent]) -> dict[str, list[OrderEvent]]:
    """Each user's orders by (event_time, order_id); the same order with the same status counts once."""
    users: dict[str, dict[tuple[str, str], OrderEvent]] = defaultdict(dict)
    for event in events:
        users[event.user_id][event.order_id, event.order_status] = event
    return {u: sorted(of.values(), key=lambda e: (e.event_time, e.order_id)) for u, of in users.items()}


def completing(orders: list[OrderEvent], count: int, span_ms: int) -> Iterator[str]:
    for i, order in enumerate(orders):
        if sum(order.event_time - e.event_time <= span_ms for e in orders[: i + 1]) >= count:
            yield order.order_id


@pytest.fixture(scope="module")
def services(tmp_path_factory) -> Iterator[tuple[str, str]]:
    with Stack(tmp_path_factory.mktemp("stack"), ["kafka", "registry"], ports="free") as stack:
        yield stack.address("kafka"), stack.registry_url


@pytest.fixture(scope="module")
def topic(services) -> str:
    return fill(*services, SPEC)


@pytest.fixture(scope="module")
def every_alert() -> set[str]:
    return expected(list(generate(SPEC).events()))


@pytest.fixture(scope="module")
def flink_jar() -> Path:
    return contestants.flink_jar()


def test_the_data_set_has_alerts_of_every_rule_and_orders_without(every_alert):
    rules = {alert.split()[0] for alert in every_alert}
    assert rules == {
        "HIGH_VALUE_BURST",
        "RAPID_ORDERS",
        "HIGH_VALUE_FIRST_ORDER",
        "LOCATION_ANOMALY",
        "SUSPICIOUS_PATTERN",
    }
    assert 200 < len(every_alert) < SPEC.orders / 4


def order(minutes: float, order_id: str = "o", region: str = "TR-34", amount: int = 1, **more: bool) -> Order:
    fields = {"cancelled": False, "is_first": False, **more}
    return Order(int(minutes * MINUTE_MS), order_id, region, fields["cancelled"], amount, fields["is_first"])


def test_an_order_that_arrives_late_completes_the_pattern_of_a_later_one():
    user = UserOrders()
    assert user.add(order(100, "a")) == []
    assert user.add(order(105, "c")) == []
    assert user.add(order(103, "b")) == [("RAPID_ORDERS", "c")]


def test_spans_are_inclusive_and_amounts_strict():
    user = UserOrders()
    rules = [
        rule
        for i, minutes in enumerate((100, 101, 105))
        for rule, _ in user.add(order(minutes, str(i), amount=HIGH_VALUE_MINOR))
    ]
    assert rules == ["RAPID_ORDERS"]
    user = UserOrders()
    for minutes in (100, 101):
        user.add(order(minutes, str(minutes), amount=HIGH_VALUE_MINOR + 1))
    assert user.add(order(105 + 1 / MINUTE_MS, "x", amount=HIGH_VALUE_MINOR + 1)) == []


def test_of_orders_at_the_same_instant_the_last_by_id_completes():
    user = UserOrders()
    alerts = [alert for order_id in ("c", "a", "b") for alert in user.add(order(100, order_id))]
    assert alerts == [("RAPID_ORDERS", "c")]


def test_a_repeated_order_counts_once():
    user = UserOrders()
    assert [alert for order_id in ("a", "b", "a", "b") for alert in user.add(order(100, order_id))] == []


def test_a_user_is_not_remembered_for_longer_than_can_matter():
    user = UserOrders()
    for minutes in range(0, 1_000, 2):
        user.add(order(minutes, f"{minutes:04}"))
    assert len(user.created) <= 21


@pytest.mark.stack
@pytest.mark.parametrize("peer", contestants.PEERS)
def test_a_peer_finds_exactly_the_alerts_of_all_rules(peer, services, topic, every_alert, flink_jar, tmp_path):
    result = run(peer, "hot", services, topic, tmp_path)
    assert set(result.alerts) == every_alert
    assert result.events == SPEC.records


@pytest.mark.stack
@pytest.mark.parametrize("peer", contestants.PEERS)
def test_a_peer_finds_exactly_the_alerts_of_the_one_rule(peer, services, topic, every_alert, flink_jar, tmp_path):
    result = run(peer, "filter", services, topic, tmp_path)
    assert set(result.alerts) == {alert for alert in every_alert if alert.startswith("HIGH_VALUE_BURST ")}
    assert result.events == SPEC.records
    assert 0 < result.read_seconds < result.seconds
    assert result.cpu_seconds > 0.1
    assert result.peak_mb > 20


@pytest.mark.stack
def test_the_flink_peer_takes_checkpoints(services, topic, every_alert, flink_jar, tmp_path):
    kafka, registry = services
    flags = ["--kafka", kafka, "--registry", registry, "--topic", topic, "--workload", "hot", "--checkpoint-ms", "50"]
    alerts = tmp_path / "alerts.txt"
    command = [java(), "-jar", str(flink_jar), *flags, "--folder", str(tmp_path), "--alerts", str(alerts)]
    usage = measure(command, tmp_path / "log.txt", timeout_s=120)
    assert json.loads(usage.output)["checkpoints"] > 0
    assert set(alerts.read_text().splitlines()) == every_alert


@pytest.mark.stack
def test_a_filled_topic_is_kept(services, topic):
    before = end_offsets(services[0], topic)
    said: list[str] = []
    assert fill(*services, SPEC, say=said.append) == topic
    assert end_offsets(services[0], topic) == before
    assert "already" in said[0]


@pytest.mark.stack
def test_a_topic_with_other_records_is_filled_anew(services):
    kafka, registry = services
    fill(kafka, registry, Spec(100, 10, 10), topic="refilled")
    fill(kafka, registry, Spec(150, 10, 10), topic="refilled")
    assert sum(end - begin for begin, end in end_offsets(kafka, "refilled")) == 150


def run(peer: str, workload: str, services: tuple[str, str], topic: str, folder: Path) -> Result:
    return contestants.run(peer, workload, *services, topic, folder, timeout_s=120)
