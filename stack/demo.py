"""python -m stack.demo: Runs the whole system on this machine, with traffic, until Ctrl-C or for a given time.

Starts the services, the simulator, the API, and the jobs (fraud, sessions, revenue, archive), each on its own embedded
Flink. Once all of them work it prints their progress. At the end it stops the simulator, waits until all it sent has
arrived, and prints each job's ledger, which accounts for every record. Exit status: 0 every ledger balances, everything
arrived and every planted fraud was found; 1 otherwise, or if something failed; 2 a wrong flag.

The demo empties its data folder first, so it begins with empty topics and an empty store. If the local stack is already
up (`python -m stack up`), the demo uses it as it is: the jobs then also read what its topics already held, and the
ledgers allow for that.

--cdc adds PostgreSQL with the shop's tables, a client that changes them, Debezium, and the job cdc.
"""

# Long, as a demo is one story, from the first service to the last ledger.

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any, cast

import redis
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from connections.kafka import Connection
from schemas.access import API, SIMULATOR
from schemas.currencies import currency
from schemas.flags import Parser, typed
from schemas.jobs import JOBS, LETTERS, Job
from schemas.mapping import SHIPPED
from schemas.stopping import Stop
from schemas.store_keys import KEYS
from simulator.config import TOPICS
from stack.children import Children, memory_bytes
from stack.connect import Connect
from stack.console import Console
from stack.errors import StackError
from stack.kafka import Kafka
from stack.ports import HOST, holder, is_free
from stack.postgres import Postgres
from stack.registry import Registry
from stack.service import fetch_url
from stack.stack import Stack
from stack.valkey import Valkey
from transforms.domain.durations import parse_duration_ms
from transforms.domain.fraud import alert_id

__all__ = ["main"]

_SERVICES = ("kafka", "registry", "valkey")
_CDC_SERVICES = ("postgres", "connect")
_PORTS = (*Kafka.ports, *Registry.ports, *Valkey.ports, *Postgres.ports, *Connect.ports, "api")
_API_PORT = 8090
_SHARES = ("--fraud_share=0.2", "--bad_share=0.05", "--late_share=0.02", "--duplicate_share=0.03")

