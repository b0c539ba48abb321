"""What the system needs, looked at from here: one line each, with what to change where something is wrong.

On a laptop it looks at the local stack, and at what that runs on. In a cluster, `helm test` runs it in a pod that may
reach what the jobs may, with their service account and the addresses that they are given.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource
from confluent_kafka.schema_registry import SchemaRegistryClient
from redis.exceptions import NoPermissionError

from connections.kafka import Brokers, Connection
from connections.registry import registry_client
from connections.store_cluster import Cluster, connected
from connections.store_node import Node
from schemas.addresses import Address, StoreUrl
from schemas.jobs import JOBS, topics
from schemas.store_keys import PREFIX, Keys
from stack.errors import StackError
from stack.java import java, java_version
from stack.ports import holder, is_free
from stack.secure import ADMIN
from stack.services import DEFAULT
from stack.stack import Stack, State

__all__ = ["Addresses", "Finding", "local", "system", "told"]

_PATIENCE_S = 10
_DISK = 2 << 30  # what the services are downloaded to, and a day of the demo's data
_SKEW_S = 10.0  # as the default of --out_of_orderness
_MUTE = logging.getLogger("stack.doctor.client")
_MUTE.addHandler(logging.NullHandler())
_MUTE.propagate = False


class Finding(NamedTuple):
    """One line."""

    name: str
    ok: bool
    text: str
    """What was found; when it is wrong, what to change."""


@dataclass(frozen=True)
class Addresses:
    """What is to be reached. None: it is not looked at.

    Attributes:
      jobs: whose topics and tables have to be there.
      topics: those that have to be there instead of the ones that the jobs have by default.
      kafka, registry, redis: with the files that say how to connect.
      prefix: of the installation's keys.
      bigquery: project.dataset.
      folders: written to and read from; local or gs://.
    """

    jobs: tuple[str, ...] = tuple(JOBS)
    topics: tuple[str, ...] = ()
    kafka: Brokers | None = None
    registry: Address | None = None
    redis: StoreUrl | None = None
    prefix: str = PREFIX
    bigquery: str | None = None
    folders: tuple[str, ...] = ()


def told(findings: Sequence[Finding], as_json: bool) -> str:
    if as_json:
        return json.dumps([finding._asdict() for finding in findings], indent=2)
    width = max(len(finding.name) for finding in findings)
    return "\n".join(f"{'ok   ' if f.ok else 'WRONG'}  {f.name:<{width}}  {f.text}" for f in findings)


def local(data: Path) -> Iterator[Finding]:
    """This machine, and the stack in a folder."""
    yield _look("python", _python)
    yield _look("java", lambda: f"Java {java_version()}, {java()}")
    yield _look("maven", _command, "mvn", "the services are fetched by it: install maven")
    yield _look("disk", _disk, data)
    stack = Stack(data)
    states = {state.name: state for state in stack.states()}
    for name in (*DEFAULT, *(other for other in states if other not in DEFAULT)):
        yield _look(name, _service, stack, states, name)
    if all(name in states and states[name].healthy for name in DEFAULT):
        files = stack.secure
        yield from system(
            Addresses(
                kafka=Brokers(stack.brokers),
                registry=Address(stack.registry_url, str(files.registry(ADMIN)) if files else None),
                redis=StoreUrl(stack.redis_url, str(files.store(ADMIN)) if files else None),
            )
        )


def system(at: Addresses) -> Iterator[Finding]:
    """What jobs and API talk to."""
    if at.kafka:
        yield _look("kafka's topics", _topics, at.kafka, _wanted(at))
    if at.registry:
        yield _look("registry's rules", _registry, at.registry)
    if at.redis:
        yield _look("store", _store, at.redis, Keys(at.prefix).check("doctor"))
        yield _look("clock", _clock, at.redis)
    if at.bigquery:
        yield _look("tables", _tables, at.bigquery, at.jobs)
    for folder in at.folders:
        yield _look(folder, _folder, folder)


class _Wrong(Exception):
    """In one line, with what to change."""


def _look(name: str, check: Callable[..., str], *arguments: object) -> Finding:
    try:
        return Finding(name, True, check(*arguments))
    except (_Wrong, StackError) as error:
        return Finding(name, False, str(error))
    except Exception as error:  # noqa: BLE001 - of whichever client: that it cannot be asked is the finding
        return Finding(name, False, f"cannot be asked: {' '.join(f'{type(error).__name__}: {error}'.split())[:300]}")


def _python() -> str:
    needed = metadata("streamforge")["Requires-Python"]
    bounds = {sign: tuple(map(int, version.split("."))) for sign, version in re.findall(r"(>=|<)\s*([\d.]+)", needed)}
    here = sys.version_info[:2]
    if not bounds[">="] <= here < bounds["<"]:
        raise _Wrong(f"{here[0]}.{here[1]} does not fit {needed}: make PYTHON=/path/to/another setup")
    return sys.version.split()[0]


def _command(name: str, otherwise: str) -> str:
    if path := shutil.which(name):
        return path
    raise _Wrong(otherwise)


def _disk(data: Path) -> str:
    folder = next(path for path in (data.absolute(), *data.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < _DISK:
        raise _Wrong(
            f"{free >> 20} MiB are free in {folder}, {_DISK >> 20} are needed: make room, or take another --data"
        )
    return f"{free >> 30} GiB are free in {folder}"


def _service(stack: Stack, states: Mapping[str, State], name: str) -> str:
    state = states.get(name)
    if state is None:
        port = int(stack.address(name).rpartition(":")[2])
        if not is_free(port):
            raise _Wrong(f"not started, and its port {port} is taken{holder(port)}: end that, or up --port {name}=PORT")
        raise _Wrong(f"not started: python -m stack up {name}")
    if not state.healthy:
        raise _Wrong(f"not healthy: python -m stack up {name}; its log is {state.log}")
    return state.address


def _wanted(at: Addresses) -> dict[str, dict[str, str]]:
    """Topic → settings; one of another name has those of the topic whose name it ends with."""
    ours = topics([JOBS[job] for job in at.jobs])
    named = {name: next((own for end, own in ours.items() if name.endswith(end)), {}) for name in at.topics}
    return named or ours


def _topics(servers: Brokers, wanted: Mapping[str, Mapping[str, str]]) -> str:
    connection = Connection(servers)
    admin = AdminClient({**connection.settings, "socket.timeout.ms": _PATIENCE_S * 1000}, logger=_MUTE)
    try:
        found = admin.list_topics(timeout=_PATIENCE_S).topics
    except KafkaException as error:
        raise _Wrong(f"{servers} does not answer: {connection.why(error, admin)}") from None
    if missing := sorted(wanted.keys() - found.keys()):
        raise _Wrong(f"no topic {', '.join(missing)} at {servers}: python -m stack topics prints how to make them")
    own = [ConfigResource(ConfigResource.Type.TOPIC, name) for name, settings in wanted.items() if settings]
    for resource, answer in admin.describe_configs(own, request_timeout=_PATIENCE_S).items():
        settings = answer.result(timeout=_PATIENCE_S)
        for name, value in wanted[resource.name].items():
            if int(settings[name].value) < int(value):
                raise _Wrong(f"{resource.name}: {name} is {settings[name].value}, and has to be {value}")
    return f"{len(wanted)} topics at {servers}, with their settings"


def _registry(url: Address) -> str:
    settings = registry_client(url.config) if url.config else {}
    client = SchemaRegistryClient({"url": str(url), "timeout": _PATIENCE_S, "max.retries": 1, **settings})
    level = client.get_compatibility()
    if level == "NONE":
        raise _Wrong(f"every schema is compatible for {url}: PUT /config with BACKWARD, or a producer breaks the jobs")
    return f"{url}, compatibility {level}"


def _store(url: StoreUrl, probe: str) -> str:
    client, nodes = _connected(url)
    asked = "written and read"
    for node in nodes:
        try:
            [memory] = node.ask(("INFO", "memory"))
        except NoPermissionError:  # least rights are enough for jobs and API
            asked = "written and read; without +info nobody sees whether maxmemory-policy is noeviction"
            continue
        policy = dict(line.split(":", 1) for line in memory.decode().split() if ":" in line).get("maxmemory_policy")
        if policy != "noeviction":
            raise _Wrong(f"maxmemory-policy is {policy}: set noeviction, or users of whom much is known look new")
    if client.ask(("SET", probe, "1", "EX", _PATIENCE_S), ("GETDEL", probe))[1] != b"1":
        raise _Wrong("what is written is not read again: is it a replica?")
    return asked


def _clock(url: StoreUrl) -> str:
    skews = [_skew(node) for node in _connected(url)[1]]
    skew = max(skews, key=abs)
    if abs(skew) > _SKEW_S:
        raise _Wrong(f"the store's clock is {skew:+.1f} s from this one: run NTP on both")
    return f"{skew:+.3f} s from the store's"


def _skew(node: Node) -> float:
    before = time.time()
    [(seconds, micros)] = node.ask(("TIME",))
    return int(seconds) + int(micros) / 1e6 - (before + time.time()) / 2


def _connected(url: StoreUrl) -> tuple[Node | Cluster, list[Node]]:
    client = connected(url, {"socket_timeout": _PATIENCE_S, "socket_connect_timeout": _PATIENCE_S}, lambda _: None)
    return client, client.masters() if isinstance(client, Cluster) else [client]


def _tables(dataset: str, jobs: Sequence[str]) -> str:
    from google.cloud import bigquery  # here, as only who names a dataset needs it

    project, _, name = dataset.partition(".")
    client = bigquery.Client(project)
    found = {table.table_id for table in client.list_tables(f"{project}.{name}", timeout=_PATIENCE_S)}
    wanted = {rows.name for job in jobs for rows in JOBS[job].tables}
    if missing := sorted(wanted - found):
        raise _Wrong(f"no table {', '.join(missing)} in {dataset}: python -m beam_pipelines.tables create")
    return f"{len(wanted)} tables in {dataset}"


def _folder(folder: str) -> str:
    from apache_beam.io.filesystems import FileSystems  # here, as it takes seconds

    path = f"{folder.rstrip('/')}/streamforge-doctor-{time.time_ns()}"
    try:
        with FileSystems.create(path) as file:
            file.write(b"1")
        with FileSystems.open(path) as file:
            if file.read() != b"1":
                raise _Wrong("what is written is not read again")
        FileSystems.delete([path])
    except OSError as error:
        raise _Wrong(f"not written to: {error}: may this account, and is the bucket there?") from None
    return "written, read and deleted"
