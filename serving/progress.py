"""How far the jobs are behind their topics, as Kafka tells it: consumer groups, which are named after the jobs.

Off unless `--kafka` names a broker. One thread per process asks every few seconds, from the first time that anybody
wants to know; what is older than three such times is not told any more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.progress import watermark_ms_of
from serving.config import Config
from serving.store import JOBS

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

__all__ = ["Committed", "Kafka", "Progress", "ProgressOfJobs", "progress", "watch"]

_LOG = logging.getLogger(__name__)
_EVERY_S = 5.0
_TIMEOUT_S = 5.0


class Committed(NamedTuple):
    """Of one partition.

    Attributes:
      offset: where the job's reader goes on.
      end: of the partition.
      watermark_ms: the reader's, None if it has none yet.
    """

    offset: int
    end: int
    watermark_ms: int | None


class Progress(NamedTuple):
    """
    Attributes:
      lag: records that a job has not read, in all its partitions.
      watermark_delay_s: now minus the smallest watermark of the partitions; None before the first record.
    """

    lag: int
    watermark_delay_s: float | None


def progress(partitions: Iterable[Committed], now_ms: int) -> Progress:
    """
    Args:
      partitions: at least one.
    """
    lag, watermarks = 0, list[int]()
    for offset, end, watermark_ms in partitions:
        lag += max(0, end - offset)
        if watermark_ms is not None:
            watermarks.append(watermark_ms)
    return Progress(lag, (now_ms - min(watermarks)) / 1000 if watermarks else None)


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
                    _LOG.warning("Kafka does not tell how far the jobs are: %s", e)
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
    return ProgressOfJobs(Kafka(config.kafka, JOBS)).now if config.kafka else dict


class Kafka:
    """Asks a cluster for the consumer groups of some jobs.

    Args:
      servers: host:port, with commas between several.
    """

    def __init__(self, servers: str, jobs: Iterable[str]):
        self._servers, self._jobs = servers, tuple(jobs)
        self._admin: AdminClient | None = None

    def __call__(self) -> dict[str, list[Committed]]:
        # Imported here: an API without `--kafka` needs none of it.
        from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
        from confluent_kafka.admin import AdminClient, OffsetSpec

        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self._servers, "log_level": 0})
        committed: dict[str, list[Any]] = {}
        try:
            for job in self._jobs:
                asked = self._admin.list_consumer_group_offsets(
                    [ConsumerGroupTopicPartitions(job)], request_timeout=_TIMEOUT_S
                )
                answer = asked[job].result(timeout=_TIMEOUT_S)
                committed[job] = [at for at in answer.topic_partitions or () if at.offset >= 0]
            places = {(at.topic, at.partition) for of_job in committed.values() for at in of_job}
            specs = {TopicPartition(*place): OffsetSpec.latest() for place in places}
            futures = self._admin.list_offsets(specs, request_timeout=_TIMEOUT_S) if specs else {}
            ends = {(at.topic, at.partition): f.result(timeout=_TIMEOUT_S).offset for at, f in futures.items()}
        except (KafkaException, TimeoutError) as e:
            raise OSError(str(e) or "no answer in time") from e
        return {
            job: [Committed(at.offset, ends[at.topic, at.partition], watermark_ms_of(at.metadata)) for at in of_job]
            for job, of_job in committed.items()
            if of_job
        }