_READY_S = 420.0  # several JVMs start at once, maybe on two cores
_PROGRESS_S = 5.0
_ARRIVAL_S = 120.0
_KAFKA_S = 60.0
# A job's ledger is written every second while it changes; a session's row, up to 5 s after the ledger counts its click.
_QUIET_S = 8.0
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What a job needs less of that shares a laptop with three others. At the demo's rate about 60 MB live on the heap of a
# job server; left alone it begins with a 64th of the machine's memory, and may grow to a quarter.
_SMALL = (
    "--sdk_worker_parallelism=2",
    *(
        f"--job_server_jvm_properties={o}"
        for o in ("-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
    ),
)
_NAMED = 20  # planted frauds that were not found
_OUTCOMES = ("good", "dead_letters", "late", "duplicates")


@dataclass(frozen=True)
class _Job:
    """One of the jobs that run side by side."""

    declared: Job

    @property
    def name(self) -> str:
        """Of its module, its process and its log."""
        return self.declared.module

    @property
    def calls_itself(self) -> str:
        return self.declared.name

    @property
    def topics(self) -> tuple[str, ...]:
        return self.declared.topics

    def flags(self, stack: Stack, home: Path) -> list[str]:
        kafka = f"kafka://{stack.address('kafka')}"
        flags = [f"--input={kafka}/{topic}" for topic in self.topics]
        if self.declared.output_folder:
            flags.append(f"--output={home / self.name}")
        else:
            # With the default ports the first two are the defaults: `--runner=FlinkRunner` alone does the same. The
            # folder is for `make batch`, which compares.
            flags += [f"--output={stack.redis_url}"] * self.declared.online
            flags += [f"--output={kafka}/{self.declared.topic}"] * bool(self.declared.topic)
            flags += [f"--output={home / 'tables'}", "--roll_every=2s"]
        flags += self.declared.demo
        flags += [f"--{kind}={kafka}/{start}.{self.calls_itself}" for kind, start in LETTERS.items()]
        checkpoints = f"--state_backend_storage_path={(home / 'checkpoints' / self.name).as_uri()}"
        ledger = f"--ledger={self.ledger(home)}"
        flags += stack.flags(self.calls_itself, "kafka", "registry", *["store"] * self.declared.online)
        return ["--runner=FlinkRunner", *_SMALL, *flags, f"--registry={stack.registry_url}", checkpoints, ledger]

    def ledger(self, home: Path) -> Path:
        return home / f"{self.name}.ledger.json"


_EVERY = {name: _Job(job) for name, job in JOBS.items()}
_JOBS = tuple(job for job in _EVERY.values() if job.declared.profile is None)
_FRAUD, _CDC = _EVERY["fraud"], _EVERY["cdc"]
_CHANGES_A_SECOND = 10  # transactions
# State as it is after hours, in minutes. Two shards: a shard's log is rewritten only once it is longer than 64 KiB, and
# grows in a straight line until then.
_SHORT = ("--allowed_lateness=1m", "--state_shards=2")
_SHORT_OF = {"sessions": ("--session_gap=1m",), "archive": ("--records_per_file=5000",)}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    stop = _Stop()
    try:
        with stop.on_signals():
            return _run(options, stop)
    except (StackError, PermissionError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except (redis.RedisError, KafkaException, TimeoutError) as error:
        print(f"demo: a service failed: {error or 'timed out'} (logs: {_home(options) / 'logs'})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130


def _parser() -> Parser:
    about, _, rest = (__doc__ or "").partition("\n\n")
    parser = Parser(
        prog="python -m stack.demo",
        description=about.partition(": ")[2],
        epilog=rest,
    )
    add = parser.add_argument
    add("--duration", type=typed(_seconds), metavar="TIME", help="stop after this long, such as 60s (default: never)")
    add(
        "--currencies",
        type=typed(_currencies),
        default="TRY",
        metavar="A,B",
        help="currencies that users pay in, such as TRY,EUR,JPY (default: %(default)s)",
    )
    add("--cdc", action="store_true", help="add a database and the job cdc, which takes 1 GB more memory")
    add("--secure", action="store_true", help="use TLS, passwords and access rules everywhere (docs/security.md)")
    add("--rate", type=_rate, default=50, metavar="N", help="events per second (default: %(default)s)")
    add(
        "--history",
        type=typed(_seconds),
        metavar="TIME",
        help="first send the traffic of this much past time at once, such as 1h, then go on live; "
        "--rate is then the average over a day (default: no past traffic)",
    )
    add(
        "--short", action="store_true", help="use a session gap and an allowed lateness of 1 minute, as stack.soak does"
    )
    add(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder for data and logs, emptied first (default: .stack/demo, with services of .stack if they are up)",
    )
    add(
        "--port",
        action="append",
        type=_port,
        default=[],
        metavar="NAME=PORT",
        help=f"use another port for NAME: {', '.join(_PORTS)}",
    )
    return parser


def _seconds(duration: str) -> float:
    return parse_duration_ms(duration) / 1000


def _rate(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _port(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in _PORTS or not number.isdecimal() or not 0 < int(number) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PORT with a NAME of {', '.join(_PORTS)}")
    return name, int(number)


def _home(options: argparse.Namespace) -> Path:
    return (options.data or Path(".stack") / "demo").absolute()


class _Stop(Stop):
    """Set by Ctrl-C while the demo runs. At any other time, or the second time, Ctrl-C interrupts."""

    running = False

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._on_signal) for number in _STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if not self.running or self.is_set():
            raise KeyboardInterrupt
        self.set()


def _run(options: argparse.Namespace, stop: _Stop) -> int:
    home, console, ports = _home(options), Console(sys.stdout), dict(options.port)
    api_port = ports.pop("api", _API_PORT)
    jobs: tuple[_Job, ...] = (*_JOBS, _CDC) if options.cdc else _JOBS
    services: tuple[str, ...] = (*_SERVICES, *_CDC_SERVICES) if options.cdc else _SERVICES
    database = ("workload",) if options.cdc else ()
    children = Children(home, ("simulator", *database, *(job.name for job in jobs), "api"))
    with _only_one(home), contextlib.ExitStack() as opened:
        children.stop()  # of a demo that was killed
        Children(home, (_CDC.name, "workload")).stop()  # of one that had a database
        if not is_free(api_port):
            raise StackError(
                f"port {api_port} is already in use{holder(api_port)}; "
                "stop what uses it or choose another with --port api=PORT"
            )
        shared = Stack(Path(".stack"), services, ports=ports, console=console, secure=options.secure)
        if options.data or not any(shared.pid(name) for name in services):
            Stack(home, ()).stop(wipe=True)
            shared = Stack(home, services, ports=ports, console=console, secure=options.secure)
        stack = opened.enter_context(shared)
        opened.callback(children.stop)
        opened.callback(_ignore_signals)  # what is left to do is bounded
        for name in ("checkpoints", "archive", "tables"):  # the jobs read their topics from the beginning
            shutil.rmtree(home / name, ignore_errors=True)

        system = _System(stack, f"http://{HOST}:{api_port}", home, children, jobs, services)
        before = system.sent()
        system.start([*_pace(options), f"--currencies={options.currencies}"], api_port, options.short)
        system.wait_until_ready(console)
        print(_welcome(system, options.duration), flush=True)
        stop.running = True
        _watch(system, before, options.duration, stop)
        return _settle(system, before, console)


def _currencies(text: str) -> str:
    for code in text.split(","):
        currency(code)
    return text


def _pace(options: argparse.Namespace) -> list[str]:
    """The simulator's flags for how much it sends, and from when on."""
    if options.history is None:
        return [f"--rate={options.rate}"]
    start = datetime.now(UTC) - timedelta(seconds=options.history)
    return ["--rate=0", f"--event_rate={options.rate}", f"--start={start.isoformat(timespec='seconds')}"]


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[None]:
    home.joinpath("logs").mkdir(parents=True, exist_ok=True)
    with (home / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(
                f"a demo is already running in {home}; stop it, or choose another folder with --data"
            ) from None
        yield


def _ignore_signals() -> None:
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@dataclass(frozen=True)
class _System:
    """What runs, and what can be asked of it."""

    stack: Stack
    api: str
    home: Path
    children: Children
    jobs: tuple[_Job, ...] = _JOBS
    services: tuple[str, ...] = _SERVICES

    @property
    def topics(self) -> tuple[str, ...]:
        """All that somebody writes to."""
        return (*TOPICS, *(_CDC.topics if _CDC in self.jobs else ()))

    @property
    def truth(self) -> Path:
        return self.home / "truth.jsonl"

    @property
    def tables(self) -> Path:
        """The jobs' rows, in a folder for each table."""
        return self.home / "tables"

    def start(self, pace: Sequence[str], api_port: int, short: bool = False) -> None:
        stack = self.stack
        if _CDC in self.jobs:
            self._start_database()
        for job in self.jobs:
            job.ledger(self.home).unlink(missing_ok=True)
            more = [*_SHORT, *_SHORT_OF.get(job.name, ())] if short else []
            self.children.start(job.name, f"beam_pipelines.{job.name}", [*job.flags(stack, self.home), *more])
        stores = [
            f"--redis={stack.redis_url}",
            f"--kafka={stack.address('kafka')}",
            *stack.flags(API, "kafka", "store", "registry"),
        ]
        events = [f"--events=kafka://{stack.address('kafka')}", f"--registry={stack.registry_url}"]
        events += [f"--mapping={name}" for name in SHIPPED]
        self.children.start("api", "serving", [f"--port={api_port}", "--decisions", *stores, *events])
        topics = [f"--output=kafka://{stack.address('kafka')}", f"--registry={stack.registry_url}"]
        topics += stack.flags(SIMULATOR, "kafka", "registry")
        self.children.start("simulator", "simulator", [*pace, *_SHARES, f"--truth={self.truth}", *topics])

    def _start_database(self) -> None:
        """The shop's tables, Debezium on them, and a client. Raises: StackError."""
        data = self.stack.log("postgres").parent.parent
        database = f"--database=postgresql://postgres@{self.stack.address('postgres')}/shop"
        password = f"--password_file={data / 'postgres' / 'password'}"
        secrets = f"--secrets={data / 'connect' / 'secrets'}"
        for words in (
            ("setup", "--sample_data", database, password, secrets),
            ("register", database, secrets, f"--connect=http://{self.stack.address('connect')}"),
        ):
            done = subprocess.run([sys.executable, "-m", "cdc", *words], capture_output=True, text=True, check=False)
            if done.returncode:
                raise StackError(f"cdc {words[0]}: {done.stderr.strip()}")
        self.children.start("workload", "cdc.workload", [f"--rate={_CHANGES_A_SECOND}", database, password])

    def wait_until_ready(self, console: Console) -> None:
        """Raises: StackError."""
        waits: dict[str, Callable[[], bool]] = {
            "api": lambda: fetch_url(f"{self.api}/api/v1/health") is not None,
            "simulator": lambda: any(self.sent().values()),
        }
        for job in self.jobs:
            waits[job.name] = lambda job=job: self.ledger(job)["in"] > 0  # type: ignore[misc]
        begin = time.monotonic()
        while waits:
            self.children.require(*self.children.names)
            for name in [name for name, ready in waits.items() if ready()]:
                del waits[name]
                console.line(f"{name}: works after {time.monotonic() - begin:.1f} s (log: {self.children.log(name)})")
            if waits and time.monotonic() - begin > _READY_S:
                logs = ", ".join(str(self.children.log(name)) for name in waits)
                raise StackError(f"{', '.join(waits)} not ready after {_READY_S:.0f} s (log: {logs})")
            console.waiting(f"waiting for {', '.join(waits)} ({time.monotonic() - begin:.0f} s)")
            time.sleep(0.2)

    def sent(self) -> dict[str, int]:
        """Records in each topic that the simulator, or Debezium, writes."""
        deadline = time.monotonic() + _KAFKA_S
        while True:  # topics that were just created have no leader yet, and a busy broker may be slow
            try:
                return self._ask_sent()
            except (KafkaException, TimeoutError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _ask_sent(self) -> dict[str, int]:
        admin = AdminClient({**Connection(self.stack.brokers).settings, "log_level": 0})
        topics = admin.list_topics(timeout=10).topics
        parts = [TopicPartition(topic, p) for topic in self.topics for p in topics[topic].partitions]
        counts = dict.fromkeys(self.topics, 0)
        for sign, spec in ((1, OffsetSpec.latest()), (-1, OffsetSpec.earliest())):
            for part, found in admin.list_offsets(dict.fromkeys(parts, spec), request_timeout=10).items():
                counts[part.topic] += sign * found.result(timeout=10).offset
        return counts

    def ledger(self, job: _Job) -> dict[str, int]:
        """A job's ledger as it stands; zeros while there is none."""
        try:
            return cast("dict[str, int]", json.loads(job.ledger(self.home).read_text()))
        except FileNotFoundError:
            return dict.fromkeys(("in", *_OUTCOMES), 0)

    def posted(self) -> dict[str, int]:
        """Records in each topic that the API was sent."""
        said = (fetch_url(f"{self.api}/metrics", timeout_s=30) or b"").decode()
        found = re.findall(r'^streamforge_events_produced_total{topic="([^"]+)"} (\S+)', said, re.MULTILINE)
        return {topic: int(float(count)) for topic, count in found}

    def is_quiet(self, job: _Job) -> bool:
        """Whether its ledger and its rows have not changed for a while."""
        written = [job.ledger(self.home), *self.tables.glob("*")]
        return time.time() - max(path.stat().st_mtime for path in written) >= _QUIET_S

    def memory_bytes(self) -> dict[str, int]:
        """Of every process of the demo, by what it is."""
        groups = {name: self.children.pid(name) for name in self.children.names}
        groups |= {name: self.stack.pid(name) for name in self.services}
        return {name: memory_bytes(group) for name, group in groups.items() if group}

    def alerts(self) -> int:
        with redis.Redis(**self.stack.store) as store:
            return cast(int, store.zcard(KEYS.recent_alerts))

    def found(self, frauds: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Which planted frauds have their alert in the store."""
        with redis.Redis(**self.stack.store) as store, store.pipeline(transaction=False) as asked:
            for f in frauds:
                alert = alert_id(f["rule"], f["user_id"], f["order_id"])
                asked.hexists(KEYS.user_alert_ids(f["user_id"]), alert)
            return [bool(answer) for answer in asked.execute()]


def _welcome(system: _System, duration_s: float | None) -> str:
    stock = (
        f"\n  low stock  curl -s '{system.api}/api/v1/inventory?low_stock=true&limit=3'" if _CDC in system.jobs else ""
    )
    end = "Press Ctrl-C to stop." if duration_s is None else f"Stops after {duration_s:g} s, or with Ctrl-C."
    return f"""
StreamForge runs on {system.api}
  dashboard  {system.api}/
  alerts     curl -s '{system.api}/api/v1/fraud-alerts?limit=3'
  revenue    curl -s {system.api}/api/v1/revenue/realtime
  sessions   curl -s '{system.api}/api/v1/sessions?open=true&limit=3'
  one user   curl -s {system.api}/api/v1/features/USER_ID   (sessions/USER_ID, fraud-alerts/USER_ID){stock}
  events     POST {system.api}/api/v1/events   (an order of your own: README, "Quick start")
  health     curl -s {system.api}/api/v1/health
  metrics    curl -s {system.api}/metrics
  logs       {system.home / "logs"}
{end}
"""


def _watch(system: _System, before: Mapping[str, int], duration_s: float | None, stop: Stop) -> None:
    """Prints progress until it is time to stop."""
    begin = time.monotonic()
    end = begin + duration_s if duration_s is not None else float("inf")
    shown = begin
    most: dict[str, int] = {}
    while not stop.is_set() and (now := time.monotonic()) < end:
        system.children.require(*system.children.names)
        if now >= shown + _PROGRESS_S:
            shown += _PROGRESS_S
            most = max(most, system.memory_bytes(), key=lambda memory: sum(memory.values()))
            sent = sum(system.sent().values()) - sum(before.values())
            counts = ", ".join(f"{job.name} {system.ledger(job)['in']:,}" for job in system.jobs)
            print(f"{now - begin:4.0f} s  {sent:,} events sent · {system.alerts():,} alerts · in: {counts}", flush=True)
        stop.wait(0.5)
    if most:
        parts = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in most.items())
        print(f"memory: {sum(most.values()) / 1e9:.1f} GB in total; in MB: {parts}", flush=True)


@dataclass(frozen=True)
class _Account:
    """A job's ledger, and the records it was sent.

    Attributes:
      before: how many records its topics held before the demo.
    """

    job: str
    ledger: Mapping[str, int]
    planted: Mapping[str, int]
    before: int

    @property
    def missing(self) -> int:
        return self.before + self.planted["sent"] - self.ledger["in"]

    @property
    def balances(self) -> bool:
        return self.ledger["in"] == sum(self.ledger[name] for name in _OUTCOMES)


def _settle(system: _System, before: Mapping[str, int], console: Console) -> int:
    """Stops the traffic, waits until all of it has arrived and prints the ledgers; returns the exit status."""
    system.children.stop("simulator", *(["workload"] if _CDC in system.jobs else []))
    lines = _truth(system.truth)
    if not lines or lines[-1]["kind"] != "summary":
        raise StackError(f"the simulator did not stop cleanly (log: {system.children.log('simulator')})")
    frauds = [line for line in lines if line["kind"] == "fraud"]
    begin = time.monotonic()
    while True:
        system.children.require(*(job.name for job in system.jobs))
        sent = _with(lines[-1]["topics"], system.posted()) | _changes(system, before)
        accounts = [_account(system, job, sent, before) for job in system.jobs]
        found = system.found(frauds)
        arrived = all(account.missing <= 0 for account in accounts) and all(found)
        if (arrived and all(map(system.is_quiet, system.jobs))) or time.monotonic() > begin + _ARRIVAL_S:
            break
        console.waiting("waiting for the last records: " + ", ".join(f"{a.job} {a.missing:,}" for a in accounts))
        time.sleep(0.2)
    unseen = [fraud for fraud, is_found in zip(frauds, found, strict=True) if not is_found]
    console.line(_report(accounts, len(frauds), unseen))
    return _status(accounts, unseen)


def _status(accounts: Sequence[_Account], unseen: Sequence[Mapping[str, Any]]) -> int:
    return int(bool(unseen) or any(account.missing or not account.balances for account in accounts))


def _account(
    system: _System, job: _Job, planted: Mapping[str, Mapping[str, int]], before: Mapping[str, int]
) -> _Account:
    mine = [planted[topic] for topic in job.topics]
    sums = {name: sum(each[name] for each in mine) for name in ("sent", "good", "bad", "late", "duplicates")}
    return _Account(job.calls_itself, system.ledger(job), sums, sum(before[topic] for topic in job.topics))


def _with(planted: Mapping[str, Mapping[str, int]], posted: Mapping[str, int]) -> dict[str, Mapping[str, int]]:
    """And what was sent to the API, which takes good ones alone."""
    return {
        topic: {name: n + posted.get(topic, 0) * (name in ("sent", "good")) for name, n in counts.items()}
        for topic, counts in planted.items()
    }


def _changes(system: _System, before: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """What Debezium wrote, as the simulator would say it: nobody plants faults there."""
    if _CDC not in system.jobs:
        return {}
    counts, held = dict.fromkeys(("bad", "late", "duplicates"), 0), system.sent()
    written = {topic: held[topic] - before[topic] for topic in _CDC.topics}
    return {topic: counts | {"sent": count, "good": count} for topic, count in written.items()}


def _truth(path: Path) -> list[dict[str, Any]]:
    """What was planted; empty when the simulator was killed while it wrote."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError:
        return []


def _report(accounts: Sequence[_Account], planted: int, unseen: Sequence[Mapping[str, Any]]) -> str:
    def row(name: str, numbers: Mapping[str, int], columns: Sequence[str], verdict: str = "") -> str:
        return f"{name:<20}" + "".join(f"{numbers[column]:>14,}" for column in columns) + verdict

    lines = ["", f"{'ledger':<20}" + "".join(f"{name.replace('_', ' '):>14}" for name in ("in", *_OUTCOMES))]
    for a in accounts:
        lines.append(row(a.job, a.ledger, ("in", *_OUTCOMES), "" if a.balances else "  DOES NOT BALANCE"))
        lines.append(row("  sent to it", a.planted, ("sent", "good", "bad", "late", "duplicates")))
        if a.before:
            lines.append(f"  its topics already held {a.before:,} records, which it read as well")
    lines.append("repeats of records that a job does not use count as good: they have no effect")
    if all(a.balances for a in accounts):
        lines.append("in = good + dead letters + late + duplicates: every ledger balances")
    lines += [f"DIFFERENCE: {a.job}: sent − read = {a.missing:,}" for a in accounts if a.missing]
    if not any(a.missing for a in accounts):
        lines.append("everything sent has arrived")
    lines.append(f"planted fraud: {planted - len(unseen):,} of {planted:,} found")
    lines += [f"NOT FOUND: {f['rule']} of {f['user_id']}, completed by order {f['order_id']}" for f in unseen[:_NAMED]]
    if len(unseen) > _NAMED:
        lines.append(f"NOT FOUND: {len(unseen) - _NAMED:,} more")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
