"""How many readers there are, and how they are named, so that they spread over the runner's workers."""

from __future__ import annotations

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    PipelineOptions,
    StandardOptions,
    WorkerOptions,
)

from transforms.key_groups import encoded_int, even_keys

__all__ = ["keeps_watermarks", "keys_of_readers", "threads"]


def threads(options: PipelineOptions) -> int:
    """How many readers the runner can keep going side by side, at least."""
    runner = (options.view_as(StandardOptions).runner or "").rpartition(".")[2].lower()
    if runner == "flinkrunner":
        return max(1, options.view_as(FlinkRunnerOptions).parallelism or 1)
    if runner == "dataflowrunner":
        return max(1, options.view_as(WorkerOptions).max_num_workers or 1)
    return 1


def keeps_watermarks(options: PipelineOptions) -> bool:
    """Whether event-time timers wait for a source that gave its bundle back. Beam's in-process runner fires them all
    between two bundles, and state that is still needed expires."""
    runner = (options.view_as(StandardOptions).runner or "").rpartition(".")[2].lower()
    return runner in ("flinkrunner", "dataflowrunner", "prismrunner")


def keys_of_readers(readers: int, topic: int, topics: int, max_parallelism: int) -> tuple[int, ...]:
    """What each reader of a topic is called. Flink runs a reader on the subtask that its name falls to: these are at
    even distances, with those of the other topics between them. So of `readers` readers each of as many subtasks has
    one, of whatever topic, and single readers of many topics do not meet either.

    Args:
      topic: which of the job's topics it is, from 0.
    """
    names = even_keys(2 * readers * topics, max_parallelism, encoded_int)  # every second: the middles of equal parts
    return names[1::2][topic::topics]
