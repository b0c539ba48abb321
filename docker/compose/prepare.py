"""What must be there before a job starts, in docker/compose.yaml: topics, and the registry's rule and schemas.

Run once, and again at every start: what is there stays as it is.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Sequence

from confluent_kafka.admin import AdminClient, NewTopic

from simulator.sinks import schema_ids
from stack.topics import TOPICS, config

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    servers, registry = sys.argv[1:] if arguments is None else arguments
    print(f"topics: {_make_topics(servers)} made, {len(TOPICS)} in all")  # noqa: T201
    _demand_compatibility(registry)
    print(f"schemas: {len(schema_ids(registry))}, compatible backwards")  # noqa: T201


def _make_topics(servers: str) -> int:
    admin = AdminClient({"bootstrap.servers": servers})
    missing = sorted(TOPICS.keys() - admin.list_topics(timeout=30).topics.keys())
    new = [NewTopic(name, TOPICS[name], 1, config=config(name)) for name in missing]
    for created in (admin.create_topics(new, operation_timeout=30) if new else {}).values():
        created.result(timeout=30)
    return len(missing)


def _demand_compatibility(registry: str) -> None:
    """A schema that readers of the last one cannot read is refused; Apicurio would take any."""
    body = json.dumps({"compatibility": "BACKWARD"}).encode()
    kind = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{registry}/config", body, kind, method="PUT")  # noqa: S310 - the compose file's
    urllib.request.urlopen(request, timeout=30).close()  # noqa: S310


if __name__ == "__main__":
    main()
