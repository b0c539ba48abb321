"""Shards on a real Flink: every subtask gets as many, and so as many records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam import coders, typehints
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

from stack.flink import FLINK_VERSION, Cluster, job_server_jar
from stack.java import ADD_OPENS
from tests import live
from transforms.key_groups import MAX_PARALLELISM, shard_keys

pytestmark = [
    pytest.mark.stack,
    # Beam's LOOPBACK worker says goodbye with an exception in one of its threads when Flink hangs up first.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]
SHARDS, EACH = 64, 50
KEYS = shard_keys(SHARDS, MAX_PARALLELISM)


@pytest.fixture(scope="module")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("flink"), slots=8) as cluster:
        yield cluster


class _Keep(beam.DoFn):
    def process(
        self,
        keyed: tuple[int, bytes],
        cell: Any = beam.DoFn.StateParam(ReadModifyWriteStateSpec("cell", coders.BytesCoder())),
    ) -> None:
        cell.write(keyed[1])


@pytest.mark.parametrize("parallelism", [4, 8])
def test_each_subtask_gets_as_many_records(flink: Cluster, parallelism: int) -> None:
    known = {job["id"] for job in live.flink_rest(flink.rest_url, "/jobs")["jobs"]}
    options = [
        *("--runner=FlinkRunner", f"--flink_version={FLINK_VERSION}", f"--flink_job_server_jar={job_server_jar()}"),
        *(f"--flink_master={flink.master}", "--environment_type=LOOPBACK", "--streaming"),
        *(f"--parallelism={parallelism}", f"--max_parallelism={MAX_PARALLELISM}"),
        *(f"--job_server_jvm_properties={option}" for option in ADD_OPENS),
    ]
    with beam.Pipeline(options=PipelineOptions(options)) as p:
        numbers = p | beam.Create(range(SHARDS * EACH))
        keyed = numbers | beam.Map(lambda i: (KEYS[i % SHARDS], b"")).with_output_types(typehints.Tuple[int, bytes])
        keyed | "Keep" >> beam.ParDo(_Keep())
    (job_id,) = {job["id"] for job in live.flink_rest(flink.rest_url, "/jobs")["jobs"]} - known
    vertices = live.flink_rest(flink.rest_url, f"/jobs/{job_id}")["vertices"]
    (keep,) = (vertex["id"] for vertex in vertices if "Keep" in vertex["name"])
    subtasks = live.flink_rest(flink.rest_url, f"/jobs/{job_id}/vertices/{keep}")["subtasks"]
    assert [each["metrics"]["read-records"] for each in subtasks] == [SHARDS * EACH // parallelism] * parallelism
