"""Questions that a broker answers in a moment, when it does not yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

__all__ = ["patiently"]

# What the broker, and the client, say of what was made a moment ago: a topic's leader, a group's coordinator.
_NOT_YET = (
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
    KafkaError._WAIT_COORD,
    KafkaError._TIMED_OUT,
)
_PATIENCE_S = 60.0
# A topic that was made a moment ago: its broker does not know it yet. Most often it is a wrong name, so not for long.
_UNHEARD_OF = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)
_UNHEARD_OF_S = 10.0

T = TypeVar("T")


def patiently(ask: Callable[[], T], not_yet: Collection[int] = _NOT_YET) -> T:
    """What a broker that is there answers, as soon as it can.

    Args:
      not_yet: errors for which it is asked for a minute; for a topic that it does not know, it is for ten seconds.

    Raises: KafkaException: it cannot, or not in that time.
    """
    begin = time.monotonic()
    while True:
        try:
            return ask()
        except KafkaException as e:
            code = e.args[0].code()
            patience_s = _PATIENCE_S if code in not_yet else _UNHEARD_OF_S if code in _UNHEARD_OF else -1.0
            if time.monotonic() - begin > patience_s:
                raise
            time.sleep(0.2)
