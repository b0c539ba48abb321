"""The last line of a job that fails says why."""

from __future__ import annotations

import traceback

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines import runners

FROM_FLINK = """Pipeline BeamApp failed in state FAILED: java.lang.RuntimeException: Error received from SDK harness \
for instruction 4: Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1512, in apache_beam.runners.common.DoFnRunner.process
  File "/x/transforms/io/redis.py", line 77, in process
    raise OSError("the store at 127.0.0.1:6379 refused it")
OSError: the store at 127.0.0.1:6379 refused it

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "sdk_worker.py", line 311, in _execute
RuntimeError: OSError: the store refused it [while running 'Write']

\tat java.base/java.util.concurrent.CompletableFuture.reportGet(CompletableFuture.java:396)
"""


class StopsRunner(beam.runners.PipelineRunner):
    def run_pipeline(self, pipeline: object, options: object) -> None:  # noqa: ARG002
        raise RuntimeError("the job server does not answer")


def last_line(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip().splitlines()[-1]


def test_an_error_before_there_is_a_result_is_the_last_line() -> None:
    with pytest.raises(RuntimeError) as found, runners.running(PipelineOptions([])) as pipeline:
        pipeline.runner = StopsRunner()
    assert "the job server does not answer" in last_line(found.value)


def test_an_error_of_a_step_is_the_last_line() -> None:
    options = PipelineOptions(["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"])
    with pytest.raises(Exception, match="the real one") as found, runners.running(options) as pipeline:
        pipeline | beam.Create([1]) | beam.Map(_fails)
    assert "the real one" in last_line(found.value)


def _fails(_: int) -> None:
    raise ValueError("the real one")


def test_of_a_runners_pages_the_first_error_is_told() -> None:
    assert runners.first_error(FROM_FLINK.replace("FAILED: ", "FAILED:\n").replace("4: Tr", "4:\nTr")) == (
        "OSError: the store at 127.0.0.1:6379 refused it"
    )
    assert runners.first_error(FROM_FLINK) == "OSError: the store at 127.0.0.1:6379 refused it"
    assert runners.first_error("no traceback") is None
