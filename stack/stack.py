"""Starts, inspects and stops a set of services under one data folder.

Long, as what starts services must also find and stop them.
"""

import json
import re
import shutil
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from connections.kafka import Brokers
from connections.store import store_options
from schemas.addresses import StoreUrl
from stack.console import SILENT, Console
from stack.errors import StackError
from stack.ports import HOST, holder, is_free, pick_free
from stack.process import Process, exclusive
from stack.secure import ADMIN, Secure
from stack.service import Place, Service
from stack.services import DEFAULT, service

__all__ = ["Stack", "State"]

_GRACE_S = 20.0


@dataclass(frozen=True)
class State:
    """What `status` tells of one service."""

    name: str
    address: str
    pid: int | None
    healthy: bool
    log: Path


@dataclass(frozen=True)
class _Record:
    """What is kept of a service that was started here, for whoever comes later; it also marks the folder as ours."""

    ports: dict[str, int]
    needs: tuple[str, ...]
    wanted: bool
    """False once it was stopped on purpose."""
    stop_signal: int = signal.SIGTERM

    @classmethod
    def read(cls, folder: Path) -> "_Record | None":
        try:
            content = json.loads((folder / "service.json").read_text())
        except FileNotFoundError:
            return None
        return cls(
            content["ports"],
            tuple(content["needs"]),
            content.get("wanted", True),
            content.get("stop_signal", signal.SIGTERM),
        )

    @classmethod
    def read_all(cls, data: Path) -> "dict[str, _Record]":
        folders = [path.parent for path in data.glob("*/service.json")]
        return {folder.name: record for folder in folders if (record := cls.read(folder))}

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / "service.json.new"
        new.write_text(json.dumps(asdict(self)))
        new.rename(folder / "service.json")


