"""Flex templates say what the jobs' flags say: no flag is forgotten, and no pattern lets a value through that the job
refuses."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import hcl2
import pytest
from apache_beam.options.pipeline_options import StandardOptions
from google.cloud.dataflow_v1beta3 import types
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_pipelines import archive, flags, fraud, options, runners, sinks, templates
from beam_pipelines.per_topic import NamedTwiceError
from schemas.flags import UsageError
from schemas.framing import FORMATS
from schemas.jobs import JOBS, Flag
from schemas.mapping import SHIPPED, parse_mapping, shipped
from tests.beam_pipelines.test_options import WRONG
from tests.live import ROOT

IMAGES = "europe-west1-docker.pkg.dev/shop-1/streamforge"
ALL = [(name, parameter["name"]) for name in JOBS for parameter in templates.parameters(JOBS[name])]
KAFKA = "kafka://broker-1.example:9092,broker-2.example:9092"
REQUIRED = {
    "input": f"{KAFKA}/shop.orders",
    "output": "gs://shop-archive/rows",
    "registry": "https://registry.example/apis/ccompat/v7",
}
BIGQUERY = "bigquery://shop-1.live"
# Of each sort, what somebody would write.
GOOD = {
    "input": [REQUIRED["input"], "kafka://10.0.0.2:9092/transactions.orders"],
    "output": [
        "redis://10.0.0.3:6379/0",
        "rediss://store.example",
        f"{BIGQUERY} redis+cluster://10.0.0.3:6379,10.0.0.4",
        "rediss+sentinel://10.0.0.3:26379,store.example:26379/shop-1/2",
        "secret://shop-1/redis-url",
        BIGQUERY,
        f"{KAFKA}/alerts",
        "gs://bucket.example/a/b=c/",
        f"secret://shop-1/redis-url?ca=redis-ca {BIGQUERY} {KAFKA}/alerts",
    ],
}
GOOD_KIND = {
    "letters": [f"{KAFKA}/dlq.fraud-detector", "gs://bucket/refused", "gs://bucket"],
    "url": [REQUIRED["registry"], "http://10.0.0.4:8081"],
    "kafka_file": ["secret://shop-1/kafka"],
    "registry_file": ["secret://shop-1/registry"],
    "store_file": ["secret://shop-1/store"],
    "yaml_file": ["gs://bucket/rules/fraud.yaml", "gs://bucket/fraud.yml"],
    "rules_topic": ["rules.fraud", f"{KAFKA}/shop.rules"],
    "duration": ["0s", "500ms", "10s", "10m", "7d"],
    "lasting": ["12h", "1ms", "90s", "36500s", "30m", "9999d"],
    "seconds": ["1s", "90s", "10m", "1h"],
    "whole_seconds": ["2s", "1m"],
    "size": ["1KiB", "99999KiB", "1MiB", "256MiB"],
    "count": ["32", "256"],
    "number": ["1", "100000", "10000000"],
    "readers": ["auto", "1", "2", "16"],
    "on_lost": ["continue", "stop"],
    "format": ["auto", *FORMATS, "json,shop.orders=confluent", "shop.orders=json"],
    "store_prefix": ["sf", "shop-2", "Shop_b.tr", "9"],
    "group_prefix": ["shop-a.", "Shop_1_", "a-"],
    "currency": ["TRY", "EUR", "JPY", "KWD"],
    "mapping": [*SHIPPED, "segment,shop.orders=segment", "gs://bucket/ours.yaml", "gs://bucket/a,b.yaml"],
}
GOOD_OF = {
    ("sessions", "session_gap"): ["30m", "1ms", "36500s"],
    ("sessions", "max_session"): ["12h", "1d"],
    ("archive", "output"): ["gs://bucket/archive", BIGQUERY, f"gs://bucket/archive {BIGQUERY}"],
    ("archive", "input"): [f"{KAFKA}/transactions.orders {KAFKA}/clickstream.events", "kafka://h:1/clicks"],
    ("cdc", "input"): [f"{KAFKA}/cdc.public.products {KAFKA}/cdc.public.orders"],
}
BAD = {
    "output": [
        "redis://user:secret@h:6379/0",
        "redis+cluster://h:1/1",
        "redis+sentinel://h:1",
        f"{BIGQUERY},{BIGQUERY}",
        "out",
        "/tmp/out",
        f"{BIGQUERY}  {BIGQUERY}",
    ],
    "input": ["gs://bucket/orders.avro", "orders.avro", "kafka://h:9092,h:/t", f"{KAFKA}/orders {KAFKA}/orders "],
}
BAD_KIND = {
    "kafka_file": ["kafka.properties", "secret://shop-1/kafka?ca=x", "secret://x/kafka"],
    "registry_file": ["gs://bucket/registry.properties"],
    "store_file": ["/etc/store.properties"],
    "yaml_file": ["rules.yaml", "gs://bucket/rules.txt"],
    "rules_topic": ["rules/fraud", "kafka://broker/rules.fraud", "gs://bucket/rules"],
    "duration": ["10", "1.5h"],
    "lasting": ["0s", "0ms", "0h", "1", "30", "30 m", "-1s", "1.5h"],
    "seconds": ["0s", "500ms", "999ms", "1"],
    "whole_seconds": ["0s", "1500ms", "2000ms"],
    "size": ["0MiB", "257MiB", "1GiB", "16MB", "16"],
    "count": ["0", "all"],
    "number": ["0", "10000001", "1e5", "many"],
    "readers": ["0", "02", "2.0", "all"],
    "on_lost": ["ignore"],
    "format": ["avro", "json,confluent", "shop.orders=avro", "shop/orders=json", "json,", "=json"],
    "store_prefix": ["a:b", "", "a*", "-a", "a" * 64],
    "group_prefix": ["shop-a", ".", "shop a.", f"{'a' * 64}."],
    "currency": ["try", "EURO", "QQQ", "XAU"],
    "mapping": ["ours.yaml", "ga3", "gs://bucket/ours.txt", "shop.orders=", "segment,ga4"],
}
BAD_OF = {
    ("archive", "output"): ["gs://a1/x gs://b1/y", "redis://h:6379/0", f"{KAFKA}/archive"],
    ("archive", "input"): [f"{KAFKA}/payments"],
}


def pattern(name: str, flag: str) -> str:
    (parameter,) = (p for p in templates.parameters(JOBS[name]) if p["name"] == flag)
    (only,) = parameter["regexes"]
    return str(only)


def accepts(name: str, flag: str, value: str) -> bool:
    return re.fullmatch(pattern(name, flag), value) is not None


def kind(name: str, flag: str) -> str:
    (found,) = (f.kind for group in flags.of_job(JOBS[name]).values() for f in group if f.name == flag)
    return found


def bad(name: str, flag: str) -> list[str]:
    return [*BAD.get(flag, []), *BAD_KIND.get(kind(name, flag), []), *BAD_OF.get((name, flag), [])]


def ports_are_right(value: str) -> bool:
    """Up to five digits, a pattern does not count."""
    return all(int(port) < 65_536 for port in re.findall(r":([0-9]+)", value))


def good(name: str, flag: str) -> list[str]:
    values = GOOD_OF.get((name, flag)) or GOOD.get(flag) or GOOD_KIND[kind(name, flag)]
    if flag == "mapping":  # of a job that reads clicks, one that has them
        shop = {text for text in SHIPPED if not JOBS[name].sections & parse_mapping(shipped(text)).sections.keys()}
        return [text for text in values if text not in shop]
    if flag != "output":
        return values
    return [text for text in values if all(sinks.output(url).takes(JOBS[name]) for url in text.split(" "))]


def read(name: str, flag: str, value: str) -> None:
    """As the job reads the flag. Raises: UsageError."""
    if kind(name, flag) in ("format", "mapping"):  # which topics are read, and what a file holds, no pattern can say
        with contextlib.suppress(NamedTwiceError):
            flags.KINDS[kind(name, flag)].read(value)
        return
    required = {each: good(name, each)[0] for each in REQUIRED}
    argv = [f"--{each}={text}" for each, text in (required | {flag: value}).items()]
    _, settings, _ = options.parse(JOBS[name], argv)
    if name == "archive":
        for url in settings.inputs:
            archive.table_of(url.topic)


# What templates are made of


@pytest.mark.parametrize("name", JOBS)
def test_the_metadata_in_the_repository_is_what_the_flags_say_now(name: str) -> None:
    path = ROOT / "docker" / "dataflow" / f"{name}.metadata.json"
    assert json.loads(path.read_text()) == templates.metadata(JOBS[name]), "run: make generate"


@pytest.mark.parametrize("name", JOBS)
def test_every_flag_is_asked_for_or_left_out_for_a_reason(name: str) -> None:
    every = [flag for group in flags.of_job(JOBS[name]).values() for flag in group]
    asked = {parameter["name"] for parameter in templates.parameters(JOBS[name])}
    assert asked == {flag.name for flag in every if not flag.left_out}
    assert {"input", "output", "registry", "allowed_lateness"} <= asked
    assert all(flag.pattern or flags.KINDS[flag.kind].pattern for flag in every if not flag.left_out)


def test_every_job_has_a_page_and_every_page_is_a_job() -> None:
    pages = [path.stem for path in (ROOT / "beam_pipelines").glob("*.py") if "\ndef build(" in path.read_text()]
    assert sorted(pages) == sorted(JOBS)


def test_a_jobs_own_flag_is_in_its_template() -> None:
    more = Flag("sensitivity", "count", "how much is suspicious", default="3")
    fraud = dataclasses.replace(JOBS["fraud"], flags=(*JOBS["fraud"].flags, more))
    (found,) = (p for p in templates.parameters(fraud) if p["name"] == "sensitivity")
    assert (found["defaultValue"], found["paramType"], found["helpText"]) == ("3", "NUMBER", "How much is suspicious.")


@pytest.mark.parametrize(("name", "flag"), ALL)
def test_a_parameter_is_explained_and_has_the_flags_own_default(name: str, flag: str) -> None:
    (parameter,) = (p for p in templates.parameters(JOBS[name]) if p["name"] == flag)
    default = flags.parser(JOBS[name]).get_default(flag)
    if parameter.get("isOptional"):
        assert parameter.get("defaultValue") == default
        assert default is None or accepts(name, flag, default)
    else:
        assert flag in REQUIRED
    assert len(parameter["helpText"]) > 20
    assert "%(" not in parameter["helpText"]
    assert "127.0.0.1" not in parameter["helpText"]


@pytest.mark.parametrize("name", JOBS)
def test_a_launch_with_every_default_is_one_without_them(name: str) -> None:
    job = JOBS[name]
    required = [f"--{flag}={good(name, flag)[0]}" for flag in REQUIRED]
    defaults = [f"--{p['name']}={p['defaultValue']}" for p in templates.parameters(JOBS[name]) if "defaultValue" in p]
    assert len(defaults) >= 4
    assert options.parse(job, required + defaults) == options.parse(job, required)


# Patterns


@pytest.mark.parametrize(("name", "flag"), ALL)
def test_a_pattern_lets_good_values_through(name: str, flag: str) -> None:
    for value in good(name, flag):
        assert accepts(name, flag, value), value
        read(name, flag, value)


@pytest.mark.parametrize(("name", "flag"), ALL)
def test_a_pattern_stops_what_the_job_would_refuse(name: str, flag: str) -> None:
    refused = [text.partition("=")[2] for text, _ in WRONG if text.startswith(f"--{flag}=")]
    for value in [*bad(name, flag), *refused, "", " ", "non{sense"]:
        if ports_are_right(value):
            assert not accepts(name, flag, value), value


@pytest.mark.parametrize(("name", "flag"), {(pattern(*each), each[1]): each for each in ALL}.values())
# Strings are long, and how long drawing them takes is the machine's affair.
@settings(max_examples=settings().max_examples // 3, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_a_pattern_lets_through_the_job_takes(name: str, flag: str, data: st.DataObject) -> None:
    value = data.draw(st.from_regex(pattern(name, flag).replace(sinks.PORT, "[1-9][0-9]{0,3}"), fullmatch=True))
    read(name, flag, value)


def test_a_pattern_that_lets_too_much_through_is_found() -> None:
    too_much = "^([0-9]+(ms|s|m|h|d))$"
    with pytest.raises(UsageError, match="whole number of seconds"):
        read("revenue", "early_every", "0ms")
    assert re.fullmatch(too_much, "0ms")
    assert not accepts("revenue", "early_every", "0ms")


def test_no_pattern_lets_a_password_through() -> None:
    for name, flag in ALL:
        for scheme in ("redis", "rediss", "kafka", "https", "gs"):
            assert not accepts(name, flag, f"{scheme}://user:secret@host.example:6379/0"), (name, flag)


@pytest.mark.parametrize(("name", "flag"), ALL)
def test_patterns_are_posix_extended_regular_expressions(name: str, flag: str) -> None:
    found = pattern(name, flag)
    # What Google's own engine refuses: anything of Perl's, and more than a thousand repeats.
    assert not re.search(r"\\|\(\?|[*+?}][?+]", found)
    assert all(int(most) <= 1_000 for most in re.findall(r"[{,]([0-9]+)\}", found))
    values = [*good(name, flag), *bad(name, flag), "non{sense"]
    matched = subprocess.run(
        ["grep", "-Ex", found],
        input="\n".join(values),
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert matched.stderr == ""
    assert matched.stdout.splitlines() == [value for value in values if accepts(name, flag, value)]


# Files


def parsed(spec: dict[str, Any]) -> Any:
    """As Google's own client reads it; what it does not know is an error."""
    return json_format.ParseDict(spec, types.ContainerSpec.pb(types.ContainerSpec()))


