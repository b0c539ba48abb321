"""The gates' results for people (a page), for Prometheus (a textfile) and for programs (JSON)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from dags.spark.accounts import TopicDay
from dags.spark.comparison import DIFFERENT, KINDS, NO_PART, Comparison
from dags.spark.day import Day
from dags.spark.judged import GAPS, Judged
from dags.spark.quality import Finding
from schemas.currencies import decimal

__all__ = [
    "quality_json",
    "quality_metrics",
    "quality_page",
    "reconciliation_json",
    "reconciliation_metrics",
    "reconciliation_page",
]

_WORDS = {
    "match": "match",
    "differ": "differ",
    "missing": "missing in the stream",
    "extra": "extra in the stream",
    "late": "too late for the stream",
    "open": "in progress",
}
_STYLE = """
:root{color-scheme:light dark;--match:#2e8b57;--differ:#d98e04;--missing:#c0392b;--extra:#7d4cc2}
:root{--late:#4a7fb5;--open:#8d99ae;--line:#8885}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0;width:100%}
th,td{text-align:left;padding:.25rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
.n{text-align:right;font-variant-numeric:tabular-nums}td.n{white-space:nowrap}
.no{color:var(--missing);font-weight:600}.yes{color:var(--match);font-weight:600}
code{font-size:13px;overflow-wrap:anywhere}svg{max-width:100%;height:auto}svg text{fill:currentColor;font-size:13px}
.match{fill:var(--match)}.differ{fill:var(--differ)}.missing{fill:var(--missing)}.extra{fill:var(--extra)}.late{fill:var(--late)}
.open{fill:var(--open)}
"""


def reconciliation_page(day: Day, found: Sequence[Comparison], judged: Judged) -> str:
    passed = all(comparison.passed for comparison in found)
    verdict = "Stream and batch agree." if passed else "Stream and batch disagree: the day will not be published."
    if empty := [c.table for c in found if c.nothing_compared and not c.passed]:
        verdict = f"There was nothing to compare in {', '.join(empty)}: the day will not be published."
    parts = [f'<p class="{_class(passed)}">{verdict}</p>', _chart(found), "<h2>Rows and amounts</h2>", _account(found)]
    parts.append(_judged(judged))
    for comparison in found:
        if comparison.samples:
            parts += [f"<h2>{escape(comparison.table)}: examples of rows that do not match</h2>", _samples(comparison)]
    return _page(f"Reconciliation of {day}", parts)


def _chart(found: Sequence[Comparison]) -> str:
    """A bar for each table, its rows by kind; every kind that occurs is visible, however small."""
    width, left, height = 620, 170, 34
    lines = []
    for i, comparison in enumerate(found):
        y = i * height + 8
        counts = {kind: comparison.rows(kind) for kind in KINDS}
        total = sum(counts.values())
        lines.append(f'<text x="0" y="{y + 15}">{escape(comparison.table)}</text>')
        x = float(left)
        shares = {kind: max(n / total, 0.01) for kind, n in counts.items() if n}
        for kind, share in shares.items():
            wide = share / sum(shares.values()) * width
            lines.append(
                f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{wide:.1f}" height="20">'
                f"<title>{counts[kind]:,} {_WORDS[kind]}</title></rect>"
            )
            x += wide
        lines.append(f'<text x="{left + width + 10}" y="{y + 15}">{total:,} rows</text>')
    y = len(found) * height + 12
    for i, kind in enumerate(KINDS):
        x = left + (0, 70, 130, 285, 430, 540)[i]
        lines.append(f'<rect class="{kind}" x="{x}" y="{y}" width="12" height="12"/>')
        lines.append(f'<text x="{x + 18}" y="{y + 11}">{_WORDS[kind]}</text>')
    size = f"{left + width + 120} {y + 24}"
    return f'<svg viewBox="0 0 {size}" role="img" aria-label="Rows of each table by kind">{"".join(lines)}</svg>'


def _account(found: Sequence[Comparison]) -> str:
    head = "".join(f'<th class="n">{_WORDS[kind]}</th>' for kind in KINDS)
    rows = [
        f'<tr><th>table</th><th>breakdown</th>{head}<th>currency</th><th class="n">batch</th><th class="n">stream</th>'
        '<th class="n">difference</th><th></th></tr>'
    ]
    for comparison in found:
        for part in comparison.parts or [NO_PART]:
            counts = "".join(f'<td class="n">{part.rows[kind]:,}</td>' for kind in KINDS)
            apart = sum(part.amounts[kind] for kind in DIFFERENT)
            amounts = "".join(
                f'<td class="n">{_money(n, part.currency)}</td>' for n in (part.batch_amount, part.stream_amount, apart)
            )
            verdict = f'<td class="{_class(comparison.passed)}">{"passed" if comparison.passed else "failed"}</td>'
            rows.append(
                f"<tr><td>{escape(comparison.table)}</td><td>{escape(part.name)}</td>{counts}"
                f"<td>{escape(part.currency)}</td>{amounts}{verdict}</tr>"
            )
    tolerance = found[0].tolerance if found else None
    allowed = (
        f"Tolerance per table: {tolerance.rows:,} rows, a difference of {tolerance.amount_minor:,} minor units in each "
        "currency."
        if tolerance
        else ""
    )
    landed = max((comparison.landed for comparison in found), default=0)
    late = (
        f" {landed:,} records arrived too late for the stream, most of them by replay, but are in the batch. They "
        "affect the rows <i>too late for the stream</i>, which match the batch without them and so do not count as "
        "differences."
        if landed
        else ""
    )
    return f"<table>{''.join(rows)}</table><p>Amounts in main units of their currency. {allowed}{late}</p>"


def _samples(comparison: Comparison) -> str:
    rows = "".join(
        f"<tr><td>{_WORDS[s['kind']]}</td>"
        + "".join(f"<td><code>{escape(_json(s[k]))}</code></td>" for k in ("key", "batch", "stream"))
        + "</tr>"
        for s in comparison.samples
    )
    return f"<table><tr><th></th><th>key</th><th>batch</th><th>stream</th></tr>{rows}</table>"


def quality_page(day: Day, found: Sequence[Finding], topics: Sequence[TopicDay], judged: Judged) -> str:
    failed = [finding for finding in found if not finding.passed]
    verdict = (
        f"{len(failed)} of {len(found)} rules failed: the day will not be published." if failed else "All rules passed."
    )
    rows = ["<tr><th>table</th><th>rule</th><th></th><th class='n'>violations</th><th></th></tr>"]
    for finding in sorted(found, key=lambda finding: finding.passed):
        word = f"accepted: {finding.accepted}" if finding.accepted else "passed" if finding.passed else "failed"
        samples = "".join(f"<br><code>{escape(sample)}</code>" for sample in finding.samples)
        rows.append(
            f"<tr><td>{escape(finding.table)}</td><td>{escape(finding.rule)}</td>"
            f'<td class="{_class(finding.passed)}">{word}</td><td class="n">{finding.failed:,}</td>'
            f"<td>{escape(finding.detail)}{samples}</td></tr>"
        )
    parts = [f'<p class="{_class(not failed)}">{verdict}</p>', f"<table>{''.join(rows)}</table>"]
    return _page(f"Quality of {day}", [*parts, "<h2>Records per topic</h2>", _topics(topics), _judged(judged)])


def _topics(topics: Sequence[TopicDay]) -> str:
    """Every offset of the day, by outcome."""
    if not topics:
        return "<p>The archive has no accounts for its topics.</p>"
    numbers = [_numbers(topic) for topic in topics]
    head = "".join(f'<th class="n">{escape(name.replace("_", " "))}</th>' for name in numbers[0])
    rows = []
    for topic, of in zip(topics, numbers, strict=True):
        cells = "".join(f'<td class="n">{n:,}</td>' for n in of.values())
        rows.append(f"<tr><td>{escape(topic.topic)}</td>{cells}</tr>")
    return f"<table><tr><th>topic</th>{head}</tr>{''.join(rows)}</table>"


def _numbers(topic: TopicDay) -> dict[str, int]:
    beside = {"lost": topic.lost, "missing": topic.missing, "unread": topic.unread}
    return {**topic.counts, **beside, "archived": topic.archived, "in_files": topic.in_files}


def _judged(judged: Judged) -> str:
    rows = "".join(
        f"<tr><td>{escape(key.replace('_', ' '))}</td><td><code>{escape(_json(value))}</code></td></tr>"
        for key, value in judged.as_dict().items()
    )
    accepted = "".join(f"<li>{escape(name)}: {escape(GAPS[name])}</li>" for name in sorted(judged.accepted))
    return f"<h2>Judged by</h2><table>{rows}</table>{f'<p>Accepted:</p><ul>{accepted}</ul>' if accepted else ''}"


def _page(title: str, parts: Sequence[str]) -> str:
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{''.join(parts)}</body></html>\n"
    )


def reconciliation_json(day: Day, found: Sequence[Comparison], judged: Judged) -> str:
    tables = [
        {
            "table": c.table,
            "passed": c.passed,
            "nothing_compared": c.nothing_compared,
            "snapshot_id": c.snapshot,
            "landed": c.landed,
            "tolerance": {"rows": c.tolerance.rows, "amount_minor": c.tolerance.amount_minor},
            "rows": {kind: c.rows(kind) for kind in KINDS},
            "amounts_minor": {kind: c.amounts(kind) for kind in KINDS},
            "samples": c.samples,
        }
        for c in found
    ]
    passed = all(c.passed for c in found)
    return _json({"day": str(day), "passed": passed, "judged_by": judged.as_dict(), "tables": tables})


def quality_json(day: Day, found: Sequence[Finding], topics: Sequence[TopicDay], judged: Judged) -> str:
    rules = [
        {
            "table": f.table,
            "rule": f.rule,
            "passed": f.passed,
            "accepted": f.accepted,
            "failed_rows": f.failed,
            "detail": f.detail,
            "samples": [json.loads(sample) for sample in f.samples],
        }
        for f in found
    ]
    told = [{"table": t.table, "topic": t.topic, **_numbers(t), "ends_asked_at": t.ends_asked_ms} for t in topics]
    passed = all(f.passed for f in found)
    return _json({"day": str(day), "passed": passed, "judged_by": judged.as_dict(), "topics": told, "rules": rules})


def reconciliation_metrics(day: Day, found: Sequence[Comparison]) -> str:
    """For the node exporter's textfile collector: the day that was looked at last."""
    each = [(c, kind) for c in found for kind in KINDS]
    return "".join(
        [
            *_metric("reconciliation_rows", "Rows of the day, by the result of comparing stream and batch.",
                     [({"table": c.table, "kind": kind}, c.rows(kind)) for c, kind in each]),
            *_metric("reconciliation_amount_minor", "Amount of those rows; for rows that differ, the difference.",
                     [({"table": c.table, "kind": kind, "currency": currency}, n)
                      for c, kind in each for currency, n in c.amounts(kind).items()]),
            *_metric("reconciliation_passed", "Whether the table may be published.",
                     [({"table": c.table}, int(c.passed)) for c in found]),
            *_metric("reconciliation_day_seconds", "When the day began.", [({}, day.start_ms // 1000)]),
        ]
    )  # fmt: skip


def quality_metrics(day: Day, found: Sequence[Finding], topics: Sequence[TopicDay]) -> str:
    """The same."""
    return "".join(
        [
            *_metric("quality_failed_rows", "Rows that break a rule.",
                     [({"table": f.table, "rule": f.rule}, f.failed) for f in found]),
            *_metric("topic_records", "Offsets of a topic on the day, by outcome.",
                     [({"topic": t.topic, "outcome": name}, n) for t in topics for name, n in _numbers(t).items()]),
            *_metric("quality_day_seconds", "When the day began.", [({}, day.start_ms // 1000)]),
        ]
    )  # fmt: skip


def _metric(name: str, about: str, values: Sequence[tuple[dict[str, str], int]]) -> Iterator[str]:
    yield f"# HELP streamforge_{name} {about}\n# TYPE streamforge_{name} gauge\n"
    for labels, value in values:
        inside = ",".join(f"{key}={json.dumps(text, ensure_ascii=False)}" for key, text in labels.items())
        yield f"streamforge_{name}{f'{{{inside}}}' if inside else ''} {value}\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _money(minor: int, currency: str) -> str:
    main, point, rest = decimal(minor, currency).partition(".")
    return f"{int(main):,}{point}{rest}"


def _class(passed: bool) -> str:
    return "yes" if passed else "no"
