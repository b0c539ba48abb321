"""Where events go: Kafka, or a folder of files."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import fastavro
import msgspec
from confluent_kafka import KafkaException, Producer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from fastavro.write import Writer

from connections.kafka import Connection
from schemas.addresses import Address
from schemas.events import avro_schema
from simulator.config import RECORDS, Event
from simulator.wire import Framed, JsonLines, Records, Wire
from transforms.io.registry import Registry

__all__ = ["AvroFiles", "JsonlFiles", "KafkaSink", "Sink", "SinkError", "schema_ids"]

_CONNECT_S = 2.0
_METADATA_S = 5.0
_DELIVERY_MS = 30_000


class SinkError(Exception):
    """The system behind a flag is not there, or not as needed."""


class Sink(Protocol):
    """Takes events.

    Attributes:
      wire: the format it writes.
      partitions: partitions per topic.
      failed: events that are known not to have arrived.
    """

    @property
    def wire(self) -> Wire: ...

    @property
    def partitions(self) -> Mapping[str, int]: ...

    @property
    def failed(self) -> int: ...

    def send(self, event: Event) -> bytes | None:
        """Writes one event and returns its payload or line; None when there is none."""

    def poll(self) -> None:
        """To be called now and then."""

    def close(self, timeout_s: float) -> None:
        """Writes out what is pending; what does not arrive in time counts as failed."""


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except OSError:
        return False
    return True


def schema_ids(address: str | Address) -> dict[str, int]:
    """Registers each topic's schema as `<topic>-value`; its id by topic.

    Raises:
      SinkError: there is no registry, or it refuses.
    """
    url = Address(address)
    # Asked first because the client retries for six seconds before it says that nobody is there.
    if not _answers(url.host, url.port or (443 if url.scheme == "https" else 80)):
        raise SinkError(f"--registry: no schema registry answers at {url}")
    registry = Registry(url)
    try:
        return {topic: registry.register(f"{topic}-value", avro_schema(r.__name__)) for topic, r in RECORDS.items()}
    except SchemaRegistryError as e:
        raise SinkError(f"--registry: {url} refuses the schemas: {url.hide(e)}") from e
    except Exception as e:  # the client lets the errors of its HTTP library through, whichever that is
        raise SinkError(f"--registry: {url} does not work: {type(e).__name__} {url.hide(e)}") from e


class KafkaSink:
    """Produces to Kafka with the client's default partitioner; the order within a partition is the order sent.

    Args:
      servers: host:port, comma-separated.
      topics: those that will be written; they must exist.
      ids: schema id of every topic.
      linger_ms: how long a batch may wait to fill up.

    Raises:
      SinkError: no broker, or a topic is missing.
    """

    def __init__(self, servers: str, topics: tuple[str, ...], ids: Mapping[str, int], linger_ms: int = 20):
        self.check(servers)
        self.wire = Framed(ids)
        self.failed = 0
        self._connection = Connection(servers, lasting=True)
        self._producer = Producer(
            {
                **self._connection.settings,
                "client.id": "streamforge-simulator",
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": linger_ms,
                "batch.size": 500_000,
                "queue.buffering.max.messages": 200_000,
                "message.timeout.ms": _DELIVERY_MS,
                "delivery.report.only.error": True,
                "on_delivery": self._on_failure,
                "log_level": 0,
            }
        )
        self.partitions = self._partitions(servers, topics)

    @staticmethod
    def check(servers: str) -> None:
        """Raises: SinkError, at once, when no broker listens."""
        addresses = [server.rpartition(":") for server in servers.split(",")]
        if not any(_answers(host, int(port)) for host, _, port in addresses):
            raise SinkError(f"--output: no Kafka broker answers at {servers}")

    def _partitions(self, servers: str, topics: tuple[str, ...]) -> dict[str, int]:
        try:
            known = self._producer.list_topics(timeout=_METADATA_S).topics
        except KafkaException as e:
            why = self._connection.why(e, self._producer)
            raise SinkError(f"--output: {servers} does not answer as a Kafka broker: {why}") from None
        missing = [topic for topic in topics if topic not in known]
        if missing:
            raise SinkError(f"--output: the broker at {servers} has no topic {', '.join(missing)}")
        return {topic: len(known[topic].partitions) for topic in topics}

    def _on_failure(self, error: Any, _message: Any) -> None:
        if error is not None:
            self.failed += 1

    def send(self, event: Event) -> bytes | None:
        payload = event.payload if event.record is None else self.wire.encode(event.topic, event.record)
        while True:
            try:
                self._producer.produce(event.topic, payload, event.key, timestamp=event.timestamp_ms)
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as e:  # the producer cannot go on, as after the loss of its idempotence
                raise SinkError(f"--output: {e.args[0].str()}") from e
            else:
                return payload

    def poll(self) -> None:
        self._producer.poll(0)

    def close(self, timeout_s: float) -> None:
        self.failed += self._producer.flush(timeout_s)


class _Files:
    def __init__(self, folder: Path, topics: tuple[str, ...], suffix: str):
        self.partitions: dict[str, int] = {}
        self.failed = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._streams: dict[str, IO[bytes]] = {t: (folder / f"{t}.{suffix}").open("wb") for t in topics}
        except OSError as e:
            raise SinkError(f"--output: cannot write into {folder}: {e.strerror}") from e

    def poll(self) -> None:
        pass

    def close(self, timeout_s: float) -> None:  # noqa: ARG002
        for stream in self._streams.values():
            stream.close()


class JsonlFiles(_Files):
    """`<topic>.jsonl`: one JSON object a line, or a broken line."""

    def __init__(self, folder: Path, topics: tuple[str, ...]):
        super().__init__(folder, topics, "jsonl")
        self.wire = JsonLines()

    def send(self, event: Event) -> bytes | None:
        line = event.payload if event.record is None else self.wire.encode(event.topic, event.record)
        self._streams[event.topic].write((line or b"") + b"\n")
        return line


class AvroFiles(_Files):
    """`<topic>.avro`: object containers."""

    def __init__(self, folder: Path, topics: tuple[str, ...]):
        super().__init__(folder, topics, "avro")
        self.wire = Records()
        self._writers = {
            topic: Writer(stream, fastavro.parse_schema(avro_schema(RECORDS[topic].__name__)), codec="deflate")
            for topic, stream in self._streams.items()
        }

    def send(self, event: Event) -> bytes | None:
        self._writers[event.topic].write(msgspec.to_builtins(event.record))
        return None

    def close(self, timeout_s: float) -> None:
        for writer in self._writers.values():
            writer.flush()
        super().close(timeout_s)
