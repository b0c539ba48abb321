"""The drill for a store that was lost: one command makes it from the archive as the jobs had made it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from beam_pipelines import rebuild
from schemas import features
from schemas.jobs import JOBS
from schemas.store_keys import KEYS
from serving import Config, create_app
from stack import Stack
from tests import live
from tests.transforms.io.test_redis import dump

pytestmark = pytest.mark.stack

GAP = "--session_gap=5m"  # not the default: what the jobs run with has to reach the one that has it
JOBS_OF = {"fraud": "orders", "sessions": "clickstream", "revenue": "orders"}


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a shop: with fraud, repeats and bad records."""
    folder = tmp_path_factory.mktemp("traffic")
    simulator = [
        *(sys.executable, "-m", "simulator", "--rate=0", "--events=1000", "--seed=3", "--users=60"),
        *("--topics=transactions.orders,clickstream.events", "--fraud_share=0.3", "--bad_share=0.05"),
        *("--duplicate_share=0.05", f"--output={folder}", "--format=jsonl"),
    ]
    subprocess.run(simulator, check=True, capture_output=True, cwd=live.ROOT)
    return folder


@pytest.fixture(scope="module")
def archive(traffic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    live.run_here(f"--input={traffic}", f"--output={folder}", folder=folder / "run", module="beam_pipelines.archive")
    return folder


def answers(stack: Stack) -> list[Any]:
    client = create_app(Config(redis_url=stack.redis_url, redis_timeout_s=60)).test_client()
    paths = ("fraud-alerts?limit=1000", "sessions?limit=1000", "revenue?limit=1000", "revenue/realtime")
    return [client.get(f"/api/v1/{path}").json["data"] for path in paths]


def test_a_store_that_was_lost_is_rebuilt_by_one_command(
    valkey: Stack, db: redis.Redis, traffic: Path, archive: Path, tmp_path: Path
) -> None:
    for module, table in JOBS_OF.items():
        topic = JOBS[module].topics[0]
        flags = [f"--input={traffic / topic}.jsonl", f"--output={valkey.redis_url}", f"--dead_letters={tmp_path}"]
        flags += [f"--late={tmp_path}", *([GAP] if table == "clickstream" else [])]
        live.run_here(*flags, folder=tmp_path / module, module=f"beam_pipelines.{module}")
    before, answered = dump(db), answers(valkey)
    assert all(answered), "alerts, sessions and revenue"

    db.flushall()
    assert not any(answers(valkey))
    # The jobs run on, and have shown their ledgers again before anybody has noticed.
    running = {KEYS.ledger(job.name): {"in": "5", "run_ms": "1"} for job in JOBS.values()}
    for key, ledger in running.items():
        db.hset(key, mapping=ledger)
        db.expire(key, features.LEDGER_TTL_S)
    rebuild.main(
        [f"--archive={archive}", f"--output={valkey.redis_url}", f"--dead_letters={tmp_path / 'refused'}", GAP]
    )

    assert dump(db) == before | running
    assert answers(valkey) == answered
    assert not list((tmp_path / "refused").rglob("*.jsonl")), "what is in the archive is good"


def test_some_days_of_the_archive_are_taken_alone(archive: Path, tmp_path: Path) -> None:
    days = sorted({path.name for path in (archive / "orders").glob("day=*")})
    assert days
    out = tmp_path / "out"
    flags = [f"--archive={archive}", f"--output={out}", f"--days={days[-1].removeprefix('day=')}"]
    rebuild.main(flags)
    (rows,) = [read for read in [lines(out / "real_time_revenue")] if read]
    assert {row["dimension"] for row in rows} == {"total", "category", "region"}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for part in folder.glob("*.jsonl") for line in part.read_text().splitlines()]


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--days=2001-*"], "--archive: {archive} has no files of days 2001-*"),
        (["--mapping=shopify"], "--mapping: the archive holds our records"),
        (["--input=orders.jsonl"], "--input: the archive holds our records"),
    ],
)
def test_what_cannot_be_rebuilt_is_one_line(
    flags: list[str], why: str, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        rebuild.main([f"--archive={archive}", f"--output={tmp_path / 'out'}", *flags])
    assert stop.value.code == 2
    assert why.format(archive=archive) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_flags_value_is_of_the_jobs_that_have_the_flag_however_it_is_written() -> None:
    for words in (["--rules", "r.yaml", "--runner", "FlinkRunner"], ["--rules=r.yaml", "--runner=FlinkRunner"]):
        assert rebuild._own(JOBS["fraud"], words) == ["--rules=r.yaml", "--runner=FlinkRunner"]
        assert rebuild._own(JOBS["sessions"], words) == ["--runner=FlinkRunner"]
