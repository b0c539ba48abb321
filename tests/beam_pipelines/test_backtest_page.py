"""The report as text and as a page: what it says, and that the page is whole, safe, and as wide as its screen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from playwright.sync_api import Browser

from beam_pipelines.backtest_page import page_of
from beam_pipelines.backtest_text import text_of
from tests import browser
from tests.build import T0
from transforms.domain.backtest import Sample
from transforms.domain.backtest_report import (
    Bad,
    Change,
    Day,
    Figures,
    Hits,
    Input,
    Labels,
    Overlap,
    Report,
    RuleFigures,
)

EVIL = "<script>alert(1)</script>&\"'"
NAMES = ("HIGH_VALUE_BURST", "RAPID_ORDERS", "LOCATION_ANOMALY", "SUSPICIOUS_PATTERN")


def hits(frauds: int, not_: int) -> Hits:
    precision = round(frauds / (frauds + not_), 4) if frauds + not_ else None
    return Hits(frauds, not_, precision, 0.25, 1.5, {"TRY": 1_234_567})


def figures(name: str, labelled: bool, changes: dict[str, int]) -> Figures:
    rules = [
        RuleFigures(rule, 90 * i, 80 * i, 70 * i, {"TRY": 100_000 * i}, 5, hits(i, i) if labelled else None, changes)
        for i, rule in enumerate(NAMES, 1)
    ]  # fmt: skip
    overlaps = [Overlap((NAMES[0], NAMES[1]), 60), Overlap((NAMES[1], NAMES[2]), 1)]
    money = {"EUR": 5_000, "TRY": 123_456_789}
    return Figures(name, 900, 700, 600, money, hits(10, 690) if labelled else None, rules, overlaps)


def report(labelled: bool = True, compared: bool = True, text: str = "") -> Report:
    """Of forty days."""
    changes = {"added": 12, "removed": 0, "kept": 30} if compared else {}
    days = [
        Day(f"2026-{9 + i // 30:02}-{1 + i % 30:02}", 1_000 + i, {"TRY": 9_000}, 20 + i, {"TRY": 800},
            3 if labelled else None, {NAMES[0]: 5}, {"added": 4, "removed": i % 7, "kept": 16 + i} if compared else {})
        for i in range(40)
    ]  # fmt: skip
    sample = Sample("k", f"o-1{text}", f"u-1{text}", T0, 7_660_853, "TRY", [NAMES[0]], True if labelled else None)
    return Report(
        f"archive{text}",
        "2026-09-01",
        None,
        "UTC",
        Input(
            3, 40_100, 40_000, 60, 20, 20, [Bad("InvalidRecordError", 20, f"why{text}")], {f"a.avro{text}": f"x{text}"}
        ),
        40_000,
        9_000,
        {"TRY": 1 << 40},
        Labels(50, 40, {"TRY": 9_876_543}) if labelled else None,
        figures(f"new.yaml{text}", labelled, changes),
        figures(f"old.yaml{text}", labelled, {"removed": 7, "kept": 30}) if compared else None,
        [Change(c, 12, {"TRY": 900}, hits(2, 10) if labelled else None) for c in ("added", "removed", "kept")]
        if compared
        else None,
        {"added": 48, "removed": 28, "kept": 120} if compared else None,
        days,
        {"added" if compared else "flagged": [sample], "missed": [sample] if labelled else []},
    )


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in ("meta", "br", "rect", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if tag in ("rect", "line"):
            return
        assert self.open.pop() == tag


@pytest.mark.parametrize("compared", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
def test_a_page_is_whole_loads_nothing_and_shows_no_markup_of_others(labelled: bool, compared: bool) -> None:
    page = page_of(report(labelled, compared, EVIL))
    parsed = Elements()
    parsed.feed(page)
    assert parsed.open == []
    assert parsed.tags & {"script", "link", "img", "iframe", "object", "base"} == set()
    names = {name for name, _ in parsed.attributes}
    assert names & {"src", "href", "style", "srcset", "action"} == set()
    assert not any(name.startswith("on") for name in names)
    assert EVIL not in page
    assert page.count("&lt;script&gt;") >= 6
    assert not re.search(r"https?://|url\(|@import", page)
    assert ("recall" in page, "Changes" in page) == (labelled, compared)


def test_text_says_all_figures_and_that_days_are_left_off() -> None:
    text = "\n".join(text_of(report()))
    for words in (
        "archive: from 2026-09-01 (UTC)",
        "read 40,100 records of 3 files: 40,000 counted, 60 repeats, 20 of other days, 20 bad",
        "cannot be read: a.avro: x",
        "labelled as fraud: 40 of 50 are in the archive, 98,765.43 TRY",
        "rules new.yaml: 900 alerts on 700 orders of 600 users, 50.00 EUR + 1,234,567.89 TRY",
        "10 fraud, 690 not: precision 1.4 %, recall 25.0 %, 1.50 false alarms per 1,000 orders; caught 12,345.67 TRY",
        "both HIGH_VALUE_BURST and RAPID_ORDERS: 60 orders",
        "against old.yaml",
        "changes: alerts added 48, removed 28, kept 120",
        "the last 31 of 40 days",
        "76,608.53 TRY  HIGH_VALUE_BURST  fraud",
    ):
        assert words in text
    plain = "\n".join(text_of(report(labelled=False, compared=False)))
    assert not re.search("precision|recall|fraud|added|against", plain)


def test_the_report_is_read_back_from_its_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(report()), type=Report) == report()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.needed() as it:
        yield it


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_within_the_screen(chromium: Browser, tmp_path: Path, width: int, theme: str) -> None:
    file = tmp_path / "page.html"
    file.write_text(page_of(report()), encoding="utf-8")
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("requestfailed", lambda request: said.append(request.url))
    page.goto(file.as_uri())
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    # What is wider than the screen scrolls; everything else stands within it.
    out = """() => [...document.querySelectorAll('body *')].filter(e => !e.closest('.wide') &&
        e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 200))"""
    assert page.evaluate(out) == []
    assert page.locator("svg[role=img] rect").count() > 100
    heights = page.eval_on_selector_all("svg[role=img] rect", "all => all.map(e => e.getBoundingClientRect().height)")
    assert max(heights) > 60
    colours = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.querySelector('.kept')).fill]"
    )
    assert colours == ["rgb(255, 255, 255)" if theme == "dark" else "rgb(0, 0, 0)", "rgb(63, 120, 179)"]
    page.close()
