"""A worker that dies is reported with its cause and the block that it had in hand, and counted by the next one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from beam_pipelines import worker_pool
from tests.beam_pipelines import dying
from tests.build import block
from transforms import in_hand


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    monkeypatch.setattr(worker_pool, "_work", dying.work)
    found = worker_pool._Pool(tmp_path)
    yield found
    found.stop()


def start(workers: Any, control: str, name: str = "w-1") -> None:
    request = SimpleNamespace(control_endpoint=SimpleNamespace(url=control), worker_id=name)
    assert not workers.StartWorker(request, None).error


def wait_until(true: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until, "not in a minute"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("control", "why"), [("SIGSEGV", "SIGSEGV"), ("SIGKILL", "SIGKILL (out of memory"), ("3", "exit status 3")]
)
def test_a_dead_worker_is_reported_with_its_cause_and_its_block(
    workers: Any, control: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        start(workers, control)
        wait_until(lambda: caplog.records)
    assert f"worker w-1 died: {why}" in caplog.text
    assert "it was decoding transactions.orders, partition 3, offsets 41 to 42" in caplog.text
    assert "done with" not in caplog.text
    wait_until(lambda: not workers._workers)
    assert workers._deaths == 1


def test_a_worker_that_is_stopped_or_ends_by_itself_is_no_death(workers: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        start(workers, "waits")
        start(workers, "0", "w-2")
        wait_until(lambda: len(workers._workers) == 1)
        workers.StopWorker(SimpleNamespace(worker_id="w-1"), None)
    assert (workers._workers, workers._deaths, caplog.records) == ({}, 0, [])


def test_deaths_are_counted_once_by_the_worker_that_comes_next(workers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    start(workers, "3")
    wait_until(lambda: workers._deaths)
    start(workers, "waits", "w-2")
    assert workers._deaths == 0
    counted: list[int] = []
    monkeypatch.setattr(in_hand, "_DEATHS", SimpleNamespace(inc=counted.append))
    in_hand.keep_in(bytearray(in_hand.SIZE), deaths=2)
    for _ in range(3):
        with in_hand.decoding(block([b"x"])):
            pass
    assert counted == [2, 0, 0]


def test_what_a_worker_has_in_hand_fits_its_slot_whatever_the_name_of_the_topic() -> None:
    buffer = bytearray(in_hand.SIZE)
    in_hand.keep_in(buffer)
    for name in ("ü" * 400, "\udcff" * 10, ""):
        with in_hand.decoding(block([b"x"], topic=name, first_offset=7)):
            (said,) = in_hand.said(bytes(buffer))
            assert said.endswith(", partition 0, offsets 7 to 7")
        assert len(buffer) == in_hand.SIZE
        assert in_hand.said(bytes(buffer)) == []
    in_hand.keep_in(bytearray(in_hand.SIZE))
