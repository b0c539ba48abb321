"""Defaults for each runner, so that users need not know its options.

`--runner=FlinkRunner` alone must work: an embedded Flink with checkpoints on, and bundles short enough for latency
below a second and long enough for throughput. The command line overrides every default.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DirectOptions,
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)
from apache_beam.runners.runner import PipelineState

from beam_pipelines import dataflow, worker_pool
from beam_pipelines.options import Settings
from beam_pipelines.sinks import KafkaUrl
from schemas.flags import UsageError
from schemas.logs import Logs

__all__ = ["first_error", "pipeline_options", "running"]

# The JVM moves blocks, it computes little: its optimising compiler would cost more than it ever gives back (half of all
# CPU time of a drain of a million orders).
_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_EMBEDDED = ("[auto]", "[local]")
_NATIVE_RUNNERS = ("FlinkRunner", "DataflowRunner")

# Reasons and measurements: docs/performance.md.
_FLINK: dict[str, str | None] = {
    "parallelism": "2",
    "max_bundle_size": "20000",
    "max_bundle_time_mills": "20",
    "checkpointing_interval": "5000",
    # Else what a bundle gives that ends with a checkpoint waits in Flink for the next record on the same subtask.
    "finish_bundle_before_checkpointing": None,
    # A job that is too slow for a checkpoint in ten minutes is made slower by a restart from the one before, again and
    # again (docs/performance.md). How old the last one is has an alert.
    "checkpoint_timeout_millis": "3600000",
    "fail_on_checkpointing_errors": None,  # without a value it is switched off: by default it is on
    "state_backend": "filesystem",
    "state_backend_storage_path": (Path(tempfile.gettempdir()) / "streamforge-checkpoints").as_uri(),
    # Flink deals stages out to workers in turn; with more of them than cores, two busy stages seldom share one.
    "sdk_worker_parallelism": "8",
    "max_cache_memory_usage_mb": "0",  # its bookkeeping costs more than the reads that it saves
}


# The configuration of the cluster that runs a job's own jar says where its state is: an operator of Flink looks for it
# there. The interval of checkpoints is not its business: Beam looks only at its own, and without one it takes sources
# for finished, after which no checkpoint ever completes.
_OF_THE_CLUSTER = ("state_backend", "state_backend_storage_path")


# Messages come one by one and are packed per bundle: in bundles of 20 ms a message costs twice as much.
_NATIVE_BUNDLE_MS = "100"


@contextmanager
def running(options: PipelineOptions, as_: Logs = Logs()) -> Iterator[beam.Pipeline]:
    """A pipeline that runs at the end of the block, until its input ends or it is stopped (Ctrl-C, SIGTERM).

    With --output_executable_path it writes a jar that runs the job, and ends.

    When stopped, embedded Flink ends with this process; a job on a remote Flink continues, as it is stopped there. On
    Dataflow nothing waits: a flex template's launcher must exit before the job can start.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # the first is ignored in what a script starts with &
        signal.signal(number, signal.default_int_handler)
    with _workers(options, as_):
        pipeline = beam.Pipeline(options=options)
        yield pipeline
        result = None
        try:
            result = pipeline.run()
            if _runner_of(options) == "DataflowRunner":
                print(dataflow.report(result, options), file=sys.stderr)  # noqa: T201
            else:
                result.wait_until_finish()
        except KeyboardInterrupt:
            sys.exit(130)
        except Exception as e:
            if result is None or result.state != PipelineState.CANCELLED:
                e.add_note(first_error(str(e)) or repr(e))  # below the traceback of all that came of it
                raise
            print("the job was cancelled on Flink", file=sys.stderr)  # noqa: T201
            sys.exit(130)


_TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?:[ \t]+.*\n|\n)*(\S.*)", re.MULTILINE)


def first_error(text: str) -> str | None:
    """The error of the first Python traceback in a runner's message, behind which Java has pages of its own."""
    found = _TRACEBACK.search(text)
    return found[1] if found else None


@contextmanager
def _workers(options: PipelineOptions, as_: Logs) -> Iterator[None]:
    """Worker processes for embedded Flink, while the job runs.

    Beam would run all of them as threads of this process, and one interpreter lock would be shared by what could be
    parallel.
    """
    portable = options.view_as(PortableOptions)
    flink = options.view_as(FlinkRunnerOptions)
    if _runner_of(options) != "FlinkRunner" or flink.flink_master not in _EMBEDDED or portable.environment_type:
        yield
        return
    with worker_pool.pool(as_=as_) as address:
        portable.environment_type, portable.environment_config = "EXTERNAL", address
        yield


