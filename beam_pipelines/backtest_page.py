"""A backtest's report as a page: one file that loads nothing, runs nothing, and shows bars as wide as the screen."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from html import escape

from beam_pipelines.backtest_text import amounts, days_of, grouped, percent
from schemas.features import rfc3339
from transforms.domain.backtest import Sample
from transforms.domain.backtest_report import Day, Figures, Hits, Report

__all__ = ["page_of"]

_STYLE = """
:root{color-scheme:light dark;--line:#8885}
:root{--all:#3f78b3;--fraud:#c0392b;--not:#8d99ae;--added:#2e8b57;--removed:#d98e04}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0;line-height:1.2}h2{margin:2rem 0 .5rem}p{margin:.3rem 0}p,h1{overflow-wrap:anywhere}
.tiles{display:flex;flex-wrap:wrap;gap:1rem;margin:1rem 0}
.tiles div{flex:1 1 9rem;border-top:2px solid var(--line);padding-top:.3rem}
.tiles b{display:block;font-size:1.2rem;white-space:nowrap}
.wide{overflow-x:auto}table{border-collapse:collapse;margin:.5rem 0}
th,td{text-align:left;padding:.25rem .8rem .25rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td,th{white-space:nowrap}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
td.t{white-space:normal;min-width:18rem;overflow-wrap:anywhere}.quiet{opacity:.75}
svg{display:block;width:100%;overflow:visible}svg text{fill:currentColor;font-size:13px}
.all{fill:var(--all)}.fraud{fill:var(--fraud)}.not{fill:var(--not)}.kept{fill:var(--all)}
.added{fill:var(--added)}.removed{fill:var(--removed)}.axis{stroke:var(--line)}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem}.legend span{white-space:nowrap}
.legend svg{display:inline-block;width:12px;height:12px;margin-right:.4rem}
.h1{background:#3f78b326}.h2{background:#3f78b34d}.h3{background:#3f78b380}.h4{background:#3f78b3b3}
"""
_WORDS = {
    "all": "orders alerted on",
    "fraud": "fraud, as labelled",
    "not": "not labelled",
    "kept": "alerted on by both",
    "added": "added: by the new rules alone",
    "removed": "removed: by the old rules alone",
}
_SAMPLES = {
    "flagged": "Orders alerted on",
    "added": "Orders that only the new rules alert on",
    "removed": "Orders that only the old rules alert on",
    "missed": "Frauds without an alert",
}
_BAR, _ROW = 18, 46  # px
_DAY_PX = 160
_SHOWN = 100  # days in the table

Parts = Sequence[tuple[str, int]]
"""A bar's colours and numbers."""


def page_of(report: Report) -> str:
    """Everything that came from orders or files is escaped: it is somebody else's text."""
    title = f"Backtest of {report.rules.name}"
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{digest}'\">"
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{''.join(_body(report))}</body></html>\n"
    )


def _body(report: Report) -> Iterator[str]:
    against = f", against {escape(report.against.name)}" if report.against else ""
    yield f"<p>{escape(report.archive)}, {days_of(report)}{against}</p>"
    yield from _tiles(report)
    yield from _read(report)
    yield "<h2>Rules</h2>"
    yield _bars([(rule.name, _judged(rule.orders, rule.hits)) for rule in report.rules.rules], "Orders per rule")
    yield _legend(("fraud", "not") if report.labels else ("all",))
    yield from _figures(report.rules)
    if report.changes is not None:
        yield from _changes(report)
    yield "<h2>Days</h2>"
    yield from _days(report)
    for kind, samples in report.samples.items():
        if samples:
            yield f"<h2>{_SAMPLES.get(kind, kind)}, for example</h2>{_samples(samples)}"
    if report.against:
        yield f"<h2>The rules compared with: {escape(report.against.name)}</h2>"
        yield from _figures(report.against)


def _tiles(report: Report) -> Iterator[str]:
    of = report.rules
    tiles = [
        (f"{of.orders:,}", f"of {report.shop_orders:,} orders alerted on"),
        (f"{of.users:,}", f"of {report.shop_users:,} users alerted on"),
        *((grouped(n, code), f"{code} in those orders") for code, n in of.amounts_minor.items()),
    ]
    if of.hits and report.labels:
        tiles += [
            (percent(of.hits.precision), "precision: of the orders alerted on, fraud"),
            (percent(of.hits.recall), f"recall: of {report.labels.known:,} frauds, alerted on"),
            (_rate(of.hits), "false alarms per 1,000 orders"),
            *((grouped(n, code), _of_all(report, code)) for code, n in of.hits.caught_minor.items()),
        ]
    yield f'<div class="tiles">{"".join(f"<div><b>{escape(n)}</b>{escape(word)}</div>" for n, word in tiles)}</div>'


def _of_all(report: Report, code: str) -> str:
    known = report.labels.amounts_minor.get(code, 0) if report.labels else 0
    return f"{code} caught, of {grouped(known, code)} labelled as fraud"


def _read(report: Report) -> Iterator[str]:
    read = report.read
    yield (
        f'<p class="quiet">Read {read.records:,} records of {read.files:,} files: {read.counted:,} counted, '
        f"{read.repeats:,} repeats, {read.outside:,} of other days, {read.bad:,} bad. Amounts are in main units, each "
        "currency by itself.</p>"
    )
    if report.labels:
        labels = report.labels
        yield (
            f'<p class="quiet">{labels.given:,} orders are labelled as fraud; {labels.known:,} of them are among '
            "these.</p>"
        )
    if read.reasons:
        rows = [[f"{bad.count:,}", bad.error_class, bad.example] for bad in read.reasons]
        yield f"<h2>Bad records</h2>{_table(['records', 'error', 'for example'], rows, {0}, {2})}"
    if read.unreadable:
        files = _table(["file", "why"], read.unreadable.items(), texts={0, 1})
        yield f"<h2>Files that cannot be read</h2>{files}"


def _figures(figures: Figures) -> Iterator[str]:
    head = ["rule", "alerts", "orders", "users", "only this rule"]
    head += ["fraud", "precision", "recall", "false alarms / 1,000"] if figures.hits else []
    rows = []
    for rule in figures.rules:
        row = [rule.name, *(f"{n:,}" for n in (rule.alerts, rule.orders, rule.users, rule.alone))]
        if hits := rule.hits:
            row += [f"{hits.frauds:,}", percent(hits.precision), percent(hits.recall), _rate(hits)]
        rows.append([*row, amounts(rule.amounts_minor)])
    yield _table([*head, "amount"], rows, numbers=set(range(1, len(head))))
    if figures.overlaps:
        yield f"<h3>Orders that two rules alert on</h3>{_matrix(figures)}"


def _matrix(figures: Figures) -> str:
    """Each rule with each; the deeper a cell, the larger its share of the row's orders."""
    both = {frozenset(overlap.rules): overlap.orders for overlap in figures.overlaps}
    rules = [rule for rule in figures.rules if any(rule.name in overlap.rules for overlap in figures.overlaps)]
    head = "".join(f'<th class="n" scope="col">{escape(rule.name)}</th>' for rule in rules)
    rows = []
    for rule in rules:
        cells = []
        for other in rules:
            n = rule.orders if other is rule else both.get(frozenset((rule.name, other.name)), 0)
            depth = 0 if other is rule or not n else 1 + min(3, 4 * n // max(rule.orders, 1))
            cells.append(f'<td class="n{f" h{depth}" if depth else ""}">{n:,}</td>')
        rows.append(f'<tr><th scope="row">{escape(rule.name)}</th>{"".join(cells)}</tr>')
    return _wide(f"<table><tr><td></td>{head}</tr>{''.join(rows)}</table>", "Overlap of rules")


def _changes(report: Report) -> Iterator[str]:
    alerts = report.alert_changes or {}
    yield f"<h2>Changes</h2><p>Alerts {', '.join(f'{change} {n:,}' for change, n in alerts.items())}.</p>"
    names = dict.fromkeys(rule.name for of in (report.rules, report.against) if of for rule in of.rules)
    changes = {rule.name: rule.changes for of in (report.against, report.rules) if of for rule in of.rules}
    kinds = ("kept", "added", "removed")
    yield _bars([(name, [(kind, changes[name].get(kind, 0)) for kind in kinds]) for name in names], "Alerts by change")
    yield _legend(kinds)
    head = ["orders", "", *(["fraud", "not labelled"] if report.labels else []), "amount"]
    rows = []
    for change in report.changes or ():
        hits = [f"{change.hits.frauds:,}", f"{change.hits.false_alarms:,}"] if change.hits else []
        rows.append([change.change, f"{change.orders:,}", *hits, amounts(change.amounts_minor)])
    yield _table(head, rows, numbers=set(range(1, len(head) - 1)))


def _days(report: Report) -> Iterator[str]:
    compared, labelled = report.changes is not None, report.labels is not None
    kinds = ("kept", "added", "removed") if compared else ("fraud", "not") if labelled else ("all",)
    yield _columns(report.days, kinds)
    yield _legend(kinds)
    head = ["day", "orders", "alerted on", *(["fraud"] if labelled else [])]
    head += [*(["added", "removed"] if compared else []), "amount"]
    rows = []
    for day in report.days[-_SHOWN:]:
        row = [day.day, f"{day.shop_orders:,}", f"{day.orders:,}", *([] if day.frauds is None else [f"{day.frauds:,}"])]
        row += [f"{day.changes.get(kind, 0):,}" for kind in ("added", "removed")] if compared else []
        rows.append([*row, amounts(day.amounts_minor)])
    if len(report.days) > _SHOWN:
        yield f"<p>The last {_SHOWN} of {len(report.days):,} days; the JSON report has all.</p>"
    yield _table(head, rows, numbers=set(range(1, len(head) - 1)))


def _samples(samples: Sequence[Sample]) -> str:
    labelled = any(each.fraud is not None for each in samples)
    head = ["time", "order", "user", "amount", "rules", *(["label"] if labelled else [])]
    rows = []
    for each in samples:
        money = f"{grouped(each.amount_minor, each.currency)} {each.currency}"
        row = [rfc3339(each.event_time), each.order_id, each.user_id or "", money, ", ".join(each.rules)]
        rows.append([*row, *([("fraud" if each.fraud else "not labelled")] if labelled else [])])
    return _table(head, rows, numbers={3})


def _judged(orders: int, hits: Hits | None) -> Parts:
    return [("all", orders)] if hits is None else [("fraud", hits.frauds), ("not", hits.false_alarms)]


def _bars(rows: Sequence[tuple[str, Parts]], title: str) -> str:
    """Widths are in percent, so that texts keep their size on any screen."""
    most = max((sum(n for _, n in parts) for _, parts in rows), default=0) or 1
    drawn = []
    for i, (name, parts) in enumerate(rows):
        y, x = i * _ROW, 0.0
        several = " · ".join(f"{n:,} {kind}" for kind, n in parts if n) or "0"
        numbers = several if len(parts) > 1 else f"{parts[0][1]:,}"
        drawn.append(f'<text x="0" y="{y + 14}">{escape(name)}: {numbers}</text>')
        for kind, n in parts:
            width = 100 * n / most
            drawn.append(_rect(kind, x, y + 20, width, _BAR, f"{n:,} {_WORDS[kind]}"))
            x += width
    return _svg(drawn, len(rows) * _ROW, title)


def _columns(days: Sequence[Day], kinds: Sequence[str]) -> str:
    """A column for each day; what was removed hangs below the axis."""
    stacks = [[(kind, _of_day(day, kind)) for kind in kinds] for day in days]
    most = max((sum(n for kind, n in stack if kind != "removed") for stack in stacks), default=0)
    below = max((n for stack in stacks for kind, n in stack if kind == "removed"), default=0)
    scale = _DAY_PX / max(most + below, 1)
    zero = 20 + most * scale
    drawn = [f'<text x="0" y="12">{most:,} at most in a day</text>']
    for i, (day, stack) in enumerate(zip(days, stacks, strict=True)):
        x, width, y = 100 * (i + 0.1) / len(days), 80 / len(days), zero
        for kind, n in stack:
            height = n * scale
            y -= 0 if kind == "removed" else height
            about = f"{day.day}: {n:,} {_WORDS[kind]}"
            drawn.append(_rect(kind, x, zero if kind == "removed" else y, width, height, about))
    drawn.append(f'<line class="axis" x1="0" x2="100%" y1="{zero:.1f}" y2="{zero:.1f}"/>')
    bottom = zero + below * scale + 18
    if days:
        drawn.append(f'<text x="0" y="{bottom:.1f}">{days[0].day}</text>')
    if len(days) > 1:
        drawn.append(f'<text x="100%" y="{bottom:.1f}" text-anchor="end">{days[-1].day}</text>')
    return _svg(drawn, bottom + 6, "Orders alerted on, by day")


def _of_day(day: Day, kind: str) -> int:
    match kind:
        case "all":
            return day.orders
        case "fraud":
            return day.frauds or 0
        case "not":
            return day.orders - (day.frauds or 0)
    return day.changes.get(kind, 0)


def _rect(kind: str, x: float, y: float, width: float, height: float, about: str) -> str:
    return (
        f'<rect class="{kind}" x="{x:.2f}%" y="{y:.1f}" width="{width:.2f}%" height="{height:.1f}">'
        f"<title>{escape(about)}</title></rect>"
    )


def _svg(drawn: Iterable[str], height: float, title: str) -> str:
    return f'<svg height="{height:.0f}" role="img" aria-label="{escape(title)}">{"".join(drawn)}</svg>'


def _legend(kinds: Sequence[str]) -> str:
    square = '<svg aria-hidden="true"><rect class="{}" width="12" height="12"/></svg>'
    spans = "".join(f"<span>{square.format(kind)}{_WORDS[kind]}</span>" for kind in kinds)
    return f'<p class="legend">{spans}</p>'


def _table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Collection[int] = (),
    texts: Collection[int] = (),
) -> str:
    """
    Args:
      numbers, texts: columns with numbers, and columns whose words may be on several lines.
    """
    classes = [' class="n"' if i in numbers else ' class="t"' if i in texts else "" for i in range(len(head))]
    heads = "".join(f'<th scope="col"{name}>{escape(word)}</th>' for name, word in zip(classes, head, strict=True))
    lines = "".join(
        f"<tr>{''.join(f'<td{name}>{escape(cell)}</td>' for name, cell in zip(classes, row, strict=True))}</tr>"
        for row in rows
    )
    return _wide(f"<table><tr>{heads}</tr>{lines}</table>", head[0])


def _wide(table: str, name: str) -> str:
    """It scrolls where the screen is narrower, also by keyboard."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{escape(name)}">{table}</div>'


def _rate(hits: Hits) -> str:
    return "–" if hits.false_alarms_per_1000_orders is None else f"{hits.false_alarms_per_1000_orders:.2f}"
