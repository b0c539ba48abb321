"""The floor: one process, one loop, a dict. Nothing survives a crash, nothing is spread over cores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from bench.peers.detection import (
    HIGH_VALUE_MINOR,
    HORIZON_MS,
    LATENESS_MS,
    OUT_OF_ORDERNESS_MS,
    Order,
    UserOrders,
    decoder,
)
from bench.peers.report import Report, arguments


class Partition:
    """The users of one partition. Each has its own event time: a drain reads partitions at different speeds."""

    def __init__(self, workload: str, decode: Callable[[bytes], dict[str, Any]]):
        self._decode = decode
        self._hot = workload == "hot"
        self._users: dict[str, UserOrders] = {}
        self._newest = 0
        self._sweep_at = 0
        self.late = 0
        self.alerts: list[str] = []

    def process(self, payloads: list[bytes]) -> None:
        """Looks at a batch in order of its offsets."""
        decode, users, hot, alerts = self._decode, self._users, self._hot, self.alerts
        late_before = self._newest - OUT_OF_ORDERNESS_MS - LATENESS_MS
        newest = self._newest
        for payload in payloads:
            record = decode(payload)
            event_time = record["event_time"]
            newest = max(newest, event_time)
            status = record["order_status"]
            amount = record["total_amount_minor"]
            if status == "CREATED":
                if not hot and amount <= HIGH_VALUE_MINOR:
                    continue
            elif not hot or status != "CANCELLED":
                continue
            if event_time < late_before:
                self.late += 1
                continue
            user_id = record["user_id"]
            user = users.get(user_id)
            if user is None:
                user = users[user_id] = UserOrders()
            order = Order(
                event_time,
                record["order_id"],
                record["shipping_region"],
                status == "CANCELLED",
                amount,
                record["is_first_order"],
            )
            for rule, order_id in user.add(order) if hot else user.add_high(order):
                alerts.append(f"{rule} {user_id} {order_id}")
        self._newest = newest
        if newest >= self._sweep_at:
            self._sweep_at = newest + LATENESS_MS
            for user_id in [u for u, orders in users.items() if orders.newest < newest - HORIZON_MS]:
                del users[user_id]


def drain(kafka: str, registry: str, topic: str, workload: str, report: Report) -> list[str]:
    """Reads the topic to its end; returns the alerts, some of them perhaps twice."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": "bench-plain-python",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.queue.backoff.ms": 5,  # 1000 by default, which halves the rate
        }
    )
    numbers = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in numbers])
    decode = decoder(registry)
    partitions = {number: Partition(workload, decode) for number in numbers}
    reading = set(numbers)
    while reading:
        batches: dict[int, list[bytes]] = {}
        for message in consumer.consume(2_000, 0.02):
            error = message.error()
            if error is None:
                batches.setdefault(message.partition(), []).append(message.value())
            elif error.code() == KafkaError._PARTITION_EOF:
                reading.discard(message.partition())
            else:
                raise KafkaException(error)
        if batches:
            report.reading()
        for number, payloads in batches.items():
            report.events += len(payloads)
            partitions[number].process(payloads)
    consumer.close()
    return [alert for partition in partitions.values() for alert in partition.alerts]


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    report = Report()
    alerts = drain(options.kafka, options.registry, options.topic, options.workload, report)
    report.finish(alerts, options.alerts)


if __name__ == "__main__":
    main()
