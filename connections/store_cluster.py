"""A cluster of the online store's servers: each command goes to the node that has its key's slot.

Jobs and API ask for batches that may be repeated, so one that meets a slot which has moved is asked anew as a whole.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis
from redis.exceptions import AskError, MovedError, TryAgainError

from connections.store_connection import connection_settings
from connections.store_node import Command, Node
from schemas.addresses import StoreUrl

__all__ = ["WAIT_MS", "Cluster", "check_replicas", "connected", "slot_of"]

WAIT_MS: Final = 1_000
"""How long a write waits for its replicas in one go."""

_SLOTS: Final = 1 << 14
_TRIES: Final = 3
_SCRIPTS: Final = ("EVAL", "EVALSHA")

Place = tuple[str, int]


def slot_of(key: str) -> int:
    """As servers count it: of what is in the first braces that hold something, else of the whole key."""
    start = key.find("{")
    end = key.find("}", start + 1) if start >= 0 else -1
    return crc_hqx((key[start + 1 : end] if end > start + 1 else key).encode(), 0) % _SLOTS


def check_replicas(reached: int, wanted: int) -> None:
    """Raises: redis.ConnectionError."""
    if reached < wanted:
        raise redis.ConnectionError(f"of {wanted} replicas that are to have it (wait_replicas), {reached} do")


class Cluster:
    """
    Args:
      servers: some of its nodes, to ask for the others.
      make: the node at host and port.
      replicas: how many of each node's must have what was asked for, before `ask` returns.
    """

    def __init__(self, servers: Sequence[Place], make: Callable[[str, int], Node], replicas: int = 0):
        self._make, self._replicas = make, replicas
        self._after: tuple[Command, ...] = (("WAIT", replicas, WAIT_MS),) if replicas else ()
        self._servers = tuple(servers)
        self._nodes = {server: make(*server) for server in servers}
        self._owners: list[Node | None] | None = None  # of each slot; None: to be looked up

    @classmethod
    def open(
        cls,
        url: StoreUrl,
        settings: dict[str, Any],
        count_open: Callable[[int], None] | None = None,
        replicas: int = 0,
    ) -> Cluster:
        """As `connected`."""
        own = connection_settings(url, settings)

        def make(host: str, port: int) -> Node:
            return Node(url.tls, own | {"host": host, "port": port}, count_open)

        return cls(url.servers, make, replicas)

    def ask(self, *commands: Command, one_view: bool = False, before: Sequence[Command] = ()) -> list[Any]:
        """The answers, in order; one round trip to all nodes at the same time. Each command names the keys of one slot.

        Args:
          one_view: nothing is written between the commands, which are of one slot.
          before: what each node is sent first.

        A part of the commands may have been done when this raises.

        Raises:
          redis.RedisError: a node does not answer, or with an error.
        """
        for _ in range(_TRIES):
            try:
                return self._together(commands, one_view, before)
            except AskError:  # a slot on the move: what is not here any more, or not yet, is there
                return [self._alone(command, before) for command in commands]
            except (MovedError, redis.ConnectionError) as e:
                self._owners, error = None, e
            except redis.TimeoutError:
                self._owners = None
                raise
        if isinstance(error, MovedError):
            raise redis.ConnectionError("the cluster's nodes do not agree on who has a slot")
        raise error

    def _together(self, commands: Sequence[Command], one_view: bool, before: Sequence[Command]) -> list[Any]:
        places: dict[Node, list[int]] = {}
        for place, command in enumerate(commands):
            places.setdefault(self._owner(command), []).append(place)
        if one_view:
            (node,) = places
            return node.ask(*commands, one_view=True)
        found: list[Any] = [None] * len(commands)
        taken = {node: node.take() for node in places}
        unread = dict(taken)
        try:
            for node, of_node in places.items():
                node.write(taken[node], [*before, *(commands[place] for place in of_node), *self._after])
            for node, of_node in places.items():
                answers = node.read(unread.pop(node), len(before) + len(of_node) + len(self._after))
                self._check(answers)
                for place, answer in zip(of_node, answers[len(before) :], strict=False):
                    found[place] = answer
        finally:
            for node, connection in unread.items():
                node.drop(connection)
            for node, connection in taken.items():
                node.give(connection)
        return found

    def _alone(self, command: Command, before: Sequence[Command]) -> Any:
        """One view of several commands cannot be had of a slot on the move, so nobody waits for it."""
        node = self._owner(command)
        asking: tuple[Command, ...] = ()
        for _ in range(_TRIES):
            try:
                answers = node.ask(*before, *asking, command, *self._after)
                self._check(answers)
                return answers[len(before) + len(asking)]
            except AskError as e:
                node, asking = self._node((e.host or node.host, e.port)), (("ASKING",),)
            except MovedError:
                self._owners = None
                node, asking = self._owner(command), ()
        raise TryAgainError("TRYAGAIN the slot is on the move")

    def _check(self, answers: list[Any]) -> None:
        if self._replicas:
            check_replicas(answers[-1], self._replicas)

    def keys(self, pattern: str, count: int) -> set[str]:
        """Those that there are all the time, but for such as are moved meanwhile.

        Args:
          count: how many are looked at in one go.
        """
        found: set[str] = set()
        for node in self.masters():
            cursor = b"0"
            while True:
                [(cursor, some)] = node.ask(("SCAN", cursor, "MATCH", pattern, "COUNT", count))
                found.update(key.decode() for key in some)
                if cursor == b"0":
                    break
        return found

    def masters(self) -> list[Node]:
        """Those that have slots now."""
        self._owners = None
        return list(dict.fromkeys(owner for owner in self._looked_up() if owner is not None))

    def close(self) -> None:
        for node in self._nodes.values():
            node.close()

    def _owner(self, command: Command) -> Node:
        key = str(command[3] if command[0] in _SCRIPTS else command[1])
        owner = self._looked_up()[slot_of(key)]
        if owner is None:
            self._owners = None
            raise redis.ConnectionError(f"no node of the cluster has the slot of {key}")
        return owner

    def _node(self, place: Place) -> Node:
        return self._nodes.setdefault(place, self._nodes.get(place) or self._make(*place))

    def _keep(self, there: set[Place]) -> None:
        """Of a cluster whose nodes are replaced, the former ones would be asked, and waited for, for ever."""
        for gone in self._nodes.keys() - there:
            if (node := self._nodes.pop(gone, None)) is not None:
                node.close()
        for place in there:
            self._node(place)

    def _looked_up(self) -> list[Node | None]:
        owners = self._owners
        if owners is not None:
            return owners
        error: redis.RedisError | None = None
        for node in list(self._nodes.values()):
            try:
                [ranges] = node.ask(("CLUSTER", "SLOTS"))
            except redis.RedisError as e:
                error = e
                continue
            owners = [None] * _SLOTS
            there = set(self._servers)
            for first, last, *nodes in ranges:
                # The others are replicas, to be asked when the masters are gone.
                places = [(_text(host) or node.host, port) for host, port, *_ in nodes]
                owners[first : last + 1] = [self._node(places[0])] * (last + 1 - first)
                there.update(places)
            self._keep(there)
            self._owners = owners
            return owners
        assert error is not None
        raise error


def connected(url: StoreUrl, settings: dict[str, Any], count_open: Callable[[int], None]) -> Node | Cluster:
    """As a URL says: to a cluster, or to one server, which sentinels may name.

    Args:
      settings: by redis-py's names; what the URL or its file says wins.
      count_open: see `Node`.

    Raises: SettingsError.
    """
    if url.cluster:
        return Cluster.open(url, settings, count_open)
    return Node(url.tls, connection_settings(url, settings), count_open)


def _text(host: bytes | None) -> str:
    return host.decode() if host else ""
