"""Dataproc's cluster and job controllers, as far as the DAG needs them, in this process; runs in Airflow's environment.

Spoken to by Google's own clients over gRPC, in Google's own messages. A cluster is an entry in a table. A job is a real
process on this machine, which is where its state and its output come from; like Dataproc, this tells only that a job
failed, not with which status. The driver's output is a file in a bucket, which Google's storage client reads over HTTP.
Ids that were used are refused, as they are there. Nobody is asked for credentials.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import grpc
from google.cloud.dataproc_v1 import types
from google.longrunning import operations_pb2
from google.protobuf import any_pb2, empty_pb2
from google.rpc import status_pb2

__all__ = ["BUCKET", "FakeDataproc"]

BUCKET = "shop-dataproc"
_HANGS = [sys.executable, "-c", "import signal; print('waiting', flush=True); signal.pause()"]
_FAILS = [sys.executable, "-c", "import sys; print('Lost executor 1'); sys.exit(1)"]

Cluster, Job, Status = types.Cluster, types.Job, types.JobStatus


class FakeDataproc:
    """The service.

    Args:
      submit: the command that runs a job here; `{main}`, `{packages}` and `{jars}` in it are the submitted job's. Its
        flags are put behind.
      folder: of the jobs, and of the bucket.

    Attributes:
      calls: what was asked for, but not the asking for states: "create_cluster", "submit_job compute", …
      faults: what goes wrong, and how often: "create_cluster", "delete_cluster", "fail compute", "hang compute".
      clusters: those that are there.
    """

    def __init__(self, submit: list[str], folder: Path):
        self._submit, self._folder, self._lock = submit, folder, threading.RLock()
        self.calls: list[str] = []
        self.faults: Counter[str] = Counter()
        self.clusters: dict[str, Any] = {}
        self._jobs: dict[str, Any] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._requests: dict[str, str] = {}
        self._operations: dict[str, Any] = {}

    @contextmanager
    def served(self) -> Iterator[tuple[str, str]]:
        """The addresses of gRPC, as host:port, and of the bucket, as a URL."""
        server = grpc.server(ThreadPoolExecutor(8))
        server.add_generic_rpc_handlers(self._handlers())
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with _storage(self._folder / BUCKET) as url:
            try:
                yield f"127.0.0.1:{port}", url
            finally:
                server.stop(None).wait()
                for process in self._processes.values():
                    _kill(process)

    def _handlers(self) -> tuple[Any, ...]:
        v1 = "google.cloud.dataproc.v1."
        operation = operations_pb2.Operation.SerializeToString
        methods: dict[str, dict[str, tuple[Callable[..., Any], Any, Any]]] = {
            f"{v1}ClusterController": {
                "CreateCluster": (self._create_cluster, types.CreateClusterRequest.deserialize, operation),
                "GetCluster": (self._get_cluster, types.GetClusterRequest.deserialize, Cluster.serialize),
                "DeleteCluster": (self._delete_cluster, types.DeleteClusterRequest.deserialize, operation),
            },
            f"{v1}JobController": {
                "SubmitJob": (self._submit_job, types.SubmitJobRequest.deserialize, Job.serialize),
                "GetJob": (self._get_job, types.GetJobRequest.deserialize, Job.serialize),
                "CancelJob": (self._cancel_job, types.CancelJobRequest.deserialize, Job.serialize),
            },
            "google.longrunning.Operations": {
                "GetOperation": (self._get_operation, operations_pb2.GetOperationRequest.FromString, operation),
            },
        }
        return tuple(
            grpc.method_handlers_generic_handler(
                service,
                {
                    name: grpc.unary_unary_rpc_method_handler(self._one_at_a_time(call), read, write)
                    for name, (call, read, write) in of_service.items()
                },
            )
            for service, of_service in methods.items()
        )

    def _one_at_a_time(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            with self._lock:
                return call(request, context)

        return answer

    def _goes_wrong(self, what: str) -> bool:
        self.faults[what] -= 1
        return self.faults[what] >= 0

    def _create_cluster(self, request: Any, context: grpc.ServicerContext) -> Any:
        name = request.cluster.cluster_name
        self.calls.append("create_cluster")
        if name in self.clusters:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"Already exists: cluster {name}")
        cluster = self.clusters[name] = request.cluster
        if self._goes_wrong("create_cluster"):
            # As it is when a quota is exhausted: the cluster is there, and good for nothing.
            cluster.status.state = types.ClusterStatus.State.ERROR
            return self._done(error="Insufficient 'N2_CPUS' quota")
        cluster.status.state = types.ClusterStatus.State.RUNNING
        return self._done(Cluster.pb(cluster))

    def _get_cluster(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.cluster_name not in self.clusters:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Not found: cluster {request.cluster_name}")
        return self.clusters[request.cluster_name]

    def _delete_cluster(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.calls.append("delete_cluster")
        self._get_cluster(request, context)
        if self._goes_wrong("delete_cluster"):
            context.abort(grpc.StatusCode.INTERNAL, "Internal server error")
        del self.clusters[request.cluster_name]
        for id_, job in self._jobs.items():
            if job.placement.cluster_name == request.cluster_name:
                _kill(self._processes[id_])
        return self._done(empty_pb2.Empty())

    def _submit_job(self, request: Any, context: grpc.ServicerContext) -> Any:
        job, id_ = request.job, request.job.reference.job_id
        if request.request_id and request.request_id in self._requests:
            return self._jobs[self._requests[request.request_id]]
        if id_ in self._jobs:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"Already exists: job {id_}")
        cluster = self.clusters.get(job.placement.cluster_name)
        if cluster is None or cluster.status.state != types.ClusterStatus.State.RUNNING:
            context.abort(grpc.StatusCode.NOT_FOUND, f"No running cluster {job.placement.cluster_name}")
        step = job.labels["step"]
        self.calls.append(f"submit_job {step}")
        output = self._folder / BUCKET / "jobs" / id_ / "driveroutput.000000000"
        output.parent.mkdir(parents=True)
        with output.open("wb") as out:
            self._processes[id_] = subprocess.Popen(
                self._command(job, step), stdout=out, stderr=out, cwd=self._folder, start_new_session=True
            )
        job.status.state = Status.State.RUNNING
        job.driver_output_resource_uri = f"gs://{BUCKET}/jobs/{id_}/driveroutput"
        self._jobs[id_] = job
        self._requests[request.request_id] = id_
        return job

    def _command(self, job: Any, step: str) -> list[str]:
        if self._goes_wrong(f"hang {step}"):
            return _HANGS
        if self._goes_wrong(f"fail {step}"):
            return _FAILS
        spark = job.pyspark_job
        for uri in spark.file_uris:
            shutil.copy(_path(uri), self._folder)
        files = {
            "{main}": _path(spark.main_python_file_uri),
            "{packages}": ",".join(map(_path, spark.python_file_uris)),
            "{jars}": ",".join(map(_path, spark.jar_file_uris)),
        }
        return [*(files.get(part, part) for part in self._submit), *spark.args]

    def _get_job(self, request: Any, context: grpc.ServicerContext) -> Any:
        job = self._jobs.get(request.job_id)
        if job is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Not found: job {request.job_id}")
        status = self._processes[request.job_id].poll()
        if job.status.state == Status.State.RUNNING and status is not None:
            job.status.state = Status.State.ERROR if status else Status.State.DONE
            if status:
                job.status.details = "Google Cloud Dataproc Agent reports job failure."
        return job

    def _cancel_job(self, request: Any, context: grpc.ServicerContext) -> Any:
        job = self._get_job(request, context)
        self.calls.append(f"cancel_job {job.labels['step']}")
        if job.status.state == Status.State.RUNNING:
            _kill(self._processes[request.job_id])
            job.status.state = Status.State.CANCELLED
        return job

    def _get_operation(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.name not in self._operations:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Not found: {request.name}")
        return self._operations[request.name]

    def _done(self, response: Any = None, error: str = "") -> Any:
        """An operation that is over, but is told of as if it were not, so that it has to be asked for."""
        name = f"projects/p/regions/r/operations/{len(self._operations)}"
        done = operations_pb2.Operation(name=name, done=True)
        if error:
            done.error.CopyFrom(status_pb2.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message=error))
        else:
            packed = any_pb2.Any()
            packed.Pack(response)
            done.response.CopyFrom(packed)
        self._operations[name] = done
        return operations_pb2.Operation(name=name, done=False)


def _path(uri: str) -> str:
    return unquote(urlsplit(uri).path)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The process and those that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def _storage(folder: Path) -> Iterator[str]:
    """Cloud Storage, for who lists and reads what is in the bucket."""

    class Objects(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            *_, name = url.path.rpartition("/o/")
            if url.path.endswith("/o"):
                prefix = parse_qs(url.query)["prefix"][0]
                names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
                found = [{"name": name, "bucket": BUCKET} for name in names if name.startswith(prefix)]
                self._answer(200, json.dumps({"kind": "storage#objects", "items": found}).encode())
            elif (path := folder / unquote(name)).is_file():
                self._answer(200, path.read_bytes())
            else:
                self._answer(404, b"{}")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Objects) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
