"""Flex templates of the jobs for Dataflow: the parameters that its console and gcloud offer, from the jobs' own flags.

    python -m beam_pipelines.templates specs --to=gs://bucket/templates --tag=0.1.0 \\
        --images=europe-west1-docker.pkg.dev/project/streamforge
    python -m beam_pipelines.templates metadata --to=docker/dataflow

`specs` writes FOLDER/<job>.json for `gcloud dataflow flex-template run`; `metadata` writes FOLDER/<job>.metadata.json
alone, for reading or for `gcloud dataflow flex-template build`. A parameter has its flag's name, help and default, and
the pattern of the flag's kind (`beam_pipelines.flags`). See docs/dataflow.md.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from apache_beam.io.filesystems import FileSystems

from beam_pipelines import flags
from beam_pipelines.dataflow import MOST_WORKERS
from schemas.flags import Parser, UsageError
from schemas.jobs import JOBS, Flag, Job
from transforms.io.files import make_folder

__all__ = ["main", "metadata", "parameters", "spec"]

_MODULE = "beam_pipelines.templates"


def parameters(job: Job) -> list[dict[str, Any]]:
    """The parameters of a job's template: all flags that are not left out, required ones first."""
    found = [
        _parameter(flag, title) for title, group in flags.of_job(job).items() for flag in group if not flag.left_out
    ]
    return sorted(found, key=lambda parameter: bool(parameter.get("isOptional")))


def _parameter(flag: Flag, group: str) -> dict[str, Any]:
    kind, text = flags.KINDS[flag.kind], flag.asked or flag.help
    parameter = {
        "name": flag.name,
        "label": flag.name.replace("_", " ").capitalize(),
        "helpText": f"{text[:1].upper()}{text[1:]}.",
        "regexes": [f"^({flag.pattern or kind.pattern})$"],
        "paramType": kind.parameter,
        "groupName": group.capitalize(),
    }
    if not flag.required:
        parameter["isOptional"] = True
        if flag.default is not None:
            parameter["defaultValue"] = flag.default
    return parameter


def metadata(job: Job) -> dict[str, Any]:
    """What Dataflow's console shows of a template, and what the service checks a launch against."""
    return {
        "name": f"StreamForge {job.name}",
        "description": job.summary,
        "streaming": True,
        # The ledger counts every record once; at-least-once would count some twice.
        "supportsExactlyOnce": True,
        "supportsAtLeastOnce": False,
        "parameters": parameters(job),
    }


def spec(job: Job, images: str, tag: str) -> dict[str, Any]:
    """The file that a flex template is: ContainerSpec in Dataflow's API.

    Args:
      images: what all images' names begin with, without the last slash.
    """
    return {
        "image": f"{images}/streamforge-flex-{job.module}:{tag}",
        "sdkInfo": {"language": "PYTHON"},
        "metadata": metadata(job),
        "defaultEnvironment": {
            "sdkContainerImage": f"{images}/streamforge-worker:{tag}",
            "enableStreamingEngine": True,
            "ipConfiguration": "WORKER_IP_PRIVATE",
            "maxWorkers": MOST_WORKERS,
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = _parser()
    try:
        given = parser.read(argv)
        for name in given.job:
            if name not in JOBS:
                raise UsageError(name, f"is not one of {', '.join(JOBS)}")
        jobs = [JOBS[name] for name in given.job or JOBS]
        if given.command == "metadata":
            files = {f"{job.module}.metadata.json": metadata(job) for job in jobs}
        else:
            _check_images(given.images, given.tag)
            files = {f"{job.module}.json": spec(job, given.images, given.tag) for job in jobs}
        _write(given.to, files)
    except UsageError as e:
        parser.stop(e)


def _parser() -> Parser:
    parser = Parser(prog=f"python -m {_MODULE}", description="Writes the jobs' flex templates for Dataflow.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="specs|metadata")
    specs = commands.add_parser("specs", help="write the templates")
    specs.add_argument("--images", required=True, help="prefix of the images' names: host/project/repository")
    specs.add_argument("--tag", required=True, help="the images' tag; not latest, which does not stay the same image")
    for command in (specs, commands.add_parser("metadata", help="write only the metadata")):
        command.add_argument("--to", required=True, metavar="FOLDER", help="output folder, local or gs://")
        command.add_argument("job", nargs="*", help=f"any of {', '.join(JOBS)} (default: all)")
    return parser


def _check_images(images: str, tag: str) -> None:
    if not re.fullmatch(r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+", images):
        raise UsageError("--images", f"'{images}' is not host/project/repository")
    if not re.fullmatch(r"\w[\w.-]{0,127}", tag, re.ASCII) or tag == "latest":
        raise UsageError("--tag", f"'{tag}' is not a tag that stays with one image")


def _write(folder: str, files: dict[str, dict[str, Any]]) -> None:
    try:
        make_folder(folder)
        for name, content in files.items():
            path = f"{folder.rstrip('/')}/{name}"
            with FileSystems.create(path, mime_type="application/json") as file:
                file.write(json.dumps(content, indent=2).encode() + b"\n")
            print(path)  # noqa: T201
    except OSError as e:
        raise UsageError("--to", e) from e


if __name__ == "__main__":
    main(sys.argv[1:])
