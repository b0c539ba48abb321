"""What is watched: the rules' and dashboards' files, what their PromQL asks for, and what is wrong with them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import yaml

__all__ = ["OF_PROMETHEUS", "ROOT", "Asked", "Tree", "asked_for", "faults", "filled_in", "unknown"]

ROOT = Path(__file__).parents[2]
OF_PROMETHEUS = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate", "severity"}}
"""What it tells by itself."""

_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*")|(?P<range>\[[^\]]*\])|(?P<name>[a-zA-Z_:$][\w:$]*)|(?P<number>[\d.]+\w*)|(?P<sign>\S)""",
)
_GROUPS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = {"and", "or", "unless", "offset", "bool", "inf", "nan"}
_FIRING = re.compile(r"^ALERTS\{(.*)\}$")
_LABEL = re.compile(r'(\w+)="')


class Asked(NamedTuple):
    """A metric that an expression reads, and the labels that must be there."""

    metric: str
    labels: frozenset[str]


class Tree(NamedTuple):
    """Where everything is; a test plants faults in a copy."""

    root: Path = ROOT

    @property
    def rules(self) -> Path:
        return self.root / "helm/streamforge/files/rules"

    @property
    def dashboards(self) -> Path:
        return self.root / "helm/streamforge/files/dashboards"

    @property
    def pages(self) -> Path:
        return self.root / "docs/alerts"

    @property
    def unit_tests(self) -> Path:
        return self.root / "tests/monitoring/rules"

    def all_rules(self) -> list[dict[str, Any]]:
        files = sorted(self.rules.glob("*.yaml"))
        return [rule for f in files for group in yaml.safe_load(f.read_text())["groups"] for rule in group["rules"]]

    def alerts(self) -> list[dict[str, Any]]:
        return [rule for rule in self.all_rules() if "alert" in rule]

    def recorded(self) -> set[str]:
        return {rule["record"] for rule in self.all_rules() if "record" in rule}

    def boards(self) -> dict[str, dict[str, Any]]:
        """By uid."""
        boards = [json.loads(path.read_text()) for path in sorted(self.dashboards.glob("*.json"))]
        return {board["uid"]: board for board in boards}

    def metrics_of(self, alert: str) -> set[str]:
        """What an alert looks at, behind the names that rules record."""
        recorded = {rule["record"]: rule["expr"] for rule in self.all_rules() if "record" in rule}
        [expression] = [rule["expr"] for rule in self.alerts() if rule["alert"] == alert]
        found, left = set(), {asked.metric for asked in asked_for(expression)}
        while left:
            name = left.pop()
            if name in recorded:
                left |= {asked.metric for asked in asked_for(recorded[name])}
            else:
                found.add(name)
        return found

    def panels(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """With the uid of their dashboard; rows are none."""
        for uid, board in self.boards().items():
            for panel in board["panels"]:
                yield from ((uid, each) for each in [panel, *panel.get("panels", [])] if each["type"] != "row")

    def expressions(self) -> dict[str, str]:
        """By where they are."""
        rules = {f"rule {r.get('alert') or r['record']} {n}": r["expr"] for n, r in enumerate(self.all_rules())}
        panels = {
            f"{uid}, panel {panel['title']} {target['refId']}": filled_in(target["expr"])
            for uid, panel in self.panels()
            for target in panel.get("targets", [])
        }
        variables = {
            f"{uid}, variable {variable['name']}": variable["query"]["query"]
            for uid, board in self.boards().items()
            for variable in board["templating"]["list"]
            if variable["type"] == "query"
        }
        return rules | panels | {where: _of_variable(query) for where, query in variables.items()}


def filled_in(expression: str) -> str:
    """A panel's expression as Grafana sends it."""
    return expression.replace("$__rate_interval", "5m").replace("$__range", "1h").replace("$pipeline", ".*")


def _of_variable(query: str) -> str:
    found = re.fullmatch(r"label_values\((.*), \w+\)", query)
    assert found, query
    return found[1]


def asked_for(expression: str) -> set[Asked]:
    """The metrics of an expression, with the labels that its matchers name and that label_replace reads."""
    tokens = [(found.lastgroup, found.group()) for found in _TOKEN.finditer(expression)]
    texts = [text for _, text in tokens]
    read = {
        texts[n + 2].strip('"') for n in range(len(tokens) - 2) if texts[n].startswith('"$1"') and texts[n + 1] == ","
    }
    found, n = set(), 0
    while n < len(tokens):
        kind, text = tokens[n]
        after = texts[n + 1] if n + 1 < len(tokens) else ""
        n += 1
        if kind != "name" or text.lower() in _WORDS:
            continue
        if text in _GROUPS:
            if after == "(":
                n = texts.index(")", n) + 1
            continue
        if after == "(" or after in _GROUPS:  # a function, or sum by (…)
            continue
        labels = set(read)
        if after == "{":
            end = texts.index("}", n)
            inside = tokens[n:end]
            labels |= {text for (kind, text), (_, sign) in pairwise(inside) if kind == "name" and sign in "=!"}
            n = end + 1
        found.add(Asked(text, frozenset(labels - {"exported_job"})))  # that one is Prometheus's own name for `job`
    return found


def unknown(expressions: Mapping[str, str], recorded: Set[str], emitted: Mapping[str, Set[str]]) -> list[str]:
    """What expressions ask for and nobody tells.

    Args:
      emitted: metrics with their labels, as scraped.
    """
    wrong = []
    for where, expression in expressions.items():
        for metric, labels in sorted(asked_for(expression)):
            if metric in recorded:
                continue
            if metric not in emitted:
                wrong.append(f"{where}: nobody tells {metric}")
            elif missing := labels - emitted[metric] - {"pipeline"}:
                wrong.append(f"{where}: {metric} has no label {', '.join(sorted(missing))}")
    return wrong


def faults(tree: Tree) -> list[str]:
    """What is wrong with the rules, as far as one sees without Prometheus; one line each."""
    wrong: list[str] = []
    names = [rule["alert"] for rule in tree.alerts()]
    wrong += [f"{name}: twice" for name in sorted({name for name in names if names.count(name) > 1})]
    panels = {(uid, panel["id"]) for uid, panel in tree.panels()}
    for rule in tree.alerts():
        wrong += [f"{rule['alert']}: {what}" for what in _faults_of(rule, tree, panels)]
    wrong += _without(names, tree.pages, "*.md", "a page")
    wrong += _without(names, tree.unit_tests, "*.yaml", "a unit test")
    return wrong


def _faults_of(rule: dict[str, Any], tree: Tree, panels: Set[tuple[str, int]]) -> Iterator[str]:
    name, annotations = rule["alert"], rule["annotations"]
    if rule["labels"].get("severity") not in ("page", "ticket"):
        yield "its severity is neither page nor ticket"
    if not annotations.keys() >= {"summary", "description"}:
        yield "it says too little"
    if annotations.get("runbook_url") != f"docs/alerts/{name}.md" or not (tree.pages / f"{name}.md").exists():
        yield "it has no page"
    link = urlsplit(annotations.get("dashboard_url", ""))
    panel = parse_qs(link.query).get("viewPanel", ["0"])[0]
    if (link.path.removeprefix("/d/"), int(panel)) not in panels:
        yield f"no panel {annotations.get('dashboard_url')}"
    test = tree.unit_tests / f"{name}.yaml"
    if not test.exists():
        yield "it has no unit test"
        return
    expected = [
        check["exp_samples"]
        for case in yaml.safe_load(test.read_text())["tests"]
        for check in case["promql_expr_test"]
        if f'alertname="{name}"' in check["expr"]
    ]
    if not any(expected) or all(expected):
        yield "its unit test does not say both when it fires and when not"
    samples = [_FIRING.match(sample["labels"]) for samples in expected for sample in samples]
    known = set.intersection(*[set(_LABEL.findall(found[1])) for found in samples if found]) if samples else set()
    used = set(re.findall(r"\$labels\.(\w+)", json.dumps(annotations)))
    if used - known:
        yield f"it never has the label {', '.join(sorted(used - known))}"


def _without(names: Iterable[str], folder: Path, pattern: str, what: str) -> list[str]:
    known = {*names, "README"}
    return [f"{path.stem}: {what} of no alert" for path in sorted(folder.glob(pattern)) if path.stem not in known]
