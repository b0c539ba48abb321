"""Brokers that are there, but not ready."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from transforms.io.kafka import patience
from transforms.io.kafka.patience import patiently


@pytest.mark.parametrize("code", [*patience._NOT_YET, *patience._UNHEARD_OF])
def test_a_coordinator_leader_or_topic_that_was_made_a_moment_ago_is_waited_for(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [KafkaException(KafkaError(code)), "there"]

    def ask() -> str:
        answer = answers.pop(0)
        if isinstance(answer, KafkaException):
            raise answer
        return answer

    assert patiently(ask) == "there"
    monkeypatch.setattr(patience, "_PATIENCE_S", 0)
    monkeypatch.setattr(patience, "_UNHEARD_OF_S", 0)
    answers[:] = [KafkaException(KafkaError(code))] * 3
    with pytest.raises(KafkaException):
        patiently(ask)


def test_anything_else_is_said_at_once() -> None:
    asked = []

    def ask() -> None:
        asked.append(1)
        raise KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))

    with pytest.raises(KafkaException):
        patiently(ask)
    assert len(asked) == 1
