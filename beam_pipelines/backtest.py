"""Tries fraud rules on archived orders: what they would have alerted on, and how good those alerts would have been.

    python -m beam_pipelines.backtest --rules=new.yaml --input=ARCHIVE
    python -m beam_pipelines.backtest --rules=new.yaml --against=current --input=gs://bucket/archive \\
        --labels=chargebacks.csv --from=2026-10-01 --to=2026-10-31 --json=new.json --page=new.html

The rules are the jobs' own, so over the same orders they give the alerts that the stream gives. Nothing is written but
the report: text on standard output, with --json, --page and --alerts also to files; progress goes to standard error. It
needs no runner and no service. Orders wait in temporary files (about 90 bytes each; TMPDIR says where), so memory
hardly grows with the archive. docs/backtest.md says what the figures mean.

Status 0 when orders were read, 1 when there were none or a worker was lost, 2 for a wrong flag.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec
from apache_beam.io.filesystems import FileSystems

from beam_pipelines.backtest_page import page_of
from beam_pipelines.backtest_run import Found, Plan, WorkerLost, run
from beam_pipelines.backtest_text import text_of
from beam_pipelines.flags import read
from beam_pipelines.options import input_url
from beam_pipelines.sinks import KafkaUrl
from schemas.addresses import scrub
from schemas.flags import Parser, UsageError, typed
from schemas.times import starts_ms, time_zone
from transforms.archive import ORDERS_TABLE
from transforms.domain.backtest import reach_ms
from transforms.domain.backtest_report import About, Input, Report, report_of
from transforms.domain.fraud_rules import RuleError, Rules, default_rules, parse_rules
from transforms.domain.labels import LabelError, parse_labels
from transforms.io.files import match_files

__all__ = ["main"]

_CURRENT = "current"
_HOUR_MS = 3_600_000
_FOLDERS = re.compile(r"/day=(\d{4}-\d\d-\d\d)/hour=(\d\d)/[^/]*$")
_MOST_WORKERS = 64


class _Asked(NamedTuple):
    """What the flags say, read and checked."""

    names: list[str]
    paths: list[str]
    plan: Plan
    about: About


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    try:
        flags = parser.read(argv)
        asked = _asked(flags)
    except UsageError as e:
        parser.stop(e)
    try:
        with Path(flags.alerts).open("wb") if flags.alerts else contextlib.nullcontext() as alerts_to:
            found = run(asked.paths, asked.plan, flags.workers, _say, alerts_to)
    except WorkerLost:
        _say("a worker was stopped, perhaps for want of memory; --workers=1 needs half as much")
        return 1
    except OSError as e:
        _say(f"a file cannot be written: {e}; TMPDIR names another folder for the temporary ones")
        return 1
    report = _report(asked, found)
    try:
        for flag, path, content in (
            ("--json", flags.json, msgspec.json.format(msgspec.json.encode(report)).decode() + "\n"),
            ("--page", flags.page, page_of(report) if flags.page else ""),
        ):
            if path:
                read(flag, lambda name, content=content: Path(name).write_text(content, encoding="utf-8"), path)
    except UsageError as e:
        parser.stop(e)
    sys.stdout.write("\n".join(text_of(report)) + "\n")
    _warn(report)
    return 0 if report.read.counted else 1


def _parser() -> Parser:
    about, _, rest = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="python -m beam_pipelines.backtest", description=about, epilog=rest)
    add = parser.add_argument
    add(
        "--rules",
        required=True,
        metavar="FILE",
        help=f"the rules to try, a YAML file; {_CURRENT}: those that are shipped",
    )
    add("--against", metavar="FILE", help=f"rules to compare them with; {_CURRENT}: those that are shipped")
    add(
        "--input",
        required=True,
        metavar="PATH",
        help="an archive; or .avro or .jsonl files of orders: folder, glob or file",
    )
    add(
        "--labels",
        metavar="FILE",
        help="orders that were fraud: CSV with a column order_id, or JSON lines with that field",
    )
    add("--from", dest="first", type=typed(_day), metavar="DATE", help="first day that counts (default: all)")
    add("--to", dest="last", type=typed(_day), metavar="DATE", help="last day that counts (default: all)")
    add("--time_zone", type=typed(time_zone), default="UTC", help="of the days, such as Europe/Istanbul (default: UTC)")
    add("--json", metavar="FILE", help="write the report as JSON, too")
    add("--alerts", metavar="FILE", help="write the alerts of the rules that are tried as JSON lines, too")
    add("--page", metavar="FILE", help="write it as an HTML page with charts, too")
    add("--workers", type=typed(_workers), default=min(os.cpu_count() or 1, 8), metavar="N",
        help="processes (default: one for each processor, at most 8)")  # fmt: skip
    add("--max_orders_per_user", type=typed(_positive), default=1_000, metavar="N",
        help="of a user's orders within the rules' spans, the newest so many (default: 1000)")  # fmt: skip
    return parser


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a date such as 2026-11-22") from None


def _positive(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,8}", text, re.ASCII):
        raise ValueError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _workers(text: str) -> int:
    if _positive(text) > _MOST_WORKERS:
        raise ValueError(f"{text} are more than {_MOST_WORKERS}")
    return int(text)


def _asked(flags: argparse.Namespace) -> _Asked:
    """Raises: UsageError."""
    names = [flags.rules, *([flags.against] if flags.against else [])]
    sets = tuple(_rules(flag, name) for flag, name in zip(("--rules", "--against"), names, strict=False))
    labels = None if flags.labels is None else _labels(flags.labels)
    if flags.first and flags.last and flags.last < flags.first:
        raise UsageError("--to", f"{flags.last} is before --from={flags.first}")
    for flag, path in (("--json", flags.json), ("--alerts", flags.alerts), ("--page", flags.page)):
        if path and not Path(path).parent.is_dir():
            raise UsageError(flag, f"{Path(path).parent} is no folder")
    start_ms = starts_ms(flags.first, flags.time_zone) if flags.first else 0
    end_ms = starts_ms(flags.last + timedelta(days=1), flags.time_zone) if flags.last else 1 << 62
    plan = Plan(sets, time.time_ns() // 1_000_000, start_ms, end_ms, flags.time_zone, labels, flags.max_orders_per_user)
    paths = _paths(flags.input)
    within = [path for path in paths if _may_hold(path, start_ms - max(map(reach_ms, sets)), end_ms)]
    if not within:
        raise UsageError("--input", f"{flags.input} has no files of these days; --from and --to say which")
    days = (None if day is None else day.isoformat() for day in (flags.first, flags.last))
    return _Asked(names, within, plan, About(flags.input, *days, flags.time_zone))


def _rules(flag: str, name: str) -> Rules:
    """Raises: UsageError."""
    if name == _CURRENT:
        return default_rules()
    try:
        return parse_rules(_text(flag, name))
    except RuleError as e:
        raise UsageError(flag, f"{name}: {e}") from e


def _labels(name: str) -> frozenset[str]:
    """Raises: UsageError."""
    try:
        return parse_labels(_text("--labels", name))
    except LabelError as e:
        raise UsageError("--labels", f"{name}: {e}") from e


def _text(flag: str, name: str) -> str:
    """Raises: UsageError."""
    try:
        with FileSystems.open(name) as file:
            return bytes(file.read()).decode()
    except UnicodeDecodeError as e:
        raise UsageError(flag, scrub(f"{name}: {e}")) from e
    except (OSError, ValueError) as e:
        raise UsageError(flag, scrub(e)) from e


def _paths(name: str) -> list[str]:
    """The files of an archive's orders, or those that are named. Raises: UsageError."""
    url = read("--input", input_url, name)
    if isinstance(url, KafkaUrl):
        raise UsageError("--input", "a topic is not read here; name an archive or files of orders")
    of_archive = f"{url.path.rstrip('/')}/{ORDERS_TABLE.name}/**"
    try:
        is_archive = FileSystems.match([of_archive], [1])[0].metadata_list
        return match_files(of_archive if is_archive else url.path)
    except (OSError, ValueError) as e:
        raise UsageError("--input", scrub(e)) from e


