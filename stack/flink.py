"""Flink: the job server jar for Beam's FlinkRunner, and a standalone cluster of the same minor version."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from stack.console import SILENT, Console
from stack.flink_processes import JobManager, TaskManager
from stack.job_server import FLINK_VERSION, beam_version, built_job_server_jar, job_server_jar, pauses_leak
from stack.stack import Stack

__all__ = ["FLINK_VERSION", "Cluster", "beam_version", "built_job_server_jar", "job_server_jar", "pauses_leak"]


class Cluster:
    """A JobManager and some TaskManagers as processes of their own, which can be killed one by one.

    With a job's own jar it runs that job and nothing else; else submit to it with --flink_master=cluster.master and
    --flink_version=FLINK_VERSION. Python workers must be reachable from the TaskManagers: environment_type EXTERNAL or
    LOOPBACK.
    """

    def __init__(
        self,
        data: Path | str,
        *,
        taskmanagers: int = 1,
        slots: int = 2,
        heap_mb: int = 1000,
        managed_mb: int = 256,
        checkpoints: Path | None = None,
        config: Mapping[str, str] | None = None,
        jar: Path | None = None,
        ports: Mapping[str, int] | Literal["free"] | None = "free",
        console: Console = SILENT,
    ) -> None:
        """
        Args:
            slots: of each TaskManager.
            heap_mb: of each TaskManager, for the job's own objects.
            managed_mb: of each TaskManager, for RocksDB.
            checkpoints: folder for checkpoints and savepoints; in the data folder by default.
            config: further Flink settings; they win over ours.
            jar: made by a job with --output_executable_path.
            ports: "jobmanager" (REST) and "jobmanager-rpc".
        """
        settings = dict(config or {})
        if checkpoints:
            folder = checkpoints.absolute()
            settings.setdefault("state.checkpoints.dir", (folder / "checkpoints").as_uri())
            settings.setdefault("state.savepoints.dir", (folder / "savepoints").as_uri())
        self._workers = [
            TaskManager(index, slots=slots, heap_mb=heap_mb, managed_mb=managed_mb, config=settings)
            for index in range(taskmanagers)
        ]
        self._stack = Stack(data, [JobManager(config=settings, jar=jar), *self._workers], ports=ports, console=console)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def master(self) -> str:
        """host:port for --flink_master."""
        return self._stack.address("jobmanager")

    @property
    def rest_url(self) -> str:
        return f"http://{self.master}"

    def start(self) -> None:
        self._stack.start()

    def stop(self) -> None:
        self._stack.stop()

    def kill_taskmanager(self, index: int = 0) -> None:
        """Kills it as a crash would: without a word to Flink."""
        self._stack.kill(self._workers[index].name)

    def start_taskmanager(self, index: int = 0) -> None:
        """Starts it again, and waits until the JobManager knows it."""
        self._stack.start(self._workers[index].name)

    def log(self, name: str) -> Path:
        """The log file of "jobmanager", "taskmanager", "taskmanager-1", ..."""
        return self._stack.log(name)

    def pid(self, name: str) -> int | None:
        return self._stack.pid(name)
