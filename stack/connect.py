"""Kafka Connect as one distributed worker, with Debezium's connector for PostgreSQL."""

import json
from collections.abc import Mapping
from typing import ClassVar

from connections.java import java
from schemas.access import CONNECT
from stack.artefacts import maven
from stack.console import SILENT, Console
from stack.java import jvm
from stack.ports import HOST
from stack.service import LOG4J2, Place, Service, fetch_url

__all__ = ["Connect"]


class Connect(Service):
    """Connectors may take secrets from the files of its folder `secrets`: `${dir:FOLDER:FILE}`."""

    name = "connect"
    ports: ClassVar[Mapping[str, int]] = {"connect": 8083}
    needs = ("kafka",)

    def fetch(self, console: Console) -> None:
        maven("connect", console)

    def prepare(self, place: Place) -> None:
        (place.folder / "secrets").mkdir(mode=0o700, exist_ok=True)
        settings = _settings(place)
        if place.secure is not None:
            login = java(str(place.secure.kafka(CONNECT)))
            for prefix in ("", "producer.", "consumer.", "admin."):
                settings |= {f"{prefix}{n}": v for n, v in login.items() if not n.startswith("config.providers")}
            settings |= {n: v for n, v in login.items() if n.startswith("config.providers")}
            settings["config.providers.dir.param.allowed.paths"] = f"{place.folder / 'secrets'},{place.secure.folder}"
        place.folder.joinpath("connect.properties").write_text("".join(f"{k}={v}\n" for k, v in settings.items()))

    def command(self, place: Place) -> list[str]:
        return [
            *(*jvm("256m"), "-cp", f"{maven('connect', SILENT)}/*", f"-Dlog4j2.configurationFile={LOG4J2.as_uri()}"),
            *("org.apache.kafka.connect.cli.ConnectDistributed", str(place.folder / "connect.properties")),
        ]

    def healthy(self, place: Place) -> bool:
        """It answers before it has joined its group; only then does it know its connectors."""
        answer = fetch_url(f"http://{place.address('connect')}/health")
        return answer is not None and json.loads(answer).get("status") == "healthy"


def _settings(place: Place) -> dict[str, object]:
    json_converter = "org.apache.kafka.connect.json.JsonConverter"
    return {
        "bootstrap.servers": place.address("kafka"),
        "group.id": "connect",
        "listeners": f"http://{place.address('connect')}",
        "rest.advertised.host.name": HOST,
        "plugin.path": maven("connect", SILENT) / "plugins",
        "plugin.discovery": "service_load",  # looking into every jar takes seconds
        "key.converter": json_converter,
        "key.converter.schemas.enable": "false",
        "value.converter": json_converter,
        "value.converter.schemas.enable": "false",
        "config.storage.topic": "connect.configs",
        "config.storage.replication.factor": 1,
        "offset.storage.topic": "connect.offsets",
        "offset.storage.replication.factor": 1,
        "offset.storage.partitions": 1,
        "status.storage.topic": "connect.status",
        "status.storage.replication.factor": 1,
        "status.storage.partitions": 1,
        # Also what PostgreSQL may forget: its WAL, and what is sent again after a crash, are of that many seconds.
        "offset.flush.interval.ms": 5_000,
        # One worker: when it comes back nobody else has its tasks, so there is nothing to wait for.
        "scheduled.rebalance.max.delay.ms": 0,
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 2_000,
        "config.providers": "dir",
        "config.providers.dir.class": "org.apache.kafka.common.config.provider.DirectoryConfigProvider",
        "config.providers.dir.param.allowed.paths": place.folder / "secrets",
    }
