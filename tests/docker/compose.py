"""docker/compose.yaml, and what is wrong with it that a parser does not see."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

import cdc.__main__
import cdc.workload
import serving.__main__
import simulator.flags
from beam_pipelines import options
from beam_pipelines.sinks import KafkaUrl
from schemas.flags import UsageError
from schemas.jobs import JOBS
from stack.topics import TOPICS
from tests.docker.dockerfile import stages
from tests.docker.images import ROOT, targets

__all__ = ["COMPOSE", "PORTS", "command", "load", "problems"]

COMPOSE = ROOT / "docker" / "compose.yaml"
# On the developer's machine; README and runbook say so.
PORTS = {
    "kafka": 29092,
    "registry": 8081,
    "valkey": 6379,
    "jobmanager": 8082,
    "kafka-ui": 8083,
    "connect": 8084,
    "api": 8090,
    "prometheus": 9091,
    "grafana": 3000,
    "postgres": 5432,
}
_OURS = re.compile(r"\$\{REGISTRY:-\}(streamforge-[a-z]+):\$\{TAG:-dev\}")
_ONE_SHOT = "service_completed_successfully"
# Nobody asks them anything: their work shows elsewhere, and that they run is all there is to know.
_SILENT = {"simulator", "shop"}

Service = Mapping[str, Any]


def load(text: str | None = None) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(text or COMPOSE.read_text())
    return document


def command(service: Service) -> list[str]:
    """The words that are run, with our image's own entry point before them where the service names none."""
    words = [_plain(word) for word in service.get("command", [])]
    entry = service.get("entrypoint")
    if entry and entry[:2] == ["sh", "-c"]:  # the jobs': python -m JOB with the flags that all have, then its own
        return ["python", "-m", words[0], *shlex.split(service["environment"]["FLINK_FLAGS"]), *words[1:]]
    if entry is None and (image := _OURS.fullmatch(service["image"])):
        _, built = stages((ROOT / "docker" / "Dockerfile").read_text())
        stage = built[image[1].removeprefix("streamforge-")]
        entry = yaml.safe_load(stage.last("ENTRYPOINT") or "[]")
    return [*(entry or []), *words]


