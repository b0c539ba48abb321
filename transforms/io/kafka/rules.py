"""The topic with a rule set's history: read whole, followed by each worker process, and written by people's commands.

Everything is in partition 0, as entries have one order. See `transforms.domain.rule_history`.
"""

from __future__ import annotations

import logging
import threading
import time

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from connections.kafka import Connection
from connections.settings import SettingsError
from schemas.jobs.shop import RULES_GROUP
from transforms.domain.rule_history import LEAD_MS, Entry, RuleHistory, Written, key_of
from transforms.errors import Unavailable
from transforms.io.kafka.topic import with_cause

__all__ = ["RulesReader", "RulesTopic", "RulesUnknownError", "read_rules", "why", "write"]

_LOG = logging.getLogger(__name__)
_TIMEOUT_S = 10.0
_EVERY_S = 1.0
_CLOCKS_MS = 1_000  # by how much the broker's clock may be behind a worker's
_GIVE_UP_S = 120.0
_UNUSED_S = 600.0
_PATIENT_S = 2.0  # a first read takes a moment, which is not worth a word


class RulesUnknownError(Unavailable):
    """For two minutes nobody could say which rules are in force."""


class RulesReader:
    """Reads the topic as far as it goes.

    Attributes:
      history: what was read.
    """

    def __init__(self, servers: str, topic: str):
        """Raises: SettingsError."""
        self.history = RuleHistory()
        self._connection = Connection(servers)
        self._place, self._next, self._new = TopicPartition(topic, 0), 0, list[Written]()
        self._consumer = Consumer(
            {
                **self._connection.settings,
                "group.id": RULES_GROUP,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "log_level": 2,
                "fetch.wait.max.ms": 100,
            }
        )
        self._consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])

    def read(self) -> RuleHistory:
        """The history with all that was in the topic when this was called; the same object if there is nothing new.

        Raises: KafkaException or TimeoutError, with the cause.
        """
        try:
            self._read()
        except (KafkaException, TimeoutError) as e:
            # Nothing is fetched any more after some errors.
            self._consumer.assign([TopicPartition(self._place.topic, 0, self._next or OFFSET_BEGINNING)])
            raise with_cause(e, self._connection, self._consumer) from None
        if self._new:
            self.history = self.history.after(self._new)
            self._new = []
        return self.history

    def _read(self) -> None:
        deadline_s = time.monotonic() + _TIMEOUT_S
        _, end = self._consumer.get_watermark_offsets(self._place, timeout=_TIMEOUT_S)
        if end < self._next:
            raise KafkaException(KafkaError(KafkaError.OFFSET_OUT_OF_RANGE, "the topic was deleted or cut back"))
        while self._next < end:
            failed: KafkaError | None = None
            for message in self._consumer.consume(500, 0.2):
                error = message.error()
                if error is None and message.offset() >= self._next:  # others were read before it was assigned anew
                    self._new.append(Written(message.value() or b"", message.timestamp()[1]))
                    self._next = message.offset() + 1
                    deadline_s = time.monotonic() + _TIMEOUT_S
                elif error is not None and error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:  # nobody joins it
                    failed = error if error.fatal() or not error.retriable() else failed
            if failed is not None:  # after all that was fetched: what lies behind an error does not come again
                raise KafkaException(failed)
            if time.monotonic() > deadline_s:
                raise TimeoutError("no answer in time")

    def changed(self) -> bool:
        """Whether it would connect otherwise if it were opened now."""
        return self._connection.changed()

    def close(self) -> None:
        self._consumer.close()


def read_rules(servers: str, topic: str) -> RuleHistory:
    """The history as it is now. Raises: SettingsError, KafkaException or TimeoutError, with the cause."""
    reader = RulesReader(servers, topic)
    try:
        return reader.read()
    finally:
        reader.close()


def why(error: Exception) -> str:
    """In one line."""
    reason = error.args[0] if error.args else error
    return reason.str() if isinstance(reason, KafkaError) else str(reason)


