"""Writes records to a topic. A record that the broker rejects costs only itself; on any other failure all wait."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow, GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from connections.kafka import Connection
from connections.refused import OF_THE_RECORD
from transforms.errors import BadRecord, SinkLetters
from transforms.io.kafka.limits import message_limit
from transforms.letter_envelopes import envelopes

__all__ = ["KafkaRecord", "WriteLettersToKafka", "WriteToKafka"]

_FLUSH_S = 120
_UNREAD = 10_000_000  # the client's limit when the topic's may not be read: then each try shows whether it fits
_BATCH_BYTES = 256  # what a batch and a record in it have beside key and value
_KEY_BYTES = 1_024  # of a letter's key on Kafka; the envelope has all of it
# A batch is refused whole: for another record in it, too.
_OF_THE_RECORDS = OF_THE_RECORD | {KafkaError._INVALID_DIFFERENT_RECORD}


class KafkaRecord(NamedTuple):
    """What is written: key, value, record timestamp (ms) and headers."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: list[tuple[str, bytes | None]] = []  # noqa: RUF012 - never mutated


class WriteToKafka(beam.PTransform):
    """Writes records; a bundle ends only when the broker has all of them, but for those that it refuses.

    A bundle that is retried writes again: readers tell repeats by the record's own id.

    Input:  elements, in any windows.
    Output: BadRecord of stage `kafka`: records that the topic takes from nobody, as they are too large. One whose
            timestamp it does not take is written with the time of now.
    Raises: in workers, RuntimeError while the broker cannot be reached or used: the runner tries again.

    Args:
      make_encode: called once in the worker; returns the function from element to KafkaRecord.
      job: name written into dead letters.
    """

    def __init__(self, servers: str, topic: str, make_encode: Callable[[], Callable[[Any], KafkaRecord]], job: str):
        super().__init__()
        self._fn = _WriteRecordsFn(servers, topic, make_encode, job)

    def expand(self, elements: beam.PCollection[Any]) -> beam.PCollection[BadRecord]:
        refused = elements | "AllTime" >> beam.WindowInto(GlobalWindows()) | "Produce" >> beam.ParDo(self._fn)
        refused.element_type = BadRecord
        return refused


class WriteLettersToKafka(beam.PTransform):
    """Writes dead letters or late records, each as whole as the topic takes it: see `transforms.letter_envelopes`.

    Input:  BadRecord.
    Raises: as `WriteToKafka`, and when the topic refuses also the last rung of the ladder.
    """

    def __init__(self, servers: str, topic: str):
        super().__init__()
        self._fn = _WriteLettersFn(servers, topic)

    def expand(self, letters: beam.PCollection[BadRecord]) -> beam.PCollection[None]:
        return letters | "Produce" >> beam.ParDo(self._fn)


class _Try:
    """An element on its way.

    Attributes:
      record: as it is sent now.
      others: how else it could be sent, should the broker refuse that.
      error: why it did.
    """

    __slots__ = ("element", "error", "others", "record")

    def __init__(self, element: Any, tries: Iterator[KafkaRecord]):
        self.element, self.record, self.others = element, next(tries), tries
        self.error: KafkaError | None = None


class _ProduceFn(beam.DoFn):
    """What the two have in common."""

    def __init__(self, servers: str, topic: str):
        self._servers, self._topic = servers, topic

    def tries(self, element: Any) -> Iterator[KafkaRecord]:
        """How an element can be written, best first; at least one."""
        raise NotImplementedError

    def refuse(self, this: _Try) -> Iterator[BadRecord]:
        """What becomes of an element of which every try was refused."""
        raise NotImplementedError

    def setup(self) -> None:
        self.limit = message_limit(self._servers, self._topic) or _UNREAD
        self._open()

    def _open(self) -> None:
        self._connection = Connection(self._servers, lasting=True)
        self._producer = Producer(
            {
                **self._connection.settings,
                "enable.idempotence": True,
                "log_level": 2,
                "linger.ms": 5,
                "compression.type": "lz4",
                # A batch has no more than one record may have, or the broker would refuse many that are good.
                "message.max.bytes": self.limit,
            }
        )

    def start_bundle(self) -> None:
        self._refused: list[_Try] = []
        if self._connection.changed():  # between two bundles nothing is under way
            self._open()

    def process(self, element: Any) -> Iterable[Any]:
        self._produce(_Try(element, self.tries(element)))
        return ()

    def finish_bundle(self) -> Iterator[Any]:
        for refused in self._flush():
            # A batch is refused whole for one record in it: so the same once more, alone.
            for record in itertools.chain([refused.record], refused.others):
                refused.record, refused.error = record, None
                self._produce(refused)
                if not self._flush():
                    break
            else:
                for bad in self.refuse(refused):
                    yield WindowedValue(bad, GlobalWindow().start, [GlobalWindow()])

    def _produce(self, this: _Try) -> None:
        def delivered(error: KafkaError | None, _message: Message | None) -> None:
            if error is not None:
                this.error = error
                self._refused.append(this)

        record = this.record
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    key=record.key,
                    value=record.value,
                    timestamp=record.timestamp_ms,
                    headers=record.headers or None,
                    on_delivery=delivered,
                )
            except BufferError:  # the local queue is full: wait for deliveries
                self._producer.poll(0.1)
            except KafkaException as e:
                return delivered(e.args[0], None)
            else:
                return None

    def _flush(self) -> list[_Try]:
        """Waits for the broker; returns what it refused.

        Raises: RuntimeError when it did not answer, or refuses whatever is sent.
        """
        waiting = self._producer.flush(_FLUSH_S)
        refused, self._refused = self._refused, []
        errors = [this.error for this in refused if this.error and this.error.code() not in _OF_THE_RECORDS]
        if errors or waiting:
            self.fail(self._connection.why(errors[0] if errors else "no answer"), waiting + len(errors))
        return refused

    def fail(self, reason: str, records: int = 1) -> None:
        raise RuntimeError(f"{records} records were not written to {self._topic} at {self._servers}: {reason}")


class _WriteRecordsFn(_ProduceFn):
    def __init__(self, servers: str, topic: str, make_encode: Callable[[], Callable[[Any], KafkaRecord]], job: str):
        super().__init__(servers, topic)
        self._make_encode = make_encode
        self._letters = SinkLetters(job, "kafka", f"kafka://{servers}/{topic}")

    def setup(self) -> None:
        super().setup()
        self._encode = self._make_encode()

    def tries(self, element: Any) -> Iterator[KafkaRecord]:
        record = self._encode(element)
        yield record
        yield record._replace(timestamp_ms=time.time_ns() // 1_000_000)

    def refuse(self, this: _Try) -> Iterator[BadRecord]:
        record, error = this.record, this.error
        assert error
        message = f"a record of {len(record.value or b''):,} bytes: {error.str()}; the topic takes {self.limit:,}"
        more = {"key": record.key, "timestamp": record.timestamp_ms, "headers": record.headers}
        yield self._letters.letter(record.value, error.name(), message, **more)


class _WriteLettersFn(_ProduceFn):
    def tries(self, element: BadRecord) -> Iterator[KafkaRecord]:
        key = element.key and element.key[:_KEY_BYTES]
        for envelope in envelopes(element, self.limit - _BATCH_BYTES - len(key or b"")):
            # Stamped with when it was seen, so that retention counts from then and not from an event time long ago.
            yield KafkaRecord(key, envelope, element.seen_at)

    def refuse(self, this: _Try) -> Iterator[BadRecord]:
        self.fail(f"not even a letter of {len(this.record.value or b''):,} bytes: {this.error}")
        yield from ()
