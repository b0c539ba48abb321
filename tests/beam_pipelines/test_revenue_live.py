"""The revenue job on the real services: the newest rows are the oracle's, whatever comes in and whatever is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from schemas import codec
from schemas.events import OrderEvent, RevenueWindow, avro_schema
from serving.progress import Kafka
from stack import Stack
from stack.flink import Cluster
from tests import live
from tests.build import MINUTE, SECOND, order
from tests.oracle_revenue import Key, Revenue, expected_revenue
from transforms.io.registry import Registry

pytestmark = pytest.mark.stack

TOPIC = "transactions.orders"
LATENESS_MS, OUT_OF_ORDERNESS_MS = 10 * MINUTE, 10 * SECOND
DAY = 24 * 60 * MINUTE
EACH = 30_000  # records of a run of the simulator


class Sent(NamedTuple):
    """What lies in the topic, and what must come of it.

    Attributes:
      messages: by partition, in order.
      revenue: of the good orders that are not late.
      ledger: what it must be.
      second_ms: when the second stretch begins, in which no order is late but for those that are not used.
    """

    messages: dict[int, list[Any]]
    revenue: dict[Key, Revenue]
    ledger: dict[str, int]
    second_ms: int


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack"), ["kafka", "registry"], ports="free") as stack:
        yield stack


@pytest.fixture(scope="module")
def sent(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Sent:
    """Two stretches of a shop's day, with bad, repeated and out-of-order records; in the first, those that come late
    are within the allowed lateness, in the second beyond it."""
    folder = tmp_path_factory.mktemp("truth")
    start = time.time_ns() // 1_000_000 // DAY * DAY - DAY // 2  # yesterday at noon: a shop sells little at night
    second = start + 60 * MINUTE
    bad = late = 0
    for start_ms, late_by, seed in ((start, "4m", 1), (second, "25m", 2)):
        truth = folder / f"{seed}.jsonl"
        simulator = [
            *(sys.executable, "-m", "simulator", "--rate=0", f"--events={EACH}", f"--seed={seed}", "--users=1800"),
            "--currencies=TRY,EUR,JPY,KWD",
            *("--event_rate=27", f"--start={_rfc3339(start_ms)}", f"--topics={TOPIC}", "--bad_share=0.03"),
            *("--late_share=0.01", f"--late_by={late_by}", "--duplicate_share=0.03", f"--truth={truth}"),
            *(f"--registry={stack.registry_url}", f"--output=kafka://{stack.address('kafka')}"),
        ]
        subprocess.run(simulator, check=True, capture_output=True, cwd=live.ROOT)
        summary = json.loads(truth.read_text().splitlines()[-1])["topics"][TOPIC]
        bad, late = bad + summary["bad"], late + summary["late"]
    decoder = codec.Decoder(OrderEvent, Registry(stack.registry_url).schema)
    sent = _judged(live.messages_of(stack.address("kafka"), TOPIC), decoder, bad, second)
    assert sent.ledger["in"] == 2 * EACH
    assert 0.4 * late < sent.ledger["late"] <= 0.6 * late
    assert sent.ledger["duplicates"] > 0
    return sent


def _judged(messages: list[Any], decoder: codec.Decoder[OrderEvent], bad: int, second_ms: int) -> Sent:
    """What `docs/semantics.md` says of the records, read one after the other; `bad` is what the simulator planted."""
    partitions: dict[int, list[Any]] = {}
    for message in sorted(messages, key=lambda m: (m.partition(), m.offset())):
        partitions.setdefault(message.partition(), []).append(message)
    valid: list[OrderEvent] = []
    late = refused = 0
    for records in partitions.values():
        newest_ms = 0
        for message in records:
            record_ms = message.timestamp()[1]
            record = _valid(decoder, message.value(), record_ms)
            if record is None:
                refused += 1
            elif record.event_time < newest_ms - OUT_OF_ORDERNESS_MS - LATENESS_MS:
                late += 1
            else:
                valid.append(record)
            newest_ms = max(newest_ms, record_ms)
    assert refused == bad
    created = Counter(each.order_id for each in valid if each.order_status == "CREATED")
    repeats = created.total() - len(created)
    ledger = {"in": len(messages), "dead_letters": bad, "late": late, "duplicates": repeats, "lost": 0}
    return Sent(partitions, expected_revenue(valid), {**ledger, "good": len(valid) - repeats}, second_ms)


def _valid(decoder: codec.Decoder[OrderEvent], payload: bytes | None, record_ms: int) -> OrderEvent | None:
    try:
        record = decoder.decode(payload)
    except codec.CodecError:
        return None
    amounts = [record.subtotal_minor, record.discount_minor, record.shipping_minor, record.total_amount_minor]
    amounts += [amount for item in record.items for amount in (item.unit_price_minor, item.total_price_minor)]
    currency = record.currency
    is_valid = (
        record.order_id
        and record.user_id
        and min(amounts) >= 0
        and all(item.quantity > 0 for item in record.items)
        and (len(currency), currency.isascii(), currency.isalpha(), currency.isupper()) == (3, True, True, True)
        and 0 < record.event_time <= record_ms + 60 * MINUTE
    )
    return record if is_valid else None


def _rfc3339(time_ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ms // 1000))


def rows_in_folder(folder: Path) -> list[RevenueWindow]:
    parts = sorted((folder / "real_time_revenue").glob("*.jsonl"))
    lines = [line for part in parts for line in part.read_bytes().splitlines()]
    return [codec.from_json(line, RevenueWindow) for line in lines]


def newest(rows: Iterable[RevenueWindow]) -> dict[Key, Revenue]:
    """Per key, what the newest version says."""
    found: dict[Key, RevenueWindow] = {}
    for row in rows:
        assert row.window_end == row.window_start + MINUTE
        key = (row.window_start, row.currency, row.dimension, row.value)
        if key not in found or found[key].version < row.version:
            found[key] = row
    return {key: Revenue(r.gmv_minor, r.order_count, r.unique_users, r.first_time_orders) for key, r in found.items()}


def test_the_newest_version_of_every_row_is_the_oracles(stack: Stack, sent: Sent, tmp_path: Path) -> None:
    topic = "analytics.revenue"
    live.fill_topic(stack, topic, [])
    kafka = f"--output=kafka://{stack.address('kafka')}/{topic}"
    flags = [*live.addresses(stack, TOPIC, tmp_path / "out"), kafka]
    with live.job(
        "--runner=FlinkRunner", "--until=latest", *flags, folder=tmp_path, module="beam_pipelines.revenue"
    ) as job:
        assert job.wait(300) == sent.ledger
    rows = rows_in_folder(tmp_path / "out")
    assert newest(rows) == sent.revenue
    # Nothing is late because it waited somewhere: where all orders were in time, the results on time are the last ones.
    on_time = newest(row for row in rows if row.pane == "ON_TIME" and row.window_start >= sent.second_ms)
    assert on_time == {key: of for key, of in sent.revenue.items() if key[0] >= sent.second_ms}

    messages = live.messages_of(stack.address("kafka"), topic)
    schema_id = Registry(stack.registry_url).register(f"{topic}-value", avro_schema("RevenueWindow"))
    decoder = codec.Decoder(RevenueWindow, {schema_id: avro_schema("RevenueWindow")}.__getitem__)
    by_kafka = [decoder.decode(message.value()) for message in messages]
    assert newest(by_kafka) == sent.revenue
    for message, row in zip(messages, by_kafka, strict=True):
        assert (message.key().decode(), message.timestamp()[1]) == (
            f"{row.currency}:{row.dimension}:{row.value}",
            row.window_start,
        )


def test_a_killed_task_manager_changes_nothing_and_an_open_minute_is_seen_to_grow(
    stack: Stack, sent: Sent, cluster: Cluster, pool: live.Workers, tmp_path: Path
) -> None:
    """Killed while records stream in; then one minute is followed: early, on time, corrected."""
    topic = "kill.orders"
    out = tmp_path / "out"
    first, *rest = _cut(sent, 20)
    live.fill_topic(stack, topic, first)
    flags = [*live.on_cluster(cluster, pool, tmp_path), *live.addresses(stack, topic, out)]
    with live.job(*flags, folder=tmp_path, module="beam_pipelines.revenue") as job:
        job_id = live.running_job(cluster.rest_url)
        job.wait_for_ledger(len(first), 180)
        before = live.completed_checkpoints(cluster.rest_url, job_id)
        live.eventually(lambda: live.completed_checkpoints(cluster.rest_url, job_id) > before, "a checkpoint", 120)
        sender = threading.Thread(target=_send, args=(stack, topic, rest))
        sender.start()
        job.wait_for_ledger(2 * len(first), 180)
        cluster.kill_taskmanager()
        cluster.start_taskmanager()
        sender.join()
        live.eventually(lambda: live.restored_from(cluster.rest_url, job_id), "the job restored", 180)
        assert job.wait_for_ledger(sent.ledger["in"], 300) == sent.ledger
        live.eventually(lambda: newest(rows_in_folder(out)) == sent.revenue, "the oracle's rows", 180, every_s=2)

        minute = max(start for start, *_ in sent.revenue) + 5 * MINUTE
        _follow(stack, topic, out, minute)
        kafka, reached = (
            Kafka(stack.address("kafka"), ["revenue-calculator"]),
            minute + 90 * SECOND - OUT_OF_ORDERNESS_MS,
        )
        live.eventually(
            lambda: reached in [at.watermark_ms for at in kafka()["revenue-calculator"]], "the group knows how far", 30
        )
        live.cancel(cluster.rest_url, job_id)


def _follow(stack: Stack, topic: str, out: Path, minute: int) -> None:
    """One order after the other; each next one is sent once the last one is seen in the minute's row."""
    schema = avro_schema("OrderEvent")
    schema_id = Registry(stack.registry_url).register(f"{topic}-value", schema)
    parsed = codec.parse_schema(schema)

    def send(order_id: str, at: int) -> None:
        payload = codec.encode(order(order_id, at=at, amount=100), schema_id, parsed)
        live.fill_topic(stack, topic, [live.Message(payload, b"u-1", at, partition=0)])

    def total(pane: str, orders: int) -> list[RevenueWindow]:
        return [
            row
            for row in rows_in_folder(out)
            if (row.window_start, row.dimension, row.pane, row.order_count) == (minute, "total", pane, orders)
        ]

    def seen(pane: str, orders: int) -> RevenueWindow:
        return live.eventually(lambda: total(pane, orders), f"{pane} with {orders} orders", 180, every_s=0.5)[0]

    send("open-1", minute + 5 * SECOND)
    early = seen("EARLY", 1)
    send("open-2", minute + 6 * SECOND)
    grown = seen("EARLY", 2)
    send("next", minute + 90 * SECOND)
    on_time = seen("ON_TIME", 2)
    send("open-3", minute + 7 * SECOND)
    late = seen("LATE", 3)
    versions = [row.version for row in (early, grown, on_time, late)]
    assert versions == sorted(set(versions))
    assert newest(rows_in_folder(out))[minute, "TRY", "total", "*"] == Revenue(300, 3, 1, 0)


def _cut(sent: Sent, pieces: int) -> list[list[live.Message]]:
    """The messages in so many pieces, each with its share of every partition, in order."""
    cut: list[list[live.Message]] = [[] for _ in range(pieces)]
    for partition, records in sent.messages.items():
        for i, m in enumerate(records):
            message = live.Message(m.value(), m.key(), m.timestamp()[1], partition, m.headers() or [])
            cut[i * pieces // len(records)].append(message)
    return cut


def _send(stack: Stack, topic: str, pieces: list[list[live.Message]]) -> None:
    for piece in pieces:
        live.fill_topic(stack, topic, piece)
