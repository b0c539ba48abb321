"""A pool of Python worker processes for Flink's task managers (Beam's environment EXTERNAL).

Unlike Beam's own pool, this one forks workers from a process that has already imported everything, so that a worker
starts in milliseconds and shares that memory with its siblings; it runs them with this interpreter instead of whatever
`python` is on the PATH; and it turns off the SDK's state cache, whose bookkeeping costs more than it saves here.

    python -m beam_pipelines.worker_pool --port=50000      # beside each task manager, then
    python -m beam_pipelines.fraud --runner=FlinkRunner --flink_master=host:8081 \\
        --environment_type=EXTERNAL --environment_config=localhost:50000
"""

from __future__ import annotations

import faulthandler
import logging
import mmap
import multiprocessing
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from multiprocessing import connection, forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from beam_pipelines import logs
from schemas.flags import Parser
from schemas.logs import Logs, add_log_format
from schemas.stopping import Stop
from transforms.in_hand import SIZE, said

__all__ = ["cause", "pool"]

_LOG = logging.getLogger(__name__)
_PRELOAD = ["beam_pipelines.worker_imports"]


class _Worker:
    """A worker process, and the file in which it says what it decodes."""

    def __init__(self, process: ForkServerProcess, in_hand: Path):
        self.process, self.in_hand = process, in_hand
        self.stopping = False
        self.ended = threading.Event()

    def end(self) -> None:
        self.stopping = True
        self.process.terminate()
        if not self.ended.wait(5):
            self.process.kill()
            self.ended.wait()


class _Pool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """
    Args:
      folder: for what workers say.
      as_: how they log.
    """

    def __init__(self, folder: Path, as_: Logs = Logs()) -> None:
        self._folder, self._logs = folder, as_
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(_PRELOAD)
        forkserver.ensure_running()  # it imports while Flink starts
        self._workers: dict[str, _Worker] = {}
        self._lock = threading.Lock()
        self._deaths = 0  # that no worker has been told of

    def StartWorker(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        try:
            in_hand = self._folder / uuid.uuid4().hex
            in_hand.write_bytes(bytes(SIZE))
            with self._lock:
                arguments = (request.control_endpoint.url, request.worker_id, str(in_hand), self._deaths, self._logs)
                process = self._processes.Process(target=_work, args=arguments, name=request.worker_id, daemon=True)
                process.start()
                self._deaths = 0
                worker = self._workers[request.worker_id] = _Worker(process, in_hand)
            threading.Thread(target=self._watch, args=(request.worker_id, worker), daemon=True).start()
        except OSError as e:
            return beam_fn_api_pb2.StartWorkerResponse(error=f"cannot start a worker: {e}")
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        with self._lock:
            worker = self._workers.get(request.worker_id)
        if worker is not None:
            worker.end()
        return beam_fn_api_pb2.StopWorkerResponse()

    def stop(self) -> None:
        with self._lock:
            workers = list(self._workers.values())
        for worker in workers:
            worker.end()

    def _watch(self, name: str, worker: _Worker) -> None:
        """Waits for a worker's end; only this thread asks for its status, which can be read once."""
        connection.wait([worker.process.sentinel])
        worker.process.join()
        status = worker.process.exitcode or 0
        with self._lock:
            if self._workers.get(name) is worker:
                del self._workers[name]
            if status and not worker.stopping:
                self._deaths += 1
        if status and not worker.stopping:
            found = said(worker.in_hand.read_bytes())
            _LOG.error("worker %s died: %s; it was decoding %s", name, cause(status), "; ".join(found) or "nothing")
        worker.in_hand.unlink(missing_ok=True)
        worker.ended.set()


def cause(status: int) -> str:
    """Why a process ended, by its exit status; negative: a signal."""
    if status > 0:
        return f"exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"{name} (out of memory, or someone's kill)" if name == "SIGKILL" else name


def _work(control: str, worker_id: str, in_hand: str, deaths: int, as_: Logs) -> None:
    """A worker's life. It ends by itself when the runner closes the connection, and so also when that was killed."""
    from apache_beam.runners.worker.sdk_worker import SdkHarness

    from transforms.in_hand import keep_in

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the launcher, which stops the workers
    logs.quieten(as_)
    faulthandler.enable()  # of a segmentation fault, Python's stack
    try:
        with Path(in_hand).open("r+b") as file:
            keep_in(mmap.mmap(file.fileno(), SIZE), deaths)
        SdkHarness(control, worker_id=worker_id, state_cache_size=0, data_buffer_time_limit_ms=0).run()
    except grpc.RpcError as e:
        _LOG.info("the runner closed the connection: %s", e)
    except Exception:  # noqa: BLE001 - multiprocessing would print it, whatever the format
        _LOG.critical("a worker ended by an error", exc_info=True)
        sys.exit(1)


@contextmanager
def pool(port: int = 0, host: str = "127.0.0.1", as_: Logs = Logs()) -> Iterator[str]:
    """Runs a pool; yields its address, for --environment_config.

    Not "localhost": gRPC is content with a free port that someone else has on one of the addresses that this means.

    Raises:
      OSError: the port is in use.
    """
    folder = tempfile.TemporaryDirectory(prefix="streamforge-workers-")
    servicer = _Pool(Path(folder.name), as_)
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
        folder.cleanup()


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(
        prog="python -m beam_pipelines.worker_pool",
        description="Runs Python workers for the Flink task manager on this machine, until stopped.",
    )
    parser.add_argument("--port", type=int, default=50000, help="port to listen on (default: %(default)s)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; use another for remote task managers (default: %(default)s)",
    )
    add_log_format(parser)
    parser.add_argument("--job", default="", metavar="NAME", help="whose workers these are, for the lines in JSON")
    flags = parser.parse_args(argv)
    as_ = Logs(flags.log_format, flags.job)
    logs.quieten(as_)
    done = Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    try:
        with pool(flags.port, flags.host, as_) as address:
            print(f"workers at {address}", flush=True)  # noqa: T201
            done.wait()
    except OSError as e:
        print(f"worker_pool: --port: {e}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


if __name__ == "__main__":
    main()
