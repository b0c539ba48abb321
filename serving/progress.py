"""How far the jobs are behind their topics, from Kafka's consumer groups, which are named after the jobs.

Off unless `--kafka` names a broker. From the first request on, one thread per process asks Kafka every few seconds;
figures older than three such intervals are withheld.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from connections.kafka import Connection
from connections.settings import SettingsError
from schemas.progress import Commit, commit_of
from serving.config import Config
from serving.store import JOBS

if TYPE_CHECKING:
    from confluent_kafka import Consumer
    from confluent_kafka.admin import AdminClient, OffsetSpec

__all__ = ["Committed", "Kafka", "Progress", "ProgressOfJobs", "Topic", "progress", "watch"]

_LOG = logging.getLogger(__name__)
_Place = tuple[str, int]  # topic, partition
_EVERY_S = 5.0
_TIMEOUT_S = 5.0
_ANEW_S = 20.0
"""Clients that fail for longer are replaced. After a restore from a backup they would fail for ever: they refuse its
leaders, whose epochs are older than those they have seen, and wait for a coordinator that is not there."""


class Committed(NamedTuple):
    """Of one partition.

    Attributes:
      topic: the partition's.
      start: of the partition's log.
      end: of the partition's log.
      offset: where the job's reader goes on; of a partition that it has not committed, where that begins.
      watermark_ms: the reader's; of a partition that it has not committed, the time of its first record. None if there
        is neither.
    """

    topic: str
    start: int
    end: int
    offset: int
    watermark_ms: int | None


class Topic(NamedTuple):
    """How many partitions of a topic a job reads.

    Attributes:
      empty_partitions: those that hold no records.
      truncated_partitions: those that end before the offset that the job committed. Their lag counts as 0.
    """

    partitions: int
    empty_partitions: int
    truncated_partitions: int


class Progress(NamedTuple):
    """
    Attributes:
      lag: records that a job has not read, in all its partitions.
      watermark_delay_s: now minus the smallest watermark of the partitions; None before the first record.
      topics: those that it reads, by name.
    """

    lag: int
    watermark_delay_s: float | None
    topics: dict[str, Topic]


def progress(partitions: Iterable[Committed], now_ms: int) -> Progress:
    """
    Args:
      partitions: at least one.
    """
    lag, watermarks, by_topic = 0, list[int](), dict[str, list[Committed]]()
    for partition in partitions:
        lag += max(0, partition.end - partition.offset)
        if partition.watermark_ms is not None:
            watermarks.append(partition.watermark_ms)
        by_topic.setdefault(partition.topic, []).append(partition)
    topics = {
        name: Topic(len(each), sum(p.start == p.end for p in each), sum(p.offset > p.end for p in each))
        for name, each in by_topic.items()
    }
    return Progress(lag, (now_ms - min(watermarks)) / 1000 if watermarks else None, topics)


class ProgressOfJobs:
    """
    Args:
      ask: what Kafka knows of each job that has committed; raises OSError when Kafka does not answer.
      every_s, timeout_s: how long between two questions, and how long one may take.
    """

    def __init__(
        self,
        ask: Callable[[], Mapping[str, list[Committed]]],
        every_s: float = _EVERY_S,
        timeout_s: float = _TIMEOUT_S,
    ):
        self._ask, self._every_s = ask, every_s
        self._told_for_s = 3 * every_s + timeout_s
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._known: dict[str, Progress] = {}
        self._known_at = float("-inf")
        self._failing = False

    def now(self) -> dict[str, Progress]:
        """By job; nothing before Kafka has answered, or when it has not for a while."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
                self._thread.start()
            return self._known if time.monotonic() - self._known_at <= self._told_for_s else {}

    def _run(self) -> None:
        while True:
            try:
                found = self._ask()
            except OSError as e:
                if not self._failing:  # one line an outage
                    _LOG.warning("cannot read the jobs' progress from Kafka: %s", e)
                self._failing = True
            else:
                self._failing = False
                now_ms = time.time_ns() // 1_000_000
                known = {job: progress(partitions, now_ms) for job, partitions in found.items() if partitions}
                with self._lock:
                    self._known, self._known_at = known, time.monotonic()
            time.sleep(self._every_s)


def watch(config: Config) -> Callable[[], dict[str, Progress]]:
    """What tells how far the jobs are: nothing where no broker is named."""
    return ProgressOfJobs(Kafka(config.kafka, JOBS, config.group_prefix)).now if config.kafka else dict


