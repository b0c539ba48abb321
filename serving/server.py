"""The app on granian: one listening process, `workers` processes that answer."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server import Server
from granian.server.common import AbstractServer

import serving
from serving.config import Config
from serving.metrics_port import metrics_on

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["serve", "threads"]

_STOP_WITHIN_S = 10
_ASK_AGAIN_S = 0.5


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
        server = Server(
            "serving",
            address=address,
            port=port,
            interface=Interfaces.WSGI,
            http=HTTPModes.http1,
            workers=workers,
            blocking_threads=threads(config),
            respawn_failed_workers=True,
            workers_kill_timeout=_STOP_WITHIN_S,
            log_level=LogLevels.error,  # it warns of more threads than cores, but ours wait for Redis
        )
        server.on_startup(on_listening)
        threading.Thread(target=_insist_on_stop, args=(server,), daemon=True).start()
        load = partial(_app_of_a_worker, config)
        try:
            server.serve(target_loader=load, wrap_loader=False)
        except SystemExit as e:
            # A Ctrl-C reaches the workers too; granian takes those that end first for crashed.
            if not server.interrupt_signal:
                raise RuntimeError("workers ended unexpectedly") from e


def threads(config: Config) -> int:
    """Of each worker. A stream holds one as long as it is open."""
    return config.redis_connections + config.streams


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


def _app_of_a_worker(config: Config) -> Flask:
    # A forked worker begins with its parent's handlers, which would swallow a signal that comes while the app loads;
    # granian sets the worker's own right after this.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, signal.SIG_DFL)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    app = serving.create_app(config)
    _at_stop(app.extensions["streamforge.streams"].close)
    return app


def _at_stop(end: Callable[[], None]) -> None:
    """Calls it when a signal reaches this worker, whose handlers are granian's: it waits for open streams otherwise."""
    told, tells = socket.socketpair()
    tells.setblocking(False)
    signal.set_wakeup_fd(tells.detach(), warn_on_full_buffer=False)

    def wait() -> None:
        while told.recv(1):  # for ever: the signals that follow are written there too, and must find it open
            end()

    threading.Thread(target=wait, name="stop", daemon=True).start()
