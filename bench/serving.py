"""Serving: requests per second and latency of the API, beside a bare Flask app and Feast's feature server.

All servers answer about the same users from the same Valkey on this machine, loaded by wrk in turns: our API with one
alert list, one user's features, features of 100 users at once, and decisions on a user's next order; a Flask app that
only says hello, on the same server with as many threads; Feast with as many features per user. Then each again at half
its rate, and at 1,000 requests a second, if it has reached them.

Long, as a benchmark is read as one story, from load to report.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from bench import feast
from bench.contestants import PeerMissing
from bench.throughput import positive
from schemas.store_keys import KEYS
from stack import Stack
from stack.console import Console
from stack.ports import pick_free
from tests.build import HOUR, T0, alert, session
from tests.store import order, write

__all__ = ["add_arguments", "main"]

_CHECKOUT = Path(__file__).resolve().parent.parent
_SCRIPT = Path(__file__).with_name("serving.lua")
_USERS = 1_000
_BATCH = 100
_CONNECTIONS = 32
_STEADY = 1_000  # requests a second
_START_S = 60
_BARE, _FEAST, _FEAST_MANY = "bare Flask", "Feast, 1 user", "Feast, 100 users"


@dataclass(frozen=True)
class _Load:
    """What wrk asks a server for.

    Attributes:
      kind: a path to which the user is added; `ours` or `feast`: a POST of many; `decisions`: one of an order.
    """

    name: str
    server: str
    kind: str
    batch: int = 1


_LOADS = (
    _Load(_BARE, "bare", "/hello/"),
    _Load("fraud-alerts/{user_id}", "ours", "/api/v1/fraud-alerts/"),
    _Load("features/{user_id}", "ours", "/api/v1/features/"),
    _Load("POST features, 100 users", "ours", "ours", _BATCH),
    _Load("POST decisions", "ours", "decisions"),
    _Load(_FEAST, "feast", "feast"),
    _Load(_FEAST_MANY, "feast", "feast", _BATCH),
)


@dataclass(frozen=True)
class _Figures:
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    failures: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", default="1,2", metavar="N,…", help="worker counts to measure in turn (default: 1,2)"
    )
    parser.add_argument(
        "--seconds", type=positive, default=3, metavar="S", help="duration of each round, in seconds (default: 3)"
    )
    parser.add_argument(
        "--rounds", type=positive, default=3, metavar="N", help="rounds per server; the median counts (default: 3)"
    )
    parser.add_argument("--without_feast", action="store_true", help="leave out Feast, whose environment takes 1.5 GB")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")


def main(options: argparse.Namespace) -> int:
    """Returns the exit status: 1 when a server answered anything but 200.

    Raises:
      PeerMissing: wrk or Feast is not there.
    """
    if not shutil.which("wrk"):
        raise PeerMissing("wrk not found: install wrk (Debian: apt-get install wrk)")
    worker_counts = [positive(text) for text in options.workers.split(",")]
    console = Console(sys.stderr)
    python = None if options.without_feast else feast.install()
    folder = _CHECKOUT / ".stack" / "bench-serving"
    shutil.rmtree(folder, ignore_errors=True)
    reports = []
    with Stack(folder / "valkey", ["valkey"], ports="free", console=console) as stack:
        rows = _fill(stack.redis_url)
        if python:
            feast.prepare(python, folder / "feast", f"{stack.address('valkey')},db=1", rows)
        for workers in worker_counts:
            console.line(f"{workers} worker(s) …")
            reports.append(_Run(options, folder, stack.redis_url, python, workers).measure())
            print(_table(reports[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(reports, indent=2) + "\n", encoding="utf-8")
    return 1 if any(row["failures"] for report in reports for row in report["loads"]) else 0


def _fill(url: str) -> list[bytes]:
    """Users with five orders, two sessions and three alerts each, by the jobs' own writers; their features."""
    users = [f"user-{i:06}" for i in range(_USERS)]
    write(url, [alert(alert_id=f"{user}-{k}", user_id=user, event_time=T0 + k) for user in users for k in range(3)])
    write(url, [session(user, T0 + k * HOUR) for user in users for k in range(2)])
    write(url, [order(f"{user}-{k}", T0 + k, 12_345, user) for user in users for k in range(5)])
    with redis.Redis.from_url(url) as db:
        found = db.mget([KEYS.user_features(user) for user in users])
    rows = []
    for text in found:
        row = json.loads(text)
        rows.append(json.dumps(row | {"last_session": json.dumps(row["last_session"])}).encode())
    return rows


