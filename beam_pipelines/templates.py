"""Flex templates of the jobs for Dataflow: what its console and gcloud ask for and refuse, from the jobs' own flags.

    python -m beam_pipelines.templates specs --to=gs://bucket/templates --tag=0.1.0 \\
        --images=europe-west1-docker.pkg.dev/project/streamforge
    python -m beam_pipelines.templates metadata --to=docker/dataflow

`specs` writes FOLDER/<job>.json for `gcloud dataflow flex-template run`; `metadata` writes FOLDER/<job>.metadata.json
alone, to read, or for `gcloud dataflow flex-template build`. A parameter's name, help and default are the flag's. Its
pattern is here: whatever it lets through, the job's own check of the flag lets through too (but for ports above 65535),
so that what Dataflow accepts does not fail minutes later on a machine started for it. docs/dataflow.md has more.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from apache_beam.io.filesystems import FileSystems

from beam_pipelines import archive, cdc, fraud, options, revenue, sessions
from beam_pipelines.dataflow import MOST_WORKERS
from schemas.flags import Parser, UsageError
from transforms.io.files import make_folder

__all__ = ["JOBS", "LEFT_OUT", "main", "metadata", "parameters", "spec"]

_MODULE = "beam_pipelines.templates"
JOBS: dict[str, ModuleType] = {
    "archive": archive,
    "cdc": cdc,
    "fraud": fraud,
    "revenue": revenue,
    "sessions": sessions,
}

LEFT_OUT = {
    "expansion_service": "belongs to --kafka_read=native",
    "hash_key": "a file that every worker has; a worker of Dataflow has the image's only, and a key is no part of one. "
    "Without it all personal columns are dropped",
    "kafka_read": "native needs Java and a service while the job is made, which the launcher's image does not have",
    "max_parallelism": "is Flink's",
    "ledger": "would be an object written every second, as often as Cloud Storage allows; the ledger is in Redis",
    "until": "a template starts a job that goes on",
}

# POSIX extended regular expressions, as Dataflow wants them, of the whole value.
_HOST = "[A-Za-z0-9.-]+"
_PORT = "[1-9][0-9]{0,4}"
_TOPIC = "[A-Za-z0-9._-]"
_SERVERS = f"kafka://{_HOST}:{_PORT}(,{_HOST}:{_PORT})*"
_KAFKA = f"{_SERVERS}/{_TOPIC}+"
# No user and password: whoever may look at a job sees its parameters. A secret's name may be seen.
_REDIS = f"rediss?://{_HOST}(:{_PORT})?(/[0-9]{{1,5}})?"
_SECRET = options.SECRET_URL.pattern
_BIGQUERY = "bigquery://[a-z][a-z0-9-]{4,28}[a-z0-9][.][A-Za-z0-9_]{1,1000}"
_FOLDER = "gs://[a-z0-9][a-z0-9._-]*[a-z0-9](/[!-~]*)?"
_COUNT = "[1-9][0-9]{0,5}"
# Up to what is within a hundred years in each unit.
_SECONDS = "[1-9][0-9]{0,8}s|[1-9][0-9]{0,6}m|[1-9][0-9]{0,4}h|[1-9][0-9]{0,3}d"
_LASTING = f"[1-9][0-9]{{0,11}}ms|{_SECONDS}"
_DURATION = f"0(ms|s|m|h|d)|{_LASTING}"


@dataclass(frozen=True)
class _Asked:
    """How a flag is asked for.

    Attributes:
      pattern: of the whole value.
      help: None: the flag's own, without its default.
      kind: one of Dataflow's parameter types.
    """

    pattern: str
    help: str | None = None
    required: bool = False
    kind: str = "TEXT"


def _several(url: str) -> str:
    return f"({url})( ({url}))*"


_ASKED = {
    "input": _Asked(_KAFKA, "Kafka topic to read, as kafka://host:port[,host:port]/topic", required=True),
    "output": _Asked(
        _several("|".join([_REDIS, _SECRET, _BIGQUERY, _KAFKA, _FOLDER])),
        "Where results go: redis://host:port/db, or secret://project/secret?ca=secret if it has a password, "
        "bigquery://project.dataset, kafka://host:port/topic, or a folder on gs:// for JSON lines; several with a "
        "space between them",
        required=True,
    ),
    "dead_letters": _Asked(
        f"{_KAFKA}|{_FOLDER}",
        "Where records go that cannot be used: kafka://host:port/topic or a folder on gs://; if not given, beside the "
        "rows if the output has a folder, else to the topic dlq.<job> beside the input",
    ),
    "late": _Asked(
        f"{_KAFKA}|{_FOLDER}",
        "The same for records beyond the allowed lateness; if not given, the topic is late.<job>",
    ),
    "registry": _Asked(
        f"https?://{_HOST}(:{_PORT})?(/[A-Za-z0-9._~/-]*)?", "URL of the schema registry, Confluent API", required=True
    ),
    "rules": _Asked(
        f"{_FOLDER}[.]ya?ml",
        "YAML file with the fraud rules, on gs://; if not given, the rules that are in the image",
        kind="GCS_READ_FILE",
    ),
    "session_gap": _Asked(_LASTING),
    "max_session": _Asked(_LASTING),
    "early_every": _Asked(_LASTING),
    "records_per_file": _Asked("[1-9][0-9]{0,6}|10000000", kind="NUMBER"),
    "flush_every": _Asked(_SECONDS),
    "roll_every": _Asked(_SECONDS),
    "roll_size": _Asked("[1-9][0-9]{0,4}KiB|([1-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-6])MiB"),
    "out_of_orderness": _Asked(_DURATION),
    "allowed_lateness": _Asked(_DURATION),
    "max_ahead": _Asked(_LASTING),
    "readers": _Asked(
        f"auto|{_COUNT}",
        "Kafka readers side by side, of each topic; fixed for the life of a job and its updates. auto: as many "
        "as there may be workers, but no more than partitions",
    ),
    "discover_every": _Asked(_LASTING),
    "on_lost": _Asked("continue|stop"),
    "state_shards": _Asked(
        _COUNT,
        "Parts that keyed state is divided into: the most parallelism it can have; fixed for the life of a job and its "
        "updates",
        kind="NUMBER",
    ),
}
# Where a job asks for less or more than the others do.
_OF_JOB = {
    ("archive", "input"): _Asked(
        _several(f"{_SERVERS}/{_TOPIC}*(order|click){_TOPIC}*"),
        "Kafka topics of orders and clicks, as their names must say, each as kafka://host:port/topic, with a space "
        "between them",
        required=True,
    ),
    ("archive", "output"): _Asked(
        f"{_FOLDER}|{_BIGQUERY}|{_FOLDER} {_BIGQUERY}|{_BIGQUERY} {_FOLDER}",
        "The archive's folder on gs://, or bigquery://project.dataset, or both with a space between them",
        required=True,
    ),
    ("cdc", "input"): _Asked(
        _several(_KAFKA),
        "Kafka topics of Debezium, each as kafka://host:port/topic, with a space between them",
        required=True,
    ),
    ("revenue", "early_every"): _Asked(_SECONDS),
}


def parameters(name: str) -> list[dict[str, Any]]:
    """The parameters of a job's template: all its flags but those in LEFT_OUT, with what is required first.

    Raises:
      KeyError: a flag that is neither asked for nor left out.
    """
    job = JOBS[name]
    found = []
    for group in options.parser(job.JOB, job._add_flags)._action_groups:
        for action in group._group_actions:
            flag = action.dest
            if flag not in LEFT_OUT and flag != "help":
                found.append(_parameter(action, _OF_JOB.get((name, flag)) or _ASKED[flag], group.title or ""))
    return sorted(found, key=lambda parameter: bool(parameter.get("isOptional")))


def _parameter(action: argparse.Action, asked: _Asked, group: str) -> dict[str, Any]:
    text = asked.help or re.sub(r" *\(default.*\)$", "", (action.help or "") % {"default": action.default})
    parameter = {
        "name": action.dest,
        "label": action.dest.replace("_", " ").capitalize(),
        "helpText": f"{text[:1].upper()}{text[1:]}.",
        "regexes": [f"^({asked.pattern})$"],
        "paramType": asked.kind,
        "groupName": group.capitalize(),
    }
    if not asked.required:
        parameter["isOptional"] = True
        if action.default is not None:
            parameter["defaultValue"] = action.default
    return parameter


def metadata(name: str) -> dict[str, Any]:
    """What Dataflow's console shows of a template, and the service checks a launch against."""
    job = JOBS[name].JOB
    return {
        "name": f"StreamForge {job.name}",
        "description": job.summary,
        "streaming": True,
        # The ledger counts every record once; at-least-once would count some twice.
        "supportsExactlyOnce": True,
        "supportsAtLeastOnce": False,
        "parameters": parameters(name),
    }


