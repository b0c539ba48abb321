"""What takes the place of confluent_kafka's Consumer and AdminClient: the methods that `transforms.io.kafka` calls."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message, TopicPartition

from simulation.clock import Clock
from simulation.log import PartitionLog, Record, Topic

__all__ = ["Cluster"]

_OUT_OF_RANGE = "fetch failed due to requested offset not available on the broker: Broker: Offset out of range"
_UNKNOWN = -1


class Cluster:
    """
    Attributes:
      random: what this action's chances are drawn from.
      trouble: errors of the next fetches: retriable ones.
      away: how many of the next questions get no answer.
      seen: is told what befalls the clients, for counters.
    """

    def __init__(self, topic: Topic, clock: Clock, seen: Callable[[str], None]):
        self.topic, self.clock, self.seen = topic, clock, seen
        self.random = random.Random(0)
        self.trouble = self.away = 0
        self.committed: dict[int, int] = {}

    def consumer(self, _settings: dict[str, Any]) -> _Consumer:
        return _Consumer(self)

    def admin(self, _settings: dict[str, Any]) -> _Admin:
        return _Admin(self)


class _Place:
    """Where a consumer is in a partition.

    Attributes:
      epoch: of the last record that was read.
      leader: the newest epoch that was heard of.
      high: the log's end when something was fetched last.
      at_end: whether the end was reported since something came.
    """

    __slots__ = ("at_end", "epoch", "high", "leader", "offset", "stopped", "validated")

    def __init__(self, offset: int, epoch: int):
        self.offset, self.epoch = offset, epoch
        self.leader = self.validated = self.high = _UNKNOWN
        self.at_end = self.stopped = False


class _Consumer:
    def __init__(self, cluster: Cluster):
        self._cluster = cluster
        self._places: dict[int, _Place] = {}

    def incremental_assign(self, places: Iterable[TopicPartition]) -> None:
        for place in places:
            epoch = place.leader_epoch
            offset = _UNKNOWN if place.offset == OFFSET_BEGINNING else place.offset
            self._places[place.partition] = _Place(offset, _UNKNOWN if epoch is None else epoch)

    def incremental_unassign(self, places: Iterable[TopicPartition]) -> None:
        for place in places:
            del self._places[place.partition]

    def consume(self, most: int, timeout: float) -> list[Message]:
        cluster = self._cluster
        if cluster.trouble:
            cluster.trouble -= 1
            cluster.seen("a fetch failed")
            cluster.clock.sleep(timeout)
            return [self._error(0, KafkaError._TRANSPORT, "broker is down")] if self._places else []
        found: list[Message] = []
        for partition in cluster.random.sample(sorted(self._places), len(self._places)):
            if cluster.random.random() < 0.8:
                found += self._fetch(partition, min(most - len(found), cluster.random.choice((1, 3, 10, 100))))
        cluster.clock.sleep(timeout if found else cluster.random.choice((timeout, 0.3)))
        return found

    def _fetch(self, partition: int, most: int) -> list[Message]:
        place, logs = self._places[partition], self._cluster.topic.partitions
        if place.stopped or most <= 0:
            return []
        if partition >= len(logs):
            return [self._error(partition, KafkaError.UNKNOWN_TOPIC_OR_PART, "no such partition")]
        log = logs[partition]
        if log.epoch < place.leader:  # as of a copy of the log: librdkafka insists on what it knows
            self._cluster.seen("a connection knows a newer leader than there is")
            return []
        place.leader = log.epoch
        if (wrong := self._is_wrong(place, log)) is not None:
            place.stopped = True
            return [self._error(partition, KafkaError._AUTO_OFFSET_RESET, wrong)]
        if place.offset == _UNKNOWN:
            place.offset = log.start
        records, after = log.read(place.offset, most)
        place.high = log.end
        messages = [self._message(record) for record in records]
        if after > place.offset:
            place.epoch = log.records[after - 1 - log.start].epoch  # of the last batch, also if nobody may read it
        place.offset = after
        if records:
            place.at_end = False
        elif after >= log.stable_end and not place.at_end:
            place.at_end = True
            if log.stable_end < log.end:
                self._cluster.seen("a transaction holds records back")
            messages.append(self._error(partition, KafkaError._PARTITION_EOF, "end", after))
        return messages

    @staticmethod
    def _is_wrong(place: _Place, log: PartitionLog) -> str | None:
        if place.offset == _UNKNOWN:
            return None
        if place.epoch != _UNKNOWN and place.validated != log.epoch:
            if place.epoch > log.epoch:
                return "unable to validate offset: the leader does not know the epoch"
            end = log.end_of_epoch(place.epoch)
            if end < place.offset:
                return f"Partition log truncation detected at offset {place.offset}: broker end offset is {end}"
            place.validated = log.epoch
        return None if log.start <= place.offset <= log.end else _OUT_OF_RANGE

    def _message(self, record: Record) -> Message:
        return Message(
            topic=self._cluster.topic.name,
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            value=record.value,
            timestamp=(1, record.time_ms),
            leader_epoch=record.epoch,
        )

    def _error(self, partition: int, code: int, words: str, offset: int = 0) -> Message:
        error = KafkaError(code, words, False, code == KafkaError._TRANSPORT)
        return Message(topic=self._cluster.topic.name, partition=partition, offset=offset, error=error)

    def get_watermark_offsets(self, place: TopicPartition, *, cached: bool) -> tuple[int, int]:  # noqa: ARG002
        return 0, self._places[place.partition].high if place.partition in self._places else _UNKNOWN

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:  # noqa: ARG002
        self._cluster.committed.update((place.partition, place.offset) for place in offsets)

    def poll(self, _timeout: float) -> None:
        return None

    def close(self) -> None:
        self._places.clear()


class _Admin:
    """Answers at once, or not at all."""

    def __init__(self, cluster: Cluster):
        self._cluster = cluster

    def describe_topics(self, topics: Any) -> dict[str, Future[Any]]:  # noqa: ARG002
        topic = self._cluster.topic
        partitions = [SimpleNamespace(id=number) for number in range(len(topic.partitions))]
        return {topic.name: self._answer(SimpleNamespace(topic_id=topic.id, partitions=partitions))}

    def list_offsets(
        self,
        asked: dict[TopicPartition, Any],
        request_timeout: float = 0.0,  # noqa: ARG002
    ) -> dict[TopicPartition, Future[Any]]:
        return {place: self._answer(self._offset(place.partition, spec)) for place, spec in asked.items()}

    def _offset(self, partition: int, spec: Any) -> Any:
        log = self._cluster.topic.partitions[partition]
        match type(spec).__name__:
            case "EarliestSpec":
                return SimpleNamespace(offset=log.start, timestamp=-1)
            case "LatestSpec":
                return SimpleNamespace(offset=log.end, timestamp=-1)
        newest = max((r.time_ms for r in log.records), default=-1)
        return SimpleNamespace(offset=-1, timestamp=newest)

    def _answer(self, value: Any) -> Future[Any]:
        answer: Future[Any] = Future()
        if self._cluster.away:
            self._cluster.away -= 1
            self._cluster.seen("a question to the cluster got no answer")
            answer.set_exception(KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer", False, True)))
        else:
            answer.set_result(value)
        return answer

    def poll(self, _timeout: float) -> None:
        return None