@pytest.mark.parametrize("name", JOBS)
def test_a_spec_is_what_dataflows_api_knows(name: str) -> None:
    spec = templates.spec(JOBS[name], IMAGES, "0.1.0")
    known = types.ContainerSpec.wrap(parsed(spec))
    assert known.image == f"{IMAGES}/streamforge-flex-{name}:0.1.0"
    assert known.default_environment.sdk_container_image == f"{IMAGES}/streamforge-worker:0.1.0"
    assert known.sdk_info.language == types.SDKInfo.Language.PYTHON
    assert known.metadata.streaming
    assert [p.name for p in known.metadata.parameters if not p.is_optional] == ["input", "output", "registry"]
    assert len(known.metadata.parameters) >= 9


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (["metadata", "parameters", 0, "helptext"], "x", "no field named"),
        (["metadata", "parameters", 0, "paramType"], "STRING", "Invalid enum value"),
        (["metadata", "parameters", 0, "regexes"], "^x$", "must be in"),
        (["sdkInfo", "language"], "python3", "Invalid enum value"),
        (["defaultEnvironment", "environmentVariables"], {"JOB": "fraud"}, "no field named"),
        (["defaultEnvironment", "maxWorkers"], "four", "invalid literal for int"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_planted_fault_in_a_spec_is_found(path: list[Any], value: Any, why: str) -> None:
    spec = templates.spec(JOBS["fraud"], IMAGES, "0.1.0")
    parsed(spec)
    inner: Any = spec
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(json_format.ParseError, match=why):
        parsed(spec)


def test_the_images_that_specs_name_are_those_that_are_built() -> None:
    with (ROOT / "docker" / "bake.hcl").open() as file:
        targets = {name.strip('"'): body for target in hcl2.load(file)["target"] for name, body in target.items()}
    flex, worker = str(targets["flex"]), str(targets["worker"])
    assert sorted(re.findall(r"[a-z]+", flex.partition("'job': [")[2].partition("]")[0])) == sorted(JOBS)
    spec = templates.spec(JOBS["fraud"], "${REGISTRY}", "${TAG}")
    assert spec["image"].replace("}/", "}").replace("-fraud:", "-${job}:") in flex
    assert spec["defaultEnvironment"]["sdkContainerImage"].replace("}/", "}") in worker


def test_the_documented_commands_are_ones_that_work(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "dataflow.md").read_text()
    values = {"PROJECT": "shop-1", "REGION": "europe-west1", "BROKER": "10.0.0.2", "PREFIX": IMAGES}
    for name, value in {"REGISTRY:8081": "10.0.0.4:8081", **values}.items():
        text = text.replace(name, value)
    lines = text.replace("\\\n", " ").splitlines()
    (specs,) = (line.split()[3:] for line in lines if "beam_pipelines.templates specs" in line)
    to = [f"--to={tmp_path}" if word.startswith("--to=") else word for word in specs]
    templates.main(to)
    assert len(list(tmp_path.iterdir())) == len(JOBS)

    (job,) = (line.split()[3:] for line in lines if line.startswith("python -m beam_pipelines.fraud "))
    _, settings, rest = options.parse(fraud.JOB, job)
    assert runners.pipeline_options(settings, rest).view_as(StandardOptions).streaming

    shell = dict(line.strip().split("=", 1) for line in lines if re.match(r" *(KAFKA|STORE|OUTPUT)=", line))
    (given,) = re.findall(r'--parameters="\^~\^([^"]*)"', "\n".join(lines))
    for name in ("OUTPUT", "STORE", "KAFKA"):
        given = given.replace(f"${name}", shell[name].strip('"'))
    parameters = dict(each.split("=", 1) for each in given.split("~"))
    assert parameters.keys() == REQUIRED.keys()
    for flag, value in parameters.items():
        assert accepts("fraud", flag, value), (flag, value)
        read("fraud", flag, value)


def test_specs_and_metadata_are_written_for_all_jobs_or_those_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "new" / "folder"
    templates.main(["specs", f"--to={to}", f"--images={IMAGES}", "--tag=0.1.0"])
    assert {path.name for path in to.iterdir()} == {f"{name}.json" for name in JOBS}
    assert json.loads((to / "cdc.json").read_text()) == templates.spec(JOBS["cdc"], IMAGES, "0.1.0")
    assert capsys.readouterr().out.splitlines() == [f"{to}/{name}.json" for name in JOBS]
    templates.main(["metadata", f"--to={tmp_path}", "fraud"])
    assert json.loads((tmp_path / "fraud.metadata.json").read_text()) == templates.metadata(JOBS["fraud"])
    assert not (tmp_path / "cdc.metadata.json").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            ["specs", "--to=x", f"--images={IMAGES}", "--tag=latest"],
            "--tag: 'latest' is not a tag that stays with one image",
        ),
        (["specs", "--to=x", f"--images={IMAGES}", "--tag=a b"], "--tag: 'a b' is not a tag"),
        (["specs", "--to=x", "--images=streamforge", "--tag=1"], "--images: 'streamforge' is not host/project/repo"),
        (["specs", "--to=x", f"--images={IMAGES}/", "--tag=1"], f"--images: '{IMAGES}/' is not host/project/repo"),
        (["metadata", "--to=x", "no-job"], f"no-job: is not one of {', '.join(JOBS)}"),
        (["metadata"], "the following arguments are required: --to"),
        (["build"], "specs|metadata: invalid choice: 'build'"),
    ],
)
def test_a_wrong_command_ends_with_one_line_and_status_2(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        templates.main(words)
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (2, 1)
    assert said.startswith("beam_pipelines.templates: ")
    assert why in said
    assert not list(tmp_path.iterdir())
