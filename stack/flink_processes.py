"""The two kinds of process of a standalone Flink, on the jars of its Python distribution."""

import json
import shutil
import sys
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from stack.artefacts import cached, run
from stack.console import SILENT, Console
from stack.java import ADD_OPENS, jvm
from stack.ports import HOST
from stack.service import LOG4J2, Place, Service, fetch_url

__all__ = ["JobManager", "TaskManager", "flink_libraries"]

_LIBRARIES = "apache-flink-libraries==1.19.3"
# What of the distribution is wanted. A plugin works from the class path too, and asks for no folder of its own there.
_FOLDERS = ("deps/lib", "deps/plugins/metrics-prometheus")
_FRAMEWORK_MB = 128  # Flink's own share of heap and of direct memory


def flink_libraries(console: Console = SILENT) -> Path:
    """The folder with a Flink distribution's jars and its reporter for Prometheus, taken out of its Python package
    without installing that."""

    def unpack(work: Path, log: Path) -> Path:
        options = ["--no-deps", "--no-binary", "apache-flink-libraries", "--dest", str(work)]
        run("flink", [sys.executable, "-m", "pip", "download", *options, _LIBRARIES], log, console)
        (archive,) = work.glob("*.tar.gz")
        lib = work / "lib"
        lib.mkdir()
        with tarfile.open(archive) as tar:
            for member in tar:
                path = Path(member.name)
                folder = path.parent.as_posix().partition("/")[2]
                if member.isfile() and folder in _FOLDERS and path.suffix == ".jar":
                    source = tar.extractfile(member)
                    assert source
                    with source, (lib / path.name).open("wb") as target:
                        shutil.copyfileobj(source, target)
        return lib

    return cached("flink", f"{_LIBRARIES.rpartition('=')[2]}-prometheus", unpack, console)


class JobManager(Service):
    name = "jobmanager"
    ports: ClassVar[Mapping[str, int]] = {"jobmanager": 8082, "jobmanager-rpc": 6123}

    def __init__(self, *, config: Mapping[str, str] | None = None, heap: str = "512m", jar: Path | None = None) -> None:
        """
        Args:
            config: Flink settings beyond those of this module; they win.
            jar: a job's own jar, which is all it runs (application mode, as on Kubernetes); else it takes jobs.
        """
        self._config = config or {}
        self._heap = heap
        self._jar = jar

    def fetch(self, console: Console) -> None:
        flink_libraries(console)

    def prepare(self, place: Place) -> None:
        _write_config(place, self._config)

    def command(self, place: Place) -> list[str]:
        if self._jar:
            main = "org.apache.flink.container.entrypoint.StandaloneApplicationClusterEntryPoint"
            mode = ["--jars", f"local://{self._jar.absolute()}"]  # file: would be copied, and an older copy be taken
        else:
            main = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
            mode = ["--executionMode", "cluster"]
        return [*jvm(self._heap), *_class_path(), main, "--configDir", str(place.folder), *mode]

    def environment(self, place: Place) -> Mapping[str, str]:
        return {"FLINK_CONF_DIR": str(place.folder)}  # where Beam looks for it

    def healthy(self, place: Place) -> bool:
        return fetch_url(f"http://{place.address('jobmanager')}/overview") is not None


