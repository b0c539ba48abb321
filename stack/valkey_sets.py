"""Valkey as shops run it: a cluster, or a master with replicas and the sentinels that watch them."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import redis

from stack.ports import HOST
from stack.service import Place, Service, until
from stack.valkey import Valkey, server

__all__ = ["SERVICE", "cluster", "watched"]

SERVICE: Final = "shop"
"""What the sentinels call the store."""
_SLOTS: Final = 1 << 14


def cluster(masters: int = 3, replicas: int = 0, node_timeout_ms: int = 5_000) -> list[Service]:
    """The nodes valkey-1 to valkey-N, the masters first; the last of them makes them one cluster.

    Args:
      replicas: of all masters together, the first of the first.
    """
    return [_Node(number, masters, masters + replicas, node_timeout_ms) for number in range(1, masters + replicas + 1)]


def watched(replicas: int = 1, sentinels: int = 3, down_after_ms: int = 5_000) -> list[Service]:
    """valkey, valkey-replica-1 and so on, and sentinel-1 and so on."""
    return [
        Valkey(),
        *(_Replica(number) for number in range(1, replicas + 1)),
        *(_Sentinel(number, sentinels, replicas, down_after_ms) for number in range(1, sentinels + 1)),
    ]


def _follows(client: Any) -> bool:
    return bool(client.info("replication").get("master_link_status") == "up")


class _Node(Valkey):
    def __init__(self, number: int, masters: int, nodes: int, node_timeout_ms: int) -> None:
        super().__init__(max_memory="256mb")
        self.name = f"valkey-{number}"
        self.ports = {self.name: 7000 + number, f"{self.name}-bus": 17000 + number}  # type: ignore[misc]
        self.needs = tuple(f"valkey-{other}" for other in range(1, nodes)) if number == nodes else ()
        self._number, self._masters, self._nodes, self._node_timeout_ms = number, masters, nodes, node_timeout_ms

    def options(self, place: Place) -> Mapping[str, str]:
        return {
            "cluster-enabled": "yes",
            "cluster-port": str(place.ports[f"{self.name}-bus"]),
            "cluster-node-timeout": str(self._node_timeout_ms),
        }

    def settle(self, place: Place) -> None:
        if self._number < self._nodes:
            return
        names = [f"valkey-{number}" for number in range(1, self._nodes + 1)]
        clients: list[Any] = [redis.Redis(HOST, place.ports[name]) for name in names]

        def state(client: Any) -> tuple[str, int]:
            info = client.execute_command("CLUSTER INFO")
            return info["cluster_state"], int(info["cluster_known_nodes"])

        if state(clients[-1]) == ("ok", self._nodes):
            return  # it was made before
        for i, client in enumerate(clients[: self._masters]):
            first, after = (each * _SLOTS // self._masters for each in (i, i + 1))
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, after - 1)
        for name in names[1:]:
            clients[0].execute_command("CLUSTER MEET", HOST, place.ports[name], place.ports[f"{name}-bus"])
        until(lambda: all(state(client) == ("ok", self._nodes) for client in clients), "the nodes are one cluster")
        ids = [client.execute_command("CLUSTER MYID").decode() for client in clients]
        for i, client in enumerate(clients[self._masters :]):
            client.execute_command("CLUSTER REPLICATE", ids[i % self._masters])
        for client in clients[self._masters :]:
            until(partial(_follows, client), "replicas follow")


class _Replica(Valkey):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.name = f"valkey-replica-{number}"
        self.ports = {self.name: 6379 + number}  # type: ignore[misc]
        self.needs = ("valkey",)

    def options(self, place: Place) -> Mapping[str, str]:
        return {"replicaof": f"{HOST} {place.ports['valkey']}"}

    def healthy(self, place: Place) -> bool:
        if not super().healthy(place):
            return False
        replication = redis.Redis(HOST, place.ports[self.name]).info("replication")
        return bool(replication["role"] == "master" or replication["master_link_status"] == "up")


class _Sentinel(Service):
    def __init__(self, number: int, sentinels: int, replicas: int, down_after_ms: int) -> None:
        self.name = f"sentinel-{number}"
        self.ports = {self.name: 26378 + number}  # type: ignore[misc]
        self.needs = ("valkey", *(f"valkey-replica-{each}" for each in range(1, replicas + 1)))
        self._sentinels, self._replicas, self._down_after_ms = sentinels, replicas, down_after_ms

    def prepare(self, place: Place) -> None:
        lines = (
            f"bind {HOST}",
            f"port {place.ports[self.name]}",
            f"dir {place.folder}",
            f"sentinel monitor {SERVICE} {HOST} {place.ports['valkey']} {self._sentinels // 2 + 1}",
            f"sentinel down-after-milliseconds {SERVICE} {self._down_after_ms}",
            f"sentinel failover-timeout {SERVICE} {6 * self._down_after_ms}",
        )
        (place.folder / "sentinel.conf").write_text("".join(f"{line}\n" for line in lines))

    def command(self, place: Place) -> list[str]:
        return [server(), str(place.folder / "sentinel.conf"), "--sentinel"]

    def healthy(self, place: Place) -> bool:
        """Whether it sees the replicas and the other sentinels."""
        try:
            with redis.Redis(HOST, place.ports[self.name]) as client:
                master = client.sentinel_master(SERVICE)
        except (redis.RedisError, OSError):
            return False
        return bool(master["num-slaves"] >= self._replicas and master["num-other-sentinels"] >= self._sentinels - 1)