def _plain(word: object) -> str:
    """With the defaults of its variables."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(word))


def problems(document: Mapping[str, Any]) -> list[str]:
    """One line each."""
    services: dict[str, Service] = document["services"]
    wrong = list(_ports(services))
    for name, service in services.items():
        wrong += [f"{name}: {why}" for why in _of(name, service, services, document["volumes"])]
    return wrong


def _ports(services: Mapping[str, Service]) -> Iterator[str]:
    taken: dict[str, str] = {}
    for name, service in services.items():
        for port in service.get("ports", []):
            host, number, _ = port.split(":")
            if host != "127.0.0.1":
                yield f"{name}: port {number} is open to other machines"
            if number in taken:
                yield f"{name}: port {number} is {taken[number]}'s already"
            taken[number] = name
    if (found := {name: int(number) for number, name in taken.items()}) != PORTS:
        yield f"ports are {found}"


def _of(name: str, service: Service, services: Mapping[str, Service], volumes: Mapping[str, Any]) -> Iterator[str]:
    image = _OURS.fullmatch(service["image"])
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield "may gain privileges"
    if service.get("privileged") or any("docker.sock" in volume for volume in service.get("volumes", [])):
        yield "has the machine in its hands"
    if not {"cpus", "memory", "pids"} <= service.get("deploy", {}).get("resources", {}).get("limits", {}).keys():
        yield "has no limits"
    if image:
        yield from _of_ours(image[1], service)
    elif not re.search(r":v?\d[\w.-]*\d", service["image"]) or "/" not in service["image"]:
        yield f"{service['image']} is not pinned, or says no registry"
    for key, value in service.get("environment", {}).items():
        if re.search(r"PASSWORD|SECRET|TOKEN", key) and not key.endswith("_FILE"):
            yield f"{key} holds a secret"
        if re.search(r"://[^/]*:[^/]*@", str(value)):
            yield f"{key} holds a password"
    for volume in service.get("volumes", []):
        source, separator, _ = volume.partition(":")
        if not separator:  # nameless: goes with the container
            continue
        if source.startswith("."):
            if not volume.endswith(":ro"):
                yield f"{source} can be written to"
            if not (ROOT / "docker" / source).exists():
                yield f"{source} is not there"
        elif source not in volumes:
            yield f"there is no volume {source}"
    yield from _of_its_start(name, service, services)


def _of_ours(image: str, service: Service) -> Iterator[str]:
    if image not in {tag.partition(":")[0] for target in targets().values() for tag in target.tags}:
        yield f"no image is called {image}"
    build = service.get("build")
    if build and build != {
        "context": "..",
        "dockerfile": "docker/Dockerfile",
        "target": image.removeprefix("streamforge-"),
    }:
        yield f"builds {build}"
    if service.get("read_only") is not True:
        yield "can change its own files"
    if service.get("cap_drop") != ["ALL"]:
        yield "keeps capabilities"
    if "/tmp" not in (*service.get("tmpfs", []), *service.get("volumes", [])):
        yield "has no /tmp"
    try:
        refused = _refusal(command(service))
    except (KeyError, LookupError) as e:
        refused = str(e)
    if refused:
        yield f"its command is refused: {refused}"


def _of_its_start(name: str, service: Service, services: Mapping[str, Service]) -> Iterator[str]:
    for other, how in service.get("depends_on", {}).items():
        if other not in services:
            yield f"there is no {other} to depend on"
        elif services[other].get("profiles") and services[other]["profiles"] != service.get("profiles"):
            yield f"{other} is not there without its profile"
        elif how["condition"] == _ONE_SHOT:
            if services[other].get("restart") != "no":
                yield f"waits for the end of {other}, which begins again"
        elif how["condition"] != "service_healthy":
            yield f"does not wait until {other} is healthy"
        elif not _has_health_check(services[other]):
            yield f"waits until {other} is healthy, which nobody can tell"
    if service.get("restart") != "no" and name not in _SILENT and not _has_health_check(service):
        yield "nobody can tell whether it is healthy"


def _has_health_check(service: Service) -> bool:
    if "healthcheck" in service:
        return True
    image = _OURS.fullmatch(service["image"])
    _, built = stages((ROOT / "docker" / "Dockerfile").read_text())
    stage = built.get(image[1].removeprefix("streamforge-")) if image else None
    return bool(stage and stage.last("HEALTHCHECK"))


def _refusal(words: list[str]) -> str | None:
    """What the program itself says of a command line: its own parser reads it, so that the two cannot differ."""
    if words[:2] != ["python", "-m"]:
        return None if words[0].startswith("/opt/flink/bin/") else f"nobody knows {words[0]}"
    module, arguments = words[2], words[3:]
    if module.startswith("beam_pipelines.") and module != "beam_pipelines.worker_pool":
        return _job_refusal(module, arguments)
    parsers: dict[str, Callable[[list[str]], object]] = {
        "beam_pipelines.worker_pool": _worker_pool,
        "cdc": lambda a: cdc.__main__._parser().parse_args(a),
        "cdc.workload": _workload,
        "passwords": lambda a: None if all(path.startswith("/run/") for path in a) else "not below /run",
        "prepare": lambda a: None if len(a) == 2 else "wants Kafka and the registry",
        "serving": lambda a: serving.__main__._parser().parse_args(a),
        "simulator": lambda a: simulator.flags.parse(a, 1_700_000_000_000),
    }
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            answer = parsers[module](arguments)
    except SystemExit:
        return said.getvalue().strip()
    except KeyError:
        return f"nobody knows {module}"
    return answer if isinstance(answer, str) else None


def _job_refusal(module: str, arguments: list[str]) -> str | None:
    job = JOBS[module.rpartition(".")[2]]
    try:
        _, settings, _ = options.parse(job, arguments)
    except UsageError as e:
        return str(e)
    named = [*settings.inputs, *settings.outputs, settings.dead_letters, settings.late]
    topics = {url.topic for url in named if isinstance(url, KafkaUrl)}
    return f"no topics are made called {topics - TOPICS.keys()}" if topics - TOPICS.keys() else None


def _worker_pool(arguments: list[str]) -> str | None:
    """Its parser is in its `main`, which would start it."""
    flags = dict(re.findall(r"--(\w+)=(\S+)", " ".join(arguments)))
    source = (ROOT / "beam_pipelines" / "worker_pool.py").read_text()
    unknown = [flag for flag in flags if f'"--{flag}"' not in source]
    return f"unknown {unknown}" if unknown or len(flags) != len(arguments) else None


def _workload(arguments: list[str]) -> str | None:
    """Its parser is in its `main`, which would connect."""
    flags = dict(re.findall(r"--(\w+)=(\S+)", " ".join(arguments)))
    source = (ROOT / "cdc" / "workload.py").read_text()
    unknown = [flag for flag in flags if f'"--{flag}"' not in source]
    return f"unknown {unknown}" if unknown or len(flags) != len(arguments) else None
