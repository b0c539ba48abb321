"""What a replay sends of each letter, and what it does not send, with the reason."""

from __future__ import annotations

import re
import time
from collections import Counter

import msgspec

from beam_pipelines.letter_flags import MAX_ATTEMPTS
from beam_pipelines.letter_text import printable
from beam_pipelines.sinks import KafkaUrl
from transforms.errors import ATTEMPTS_HEADER, BadRecord
from transforms.io.dead_letters import Identity, Letter
from transforms.io.kafka import KafkaRecord
from transforms.io.kafka.limits import topic_settings
from transforms.io.originals import Gone, Originals
from transforms.io.resend import RecordSender, Unreachable

__all__ = ["TIMESTAMP_HEADER", "Plan", "whole"]

TIMESTAMP_HEADER = "streamforge-timestamp"
"""The record's own timestamp (ms), when it is so old that its topic would delete the record at once."""
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)
_NOT_RECORDS = {
    "bigquery": "is a row that BigQuery did not take, not a record: load it there",
    "kafka": "is a result that its topic did not take, not a record: write it there",
    "redis": "is a row that the store did not take, not a record",
}


class Plan:
    """
    Args:
      to: send all of them there; None: where they came from.
      originals: where records lie of which a letter has the head alone.
      most: as many are sent, the first that are found; None: all.

    Attributes:
      sends, skips: letters by topic, and by the reason for leaving them.
      beyond_max: letters that are left because of `most`.
    """

    def __init__(self, to: KafkaUrl | None, sender: RecordSender, originals: Originals, most: int | None = None):
        self._to, self._sender, self._originals, self._most = to, sender, originals, most
        self._these: set[Identity] = set()
        self.beyond_max = 0
        self._kept_ms: dict[str, int] = {}
        self.sends: Counter[str] = Counter()
        self.skips: Counter[str] = Counter()

    def add(self, letter: Letter) -> bool:
        reason = self.why_not(letter)
        if reason is not None:
            self.skips[reason] += 1
            return False
        if self._most is not None:
            if len(self._these) == self._most:
                self.beyond_max += 1
                return False
            self._these.add(letter.identity)
        self.sends[self.topic(letter)] += 1
        return True

    def has(self, letter: Letter) -> bool:
        """Whether the letter is not one of those beyond `most`."""
        return self._most is None or letter.identity in self._these

    def topic(self, letter: Letter) -> str:
        assert letter.record is not None
        return self._to.topic if self._to else letter.record.topic

    def why_not(self, letter: Letter) -> str | None:
        record = letter.record
        if record is None:
            return "cannot be read"
        if record.stage in _NOT_RECORDS:
            return _NOT_RECORDS[record.stage]
        if record.attempts >= MAX_ATTEMPTS:
            return f"had {MAX_ATTEMPTS} attempts"
        is_file = record.topic.endswith((".avro", ".jsonl")) or not _TOPIC.fullmatch(record.topic)
        if is_file and letter.cut:
            return "is the head of a record in a file: it is too large for a letter"
        if self._to is None and is_file:
            return "came from a file or over HTTP: say with --to=kafka://host:port/topic where they shall go"
        if not self._sender.partitions(self.topic(letter)):
            return f"came from the topic {printable(record.topic)}, which the broker does not have"
        try:
            whole(letter, self._originals)
        except Gone as e:
            return f"is the head of a record too large for a letter, which {e}"
        return None

    def record(self, letter: Letter) -> tuple[str, int, KafkaRecord]:
        """Topic, partition and record. Elsewhere than where it came from, the partition is by the key.

        Raises: Gone, Unreachable.
        """
        record, topic = whole(letter, self._originals), self.topic(letter)
        there = self._to is None and record.partition < self._sender.partitions(topic)
        headers = [header for header in record.headers if header[0] != ATTEMPTS_HEADER]
        headers.append((ATTEMPTS_HEADER, str(record.attempts).encode()))
        timestamp_ms, now_ms = record.timestamp, time.time_ns() // 1_000_000
        if timestamp_ms < now_ms - self._keeps_ms(topic):
            headers = [
                *(h for h in headers if h[0] != TIMESTAMP_HEADER),
                (TIMESTAMP_HEADER, str(timestamp_ms).encode()),
            ]
            timestamp_ms = now_ms
        return topic, record.partition if there else -1, KafkaRecord(record.key, record.payload, timestamp_ms, headers)

    def _keeps_ms(self, topic: str) -> int:
        """How old a record may be and stay in the topic."""
        if topic not in self._kept_ms:
            try:
                found = topic_settings(self._sender.servers, topic) or {}
            except RuntimeError as e:
                raise Unreachable(str(e)) from e
            limits = [int(found.get(name, -1)) for name in ("retention.ms", "message.timestamp.before.max.ms")]
            self._kept_ms[topic] = min((limit for limit in limits if limit >= 0), default=1 << 62)
        return self._kept_ms[topic]


def whole(letter: Letter, originals: Originals) -> BadRecord:
    """The letter's record with all of its payload, key and headers.

    Raises: Gone, Unreachable.
    """
    assert letter.record is not None
    if letter.cut is None:
        return letter.record
    return msgspec.structs.replace(letter.record, **originals.fetch(letter.record, letter.cut)._asdict())
