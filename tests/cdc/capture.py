"""A stack with PostgreSQL and Connect, driven as its users drive it, and what it brings to Kafka."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from confluent_kafka import Consumer, TopicPartition

from cdc import workload
from cdc.database import TABLES, Database
from stack import Stack

TOPICS = [f"cdc.public.{table}" for table in TABLES]


class Record(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: str | None
    value: str | None
    headers: list[tuple[str, str]]

    @property
    def envelope(self) -> dict[str, Any] | None:
        return json.loads(self.value) if self.value else None

    @property
    def op(self) -> str:
        envelope = self.envelope
        return envelope["op"] if envelope else "tombstone"

    def is_incremental(self, table: str) -> bool:
        envelope = self.envelope
        return bool(
            envelope and envelope["source"]["snapshot"].startswith("incremental") and self.topic.endswith(f".{table}")
        )

    def line(self) -> str:
        """As in records.jsonl: key and value are the record's bytes as text."""
        return json.dumps(self._asdict(), ensure_ascii=False)


class Capture:
    """`records` goes on where it stopped."""

    def __init__(self, stack: Stack, data: Path) -> None:
        self._stack = stack
        self.url = f"postgresql://postgres@{stack.address('postgres')}/shop"
        self.secrets = data / "connect" / "secrets"
        self.password_file = data / "postgres" / "password"
        self._consumer: Consumer | None = None

    def run(self, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        """python -m cdc COMMAND, with the addresses of this stack where the command takes them."""
        addresses = {
            "--database": (self.url, "setup register status snapshot slots"),
            "--secrets": (str(self.secrets), "setup register status snapshot slots"),
            "--connect": (f"http://{self._stack.address('connect')}", "register status snapshot"),
            "--password_file": (str(self.password_file), "setup"),
        }
        flags = [(flag, value) for flag, (value, takers) in addresses.items() if command in takers.split()]
        line = [sys.executable, "-m", "cdc", command, *(word for flag in flags for word in flag), *words]
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)

    def cdc(self, command: str, *words: str) -> str:
        """What the command prints; it must succeed."""
        done = self.run(command, *words)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def connect(self) -> psycopg.Connection[Any]:
        """As the owner."""
        return Database.parse(self.url).connect(self.password_file.read_text())

    def sql(self, statement: str) -> list[Any]:
        with self.connect() as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def workload(self, transactions: int, seed: int, progress: Callable[[int], None] = lambda _: None) -> Counter[str]:
        with self.connect() as connection:
            return workload.run(connection, transactions, seed=seed, progress=progress)

    def records(self, until: Callable[[list[Record]], bool], timeout_s: float = 60) -> list[Record]:
        """New records of the five topics, read until the condition holds for them.

        Raises: AssertionError, when it does not in time.
        """
        if self._consumer is None:
            self._consumer = Consumer(
                {
                    "bootstrap.servers": self._stack.address("kafka"),
                    "group.id": "tests",
                    "enable.auto.commit": False,
                }
            )
            topics = self._consumer.list_topics(timeout=60).topics
            self._consumer.assign([TopicPartition(t, p, 0) for t in TOPICS for p in topics[t].partitions])
        seen: list[Record] = []
        deadline = time.monotonic() + timeout_s
        while not until(seen):
            assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s, after {len(seen)} records"
            for message in self._consumer.consume(5_000, timeout=0.2):
                assert not message.error(), message.error()
                headers = [(name, value.decode()) for name, value in message.headers() or []]
                key, value = ((b.decode() if b is not None else None) for b in (message.key(), message.value()))
                where = (message.topic(), message.partition(), message.offset())
                seen.append(Record(*where, message.timestamp()[1], key, value, headers))
        return seen

    def close(self) -> None:
        if self._consumer:
            self._consumer.close()
