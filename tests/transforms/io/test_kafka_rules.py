"""The topic of rules: on librdkafka's mock broker, which keeps the producer's timestamps."""

from __future__ import annotations

import contextlib
import pickle
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaException, Producer

from connections.kafka import Brokers
from tests.transforms.domain.test_rule_history import a_version, an_activation
from transforms.domain.rule_history import LEAD_MS
from transforms.io.kafka import rules
from transforms.io.kafka.rules import RulesReader, RulesTopic, RulesUnknownError, write

TOPIC = "rules.fraud"


@contextlib.contextmanager
def mock_broker() -> Iterator[str]:
    """host:port."""
    owner = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "", "log_level": 0})
    owner.list_topics(TOPIC, timeout=60)
    (metadata,) = owner.list_topics(timeout=60).brokers.values()
    yield f"{metadata.host}:{metadata.port}"
    owner.flush(1)


@pytest.fixture
def broker() -> Iterator[str]:
    with mock_broker() as address:
        yield address


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_what_is_written_is_read_in_its_order_and_then_only_what_is_new(broker: str) -> None:
    reader = RulesReader(broker, TOPIC)
    empty = reader.read()
    assert (empty.versions, reader.read()) == ({}, empty)
    write(broker, TOPIC, a_version(1))
    write(broker, TOPIC, an_activation(1, 1, now_ms() + 2 * LEAD_MS))
    history = reader.read()
    assert [*history.versions] == [a.version for a in history.activations] == [1]
    assert reader.read() is history
    write(broker, TOPIC, a_version(1, who="bob"))
    assert reader.read().void == ("version 1 by bob: the number is taken",)
    assert RulesReader(broker, TOPIC).read() == reader.history, "whoever comes later reads the same"
    reader.close()


def test_an_activation_that_was_written_too_late_does_not_count(broker: str) -> None:
    reader = RulesReader(broker, TOPIC)
    write(broker, TOPIC, a_version(1))
    write(broker, TOPIC, an_activation(1, 1, now_ms() + LEAD_MS - 500))
    history = reader.read()
    assert history.activations == ()
    assert "too late" in history.void[0]
    reader.close()


def test_a_worker_knows_of_what_is_written_a_second_later(broker: str) -> None:
    topic = pickle.loads(pickle.dumps(RulesTopic(Brokers(broker), TOPIC)))
    assert topic.known(now_ms()).activations == ()
    write(broker, TOPIC, a_version(1))
    at_ms = now_ms() + LEAD_MS + 100
    write(broker, TOPIC, an_activation(1, 1, at_ms))
    deadline = time.monotonic() + 60
    while not topic.known(now_ms()).activations:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert topic.known(at_ms).at(at_ms) == 1
    assert topic.known(0) is topic.known(0)


def test_of_what_is_to_come_nobody_waits_for_more_than_now(broker: str) -> None:
    began = time.monotonic()
    RulesTopic(broker, TOPIC).known(now_ms() + 10**9)
    assert time.monotonic() - began < 60


def test_who_does_not_know_the_rules_waits_says_so_and_gives_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rules, "_GIVE_UP_S", 1.5)
    monkeypatch.setattr(rules, "_PATIENT_S", 0.2)
    topic = RulesTopic("127.0.0.1:1", TOPIC)
    with pytest.raises(RulesUnknownError, match=r"topic rules\.fraud at 127\.0\.0\.1:1: "):
        topic.known(now_ms())
    assert "waiting to know which rules are in force" in caplog.text


def test_a_broker_that_does_not_answer_is_an_error_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_TIMEOUT_S", 0.5)
    reader = RulesReader("127.0.0.1:1", TOPIC)
    with pytest.raises(KafkaException):
        reader.read()
    reader.close()
    with pytest.raises((KafkaException, TimeoutError)):
        write("127.0.0.1:1", TOPIC, a_version(1))
