"""Latency: from an order's arrival in Kafka to its alert being readable in the online store.

Every 50 ms it adds to a steady flow of orders one that raises an alert by itself: a new user's first order above 5000
TRY. The clock starts when the broker has acknowledged that order and stops when a reader that polls the store every few
milliseconds sees the alert. Without addresses it starts a stack and the fraud job.

Long, as a benchmark is read as one story, from load to report.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import redis
from confluent_kafka import KafkaError, Message, Producer

from bench.orders import FIRST_EVENT_MS, HIGH_VALUE_MINOR, Encoder, Spec, generate
from bench.throughput import positive
from schemas.codec import encode, parse_schema
from schemas.events import OrderEvent, OrderItem, avro_schema
from schemas.store_keys import KEYS
from stack import Stack
from stack.console import Console
from transforms.io.registry import Registry

__all__ = ["Addresses", "Latencies", "add_arguments", "main", "percentile"]

_SHARES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
_TOPIC: Final = "transactions.orders"
_JOB_START_S: Final = 180.0
_LAST_ALERT_S: Final = 30.0
_LOOK_BACK_MS: Final = 60_000


@dataclasses.dataclass(frozen=True)
class Addresses:
    kafka: str
    registry: str
    redis: str


@dataclasses.dataclass(frozen=True)
class Latencies:
    """What was measured; `seconds` is sorted.

    Attributes:
      missing: planted orders whose alert was not seen.
    """

    seconds: tuple[float, ...]
    missing: int
    rate: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", type=positive, default=1_000, metavar="N", help="orders per second (default: 1000)")
    parser.add_argument("--seconds", type=positive, default=60, metavar="S", help="how long to measure (default: 60)")
    parser.add_argument("--warmup", type=int, default=20, metavar="S", help="traffic before measuring (default: 20)")
    parser.add_argument(
        "--every", type=positive, default=50, metavar="MS", help="interval between planted orders (default: 50)"
    )
    parser.add_argument(
        "--poll", type=positive, default=5, metavar="MS", help="interval between reads of the store (default: 5)"
    )
    parser.add_argument("--kafka", metavar="HOST:PORT", help="broker of a running fraud job")
    parser.add_argument("--registry", metavar="URL", help="that broker's schema registry")
    parser.add_argument("--redis", metavar="URL", help="store of that job, such as redis://host:port/0")
    parser.add_argument("--topic", default=_TOPIC, help=f"topic of that job (default: {_TOPIC})")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(".stack/bench-latency"),
        metavar="DIR",
        help="folder for the services it starts, emptied first (default: .stack/bench-latency)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")


def main(options: argparse.Namespace) -> int:
    """Returns the exit status: 1 when an alert was not seen."""
    given = (options.kafka, options.registry, options.redis)
    if any(given) and not all(given):
        raise SystemExit("bench latency: --kafka, --registry and --redis must be given together")
    console = Console(sys.stderr)
    started = (
        contextlib.nullcontext(Addresses(*given)) if all(given) else _started(options.data, options.topic, console)
    )
    with started as addresses:
        latencies = _Run(addresses, options, console).measure()
    print(_report(latencies))
    if options.json:
        options.json.write_text(json.dumps(_figures(latencies), indent=2) + "\n", encoding="utf-8")
    return 1 if latencies.missing or not latencies.seconds else 0


@contextmanager
def _started(data: Path, topic: str, console: Console) -> Iterator[Addresses]:
    """A fresh stack and the fraud job on it."""
    services = ["kafka", "registry", "valkey"]
    Stack(data, services).stop(wipe=True)
    with Stack(data, services, ports="free", console=console) as stack:
        addresses = Addresses(stack.address("kafka"), stack.registry_url, stack.redis_url)
        log = data / "logs" / "fraud.log"
        command = [
            sys.executable,
            "-m",
            "beam_pipelines.fraud",
            "--runner=FlinkRunner",
            f"--input=kafka://{addresses.kafka}/{topic}",
            f"--registry={addresses.registry}",
            f"--output={addresses.redis}",
            f"--output=kafka://{addresses.kafka}/alerts.fraud",
        ]
        with log.open("wb") as out:
            job = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        console.line(f"fraud job: pid {job.pid} (log: {log})")
        try:
            yield addresses
        finally:
            end_of_job(job)


def end_of_job(job: subprocess.Popen[bytes]) -> None:
    """Ends the job and the processes it started: they are one process group."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.wait(10)


