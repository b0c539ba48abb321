"""Records to Kafka, and whether they are there: acks=all, idempotent, and an answer within a deadline.

Nothing stays behind in this process: a record is there, is refused, or its fate is unknown, and whoever sent it was
told. So there is nothing to flush at the end either.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from connections.kafka import Connection
from connections.refused import OF_THE_RECORD
from connections.settings import SettingsError

if TYPE_CHECKING:
    from confluent_kafka import Message

__all__ = ["Deliveries", "Failed", "Outgoing", "Placed", "Unreachable"]

_LOG = logging.getLogger(__name__)

DELIVERY_S: Final = 4.0
"""Shopify waits 5 s for an answer."""
_GRACE_S: Final = 1.0
_POLL_S: Final = 0.5


class Unreachable(Exception):
    """Kafka did not answer a moment ago, so that nothing was sent."""


class Outgoing(NamedTuple):
    topic: str
    key: bytes | None
    value: bytes
    timestamp_ms: int


class Placed(NamedTuple):
    partition: int
    offset: int


class Failed(NamedTuple):
    """
    Attributes:
      of_the_record: whether the topic takes it from nobody; otherwise it may even be there.
    """

    error: str
    of_the_record: bool


class _Batch:
    """What is waited for together."""

    def __init__(self, size: int):
        self.outcomes: list[Placed | Failed] = [Failed("no answer in time", of_the_record=False)] * size
        self._left, self._lock, self._settled = size, threading.Lock(), threading.Event()

    def settle(self, number: int, outcome: Placed | Failed) -> None:
        with self._lock:
            self.outcomes[number] = outcome
            self._left -= 1
            if not self._left:
                self._settled.set()

    def wait(self, seconds: float) -> None:
        self._settled.wait(seconds)


class Deliveries:
    """One producer for all threads of a process, opened with the first record: the process that forks has none.

    Args:
      pause_s: for so long after a topic did not confirm a record, nothing is sent to it.
    """

    def __init__(self, servers: str, pause_s: float, delivery_s: float = DELIVERY_S):
        self._servers, self._pause_s, self._delivery_s = servers, pause_s, delivery_s
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._connection: Connection | None = None
        self._away_until: dict[str, float] = {}  # by topic

    def send(self, records: Sequence[Outgoing]) -> list[Placed | Failed]:
        """What became of each, in order; within five seconds.

        Raises: Unreachable.
        """
        if not records:
            return []
        now_s = time.monotonic()
        if any(now_s < self._away_until.get(record.topic, 0.0) for record in records):
            raise Unreachable
        try:
            producer, batch = self._open(), _Batch(len(records))
        except (SettingsError, KafkaException) as e:  # a file that was right at the start, and is no more
            _LOG.error("--kafka_config: %s", e)
            raise Unreachable from None
        for number, record in enumerate(records):
            self._produce(producer, record, partial(batch.settle, number))
        batch.wait(self._delivery_s + _GRACE_S)
        outcomes = list(batch.outcomes)
        lost = {
            record.topic: outcome.error
            for record, outcome in zip(records, outcomes, strict=True)
            if isinstance(outcome, Failed) and not outcome.of_the_record
        }
        self._away_until.update(dict.fromkeys(lost, time.monotonic() + self._pause_s))
        for topic, error in lost.items():
            _LOG.warning("Kafka at %s did not confirm records of %s: %s", self._servers, topic, error)
        return outcomes

    def _open(self) -> Producer:
        with self._lock:
            if self._producer is None or self._connection is None or self._connection.changed():
                self._connection = Connection(self._servers, lasting=True)
                self._producer = Producer(
                    {
                        **self._connection.settings,
                        "client.id": "streamforge-events",
                        "acks": "all",
                        "enable.idempotence": True,
                        "compression.type": "lz4",
                        "linger.ms": 2,
                        "message.timeout.ms": int(self._delivery_s * 1000),
                        "log_level": 0,
                    }
                )
                threading.Thread(target=self._call_back, args=(self._producer,), name="deliveries", daemon=True).start()
            return self._producer

    def _call_back(self, producer: Producer) -> None:
        """Tells what became of records; of a producer that was replaced, until none is under way."""
        while self._producer is producer or len(producer):
            producer.poll(_POLL_S)

    def _produce(self, producer: Producer, record: Outgoing, settle: Callable[[Placed | Failed], None]) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            settle(Placed(message.partition(), message.offset()) if error is None else self._failed(producer, error))

        try:
            producer.produce(
                record.topic, record.value, record.key, timestamp=record.timestamp_ms, on_delivery=delivered
            )
        except BufferError:
            settle(Failed("too many records are on their way", of_the_record=False))
        except KafkaException as e:
            settle(self._failed(producer, e.args[0]))

    def _failed(self, producer: Producer, error: KafkaError) -> Failed:
        # Of an idempotent producer, for good: the next request opens another. What produce() raises has the code alone.
        if error.fatal() or error.code() == KafkaError._FATAL:
            with self._lock:
                if self._producer is producer:
                    self._producer = None
        return Failed(error.str(), error.code() in OF_THE_RECORD)
