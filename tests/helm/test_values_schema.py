"""values.schema.json refuses nonsense: each of its rules is broken once, by helm itself."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.helm.chart import CHART, refusal, render
from tests.helm.test_chart import resolved

pytestmark = pytest.mark.deploy

SCHEMA = json.loads((CHART / "values.schema.json").read_text())


# What people get wrong


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"images": {"tag": "latest"}}, "/images/tag"),
        ({"images": {"registry": "registry.example/streamforge/"}}, "/images/registry"),
        ({"images": {"pullPolicy": "always"}}, "/images/pullPolicy"),
        ({"kafka": {"servers": "kafka.shop"}}, "/kafka/servers"),
        ({"kafka": {"servers": "kafka://kafka.shop:9092"}}, "/kafka/servers"),
        ({"registry": {"url": "registry.shop:8081"}}, "/registry/url"),
        ({"redis": {"url": "rediss://:secret@10.0.0.3:6378/0"}}, "/redis/url"),
        ({"redis": {"url": "10.0.0.3:6378"}}, "/redis/url"),
        ({"redis": {"prefix": "shop:b"}}, "/redis/prefix"),
        ({"redis": {"inCluster": {"image": "valkey/valkey:latest"}}}, "/redis/inCluster/image"),
        ({"redis": {"inCluster": {"maxMemory": "512Mi"}}}, "/redis/inCluster/maxMemory"),
        ({"googleCloud": {"project": "My Project"}}, "/googleCloud/project"),
        ({"bigquery": {"dataset": "my-dataset"}}, "/bigquery/dataset"),
        ({"storage": {"state": "s3://bucket"}}, "/storage/state"),
        ({"storage": {"archive": "gs://bucket/archive/"}}, "/storage/archive"),
        ({"flink": {"periodicSavepointInterval": "6"}}, "/flink/periodicSavepointInterval"),
        ({"flink": {"fullCheckpointInterval": "168h"}}, "/flink/fullCheckpointInterval"),
        ({"flink": {"restart": {"maxBackoff": "1m"}}}, "/flink/restart/maxBackoff"),
        ({"flink": {"extraConfiguration": {"web.timeout": 1000}}}, "/flink/extraConfiguration/web.timeout"),
        ({"jobDefaults": {"upgradeMode": "lastState"}}, "/jobDefaults/upgradeMode"),
        ({"jobDefaults": {"parallelism": 129}}, "/jobDefaults/parallelism"),
        ({"jobDefaults": {"flags": {"stateShards": 0}}}, "/jobDefaults/flags/stateShards"),
        ({"jobDefaults": {"flags": {"allowedLateness": "10 min"}}}, "/jobDefaults/flags/allowedLateness"),
        ({"jobDefaults": {"flags": {"checkpointingInterval": -1}}}, "/jobDefaults/flags/checkpointingInterval"),
        ({"jobDefaults": {"stateBackend": "filesystem"}}, "/jobDefaults/stateBackend"),
        ({"jobDefaults": {"parallelism": 1}}, "/jobDefaults/parallelism"),
        ({"jobs": {"fraud": {"flags": {"allowedlateness": "1m"}}}}, "'allowedlateness' not allowed"),
        ({"jobs": {"fraud": {"paralellism": 4}}}, "'paralellism' not allowed"),
        ({"jobs": {"frauds": {"enabled": True}}}, "'frauds' not allowed"),
        ({"jobs": {"fraud": {"inputs": []}}}, "/jobs/fraud/inputs"),
        ({"jobs": {"fraud": {"inputs": ["a", "a"]}}}, "/jobs/fraud/inputs"),
        ({"jobs": {"fraud": {"outputs": {"archive": True}}}}, "'archive' not allowed"),
        ({"jobs": {"revenue": {"flags": {"earlyEvery": "500ms"}}}}, "/jobs/revenue/flags/earlyEvery"),
        ({"jobs": {"fraud": {"taskManager": {"memory": "4Gi"}}}}, "/jobs/fraud/taskManager/memory"),
        ({"jobs": {"fraud": {"worker": {"resources": {"limits": {"memory": "4g"}}}}}}, "/limits/memory"),
        ({"api": {"rateLimit": "1000"}}, "/api/rateLimit"),
        ({"api": {"corsOrigins": ["*"]}}, "/api/corsOrigins/0"),
        ({"api": {"accessLog": False}}, "/api/accessLog"),
        ({"api": {"replicas": "3"}}, "/api/replicas"),
        ({"slots": {"database": "postgresql://reader:secret@db/shop"}}, "/slots/database"),
        ({"networkPolicy": {"clients": {"cidrs": ["10.0.0.0"]}}}, "/networkPolicy/clients/cidrs/0"),
        ({"networkPolicy": {"prometheus": {"namespaces": []}}}, "/networkPolicy/prometheus"),
        ({"monitoring": {"interval": "15"}}, "/monitoring/interval"),
        ({"serviceAccounts": {"jobs": "Streamforge_Jobs"}}, "/serviceAccounts/jobs"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(values: dict[str, Any], why: str) -> None:
    error = refusal(values=values)
    assert "values don't meet the specifications of the schema" in error
    assert why in error


@pytest.mark.parametrize(
    "values",
    [
        {"images": {"registry": "registry.example:5000/a/b", "tag": "2026-11-22_abc.1"}},
        {"kafka": {"servers": "b1.shop:9092,b2.shop:9093"}},
        {"redis": {"url": "redis://redis.shop:6379/3"}},
        {"networkPolicy": {"kafka": {"cidrs": ["10.1.0.0/16"], "namespaces": []}}},
        {"api": {"corsOrigins": ["https://shop.example", "http://localhost:3000"], "rateLimit": ""}},
        {"jobDefaults": {"worker": {"resources": {"requests": {"cpu": "1.5"}, "limits": {"cpu": "2500m"}}}}},
        {"jobs": {"fraud": {"outputs": {"redis": False, "topic": "", "bigquery": True}}}},
        {"redis": {"inCluster": {"image": f"valkey/valkey@sha256:{'0' * 64}"}}},
        {"global": {"whatever": 1}},
    ],
)
def test_what_is_right_is_taken(values: dict[str, Any]) -> None:
    assert list(render("prod", values))


# Every rule


class Broken(NamedTuple):
    path: tuple[str, ...]
    rule: str
    value: Any


def broken(rules: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[Broken]:
    """For every rule of the schema a value that breaks it."""
    rules = rules if "allOf" in rules else resolved(rules, SCHEMA)
    for part in rules.get("allOf", []):
        yield from broken(part, path)
    kind = rules.get("type")
    wrong_type = {
        "object": "a text",
        "array": "a text",
        "string": 1.5,
        "integer": 1.5,
        "number": "1",
        "boolean": "true",
    }
    if kind and path:
        yield Broken(path, "type", wrong_type[kind])
    if "enum" in rules:
        yield Broken(path, "enum", "nonsense")
    if "pattern" in rules:
        yield Broken(path, "pattern", " no good ")
    if "not" in rules:
        yield Broken(path, "not", rules["not"].get("enum", ["valkey/valkey:latest"])[0])
    if "maxLength" in rules:
        yield Broken(path, "maxLength", "a" * (rules["maxLength"] + 1))
    for rule, step in (("minimum", -1), ("maximum", 1), ("exclusiveMinimum", 0)):
        if rule in rules:
            yield Broken(path, rule, rules[rule] + step)
    if "items" in rules:
        yield from broken(rules["items"], (*path, "[]"))
    if rules.get("additionalProperties") is False:
        yield Broken((*path, "surprise"), "additionalProperties", 1)
    if isinstance(rules.get("additionalProperties"), dict):
        yield from broken(rules["additionalProperties"], (*path, "anything"))
    if "propertyNames" in rules:
        yield Broken((*path, "1 no name"), "propertyNames", "x")
    for name in rules.get("required", []):
        yield Broken((*path, name), "required", None)
    for name, inner in rules.get("properties", {}).items():
        if name != "global":
            yield from broken(inner, (*path, name))


def as_values(path: tuple[str, ...], value: Any) -> Any:
    if not path:
        return value
    inner = as_values(path[1:], value)
    return [inner] if path[0] == "[]" else {path[0]: inner}


RULES = list(broken(SCHEMA))
# Rules that the walk does not break by themselves; the table above and the templates' tests do.
ELSEWHERE = {"anyOf", "if", "then", "minItems", "uniqueItems", "const", "minLength"}
KNOWN = {"type", "enum", "pattern", "not", "maxLength", "minimum", "maximum", "exclusiveMinimum", "items", "allOf"}
KNOWN |= {"additionalProperties", "propertyNames", "required", "properties"}


def test_the_walk_knows_every_sort_of_rule_there_is() -> None:
    def words(rules: Any, names: bool = False) -> Iterator[str]:
        if isinstance(rules, dict):
            for word, inner in rules.items():
                if not names:
                    yield word
                yield from words(inner, names=not names and word in ("properties", "$defs"))
        elif isinstance(rules, list):
            for inner in rules:
                yield from words(inner)

    assert set(words(SCHEMA)) - {"$schema", "$ref", "$defs", "title", "description"} == KNOWN | ELSEWHERE


def test_nothing_unknown_is_taken_anywhere() -> None:
    def objects(rules: Any) -> Iterator[dict[str, Any]]:
        if isinstance(rules, dict):
            if rules.get("type") == "object":
                yield rules
            for inner in rules.values():
                yield from objects(inner)

    found = [o for o in objects(SCHEMA) if "description" not in o or "Helm puts it there" not in o["description"]]
    assert len(found) > 40
    for rules in found:
        assert "additionalProperties" in rules, rules


def test_every_rule_is_enforced_by_helm() -> None:
    """All of them broken at once, and each one named: a process per rule would take minutes.

    Two rules on one value are told one at a time, so there are rounds.
    """
    assert len(RULES) > 400
    rounds: list[list[Broken]] = []
    for rule in RULES:
        for taken in rounds:
            if not any(_clash(rule.path, other.path) for other in taken):
                taken.append(rule)
                break
        else:
            rounds.append([rule])
    assert len(rounds) < 60
    for taken in rounds:
        values: dict[str, Any] = {}
        for rule in taken:
            merge(values, as_values(rule.path, rule.value))
        error = refusal(values=copy.deepcopy(values))
        for rule in taken:
            assert told(rule, error), f"{rule} is taken, or not told in:\n{error}"


def _clash(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether the one could hide the other: it is the other, or is around it, or both are in one list."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and key in into:
            merge(into[key], value)
        else:
            into[key] = value


def told(rule: Broken, error: str) -> bool:
    if rule.rule in ("additionalProperties", "required"):
        where, name = "".join(f"/{part}" for part in rule.path[:-1]), rule.path[-1]
        line = next((li for li in error.splitlines() if f"at '{where}'" in li and f"'{name}'" in li), "")
        if rule.rule == "additionalProperties":
            return "not allowed" in line
        # What has no default in values.yaml stays as null.
        return "missing propert" in line or f"at '{where}/{name}': got null" in error
    where = "/".join("0" if part == "[]" else part for part in rule.path).replace("/1 no name", "")
    return f"at '/{where}'" in error
