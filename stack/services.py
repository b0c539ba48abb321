"""All services by name. To add one, write its class in its own file and add a line here."""

from collections.abc import Callable

from stack.connect import Connect
from stack.errors import StackError
from stack.expansion import Expansion
from stack.flink_processes import JobManager, TaskManager
from stack.kafka import Kafka
from stack.postgres import Postgres
from stack.registry import Registry
from stack.service import Service
from stack.valkey import Valkey

__all__ = ["DEFAULT", "FETCHED", "SERVICES", "service"]

SERVICES: dict[str, Callable[[], Service]] = {
    "kafka": Kafka,
    "registry": Registry,
    "valkey": Valkey,
    "jobmanager": JobManager,
    "taskmanager": TaskManager,
    "expansion": Expansion,
    "postgres": Postgres,
    "connect": Connect,
}
DEFAULT = ("kafka", "registry", "valkey")
FETCHED = (*DEFAULT, "postgres", "connect")
"""What `make setup` downloads: all that `make test` starts, but for Flink and the job server, which come along."""


def service(name: str) -> Service:
    """A service by name.

    Raises:
        StackError: there is none of that name.
    """
    kind, _, index = name.partition("-")
    if kind == TaskManager.kind and index.isdecimal():
        return TaskManager(int(index))
    if name not in SERVICES:
        raise StackError(f"no service is called {name!r}; there are {', '.join(SERVICES)}")
    return SERVICES[name]()