class _Run:
    """One measurement. A thread of its own looks at the store; the rest happens in the caller's thread."""

    def __init__(self, addresses: Addresses, options: argparse.Namespace, console: Console):
        self._options = options
        self._console = console
        self._run = int(time.time()) % 900
        self._writer_id = Registry(addresses.registry).register(f"{options.topic}-value", avro_schema("OrderEvent"))
        self._schema = parse_schema(avro_schema("OrderEvent"))
        self._store = redis.Redis.from_url(addresses.redis)
        self._producer = Producer({"bootstrap.servers": addresses.kafka, "linger.ms": 1, "enable.idempotence": True})
        self._planted = 0
        self._event_time: dict[str, int] = {}  # of orders whose alert is not seen yet
        self._appended: dict[str, float] = {}
        self._seen: dict[str, float] = {}
        self._failed: str | None = None
        self._stopping = threading.Event()

    def measure(self) -> Latencies:
        options, console = self._options, self._console
        # With the default of 5 ms the two threads would see each other's turns in the result.
        sys.setswitchinterval(0.0005)
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        self._wait_for_job()
        total = (options.warmup + options.seconds) * options.rate
        messages = self._traffic(total)
        started = time.monotonic()
        next_plant, measured_from, sent = started, self._planted, 0
        warm = started + options.warmup
        for key, payload, timestamp in messages:
            while (now := time.monotonic()) < started + sent / options.rate:
                self._producer.poll(0.0005)
            if now >= next_plant:
                if now < warm:
                    measured_from = self._planted + 1
                self._plant()
                next_plant += options.every / 1000
            self._producer.produce(options.topic, payload, key, timestamp=timestamp)
            sent += 1
            if sent % options.rate == 0:
                self._producer.poll(0)
                console.waiting(
                    f"{now - started:.0f} of {options.warmup + options.seconds} s, {len(self._seen)} alerts seen"
                )
            if self._failed:
                raise SystemExit(f"bench latency: {self._failed}")
        rate = sent / (time.monotonic() - started)
        self._producer.flush(30)
        names = [self._name(i) for i in range(measured_from, self._planted)]
        deadline = time.monotonic() + _LAST_ALERT_S
        while not all(name in self._seen for name in names) and time.monotonic() < deadline:
            time.sleep(0.05)
        self._stopping.set()
        watcher.join()
        taken = [self._seen[name] - self._appended[name] for name in names if name in self._seen]
        return Latencies(tuple(sorted(taken)), len(names) - len(taken), rate)

    def _wait_for_job(self) -> None:
        """Plants orders until one comes back as an alert: the job runs and the chain is whole."""
        deadline = time.monotonic() + _JOB_START_S
        while not self._seen:
            if time.monotonic() > deadline or self._failed:
                reason = self._failed or f"no alert within {_JOB_START_S:.0f} s: does the fraud job run?"
                raise SystemExit(f"bench latency: {reason}")
            self._plant()
            self._producer.poll(0)
            self._console.waiting("waiting for a first alert")
            self._stopping.wait(0.5)
        self._console.line("the fraud job answers")

    def _traffic(self, total: int) -> Iterator[tuple[bytes, bytes, int]]:
        """Ordinary orders, encoded in chunks as they are needed, from now on at the given rate."""
        orders = generate(Spec(orders=total, rate=self._options.rate, seed=self._run))
        shift = time.time_ns() // 1_000_000 - FIRST_EVENT_MS
        now = dataclasses.replace(
            orders,
            event_time_ms=orders.event_time_ms + shift,
            # A job that has seen an earlier run must not take these for its orders delivered again.
            order=(orders.order + self._run * 1_000_000) % 1_000_000_000,
        )
        encoder = Encoder(now, self._writer_id)  # takes a second: not to be put off until the clock runs
        chunks = (encoder.messages(start, min(start + 1_000, total)) for start in range(0, total, 1_000))
        return itertools.chain.from_iterable(chunks)

    def _name(self, number: int) -> str:
        return f"latency-{self._run}-{number}"

    def _plant(self) -> None:
        name = self._name(self._planted)
        self._planted += 1
        now_ms = time.time_ns() // 1_000_000
        amount = 2 * HIGH_VALUE_MINOR
        order = OrderEvent(
            order_id=name,
            user_id=name,
            session_id=name,
            order_status="CREATED",
            items=[OrderItem("p-0001", "Latency probe", "electronics", 1, amount, amount)],
            subtotal_minor=amount,
            discount_minor=0,
            shipping_minor=0,
            total_amount_minor=amount,
            currency="TRY",
            payment_method="CREDIT_CARD",
            shipping_region="TR-34",
            event_time=now_ms,
            is_first_order=True,
        )
        self._event_time[name] = now_ms
        payload = encode(order, self._writer_id, self._schema)
        produced = time.monotonic()

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._failed = f"an order could not be written to Kafka: {error}"
            else:
                # librdkafka's own time from produce() to the acknowledgement: this callback may come later.
                self._appended[name] = produced + message.latency()

        self._producer.produce(self._options.topic, payload, name, timestamp=now_ms, on_delivery=delivered)

    def _watch(self) -> None:
        """Looks at the newest alerts until it is told to stop."""
        known: set[bytes] = set()
        while not self._stopping.wait(self._options.poll / 1000):
            pending = list(self._event_time.values())
            if not pending:
                continue
            # Bounded, or each lost alert would make every further look dearer.
            oldest = max(min(pending), time.time_ns() // 1_000_000 - _LOOK_BACK_MS)
            try:
                found = self._store.zrange(KEYS.recent_alerts, oldest, "+inf", byscore=True)
            except redis.RedisError as e:
                self._failed = f"the store cannot be read: {e}"
                return
            now = time.monotonic()
            members: list[bytes] = found  # type: ignore[assignment]
            for member in members:
                if member in known:
                    continue
                known.add(member)
                order_id = msgspec.json.decode(member)["order_id"]
                if order_id in self._event_time:
                    self._seen[order_id] = now
                    del self._event_time[order_id]


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank, of sorted values."""
    return values[max(0, math.ceil(share * len(values)) - 1)]


def _figures(latencies: Latencies) -> dict[str, object]:
    values = latencies.seconds
    figures = {name: round(percentile(values, share) * 1000, 1) for name, share in _SHARES} if values else {}
    return {"alerts": len(values), "missing": latencies.missing, "rate": round(latencies.rate, 1), "ms": figures}


def _report(latencies: Latencies) -> str:
    values = latencies.seconds
    head = f"{len(values)} alerts at {latencies.rate:,.0f} orders/s, {latencies.missing} not seen"
    if not values:
        return head
    line = "  ".join(f"{name} {percentile(values, s) * 1000:,.0f} ms" for name, s in _SHARES)
    return "\n".join([head, line, *_histogram(values)])


def _histogram(values: Sequence[float]) -> list[str]:
    """A dozen buckets up to the 99th percentile, and one for the rest."""
    width = next(
        w for w in (5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 10**9) if percentile(values, 0.99) * 1000 <= 12 * w
    )
    counts = [0] * 13
    for value in values:
        counts[min(12, int(value * 1000 / width))] += 1
    last = max(i for i, count in enumerate(counts) if count)
    most = max(counts)
    lines = []
    for i, count in enumerate(counts[: last + 1]):
        title = f"{i * width:>5}–{(i + 1) * width} ms" if i < 12 else f"{i * width:>5} ms and more"
        lines.append(f"{title:<18} {'█' * math.ceil(40 * count / most):<40} {count}")
    return lines
