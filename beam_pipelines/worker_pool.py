"""A pool of Python worker processes that Flink's task managers ask for workers (Beam's environment EXTERNAL).

Beam has such a pool; this one forks its workers from a process that has imported everything once, so that a worker is
there in milliseconds and shares that memory with its siblings, runs them with this interpreter and not with whatever
`python` is on the PATH, and turns the SDK's state cache off, whose bookkeeping costs more than it saves here.

    python -m beam_pipelines.worker_pool --port=50000      # beside each task manager, then
    python -m beam_pipelines.fraud --runner=FlinkRunner --flink_master=host:8081 \\
        --environment_type=EXTERNAL --environment_config=localhost:50000
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from beam_pipelines import logs

__all__ = ["pool"]

_LOG = logging.getLogger(__name__)
_PRELOAD = ["beam_pipelines.worker_imports"]


class _Pool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    def __init__(self) -> None:
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(_PRELOAD)
        forkserver.ensure_running()  # it imports while Flink starts
        self._workers: dict[str, ForkServerProcess] = {}
        self._lock = threading.Lock()

    def StartWorker(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        try:
            arguments = (request.control_endpoint.url, request.worker_id)
            worker = self._processes.Process(target=_work, args=arguments, name=request.worker_id, daemon=True)
            with self._lock:
                self._reap()
                worker.start()
                self._workers[request.worker_id] = worker
        except OSError as e:
            return beam_fn_api_pb2.StartWorkerResponse(error=f"cannot start a worker: {e}")
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        with self._lock:
            worker = self._workers.pop(request.worker_id, None)
        if worker is not None:
            _end(worker)
        return beam_fn_api_pb2.StopWorkerResponse()

    def stop(self) -> None:
        with self._lock:
            workers, self._workers = list(self._workers.values()), {}
        for worker in workers:
            _end(worker)

    def _reap(self) -> None:
        for name in [name for name, worker in self._workers.items() if not worker.is_alive()]:
            self._workers.pop(name).join()


def _end(worker: ForkServerProcess) -> None:
    worker.terminate()
    worker.join(5)
    if worker.is_alive():
        worker.kill()
        worker.join()


def _work(control: str, worker_id: str) -> None:
    """A worker's life. It ends by itself when the runner closes the connection, and so also when that was killed."""
    from apache_beam.runners.worker.sdk_worker import SdkHarness

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the launcher, which stops the workers
    logs.quieten()
    try:
        SdkHarness(control, worker_id=worker_id, state_cache_size=0, data_buffer_time_limit_ms=0).run()
    except grpc.RpcError as e:
        _LOG.info("the runner closed the connection: %s", e)


@contextmanager
def pool(port: int = 0, host: str = "127.0.0.1") -> Iterator[str]:
    """Runs a pool; yields its address, for --environment_config.

    Not "localhost": gRPC is content with a free port that someone else has on one of the addresses that this means.

    Raises:
      OSError: the port is in use.
    """
    servicer = _Pool()
    # The keep-alive options are those of Beam's own pool.
    server = grpc.server(
        futures.ThreadPoolExecutor(8),
        options=[
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.max_ping_strikes", 0),
            ("grpc.so_reuseport", 0),
        ],
    )
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(servicer, server)
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as e:
        raise OSError(f"cannot listen on {host}:{port}: is it in use?") from e
    server.start()
    try:
        yield f"{host}:{bound}"
    finally:
        server.stop(0)
        servicer.stop()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m beam_pipelines.worker_pool",
        description="Runs Python workers for the Flink task manager on this machine, until it is stopped.",
    )
    parser.add_argument("--port", type=int, default=50000, help="port to listen on (default: %(default)s)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; task managers elsewhere need another (default: %(default)s)",
    )
    flags = parser.parse_args(argv)
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    try:
        with pool(flags.port, flags.host) as address:
            print(f"workers at {address}", flush=True)  # noqa: T201
            done.wait()
    except OSError as e:
        print(f"worker_pool: --port: {e}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


if __name__ == "__main__":
    main()
