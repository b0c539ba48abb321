"""Apicurio Registry, used through its Confluent-compatible API."""

import json
from collections.abc import Mapping
from typing import ClassVar

from stack.artefacts import maven
from stack.console import SILENT, Console
from stack.java import jvm
from stack.ports import HOST
from stack.service import Place, Service, behind_tls, fetch_url, until

__all__ = ["Registry", "registry_url"]


class Registry(Service):
    name = "registry"
    ports: ClassVar[Mapping[str, int]] = {"registry": 8081, "registry-behind": 8085}
    secure_ports = ("registry-behind",)

    def fetch(self, console: Console) -> None:
        maven("registry", console)

    def command(self, place: Place) -> list[str]:
        (jar,) = maven("registry", SILENT).glob("apicurio-registry-app-*-runner.jar")
        server = [*jvm("256m"), "-jar", str(jar)]
        if place.secure is None:
            return server
        passwords = f"--passwords={place.secure.folder}"
        return behind_tls(place, "registry", place.ports["registry-behind"], server, passwords)

    def environment(self, place: Place) -> Mapping[str, str]:
        return {
            "QUARKUS_HTTP_HOST": HOST,
            "QUARKUS_HTTP_PORT": str(place.ports["registry" if place.secure is None else "registry-behind"]),
            # In a file, at once: the ids in Kafka's records must survive the registry, also when it is killed.
            "REGISTRY_DATASOURCE_URL": f"jdbc:h2:file:{place.folder / 'data' / 'registry'};WRITE_DELAY=0",
            "QUARKUS_DATASOURCE_JDBC_INITIAL_SIZE": "2",
            "QUARKUS_DATASOURCE_JDBC_MIN_SIZE": "2",
        }

    def healthy(self, place: Place) -> bool:
        return fetch_url(f"{_root(place)}/health/ready", secure=place.secure) is not None

    def settle(self, place: Place) -> None:
        body = json.dumps({"compatibility": "BACKWARD"}).encode()  # NONE by default
        url = f"{registry_url(place)}/config"

        def is_set() -> bool:  # it is "ready" before its database answers everything
            return fetch_url(url, method="PUT", body=body, timeout_s=10, secure=place.secure) is not None

        until(is_set, "the registry's global compatibility is BACKWARD")


def registry_url(place: Place) -> str:
    return f"{_root(place)}/apis/ccompat/v7"


def _root(place: Place) -> str:
    return f"{'http' if place.secure is None else 'https'}://{place.address('registry')}"
