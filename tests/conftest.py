"""Hypothesis profiles (`pytest --hypothesis-profile=thorough` before a release), and the services that tests share."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import redis
from hypothesis import Phase, settings

from schemas.store_keys import KEYS, Keys
from stack import Stack, valkey_sets
from stack.flink import Cluster
from tests import bigquery_emulator, live
from tests.kept import Kept

# derandomize: with CI=true it would be on, and every run the same examples.
settings.register_profile("default", max_examples=60, deadline=None, derandomize=False, print_blob=True)
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=500)
# `make mutants` wants to know that a test fails, not the least example.
settings.register_profile("mutants", parent=settings.get_profile("default"), phases=[Phase.explicit, Phase.generate])
settings.load_profile("default")

# A shell's background command ignores Ctrl-C, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


SLOWEST = (
    "dags/test_daily_analytics",
    "beam_pipelines/test_source_live",
    "beam_pipelines/test_revenue_live",
    "beam_pipelines/test_fraud_live",
    "stack/test_secure",
    "beam_pipelines/test_dataflow",
    "beam_pipelines/test_cdc_live",
    "beam_pipelines/test_archive_live",
    "beam_pipelines/test_job_jar_live",
    "test_demo",
    "beam_pipelines/test_sessions_live",
    "beam_pipelines/test_native_read",
    "beam_pipelines/test_lateness_live",
    "stack/test_flink",
    "cdc/test_capture",
    "dags/test_dag",
    "beam_pipelines/test_bigquery",
    "beam_pipelines/test_mapping_live",
)
"""Files, by how long they take, or nearly: four that want all of a machine at once make each other slow."""


@pytest.hookimpl(optionalhook=True)  # `make mutants` runs without the plugin
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Tests on real services wait for half of their time, so two processes for each core, of 4 GB each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if "not stack" in config.option.markexpr:
        return cores
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return max(1, min(2 * cores, int(memory_gb / 4)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first, as side by side a long file at the end would leave a core idle. In CI, a test on
    real services that fails is tried once more: ADR 55."""

    def place(item: pytest.Item) -> tuple[bool, int]:
        file = item.nodeid.partition("::")[0].removeprefix("tests/").removesuffix(".py")
        return item.get_closest_marker("stack") is None, SLOWEST.index(file) if file in SLOWEST else len(SLOWEST)

    items.sort(key=place)
    if os.environ.get("CI"):
        for item in items:
            if item.get_closest_marker("stack"):
                item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what the commands said that it ran, and not only their status."""
    report = yield
    if call.excinfo is not None and report.failed:
        report.sections += _said(call.excinfo)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"failed at first: {report.nodeid}")
        terminalreporter.line(report.longreprtext[-4_000:])


def _said(failure: pytest.ExceptionInfo[BaseException]) -> Iterator[tuple[str, str]]:
    found: dict[str, Any] = {"the command": failure.value}
    for frame in failure.traceback:
        found |= frame.frame.f_locals
    for name, value in found.items():
        if isinstance(value, subprocess.CompletedProcess | subprocess.CalledProcessError):
            for words in (value.stdout, value.stderr):
                text = words.decode(errors="replace") if isinstance(words, bytes) else words
                if text:
                    yield f"{name} said ({value.returncode})", text[-4_000:]
        elif name in ("out", "err", "said", "_") and isinstance(value, str) and value:
            yield name, value[-4_000:]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """A test that leaves the process other than it was makes another one fail, far from it."""
    yield
    left, logging.root.manager.disable = logging.root.manager.disable, 0
    assert not left, f"{item.nodeid} left logging switched off"


@pytest.fixture(scope="session")
def live_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Kafka, registry and Valkey on free ports. Tests share them: take a topic and a folder, or a database, of your
    own."""
    with Stack(tmp_path_factory.mktemp("live"), ["kafka", "registry", "valkey"], ports="free") as stack:
        yield stack


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Valkey alone, which starts at once."""
    with Stack(tmp_path_factory.mktemp("valkey"), ["valkey"], ports="free") as stack:
        yield stack


@pytest.fixture
def db(valkey: Stack) -> Iterator[redis.Redis]:
    """An empty database, in `valkey`."""
    with redis.Redis.from_url(valkey.redis_url) as connection:
        connection.flushall()
        yield connection


@pytest.fixture(scope="session")
def valkey_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Three masters."""
    with Stack(tmp_path_factory.mktemp("cluster"), valkey_sets.cluster(), ports="free") as stack:
        yield stack


@pytest.fixture(params=["one server", "a cluster"])
def kept(request: pytest.FixtureRequest) -> Iterator[Kept]:
    """An empty store, on one server and on three."""
    if request.param == "one server":
        stack = request.getfixturevalue("valkey")
        yield Kept(stack.redis_url, request.getfixturevalue("db"), KEYS)
        return
    server = request.getfixturevalue("valkey_cluster").address("valkey-1")
    with redis.RedisCluster.from_url(f"redis://{server}") as db:
        db.flushall()
        yield Kept(f"redis+cluster://{server}", db, Keys(cluster=True))


@pytest.fixture(scope="session")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Flink as two processes. One that was killed is noticed by calls that fail; a heartbeat may be late on a machine
    that others use."""
    folder = tmp_path_factory.mktemp("flink")
    config = {"heartbeat.interval": "1000", "heartbeat.timeout": "120000"}
    with Cluster(folder, taskmanagers=1, slots=4, checkpoints=folder / "state", config=config) as cluster:
        yield cluster


@pytest.fixture
def cluster(flink: Cluster) -> Iterator[Cluster]:
    """The same Flink for every test, whole and with all its slots free again after each."""
    yield flink
    if not flink.pid("taskmanager"):
        flink.start_taskmanager()
    live.cancel_all(flink.rest_url)


@pytest.fixture(scope="session")
def pool(flink: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Workers]:
    """Python workers for jobs on `cluster`, and one job server for all of them: a JVM less for each launch."""
    with live.job_server(flink, tmp_path_factory.mktemp("job_server")) as endpoint, live.workers() as workers:
        yield workers._replace(job_server=endpoint)


@pytest.fixture(scope="session")
def bigquery_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bigquery_emulator.Emulator]:
    with bigquery_emulator.started(tmp_path_factory.mktemp("bigquery")) as emulator:
        yield emulator


@pytest.fixture
def bigquery(
    bigquery_process: bigquery_emulator.Emulator, monkeypatch: pytest.MonkeyPatch
) -> bigquery_emulator.Emulator:
    """BigQuery and Cloud Storage, and this process led there. Tests share them: make a dataset of your own."""
    for name, value in bigquery_process.environment.items():
        monkeypatch.setenv(name, value)
    return bigquery_process
