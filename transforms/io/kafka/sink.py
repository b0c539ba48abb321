"""Records into a topic."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import apache_beam as beam
from confluent_kafka import KafkaError, Message, Producer

__all__ = ["KafkaRecord", "WriteToKafka"]


class KafkaRecord(NamedTuple):
    """What is written: key, value, record timestamp (ms) and headers."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: list[tuple[str, bytes | None]] = []  # noqa: RUF012 - never mutated


class WriteToKafka(beam.PTransform):
    """Writes records; a bundle ends only when the broker has all of them.

    A bundle that is retried writes again: readers tell repeats by the record's own id.

    Args:
      make_encode: called once in the worker; returns the function from element to KafkaRecord.
    """

    def __init__(self, servers: str, topic: str, make_encode: Callable[[], Callable[[Any], KafkaRecord]]):
        super().__init__()
        self._fn = _WriteToKafkaFn(servers, topic, make_encode)

    def expand(self, elements: beam.PCollection[Any]) -> beam.PCollection[None]:
        return elements | "Produce" >> beam.ParDo(self._fn)


class _WriteToKafkaFn(beam.DoFn):
    _FLUSH_S = 120

    def __init__(self, servers: str, topic: str, make_encode: Callable[[], Callable[[Any], KafkaRecord]]):
        self._servers, self._topic, self._make_encode = servers, topic, make_encode

    def setup(self) -> None:
        self._encode = self._make_encode()
        self._producer = Producer(
            {
                "bootstrap.servers": self._servers,
                "enable.idempotence": True,
                "log_level": 2,
                "linger.ms": 5,
                "compression.type": "lz4",
                # A dead letter is a third larger than its record; what fits a topic is for the topic to say.
                "message.max.bytes": 10_000_000,
            }
        )

    def start_bundle(self) -> None:
        self._failed: list[KafkaError] = []

    def process(self, element: Any) -> Iterable[None]:
        record = self._encode(element)
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    key=record.key,
                    value=record.value,
                    timestamp=record.timestamp_ms,
                    headers=record.headers or None,
                    on_delivery=self._delivered,
                )
                return ()
            except BufferError:  # the local queue is full: wait for deliveries
                self._producer.poll(0.1)

    def finish_bundle(self) -> None:
        waiting = self._producer.flush(self._FLUSH_S)
        if self._failed or waiting:
            reason = self._failed[0].str() if self._failed else "no answer"
            raise RuntimeError(
                f"{waiting + len(self._failed)} records were not written to {self._topic} at {self._servers}: {reason}"
            )

    def _delivered(self, error: KafkaError | None, message: Message) -> None:  # noqa: ARG002
        if error is not None:
            self._failed.append(error)
