"""Fetches the originals of records too large for their dead letters."""

from __future__ import annotations

import time
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from connections.kafka import Connection
from transforms.errors import BadRecord
from transforms.io.kafka.headers import headers_of_message
from transforms.io.resend import CONNECT_S, Unreachable, as_ours
from transforms.letter_envelopes import Cut

__all__ = ["Gone", "Original", "Originals"]

_ANSWER_S = 30.0
_GONE = (KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART)


class Gone(Exception):
    """The record is not where the letter says, or no longer; the message says why, after "it"."""


class Original(NamedTuple):
    """What a letter lacks of its record."""

    payload: bytes
    key: bytes | None
    headers: list[tuple[str, bytes | None]]


class Originals:
    """Fetches records from a broker, one at a time."""

    def __init__(self, servers: str):
        self._servers = servers
        self._consumer: Consumer | None = None

    def fetch(self, record: BadRecord, cut: Cut) -> Original:
        """
        Raises:
          Gone.
          Unreachable.
        """
        consumer = self._open()
        at = TopicPartition(record.topic, record.partition, record.offset)
        try:
            low, high = consumer.get_watermark_offsets(at, timeout=CONNECT_S)
        except KafkaException as e:
            if e.args[0].code() in _GONE:
                raise Gone("was in a topic that is gone") from e
            raise as_ours(e, self._servers, record.topic) from e
        if not low <= record.offset < high:
            raise Gone("is no longer in its topic")
        message = self._read(consumer, at)
        payload = message.value() or b""
        if message.offset() != record.offset or not cut.fits(payload):
            raise Gone("is no longer in its topic: another record lies there")
        return Original(payload, message.key(), headers_of_message(message) or [])

    def _open(self) -> Consumer:
        if self._consumer is None:
            self._consumer = Consumer(
                {
                    **Connection(self._servers).settings,
                    "group.id": "streamforge-originals",
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "auto.offset.reset": "error",
                    "queued.max.messages.kbytes": 2_048,  # one record is wanted, whatever comes after it
                    "log_level": 0,
                }
            )
        return self._consumer

    def _read(self, consumer: Consumer, at: TopicPartition) -> Message:
        consumer.assign([at])
        give_up = time.monotonic() + _ANSWER_S
        try:
            while time.monotonic() < give_up:
                message = consumer.poll(0.5)
                if message is not None and message.error() is None:
                    return message
                if message is not None and message.error().code() in (*_GONE, KafkaError._AUTO_OFFSET_RESET):
                    raise Gone("is no longer in its topic")
        finally:
            consumer.unassign()
        raise Unreachable(f"{self._servers} has not answered for {_ANSWER_S:.0f} s")