def _may_hold(path: str, start_ms: int, end_ms: int) -> bool:
    """Whether a file may have orders of that time: the archive's folders say which hour of event time it is of."""
    if not (of_hour := _FOLDERS.search(path)):
        return True
    try:
        hour_ms = int(datetime.fromisoformat(f"{of_hour[1]}T{of_hour[2]}:00").replace(tzinfo=UTC).timestamp()) * 1000
    except ValueError:
        return True
    return hour_ms + _HOUR_MS > start_ms and hour_ms < end_ms


def _report(asked: _Asked, found: Found) -> Report:
    counted = found.records - found.bad - found.outside - found.repeats
    reasons = sorted(found.reasons.values(), key=lambda bad: (-bad.count, bad.error_class))
    unreadable = dict(sorted(found.unreadable.items()))
    read_ = Input(
        *(len(asked.paths), found.records, counted, found.repeats, found.outside, found.bad), reasons, unreadable
    )
    labels = None if asked.plan.labels is None else len(asked.plan.labels)
    rules = [[rule.name for rule in rules.rules] for rules in asked.plan.sets]
    return report_of(found.tally, read_, asked.names, rules, labels, asked.about)


def _warn(report: Report) -> None:
    if report.read.unreadable:
        _say(f"{len(report.read.unreadable)} files could not be read: their orders are in no figure")
    if report.labels and not report.labels.known:
        _say(f"warning: none of the {report.labels.given:,} labelled orders is in the archive: recall has no meaning")
    if not report.read.counted:
        _say("no order was counted")


def _say(words: str) -> None:
    sys.stderr.write(f"beam_pipelines.backtest: {words}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
