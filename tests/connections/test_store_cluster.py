"""A cluster's nodes come and go, and its clients stay."""

from __future__ import annotations

from typing import Any

from connections.store_cluster import Cluster

NAMED = ("store", 6379)
"""In the URL."""


class Node:
    """Answers what its cluster would."""

    def __init__(self, cluster: Changing, host: str, port: int):
        self.host, self.place, self._cluster = host, (host, port), cluster

    def ask(self, *commands: Any) -> list[Any]:
        assert commands == (("CLUSTER", "SLOTS"),)
        half = 1 << 13
        first, second, replica = self._cluster.there
        return [
            [
                [0, half - 1, [first.encode(), 6379, b"id"], [replica.encode(), 6379, b"id"]],
                [half, 2 * half - 1, [second.encode(), 6379, b"id"]],
            ]
        ]

    def close(self) -> None:
        self._cluster.open.remove(self.place)


class Changing:
    def __init__(self) -> None:
        self.there: tuple[str, str, str] = ("a-0", "b-0", "c-0")
        self.open: list[tuple[str, int]] = []

    def make(self, host: str, port: int) -> Any:
        self.open.append((host, port))
        return Node(self, host, port)


def test_nodes_that_were_replaced_are_neither_asked_nor_held_open() -> None:
    changing = Changing()
    cluster = Cluster([NAMED], changing.make)
    for i in range(50):
        changing.there = (f"a-{i}", f"b-{i}", f"c-{i}")
        assert [node.host for node in cluster.masters()] == [f"a-{i}", f"b-{i}"]
        assert sorted(changing.open) == [*((f"{name}-{i}", 6379) for name in "abc"), NAMED]
    cluster.close()
    assert changing.open == []
