"""What a topic's watch makes of a cluster's answers, and of those that are slow to come."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from transforms.io.kafka.topic import TopicNow, TopicWatch

TOPIC = "orders"


class Admin:
    """A cluster with one topic; answers when it is let.

    Attributes:
      ends: partition → the offset after its last record.
      newest_ms: partition → the newest timestamp; −1 for none.
    """

    def __init__(self) -> None:
        self.id, self.ends, self.newest_ms = "first", {0: 10, 1: 10}, {0: 5, 1: -1}
        self.asked: list[tuple[Future[Any], Any]] = []

    def describe_topics(self, _: Any) -> dict[str, Future[Any]]:
        partitions = [SimpleNamespace(id=p) for p in self.ends]
        return {TOPIC: self._later(SimpleNamespace(topic_id=self.id, partitions=partitions))}

    def list_offsets(self, places: dict[TopicPartition, OffsetSpec], **_: Any) -> dict[TopicPartition, Future[Any]]:
        return {
            place: self._later(SimpleNamespace(offset=self.ends[place.partition], timestamp=self._time(place, spec)))
            for place, spec in places.items()
        }

    def _time(self, place: TopicPartition, spec: OffsetSpec) -> int:
        return self.newest_ms[place.partition] if type(spec) is type(OffsetSpec.max_timestamp()) else -1

    def _later(self, answer: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.asked.append((future, answer))
        return future

    def answer(self, error: Exception | None = None) -> None:
        for future, answer in self.asked:
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)
        self.asked = []


def watching(admin: Any, reached: dict[int, int] | None = None) -> TopicWatch:
    return TopicWatch(admin, TOPIC, 0.0, lambda: dict(reached or {}))


def test_news_are_given_once_and_waited_for_by_nobody() -> None:
    admin = Admin()
    watch = watching(admin)
    assert watch.news() is None, "asked"
    assert watch.news() is None, "not answered"
    admin.answer()
    assert watch.news() == TopicNow("first", frozenset({0, 1}))
    admin.id, admin.ends = "second", {0: 0}
    assert watch.news() is None
    admin.answer()
    assert watch.news() == TopicNow("second", frozenset({0}))


def test_a_cluster_that_does_not_answer_is_asked_again() -> None:
    admin = Admin()
    watch = watching(admin)
    watch.news()
    admin.answer(KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN)))
    assert watch.news() is None
    assert watch.news() is None
    admin.answer()
    assert watch.news() is not None


def test_the_newest_time_is_that_of_each_partition_with_records() -> None:
    admin = Admin()
    watch = watching(admin)
    watch.news()
    admin.answer()
    watch.news()
    assert watch.newest_ms() == {}
    admin.answer()
    assert watch.newest_ms() == {0: 5}
    assert watch.newest_ms() == {}, "once"


def test_a_log_is_cut_back_when_it_ends_before_what_had_been_read_when_it_was_asked() -> None:
    admin, reached = Admin(), {0: 10, 1: 10}
    watch = TopicWatch(admin, TOPIC, 0.0, lambda: dict(reached))  # type: ignore[arg-type]
    assert not watch.cut_back()
    reached[0] = 12  # while the answer is on its way
    admin.answer()
    assert not watch.cut_back()
    admin.ends = {0: 11, 1: 10}
    assert not watch.cut_back()
    admin.answer()
    assert watch.cut_back()


def test_a_broker_that_stays_behind_the_epoch_that_was_seen_has_an_older_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    admin = Admin()
    watch = watching(admin, {0: 10})
    older = KafkaException(KafkaError(KafkaError.UNKNOWN_LEADER_EPOCH))

    def asked(error: Exception | None, after_s: float) -> bool:
        assert not watch.cut_back(), "asked"
        admin.answer(error)
        now_s[0] += after_s
        return watch.cut_back()

    assert not asked(older, 1)
    now_s[0] += 9
    assert not asked(None, 1), "its leader had moved"
    assert not asked(older, 30)
    now_s[0] += 9
    assert not asked(KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN)), 5)
    assert not asked(older, 1)
    now_s[0] += 8
    assert not asked(older, 0)
    now_s[0] += 3
    assert watch.cut_back()


def test_where_nothing_was_read_nothing_is_cut_back() -> None:
    admin = Admin()
    watch = watching(admin)
    assert not watch.cut_back()
    assert not watch.cut_back()
    assert not admin.asked
