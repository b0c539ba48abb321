"""Replay on real Kafka and Flink: what was refused comes back after an hour and after a day, mended, and lands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fastavro
import pytest

from beam_pipelines import dead_letters
from schemas.events import avro_schema
from stack import Stack
from tests import live
from tests.build import HOUR, MINUTE, T0, order, payload
from transforms.errors import ATTEMPTS_HEADER, LATE_BY_REPLAY
from transforms.io.registry import Registry

pytestmark = pytest.mark.stack

DAY = 24 * HOUR


def archived(folder: Path) -> dict[str, list[str]]:
    """File (its end) → order_ids."""
    found: dict[str, list[str]] = {}
    for path in sorted((folder / "orders").rglob("*.avro")):
        with path.open("rb") as stream:
            found.setdefault(path.name[-9:], []).extend(r["order_id"] for r in fastavro.reader(stream))
    return {end: sorted(ids) for end, ids in found.items()}


def letters(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for part in folder.glob("*.jsonl") for line in part.read_text().splitlines()]


def test_a_mended_record_is_archived_whatever_its_age_and_named_by_the_job_that_is_past_it(
    live_stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topic, servers = "replay.orders", live_stack.address("kafka")
    writer = Registry(live_stack.registry_url).register(f"{topic}-value", avro_schema("OrderEvent"))
    # Broken at first: they come when it is their time, in the same partition as what comes after.
    late = {"a day": T0, "an hour": T0 + DAY - HOUR, "minutes": T0 + DAY - 5 * MINUTE}
    # Three users each time, as a partition's clock believes no fewer.
    good = [order(f"o-{i}", user=f"u-{i % 3}", at=T0 + i // 3 * DAY) for i in range(6)]
    messages = [live.Message(payload(each, writer), each.user_id.encode(), each.event_time, 0) for each in good]
    messages[3:3] = [live.Message(b"broken", b"u-1", at, 0) for at in late.values()]
    live.fill_topic(live_stack, topic, messages, partitions=1)

    archive, refused, mended = tmp_path / "archive", tmp_path / "refused", tmp_path / "mended"
    where = [*live.addresses(live_stack, topic, archive), f"--dead_letters={refused}", f"--late={refused}"]
    flink = ["--runner=FlinkRunner", "--parallelism=1"]
    archiver = [*flink, "--checkpointing_interval=2000", *where, "--flush_every=1s"]
    with live.job(*archiver, folder=tmp_path / "job", module="beam_pipelines.archive") as job:
        assert job.wait_for_ledger(9, 300)["dead_letters"] == 3
        live.equals_soon(lambda: len(letters(refused / "dead_letters")), 3, "the letters in their folder")
        assert dead_letters.main(["export", str(refused), f"--to={mended}"]) == 0
        times = {at: age for age, at in late.items()}
        for line in (mended / "letters.jsonl").read_text().splitlines():
            envelope = json.loads(line)
            again = order(times[envelope["timestamp"]], at=envelope["timestamp"])
            (mended / envelope["file"]).write_bytes(payload(again, writer))
        replay = ["replay", str(mended), f"--kafka={servers}"]
        assert dead_letters.main(replay) == 0
        assert _known(job.wait_for_ledger(12, 120)) == _ledger(12, good=9, dead_letters=3)
        # The same letters from another place, as when a replay broke off: repeats, in the archive as well.
        (mended / "done").rename(mended / "forgotten")
        assert dead_letters.main(replay) == 0
        assert _known(job.wait_for_ledger(15, 120)) == _ledger(15, good=9, dead_letters=3, duplicates=3)
    capsys.readouterr()
    files = archived(archive)
    assert files.pop("late.avro") == ["a day", "an hour"]
    assert list(files.values()) == [["minutes", *(each.order_id for each in good)]]

    # A job that keeps state, over the same topic: as far as that reaches, and the rest is named.
    refused = tmp_path / "fraud"
    flags = [*live.addresses(live_stack, topic, refused), f"--dead_letters={refused}", f"--late={refused}"]
    with live.job(*flink, "--until=latest", *flags, folder=tmp_path / "fraud_job") as job:
        assert _known(job.wait(300)) == _ledger(15, good=7, dead_letters=3, late=4, duplicates=1)
    named = letters(refused / "late")
    assert [(letter["stage"], letter["error_class"]) for letter in named] == [("replay", LATE_BY_REPLAY)] * 4
    assert {letter["timestamp"] for letter in named} == {late["a day"], late["an hour"]}
    assert all(letter["headers"][0][0] == ATTEMPTS_HEADER and letter["attempts"] == 2 for letter in named)


def _ledger(in_: int, **counts: int) -> dict[str, int]:
    return {"in": in_, "good": 0, "dead_letters": 0, "late": 0, "duplicates": 0, **counts}


def _known(ledger: dict[str, int]) -> dict[str, int]:
    return {name: ledger[name] for name in _ledger(0)}
