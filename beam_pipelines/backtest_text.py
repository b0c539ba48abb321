"""A backtest's report as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from schemas.currencies import decimal
from schemas.features import rfc3339
from transforms.domain.backtest_report import Figures, Hits, Money, Report

__all__ = ["amounts", "days_of", "grouped", "percent", "text_of"]

_SHOWN = 5
_MOST_DAYS = 31


def text_of(report: Report) -> Iterator[str]:
    read = report.read
    yield f"{report.archive}: {days_of(report)}"
    yield (
        f"read {read.records:,} records of {read.files:,} files: {read.counted:,} counted, {read.repeats:,} repeats, "
        f"{read.outside:,} of other days, {read.bad:,} bad"
    )
    for bad in read.reasons[:_SHOWN]:
        yield f"  {bad.count:,} x {bad.error_class}: {' '.join(bad.example.split())[:300]}"
    for path, why in list(read.unreadable.items())[:_SHOWN]:
        yield f"  cannot be read: {path}: {why}"
    if len(read.unreadable) > _SHOWN:
        yield f"  and {len(read.unreadable) - _SHOWN:,} other files that cannot be read"
    yield (
        f"the shop: {report.shop_orders:,} orders of {report.shop_users:,} users, {amounts(report.shop_amounts_minor)}"
    )
    if labels := report.labels:
        known = f"{labels.known:,} of {labels.given:,} are in the archive, {amounts(labels.amounts_minor)}"
        yield f"labelled as fraud: {known}"
    for figures in (report.rules, report.against):
        if figures is not None:
            yield from ("", *_figures(figures, "against" if figures is report.against else "rules"))
    if report.changes is not None:
        yield from ("", *_changes(report))
    yield from ("", *_days(report))
    for kind, samples in report.samples.items():
        if samples:
            yield f"\n{kind}, for example"
            for each in samples[:_SHOWN]:
                of = f" of {each.user_id}" if each.user_id is not None else ""
                money = f"{grouped(each.amount_minor, each.currency)} {each.currency}"
                judged = {None: "", True: "  fraud", False: "  not labelled"}[each.fraud]
                rules = f"  {', '.join(each.rules)}" if each.rules else ""
                yield f"  {rfc3339(each.event_time)}  {each.order_id}{of}  {money}{rules}{judged}"


def days_of(report: Report) -> str:
    """Which days count, in words."""
    match report.first_day, report.last_day:
        case None, None:
            return f"all days ({report.time_zone})"
        case first, None:
            return f"from {first} ({report.time_zone})"
        case None, last:
            return f"until {last} ({report.time_zone})"
        case first, last:
            return f"{first} to {last} ({report.time_zone})"


def _figures(figures: Figures, word: str) -> Iterator[str]:
    yield (
        f"{word} {figures.name}: {figures.alerts:,} alerts on {figures.orders:,} orders of {figures.users:,} users, "
        f"{amounts(figures.amounts_minor)}"
    )
    if figures.hits:
        yield f"  {_hits(figures.hits)}"
    labelled = figures.hits is not None
    head = ["", "alerts", "orders", "users", "only it"]
    head += ["fraud", "precision", "recall", "false/1000"] if labelled else []
    rows = [[*head, "amount"]]
    for rule in figures.rules:
        row = [rule.name, f"{rule.alerts:,}", f"{rule.orders:,}", f"{rule.users:,}", f"{rule.alone:,}"]
        if hits := rule.hits:
            row += [f"{hits.frauds:,}", percent(hits.precision), percent(hits.recall), _rate(hits)]
        rows.append([*row, amounts(rule.amounts_minor)])
    yield from _table(rows)
    for overlap in figures.overlaps[:_SHOWN]:
        yield f"  both {' and '.join(overlap.rules)}: {overlap.orders:,} orders"


def _hits(hits: Hits) -> str:
    return (
        f"{hits.frauds:,} fraud, {hits.false_alarms:,} not: precision {percent(hits.precision)}, recall "
        f"{percent(hits.recall)}, {_rate(hits)} false alarms per 1,000 orders; caught {amounts(hits.caught_minor)}"
    )


def _changes(report: Report) -> Iterator[str]:
    alerts = report.alert_changes or {}
    yield "changes: alerts " + ", ".join(f"{change} {n:,}" for change, n in alerts.items())
    labelled = report.labels is not None
    rows = [["orders", "", *(["fraud", "not"] if labelled else []), "amount"]]
    for change in report.changes or ():
        hits = [f"{change.hits.frauds:,}", f"{change.hits.false_alarms:,}"] if change.hits else []
        rows.append([change.change, f"{change.orders:,}", *hits, amounts(change.amounts_minor)])
    yield from _table(rows)


def _days(report: Report) -> Iterator[str]:
    if len(report.days) > _MOST_DAYS:
        yield f"the last {_MOST_DAYS} of {len(report.days):,} days"
    compared = report.changes is not None
    head = ["day", "orders", "alerted on", *(["fraud"] if report.labels else [])]
    rows = [[*head, *(["added", "removed"] if compared else []), "amount"]]
    for day in report.days[-_MOST_DAYS:]:
        row = [day.day, f"{day.shop_orders:,}", f"{day.orders:,}"]
        row += [f"{day.frauds:,}"] if day.frauds is not None else []
        row += [f"{day.changes.get(change, 0):,}" for change in ("added", "removed")] if compared else []
        rows.append([*row, amounts(day.amounts_minor)])
    yield from _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The first column to the left, the last as it is, numbers between them to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *numbers, last in rows:
        cells = "".join(f"  {number:>{width}}" for number, width in zip(numbers, widths[1:-1], strict=True))
        yield f"  {first:{widths[0]}}{cells}  {last}".rstrip()


def amounts(money: Money) -> str:
    """In main units, each currency by itself."""
    return " + ".join(f"{grouped(minor, code)} {code}" for code, minor in money.items()) or "no amount"


def grouped(minor: int, code: str) -> str:
    main, point, rest = decimal(minor, code).partition(".")
    return f"{int(main):,}{point}{rest}"


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _rate(hits: Hits) -> str:
    return "–" if hits.false_alarms_per_1000_orders is None else f"{hits.false_alarms_per_1000_orders:.2f}"