class TaskManager(Service):
    """The first is called taskmanager, the others taskmanager-1, taskmanager-2 and so on."""

    kind = "taskmanager"
    needs = ("jobmanager",)
    ports: ClassVar[Mapping[str, int]] = {}

    def __init__(
        self,
        index: int = 0,
        *,
        slots: int = 2,
        heap_mb: int = 1000,
        managed_mb: int = 256,
        network_mb: int = 128,
        config: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            heap_mb: for the job's own objects, state on the heap included.
            managed_mb: RocksDB's memory.
        """
        self.name = f"{self.kind}-{index}" if index else self.kind
        self._heap_mb = heap_mb
        self._network_mb = network_mb
        self._config = {"taskmanager.numberOfTaskSlots": str(slots), **(config or {})}
        self._memory = {
            "taskmanager.cpu.cores": str(slots),
            # All of them, defaults too: without Flink's start scripts nothing else fills them in.
            "taskmanager.memory.framework.heap.size": f"{_FRAMEWORK_MB}m",
            "taskmanager.memory.framework.off-heap.size": f"{_FRAMEWORK_MB}m",
            "taskmanager.memory.jvm-metaspace.size": "256m",
            "taskmanager.memory.jvm-overhead.min": "192m",
            "taskmanager.memory.jvm-overhead.max": "192m",
            "taskmanager.memory.task.heap.size": f"{heap_mb}m",
            "taskmanager.memory.task.off-heap.size": "0",
            "taskmanager.memory.managed.size": f"{managed_mb}m",
            "taskmanager.memory.network.min": f"{network_mb}m",
            "taskmanager.memory.network.max": f"{network_mb}m",
        }

    def fetch(self, console: Console) -> None:
        flink_libraries(console)

    def prepare(self, place: Place) -> None:
        # A new identity at each start, so that one that was killed is not taken for it until Flink misses it.
        identity = f"{self.name}-{time.time_ns() // 1_000_000}"
        _write_config(place, {**self._config, "taskmanager.resource-id": identity})
        place.folder.joinpath("resource-id").write_text(identity)

    def command(self, place: Place) -> list[str]:
        return [
            *jvm(f"{self._heap_mb + _FRAMEWORK_MB}m"),
            f"-XX:MaxDirectMemorySize={self._network_mb + _FRAMEWORK_MB}m",
            *_class_path(),
            "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
            "--configDir",
            str(place.folder),
            *(word for key, value in self._memory.items() for word in ("-D", f"{key}={value}")),
        ]

    def healthy(self, place: Place) -> bool:
        answer = fetch_url(f"http://{place.address('jobmanager')}/taskmanagers")
        known = json.loads(answer)["taskmanagers"] if answer else []
        # It is known a moment before its slots are.
        offering = {each["id"] for each in known if each["slotsNumber"]}
        return place.folder.joinpath("resource-id").read_text() in offering


def _class_path() -> list[str]:
    return [*ADD_OPENS, f"-Dlog4j.configurationFile={LOG4J2.as_uri()}", "-cp", f"{flink_libraries()}/*"]


def _write_config(place: Place, extra: Mapping[str, str]) -> None:
    shared = place.folder.parent / "flink"
    temporary = place.folder / "tmp"
    shutil.rmtree(temporary, ignore_errors=True)  # one that was killed has left the jars of its jobs, 240 MB each
    temporary.mkdir(parents=True)
    settings = {
        "jobmanager.rpc.address": HOST,
        "jobmanager.rpc.port": str(place.ports["jobmanager-rpc"]),
        "jobmanager.bind-host": HOST,
        "rest.address": HOST,
        "rest.bind-address": HOST,
        "rest.port": str(place.ports["jobmanager"]),
        "rest.bind-port": str(place.ports["jobmanager"]),
        "taskmanager.host": HOST,
        "taskmanager.bind-host": HOST,
        "io.tmp.dirs": str(temporary),
        "web.tmpdir": str(temporary),
        "pekko.startup-timeout": "2 min",  # 10 s by default, which a machine with much else to do may need
        "blob.service.cleanup.interval": "30",  # s; by default a job's jar stays for an hour after its end
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": "2147483647",
        "restart-strategy.fixed-delay.delay": "1 s",
        "heartbeat.interval": "2000",
        "heartbeat.timeout": "20000",
        "state.checkpoints.dir": (shared / "checkpoints").as_uri(),
        "state.savepoints.dir": (shared / "savepoints").as_uri(),
        # Beam's harness threads outlive a failed attempt and still load classes.
        "classloader.check-leaked-classloader": "false",
        **extra,
    }
    place.folder.joinpath("flink-conf.yaml").write_text("".join(f"{k}: {v}\n" for k, v in settings.items()))
