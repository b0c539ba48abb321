"""One Kafka broker that is its own controller (KRaft)."""

import logging
import shlex
from collections.abc import Mapping
from typing import ClassVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from connections.kafka import Brokers, Connection
from schemas.access import grants, principals
from stack.artefacts import maven
from stack.console import SILENT, Console
from stack.errors import StackError
from stack.java import jvm
from stack.ports import answers
from stack.secure import ADMIN, Secure, write_private
from stack.service import LOG4J2, Place, Service
from stack.topics import TOPICS, config

__all__ = ["Kafka"]

_CLUSTER_ID = "c3RyZWFtZm9yZ2UtMDAwMQ"  # any 16 bytes in base64
_MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-512")
_MUTE = logging.getLogger("stack.kafka.client")
_MUTE.addHandler(logging.NullHandler())
_MUTE.propagate = False


class Kafka(Service):
    name = "kafka"
    ports: ClassVar[Mapping[str, int]] = {"kafka": 29092, "kafka-controller": 29093, "kafka-tls": 29094}
    secure_ports = ("kafka-tls",)

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
        if place.secure is not None:
            settings |= _secured(place, place.secure)
        write_private(place.folder / "server.properties", "".join(f"{k}={v}\n" for k, v in settings.items()))

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
            if place.secure is not None:
                _admit(admin, place.secure)
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
        # A broker that the controller has not heard of for so long is dead, and its partitions lose their leader.
        # Here both are one process, which was only paused: a laptop that slept, a machine that is too busy. After a
        # kill, the next start waits for as long.
        "broker.session.timeout.ms": 20_000,
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


def _secured(place: Place, secure: Secure) -> dict[str, object]:
    """Passwords on one listener, certificates on the other, and nobody may what is not said."""
    password, certificate = place.address("kafka"), place.address("kafka-tls")
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    settings: dict[str, object] = {
        "listeners": f"SASL_SSL://{password},SSL://{certificate},CONTROLLER://{place.address('kafka-controller')}",
        "advertised.listeners": f"SASL_SSL://{password},SSL://{certificate}",
        "listener.security.protocol.map": "SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:SSL",
        "inter.broker.listener.name": "SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": secure.folder / "broker" / "both.pem",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": secure.ca,
        "sasl.enabled.mechanisms": ",".join(_MECHANISMS),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{ADMIN};User:broker",
        "allow.everyone.if.no.acl.found": "false",
    }
    for mechanism in _MECHANISMS:
        settings[f"listener.name.sasl_ssl.{mechanism.lower()}.sasl.jaas.config"] = scram
    for listener in ("ssl", "controller"):
        settings[f"listener.name.{listener}.ssl.client.auth"] = "required"
        settings[f"listener.name.{listener}.ssl.principal.mapping.rules"] = "RULE:^CN=([a-z-]+)$/$1/"
    return settings


def _admit(admin: AdminClient, secure: Secure) -> None:
    """Gives each principal its password and what it may do. Raises: KafkaException, TimeoutError."""
    kinds = [ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512]
    for kind in kinds:  # no request may have a user twice
        how = ScramCredentialInfo(kind, 4096)
        names = (ADMIN, *principals())
        users = [UserScramCredentialUpsertion(name, how, secure.password(name).encode()) for name in names]
        for done in admin.alter_user_scram_credentials(users).values():
            done.result(timeout=30)
    allowed = [
        AclBinding(
            ResourceType[grant.resource],
            grant.name,
            ResourcePatternType.PREFIXED if grant.prefix else ResourcePatternType.LITERAL,
            f"User:{grant.principal}",
            "*",
            AclOperation[operation],
            AclPermissionType.ALLOW,
        )
        for grant in grants()
        for operation in grant.operations
    ]
    for granted in admin.create_acls(allowed).values():
        granted.result(timeout=30)


def _admin(place: Place) -> AdminClient:
    servers = place.address("kafka")
    if place.secure is not None:  # by certificate, as no user has a password before
        servers = Brokers(place.address("kafka-tls"), str(place.secure.kafka(ADMIN, mutual=True)))
    return AdminClient(Connection(servers).settings, logger=_MUTE)
