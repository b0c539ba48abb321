"""The session job on the real services: the current sessions are the oracle's, whatever comes in and is killed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from beam_pipelines import runners
from schemas import codec
from schemas.events import ClickstreamEvent, UserSession, avro_schema
from schemas.store_keys import KEYS
from stack import Stack
from stack.flink import Cluster
from tests import live
from tests.build import HOUR, MINUTE, SECOND, click
from tests.oracle_sessions import Session, expected_sessions
from transforms.io.registry import Registry

pytestmark = pytest.mark.stack

MODULE, TOPIC, TABLE = "beam_pipelines.sessions", "clickstream.events", "user_sessions"
LATENESS_MS, OUT_OF_ORDERNESS_MS = 10 * MINUTE, 10 * SECOND
EVENTS = 60_000
# So short that many of the sessions in two hours are cut, and longer than the gap and the allowed lateness.
MAX_MS, CUT = 45 * MINUTE, "--max_session=45m"


class Sent(NamedTuple):
    """What lies in the topic, and what must come of it.

    Attributes:
      topic: its name.
      messages: in the order of their arrival.
      clicks: the valid ones that are not late, repeats among them, in their partitions' order.
      cut: the sessions with `CUT`.
    """

    topic: str
    messages: list[live.Message]
    clicks: list[ClickstreamEvent]
    sessions: dict[str, Session]
    cut: dict[str, Session]
    ledger: dict[str, int]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack"), ["kafka", "registry", "valkey"], ports="free") as stack:
        yield stack


@pytest.fixture(scope="module")
def sent(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Sent:
    """Two hours of a shop's clicks, bad, late and repeated ones among them; and of all clicks some are held up on their
    way: within the allowed lateness, where they begin, join and prolong sessions, or beyond it."""
    truth = tmp_path_factory.mktemp("truth") / "truth.jsonl"
    # Yesterday, so that hours later is not in the future; at noon, as at night the same events take much longer.
    start = time.strftime("%Y-%m-%dT12:00:00Z", time.gmtime(time.time() - 24 * 3600))
    simulator = [
        *(sys.executable, "-m", "simulator", "--rate=0", f"--events={EVENTS}", "--seed=3", "--users=2400"),
        *(
            "--event_rate=8.4",
            f"--start={start}",
            f"--topics={TOPIC}",
            "--bad_share=0.03",
            "--late_share=0.01",
            "--late_by=25m",
        ),
        *("--out_of_orderness=8s", "--duplicate_share=0.03", f"--truth={truth}"),
        *(f"--registry={stack.registry_url}", f"--output=kafka://{stack.address('kafka')}"),
    ]
    subprocess.run(simulator, check=True, capture_output=True, cwd=live.ROOT)
    planted = json.loads(truth.read_text().splitlines()[-1])["topics"][TOPIC]
    messages = _held_up(live.messages_of(stack.address("kafka"), TOPIC), random.Random(3))
    topic = "held.up.clicks"
    live.fill_topic(stack, topic, messages)
    clicks, late, bad = judge(messages, codec.Decoder(ClickstreamEvent, Registry(stack.registry_url).schema))
    sessions = expected_sessions(clicks)
    good = sum(session.clicks for session in sessions.values())
    repeats = len(clicks) - good
    assert bad == planted["bad"] > 0
    assert late > planted["late"] > 0 < repeats
    ledger = {"in": EVENTS, "good": good, "dead_letters": bad, "late": late, "duplicates": repeats, "lost": 0}
    cut = expected_sessions(clicks, max_ms=MAX_MS)
    assert len(cut) > len(sessions) + 100
    return Sent(topic, messages, clicks, sessions, cut, ledger)


def _held_up(messages: list[Any], chance: random.Random) -> list[live.Message]:
    arrivals = []
    newest_ms: dict[int, int] = {}
    for i, m in enumerate(sorted(messages, key=lambda m: (m.partition(), m.offset()))):
        now_ms = newest_ms[m.partition()] = max(newest_ms.get(m.partition(), 0), m.timestamp()[1])
        kind = chance.random()
        by_ms = chance.randrange(15 * MINUTE, 30 * MINUTE) if kind < 0.005 else 0
        by_ms = chance.randrange(8 * MINUTE) if kind > 0.95 else by_ms
        message = live.Message(m.value(), m.key(), m.timestamp()[1], m.partition(), m.headers() or [])
        arrivals.append((now_ms + by_ms, i, message))
    return [message for _, _, message in sorted(arrivals, key=lambda a: a[:2])]


def judge(
    messages: Iterable[live.Message], decoder: codec.Decoder[ClickstreamEvent]
) -> tuple[list[ClickstreamEvent], int, int]:
    """What `docs/semantics.md` says of the records, one after the other: valid clicks in time; how many late, bad."""
    newest_ms: dict[int, int] = {}
    valid = []
    late = bad = 0
    for message in messages:
        before_ms = newest_ms.get(message.partition, 0)
        newest_ms[message.partition] = max(before_ms, message.time_ms)
        try:
            each = decoder.decode(message.value)
        except codec.CodecError:
            bad += 1
            continue
        amounts_are_right = (each.price_minor or 0) >= 0 and (each.quantity is None or each.quantity > 0)
        if not (each.event_id and each.user_id and amounts_are_right and 0 < each.event_time <= message.time_ms + HOUR):
            bad += 1
        elif each.event_time < before_ms - OUT_OF_ORDERNESS_MS - LATENESS_MS:
            late += 1
        else:
            valid.append(each)
    return valid, late, bad


def rows_in_folder(folder: Path) -> list[UserSession]:
    parts = sorted((folder / TABLE).glob("*.jsonl"))
    return [codec.from_json(line, UserSession) for part in parts for line in part.read_bytes().splitlines()]


def newest(rows: Iterable[UserSession]) -> dict[str, UserSession]:
    """Of each session the newest version, unless it is deleted."""
    found: dict[str, UserSession] = {}
    for row in rows:
        if row.session_id not in found or found[row.session_id].version < row.version:
            found[row.session_id] = row
    return {session_id: row for session_id, row in found.items() if not row.deleted}


def current(rows: Iterable[UserSession]) -> dict[str, Session]:
    return {
        session_id: Session(*(getattr(row, name) for name in Session._fields[:-1]), clicks=row.version // 4)
        for session_id, row in newest(rows).items()
    }


def test_the_current_sessions_are_the_oracles(stack: Stack, sent: Sent, tmp_path: Path) -> None:
    topic, url = "analytics.sessions", stack.redis_url
    live.fill_topic(stack, topic, [])
    more = [f"--output=kafka://{stack.address('kafka')}/{topic}", f"--output={url}"]
    flags = [*live.addresses(stack, sent.topic, tmp_path / "out"), *more]
    with live.job("--runner=FlinkRunner", "--until=latest", *flags, folder=tmp_path, module=MODULE) as job:
        assert job.wait(300) == sent.ledger
    rows = rows_in_folder(tmp_path / "out")
    assert current(rows) == sent.sessions
    assert {row.pane for row in rows} <= {"ON_TIME", "LATE"}
    assert any(row.deleted for row in rows)

    messages = live.messages_of(stack.address("kafka"), topic)
    schema_id = Registry(stack.registry_url).register(f"{topic}-value", avro_schema("UserSession"))
    decoder = codec.Decoder(UserSession, {schema_id: avro_schema("UserSession")}.__getitem__)
    by_kafka = [decoder.decode(message.value()) for message in messages]
    assert current(by_kafka) == sent.sessions
    for message, row in zip(messages, by_kafka, strict=True):
        assert (message.key().decode(), message.timestamp()[1]) == (row.user_id, row.session_end)

    assert sessions_in_redis(url) == {
        session_id: (s.page_views, s.product_views, s.add_to_carts, s.purchases, s.revenue_minor / 100)
        for session_id, s in sent.sessions.items()
    }


def sessions_in_redis(url: str) -> dict[str, tuple[float, ...]]:
    """session_id → what was counted, of those that are not retracted."""
    client = redis.Redis.from_url(url)
    try:
        keys = list(client.scan_iter(KEYS.user_sessions("*"), count=1_000))
        rows = [json.loads(row) for key in keys for row in client.zrange(key, 0, -1)]
    finally:
        client.close()
    counted = ("page_views", "product_views", "add_to_carts", "purchases", "revenue")
    return {row["session_id"]: tuple(row[name] for name in counted) for row in rows if not row.get("deleted")}


def test_a_killed_task_manager_changes_nothing_and_sessions_are_seen_while_they_last(
    stack: Stack, sent: Sent, cluster: Cluster, pool: live.Workers, tmp_path: Path
) -> None:
    """Killed while records stream in, with early results already given out that the next attempt may not repeat."""
    topic, out = "kill.clicks", tmp_path / "out"
    third = EVENTS // 3
    live.fill_topic(stack, topic, sent.messages[:third])
    flags = [*live.on_cluster(cluster, pool, tmp_path), *live.addresses(stack, topic, out), "--early_every=1s", CUT]
    with live.job(*flags, folder=tmp_path, module=MODULE) as job:
        job_id = live.running_job(cluster.rest_url, 300)
        job.wait_for_ledger(third, 180)
        newest_ms = max(message.time_ms for message in sent.messages[:third])

        def early() -> list[UserSession]:
            rows = newest(rows_in_folder(out)).values()
            return [row for row in rows if row.pane == "EARLY" and row.session_end > newest_ms - MINUTE]

        live.eventually(early, "sessions that are not over", 120, every_s=0.5)
        limits = live.flink_rest(cluster.rest_url, f"/jobs/{job_id}/checkpoints/config")
        assert str(limits["timeout"]) == runners._FLINK["checkpoint_timeout_millis"]
        assert limits["tolerable_failed_checkpoints"] > 1_000_000, "one that fails fails no job"
        before = live.completed_checkpoints(cluster.rest_url, job_id)
        live.eventually(lambda: live.completed_checkpoints(cluster.rest_url, job_id) > before, "a checkpoint", 120)
        sender = threading.Thread(target=_send, args=(stack, topic, sent.messages[third:]))
        sender.start()
        job.wait_for_ledger(third + EVENTS // 6, 180)
        cluster.kill_taskmanager()
        cluster.start_taskmanager()
        sender.join()
        live.eventually(lambda: live.restored_from(cluster.rest_url, job_id), "the job restored", 180)
        assert job.wait_for_ledger(EVENTS, 300) == sent.ledger

        # Two hours on, everything is over but the sessions of those who say so. Not before is it all there: a click
        # that may yet be cut from what came before it is held for the allowed lateness.
        after_ms = max(message.time_ms for message in sent.messages) + 2 * HOUR
        _click_everywhere(stack, topic, after_ms)

        def over() -> list[UserSession]:
            return [row for row in newest(rows_in_folder(out)).values() if row.session_end < after_ms]

        live.eventually(
            lambda: all(row.pane != "EARLY" for row in over()) and current(over()) == sent.cut,
            "the oracle's sessions, all over",
            180,
            every_s=2,
        )
        live.cancel(cluster.rest_url, job_id)
    assert current(over()) == sent.cut


def _send(stack: Stack, topic: str, messages: list[live.Message]) -> None:
    for start in range(0, len(messages), 2_000):
        live.fill_topic(stack, topic, messages[start : start + 2_000])


def _click_everywhere(stack: Stack, topic: str, at_ms: int) -> None:
    """A click in every partition: together they let the watermark pass."""
    schema = avro_schema("ClickstreamEvent")
    schema_id = Registry(stack.registry_url).register(f"{topic}-value", schema)
    parsed = codec.parse_schema(schema)
    clicks = [click(f"after-{i}", user=f"after-{i}", at=at_ms) for i in range(4)]
    live.fill_topic(
        stack,
        topic,
        [
            live.Message(codec.encode(each, schema_id, parsed), each.user_id.encode(), at_ms, partition=i)
            for i, each in enumerate(clicks)
        ],
    )
