"""Generates what depends on the declarations but cannot read them itself: python -m beam_pipelines.generate

The declarations are `schemas.jobs` (jobs, their tables and flags), `beam_pipelines.flags`, `beam_pipelines.sinks`, and
the version in pyproject.toml. Generated are whole files, the chart's version, and the sections between
`jobs: make generate` and `end of jobs`. The output is committed, and a test fails when it is stale.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from beam_pipelines import fields, flags, sinks, templates
from docker.grafana.dashboards import dashboards
from schemas.avro_of import avro_of
from schemas.flags import Parser
from schemas.jobs import JOBS, LETTER_TOPIC, LETTERS, Flag, Job, topics
from schemas.jobs.shop import EVENTS_LETTERS, RULES, RULES_TOPIC
from schemas.tables import resources, table

__all__ = ["artefacts", "main"]

ROOT = Path(__file__).parent.parent
_WIDTH = 120
_CHART = "helm/streamforge"
# Of Beam's Flink runner, that the chart sets, too.
_BEAMS = {
    "checkpointingInterval": flags.number(1_000, 3_600_000),
    "maxBundleSize": flags.number(1, 1_000_000),
    "maxBundleTimeMills": flags.number(1, 60_000),
    "sdkWorkerParallelism": flags.number(1, 64),
}
# What a job may have of its own instead of jobDefaults.
_OF_DEFAULTS = (
    *("state", "upgradeMode", "savepointTriggerNonce", "restartNonce", "initialSavepointPath"),
    *("savepointRedeployNonce", "allowNonRestoredState", "parallelism", "stateBackend", "taskSlots"),
    *("jobManager", "taskManager", "worker", "launcher", "pods", "kafkaSecret"),
)


def artefacts(jobs: Iterable[Job], root: Path = ROOT) -> dict[str, str]:
    """Path → the file's text.

    Args:
      root: where the files are that are written in part.
    """
    jobs = tuple(jobs)
    found = {
        "terraform/modules/kafka/topics.json": _json(topics(jobs) | {EVENTS_LETTERS: LETTER_TOPIC, RULES: RULES_TOPIC}),
        "terraform/modules/bigquery/tables.json": _json(_tables(jobs)),
        f"{_CHART}/files/jobs.json": _json({job.module: job.name for job in jobs}),
        f"{_CHART}/Chart.yaml": _with_version(root / _CHART / "Chart.yaml", root / "pyproject.toml"),
        f"{_CHART}/values.schema.json": _json(
            _schema(jobs, json.loads((root / _CHART / "values.schema.json").read_text()))
        ),
    }
    found |= _schemas({rows.record for job in jobs for rows in job.tables}, root)
    found |= {f"docker/dataflow/{job.module}.metadata.json": _json(templates.metadata(job)) for job in jobs}
    found |= {f"{_CHART}/files/dashboards/{name}": text for name, text in dashboards().items()}
    sections: dict[str, Callable[[tuple[Job, ...]], Iterator[str]]] = {
        f"{_CHART}/values.yaml": _values,
        "docker/bake.hcl": _images,
        "docker/compose.yaml": _services,
        "README.md": _rows,
        "docs/architecture.md": _deliveries,
        "docs/semantics.md": _remembered,
        "docs/mapping.md": lambda _: fields.lines(),
    }
    return found | {path: _with_section(root / path, lines(jobs)) for path, lines in sections.items()}


def _with_section(path: Path, lines: Iterable[str]) -> str:
    text = path.read_text()
    made, count = re.subn(
        r"(?s)(?<=jobs: make generate)( -->)?\n.*?(?=[^\n]*end of jobs)",
        lambda found: "\n".join([found[1] or "", *lines, ""]),
        text,
    )
    if count != 1:
        raise ValueError(f"{path} has {count} sections")
    return made


def _with_version(chart: Path, project: Path) -> str:
    version = tomllib.loads(project.read_text())["project"]["version"]
    text = re.sub(r"(?m)^version: .*$", f"version: {version}", chart.read_text())
    return re.sub(r"(?m)^appVersion: .*$", f'appVersion: "{version}"', text)


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _schemas(records: Iterable[type[msgspec.Struct]], root: Path) -> dict[str, str]:
    """The Avro schemas of records that have none, and their first versions; from then on they are changed by hand."""
    found = {}
    for record in records:
        path, first = f"schemas/avro/{record.__name__}.avsc", f"schemas/avro/history/{record.__name__}/1.avsc"
        if not (root / first).exists():
            there = root / path
            text = there.read_text() if there.exists() else _json(avro_of(record))
            found |= {first: text} if there.exists() else {path: text, first: text}
    return found


def _tables(jobs: Sequence[Job]) -> dict[str, Any]:
    made = [r for job in jobs for rows in job.tables for r in resources(table(rows), "project-id.dataset")]
    return {r["tableReference"]["tableId"]: r for r in made}


# The chart


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _in_chart(some: Iterable[Flag]) -> dict[str, Any]:
    return {_camel(flag.name): kind.chart for flag in some if (kind := flags.KINDS[flag.kind]).chart is not None}


def _schema(jobs: Sequence[Job], schema: dict[str, Any]) -> dict[str, Any]:
    every = (
        _in_chart(flag for name, group in flags.of_job(jobs[0]).items() if name != flags.OWN for flag in group) | _BEAMS
    )
    defs = {name: made for name, made in schema["$defs"].items() if not name.endswith("Flags")}
    defs["flags"] = _object(every)
    schema["properties"]["jobDefaults"]["properties"]["flags"]["allOf"][1]["required"] = list(every)
    of_jobs = {job.module: _of_job(job, every) for job in jobs}
    schema["properties"]["jobs"] = {**_object(of_jobs), "required": list(of_jobs)}
    return {**schema, "$defs": defs}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _of_job(job: Job, every: dict[str, Any]) -> dict[str, Any]:
    own = _in_chart(job.flags)
    topic = {"type": "string", "pattern": "^([A-Za-z0-9._-]{1,249})?$"}
    properties = {
        "enabled": {"type": "boolean"},
        "inputs": {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"$ref": "#/$defs/topic"}},
        "outputs": _object({name: topic if name == "topic" else {"type": "boolean"} for name in _outputs(job)}),
        "flags": _object({**every, **own}) if own else {"$ref": "#/$defs/flags"},
        **{name: {"$ref": f"#/$defs/{name}"} for name in _OF_DEFAULTS},
        **{_camel(f.name): {"type": "string"} for f in job.flags if f.kind == "yaml_file"},
        **{f"{_camel(f.name)}Secret": {"$ref": "#/$defs/secretFile"} for f in job.flags if f.kind == "secret_file"},
    }
    return {**_object(properties), "required": ["enabled", "inputs", "outputs"]}


def _outputs(job: Job) -> dict[str, str]:
    found = {"redis": "true"} if job.online else {}
    found |= {"topic": job.topic} if job.topic else {}
    found |= {"archive": "true"} if job.output_folder else {}
    return found | ({"bigquery": "true"} if job.tables else {})


def _values(jobs: Sequence[Job]) -> Iterator[str]:
    yield "jobs:"
    for job in jobs:
        yield f"  {job.module}:"
        yield f"    enabled: {str(job.profile is None).lower()}"
        inputs = f"    inputs: [{', '.join(job.topics)}]"
        if len(inputs) <= _WIDTH:
            yield inputs
        else:
            yield from ("    inputs:", *(f"      - {topic}" for topic in job.topics))
        yield f"    outputs: {{{', '.join(f'{name}: {value}' for name, value in _outputs(job).items())}}}"
        own: list[str] = []
        if job.readers != "auto":
            own += ["      # Of several topics.", f"      readers: {job.readers}"]
        for flag in job.flags:
            name, kind = _camel(flag.name), flags.KINDS[flag.kind]
            if kind.chart is not None and flag.default is None:
                continue  # given in the chart only where it is wanted
            if kind.chart is not None:
                own += [*_comment(flag.note, 6), f"      {name}: {flag.default}"]
            else:
                yield from _comment(flag.note, 4)
                if flag.kind == "secret_file":
                    yield from (f"    {name}Secret:", '      name: ""', f"      key: {flag.name.replace('_', '-')}")
                else:
                    yield f'    {name}: ""'
        yield from ["    flags:", *own] if own else []


def _comment(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=f"{' ' * indent}# ", subsequent_indent=f"{' ' * indent}# ")


# Docker


def _images(jobs: Sequence[Job]) -> Iterator[str]:
    yield f"    job = [{', '.join(json.dumps(job.module) for job in jobs)}]"


def _services(jobs: Sequence[Job]) -> Iterator[str]:
    kafka = "kafka://kafka:9092"
    for place, job in enumerate(jobs):
        yield f"  {job.module}:"
        yield "    <<: *job"
        if job.profile:
            yield f"    profiles: [{job.profile}]"
        if place == 0:
            yield "    build: {context: .., dockerfile: docker/Dockerfile, target: launcher}"
        yield "    command:"
        words = [job.page, *(f"--input={kafka}/{topic}" for topic in job.topics)]
        if job.output_folder:
            words.append(f"--output=/var/lib/streamforge/{job.module}")
            words += [f"--{flag}={kafka}/{topic}" for flag, topic in zip(LETTERS, job.letters, strict=True)]
        words += ["--output=redis://valkey:6379/0"] * job.online
        words += [f"--output={kafka}/{job.topic}"] * bool(job.topic)
        yield from (f"      - {word}" for word in (*words, *job.demo))
        yield ""


# Docs


def _rows(jobs: Sequence[Job]) -> Iterator[str]:
    yield ""
    yield "| command | reads | writes |"
    yield "|---|---|---|"
    for job in jobs:
        letters = "; ".join(f"`{topic}`" for topic in job.letters)
        yield f"| `python -m {job.page}` | {job.reads} | {job.writes}; {letters} |"
    yield ""


def _deliveries(jobs: Sequence[Job]) -> Iterator[str]:  # noqa: ARG001 - sinks are the same for all
    yield ""
    yield "| sink | repeated writes |"
    yield "|---|---|"
    yield from (f"| {sink.name} | {sink.delivery} |" for sink in sinks.SINKS)
    yield ""


def _remembered(jobs: Sequence[Job]) -> Iterator[str]:
    yield ""
    yield "| job | remembers | for so long after its event time | because |"
    yield "|---|---|---|---|"
    for job in jobs:
        for state in job.state:
            spans = " + ".join([f"`--{span}`" for span in state.spans] + [state.until] * bool(state.until))
            within = f", less than `--{state.within}`" if state.within else ""
            yield f"| {job.module} | {state.what} | {spans}{within} | {state.why} |"
    yield ""


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(
        prog="python -m beam_pipelines.generate",
        description="Writes all files that are generated from the jobs' declarations.",
    )
    parser.add_argument(
        "--to", type=Path, default=ROOT, metavar="FOLDER", help="checkout to update (default: this one)"
    )
    to = parser.parse_args(argv).to
    for path, text in artefacts(JOBS.values()).items():
        file = to / path
        if not file.exists() or file.read_text() != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            print(path)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