def write(servers: str, topic: str, entry: Entry) -> None:
    """Appends an entry. Whether it counts, a reader says.

    Raises: KafkaException or TimeoutError, with the cause; it may be there all the same.
    """
    connection = Connection(servers)
    producer = Producer(
        {
            **connection.settings,
            "enable.idempotence": True,
            "message.timeout.ms": int(_TIMEOUT_S * 1_000),
            "client.id": "streamforge-rules",
            "log_level": 2,
        }
    )
    refused: list[KafkaError] = []
    producer.produce(
        topic,
        msgspec.json.encode(entry),
        key_of(entry),
        partition=0,
        on_delivery=lambda error, _: refused.append(error) if error else None,
    )
    left = producer.flush(2 * _TIMEOUT_S)
    if left or refused:
        error = KafkaException(refused[0]) if refused else TimeoutError("no answer in time")
        raise with_cause(error, connection, producer)


class RulesTopic:
    """Where workers learn of the history: `transforms.live_rules.Histories`. One reader for all of a process."""

    def __init__(self, servers: str, topic: str):
        self._servers, self._topic = servers, topic

    def known(self, until_ms: int) -> RuleHistory:
        """All that takes effect by this event time, or by now if that is earlier; waits for it.

        Raises: RulesUnknownError: not within two minutes, so that the runner restarts the job from its checkpoint.
        """
        return _follower(self._servers, self._topic).known(until_ms)


class _Follower:
    """Reads the topic each second, in a thread that ends when nobody asks any more."""

    def __init__(self, servers: str, topic: str):
        self._servers, self._topic = servers, topic
        self._news = threading.Condition()
        self._history, self._known_ms, self._why = RuleHistory(), 0, "not read yet"
        self._running, self._asked_s = False, 0.0

    def known(self, until_ms: int) -> RuleHistory:
        begin_s, wait_s, said_s = time.monotonic(), 0.1, _PATIENT_S
        with self._news:
            while True:
                self._asked_s = time.monotonic()
                if not self._running:
                    self._running = True
                    threading.Thread(target=self._follow, name="rules", daemon=True).start()
                if self._known_ms >= min(until_ms, _now_ms()):
                    return self._history
                waited_s = time.monotonic() - begin_s
                if waited_s > _GIVE_UP_S:
                    raise RulesUnknownError(f"{self._name}: {self._why}")
                if waited_s > said_s:
                    said_s = 2 * waited_s
                    _LOG.warning("%s: waiting to know which rules are in force: %s", self._name, self._why)
                self._news.wait(wait_s)
                wait_s = min(2 * wait_s, 5.0)

    @property
    def _name(self) -> str:
        return f"topic {self._topic} at {self._servers}"

    def _follow(self) -> None:
        reader: RulesReader | None = None
        while True:
            began_ms = _now_ms()
            try:
                if reader is not None and reader.changed():
                    reader.close()
                    reader = None
                reader = reader or RulesReader(self._servers, self._topic)
                self._take(reader.read(), began_ms)
            except Exception as e:  # noqa: BLE001 - if the thread ended, everybody would wait for ever
                self._why = why(e)
                if not isinstance(e, KafkaException | TimeoutError | SettingsError):
                    _LOG.exception("%s: the rules cannot be read", self._name)
            with self._news:
                if time.monotonic() - self._asked_s > _UNUSED_S:
                    self._running = False
                    break
            time.sleep(_EVERY_S)
        if reader is not None:
            reader.close()

    def _take(self, history: RuleHistory, began_ms: int) -> None:
        """Whatever is written after it was begun to be read takes effect `LEAD_MS` after that at the earliest."""
        with self._news:
            if history is not self._history and history != self._history:  # not after a new connection
                for void in history.void[len(self._history.void) :]:
                    _LOG.warning("%s: does not count: %s", self._name, void)
                for each in history.activations[len(self._history.activations) :]:
                    _LOG.info("%s: version %d from %d ms on", self._name, each.version, each.effective_from_ms)
                self._history = history
            self._known_ms = began_ms + LEAD_MS - _CLOCKS_MS
            self._news.notify_all()


_followers: dict[tuple[str, str | None, str], _Follower] = {}
_followers_lock = threading.Lock()


def _follower(servers: str, topic: str) -> _Follower:
    with _followers_lock:
        key = str(servers), getattr(servers, "config", None), topic
        if key not in _followers:
            _followers[key] = _Follower(servers, topic)
        return _followers[key]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
