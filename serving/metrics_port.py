"""Serves /metrics on a separate port, for servers whose main port is public.

A small process beside the workers, which reads the numbers that they share. Not a thread of the process that starts the
workers: it forks them, and a lock that such a thread holds at that moment would stay locked in the worker.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from serving.config import Config

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["metrics_on"]

_LOG = logging.getLogger(__name__)
_LOOK_S = 0.5


@contextlib.contextmanager
def metrics_on(address: str, port: int, config: Config) -> Iterator[None]:
    """Serves them until the end of the block.

    Args:
      config: with the folder that the workers share as `metrics_dir`; the environment names it too.
    """
    stopping = threading.Event()
    # Spawned, which takes no lock of ours along: so a thread may do it, while the server forks its workers.
    keeping = threading.Thread(target=_keep, args=(stopping, address, port, config), name="metrics", daemon=True)
    keeping.start()
    try:
        yield
    finally:
        stopping.set()
        keeping.join()


def _keep(stopping: threading.Event, *args: object) -> None:
    """Starts the process again whenever it ends."""
    while not stopping.is_set():
        process = multiprocessing.get_context("spawn").Process(target=_serve, args=args, daemon=True)
        process.start()
        while process.is_alive() and not stopping.wait(_LOOK_S):
            pass
        if stopping.is_set():
            process.terminate()
        process.join()
        if not stopping.wait(_LOOK_S):
            _LOG.error("the process that serves /metrics ended with status %s and is started again", process.exitcode)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    parent = 0

    def service_actions(self) -> None:
        """Twice a second: ends when the server was killed and could not end it."""
        if os.getppid() != self.parent:
            raise SystemExit


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    timeout = 10  # a client that says nothing

    def log_message(self, *_: object) -> None:
        pass


def _serve(address: str, port: int, config: Config) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches it too, but the server ends it
    from serving.metrics import Metrics
    from serving.progress import watch
    from serving.store import Store

    metrics = Metrics(config.metrics_dir, config.batch_report)
    store = Store(config, metrics.redis_errors.inc)
    progress = watch(config)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/metrics" or environ["REQUEST_METHOD"] != "GET":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"here is only GET /metrics\n"]
        body, content_type = metrics.scrape(environ.get("HTTP_ACCEPT", ""), store, progress())
        start_response("200 OK", [("Content-Type", content_type), ("Content-Length", str(len(body)))])
        return [body]

    server = make_server(address, port, answer, _Server6 if ":" in address else _Server, _Quiet)
    server.parent = os.getppid()
    server.serve_forever()