class Stack:
    """Services under one data folder, side by side with those of any other folder.

    As a context manager it starts them on entry and on exit stops those that it started. When its Python process is
    killed instead, `python -m stack down --data FOLDER` stops them.
    """

    def __init__(
        self,
        data: Path | str = ".stack",
        services: Iterable[str | Service] = DEFAULT,
        *,
        ports: Mapping[str, int] | Literal["free"] | None = None,
        console: Console = SILENT,
        secure: bool = False,
    ) -> None:
        """
        Args:
            data: the folder for run data, logs and pid files.
            services: by name, or as objects where the defaults do not fit. What they need is added.
            ports: other than the default ones by name, or 'free' to pick free ones.
            secure: begin the folder with TLS, passwords and access rules; one that was begun so stays so.

        Raises:
            StackError: unknown service or port name.
        """
        self._data = Path(data).absolute()
        self._begin_secure = secure
        self._console = console
        self._services = _with_needs([service(s) if isinstance(s, str) else s for s in services])
        self._processes: dict[str, Process] = {}
        known = {port for each in self._services.values() for port in each.ports}
        if ports and ports != "free" and (unknown := ports.keys() - known):
            raise StackError(f"no port is called {min(unknown)!r}; there are {', '.join(sorted(known))}")
        self._ports = self._choose_ports(ports or {})
        self._mine: set[str] = set()
        for each in self._services.values():
            self._adopt(each)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mine:
            self.stop(*self._mine)

    def address(self, name: str) -> str:
        """host:port of a service, or of one of its further ports."""
        return f"{HOST}:{self._ports[name]}"

    @property
    def secure(self) -> Secure | None:
        """Who has which files of settings; None where nobody needs any."""
        return Place(self._data / "kafka", self._ports).secure

    def flags(self, principal: str, *systems: str) -> list[str]:
        """Of a program, to connect to kafka, registry, store."""
        return [] if self.secure is None else self.secure.flags(principal, *systems)

    @property
    def brokers(self) -> str:
        """For an administrator's client, by `connections.kafka.Connection`."""
        servers = self.address("kafka")
        return servers if self.secure is None else Brokers(servers, str(self.secure.kafka(ADMIN)))

    @property
    def store(self) -> dict[str, Any]:
        """For an administrator's client, by redis-py's names."""
        config = None if self.secure is None else str(self.secure.store(ADMIN))
        url = StoreUrl(self.redis_url, config)
        return {**store_options(url), "ssl": url.tls}

    @property
    def registry_url(self) -> str:
        return f"{'http' if self.secure is None else 'https'}://{self.address('registry')}/apis/ccompat/v7"

    @property
    def redis_url(self) -> str:
        return f"{'redis' if self.secure is None else 'rediss'}://{self.address('valkey')}/0"

    def log(self, name: str) -> Path:
        return self._data / "logs" / f"{name}.log"

    def pid(self, name: str) -> int | None:
        return self._process(name).pid()

    def fetch(self) -> None:
        """Downloads and builds what the services run from."""
        for each in self._services.values():
            each.fetch(self._console)

    def start(self, *names: str) -> None:
        """Starts the services (these, or all) that do not run yet, together, and waits until all are healthy.

        Raises:
            StackError: one could not be started; those that this call started are stopped again.
        """
        chosen = [each for each in self._services.values() if not names or each.name in names]
        with exclusive(self._data / "lock"):  # two at once in one folder: the second finds all up
            if self._begin_secure:
                self._begin()
            running = {each.name for each in chosen if self._adopt(each)}
            for each in chosen:
                if each.name not in running:
                    self._require_free_ports(each)
                    each.fetch(self._console)
            started: list[str] = []
            try:
                self._start_and_wait(chosen, running, started)
            except BaseException:
                if started:
                    self.stop(*started)
                raise
            self._mine.update(started)

    def _begin(self) -> None:
        if self.secure is None and _Record.read_all(self._data):
            raise StackError(f"{self._data} was begun without --secure: `stack down --wipe`, or choose another --data")
        Secure(self._data / "secure").make()

    def stop(self, *names: str, wipe: bool = False) -> list[str]:
        """Stops services of this data folder (these, or every one ever started in it), and tells which ran.

        Args:
            wipe: removes their data too.
        """
        records = _Record.read_all(self._data)
        if names:
            records = {name: record for name, record in records.items() if name in names}
        stopped, left = [], set(records)
        while left:
            needed = {need for name in left for need in records[name].needs}
            wave = sorted(left - needed) or sorted(left)
            stopped += self._stop_together({name: records[name].stop_signal for name in wave})
            left -= set(wave)
        self._mine -= records.keys()
        for name, record in records.items():
            if wipe:
                shutil.rmtree(self._data / name)
            else:
                replace(record, wanted=False).write(self._data / name)
        if wipe and not _Record.read_all(self._data):
            shutil.rmtree(self._data / "secure", ignore_errors=True)
        return stopped

    def kill(self, name: str) -> None:
        """Kills a service without warning, as a crash would."""
        self._process(name).kill()

    def states(self, *names: str) -> list[State]:
        """How services are (these, or all that were started in this folder and not stopped)."""
        records = {name: record for name, record in _Record.read_all(self._data).items() if record.wanted}
        ports = {name: port for record in records.values() for name, port in record.ports.items()}
        found = []
        for name in names or sorted(records):
            each = self._services.get(name) or service(name)
            pid = self.pid(name)
            address = next((f"{HOST}:{ports[port]}" for port in each.ports if port in ports), "-")
            healthy = bool(pid) and each.healthy(Place(self._data / name, ports))
            found.append(State(name, address, pid, healthy, self.log(name)))
        return found

    def _process(self, name: str) -> Process:
        return self._processes.setdefault(name, Process(self._data / name / "pid"))

    def _place(self, name: str) -> Place:
        return Place(self._data / name, self._ports)

    def _choose_ports(self, wished: Mapping[str, int] | Literal["free"]) -> dict[str, int]:
        return {
            name: pick_free() if wished == "free" else wished.get(name, default)
            for each in self._services.values()
            for name, default in each.ports.items()
        }

    def _adopt(self, each: Service) -> bool:
        """Whether the service runs already; it keeps its ports then, whatever was wished."""
        record = _Record.read(self._data / each.name) if self.pid(each.name) else None
        if record:
            self._ports.update(record.ports)
        return record is not None

    def _require_free_ports(self, each: Service) -> None:
        for name in each.ports:
            port = self._ports[name]
            if not is_free(port) and (self.secure or name not in each.secure_ports):
                raise StackError(
                    f"{each.name}: port {port} is already in use{holder(port)}; "
                    f"stop what uses it or choose another with --port {name}=PORT"
                )

    def _start_and_wait(self, chosen: Sequence[Service], running: set[str], started: list[str]) -> None:
        pending = list(chosen)
        deadlines: dict[str, float] = {}
        begin = time.monotonic()
        while pending:
            unready = {each.name for each in pending}
            for each in list(pending):
                if each.name not in running and each.name not in started:
                    if unready.isdisjoint(each.needs):
                        started.append(each.name)
                        self._launch(each)
                    continue
                deadline = deadlines.setdefault(each.name, time.monotonic() + each.start_timeout_s)
                if self._settled(each, deadline):
                    pending.remove(each)
                    how = "already up" if each.name in running else f"up after {time.monotonic() - begin:.1f} s"
                    where = "".join(f", {self.address(name)}" for name in list(each.ports)[:1])
                    self._console.line(f"{each.name}: {how}{where} (pid {self.pid(each.name)})")
            if pending:
                waiting = ", ".join(each.name for each in pending)
                self._console.waiting(f"waiting for {waiting} ({time.monotonic() - begin:.0f} s)")
                time.sleep(0.1)

    def _launch(self, each: Service) -> None:
        folder, log = self._data / each.name, self.log(each.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_suffix(".log.old"))
        ports = {name: self._ports[name] for name in each.ports}
        _Record(ports, each.needs, wanted=True, stop_signal=each.stop_signal).write(folder)
        each.prepare(self._place(each.name))
        command, environment = each.command(self._place(each.name)), each.environment(self._place(each.name))
        self._process(each.name).start(command, environment, folder, log)

    def _settled(self, each: Service, deadline: float) -> bool:
        log = self.log(each.name)
        if not self.pid(each.name):
            raise StackError(f"{each.name} died at start: {_reason(log)} (log: {log})")
        if each.healthy(self._place(each.name)):
            each.settle(self._place(each.name))
            return True
        if time.monotonic() > deadline:
            raise StackError(
                f"{each.name} was not healthy after {each.start_timeout_s:.0f} s: {_reason(log)} (log: {log})"
            )
        return False

    def _stop_together(self, signals: Mapping[str, int]) -> list[str]:
        ran = [name for name in signals if self.pid(name)]
        for name in ran:
            self._process(name).signal(signals[name])
        deadline = time.monotonic() + _GRACE_S
        for name in ran:
            self._console.waiting(f"stopping {name}")
            if not self._process(name).wait(max(0.0, deadline - time.monotonic())):
                self._process(name).kill()
            self._console.line(f"{name}: stopped")
        return ran


def _with_needs(services: Sequence[Service]) -> dict[str, Service]:
    found: dict[str, Service] = {}
    given = {each.name: each for each in services}

    def add(each: Service) -> None:
        for need in each.needs:
            if need not in found:
                add(given.get(need) or service(need))
        found.setdefault(each.name, each)

    for each in services:
        add(each)
    return found


def _reason(log: Path) -> str:
    """The last line of the log that tells of an error, or else just the last."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(ERROR|FATAL|Caused by|[\w.]*(Exception|Error):)", line)]
    return (errors or lines or ["it wrote no log"])[-1][:300]
