"""The app on granian: one listening process, `workers` processes that answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from granian import _futures
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.log import logger as granian_log
from granian.server.common import AbstractServer
from granian.server.mp import MPServer

import serving
from schemas.logs import Logs
from serving.config import Config
from serving.front import Front
from serving.metrics_port import metrics_on
from serving.openapi import MAX_BODY_BYTES

__all__ = ["serve", "threads"]

_STOP_WITHIN_S = 10
_ASK_AGAIN_S = 0.5

_HEAD_WITHIN_MS = 30_000  # also how long a connection may be idle: shorter, and proxies that keep some meet closed ones
_HEAD_BYTES = 64 << 10
_ACKNOWLEDGED_WITHIN_MS = 30_000  # by a client's kernel; one whose window stays shut does not
_MOST_CONNECTIONS = 20_000  # of each worker; those beyond it wait to be accepted
_OTHER_FILES = 256
_BACKLOG = 4096


def serve(
    config: Config,
    host: str,
    port: int,
    workers: int,
    on_listening: Callable[[], None],
    metrics_port: int | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then lets running requests finish.

    Args:
      on_listening: called once the address is ours, before the workers are up; connections wait for them.
      metrics_port: where /metrics is, instead of beside the API.

    Raises:
      OSError: the address cannot be listened on.
      RuntimeError: the workers could not be kept alive.
    """
    address = _free_address(host, port)
    if metrics_port is not None:
        _free_address(host, metrics_port)
    with contextlib.ExitStack() as until_the_end:
        metrics_dir = until_the_end.enter_context(tempfile.TemporaryDirectory(prefix="streamforge-metrics-"))
        # Workers inherit it, and prometheus_client reads it when they first import it.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics_dir
        config = replace(config, metrics_dir=Path(metrics_dir), metrics_route=metrics_port is None)
        if metrics_port is not None:
            until_the_end.enter_context(metrics_on(address, metrics_port, config))
        server = MPServer(
            "serving",
            address=address,
            port=port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=_HEAD_WITHIN_MS, max_buffer_size=_HEAD_BYTES),
            websockets=False,
            loop=Loops.asyncio,
            backlog=_BACKLOG,
            backpressure=max(_OTHER_FILES, min(_MOST_CONNECTIONS, _may_open() - _OTHER_FILES)),
            workers=workers,
            respawn_failed_workers=True,
            workers_kill_timeout=_STOP_WITHIN_S,
            log_level=LogLevels.error,
        )
        granian_log.addFilter(partial(_is_worth_saying, server))
        until_the_end.callback(granian_log.filters.clear)
        server.on_startup(on_listening)
        server.on_startup(partial(_with_threads, server, config.redis_connections))
        threading.Thread(target=_insist_on_stop, args=(server,), daemon=True).start()
        load = partial(_app_of_a_worker, config)
        try:
            server.serve(target_loader=load, wrap_loader=False)
        except SystemExit as e:
            # A Ctrl-C reaches the workers too; granian takes those that end first for crashed.
            if not server.interrupt_signal:
                raise RuntimeError("workers ended unexpectedly") from e


def _is_worth_saying(server: AbstractServer[Any], _: logging.LogRecord) -> bool:
    """A worker that got the same signal may end before the server has seen its own, and then has not failed."""
    server.main_loop_interrupt.wait(_ASK_AGAIN_S)
    return not server.interrupt_signal


def _with_threads(server: AbstractServer[Any], requests: int) -> None:
    """Lets granian call from that many threads and two more: one for a probe, and one that never has to wait.

    It has them for WSGI only, and refuses the setting for ASGI; but not any more when it starts its workers.
    """
    server.blocking_threads = requests + 2


def threads(config: Config) -> int:
    """Of each worker, at most: one for each request that is being answered, and one for each open stream."""
    return config.redis_connections * (2 if config.events else 1) + config.streams


def _may_open() -> int:
    """How many files a process may have open, raised as far as that is allowed and of use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_CONNECTIONS + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else soft


def _insist_on_stop(server: AbstractServer[Any]) -> None:
    """Asks workers again until they stop: granian loses a signal that reaches a worker while it starts (seen)."""
    while not server.interrupt_signal:
        server.main_loop_interrupt.wait()
        time.sleep(_ASK_AGAIN_S)
    while True:
        for worker in list(server.wrks):
            if worker.is_alive():
                worker.terminate()
        time.sleep(_ASK_AGAIN_S)


def _free_address(host: str, port: int) -> str:
    """The host as an IP address that nobody listens on; granian would share the port with another granian."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection in TIME_WAIT is no listener
        try:
            probe.bind(address)
        except OSError as e:
            e.filename = f"{host}:{port}"  # of two: which
            raise
    return str(address[0])


def _app_of_a_worker(config: Config) -> Front:
    # A forked worker begins with its parent's handlers, which would swallow a signal that comes while the app loads;
    # granian sets the worker's own right after this.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, signal.SIG_DFL)
    Logs(config.log_format, "api").set_up(logging.INFO)
    app = serving.create_app(config)
    loop = asyncio.get_event_loop()  # which granian has made, and runs once it listens
    _at_stop(loop, app.extensions["streamforge.streams"].close)
    if sys.platform == "linux":
        loop.call_soon(_give_up_on_clients_that_take_nothing)
    slow = "/api/v1/events" if config.events else None
    front = Front(app, config.redis_connections, MAX_BODY_BYTES, ["/api/v1/health/live"], slow)
    _let_it_schedule(front)
    return front


def _let_it_schedule(front: Front) -> None:
    """Puts the front's scheduler where granian has its own, which is not public: without it all works, more slowly.
    `tests/serving/test_front.py` fails when a granian no longer has it."""
    default = getattr(_futures, "_cbsched_aioschedule", None)
    if default:

        def instead(loop: asyncio.AbstractEventLoop, context: Any, callback: Any) -> Callable[[Any], None]:
            return front.scheduler(loop, default(loop, context, callback))

        _futures._cbsched_aioschedule = instead


def _at_stop(loop: asyncio.AbstractEventLoop, end: Callable[[], None]) -> None:
    """Calls it when a signal stops this worker, before granian begins to wait for what is open, streams too."""
    add = loop.add_signal_handler

    def add_both(number: int, handler: Callable[..., object], *args: Any) -> None:
        def stop() -> None:
            end()
            handler(*args)

        add(number, stop)

    loop.add_signal_handler = add_both  # type: ignore[assignment]


def _give_up_on_clients_that_take_nothing() -> None:
    """The kernel then closes their connections; no one else would. What listens hands the option on.

    granian opens that socket by itself and has no such setting.
    """
    for file in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(file.name))) as found:
            if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _ACKNOWLEDGED_WITHIN_MS)