class _Run:
    """All servers with one number of workers, side by side, loaded one after the other."""

    def __init__(self, options: argparse.Namespace, folder: Path, redis_url: str, python: Path | None, workers: int):
        self._options = options
        self._folder = folder
        self._workers = workers
        ports = [pick_free() for _ in range(3)]
        module = [sys.executable, "-m"]
        flags = ["--port", str(ports[1]), "--workers", str(workers), "--redis", redis_url, "--decisions"]
        self._commands = {
            "bare": (ports[0], [*module, "bench.peers.bare_flask", str(ports[0]), str(workers)], "/hello/u"),
            "ours": (ports[1], [*module, "serving", *flags], "/api/v1/features/user-000001"),
        }
        if python:
            command = feast.serve_command(python, folder / "feast", ports[2], workers)
            self._commands["feast"] = (ports[2], command, "/health")

    def measure(self) -> dict:
        loads = [load for load in _LOADS if load.server in self._commands]
        with contextlib.ExitStack() as servers:
            running = {name: servers.enter_context(self._started(name)) for name in self._commands}
            turns: dict[str, list[_Figures]] = {load.name: [] for load in loads}
            for _ in range(self._options.rounds):
                for load in loads:
                    turns[load.name].append(self._wrk(load, running[load.server][0]))
            rows = [{"name": load.name, "batch": load.batch, **_median(turns[load.name])} for load in loads]
            for row, load in zip(rows, loads, strict=True):
                for name, rate in (("half", row["rate"] / 2), ("steady", float(_STEADY))):
                    if rate > row["rate"]:
                        continue
                    runs = [self._wrk(load, running[load.server][0], rate) for _ in range(self._options.rounds)]
                    row[f"{name}_rate"], row[f"{name}_p99_ms"] = (
                        statistics.median(getattr(each, field) for each in runs) for field in ("rate", "p99_ms")
                    )
                    row["failures"] += sum(each.failures for each in runs)
            about = [
                {"name": name, "cold_start_s": start_s, "worker_mb": [round(_pss_mb(pid)) for pid in _workers_of(root)]}
                for name, (root, start_s) in running.items()
            ]
        return {"workers": self._workers, "loads": rows, "servers": about}

    @contextmanager
    def _started(self, name: str) -> Iterator[tuple[int, float]]:
        """Its process id, and the seconds from its start to its first answer."""
        port, command, path = self._commands[name]
        began = time.monotonic()
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=_CHECKOUT, stdout=log, stderr=log, start_new_session=True)
        try:
            while not _answers(f"http://127.0.0.1:{port}{path}"):
                if process.poll() is not None or time.monotonic() - began > _START_S:
                    raise PeerMissing(f"{name} does not answer (log: {log.name})")
                time.sleep(0.02)
            yield process.pid, time.monotonic() - began
        finally:
            for sign in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, sign)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)

    def _wrk(self, load: _Load, root: int, rate: float = 0) -> _Figures:
        """One turn; at most `rate` requests a second, if given."""
        port = self._commands[load.server][0]
        per_connection = f"{rate / _CONNECTIONS:.3f}"
        names = feast.FIELDS if load.server == "feast" else ()
        command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{self._options.seconds}", "--latency", "-s", str(_SCRIPT)]
        asked = [load.kind, str(_USERS), str(load.batch), per_connection, str(T0), *names]
        before = _cpu_s(root)
        run = subprocess.run(
            [*command, f"http://127.0.0.1:{port}", "--", *asked], capture_output=True, text=True, check=True
        )
        spent_s = _cpu_s(root) - before
        return _figures(run.stdout, spent_s)


def _figures(told: str, cpu_s: float) -> _Figures:
    """What wrk printed."""

    def number(pattern: str, otherwise: str = "") -> str:
        found = re.search(pattern, told)
        if not found and not otherwise:
            raise PeerMissing(f"wrk printed something else: {told!r}")
        return found.group(1) if found else otherwise

    requests = int(number(r"(\d+) requests in"))
    failures = int(number(r"Non-2xx or 3xx responses: (\d+)", "0"))
    for broken in re.findall(r"(?:connect|read|write|timeout) (\d+)", told):
        failures += int(broken)
    return _Figures(
        float(number(r"Requests/sec:\s+([\d.]+)")),
        _milliseconds(number(r"50%\s+([\d.]+\w+)")),
        _milliseconds(number(r"99%\s+([\d.]+\w+)")),
        cpu_s / max(1, requests) * 1e6,
        failures,
    )


def _milliseconds(text: str) -> float:
    for unit, factor in (("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    raise ValueError(text)


def _median(turns: Sequence[_Figures]) -> dict[str, float]:
    fields = {
        name: statistics.median(getattr(t, name) for t in turns) for name in ("rate", "p50_ms", "p99_ms", "cpu_us")
    }
    return fields | {"best_rate": max(t.rate for t in turns), "failures": sum(t.failures for t in turns)}


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except OSError:
        return False
    return True


def _tree(pid: int) -> list[int]:
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _tree(int(child))
    return found


def _workers_of(root: int) -> list[int]:
    """The processes that have no children; multiprocessing's helpers aside, those that answer."""
    return [pid for pid in _tree(root) if len(_tree(pid)) == 1 and _pss_mb(pid) > 15]


def _cpu_s(root: int) -> float:
    ticks = 0
    for pid in _tree(root):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _pss_mb(pid: int) -> float:
    """Pages that several processes share count for each in part."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _table(report: dict) -> str:
    rows = {row["name"]: row for row in report["loads"]}
    columns = ("req/s", "users/s", "p50 ms", "p99 ms", "CPU µs", "÷ bare", "CPU ÷", "× Feast", "half p99", "p99 at 1k")
    lines = [
        f"{report['workers']} worker(s), {_CONNECTIONS} connections",
        " " * 26 + "".join(f"{column:>10}" for column in columns),
    ]
    bare = rows[_BARE]
    for name, row in rows.items():
        peer = rows.get(_FEAST if row["batch"] == 1 else _FEAST_MANY)
        ours = name not in (_BARE, _FEAST, _FEAST_MANY)
        cells = (
            f"{row['rate']:,.0f}",
            f"{row['rate'] * row['batch']:,.0f}",
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['cpu_us']:.0f}",
            f"{row['rate'] / bare['rate']:.2f}",
            f"{bare['cpu_us'] / row['cpu_us']:.2f}",
            f"{row['rate'] / peer['rate']:.1f}" if peer and ours else "",
            f"{row['half_p99_ms']:.2f}",
            f"{row['steady_p99_ms']:.2f}" if "steady_p99_ms" in row else "",
        )
        lines.append(f"{name:26}" + "".join(f"{cell:>10}" for cell in cells))
    for server in report["servers"]:
        memory = "+".join(str(mb) for mb in server["worker_mb"])
        lines.append(f"{server['name']}: first answer after {server['cold_start_s']:.1f} s, workers {memory} MB")
    return "\n".join(lines) + "\n"
