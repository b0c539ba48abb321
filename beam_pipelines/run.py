"""How every job runs: flags → Config → preflight → read → build → write → ledger."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, Protocol, cast

import apache_beam as beam

from beam_pipelines import connect, flags, logs, options, report, runners
from beam_pipelines.options import Settings
from beam_pipelines.sinks import Folder, KafkaUrl, Results
from schemas.flags import UsageError
from schemas.jobs import Job
from schemas.logs import Logs
from transforms.errors import BadRecord
from transforms.ledger import Counts

__all__ = ["Page", "page", "run"]

_LOG = logging.getLogger(__name__)
_LOG.setLevel(logging.INFO)


class Outputs(Protocol):
    """What every job's `build` returns besides its results. A job without late records has no `late`."""

    dead_letters: beam.PCollection[BadRecord]
    counts: beam.PCollection[Counts]


class Page(Protocol):
    """A job's module. It may also have `source(settings)`, to read in another way than `connect.source`."""

    def make_config(self, flags: argparse.Namespace, settings: Settings) -> Any:
        """What the pipeline computes. Raises: UsageError."""

    def build(self, source: Any, config: Any) -> Outputs:
        """The job without its source and sinks; no I/O."""

    def results(self, outputs: Any) -> list[Results]:
        """What to write to each --output."""


def page(job: Job) -> Page:
    return cast(Page, import_module(job.page))


def run(job: Job, argv: Sequence[str] | None = None) -> None:
    """Runs a job from its command line; a usage error exits the program."""
    its = page(job)
    source: Callable[[Settings], Callable[[beam.Pipeline], Any]] = getattr(its, "source", connect.source)
    try:
        given, settings, rest = options.parse(job, sys.argv[1:] if argv is None else argv)
        logs.quieten(settings.logs)
        options.check_state(given, settings)
        config = its.make_config(given, settings)
        read = source(settings)
        connect.check(settings)
        _say(connect.formats_seen(settings), settings.logs)
        pipeline_options = runners.pipeline_options(settings, rest)
    except UsageError as e:
        flags.parser(job).stop(e)
    with tempfile.TemporaryDirectory(prefix="streamforge-") as folder:
        if settings.bounded and not any(flag.startswith("--output_executable_path") for flag in rest):
            settings = replace(settings, report=folder)
        with runners.running(pipeline_options, settings.logs) as pipeline:
            outputs = its.build(read(pipeline), config)
            late = getattr(outputs, "late", None)
            connect.write(its.results(outputs), outputs.dead_letters, late, outputs.counts, settings)
        if settings.report is not None:
            _say(report.lines(folder, _place(settings.dead_letters)), settings.logs)


def _say(lines: Iterable[str], as_: Logs) -> None:
    """What whoever started the job should read, whatever level of log they want."""
    for line in lines:
        if as_.form == "json":
            _LOG.info("%s", line)
        else:
            sys.stderr.write(f"{line}\n")


def _place(letters: KafkaUrl | Folder) -> str:
    return f"topic {letters.topic}" if isinstance(letters, KafkaUrl) else f"{letters.path}/dead_letters"
