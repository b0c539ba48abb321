"""One Kafka broker that is its own controller (KRaft)."""

import logging
import shlex
from collections.abc import Mapping
from typing import ClassVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from stack.artefacts import maven
from stack.console import SILENT, Console
from stack.errors import StackError
from stack.java import jvm
from stack.ports import HOST, answers
from stack.service import LOG4J2, Place, Service
from stack.topics import TOPICS, config

__all__ = ["Kafka"]

_CLUSTER_ID = "c3RyZWFtZm9yZ2UtMDAwMQ"  # any 16 bytes in base64
_MUTE = logging.getLogger("stack.kafka.client")
_MUTE.addHandler(logging.NullHandler())
_MUTE.propagate = False


class Kafka(Service):
    name = "kafka"
    ports: ClassVar[Mapping[str, int]] = {"kafka": 29092, "kafka-controller": 29093}

    def __init__(self, *, heap: str = "256m", quick_start: bool = True, topics: Mapping[str, int] = TOPICS) -> None:
        """
        Args:
            heap: as in -Xmx. 256m serves the demo and the tests.
            quick_start: False costs seconds and memory at the start, for a broker under sustained load.
            topics: partitions by name, to be created.
        """
        self._heap = heap
        self._quick_start = quick_start
        self._topics = topics

    def fetch(self, console: Console) -> None:
        maven("kafka", console)

    def prepare(self, place: Place) -> None:
        settings = _settings(place)
        place.folder.joinpath("server.properties").write_text("".join(f"{k}={v}\n" for k, v in settings.items()))

    def command(self, place: Place) -> list[str]:
        config = str(place.folder / "server.properties")
        class_path = ["-cp", f"{maven('kafka', SILENT)}/*", f"-Dlog4j2.configurationFile={LOG4J2.as_uri()}"]
        server = [*jvm(self._heap, quick_start=self._quick_start), *class_path, "kafka.Kafka", config]
        if (place.folder / "data" / "meta.properties").exists():
            return server
        tool = [*jvm("64m"), *class_path, "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", config]
        return ["/bin/sh", "-c", f"{shlex.join(tool)} && exec {shlex.join(server)}"]

    def healthy(self, place: Place) -> bool:
        if not answers(place.ports["kafka"]):  # sooner than librdkafka's own retries
            return False
        try:
            return bool(_admin(place).list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def settle(self, place: Place) -> None:
        admin = _admin(place)
        try:
            missing = self._topics.keys() - admin.list_topics(timeout=10).topics.keys()
            new = [NewTopic(name, self._topics[name], 1, config=config(name)) for name in sorted(missing)]
            for created in (admin.create_topics(new, operation_timeout=30) if new else {}).values():
                created.result(timeout=30)
        except KafkaException as error:
            raise StackError(f"kafka: the topics could not be created: {error.args[0].str()}") from error
        except TimeoutError as error:
            raise StackError("kafka: the topics could not be created: no answer for 30 s") from error


def _settings(place: Place) -> dict[str, object]:
    broker, controller = place.address("kafka"), place.address("kafka-controller")
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{controller}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{broker}",
        "log.dirs": place.folder / "data",
        "auto.create.topics.enable": "false",
        "log.retention.ms": -1,  # replays carry old event times, which retention would delete at once
        "offsets.retention.minutes": 525_600,  # which dead letters were replayed is remembered as a group's offsets
        "group.initial.rebalance.delay.ms": 0,
        "default.replication.factor": 1,
        "min.insync.replicas": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,  # 50 by default: seconds at the first consumer group
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 4,
    }


def _admin(place: Place) -> AdminClient:
    return AdminClient({"bootstrap.servers": f"{HOST}:{place.ports['kafka']}"}, logger=_MUTE)
