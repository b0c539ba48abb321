"""python -m stack.demo: the whole system on this machine, with traffic, until Ctrl-C or for a while.

Starts the services, the fraud job on embedded Flink, the simulator and the API as processes of their own; waits until
each works; shows how it goes; and in the end, when the simulator has stopped and all it sent has arrived, shows that
every record is accounted for. Exit status: 0 the ledger balances and everything arrived; 1 it does not, or something
failed; 2 a wrong flag.

A demo begins with empty topics and an empty store, so that what it shows is its own: its data folder is emptied first.
Only when the local stack is up already (`python -m stack up`) it uses that as it is. The job then reads what the topic
held before too, and that is taken into account.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, cast

import redis
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas import features
from stack.console import Console
from stack.errors import StackError
from stack.kafka import Kafka
from stack.ports import HOST, holder, is_free
from stack.process import Process
from stack.registry import Registry
from stack.service import fetch_url
from stack.stack import Stack
from stack.valkey import Valkey
from transforms.domain.durations import parse_duration_ms
from transforms.domain.fraud import alert_id

__all__ = ["main"]

_ROOT = Path(__file__).parent.parent
_SERVICES = ("kafka", "registry", "valkey")
_PORTS = (*Kafka.ports, *Registry.ports, *Valkey.ports, "api")
_API_PORT = 8090
_ORDERS = "transactions.orders"
_TOPICS = (_ORDERS, "clickstream.events", "inventory.events")
_JOB = "fraud-detector"
_SHARES = ("--fraud_share=0.2", "--bad_share=0.05", "--late_share=0.02", "--duplicate_share=0.03")

_READY_S = 180.0
_PROGRESS_S = 5.0
_ARRIVAL_S = 60.0
_KAFKA_S = 20.0
_QUIET_MS = 3_000  # the job's ledger is written every second while it changes
_GRACE_S = {signal.SIGINT: 15.0, signal.SIGTERM: 5.0, signal.SIGKILL: 5.0}
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    stop = _Stop()
    try:
        with stop.on_signals():
            return _run(options, stop)
    except (StackError, PermissionError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except (redis.RedisError, KafkaException) as error:
        print(f"demo: a service failed: {error} (logs: {_home(options) / 'logs'})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"demo: {message.removeprefix('argument ')} (see --help)\n")


def _parser() -> argparse.ArgumentParser:
    about, _, rest = (__doc__ or "").partition("\n\n")
    parser = _Parser(
        prog="python -m stack.demo",
        description=about.partition(": ")[2],
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--duration", type=_duration_s, metavar="TIME", help="end by itself after so long, as 60s (default: never)")
    add("--rate", type=_rate, default=50, metavar="N", help="events a second (50)")
    add(
        "--data",
        type=Path,
        metavar="DIR",
        help="data and logs; emptied first (default: .stack/demo, and the services of .stack if they are up)",
    )
    add("--port", action="append", type=_port, default=[], metavar="NAME=PORT", help=f"of {', '.join(_PORTS)}")
    return parser


def _duration_s(text: str) -> float:
    try:
        return parse_duration_ms(text) / 1000
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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


class _Stop(threading.Event):
    """Set by Ctrl-C while the demo runs. At any other time, and the second time, Ctrl-C interrupts."""

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
    children = _Children(home)
    with _only_one(home), contextlib.ExitStack() as opened:
        children.stop()  # of a demo that was killed
        if not is_free(api_port):
            raise StackError(
                f"port {api_port} is already in use{holder(api_port)}; "
                "stop what uses it or choose another with --port api=PORT"
            )
        shared = Stack(Path(".stack"), _SERVICES, ports=ports, console=console)
        if options.data or not any(shared.pid(name) for name in _SERVICES):
            Stack(home, ()).stop(wipe=True)
            shared = Stack(home, _SERVICES, ports=ports, console=console)
        stack = opened.enter_context(shared)
        opened.callback(children.stop)
        opened.callback(_ignore_signals)  # what is left to do is bounded
        shutil.rmtree(home / "checkpoints", ignore_errors=True)

        system = _System(stack, f"http://{HOST}:{api_port}", home, children)
        started_ms = time.time_ns() // 1_000_000
        before = system.sent()
        system.start(options.rate, api_port)
        system.wait_until_ready(started_ms, console)
        print(_welcome(system, options.duration), flush=True)
        stop.running = True
        _watch(system, before, started_ms, options.duration, stop)
        return _settle(system, before[_ORDERS], started_ms, console)


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[None]:
    home.joinpath("logs").mkdir(parents=True, exist_ok=True)
    with (home / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(f"a demo runs in {home} already; end it, or choose another folder with --data") from None
        yield


def _ignore_signals() -> None:
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class _Children:
    """The demo's own processes, each a process group with all that it starts."""

    NAMES = ("simulator", "fraud", "api")

    def __init__(self, home: Path):
        self._home = home
        self._processes = {name: Process(home / f"{name}.pid") for name in self.NAMES}
        self._groups: dict[str, int] = {}

    def start(self, name: str, module: str, flags: Sequence[str]) -> None:
        self.log(name).unlink(missing_ok=True)
        command = [sys.executable, "-m", module, *flags]
        self._processes[name].start(command, {"PYTHONUNBUFFERED": "1"}, _ROOT, self.log(name))
        self._groups[name] = self._processes[name].pid() or 0

    def log(self, name: str) -> Path:
        return self._home / "logs" / f"{name}.log"

    def require(self, *names: str) -> None:
        """Raises: StackError, when one of them is gone."""
        for name in names:
            if not self._processes[name].pid():
                lines = [line for line in self.log(name).read_text(errors="replace").splitlines() if line.strip()]
                reason = lines[-1].strip()[:300] if lines else "it said nothing"
                raise StackError(f"{name} ended unexpectedly: {reason} (log: {self.log(name)})")

    def stop(self, *names: str) -> None:
        """Ends them (default: all) and everything they started: asks first, then insists."""
        groups = {group for name in names or self.NAMES if (group := self._group(name))}
        for number, grace_s in _GRACE_S.items():
            for group in groups:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, number)
            deadline = time.monotonic() + grace_s
            while groups and time.monotonic() < deadline:
                time.sleep(0.05)
                groups = {group for group in groups if _lives(group)}

    def _group(self, name: str) -> int:
        return self._groups.pop(name, 0) or self._processes[name].pid() or 0