class Kafka:
    """Asks a cluster for the consumer groups of some jobs.

    Args:
      servers: host:port, with commas between several.
      prefix: what stands before the jobs' names in those of their groups.
    """

    def __init__(self, servers: str, jobs: Iterable[str], prefix: str = ""):
        self._servers, self._groups = servers, {job: f"{prefix}{job}" for job in jobs}
        self._connection: Connection | None = None
        self._admin: AdminClient | None = None
        self._consumers: dict[str, Consumer] = {}
        self._failing_since_s = math.inf

    def __call__(self) -> dict[str, list[Committed]]:
        """Of each job that has committed: every partition of the topics that it reads, also those it never got to."""
        # Imported here: an API without `--kafka` needs none of it.
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import OffsetSpec

        if self._admin is None or self._connection is None or self._connection.changed():
            try:
                self._connect()
            except (SettingsError, KafkaException) as e:  # such as a file that is not there, or half written
                raise OSError(str(e)) from None
        assert self._admin is not None
        assert self._connection is not None
        try:
            visible = _partitions(self._admin)
            commits = {job: _commits(consumer, visible) for job, consumer in self._consumers.items()}
            topics = {job: _topics_read(of_job) for job, of_job in commits.items()}
            read = {topic for of_job in topics.values() for topic in of_job}
            places = [place for place in visible if place[0] in read]
            starts = _offsets(self._admin, places, OffsetSpec.earliest())
            ends = _offsets(self._admin, places, OffsetSpec.latest())
            firsts = _offsets(self._admin, places, OffsetSpec.for_timestamp(0))
        except (KafkaException, TimeoutError) as e:
            why = self._connection.why(e, self._admin) or "no answer in time"
            now_s = time.monotonic()
            self._failing_since_s = min(self._failing_since_s, now_s)
            if now_s - self._failing_since_s > _ANEW_S:
                self._admin, self._failing_since_s = None, math.inf
            raise OSError(why) from e
        self._failing_since_s = math.inf
        found: dict[str, list[Committed]] = {}
        for job, of_job in commits.items():
            for place in (place for place in places if place[0] in topics[job]):
                first, start, end = firsts[place], starts[place].offset, ends[place].offset
                # Where there is no record Kafka says -1.
                untouched = (end, Commit()) if first.offset < 0 else (first.offset, Commit(first.timestamp))
                offset, commit = of_job.get(place, untouched)
                found.setdefault(job, []).append(Committed(place[0], start, end, offset, commit.watermark_ms))
        return found

    def _connect(self) -> None:
        """
        Offsets are asked for by consumers that never join their group. An AdminClient can ask for a whole group's, but
        ends the process with a segmentation fault while the group's coordinator moves (librdkafka's issue 5040).
        """
        from confluent_kafka import Consumer
        from confluent_kafka.admin import AdminClient

        connection = Connection(self._servers)
        settings = {**connection.settings, "log_level": 0}
        admin = AdminClient(settings)
        consumers = {job: Consumer({**settings, "group.id": group}) for job, group in self._groups.items()}
        former, self._consumers = self._consumers, consumers
        self._admin, self._connection = admin, connection
        for consumer in former.values():
            consumer.close()


def _partitions(admin: AdminClient) -> list[_Place]:
    """Of all topics that may be seen, but for Kafka's own."""
    topics = admin.list_topics(timeout=_TIMEOUT_S).topics
    return [(name, p) for name, topic in topics.items() if not name.startswith("__") for p in topic.partitions]


def _topics_read(commits: Mapping[_Place, tuple[int, Commit]]) -> set[str]:
    """As many as the newest commit says that the job reads: those committed last. All when it does not say.

    A group keeps what it committed of topics that the job read in earlier runs.
    """
    newest: dict[str, Commit] = {}
    for (topic, _), (_, commit) in commits.items():
        newest[topic] = max(newest.get(topic, commit), commit, key=_committed_ms)
    topics = sorted(newest, key=lambda topic: newest[topic].committed_ms, reverse=True)
    last = max(newest.values(), key=_committed_ms, default=Commit())
    return set(topics[: last.topics or None])


def _committed_ms(commit: Commit) -> int:
    return commit.committed_ms


def _commits(consumer: Consumer, places: Sequence[_Place]) -> dict[_Place, tuple[int, Commit]]:
    """Offset and what the commit says besides, where there is one."""
    from confluent_kafka import KafkaException, TopicPartition

    committed = consumer.committed([TopicPartition(*place) for place in places], timeout=_TIMEOUT_S) if places else []
    for at in committed:
        if at.error is not None:
            raise KafkaException(at.error)
    return {(at.topic, at.partition): (at.offset, commit_of(at.metadata)) for at in committed if at.offset >= 0}


def _offsets(admin: AdminClient, places: Iterable[_Place], which: OffsetSpec) -> dict[_Place, Any]:
    from confluent_kafka import TopicPartition

    specs = {TopicPartition(*place): which for place in places}
    asked = admin.list_offsets(specs, request_timeout=_TIMEOUT_S) if specs else {}
    return {(at.topic, at.partition): answer.result(timeout=_TIMEOUT_S) for at, answer in asked.items()}
