"""Dataflow's defaults, and checks that reject what cannot work there before anything starts.

A job on Dataflow runs on machines without access to this one: not to its folders or addresses, and with no programs
except those in --sdk_container_image. docs/dataflow.md has the commands.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, WorkerOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator

from beam_pipelines.options import FLINK_ONLY, Settings
from beam_pipelines.sinks import Folder, KafkaUrl, Sink
from schemas.flags import UsageError

__all__ = ["MOST_WORKERS", "check", "defaults", "report"]

_FLINKS = FLINK_ONLY | {
    *("flink_master", "flink_version", "flink_job_server_jar", "flink_submit_uber_jar"),
    "parallelism",
}
MOST_WORKERS = 4


def defaults(settings: Settings, options: PipelineOptions) -> dict[str, str | None]:
    """Flags for whatever is not given. None: a flag without a value.

    Args:
      options: what is given.
    """
    flags: dict[str, str | None] = {
        # Beam is in the image; else it would be downloaded by each worker that starts.
        "sdk_location": "container",
        # Else Dataflow decides how many, and cores beyond the shards and a few readers have nothing to do.
        "max_num_workers": str(max(MOST_WORKERS, options.view_as(WorkerOptions).num_workers or 0)),
    }
    if options.view_as(WorkerOptions).use_public_ips is None:
        flags["no_use_public_ips"] = None
    if isinstance(settings.input, KafkaUrl):
        # Dataflow would see that by itself, but only after the BigQuery sink has taken it for a batch, and chosen load
        # jobs, which in a stream never start.
        flags["streaming"] = None
    return flags


def check(settings: Settings, options: PipelineOptions, given: set[str]) -> None:
    """Refuses what cannot work.

    Args:
      given: names of the flags on the command line.

    Raises:
      UsageError.
    """
    for name in sorted(given & _FLINKS):
        raise UsageError(f"--{name}", "is an option of Flink's; leave it out with DataflowRunner")
    cloud = options.view_as(GoogleCloudOptions)
    _check_cloud(cloud, PipelineOptionsValidator(options, None))
    if not options.view_as(WorkerOptions).sdk_container_image:
        raise UsageError(
            "--sdk_container_image", "is needed with DataflowRunner: workers get this job's code from the image only"
        )
    if settings.kafka_read == "native" and settings.expansion_service is None:
        raise UsageError(
            "--kafka_read=native",
            "with DataflowRunner, needs --expansion_service=host:port of Beam's own expansion service: the one that is "
            "started here makes steps that only Flink can run",
        )
    for flag, folder in _folders(settings):
        if not folder.startswith("gs://"):
            raise UsageError(flag, f"{folder} would be on each worker's own disk with DataflowRunner; use one on gs://")
    # Only a Dataflow that is on this machine too, as a test's, can reach what is here.
    if "//localhost" not in (cloud.dataflow_endpoint or ""):
        for flag, host in _hosts(settings):
            if _is_this_machine(host):
                raise UsageError(
                    flag,
                    f"{host} would be each worker itself with DataflowRunner; use an address that workers can reach",
                )


def _check_cloud(cloud: Any, beams: PipelineOptionsValidator) -> None:
    """What Beam would find too, but show as a stack trace, or mend with a bucket that it makes."""
    for name, why in (
        ("project", "the project that runs the job"),
        ("region", "the region it runs in, such as europe-west1"),
    ):
        if not getattr(cloud, name):
            raise UsageError(f"--{name}", f"is needed with DataflowRunner: {why}")
    if not cloud.temp_location and not cloud.staging_location:
        raise UsageError("--temp_location", "is needed with DataflowRunner: a gs:// folder for staged files")
    for name in ("temp_location", "staging_location"):
        if getattr(cloud, name):
            for error in beams.validate_gcs_path(cloud, name):
                raise UsageError(f"--{name}", error)
    if beams.is_full_string_match(beams.PROJECT_NUMBER_PATTERN, cloud.project):
        raise UsageError("--project", f"{cloud.project} is a project number; use the project id")
    if not beams.is_full_string_match(beams.PROJECT_ID_PATTERN, cloud.project):
        raise UsageError("--project", f"{cloud.project} is not a project id")
    if cloud.job_name and not beams.is_full_string_match(beams.JOB_PATTERN, cloud.job_name):
        raise UsageError(
            "--job_name", f"{cloud.job_name} must be lower-case letters, digits and -, beginning with a letter"
        )


def _folders(settings: Settings) -> Iterator[tuple[str, str]]:
    for flag, url in _urls(settings):
        if isinstance(url, Folder):
            yield flag, url.path
    if settings.ledger is not None:
        yield "--ledger", settings.ledger


def _hosts(settings: Settings) -> Iterator[tuple[str, str]]:
    for flag, url in _urls(settings):
        for host in url.hosts:
            yield flag, host
    if isinstance(settings.input, KafkaUrl):
        yield "--registry", settings.registry.host


def _urls(settings: Settings) -> Iterator[tuple[str, Sink]]:
    for flag, urls in (
        ("--input", settings.inputs),
        ("--output", settings.outputs),
        ("--dead_letters", (settings.dead_letters,)),
        ("--late", (settings.late,)),
    ):
        for url in urls:
            yield flag, url


def _is_this_machine(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def report(result: Any, options: PipelineOptions) -> str:
    """What became of a submission, in one line."""
    cloud = options.view_as(GoogleCloudOptions)
    if not result.has_job:
        return f"written to {cloud.template_location}; no job was started"
    return (
        f"submitted to Dataflow as {result.job_id()}: https://console.cloud.google.com/dataflow/jobs/"
        f"{cloud.region}/{result.job_id()}?project={cloud.project}"
    )
