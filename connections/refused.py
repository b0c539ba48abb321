"""What a Kafka broker says of a record, whoever sends it and however often. All else is about the broker, the topic or
us, and another try may succeed."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError

__all__ = ["OF_THE_RECORD"]

OF_THE_RECORD: Final = frozenset(
    [
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
    ]
)
