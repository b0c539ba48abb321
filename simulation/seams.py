"""The places at which the product touches the world: there, and nowhere else, something simulated stands instead.

Modules of the product name what they use (`time`, `Consumer`, `redis`, …). These names are replaced while a run lasts.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from types import MethodType, SimpleNamespace
from typing import Any

from apache_beam.transforms import core, userstate
from apache_beam.utils import shared

from simulation.clock import Clock
from simulation.kafka import Cluster

__all__ = ["Killed", "memory_of", "new_memory", "replaced"]

_PRODUCT = ("transforms.", "connections.")


class Killed(BaseException):
    """The process that ran this is gone. It is no error of the product's, which must not catch it."""


class _Threads(SimpleNamespace):
    """`threading`, of which nothing starts: what would sweep up later has a process that ends soon."""

    def __init__(self) -> None:
        super().__init__(Lock=threading.Lock, Thread=lambda **_: SimpleNamespace(start=lambda: None))


def _os(chances: random.Random) -> Any:
    return SimpleNamespace(**{n: getattr(os, n) for n in ("path", "environ")}, urandom=chances.randbytes)


@contextlib.contextmanager
def replaced(
    clock: Clock, cluster: Cluster, store: Any, write_whole: Callable[[str, bytes], None], seed: int
) -> Iterator[None]:
    """While this lasts, the product runs on what is given.

    Args:
      store: what takes the place of the module `redis`.
      write_whole: of `transforms.io.files`.
    """
    chances = random.Random(f"tokens {seed}")
    instead: dict[str, Any] = {
        "time": clock,
        "os": _os(chances),
        "threading": _Threads(),
        "Consumer": cluster.consumer,
        "AdminClient": cluster.admin,
        "redis": store,
        "write_whole": write_whole,
    }
    originals = [
        (module, name, getattr(module, name))
        for module in [m for n, m in sorted(sys.modules.items()) if n.startswith(_PRODUCT)]
        for name in instead
        if _is_the_world(module, name)
    ]
    for module, name, look in ((core, "get_function_args_defaults", _arguments), (userstate, "get_dofn_specs", _specs)):
        originals.append((module, name, getattr(module, name)))
        instead[name] = functools.partial(look, getattr(module, name))
    for module, name, _ in originals:
        setattr(module, name, instead[name])
    try:
        yield
    finally:
        for module, name, original in originals:
            setattr(module, name, original)


# Beam looks at every method of each copy of a DoFn; that was most of a run's time.
_known: dict[Any, Any] = {}


def _arguments(look: Callable[[Any], Any], function: Any) -> Any:
    if not isinstance(function, MethodType):
        return look(function)
    if function.__func__ not in _known:
        _known[function.__func__] = look(function)
    return _known[function.__func__]


def _specs(look: Callable[[Any], Any], fn: Any) -> Any:
    """State and timers; of a wrapped function they are its own."""
    if isinstance(fn, core.CallableWrapperDoFn):
        return look(fn)
    if type(fn) not in _known:
        _known[type(fn)] = look(fn)
    return _known[type(fn)]


def _is_the_world(module: Any, name: str) -> bool:
    """The store's connections are real, and so is the module that writes files."""
    if module.__name__ in ("connections.store_connection", "connections.store_cluster", "transforms.io.redis_cluster"):
        return False
    if name == "redis":
        return bool(module.__name__ == "transforms.io.redis")
    if name == "write_whole" and module.__name__ == "transforms.io.files":
        return False
    if name in ("time", "os", "threading"):
        return getattr(module, name, None) is sys.modules[name]
    return hasattr(module, name)


@contextlib.contextmanager
def memory_of(process: Any) -> Iterator[None]:
    """What `apache_beam.utils.shared` shares is of this worker process."""
    ours = shared._shared_map
    shared._shared_map = process
    try:
        yield
    finally:
        shared._shared_map = ours


def new_memory() -> Any:
    return shared._SharedMap()