def _lives(group: int) -> bool:
    """Whether a process of the group runs; one that nobody has waited for yet does not."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-group, os.WNOHANG)
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            stats.append(path.read_text().rpartition(")")[2].split())
    return not stats or any(int(stat[2]) == group and stat[0] not in "ZX" for stat in stats)


@dataclass(frozen=True)
class _System:
    """What runs, and what can be asked of it."""

    stack: Stack
    api: str
    home: Path
    children: _Children

    @property
    def truth(self) -> Path:
        return self.home / "truth.jsonl"

    def start(self, rate: int, api_port: int) -> None:
        stack, kafka = self.stack, f"kafka://{self.stack.address('kafka')}"
        registry = f"--registry={stack.registry_url}"
        # With the default ports these are the defaults: `--runner=FlinkRunner` alone does the same.
        addresses = [f"--input={kafka}/{_ORDERS}", f"--output={stack.redis_url}", f"--output={kafka}/alerts.fraud"]
        checkpoints = f"--state_backend_storage_path={(self.home / 'checkpoints').as_uri()}"
        job = ["--runner=FlinkRunner", *addresses, registry, checkpoints]
        self.children.start("fraud", "beam_pipelines.fraud", job)
        self.children.start("api", "serving", [f"--port={api_port}", f"--redis={stack.redis_url}"])
        traffic = [f"--rate={rate}", *_SHARES, f"--truth={self.truth}", f"--output={kafka}", registry]
        self.children.start("simulator", "simulator", traffic)

    def wait_until_ready(self, started_ms: int, console: Console) -> None:
        """Raises: StackError."""
        waits: dict[str, Callable[[], bool]] = {
            "api": lambda: fetch_url(f"{self.api}/api/v1/health") is not None,
            "simulator": lambda: any(self.sent().values()),
            "fraud": lambda: self.ledger(started_ms).get("in", 0) > 0,
        }
        begin = time.monotonic()
        for name, ready in waits.items():
            while not ready():
                self.children.require(*self.children.NAMES)
                if time.monotonic() - begin > _READY_S:
                    raise StackError(f"{name} was not ready after {_READY_S:.0f} s (log: {self.children.log(name)})")
                console.waiting(f"waiting for {name} ({time.monotonic() - begin:.0f} s)")
                time.sleep(0.2)
            console.line(f"{name}: works after {time.monotonic() - begin:.1f} s (log: {self.children.log(name)})")

    def sent(self) -> dict[str, int]:
        """Records in each topic that the simulator writes."""
        deadline = time.monotonic() + _KAFKA_S
        while True:  # topics that were just created have no leader yet
            try:
                return self._ask_sent()
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _ask_sent(self) -> dict[str, int]:
        admin = AdminClient({"bootstrap.servers": self.stack.address("kafka"), "log_level": 0})
        topics = admin.list_topics(timeout=10).topics
        parts = [TopicPartition(topic, p) for topic in _TOPICS for p in topics[topic].partitions]
        counts = dict.fromkeys(_TOPICS, 0)
        for sign, spec in ((1, OffsetSpec.latest()), (-1, OffsetSpec.earliest())):
            for part, found in admin.list_offsets(dict.fromkeys(parts, spec), request_timeout=10).items():
                counts[part.topic] += sign * found.result(timeout=10).offset
        return counts

    def ledger(self, since_ms: int) -> dict[str, int]:
        """This run's ledger; empty while there is none."""
        with redis.Redis.from_url(self.stack.redis_url) as store:
            fields = cast("Mapping[bytes, bytes]", store.hgetall(features.ledger_key(_JOB)))
        ledger = {name.decode(): int(value) for name, value in fields.items()}
        return ledger if ledger.get("run_ms", 0) >= since_ms else {}

    def alerts(self) -> int:
        with redis.Redis.from_url(self.stack.redis_url) as store:
            return cast(int, store.zcard(features.RECENT_ALERTS_KEY))

    def found(self, frauds: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Which planted frauds have their alert in the store."""
        with redis.Redis.from_url(self.stack.redis_url) as store, store.pipeline(transaction=False) as asked:
            for f in frauds:
                alert = alert_id(f["rule"], f["user_id"], f["order_id"])
                asked.hexists(features.user_alert_ids_key(f["user_id"]), alert)
            return [bool(answer) for answer in asked.execute()]


def _welcome(system: _System, duration_s: float | None) -> str:
    end = "Ctrl-C ends it." if duration_s is None else f"It ends by itself after {duration_s:g} s, or by Ctrl-C."
    return f"""
StreamForge runs on {system.api}
  dashboard  {system.api}/
  alerts     curl -s '{system.api}/api/v1/fraud-alerts?limit=3'
  one user   curl -s '{system.api}/api/v1/fraud-alerts/USER_ID'
  health     curl -s {system.api}/api/v1/health
  metrics    curl -s {system.api}/metrics
  logs       {system.home / "logs"}
{end}
"""


def _watch(
    system: _System, before: Mapping[str, int], started_ms: int, duration_s: float | None, stop: threading.Event
) -> None:
    """Shows how it goes, until it shall stop."""
    begin = time.monotonic()
    end = begin + duration_s if duration_s is not None else float("inf")
    shown = begin
    while not stop.is_set() and (now := time.monotonic()) < end:
        system.children.require(*system.children.NAMES)
        if now >= shown + _PROGRESS_S:
            shown += _PROGRESS_S
            ledger = system.ledger(started_ms)
            sent = sum(system.sent().values()) - sum(before.values())
            counts = ", ".join(f"{ledger[name]:,} {name.replace('_', ' ')}" for name in _OUTCOMES)
            print(
                f"{now - begin:4.0f} s  {sent:,} events sent · {system.alerts():,} alerts · "
                f"{ledger['in']:,} orders in: {counts}",
                flush=True,
            )
        stop.wait(0.5)


_OUTCOMES = ("good", "dead_letters", "late", "duplicates")


def _settle(system: _System, before: int, started_ms: int, console: Console) -> int:
    """Stops the traffic, waits until all of it has arrived, and shows the ledger; returns the exit status."""
    system.children.stop("simulator")
    lines = _truth(system.truth)
    if not lines or lines[-1]["kind"] != "summary":
        raise StackError(f"the simulator did not end cleanly (log: {system.children.log('simulator')})")
    planted = lines[-1]["topics"][_ORDERS]
    frauds = [line for line in lines if line["kind"] == "fraud"]
    expected = before + planted["sent"]
    begin = time.monotonic()
    while True:
        system.children.require("fraud")
        ledger, found = system.ledger(started_ms), system.found(frauds)
        quiet = time.time_ns() // 1_000_000 - ledger["updated_ms"] >= _QUIET_MS
        if (ledger["in"] >= expected and all(found) and quiet) or time.monotonic() > begin + _ARRIVAL_S:
            break
        console.waiting(f"waiting for the last records: {ledger['in']:,} of {expected:,}")
        time.sleep(0.2)
    console.line(_report(ledger, planted, before, found))
    return 0 if _balances(ledger) and ledger["in"] == expected else 1


def _truth(path: Path) -> list[dict[str, Any]]:
    """What was planted; empty when the simulator was killed while it wrote."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError:
        return []


def _balances(ledger: Mapping[str, int]) -> bool:
    return ledger["in"] == sum(ledger[name] for name in _OUTCOMES)


def _report(ledger: Mapping[str, int], planted: Mapping[str, int], before: int, found: Sequence[bool]) -> str:
    rows = [("in", "sent"), ("good", "good"), ("dead_letters", "bad"), ("late", "late"), ("duplicates", "duplicates")]
    lines = ["", f"{'ledger of ' + _JOB:<26}{'job':>10}{'sent':>10}"]
    lines += [f"  {ours.replace('_', ' '):<24}{ledger[ours]:>10,}{planted[theirs]:>10,}" for ours, theirs in rows]
    if before:
        lines.append(f"  the topic held {before:,} orders before, which the job has read too")
    if ledger["duplicates"] < planted["duplicates"] and not before:
        lines.append("  repeats of orders that no rule looks at are good: nothing comes of them")
    parts = " + ".join(f"{ledger[name]:,}" for name in _OUTCOMES)
    verdict = "balances" if _balances(ledger) else "DOES NOT BALANCE"
    lines.append(f"in = good + dead letters + late + duplicates: {ledger['in']:,} = {parts}, {verdict}")
    missing = before + planted["sent"] - ledger["in"]
    lines.append("everything sent has arrived" if not missing else f"DIFFERENCE: {missing:,} of what was sent")
    lines.append(f"planted fraud: {sum(found):,} of {len(found):,} found")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