def pipeline_options(settings: Settings, rest: Sequence[str]) -> PipelineOptions:
    """Beam's options for a job, with defaults per runner.

    Raises:
      UsageError: a combination that is known not to work, with the remedy.
    """
    given = {word[2:].split("=", 1)[0] for word in rest if word.startswith("--")}
    parsed = PipelineOptions(list(rest))
    runner = _runner_of(parsed)
    flags = list(rest)
    kafka = isinstance(settings.input, KafkaUrl)
    native = kafka and settings.kafka_read == "native"
    if native and runner not in _NATIVE_RUNNERS:
        raise UsageError("--kafka_read=native", f"needs {' or '.join(_NATIVE_RUNNERS)}; leave it out with {runner}")

    def default(name: str, value: str | None = None) -> None:
        if name not in given:
            given.add(name)
            flags.append(f"--{name}" if value is None else f"--{name}={value}")

    default("job_name", settings.job.name)
    if runner == "FlinkRunner":
        jar = "output_executable_path" in given
        if jar and "environment_type" not in given:
            raise UsageError(
                "--output_executable_path",
                "the jar's Flink must know where its Python workers are: add --environment_type=EXTERNAL "
                "--environment_config=host:port",
            )
        if native:
            default("max_bundle_time_mills", _NATIVE_BUNDLE_MS)
        # Else Beam runs pip at each start, for a list of this machine's packages that no worker of ours compares.
        flags.append("--experiments=disable_logging_submission_environment")
        # Flink would choose one by --parallelism, and it is part of every savepoint.
        flags.append(f"--max_parallelism={settings.max_parallelism}")
        for name, value in _FLINK.items():
            if not (jar and name in _OF_THE_CLUSTER):
                default(name, value)
        if kafka:
            default("streaming")
        if settings.on_lost == "stop":
            # The loss is there again after every restart. Flink's own default restarts for ever.
            default("number_of_execution_retries", "3")
        if settings.until_end:
            # Flink's sources stay for ever once checkpoints are on, unless told not to. While a job ends, Flink takes
            # no checkpoints: one that fails then starts over, with the same result.
            default("shutdown_sources_after_idle_ms", "0")
        if native:
            flags.append("--experiments=use_deprecated_read")  # as a source of Flink, not a splittable DoFn
        if not given & {"flink_job_server_jar", "flink_version"}:
            _find_job_server(flags, given, native)
        backend = _value(flags, "state_backend").lower()
        if backend == "rocksdb" or (jar and not backend):
            if kafka and not native and not settings.until_end:
                _refuse_leaking_job_server(_value(flags, "flink_job_server_jar"))
            if not jar and _value(flags, "flink_master") in ("", *_EMBEDDED):
                default("flink_conf_dir", str(Path(__file__).parent))
    elif runner == "DataflowRunner":
        dataflow.check(settings, parsed, given)
        for name, value in dataflow.defaults(settings, parsed).items():
            default(name, value)
    elif runner == "PrismRunner" and kafka:
        default("streaming")
    elif runner == "DirectRunner":
        if kafka and parsed.view_as(DirectOptions).direct_num_workers != 1:
            # `ParallelBundleManager` keeps what one of the workers has left to read, and forgets that of the others.
            raise UsageError("--direct_num_workers", "with several workers Beam's own runner loses Kafka records")
        # Beam's own choice for this name starts with a download of Prism; this one is in the SDK and needs nothing.
        flags = [f for f in flags if not f.startswith("--runner")]
        flags.append("--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner")
    return PipelineOptions(flags)


def _runner_of(options: PipelineOptions) -> str:
    """Its name; Beam takes it in any case, and with its package before it."""
    name = (options.view_as(StandardOptions).runner or "DirectRunner").rpartition(".")[2]
    known = {known.lower(): known for known in StandardOptions.KNOWN_RUNNER_NAMES}
    return known.get(name.lower(), name)


def _value(flags: Sequence[str], name: str) -> str:
    """What a flag is set to, '' when it is not; the last one counts."""
    found = ""
    for word, following in zip(flags, [*flags[1:], ""], strict=True):
        if word == f"--{name}":
            found = following
        elif word.startswith(f"--{name}="):
            found = word.partition("=")[2]
    return found


def _refuse_leaking_job_server(jar: str) -> None:
    from stack.flink import beam_version, pauses_leak

    if pauses_leak(jar):
        release = ".".join(map(str, beam_version(jar) or ()))
        raise UsageError(
            "--state_backend=rocksdb",
            f"with --kafka_read=blocks, a job server of Beam {release} adds a column family to RocksDB "
            "at every pause of the reader, some each second, until memory is full; take --kafka_read=native, or "
            "--state_backend=filesystem, or the job server that is built here, or one of Beam 2.76 or newer",
        )


def _find_job_server(flags: list[str], given: set[str], native: bool) -> None:
    from stack.errors import StackError
    from stack.flink import FLINK_VERSION, built_job_server_jar, job_server_jar
    from stack.java import ADD_OPENS, java_home

    flags.append(f"--flink_version={FLINK_VERSION}")
    if "flink_submit_uber_jar" in given:
        return
    try:
        # Beam's own has no KafkaIO inside.
        flags.append(f"--flink_job_server_jar={built_job_server_jar() if native else job_server_jar()}")
        os.environ.setdefault("JAVA_HOME", java_home())  # else Beam starts the PATH's, which need not fit
    except StackError as e:
        raise UsageError("--runner=FlinkRunner", e) from e
    # Without the first, Flink does not run on this Java; whoever gives options of their own cannot know that.
    ours = ADD_OPENS if "job_server_jvm_properties" in given else (*ADD_OPENS, *_JVM)
    flags.extend(f"--job_server_jvm_properties={option}" for option in ours)