def spec(name: str, images: str, tag: str) -> dict[str, Any]:
    """The file that a flex template is: ContainerSpec in Dataflow's API.

    Args:
      images: what all images' names begin with, without the last slash.
    """
    return {
        "image": f"{images}/streamforge-flex-{name}:{tag}",
        "sdkInfo": {"language": "PYTHON"},
        "metadata": metadata(name),
        "defaultEnvironment": {
            "sdkContainerImage": f"{images}/streamforge-worker:{tag}",
            "enableStreamingEngine": True,
            "ipConfiguration": "WORKER_IP_PRIVATE",
            "maxWorkers": MOST_WORKERS,
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    try:
        flags = _parser().parse_args(argv)
        for name in flags.job:
            if name not in JOBS:
                raise UsageError(name, f"is not one of {', '.join(JOBS)}")
        names = flags.job or list(JOBS)
        if flags.command == "metadata":
            files = {f"{name}.metadata.json": metadata(name) for name in names}
        else:
            _check_images(flags.images, flags.tag)
            files = {f"{name}.json": spec(name, flags.images, flags.tag) for name in names}
        _write(flags.to, files)
    except UsageError as e:
        options.stop(e, _MODULE)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog=f"python -m {_MODULE}", description="Flex templates of the jobs for Dataflow.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="specs|metadata")
    specs = commands.add_parser("specs", help="write the templates")
    specs.add_argument("--images", required=True, help="what all images' names begin with: host/project/repository")
    specs.add_argument("--tag", required=True, help="of the images; not latest, which is another one every day")
    for command in (specs, commands.add_parser("metadata", help="write the metadata alone")):
        command.add_argument("--to", required=True, metavar="FOLDER", help="local or gs://")
        command.add_argument("job", nargs="*", help=f"of {', '.join(JOBS)}; default: all")
    return parser


def _check_images(images: str, tag: str) -> None:
    if not re.fullmatch(r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+", images):
        raise UsageError("--images", f"'{images}' is not host/project/repository")
    if not re.fullmatch(r"\w[\w.-]{0,127}", tag, re.ASCII) or tag == "latest":
        raise UsageError("--tag", f"'{tag}' is not a tag that always names the same image")


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
