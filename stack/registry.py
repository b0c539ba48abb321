"""Apicurio Registry, used through its Confluent-compatible API."""

import json
from collections.abc import Mapping
from typing import ClassVar

from stack.artefacts import maven
from stack.console import SILENT, Console
from stack.errors import StackError
from stack.java import jvm
from stack.ports import HOST
from stack.service import Place, Service, fetch_url

__all__ = ["Registry", "registry_url"]


class Registry(Service):
    name = "registry"
    ports: ClassVar[Mapping[str, int]] = {"registry": 8081}

    def fetch(self, console: Console) -> None:
        maven("registry", console)

    def command(self, place: Place) -> list[str]:  # noqa: ARG002 - settings go by the environment
        (jar,) = maven("registry", SILENT).glob("apicurio-registry-app-*-runner.jar")
        return [*jvm("256m"), "-jar", str(jar)]

    def environment(self, place: Place) -> Mapping[str, str]:
        return {
            "QUARKUS_HTTP_HOST": HOST,
            "QUARKUS_HTTP_PORT": str(place.ports["registry"]),
            # In a file, at once: the ids in Kafka's records must survive the registry, also when it is killed.
            "REGISTRY_DATASOURCE_URL": f"jdbc:h2:file:{place.folder / 'data' / 'registry'};WRITE_DELAY=0",
            "QUARKUS_DATASOURCE_JDBC_INITIAL_SIZE": "2",
            "QUARKUS_DATASOURCE_JDBC_MIN_SIZE": "2",
        }

    def healthy(self, place: Place) -> bool:
        return fetch_url(f"http://{place.address('registry')}/health/ready") is not None

    def settle(self, place: Place) -> None:
        body = json.dumps({"compatibility": "BACKWARD"}).encode()  # NONE by default
        if fetch_url(f"{registry_url(place)}/config", method="PUT", body=body, timeout_s=10) is None:
            raise StackError("registry: the global compatibility could not be set to BACKWARD")


def registry_url(place: Place) -> str:
    return f"http://{place.address('registry')}/apis/ccompat/v7"
