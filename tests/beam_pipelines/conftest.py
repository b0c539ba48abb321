"""A standalone Flink and its workers, for tests that kill them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stack.flink import Cluster
from tests import live


@pytest.fixture(scope="module")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Flink as two processes, heap state, restarted jobs go on after a second."""
    folder = tmp_path_factory.mktemp("flink")
    config = {
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": "20",
        "restart-strategy.fixed-delay.delay": "1 s",
        "heartbeat.interval": "1000",
        "heartbeat.timeout": "5000",
    }
    with Cluster(folder, taskmanagers=1, slots=4, checkpoints=folder / "state", config=config) as cluster:
        yield cluster


@pytest.fixture
def cluster(flink: Cluster) -> Iterator[Cluster]:
    """The same Flink for every test, with all its slots free again after each."""
    yield flink
    live.cancel_all(flink.rest_url)


@pytest.fixture(scope="module")
def pool() -> Iterator[live.Workers]:
    with live.workers() as workers:
        yield workers
