"""A topic's description when a job starts, and its changes while the job runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from connections.kafka import Connection
from transforms.io.kafka.patience import patiently

__all__ = ["KafkaTopic", "TopicNow", "TopicWatch", "with_cause"]

_LOG = logging.getLogger(__name__)
_TIMEOUT_S = 10.0
_NEWEST_EVERY_S = 1.0
# Right after a leader has moved, its broker may not know of it for a moment.
_OLDER_S = 10.0

K = TypeVar("K")


class KafkaTopic(NamedTuple):
    """A topic as it is now.

    Attributes:
      servers: host:port[,host:port].
      ends: partition → the offset after its last record.
      id: another one for a topic that was deleted and recreated.
    """

    servers: str
    name: str
    ends: dict[int, int]
    id: str

    @staticmethod
    def look_up(servers: str, name: str, timeout_s: float = _TIMEOUT_S) -> KafkaTopic:
        """Raises: KafkaException when the broker cannot be reached or has no such topic; its message is the cause."""
        connection = Connection(servers)
        consumer = Consumer({**connection.settings, "group.id": "streamforge-look-up", "log_level": 0})
        try:
            topic = consumer.list_topics(name, timeout=timeout_s).topics[name]
            if topic.error is not None:
                raise KafkaException(topic.error)
            ends = {}
            for partition in sorted(topic.partitions):
                at = TopicPartition(name, partition)  # one that was made a moment ago may have no leader yet
                _, ends[partition] = patiently(partial(consumer.get_watermark_offsets, at, timeout=timeout_s))
            admin = AdminClient({**connection.settings, "log_level": 0})
            described = patiently(
                lambda: admin.describe_topics(TopicCollection([name]))[name].result(timeout=timeout_s)
            )
            return KafkaTopic(servers, name, ends, str(described.topic_id))
        except KafkaException as e:
            raise with_cause(e, connection, consumer) from None
        finally:
            consumer.close()


def with_cause(error: KafkaException | TimeoutError, connection: Connection, client: Any) -> Exception:
    """The same error with the cause for its words, which the client's calls do not know."""
    words = connection.why(error, client)
    if isinstance(error, TimeoutError):
        return TimeoutError(words)
    return KafkaException(KafkaError((connection.heard or error.args[0]).code(), words))


class TopicNow(NamedTuple):
    """
    Attributes:
      id: another one for a topic that was deleted and made anew.
    """

    id: str
    partitions: frozenset[int]


class TopicWatch:
    """Asks the cluster about a topic, beside the reading: no answer is waited for but when the caller says so.

    Args:
      every_s: how often it asks for the topic's id and partitions, and for the ends of its log.
      reached: partition → the offset after what was read of it.
    """

    def __init__(self, admin: AdminClient, name: str, every_s: float, reached: Callable[[], dict[int, int]]):
        self._admin, self._name, self._reached = admin, name, reached
        self._described = _Question(every_s, lambda: admin.describe_topics(TopicCollection([name])))
        self._newest = _Question(_NEWEST_EVERY_S, self._ask_for_newest)
        self._partitions: frozenset[int] = frozenset()
        self._ends = _Question(every_s, self._ask_for_ends)

    def look(self) -> TopicNow:
        """The topic as it is now; waits.

        Raises: KafkaException or TimeoutError: there is no such topic, or nobody who knows.
        """
        answer = self._admin.describe_topics(TopicCollection([self._name]))[self._name].result(timeout=_TIMEOUT_S)
        self._described.answered()
        return self._now(answer)

    def news(self) -> TopicNow | None:
        """What the cluster answered last, once for each answer."""
        answers = self._described.answers()
        return self._now(answers[self._name]) if answers else None

    def newest_ms(self) -> dict[int, int]:
        """Partition → its newest record timestamp, once for each answer; without those that are empty."""
        answers = self._newest.answers() or {}
        return {partition: each.timestamp for partition, each in answers.items() if each.timestamp >= 0}

    def cut_back(self) -> bool:
        """Whether the log of a partition ended before what had been `reached` there when it was asked, or its broker is
        for a while of an earlier epoch than this client has seen: that is an older copy, and the client refuses it."""
        ended = any(end.offset < reached for (_, reached), end in (self._ends.answers() or {}).items())
        return ended or self._ends.older_for_s() > _OLDER_S

    def bounds(self, partition: int) -> tuple[int, int]:
        """The first offset of a partition's log, and that after its last; waits.

        Raises: KafkaException or TimeoutError.
        """
        specs = OffsetSpec.earliest(), OffsetSpec.latest()
        asked = [self._admin.list_offsets({TopicPartition(self._name, partition): spec}) for spec in specs]
        start, end = (f.result(timeout=_TIMEOUT_S).offset for answer in asked for f in answer.values())
        return start, end

    def _now(self, described: Any) -> TopicNow:
        self._partitions = frozenset(each.id for each in described.partitions)
        return TopicNow(str(described.topic_id), self._partitions)

    def _ask_for_ends(self) -> dict[tuple[int, int], Future[Any]]:
        """By partition and what had been reached there."""
        reached = self._reached()
        ends = self._list_offsets(reached, OffsetSpec.latest())
        return {(partition, reached[partition]): end for partition, end in ends.items()}

    def _ask_for_newest(self) -> dict[int, Future[Any]]:
        return self._list_offsets(self._partitions, OffsetSpec.max_timestamp())

    def _list_offsets(self, partitions: Iterable[int], which: OffsetSpec) -> dict[int, Future[Any]]:
        asked = {TopicPartition(self._name, p): which for p in partitions}
        if not asked:
            return {}
        found = self._admin.list_offsets(asked, request_timeout=_TIMEOUT_S)
        return {place.partition: answer for place, answer in found.items()}


class _Question(Generic[K]):
    """Asked again and again, with pauses; an answer is given out once, when it is there."""

    def __init__(self, every_s: float, ask: Callable[[], dict[K, Future[Any]]]):
        self._every_s, self._ask = every_s, ask
        self._asked: dict[K, Future[Any]] = {}
        self._next_s = float("-inf")
        self._older_since_s: float | None = None

    def answered(self) -> None:
        """Somebody else has asked just now."""
        self._asked, self._next_s = {}, time.monotonic() + self._every_s

    def answers(self) -> dict[K, Any] | None:
        if not self._asked:
            if time.monotonic() >= self._next_s:
                self._asked, self._next_s = self._ask(), time.monotonic() + self._every_s
            return None
        if not all(future.done() for future in self._asked.values()):
            return None
        asked, self._asked = self._asked, {}
        try:
            found = {key: future.result() for key, future in asked.items()}
        except KafkaException as e:
            _LOG.warning("Kafka does not answer: %s", e.args[0].str())
            if e.args[0].code() != KafkaError.UNKNOWN_LEADER_EPOCH:
                self._older_since_s = None
            elif self._older_since_s is None:
                self._older_since_s = time.monotonic()
            return None
        self._older_since_s = None
        return found

    def older_for_s(self) -> float:
        """Since when every answer was that the broker's epoch is older than the client's."""
        return 0.0 if self._older_since_s is None else time.monotonic() - self._older_since_s
