"""CDC: latency from COMMIT in PostgreSQL to the store, and how fast a backlog of changes is drained.

Starts PostgreSQL, Debezium, Kafka and the other services. For latency, the workload runs at the given rate while
prices change one by one: the clock starts when COMMIT returns and stops when a reader that polls the store sees the
new price. The backlog repeats what Debezium wrote for the workload, with other order numbers and later positions, until
it is long enough; it is drained into Redis, and with --history into a folder, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.latency import end_of_job, percentile
from bench.measure import CommandFailed, measure
from bench.ours import RUNNER
from bench.throughput import positive
from bench.topics import end_offsets
from cdc import workload
from cdc.database import TABLES, Database
from schemas import inventory
from schemas.store_keys import KEYS
from stack import Stack
from stack.console import Console

__all__ = ["add_arguments", "main"]

_SERVICES = ["kafka", "registry", "valkey", "postgres", "connect"]
_EVERY_S = 0.05
_POLL_S = 0.003
_GIVE_UP_S = 30.0
_FILL_TRANSACTIONS = 2_000
_LATER = 1 << 40  # between the places of one round of a backlog and the next


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rate", type=positive, default=100, metavar="N", help="transactions per second (default: 100)"
    )
    parser.add_argument("--seconds", type=positive, default=60, metavar="S", help="how long to measure (default: 60)")
    parser.add_argument(
        "--warmup", type=positive, default=20, metavar="S", help="traffic before measuring (default: 20)"
    )
    parser.add_argument(
        "--events", type=positive, default=500_000, metavar="N", help="changes in the backlog (default: 500000)"
    )
    parser.add_argument("--history", action="store_true", help="also write every change as a row to a folder")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(".stack/bench-cdc"),
        metavar="DIR",
        help="folder, emptied first (default: .stack/bench-cdc)",
    )


def main(options: argparse.Namespace) -> int:
    """Returns the exit status: 1 when a change was not seen, or the job failed."""
    console = Console(sys.stderr)
    data = options.data.absolute()
    Stack(data, _SERVICES).stop(wipe=True)
    shutil.rmtree(data / "runs", ignore_errors=True)
    with Stack(data, _SERVICES, ports="free", console=console) as stack:
        database = Database.parse(f"postgresql://postgres@{stack.address('postgres')}/shop")
        password = (data / "postgres" / "password").read_text()
        _cdc(stack, data, "setup", "--sample_data")
        _cdc(stack, data, "register")
        with _job(stack, data):
            seconds, lost = _latency(stack, database, password, options, console)
        shares = "  ".join(f"{name} {1000 * percentile(seconds, share):.0f} ms" for name, share in _SHARES)
        print(f"COMMIT to store, {options.rate} transactions/s, {len(seconds)} changes, {lost} not seen: {shares}")
        topics = _fill(stack, database, password, options.events, console)
        try:
            print(_drained(stack, topics, data / "runs", options.history, console))
        except CommandFailed as e:
            print(f"drain failed: {e}")
            return 1
    return 1 if lost else 0


_SHARES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))


def _cdc(stack: Stack, data: Path, command: str, *words: str) -> None:
    flags = [f"--database=postgresql://postgres@{stack.address('postgres')}/shop"]
    flags.append(f"--secrets={data / 'connect' / 'secrets'}")
    if command == "setup":
        flags.append(f"--password_file={data / 'postgres' / 'password'}")
    else:
        flags.append(f"--connect=http://{stack.address('connect')}")
    subprocess.run([sys.executable, "-m", "cdc", command, *flags, *words], check=True, stdout=sys.stderr)


def _flags(stack: Stack, prefix: str) -> list[str]:
    kafka = stack.address("kafka")
    return [
        *RUNNER,
        *(f"--input=kafka://{kafka}/{prefix}{table}" for table in TABLES),
        *(f"--registry={stack.registry_url}", f"--output={stack.redis_url}", f"--output=kafka://{kafka}/alerts.stock"),
    ]


@contextlib.contextmanager
def _job(stack: Stack, data: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "beam_pipelines.cdc", *_flags(stack, "cdc.public.")]
    with (data / "logs" / "cdc.log").open("wb") as log:
        job = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        end_of_job(job)


def _latency(
    stack: Stack, database: Database, password: str, options: argparse.Namespace, console: Console
) -> tuple[list[float], int]:
    """Sorted seconds from COMMIT to store, and how many changes were not seen."""
    product = "LATENCY"
    with redis.Redis.from_url(stack.redis_url) as store, database.connect(password) as connection:
        connection.autocommit = True
        connection.execute("INSERT INTO products VALUES (%s, 'Probe', 'probe', 1, 'TRY', 50)", [product])
        _until_seen(store, product, 1, time.monotonic() + 180)
        console.line("the job follows")
        count = (options.warmup + options.seconds) * options.rate
        traffic = threading.Thread(target=_traffic, args=(database, password, count, options.rate), daemon=True)
        traffic.start()
        begin = time.monotonic()
        seconds, lost, price = [], 0, 1
        while traffic.is_alive():
            time.sleep(_EVERY_S)
            price += 1
            connection.execute("UPDATE products SET price_minor = %s WHERE product_id = %s", [price, product])
            committed = time.monotonic()
            seen = _until_seen(store, product, price, committed + _GIVE_UP_S)
            if committed - begin > options.warmup:
                lost += seen is None
                seconds += [seen - committed] if seen is not None else []
                console.waiting(f"{committed - begin:.0f} s, {len(seconds)} changes seen")
    return sorted(seconds), lost


def _until_seen(store: redis.Redis, product: str, price: int, deadline: float) -> float | None:
    while time.monotonic() < deadline:
        stored: Any = store.hget(KEYS.products, product)
        row = inventory.product_of(stored)
        if row is not None and json.loads(row)["price"] == price / 100:
            return time.monotonic()
        time.sleep(_POLL_S)
    return None


def _traffic(database: Database, password: str, count: int, rate: float) -> None:
    with database.connect(password) as connection:
        workload.run(connection, count, seed=1, rate=rate)


def _fill(stack: Stack, database: Database, password: str, events: int, console: Console) -> list[str]:
    """Topics with so many changes, or a few more."""
    with database.connect(password) as connection:
        workload.run(connection, _FILL_TRANSACTIONS, seed=2)
    _wait_for_debezium(stack, database, password)
    records = _records(stack)
    kafka = {"bootstrap.servers": stack.address("kafka")}
    topics = [f"backlog.{table}" for table in TABLES]
    admin = AdminClient(kafka)  # which must live until it has answered
    for future in admin.create_topics([NewTopic(topic, 4, 1) for topic in topics]).values():
        future.result(30)
    producer = Producer(
        {
            **kafka,
            "enable.idempotence": True,
            "linger.ms": 50,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
        }
    )
    sent = 0
    while sent < events:
        number = sent // len(records)
        for topic, key, value in records:
            while True:
                try:
                    producer.produce(f"backlog.{topic.rpartition('.')[2]}", *_again(value, key, number))
                    break
                except BufferError:
                    producer.poll(0.1)
            sent += 1
        console.waiting(f"{sent} of {events} changes")
    producer.flush(60)
    return topics


def _wait_for_debezium(stack: Stack, database: Database, password: str) -> None:
    """Until a last change has come."""
    with database.connect(password) as connection:
        connection.execute("UPDATE products SET price_minor = 77 WHERE product_id = 'LATENCY'")
    deadline = time.monotonic() + 120
    while not any(b'"price_minor":77,' in (value or b"") for _, _, value in _records(stack, "products")):
        if time.monotonic() > deadline:
            raise SystemExit("bench cdc: Debezium does not follow")
        time.sleep(1)


def _records(stack: Stack, *tables: str) -> list[tuple[str, bytes | None, bytes | None]]:
    """Topic, key and value of all that the topics hold, shuffled between topics as they come."""
    kafka = stack.address("kafka")
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "bench", "enable.auto.commit": False})
    topics = [f"cdc.public.{table}" for table in tables or TABLES]
    left = sum(end - begin for topic in topics for begin, end in end_offsets(kafka, topic))
    consumer.assign([TopicPartition(t, p, 0) for t in topics for p in range(4)])
    found: list[tuple[str, bytes | None, bytes | None]] = []
    while len(found) < left:
        messages = [message for message in consumer.consume(10_000, 1.0) if message.error() is None]
        found += [(message.topic(), message.key(), message.value()) for message in messages]
    consumer.close()
    return found


def _again(value: bytes | None, key: bytes | None, number: int) -> tuple[bytes | None, bytes | None]:
    """A record as if its transaction had happened again, later, with orders and movements of other numbers."""
    if number == 0 or value is None:
        return value, key
    record = json.loads(value)
    source = record["source"]
    places = [None if place is None else str(int(place) + number * _LATER) for place in json.loads(source["sequence"])]
    source["sequence"] = json.dumps(places)
    source["lsn"] = source["lsn"] and source["lsn"] + number * _LATER
    its_key = json.loads(key) if key else {}
    for row in (record["before"], record["after"], its_key):
        if row and row.get("order_id"):
            row["order_id"] += f"-{number}"
        if row and "movement_id" in row:
            row["movement_id"] += number * 10_000_000
    return json.dumps(record, ensure_ascii=False).encode(), json.dumps(its_key).encode() if key else None


def _drained(stack: Stack, topics: list[str], folder: Path, history: bool, console: Console) -> str:
    folder.mkdir(parents=True)
    with redis.Redis.from_url(stack.redis_url) as store:
        store.flushdb()
    ledger = folder / "ledger.json"
    records = sum(end - begin for topic in topics for begin, end in end_offsets(stack.address("kafka"), topic))
    flags = [*_flags(stack, "backlog."), f"--dead_letters={folder / 'out'}"]
    flags += [f"--output={folder / 'out'}"] if history else []
    command = [
        *(sys.executable, "-m", "bench.drain", str(ledger), str(records)),
        *(sys.executable, "-m", "beam_pipelines.cdc", f"--ledger={ledger}", *flags),
    ]
    usage = measure(
        command, folder / "log.txt", timeout_s=900, working=lambda s: console.waiting(f"draining, {s:.0f} s")
    )
    read_s = json.loads(usage.output)["read_seconds"]
    counts = json.loads(ledger.read_text())
    if counts["dead_letters"]:
        raise CommandFailed(f"records were refused: {counts}")
    reading = f"{records / read_s:,.0f}/s" if read_s else "?"
    return (
        f"drained {records:,} changes{' with history' if history else ''}: {records / usage.seconds:,.0f}/s in all, "
        f"{reading} once it reads, {1e6 * usage.cpu_seconds / records:.0f} CPU s/M, {usage.peak_mb:,.0f} MB"
    )
