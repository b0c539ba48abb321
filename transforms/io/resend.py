"""Sends records back to Kafka and reports each result, for a tool that sends few and must know about every one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from connections.kafka import Connection
from transforms.io.kafka import KafkaRecord
from transforms.io.kafka.topic import with_cause

__all__ = ["CONNECT_S", "RecordSender", "Undelivered", "Unreachable", "as_ours"]

CONNECT_S = 5.0
_DELIVERY_S = 30.0
_NO_ANSWER = (KafkaError._MSG_TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._PURGE_QUEUE)


class Unreachable(Exception):
    """A broker does not answer, or no longer."""


class Undelivered(Unreachable):
    """The broker went away while records were under way.

    Attributes:
      sent: for each record, whether it is known to be there.
    """

    def __init__(self, message: str, sent: list[bool]):
        super().__init__(message)
        self.sent = sent


class RecordSender:
    """Sends records and waits for the broker to have them.

    Idempotent, not transactional: a transaction could tie records and memory together, but one that is left open by a
    crash holds back every reader of the live topic until it times out.

    Attributes:
      servers: host:port[,host:port].

    Raises:
      Unreachable.
    """

    def __init__(self, servers: str):
        self.servers = servers
        connection = Connection(servers)
        self._producer = Producer(
            {
                **connection.settings,
                "client.id": "streamforge-dead-letters",
                "enable.idempotence": True,
                "message.timeout.ms": int(_DELIVERY_S * 1_000),
                "message.max.bytes": 100_000_000,  # the broker's limit decides: it has taken the record before
                "compression.type": "lz4",
                "log_level": 0,
            }
        )
        try:
            self._partitions = {
                name: len(topic.partitions)
                for name, topic in self._producer.list_topics(timeout=CONNECT_S).topics.items()
            }
        except KafkaException as e:
            raise as_ours(with_cause(e, connection, self._producer), servers) from None

    def partitions(self, topic: str) -> int:
        """0 when there is no such topic."""
        return self._partitions.get(topic, 0)

    def send(self, records: Sequence[tuple[str, int, KafkaRecord]]) -> list[str | None]:
        """Sends records to (topic, partition; −1 is by the key) and returns what was wrong with each, None
        for those that are there.

        A batch is refused as a whole for one bad record in it, so each of those refused gets another try, alone.

        Raises: Undelivered, when it is not known of some whether they are there.
        """
        results = self._send(records)
        for i, result in enumerate(results):
            if result is not None and len(records) > 1:
                try:
                    results[i] = self._send([records[i]])[0]
                except Undelivered as e:
                    raise Undelivered(str(e), [r is None for r in results]) from e
        return results

    def _send(self, records: Sequence[tuple[str, int, KafkaRecord]]) -> list[str | None]:
        errors: list[KafkaError | str | None] = ["no answer"] * len(records)
        for i, (topic, partition, record) in enumerate(records):
            self._produce(topic, partition, record, errors, i)
        self._producer.flush(_DELIVERY_S + 5)
        unknown = [e for e in errors if isinstance(e, str) or (e is not None and e.code() in _NO_ANSWER)]
        if unknown:
            raise Undelivered(f"{self.servers} does not answer", [e is None for e in errors])
        return [e.str() if isinstance(e, KafkaError) else None for e in errors]

    def _produce(self, topic: str, partition: int, record: KafkaRecord, errors: list[Any], i: int) -> None:
        def delivered(error: KafkaError | None, _message: Message) -> None:
            errors[i] = error

        while True:
            try:
                self._producer.produce(
                    topic,
                    record.value,
                    record.key,
                    partition=partition,
                    timestamp=record.timestamp_ms,
                    headers=record.headers,
                    on_delivery=delivered,
                )
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as e:
                errors[i] = e.args[0]
                return
            else:
                return


def as_ours(error: KafkaException, servers: str, topic: str | None = None) -> Exception:
    """A client's error as LookupError (no such topic) or Unreachable."""
    reason: KafkaError = error.args[0]
    if reason.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError.TOPIC_EXCEPTION):
        return LookupError(f"the broker at {servers} has no topic {topic}")
    if reason.code() in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN):
        return Unreachable(f"no Kafka broker answers at {servers}")
    return Unreachable(f"{servers}: {reason.str()}")
