"""The Java expansion service that offers Beam's KafkaIO to Python pipelines (`--kafka_read=native`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from stack.console import Console
from stack.java import jvm
from stack.job_server import built_job_server_jar
from stack.ports import answers
from stack.service import Place, Service

__all__ = ["Expansion"]

_MAIN = Path(__file__).parent / "java" / "LoopbackExpansionService.java"


class Expansion(Service):
    """For `ReadFromKafka(expansion_service=stack.address("expansion"))` on Flink.

    What it expands runs inside Flink, without a Java worker of its own (environment EMBEDDED), and KafkaIO as a native
    source instead of a splittable DoFn. The pipeline needs --experiments=use_deprecated_read, and the job server must
    be `built_job_server_jar()`, which holds KafkaIO.
    """

    name = "expansion"
    ports: ClassVar[Mapping[str, int]] = {"expansion": 8097}

    def fetch(self, console: Console) -> None:
        built_job_server_jar(console)

    def command(self, place: Place) -> list[str]:
        options = ["--defaultEnvironmentType=EMBEDDED", "--experiments=use_deprecated_read"]
        return [*jvm("256m"), "-cp", str(built_job_server_jar()), str(_MAIN), str(place.ports["expansion"]), *options]

    def healthy(self, place: Place) -> bool:
        return answers(place.ports["expansion"])
